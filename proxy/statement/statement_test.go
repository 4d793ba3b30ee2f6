package statement

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"pgsidecar/proxy/state"
)

// some returns n distinct statements.
func some(n int) []*Statement {
	all := make([]*Statement, n)
	for i := range all {
		all[i] = &Statement{Name: fmt.Sprint(i), Definition: fmt.Sprint("select ", i, "\x00\x00\x00")}
	}
	return all
}

func TestStatement_queryIsTheTextAlone(t *testing.T) {
	st := &Statement{Definition: "select $1\x00\x00\x01\x00\x00\x00\x17"}
	require.Equal(t, "select $1", st.Query())
	require.True(t, st.Kept())
	require.False(t, new(Statement).Kept())
	require.Empty(t, new(Statement).Query())
}

func TestNames_boundForgetsTheOneUsedLongestAgo(t *testing.T) {
	var n Names
	sts := some(4)
	for i, key := range []string{"a", "b", "c"} {
		n.Put(key, sts[i], 3)
	}
	require.Same(t, sts[0], n.Get([]byte("a"))) // b is the oldest now
	n.Put("d", sts[3], 3)
	require.Nil(t, n.Get([]byte("b")))
	require.Equal(t, 3, n.Len())
	n.Put("c", sts[1], 3) // a new meaning for a known name forgets nothing
	require.Equal(t, 3, n.Len())
	require.Same(t, sts[1], n.Get([]byte("c")))
	n.Put("e", sts[1], 3) // a is the oldest
	require.Nil(t, n.Get([]byte("a")))
	n.Delete("nothing")
	n.Clear()
	require.Zero(t, n.Len())
	n.Put("a", sts[0], 0) // no bound
	require.Same(t, sts[0], n.Get([]byte("a")))
}

func TestNames_allStopsWhenTold(t *testing.T) {
	var n Names
	n.All(func(string, *Statement) bool { t.Fatal("there are none"); return true })
	for i, st := range some(5) {
		n.Put(fmt.Sprint(i), st, 0)
	}
	seen := map[string]*Statement{}
	n.All(func(key string, st *Statement) bool { seen[key] = st; return true })
	require.Len(t, seen, 5)
	require.Equal(t, "3", seen["3"].Name)
	calls := 0
	n.All(func(string, *Statement) bool { calls++; return calls < 2 })
	require.Equal(t, 2, calls)
}

func TestNames_hitsDoNotAllocate(t *testing.T) {
	var n Names
	st := some(1)[0]
	for i := range 100 {
		n.Put(fmt.Sprint("name", i), st, 100)
	}
	key := []byte("name50")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if n.Get(key) != st {
			t.Fatal("it is there")
		}
	}))
}

// Names and a slice in the order of use, side by side.
func TestNames_agreeWithASlowOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var n Names
		bound := rapid.IntRange(1, 6).Draw(t, "bound")
		sts := some(4)
		meaning := map[string]*Statement{}
		var order []string // oldest first
		use := func(key string) {
			order = slices.DeleteFunc(order, func(k string) bool { return k == key })
			order = append(order, key)
		}
		name := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g", "h"})
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			key := name.Draw(t, "name")
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				require.Same(t, meaning[key], n.Get([]byte(key)))
				if meaning[key] != nil {
					use(key)
				}
			case 1:
				n.Delete(key)
				delete(meaning, key)
				order = slices.DeleteFunc(order, func(k string) bool { return k == key })
			default:
				st := rapid.SampledFrom(sts).Draw(t, "statement")
				n.Put(key, st, bound)
				if meaning[key] == nil && len(order) == bound {
					delete(meaning, order[0])
					order = order[1:]
				}
				meaning[key] = st
				use(key)
			}
			require.Equal(t, len(meaning), n.Len())
		}
		all := map[string]*Statement{}
		n.All(func(key string, st *Statement) bool { all[key] = st; return true })
		require.True(t, maps.Equal(meaning, all))
	})
}

func TestHeld_readyWithinItsSegmentAndOnceConfirmed(t *testing.T) {
	var h Held
	st := some(1)[0]
	require.Equal(t, Missing, h.Standing(st, 1))
	h.Prepare(st, 1, 1, 0)
	require.Equal(t, Ready, h.Standing(st, 1))
	require.Equal(t, Doubtful, h.Standing(st, 2)) // an error in segment 1 may still undo it
	h.Done(st, 1)
	require.Equal(t, Ready, h.Standing(st, 2))
}

func TestHeld_closedWithinItsSegmentAndOnceConfirmed(t *testing.T) {
	var h Held
	st := some(1)[0]
	h.Prepare(st, 1, 1, 0)
	h.Done(st, 1)
	h.Close(st, 2, 2)
	require.Equal(t, Missing, h.Standing(st, 2))
	require.Equal(t, Doubtful, h.Standing(st, 3))
	h.Done(st, 2)
	require.Equal(t, Missing, h.Standing(st, 3))
	require.Zero(t, h.Len())
}

