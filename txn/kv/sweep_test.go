package kv

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/paxoscommit"
)

// deadLog is a log without a majority.
type deadLog struct{}

func (deadLog) Propose(ctx context.Context, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (deadLog) Barrier(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

var _ synod.Log = deadLog{}

// TestVersionsAreCollectedThoughAnotherGroupIsDown: a group that takes no commands has something to collect; the others are collected still.
func TestVersionsAreCollectedThoughAnotherGroupIsDown(t *testing.T) {
	db, logs := openSolo(t, 2, 0, func(c *Config) {
		down := NewMachine()
		for i := range 3 {
			down.Apply(uint64(i+1), appendPrepare(nil, &prepare{id: client(9, uint64(i+1)), floor: 1, groups: []uint32{0}, writes: []write{{key: "x0", value: []byte{1}}}}))
		}
		c.Groups[0] = Group{deadLog{}, down}
		c.RecoverAfter, c.Retention = time.Millisecond, time.Millisecond
	})
	for range 3 {
		put(t, db, "x1", "1")
	}
	collected, err := logs[1].machine.await(t.Context(), executor.Real(), 10*time.Second, func(s *state) bool { return s.collected > 0 })
	require.NoError(t, err)
	require.True(t, collected)
}

// TestATransactionEndsOnce: a group is told the outcome by somebody else before this client hears that it has taken it in.
func TestATransactionEndsOnce(t *testing.T) {
	db, _ := openSolo(t, 3, 0, nil)
	s, id, _, err := db.begin([]uint32{0, 1, 2})
	require.NoError(t, err)
	a := &attempt{db: db, session: s, id: id, c: paxoscommit.NewCoordinator(id, []uint32{0, 1, 2})}
	a.c.Voted(0, paxoscommit.Record{Vote: paxoscommit.No, Outcome: paxoscommit.Aborted}, paxoscommit.Voted)
	a.c.Voted(1, paxoscommit.Record{Vote: paxoscommit.Yes, Outcome: paxoscommit.Aborted}, paxoscommit.Voted)
	a.told(db.groups[2])
	a.told(db.groups[1])
	require.Zero(t, db.Status().Open)
	require.Empty(t, s.over)
}

// closedLog is a log whose group has been closed on this node.
type closedLog struct{ *soloLog }

func (closedLog) Propose(context.Context, []byte) ([]byte, error) { return nil, synod.ErrClosed }

// TestAGroupThatIsClosedHoldsUpNoOther: transactions over a group that was closed fail; what they leave does not count against those over
// the others.
func TestAGroupThatIsClosedHoldsUpNoOther(t *testing.T) {
	db, _ := openSolo(t, 2, 0, func(c *Config) {
		c.Groups[0].Log = closedLog{c.Groups[0].Log.(*soloLog)}
		c.MaxTransactions = 4
		c.RecoverAfter = time.Millisecond
	})
	for range 8 {
		err := db.Update(t.Context(), func(tx *Tx) error {
			_ = tx.Put([]byte("x0"), []byte("1"))
			return tx.Put([]byte("y1"), []byte("1"))
		})
		require.ErrorIs(t, err, synod.ErrClosed)
		free, err := db.groups[1].machine.await(t.Context(), executor.Real(), 10*time.Second, func(s *state) bool { return len(s.prepared) == 0 })
		require.NoError(t, err)
		require.True(t, free)
	}
	put(t, db, "y1", "2")
}
