package kv

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/paxoscommit"
)

// A key that is written all the time has very many versions: they are collected together, not one after the other with a copy of the
// rest for each.
func TestVersionsOfAKeyAreCollectedTogether(t *testing.T) {
	s := newState()
	id := paxoscommit.ID{Session: paxoscommit.Session{Opened: 1, Random: 1}}
	const n = 3 * collectAtATime
	for i := range uint64(n) {
		id.Counter = i + 1
		p := prepare{id: id, floor: i + 1, now: i + 10, groups: []uint32{0}, writes: []write{{key: "hot", value: []byte("v")}}}
		require.Equal(t, paxoscommit.Yes, s.prepare(&p).record.Vote)
	}
	require.Equal(t, n, len(s.find("hot")))
	s.collect(s.clock)
	require.Equal(t, 1, len(s.find("hot")))
	value, found := valueAt(s.find("hot"), s.clock)
	require.True(t, found)
	require.Equal(t, "v", string(value))
	for range 3 {
		s.collect(s.clock)
	}
	require.Zero(t, len(s.garbage))
}

// heldLog applies all but outcomes, until it is let go.
type heldLog struct {
	*soloLog
	letGo chan struct{}
}

func (l heldLog) Propose(ctx context.Context, command []byte) ([]byte, error) {
	if command[0] == opResolve {
		select {
		case <-l.letGo:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return l.soloLog.Propose(ctx, command)
}

// A transaction over other keys does not wait until the groups know the outcome of the one before.
func TestOutcomesAreNotWaitedFor(t *testing.T) {
	letGo := make(chan struct{})
	cfg := Config{Route: routeByLast(2), RecoverAfter: time.Minute}
	for range 2 {
		l := &soloLog{machine: NewMachine()}
		cfg.Groups = append(cfg.Groups, Group{heldLog{l, letGo}, l.machine})
	}
	db, err := Open(t.Context(), cfg)
	require.NoError(t, err)
	ctx := t.Context()
	both := func(a, b string) error {
		return db.Update(ctx, func(tx *Tx) error {
			for _, k := range []string{a, b} {
				if _, err := tx.Get([]byte(k)); err != nil && err != ErrNotFound {
					return err
				}
				if err := tx.Put([]byte(k), []byte("x")); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, both("a0", "a1"))
	held := 0
	for _, g := range cfg.Groups {
		held += g.Machine.Status().Prepared
	}
	require.Equal(t, 2, held, "nobody knows the outcome")
	done := make(chan error, 2)
	go func() { done <- both("b0", "b1") }()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(30 * time.Second):
		require.Fail(t, "it waits for the outcome of another one")
	}
	go func() { done <- both("a0", "a1") }() // it needs what is held
	close(letGo)
	require.NoError(t, <-done)
	require.Zero(t, db.Status().Conflicts, "what was waited for is read as it is afterwards")
	require.NoError(t, db.Close())
}