func TestHeld_whatWasSkippedIsDoubtful(t *testing.T) {
	for _, change := range []func(h *Held, st *Statement){
		func(h *Held, st *Statement) { h.Prepare(st, 2, 1, 0) },
		func(h *Held, st *Statement) { h.Close(st, 2, 1) },
	} {
		var h Held
		st := some(1)[0]
		change(&h, st)
		h.Skipped(st, 2)
		for segment := range uint32(5) {
			require.Equal(t, Doubtful, h.Standing(st, segment))
		}
		h.Prepare(st, 3, 2, 0)
		h.Done(st, 3)
		require.Equal(t, Ready, h.Standing(st, 9))
	}
}

func TestHeld_refusedIsMissing(t *testing.T) {
	var h Held
	st := some(1)[0]
	h.Prepare(st, 1, 1, 0)
	h.Refused(st, 1)
	require.Equal(t, Missing, h.Standing(st, 1))
}

// Answers to an earlier change say nothing about a later one.
func TestHeld_theLatestChangeDecides(t *testing.T) {
	for name, late := range map[string]func(h *Held, st *Statement){
		"done": func(h *Held, st *Statement) { h.Done(st, 1) }, "skipped": func(h *Held, st *Statement) { h.Skipped(st, 1) },
		"refused": func(h *Held, st *Statement) { h.Refused(st, 1) },
	} {
		var h Held
		st := some(1)[0]
		h.Prepare(st, 1, 1, 0)
		h.Close(st, 2, 2)
		late(&h, st)
		require.Equal(t, Missing, h.Standing(st, 2), name)
		h.Prepare(st, 3, 2, 0)
		late(&h, st)
		require.Equal(t, Ready, h.Standing(st, 2), name)
		require.Equal(t, Doubtful, h.Standing(st, 3), name)
		h.Remove(st)
		late(&h, st)
		require.Equal(t, Missing, h.Standing(st, 3), name)
	}
}

func TestHeld_spoiltStatementsAreDoubtful(t *testing.T) {
	var h Held
	st := some(1)[0]
	h.Prepare(st, 1, 1, 0)
	h.Done(st, 1)
	st.Spoil()
	require.Equal(t, Doubtful, h.Standing(st, 2))
	h.Close(st, 2, 2)
	h.Prepare(st, 3, 2, 0)
	require.Equal(t, Ready, h.Standing(st, 2))
}

func TestHeld_freshKnowsTheCatalogsAge(t *testing.T) {
	var h Held
	st := some(1)[0]
	h.Prepare(st, 1, 1, 7)
	require.True(t, h.Fresh(st, 7))
	require.False(t, h.Fresh(st, 8))
}

func TestHeld_surplusIsWhatWasUsedLongestAgo(t *testing.T) {
	var h Held
	require.Nil(t, h.Surplus(1, 1))
	sts := some(4)
	for i, st := range sts[:3] {
		h.Prepare(st, uint32(i+1), 1, 0)
	}
	require.Nil(t, h.Surplus(1, 4))
	require.Same(t, sts[0], h.Surplus(1, 3))
	h.Standing(sts[0], 1)
	require.Same(t, sts[1], h.Surplus(1, 3))
	h.Close(sts[1], 9, 1) // makes room for what follows in its segment
	require.Nil(t, h.Surplus(1, 3))
	require.NotNil(t, h.Surplus(2, 3)) // in another one it may turn out not to have happened
	h.Remove(sts[1])
	h.Remove(sts[1])
	require.Nil(t, h.Surplus(2, 3))
	large := &Statement{Name: "large"}
	h.Clear()
	require.Zero(t, h.Len())
	h.Prepare(large, 10, 2, 0)
	require.Nil(t, h.Surplus(2, 1), "it could not be prepared again")
}

func TestHeld_useDoesNotAllocate(t *testing.T) {
	var h Held
	sts := some(100)
	for i, st := range sts {
		h.Prepare(st, uint32(i+1), 1, 0)
		h.Done(st, uint32(i+1))
	}
	op := uint32(1000)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		op++
		st := sts[op%100]
		if h.Standing(st, 2) != Ready || !h.Fresh(st, 0) {
			t.Fatal("it is held")
		}
		h.Close(st, op, 2)
		h.Prepare(st, op, 2, 0)
		h.Done(st, op)
	}))
}

// change is a Parse or Close that is on its way to a server.
type change struct {
	st      *Statement
	op      uint32
	segment uint32
	closing bool
}

