package kv

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/txn/hlc"
)

// TestAReservationEnds: a client that has keys kept for it vanishes; whoever waits for them goes on when the time is over, though nobody
// else moves the group's clock.
func TestAReservationEnds(t *testing.T) {
	for _, groups := range []int{1, 2} {
		db, logs := openSolo(t, groups, 0, nil)
		put(t, db, "x0", "1")
		now := db.now()
		expires := uint64(hlc.FromTime(hlc.Timestamp(now).Time().Add(50 * time.Millisecond)))
		_, err := logs[0].Propose(t.Context(), appendReserve(nil, chain{1, 1}, now, expires, []string{"x0"}))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.NoError(t, db.Update(ctx, func(tx *Tx) error { return tx.Put([]byte("x0"), []byte("2")) }))
	}
}
