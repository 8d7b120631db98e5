package paxoscommit

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/probe"
)

// command is what a client has proposed in a group: it may be applied at any later time, or never.
type command struct {
	group     uint32
	step      Step
	outcome   Outcome
	timestamp uint64
}

// world is groups with their registers, and a transaction over all of them. refuse: the group that votes no.
type world struct {
	t       *testing.T
	id      ID
	groups  []uint32
	state   []*Registers
	refuse  int
	locks   []bool // of the transaction in each group
	written []bool
	points  int // that were passed, of the client that runs
	answer  Outcome
}

func newWorld(t *testing.T, n, refuse int) *world {
	w := &world{t: t, id: ID{Session{5, 1}, 1}, refuse: refuse, locks: make([]bool, n), written: make([]bool, n)}
	for i := range n {
		w.groups = append(w.groups, uint32(i))
		w.state = append(w.state, NewRegisters())
	}
	return w
}

// apply is what a group's state machine does.
func (w *world) apply(c command) (Record, Standing) {
	r := w.state[c.group]
	switch c.step {
	case Prepare:
		if record, standing := r.Look(w.id); standing != Open {
			return record, standing
		}
		record := Record{Vote: Yes, Timestamp: 10 + uint64(c.group), Groups: w.groups}
		if int(c.group) == w.refuse {
			record = Record{Vote: No, Outcome: Aborted, Groups: w.groups}
		} else {
			w.locks[c.group] = true
		}
		r.Write(w.id, record, 10)
		return record, Voted
	case Close:
		return r.Close(w.id, w.groups, 10)
	case Resolve:
		before, isNew, wrong := r.Resolve(w.id, c.outcome, c.timestamp, w.groups, 10)
		require.False(w.t, wrong, "group %d, which has %v, hears of %v", c.group, before, c.outcome)
		if isNew && before.Vote == Yes {
			w.locks[c.group] = false
			if c.outcome == Committed {
				require.Equal(w.t, 9+uint64(len(w.groups)), c.timestamp)
				w.written[c.group] = true
			}
		}
	case Finish:
		r.Finish(w.id)
	}
	return Record{}, Open
}

// drive runs a client until it is done, or dies at a point: before a command is proposed, when it is proposed and not applied, or when
// it is applied and not answered. What it leaves under way is returned.
func (w *world) drive(c *Coordinator, dies int) (left []command, dead bool) {
	point := func() bool { w.points++; return w.points == dies }
	w.points = 0
	for !c.Done() {
		for _, g := range w.groups {
			step := c.Step(g)
			if step == Nothing {
				continue
			}
			outcome, timestamp := c.Outcome()
			cmd := command{g, step, outcome, timestamp}
			if point() {
				return nil, true
			}
			if point() {
				return []command{cmd}, true
			}
			record, standing := w.apply(cmd)
			if point() {
				return []command{cmd}, true // it may be applied a second time
			}
			switch step {
			case Prepare, Close:
				c.Voted(g, record, standing)
			case Resolve:
				c.Resolved(g)
			case Finish:
				c.Finished(g)
			}
			if outcome, _ := c.Outcome(); outcome != Unknown && w.answer == Unknown {
				w.answer = outcome // the client's caller knows now
			}
		}
	}
	return nil, false
}

// check holds what there is against what must be when all is over.
func (w *world) check() {
	committed := 0
	for i, r := range w.state {
		record, standing := r.Look(w.id)
		require.False(w.t, w.locks[i], "group %d holds locks", i)
		if w.written[i] {
			committed++
		}
		if standing == Voted {
			require.NotEqual(w.t, Unknown, record.Outcome)
			require.Equal(w.t, w.written[i], record.Outcome == Committed)
		}
	}
	require.Contains(w.t, []int{0, len(w.groups)}, committed, "a split")
	if w.answer == Committed {
		require.Equal(w.t, len(w.groups), committed, "an answer was wrong")
	}
	if w.answer == Aborted {
		require.Zero(w.t, committed, "an answer was wrong")
	}
}