// A server that is used as Held says never sees a name twice and never misses one, whatever is skipped because of errors.
func TestHeld_agreesWithAServer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h Held
		var sent []change
		bound := rapid.IntRange(1, 4).Draw(t, "bound")
		sts, holds := some(4), map[*Statement]bool{}
		op, segment := uint32(0), uint32(1)
		send := func(st *Statement, closing bool) {
			op++
			if closing {
				h.Close(st, op, segment)
			} else {
				h.Prepare(st, op, segment, 0)
			}
			sent = append(sent, change{st, op, segment, closing})
		}
		prepare := func(st *Statement) {
			for one := h.Surplus(segment, bound); one != nil; one = h.Surplus(segment, bound) {
				send(one, true)
			}
			send(st, false)
		}
		answerSegment := func() { // in which an error may come at any place
			of := sent[0].segment
			failed := rapid.IntRange(0, 8).Draw(t, "fails at")
			for i := 0; len(sent) > 0 && sent[0].segment == of; i++ {
				c := sent[0]
				sent = sent[1:]
				switch {
				case i >= failed:
					h.Skipped(c.st, c.op)
					continue
				case !c.closing && holds[c.st]:
					t.Fatalf("statement %s is prepared twice", c.st.Name)
				}
				if holds[c.st] = !c.closing; c.closing {
					delete(holds, c.st)
				}
				require.LessOrEqual(t, len(holds), bound)
				h.Done(c.st, c.op)
			}
		}
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			st := rapid.SampledFrom(sts).Draw(t, "statement")
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				segment++
			case 1:
				if len(sent) > 0 && sent[0].segment != segment {
					answerSegment()
				}
			case 2:
				send(st, true)
			default:
				switch h.Standing(st, segment) {
				case Missing:
					prepare(st)
				case Doubtful:
					send(st, true)
					prepare(st)
				case Ready:
					require.True(t, holds[st] || slices.ContainsFunc(sent, func(c change) bool { return c.st == st }))
				}
			}
		}
		for segment++; len(sent) > 0; {
			answerSegment()
		}
		for _, st := range sts {
			switch h.Standing(st, segment) {
			case Ready:
				require.True(t, holds[st])
			case Missing:
				require.False(t, holds[st])
			case Doubtful:
			}
		}
	})
}

func TestTable_equalDefinitionsAreOneStatement(t *testing.T) {
	table := NewTable(new(Numbers), 0)
	a := table.Intern("", []byte("select $1\x00\x00\x00"), 9)
	require.Same(t, a, table.Intern("", []byte("select $1\x00\x00\x00"), 9))
	typed := table.Intern("", []byte("select $1\x00\x00\x01\x00\x00\x00\x17"), 9)
	require.NotSame(t, a, typed)
	require.NotEqual(t, a.Name, typed.Name)
	require.Equal(t, "select $1\x00\x00\x00", a.Definition)
	require.True(t, strings.HasPrefix(a.Name, Prefix))
	require.Equal(t, 2, table.Len())
	listen := table.Intern("", []byte("listen x\x00\x00\x00"), 8)
	require.True(t, listen.Effects.Has(state.Listen))
}

func TestTable_namesAreUniqueOverAllTables(t *testing.T) {
	numbers := new(Numbers)
	seen := map[string]bool{}
	for range 3 {
		table := NewTable(numbers, 0)
		for i := range 100 {
			seen[table.Intern("", fmt.Appendf(nil, "select %d\x00\x00\x00", i), 8).Name] = true
		}
		anonymous := table.Anonymous()
		seen[anonymous.Name] = true
		require.False(t, anonymous.Kept())
		require.True(t, anonymous.Effects.Has(state.Unknown))
	}
	require.Len(t, seen, 303)
}

// What is used stays through any number of generations; what is not is forgotten within two.
func TestTable_isBoundedByTwoGenerations(t *testing.T) {
	table := NewTable(new(Numbers), 10)
	definition := func(i int) []byte { return fmt.Appendf(nil, "select %d\x00\x00\x00", i) }
	used, unused := table.Intern("", definition(-1), 9), table.Intern("", definition(-2), 9)
	for i := range 1000 {
		table.Intern("", definition(i), 9)
		require.Same(t, used, table.Intern("", definition(-1), 9))
		require.LessOrEqual(t, table.Len(), 20)
	}
	require.NotSame(t, unused, table.Intern("", definition(-2), 9))

	table = NewTable(new(Numbers), 2)
	for _, i := range []int{1, 2, 3, 1} { // the last moves from the old generation to the young one
		table.Intern("", definition(i), 8)
	}
	require.Equal(t, 3, table.Len())
}

func TestTable_isBoundedByBytes(t *testing.T) {
	table := NewTable(new(Numbers), 0)
	require.Equal(t, DefaultBytes, table.maxBytes)
	table.maxBytes = 8 << 10
	text := strings.Repeat("x", 1<<10)
	for i := range 40 {
		d := fmt.Appendf(nil, "select %d --%s\x00\x00\x00", i, text)
		table.Intern("", d, len(d)-3)
		require.LessOrEqual(t, table.Len(), 2*8)
	}
}

func TestTable_hitsDoNotAllocate(t *testing.T) {
	table := NewTable(new(Numbers), 0)
	definition := []byte("select * from pgbench_accounts where aid = $1\x00\x00\x01\x00\x00\x00\x17")
	st := table.Intern("", definition, len(definition)-7)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if table.Intern("", definition, len(definition)-7) != st {
			t.Fatal("it is there")
		}
	}))
}
