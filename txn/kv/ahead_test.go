package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/paxoscommit"
)

// openHeld opens a DB over two groups that nobody tells an outcome, but with a vote, until letGo.
func openHeld(t *testing.T) (db *DB, machines []*Machine, letGo func()) {
	held := make(chan struct{})
	cfg := Config{Route: routeByLast(2), RecoverAfter: time.Minute}
	for range 2 {
		l := &soloLog{machine: NewMachine()}
		cfg.Groups = append(cfg.Groups, Group{heldLog{l, held}, l.machine})
		machines = append(machines, l.machine)
	}
	db, err := Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	letGo = sync.OnceFunc(func() { close(held) })
	t.Cleanup(letGo)
	return db, machines, letGo
}

func holders(machines []*Machine) (n int) {
	for _, m := range machines {
		n += m.Status().Prepared
	}
	return n
}

func holds(m *Machine, id paxoscommit.ID) (yes bool) {
	m.read(func(s *state) { yes = s.prepared[id] != nil })
	return yes
}

// TestWhatIsCommittedIsReadAheadOfItsGroups: whoever needs what another one of its DB has written does not wait until the groups know that it is
// committed: they learn it with his votes.
func TestWhatIsCommittedIsReadAheadOfItsGroups(t *testing.T) {
	db, machines, letGo := openHeld(t)
	put(t, db, "x0", "1", "x1", "1", "y0", "1")
	require.Equal(t, 2, holders(machines))
	for range 3 {
		require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
			require.Equal(t, "1", get(t, tx, "y0"))
			x := get(t, tx, "x0")
			require.Equal(t, x, get(t, tx, "x1"))
			require.Equal(t, x, get(t, tx, "x0"), "the same when it is read again")
			for _, k := range []string{"x0", "x1"} {
				require.NoError(t, tx.Put([]byte(k), []byte(x+"1")))
			}
			return nil
		}))
		require.Equal(t, 2, holders(machines), "one of the two groups' predecessors is over")
	}
	require.Zero(t, db.Status().Conflicts)
	letGo()
	require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
		require.Equal(t, "1111", get(t, tx, "x0"))
		require.Equal(t, "1111", get(t, tx, "x1"))
		return nil
	}))
}

// TestWhatIsAbortedIsReadPast: also where its groups do not know that yet.
func TestWhatIsAbortedIsReadPast(t *testing.T) {
	db, machines, _ := openHeld(t)
	put(t, db, "x0", "2", "y0", "2")
	id := client(7, 1)
	p := prepare{id: id, floor: 1, age: 1, groups: []uint32{0, 1}, writes: []write{{key: "x0", value: []byte("1")}}}
	a, err := readAnswer(machines[0].Apply(100, appendPrepare(nil, &p)))
	require.NoError(t, err)
	require.Equal(t, paxoscommit.Yes, a.record.Vote)
	db.underway.begin(id)
	db.underway.decide(resolution{id, paxoscommit.Aborted, 0, p.groups})
	require.Equal(t, 1, holders(machines))
	require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
		require.Equal(t, "2", get(t, tx, "x0"))
		return tx.Put([]byte("x1"), []byte("3"))
	}))
	require.Zero(t, db.Status().Conflicts)
	require.False(t, holds(machines[0], id), "the group was told with the vote")
	db.underway.end(id)
}

// TestWhatIsReadAheadIsValidated: somebody else may write it before the transaction commits.
func TestWhatIsReadAheadIsValidated(t *testing.T) {
	withAndWithout(t, "kv: what was read ahead is not validated", func() bool {
		db, machines, _ := openHeld(t)
		put(t, db, "x0", "1", "x1", "1")
		require.Equal(t, 2, holders(machines))
		between := func() {
			m := machines[0]
			outcome := (*resolution)(nil)
			m.read(func(s *state) {
				for id := range s.prepared {
					outcome, _ = db.underway.find(id)
				}
			})
			p := prepare{id: client(7, 1), floor: 1, age: 1, groups: []uint32{0}, writes: []write{{key: "x0", value: []byte("5")}}, told: []resolution{*outcome}}
			a, err := readAnswer(m.Apply(100, appendPrepare(nil, &p)))
			require.NoError(t, err)
			require.Equal(t, paxoscommit.Yes, a.record.Vote)
		}
		runs := 0
		require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
			x := get(t, tx, "x0")
			if runs++; runs == 1 {
				between()
			}
			return tx.Put([]byte("x0"), []byte(x+"+"))
		}))
		found := ""
		require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
			found = get(t, tx, "x0")
			return nil
		}))
		return found == "5+"
	})
}

