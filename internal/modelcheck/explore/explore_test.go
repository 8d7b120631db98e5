package explore

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func hashOf(s string) Hash {
	sum := sha256.Sum256([]byte(s))
	return Hash{binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:])}
}

// system is one whose states are written out.
type system struct {
	start string
	steps func(s string, to func(string), fail func(error))
}

func (s system) Start() (string, Hash) { return s.start, hashOf(s.start) }

func (s system) Steps(state string, v *Visit[string]) {
	s.steps(state, func(next string) {
		switch {
		case next == state:
			v.Idle()
		case v.Step(hashOf(next)):
			v.Add(next)
		}
	}, v.Fail)
}

// counters count up to a limit, each by itself.
func counters(n, limit int) system {
	return system{
		start: string(make([]byte, n)),
		steps: func(s string, to func(string), _ func(error)) {
			for i := range n {
				if int(s[i]) < limit {
					b := []byte(s)
					b[i]++
					to(string(b))
				}
			}
		},
	}
}

// All states are found, each at its depth, and each step from them is taken; with any number of workers.
func TestAllStatesAreFound(t *testing.T) {
	for _, workers := range []int{1, 2, 3, 64} {
		r, err := Run(counters(5, 6), Options{Workers: workers})
		require.NoError(t, err)
		require.True(t, r.Complete)
		require.Empty(t, r.Stopped)
		require.EqualValues(t, 7*7*7*7*7, r.States)
		require.EqualValues(t, 5*6*7*7*7*7, r.Transitions)
		require.EqualValues(t, 1, r.Ends)
		require.Equal(t, 5*6, r.Depth)
		require.Len(t, r.Levels, 5*6+1)
		require.Equal(t, []uint64{1, 5, 15, 35}, r.Levels[:4])
		require.EqualValues(t, 1, r.Levels[30])
		sum := uint64(0)
		for _, n := range r.Levels {
			sum += n
		}
		require.Equal(t, r.States, sum)
		require.NoError(t, r.Violation)
	}
}

// Jugs of three and five gallons, and a tap: of the 24 fillings 16 can be reached, and it takes six steps until
// there are four gallons in one.
func jugs(wanted int) system {
	return system{
		start: "\x00\x00",
		steps: func(s string, to func(string), fail func(error)) {
			small, large := int(s[0]), int(s[1])
			pour := func(a, b int) {
				if b == wanted {
					fail(fmt.Errorf("%d gallons", b))
					return
				}
				to(string([]byte{byte(a), byte(b)}))
			}
			pour(3, large)
			pour(small, 5)
			pour(0, large)
			pour(small, 0)
			n := min(small, 5-large)
			pour(small-n, large+n)
			n = min(large, 3-small)
			pour(small+n, large-n)
		},
	}
}

func TestTheShortestWayToAViolationIsFound(t *testing.T) {
	r, err := Run(jugs(9), Options{})
	require.NoError(t, err)
	require.True(t, r.Complete)
	require.EqualValues(t, 16, r.States)

	for _, workers := range []int{1, 2, 5} {
		r, err = Run(jugs(4), Options{Workers: workers})
		require.NoError(t, err)
		require.False(t, r.Complete)
		require.EqualError(t, r.Violation, "4 gallons")
		require.Len(t, r.Path, 6)
		states, err := Replay(jugs(4), r.Path)
		require.EqualError(t, err, "4 gallons")
		require.Equal(t, []string{"\x00\x00", "\x00\x05", "\x03\x02", "\x00\x02", "\x02\x00", "\x02\x05"}, states)
	}
}

// Two processes take two locks, one after the other, and give them back. A digit each: how many they have.
func locks(sameOrder bool) system {
	return system{
		start: "00",
		steps: func(s string, to func(string), _ func(error)) {
			taken := func(i int, lock int) bool {
				have := int(s[i] - '0')
				if i == 1 && !sameOrder {
					lock = 1 - lock
				}
				return lock < have
			}
			for i := range 2 {
				have := int(s[i] - '0')
				next := have
				if i == 1 && !sameOrder {
					next = 1 - have
				}
				b := []byte(s)
				switch {
				case have == 2:
					b[i] = '0'
				case taken(1-i, next):
					continue
				default:
					b[i]++
				}
				to(string(b))
			}
		},
	}
}

// A state from which no step leads away is counted: here, who waits for the other one forever.
func TestDeadlocksAreCounted(t *testing.T) {
	r, err := Run(locks(true), Options{})
	require.NoError(t, err)
	require.True(t, r.Complete)
	require.Zero(t, r.Ends)
	require.EqualValues(t, 5, r.States) // nobody, or one of them, has one or two

	r, err = Run(locks(false), Options{})
	require.NoError(t, err)
	require.True(t, r.Complete)
	require.EqualValues(t, 1, r.Ends)
	require.EqualValues(t, 6, r.States) // or both have one

	// As a violation: the shortest way there.
	deadlock := errors.New("deadlock")
	waits := locks(false)
	steps := waits.steps
	waits.steps = func(s string, to func(string), fail func(error)) {
		moved := false
		steps(s, func(next string) { moved = true; to(next) }, fail)
		if !moved {
			fail(deadlock)
		}
	}
	r, err = Run(waits, Options{})
	require.NoError(t, err)
	require.ErrorIs(t, r.Violation, deadlock)
	require.Equal(t, []uint64{1, 2, 3}, r.Levels)
	states, err := Replay(waits, r.Path)
	require.ErrorIs(t, err, deadlock)
	require.Equal(t, "11", states[2])
}