// crashes has the coordinator die at each point, and the recoverer that comes after it at each as well; and what they had proposed come at
// once, after the other's end, or never. It returns how many runs that were.
func crashes(t *testing.T, n int) (runs int) {
	for refuse := -1; refuse < n; refuse++ {
		for late := range 3 {
			for first := 1; ; first++ {
				died := false
				for second := 1; ; second++ {
					w := newWorld(t, n, refuse)
					runs++
					left, dead := w.drive(NewCoordinator(w.id, w.groups), first)
					died = dead
					if !dead {
						w.check()
						break
					}
					hold := func(when int) {
						if late == when {
							for _, c := range left {
								w.apply(c)
							}
							left = nil
						}
					}
					hold(0)
					more, deadToo := w.drive(NewRecoverer(w.id, w.groups), second)
					left = append(left, more...)
					hold(1)
					_, dead = w.drive(NewRecoverer(w.id, w.groups), 0)
					require.False(t, dead)
					w.check()
					for _, c := range left { // later than everything else
						w.apply(c)
					}
					w.check()
					if !deadToo {
						break
					}
				}
				if !died {
					break
				}
			}
		}
	}
	return runs
}

// TestCrashesAtEachPoint, and at all pairs of points, of two and three groups.
func TestCrashesAtEachPoint(t *testing.T) {
	for n := 1; n <= 3; n++ {
		t.Logf("%d groups: %d runs", n, crashes(t, n))
	}
}

// TestMistakesAreFound by those crashes.
func TestMistakesAreFound(t *testing.T) {
	for _, bug := range []string{"paxoscommit: closing leaves no record", "paxoscommit: commit without all votes"} {
		t.Run(bug, func(t *testing.T) {
			defer probe.Plant(bug)()
			require.True(t, fails(func(t *testing.T) { crashes(t, 3) }), "nothing was noticed")
		})
	}
}

// fails reports whether a test fails, without failing its caller.
func fails(fn func(t *testing.T)) bool {
	done, inner := make(chan struct{}), &testing.T{}
	go func() {
		defer close(done)
		fn(inner)
	}()
	<-done
	return inner.Failed()
}

// TestForgetting: what is forgotten is never taken for new.
func TestForgetting(t *testing.T) {
	id := func(session, counter uint64) ID { return ID{Session{session, 1}, counter} }
	yes := Record{Vote: Yes, Timestamp: 7, Groups: []uint32{0, 1}}
	r := NewRegisters()
	r.Write(id(5, 1), yes, 10)
	r.Touch(id(5, 0).Session, 2, 11)
	_, standing := r.Look(id(5, 1))
	require.Equal(t, Voted, standing, "it has no outcome: a client that says it is over is wrong")
	r.Resolve(id(5, 1), Committed, 9, nil, 12)
	require.Zero(t, r.Expire(100), "another group may not know the outcome")
	r.Finish(id(5, 1))
	r.Touch(id(5, 0).Session, 3, 13)
	_, standing = r.Look(id(5, 1))
	require.Equal(t, Voted, standing, "it stays until its session goes: the floor had passed it before")
	_, standing = r.Look(id(5, 2))
	require.Equal(t, Over, standing)
	_, standing = r.Look(id(5, 3))
	require.Equal(t, Open, standing)

	require.Zero(t, r.Expire(13))
	require.Equal(t, 1, r.Expire(14))
	_, standing = r.Look(id(5, 3))
	require.Equal(t, Expired, standing)
	_, standing = r.Look(id(4, 1))
	require.Equal(t, Expired, standing, "older than one that was forgotten")
	_, standing = r.Look(id(6, 1))
	require.Equal(t, Open, standing)
	record, standing := r.Close(id(5, 1), nil, 20)
	require.Equal(t, Expired, standing, "an old intent's finder gets no new record: %v", record)
	_, isNew, wrong := r.Resolve(id(5, 1), Aborted, 0, nil, 20)
	require.False(t, isNew || wrong)
}

// TestLateRecoverer: one who has asked a group before it knew of the commit, and another one after it had forgotten it, takes
// the transaction for aborted. Nothing follows from that, and nobody is alarmed.
func TestLateRecoverer(t *testing.T) {
	w := newWorld(t, 2, -1)
	c := NewCoordinator(w.id, w.groups)
	for _, g := range w.groups {
		record, standing := w.apply(command{group: g, step: Prepare})
		c.Voted(g, record, standing)
	}
	late := NewRecoverer(w.id, w.groups)
	record, standing := w.apply(command{group: 0, step: Close})
	late.Voted(0, record, standing)
	_, dead := w.drive(c, 0)
	require.False(t, dead)
	w.state[1].Touch(w.id.Session, w.id.Counter+1, 20)
	_, dead = w.drive(late, 0)
	require.False(t, dead)
	w.check()
}
