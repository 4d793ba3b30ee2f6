package cancel

import (
	"encoding/binary"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

type target struct{ id int }

func (*target) CancelRequested(func()) {}

func TestRegistry_findsTheOwnerOfAKey(t *testing.T) {
	r := NewRegistry()
	keys := map[*target]Key{}
	for i := range 200 {
		one := &target{i}
		key, err := r.Add(one, 0, i%2 == 0)
		require.NoError(t, err)
		require.Len(t, key.Secret(), map[bool]int{true: longSecret, false: shortSecret}[i%2 == 0])
		require.Positive(t, int32(key.PID())) // clients read it as a signed number, and 0 is none
		keys[one] = key
	}
	require.Equal(t, 200, r.Len())
	for one, key := range keys {
		require.Same(t, one, r.Find(key.PID(), key.Secret()))
	}
	for one, key := range keys {
		r.Remove(key)
		require.Nil(t, r.Find(key.PID(), key.Secret()), one.id)
	}
	require.Zero(t, r.Len())
}

func TestRegistry_whatIsNotAKeyFindsNobody(t *testing.T) {
	r := NewRegistry()
	for _, long := range []bool{false, true} {
		key, err := r.Add(new(target), 0, long)
		require.NoError(t, err)
		pid, secret := key.PID(), key.Secret()
		require.Nil(t, r.Find(pid+1, secret))
		require.Nil(t, r.Find(pid, nil))
		for i := range secret {
			wrong := append([]byte(nil), secret...)
			wrong[i]++
			require.Nil(t, r.Find(pid, wrong))
			require.Nil(t, r.Find(pid, secret[:i])) // a part of a key is no key
		}
		require.Nil(t, r.Find(pid, append(append([]byte(nil), secret...), 0)))
	}
	require.Nil(t, r.Find(0, make([]byte, shortSecret)))
	require.Nil(t, r.Find(0, make([]byte, longSecret)))
}

// In session mode the client is shown the process id of its server; several clients may have had the same one.
func TestRegistry_processIDIsTheOneAskedFor(t *testing.T) {
	r := NewRegistry()
	for _, long := range []bool{false, true} {
		a, b := &target{1}, &target{2}
		first, err := r.Add(a, 4711, long)
		require.NoError(t, err)
		second, err := r.Add(b, 4711, long)
		require.NoError(t, err)
		require.Equal(t, uint32(4711), first.PID())
		require.Equal(t, uint32(4711), second.PID())
		require.Same(t, a, r.Find(4711, first.Secret()))
		require.Same(t, b, r.Find(4711, second.Secret()))
	}
}

func TestRegistry_aKeyIsGivenOutOnce(t *testing.T) {
	r := NewRegistry()
	for _, key := range []Key{{short: 5<<32 | 6}, {long: "0123456789"}} {
		require.True(t, r.add(key, &target{1}))
		require.False(t, r.add(key, &target{2}))
		require.Equal(t, 1, r.Find(key.PID(), key.Secret()).(*target).id)
		r.Remove(key)
	}
}

func TestRegistry_removingNoKeyRemovesNothing(t *testing.T) {
	r := NewRegistry()
	_, err := r.Add(new(target), 0, false)
	require.NoError(t, err)
	r.Remove(Key{})
	require.Equal(t, 1, r.Len())
}

func TestRandom_isNeverProcessZero(t *testing.T) {
	seen := map[uint32]bool{}
	for range 1000 {
		key, err := random(0, true)
		require.NoError(t, err)
		require.NotZero(t, key.PID())
		require.Less(t, key.PID(), uint32(1)<<31)
		seen[binary.BigEndian.Uint32(key.Secret())] = true
	}
	require.Greater(t, len(seen), 990)
}

func TestRegistry_fromManyGoroutines(t *testing.T) {
	r := NewRegistry()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 200 {
				one := &target{i}
				key, err := r.Add(one, 0, i%2 == 0)
				if err != nil || r.Find(key.PID(), key.Secret()) != Target(one) {
					t.Error("the key is not found")
				}
				r.Remove(key)
			}
		})
	}
	all.Wait()
	require.Zero(t, r.Len())
}