// TestAnErrorOverWhatWasReadAheadIsTrue: it is returned when the groups have what it follows from.
func TestAnErrorOverWhatWasReadAheadIsTrue(t *testing.T) {
	db, _, letGo := openHeld(t)
	put(t, db, "x0", "1", "x1", "1")
	empty := errors.New("empty")
	require.ErrorIs(t, db.Update(t.Context(), func(tx *Tx) error {
		require.Equal(t, "1", get(t, tx, "x0"))
		time.AfterFunc(10*time.Millisecond, letGo)
		return empty
	}), empty)
	require.Zero(t, db.Status().Conflicts, "it has waited for what it follows from")
}

// TestWhatIsDeletedIsNotReadAhead: its transaction may leave no version that could be validated.
func TestWhatIsDeletedIsNotReadAhead(t *testing.T) {
	db, _, letGo := openHeld(t)
	require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
		require.NoError(t, tx.Delete([]byte("x0")))
		return tx.Put([]byte("x1"), []byte("1"))
	}))
	done := make(chan error)
	go func() {
		done <- db.Update(t.Context(), func(tx *Tx) error {
			if _, err := tx.Get([]byte("x0")); err != ErrNotFound {
				return errors.Join(err, errors.New("it was deleted"))
			}
			return tx.Put([]byte("x0"), []byte("2"))
		})
	}()
	letGo()
	require.NoError(t, <-done)
	require.Zero(t, db.Status().Conflicts)
}

// settled waits until the groups know all outcomes.
func settled(t *testing.T, machines []*Machine) {
	for _, m := range machines {
		ok, err := m.await(t.Context(), executor.Real(), time.Minute, func(s *state) bool { return len(s.prepared) == 0 })
		require.NoError(t, err)
		require.True(t, ok)
	}
}

func restore(t *testing.T, m *Machine) {
	s, err := m.Snapshot()
	require.NoError(t, err)
	var b bytes.Buffer
	_, err = s.WriteTo(&b)
	require.NoError(t, err)
	require.NoError(t, m.Restore(&b))
}

// TestWhatWasReadAheadStaysTheSame: when it is read again, alone or in a range, in the same run: also if the replica has been restored, or has learned the outcome,
// meanwhile.
func TestWhatWasReadAheadStaysTheSame(t *testing.T) {
	for _, meanwhile := range []string{"nothing", "restored", "told"} {
		for _, scan := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, scanned %v", meanwhile, scan), func(t *testing.T) {
				db, machines, letGo := openHeld(t)
				put(t, db, "x0", "old", "y0", "old")
				put(t, db, "x0", "new", "x1", "new")
				require.Equal(t, 2, holders(machines))
				runs := 0
				require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
					runs++
					require.Equal(t, "new", get(t, tx, "x0"))
					switch meanwhile {
					case "restored":
						restore(t, machines[0])
					case "told":
						letGo()
						settled(t, machines)
					}
					if scan {
						time.AfterFunc(10*time.Millisecond, letGo)
						pairs, err := tx.Scan([]byte("x0"), []byte("x00"), 0)
						require.NoError(t, err)
						require.Len(t, pairs, 1)
						require.Equal(t, "new", string(pairs[0].Value))
					} else {
						require.Equal(t, "new", get(t, tx, "x0"))
					}
					return tx.Put([]byte("y0"), []byte("1"))
				}))
				require.Equal(t, 1, runs)
				require.Zero(t, db.Status().Conflicts)
			})
		}
	}
}

// between is another transaction over two groups, which writes x0, y0, x1 and y1, in three steps: its votes, its outcome, and that groups learn it.
type between struct {
	mu    sync.Mutex
	steps []func()
}

