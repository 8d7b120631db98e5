package twophase_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Cores that differ only in how much has happened before are the same: how many batches were written, and how much time
// has passed.
func TestFingerprintForgetsThePast(t *testing.T) {
	after := func(transactions, ticks int) []byte {
		w := newWorld(2, false, false)
		w.Open()
		n := w.Nodes[1]
		for range transactions {
			w.Commit(w.Begin(1, branchesOf(1, 2)...))
			w.Finish()
		}
		// Of the first the records are gone as well.
		n.Core.ForgetPast()
		for range ticks {
			n.Core.Tick()
			n.Core.Ready()
		}
		return n.Core.Fingerprint(nil)
	}
	require.Equal(t, after(1, 0), after(3, 7))
}
