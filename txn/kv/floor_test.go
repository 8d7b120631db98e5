package kv

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
)

// lostLog is a log that does not say what becomes of a command.
type lostLog struct{ *soloLog }

func (lostLog) Propose(ctx context.Context, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, errors.Join(synod.ErrUnknownOutcome, ctx.Err())
}

// TestOneStuckTransactionDoesNotKeepAllRecords: a transaction whose group has lost its majority has no outcome. The groups that are there forget
// the others all the same.
func TestOneStuckTransactionDoesNotKeepAllRecords(t *testing.T) {
	db, logs := openSolo(t, 2, 0, func(c *Config) { c.Groups[0].Log = lostLog{c.Groups[0].Log.(*soloLog)} })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, db.Update(ctx, func(tx *Tx) error { return tx.Put([]byte("x0"), []byte("1")) }), synod.ErrUnknownOutcome)
	for range 2000 {
		put(t, db, "y1", "1")
	}
	require.Less(t, logs[1].machine.Status().Records, 100)
}