func TestIdleStepsAreNoSteps(t *testing.T) {
	r, err := Run(system{start: "a", steps: func(s string, to func(string), _ func(error)) { to(s) }}, Options{})
	require.NoError(t, err)
	require.True(t, r.Complete)
	require.EqualValues(t, 1, r.States)
	require.EqualValues(t, 1, r.Transitions)
	require.EqualValues(t, 1, r.Idle)
	require.EqualValues(t, 1, r.Ends)
}

// A bound is said, and nothing is called complete that is not.
func TestBounds(t *testing.T) {
	for what, o := range map[string]Options{
		"depth 4":     {MaxDepth: 4},
		"1ns":         {MaxTime: 1},
		"0 MiB of me": {MaxBytes: 1},
	} {
		r, err := Run(counters(5, 6), o)
		require.NoError(t, err)
		require.False(t, r.Complete, what)
		require.Contains(t, r.Stopped, what)
		require.Less(t, r.States, uint64(7*7*7*7*7), what)
	}
	calls := 0
	r, err := Run(counters(5, 6), Options{MaxStates: 1000, Progress: func(Result) { calls++ }})
	require.NoError(t, err)
	require.False(t, r.Complete)
	require.Equal(t, fmt.Sprintf("%d states", r.States), r.Stopped)
	require.GreaterOrEqual(t, r.States, uint64(1000))
	require.Less(t, r.States, uint64(7*7*7*7*7))
	require.Positive(t, calls)

	// A bound that is just not reached.
	r, err = Run(counters(5, 6), Options{MaxDepth: 31, MaxTime: time.Hour, MaxBytes: 1 << 40, MaxStates: 1 << 40})
	require.NoError(t, err)
	require.True(t, r.Complete)
}

// bounded is a system with a bound of its own, and with states from which no more is possible than from others.
type bounded struct{ within bool }

// State is a place from 0 to 5, and how much fuel is left.
func (b bounded) Start() ([2]int, Hash) { s := [2]int{0, 3}; return s, hashOf(fmt.Sprint(s)) }

func (b bounded) Steps(s [2]int, v *Visit[[2]int]) {
	for _, next := range [][2]int{{s[0] + 1, s[1]}, {s[0], s[1] - 1}} {
		if next[0] > 5 || next[1] < 0 {
			v.Beyond()
			continue
		}
		var within []Hash
		for fuel := next[1] + 1; b.within && fuel <= 3; fuel++ {
			within = append(within, hashOf(fmt.Sprint([2]int{next[0], fuel})))
		}
		if v.Step(hashOf(fmt.Sprint(next)), within...) {
			v.Add(next)
		}
	}
}

func TestWithinAndBeyond(t *testing.T) {
	all, err := Run[[2]int](bounded{}, Options{})
	require.NoError(t, err)
	require.True(t, all.Complete)
	require.EqualValues(t, 6*4, all.States)
	require.Positive(t, all.Beyond)
	require.Zero(t, all.Within)

	some, err := Run[[2]int](bounded{within: true}, Options{})
	require.NoError(t, err)
	require.True(t, some.Complete)
	require.Positive(t, some.Within)
	require.EqualValues(t, 6, some.States) // all places, with all the fuel
}

// A system that depends on something else than its state is none.
func TestNondeterminismIsFound(t *testing.T) {
	var calls atomic.Int64
	whims := system{start: "a", steps: func(s string, to func(string), _ func(error)) {
		if len(s) < 5 {
			to(fmt.Sprint(s, calls.Add(1)))
		}
	}}
	_, err := Run(whims, Options{})
	require.ErrorIs(t, err, ErrNondeterministic)

	// One that can't show what it has found.
	calls.Store(0)
	broken := errors.New("broken")
	_, err = Run(system{start: "a", steps: func(_ string, to func(string), fail func(error)) {
		if calls.Add(1) <= 2 { // the first state's are taken twice
			fail(broken)
		} else {
			to("b")
		}
	}}, Options{Workers: 1})
	require.ErrorIs(t, err, ErrNondeterministic)

	_, err = Replay(counters(1, 1), []int{0, 0})
	require.ErrorIs(t, err, ErrNondeterministic)
	_, err = Replay(counters(1, 1), []int{7})
	require.ErrorIs(t, err, ErrNondeterministic)
}

// The set of states finds what was put in, and nothing else, however full it is.
func TestTable(t *testing.T) {
	var v visited
	const n = 50_000
	refs := make(map[ref]Hash)
	for i := range n {
		h := hashOf(fmt.Sprint(i))
		require.False(t, v.has(h))
		r, isNew, full := v.insert(entry{hash: h, step: uint32(i)})
		require.True(t, isNew)
		require.False(t, full)
		refs[r] = h
		_, isNew, _ = v.insert(entry{hash: h, step: noStep})
		require.False(t, isNew)
	}
	require.Len(t, refs, n)
	for r, h := range refs {
		require.True(t, v.has(h))
		require.Equal(t, h, v.at(r).hash)
		require.NotEqual(t, uint32(noStep), v.at(r).step) // the first one stays
	}
	states, bytes := v.states()
	require.EqualValues(t, n, states)
	require.Less(t, bytes, uint64(n*(entryBytes+16)+shards*(blockSize*entryBytes+8<<10)))
}