func newBetween(t *testing.T, db *DB, machines []*Machine, mine bool) *between {
	x := resolution{client(7, 1), paxoscommit.Committed, 0, []uint32{0, 1}}
	return &between{steps: []func(){
		func() {
			for i, m := range slices.Backward(machines) { // so that the highest vote is that of the group that is read
				p := prepare{id: x.id, floor: 1, age: 1, now: db.now(), groups: x.groups}
				for _, k := range []string{"x", "y"} {
					p.writes = append(p.writes, write{key: fmt.Sprint(k, i), value: []byte("new")})
				}
				a, err := readAnswer(m.Apply(100, appendPrepare(nil, &p)))
				if err != nil || a.record.Vote != paxoscommit.Yes {
					t.Error(err, a)
				}
				x.timestamp = max(x.timestamp, a.record.Timestamp)
			}
			if mine {
				db.underway.begin(x.id)
			}
		},
		func() {
			db.underway.begin(x.id)
			db.underway.decide(x)
		},
		func() {
			for _, m := range machines {
				m.Apply(101, appendResolve(nil, x.id.Session, 1, 0, []resolution{x}))
			}
			db.underway.end(x.id)
		},
	}}
}

// at takes steps until so many are left.
func (b *between) at(left int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.steps) > left {
		b.steps[0]()
		b.steps = b.steps[1:]
	}
}

// goesOnWhile takes another step each time that fn has waited for a while.
func (b *between) goesOnWhile(fn func() (string, error)) (string, error) {
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				b.mu.Lock()
				left := len(b.steps)
				b.mu.Unlock()
				b.at(max(0, left-1))
			}
		}
	}()
	v, err := fn()
	close(done)
	<-over
	return v, err
}

// TestARunSeesAGroupAtOneMoment: another transaction of the DB, or of another one, commits between any of its reads, to the group or only to the DB.
func TestARunSeesAGroupAtOneMoment(t *testing.T) {
	reads := []string{"x0", "y0", "z0", "x0*", "y0*"}
	read := func(tx *Tx, key string) (string, error) {
		k := key[:2]
		if key == k {
			v, err := tx.Get([]byte(k))
			return string(v), err
		}
		pairs, err := tx.Scan([]byte(k), []byte(k+"\x00"), 0)
		if err != nil {
			return "", err
		}
		return string(pairs[0].Value), nil
	}
	try := func(mine bool, keys []string, schedule [4]int) {
		db, machines, letGo := openHeld(t)
		letGo()
		put(t, db, "x0", "old", "y0", "old", "z0", "old")
		put(t, db, "x1", "old", "y1", "old")
		settled(t, machines)
		b := newBetween(t, db, machines, mine)
		var seen []string
		err := db.Update(t.Context(), func(tx *Tx) error {
			seen = seen[:0]
			for i, key := range keys {
				b.at(schedule[i])
				v, err := b.goesOnWhile(func() (string, error) { return read(tx, key) })
				if err != nil {
					b.at(0)
					return err
				}
				if key[0] != 'z' {
					seen = append(seen, v)
				}
			}
			if slices.Contains(seen, "old") && slices.Contains(seen, "new") {
				t.Errorf("%v, reads %v, steps left %v: %v", mine, keys, schedule, seen)
			}
			b.at(0)
			return tx.Put([]byte("y0"), []byte("1"))
		})
		if err != nil {
			t.Errorf("%v, reads %v, steps left %v: %v", mine, keys, schedule, err)
		}
		if slices.Contains(seen, "old") {
			t.Errorf("%v, reads %v, steps left %v: committed on what had changed", mine, keys, schedule)
		}
		_ = db.Close()
	}
	for _, mine := range []bool{true, false} {
		for _, first := range reads {
			for _, second := range reads {
				for _, third := range reads {
					for one := 3; one >= 0; one-- {
						for two := one; two >= 0; two-- {
							for three := two; three >= 0; three-- {
								try(mine, []string{first, second, third}, [4]int{one, two, three})
							}
						}
					}
				}
			}
		}
	}
}

