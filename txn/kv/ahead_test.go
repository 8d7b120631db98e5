package kv

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
	open := true
	letGo = func() {
		if open {
			close(held)
		}
		open = false
	}
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
	db, machines, _ := openHeld(t)
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
	put(t, db, "z0", "1", "z1", "1") // tells what came before
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
		letGo()
		return empty
	}), empty)
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
