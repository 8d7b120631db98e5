package kv

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
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
