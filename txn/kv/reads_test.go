package kv

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAMismatchFollowsFromWhatIsTrue: two keys always have the same value. A transaction that reads one and expects it of the other must
// never learn that they differ, whichever group answers first.
func TestAMismatchFollowsFromWhatIsTrue(t *testing.T) {
	db, logs := openSolo(t, 2, 0, nil)
	for i := range 40 { // which group answers first is up to the scheduler
		put(t, db, "x0", "old", "y1", "old")
		if i%4 > 1 { // or it is read ahead of its group
			settled(t, []*Machine{logs[0].machine, logs[1].machine})
		}
		changed := false
		require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
			x := get(t, tx, "x0")
			if !changed {
				changed = true
				put(t, db, "x0", "new", "y1", "new")
			}
			if i%2 > 0 { // what is read is written, too
				require.NoError(t, tx.Put([]byte("x0"), []byte(x)))
			}
			return tx.Expect([]byte("y1"), []byte(x))
		}))
	}
	require.ErrorIs(t, db.Update(t.Context(), func(tx *Tx) error {
		get(t, tx, "x0")
		return tx.Expect([]byte("y1"), []byte("other"))
	}), ErrMismatch)
}

// TestAFunctionsErrorComesBackWhateverItHasNotRead: groups in which a transaction has read nothing have no say in whether its
// function's error follows from what is true.
func TestAFunctionsErrorComesBackWhateverItHasNotRead(t *testing.T) {
	db, logs := openSolo(t, 2, 0, func(c *Config) { c.MaxAttempts = 3 })
	put(t, db, "x0", "1", "y1", "1")
	for _, l := range logs {
		_, err := l.Propose(t.Context(), appendCollect(nil, db.now(), 0))
		require.NoError(t, err)
		require.NotZero(t, l.machine.Status().Collected)
	}
	stop := errors.New("stop")
	require.ErrorIs(t, db.Update(t.Context(), func(tx *Tx) error {
		get(t, tx, "x0")
		require.NoError(t, tx.Expect([]byte("y1"), []byte("1")))
		return stop
	}), stop)
}
