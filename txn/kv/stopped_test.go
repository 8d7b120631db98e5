package kv

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/paxoscommit"
	"github.com/synod-go/synod/txn/hlc"
)

// failedLog is a log whose replica on this node has stopped for good, or refuses for now.
type failedLog struct{ err error }

func (l failedLog) Propose(context.Context, []byte) ([]byte, error) { return nil, l.err }
func (l failedLog) Barrier(context.Context) error                   { return l.err }

// TestAReplicaThatHasStoppedIsNotWaitedFor: it never comes back on this node.
func TestAReplicaThatHasStoppedIsNotWaitedFor(t *testing.T) {
	disk := errors.New("disk on fire")
	db, _ := openSolo(t, 1, 0, func(c *Config) { c.Groups[0].Log = failedLog{&synod.FailedError{Group: 1, Err: disk}} })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := db.Update(ctx, func(tx *Tx) error { return tx.Put([]byte("x"), []byte("1")) })
	require.ErrorIs(t, err, disk)
	require.NotErrorIs(t, err, synod.ErrUnknownOutcome)
	require.ErrorIs(t, db.View(ctx, func(tx *Tx) error { _, err := tx.Get([]byte("x")); return err }), disk)
	require.NoError(t, ctx.Err())
}

// TestAnEndOfTimeIsReportedAsSuch: whatever the group had said until then.
func TestAnEndOfTimeIsReportedAsSuch(t *testing.T) {
	db, _ := openSolo(t, 1, 0, func(c *Config) { c.Groups[0].Log = failedLog{synod.ErrOverloaded} })
	for name, fn := range map[string]func(context.Context) error{
		"update": func(ctx context.Context) error {
			return db.Update(ctx, func(tx *Tx) error { return tx.Put([]byte("x"), []byte("1")) })
		},
		"view": func(ctx context.Context) error {
			return db.View(ctx, func(tx *Tx) error { _, err := tx.Get([]byte("x")); return err })
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err := fn(ctx)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded, name)
		require.ErrorIs(t, err, synod.ErrOverloaded, name)
		require.NotErrorIs(t, err, synod.ErrUnknownOutcome, name)
	}
}

// TestAClosedDBTakesNothing: also where the clock is not its own, and nothing is written.
func TestAClosedDBTakesNothing(t *testing.T) {
	clock, err := hlc.New(t.Context(), hlc.Config{Node: 1})
	require.NoError(t, err)
	db, _ := openSolo(t, 1, 0, func(c *Config) { c.Clock = clock })
	require.NoError(t, db.Close())
	nothing := func(tx *Tx) error { t.Error("it runs"); return nil }
	require.ErrorIs(t, db.Update(t.Context(), nothing), synod.ErrClosed)
	require.ErrorIs(t, db.View(t.Context(), nothing), synod.ErrClosed)
	require.ErrorIs(t, db.ViewAt(t.Context(), clock.Now(), nothing), synod.ErrClosed)
}

// TestATransactionOverNoGroupIsNone: nobody could end it.
func TestATransactionOverNoGroupIsNone(t *testing.T) {
	s := newState()
	require.Equal(t, answerMalformed, s.apply(appendClose(nil, client(1, 1), nil, 5)).kind)
	require.Equal(t, answerMalformed, s.apply(appendResolve(nil, paxoscommit.Session{}, 0, 5, []resolution{{client(1, 2), paxoscommit.Aborted, 0, nil}})).kind)
	require.Zero(t, s.registers.Sessions())
}