// TestWhatIsReadAheadIsLocked: like everything that was read, from the vote until the outcome is known.
func TestWhatIsReadAheadIsLocked(t *testing.T) {
	s, both := newState(), []uint32{0, 1}
	do := func(p prepare) answer {
		p.floor = 1
		a, err := readAnswer(s.apply(appendPrepare(nil, &p)).append(nil))
		require.NoError(t, err)
		return a
	}
	a := do(prepare{id: client(1, 1), age: 1, groups: both, writes: []write{{key: "x", value: []byte("1")}}})
	at := a.record.Timestamp
	b := do(prepare{id: client(2, 1), age: 2, groups: both, exact: []exactRead{{"x", at}}, told: []resolution{{client(1, 1), paxoscommit.Committed, at, both}}})
	require.Equal(t, paxoscommit.Yes, b.record.Vote)
	c := do(prepare{id: client(3, 1), age: 3, groups: []uint32{0}, writes: []write{{key: "x", value: []byte("2")}}})
	require.Equal(t, answerBlocked, c.kind, "who has read it has voted")
	s.resolve(resolution{client(2, 1), paxoscommit.Committed, b.record.Timestamp, both})
	d := do(prepare{id: client(4, 1), age: 4, groups: both, writes: []write{{key: "x", value: []byte("3")}}})
	require.Equal(t, paxoscommit.Yes, d.record.Vote)
	e := do(prepare{id: client(5, 1), age: 3, groups: both, exact: []exactRead{{"x", at}}})
	require.Equal(t, answerBlocked, e.kind, "who writes it has voted")
}

// TestWhatWasReadAheadIsReadAgain: also by who has met what will change since, and will be run again.
func TestWhatWasReadAheadIsReadAgain(t *testing.T) {
	db, machines, letGo := openHeld(t)
	letGo()
	put(t, db, "x0", "old", "x1", "old", "z0", "old")
	settled(t, machines)
	b := newBetween(t, db, machines, true)
	undecided := client(8, 1)
	runs := 0
	require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
		if runs++; runs == 1 {
			_ = get(t, tx, "a0") // as of now
			b.at(1)
			p := prepare{id: undecided, floor: 1, age: 1, now: db.now(), groups: []uint32{0, 1}, writes: []write{{key: "z0", value: []byte("new")}}}
			machines[0].Apply(100, appendPrepare(nil, &p))
			db.underway.begin(undecided)
		}
		x := get(t, tx, "x0")
		_ = get(t, tx, "z0")
		require.Equal(t, x, get(t, tx, "x0"))
		if runs == 1 {
			machines[0].Apply(102, appendResolve(nil, undecided.Session, 1, 0, []resolution{{undecided, paxoscommit.Aborted, 0, []uint32{0, 1}}}))
			db.underway.end(undecided)
			b.at(0)
		}
		return tx.Put([]byte("x0"), []byte(x+"+"))
	}))
	require.Equal(t, 2, runs)
	require.Equal(t, []string{"new+"}, read(t, db, "x0"))
}

// lossyLog loses the first vote that it is asked for, once it is told to.
type lossyLog struct {
	*soloLog
	lose atomic.Bool
	lost chan struct{}
}

func (l *lossyLog) Propose(ctx context.Context, command []byte) ([]byte, error) {
	if command[0] == opPrepare && l.lose.CompareAndSwap(true, false) {
		close(l.lost)
		<-ctx.Done()
		return nil, fmt.Errorf("%w: %w", synod.ErrUnknownOutcome, ctx.Err())
	}
	return l.soloLog.Propose(ctx, command)
}

// TestOutcomesDoNotWaitForWhoTakesThemAlong: a command that has taken outcomes along has no answer, for as long as its caller waits.
func TestOutcomesDoNotWaitForWhoTakesThemAlong(t *testing.T) {
	for _, gives := range []bool{false, true} {
		cfg := Config{Route: routeByLast(2), RecoverAfter: time.Minute}
		if !gives {
			cfg.RecoverAfter = 100 * time.Millisecond
		}
		var logs []*lossyLog
		var machines []*Machine
		for range 2 {
			l := &lossyLog{soloLog: &soloLog{machine: NewMachine()}, lost: make(chan struct{})}
			logs, machines = append(logs, l), append(machines, l.machine)
			cfg.Groups = append(cfg.Groups, Group{l, l.machine})
		}
		db, err := Open(t.Context(), cfg)
		require.NoError(t, err)
		// Outcomes wait for a vote that is asked for; the first that goes to the group is lost with what it has taken along.
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		for taken := false; !taken; { // or a command of their own was first
			put(t, db, "x0", "1", "x1", "1")
			g := db.groups[0]
			g.mu.Lock()
			taken = len(g.queue) > 0
			g.mu.Unlock()
			logs[0].lose.Store(taken)
			if taken {
				go func() { done <- db.Update(ctx, func(tx *Tx) error { return tx.Put([]byte("y0"), nil) }) }()
				<-logs[0].lost
			}
		}
		if gives { // at once, and not after a quarter of RecoverAfter
			cancel()
			require.ErrorIs(t, <-done, synod.ErrUnknownOutcome)
		}
		settled(t, machines)
		require.Eventually(t, func() bool { return db.Status().Open <= 1 }, time.Minute, time.Millisecond, "all but who waits is over")
		cancel()
		require.NoError(t, db.Close())
	}
}

