package kv

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
)

// TestLimitsAreRefusedBeforeTheyAreProposed: what a machine does not take is refused with an error that says so, and that nothing was
// committed.
func TestLimitsAreRefusedBeforeTheyAreProposed(t *testing.T) {
	db, logs := openSolo(t, 1, 0, func(c *Config) {
		c.MaxKeyBytes, c.MaxCommandBytes, c.MaxValueBytes = maxKeyBytes, 1<<28, 100
	})
	// The end of what a bounded scan has seen is a byte longer than the longest key.
	longest := bytes.Repeat([]byte("k"), maxKeyBytes)
	require.NoError(t, db.Update(t.Context(), func(tx *Tx) error { return tx.Put(longest, []byte("1")) }))
	require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
		pairs, err := tx.Scan([]byte("a"), nil, 1)
		require.NoError(t, err)
		require.Len(t, pairs, 1)
		return tx.Put([]byte("x"), []byte("1"))
	}))
	err := db.Update(t.Context(), func(tx *Tx) error { return tx.Expect([]byte("x"), make([]byte, 101)) })
	require.ErrorIs(t, err, synod.ErrTooLarge)

	before := logs[0].index
	err = db.Update(t.Context(), func(tx *Tx) error {
		p, err := tx.part(0)
		require.NoError(t, err)
		p.prepare.reads = make([]string, maxItems+1)
		return tx.Put([]byte("x"), []byte("2"))
	})
	require.ErrorIs(t, err, synod.ErrTooLarge)
	require.Equal(t, before, logs[0].index)
	// And a machine takes no part of it for the whole.
	p := prepare{id: client(1, 1), floor: 1, groups: []uint32{0}, reads: make([]string, maxItems+3)}
	require.Equal(t, answerMalformed, newState().apply(appendPrepare(nil, &p)).kind)
}

// TestWritesAscend: a command that writes a key twice, or keys in another order, is none: what looks for a key would miss it.
func TestWritesAscend(t *testing.T) {
	for _, keys := range [][]string{{"x", "x"}, {"y", "x"}} {
		p := prepare{id: client(1, 1), floor: 1, groups: []uint32{0}}
		for _, k := range keys {
			p.writes = append(p.writes, write{key: k})
		}
		require.Equal(t, answerMalformed, newState().apply(appendPrepare(nil, &p)).kind, keys)
	}
}

// TestAGroupThatIsNamedTwiceIsScannedOnce: what Config.RouteRange returns may have a group twice.
func TestAGroupThatIsNamedTwiceIsScannedOnce(t *testing.T) {
	db, _ := openSolo(t, 2, 0, func(c *Config) { c.RouteRange = func(_, _ []byte) []int { return []int{1, 0, 1} } })
	put(t, db, "x0", "0", "y1", "1")
	require.NoError(t, db.View(t.Context(), func(tx *Tx) error {
		pairs, err := tx.Scan(nil, nil, 0)
		if err == nil { // it may have to be tried again
			require.Len(t, pairs, 2)
		}
		return err
	}))
}
