package session

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/proxy/state"
)

// fresh is what is known of a database that nobody has looked at.
func fresh() *Learned {
	k := new(Learned)
	k.hidden.Store(state.EverythingHidden())
	return k
}

func TestLearned_studyThatIsOvertakenByAChange_countsForNothing(t *testing.T) {
	k := fresh()
	version, ok := k.begin(1, 0)
	require.True(t, ok)
	_, ok = k.begin(1, 0)
	require.False(t, ok, "one at a time")
	k.changing()
	require.False(t, k.end(version, nil, 2, time.Hour))
	require.True(t, k.hidden.Load().Everything())

	now := int64(2 * studyPause)
	_, ok = k.begin(now, 0)
	require.False(t, ok, "the change is under way")
	k.changing()
	k.changed()
	_, ok = k.begin(now, 0)
	require.False(t, ok, "so is another one")
	k.changed()
	version, ok = k.begin(now, 0)
	require.True(t, ok)
	k.end(version, nil, now, time.Hour)
	require.Nil(t, k.hidden.Load())
	_, ok = k.begin(now+int64(time.Hour)-1, 0)
	require.False(t, ok)
	_, ok = k.begin(now+int64(time.Hour), 0)
	require.True(t, ok)
}

func TestLearned_manyChangesInARow_areStudiedOnceASecond(t *testing.T) {
	k := fresh()
	studies := 0
	for now := int64(1); now < int64(3*time.Second); now += int64(10 * time.Millisecond) {
		k.changing()
		k.changed()
		if version, ok := k.begin(now, 0); ok {
			studies++
			k.end(version, nil, now, time.Hour)
		}
		require.Equal(t, k.hidden.Load() == nil, k.due.Load() > 0)
	}
	require.Equal(t, 3, studies)
}

func TestLearned_serverLostInAStudy_leavesItToAnother(t *testing.T) {
	k := fresh()
	_, ok := k.begin(1, 0)
	require.True(t, ok)
	k.abandon()
	_, ok = k.begin(1, 0)
	require.True(t, ok)
}

func TestLearned_serverOfAnotherGeneration_mayHideOtherThings(t *testing.T) {
	k := fresh()
	version, _ := k.begin(1, 0)
	k.end(version, nil, 1, time.Hour)
	k.connected(0)
	require.Nil(t, k.hidden.Load())
	k.connected(2)
	require.True(t, k.hidden.Load().Everything())
	_, ok := k.begin(int64(time.Minute), 1)
	require.False(t, ok, "a server from before the switch")
	_, ok = k.begin(int64(time.Minute), 2)
	require.True(t, ok)
}

func TestLearned_caughtTexts_outliveStudies(t *testing.T) {
	k := fresh()
	version, _ := k.begin(1, 0)
	k.end(version, nil, 1, time.Hour)
	text := []byte("select 1 from t")
	k.catch([]uint64{state.Fingerprint(text)})
	require.Equal(t, state.Function, k.hidden.Load().Effects([]byte("SELECT 2 FROM t"), 0))
	require.Zero(t, k.hidden.Load().Effects([]byte("select 1 from u"), 0))
	version, ok := k.begin(int64(2*time.Hour), 0)
	require.True(t, ok)
	k.end(version, nil, int64(2*time.Hour), time.Hour)
	require.Equal(t, state.Function, k.hidden.Load().Effects(text, 0))
}
