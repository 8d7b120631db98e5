package kv

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/executor"
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

// TestWhatWasKeptIsGivenUpWhereItWasKept: a transaction that has lost too often gives up what was kept for it, without a word to groups
// that it has nothing to do with; and another session of its client is the same client.
func TestWhatWasKeptIsGivenUpWhereItWasKept(t *testing.T) {
	db, logs := openSolo(t, 3, 0, nil)
	put(t, db, "x0", "0", "y1", "0")
	runs := 0
	require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
		get(t, tx, "x0")
		if runs++; runs <= reserveAfter+1 {
			_, err := logs[0].Propose(t.Context(), appendPrepare(nil, &prepare{id: client(1<<62, uint64(runs)), floor: 1, groups: []uint32{0}, writes: []write{{key: "x0", value: []byte{1}}}}))
			require.NoError(t, err)
		}
		for _, s := range slices.Clone(db.sessions[:]) {
			db.expired(s)
		}
		if runs <= reserveAfter {
			return tx.Put([]byte("y1"), []byte("1"))
		}
		return tx.Put([]byte("x0"), []byte("1"))
	}))
	for _, l := range logs {
		_, err := l.machine.await(t.Context(), executor.Real(), 10*time.Second, func(s *state) bool { return len(s.reserved) == 0 })
		require.NoError(t, err)
	}
	require.Zero(t, logs[2].machine.Status().Timestamp, "no command at all")
}