// TestWhoHasReadNothingDoesNotTakeTurns: writes of one group that depend on nothing do not make each other lose.
func TestWhoHasReadNothingDoesNotTakeTurns(t *testing.T) {
	held := make(chan struct{})
	l := &soloLog{machine: NewMachine()}
	reached := make(chan struct{}, 100)
	db, err := Open(t.Context(), Config{Groups: []Group{{Log: gatedLog{l, reached, held}, Machine: l.machine}}, RecoverAfter: time.Hour})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := db.Update(t.Context(), func(tx *Tx) error { return tx.Put([]byte("k"), []byte("1")) }); err != nil {
				t.Error(err)
			}
		})
	}
	for range 10 { // all at a time
		select {
		case <-reached:
		case <-time.After(time.Minute):
			t.Error("they wait for each other")
			return
		}
	}
	close(held)
	wg.Wait()
	require.NoError(t, db.Close())
}

// gatedLog holds votes that are asked for.
type gatedLog struct {
	*soloLog
	reached, held chan struct{}
}

func (l gatedLog) Propose(ctx context.Context, command []byte) ([]byte, error) {
	if command[0] == opPrepare {
		l.reached <- struct{}{}
		<-l.held
	}
	return l.soloLog.Propose(ctx, command)
}

// TestWhatWasReadAheadNeedNotFitIn: a transaction that fits in a command does so, too, when it has read ahead of its group.
func TestWhatWasReadAheadNeedNotFitIn(t *testing.T) {
	for size := 880; size <= 960; size += 5 {
		var errs []error
		for _, ahead := range []bool{false, true} {
			db, machines, letGo := openHeld(t)
			db.cfg.MaxCommandBytes = 1024
			put(t, db, "x0", "1", "x1", "1")
			if !ahead {
				letGo()
				settled(t, machines)
			} else {
				time.AfterFunc(time.Millisecond, letGo)
			}
			errs = append(errs, db.Update(t.Context(), func(tx *Tx) error {
				get(t, tx, "x0")
				return tx.Put([]byte("y0"), make([]byte, size))
			}))
			letGo()
		}
		require.Equal(t, fmt.Sprint(errs[0]), fmt.Sprint(errs[1]), "%d bytes", size)
	}
}

// TestWhatWasReadAheadHasChanged: who has read a version ahead of its group does not go on with what was written together with the next one.
func TestWhatWasReadAheadHasChanged(t *testing.T) {
	for _, how := range []string{"read", "scanned"} {
		t.Run(how, func(t *testing.T) {
			db, machines, letGo := openHeld(t)
			put(t, db, "x0", "1", "y0", "1")
			put(t, db, "x0", "2", "x1", "2")
			runs := 0
			require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
				x := get(t, tx, "x0")
				if runs++; runs == 1 {
					require.Equal(t, "2", x)
					letGo()
					settled(t, machines)
					p := prepare{id: client(7, 1), floor: 1, age: 1, groups: []uint32{0}, writes: []write{{key: "x0", value: []byte("3")}, {key: "y0", value: []byte("3")}}}
					a, err := readAnswer(machines[0].Apply(100, appendPrepare(nil, &p)))
					require.NoError(t, err)
					require.Equal(t, paxoscommit.Committed, a.record.Outcome)
				}
				y := ""
				if how == "read" {
					b, err := tx.Get([]byte("y0"))
					if err != nil {
						return err
					}
					y = string(b)
				} else {
					pairs, err := tx.Scan([]byte("y0"), []byte("y00"), 0)
					if err != nil {
						return err
					}
					y = string(pairs[0].Value)
				}
				require.False(t, x == "2" && y == "3", "run %d has half of a transaction", runs)
				return tx.Put([]byte("z0"), []byte(x+y))
			}))
			require.Equal(t, []string{"33"}, read(t, db, "z0"))
		})
	}
}
