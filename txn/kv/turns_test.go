package kv

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/executor"
)

// TestTurns: who has lost for a key goes on after those that have lost before, and nobody is left waiting by one who gives up.
func TestTurns(t *testing.T) {
	turns := turns{limit: time.Hour}
	release, err := turns.take(t.Context(), executor.Real(), "k")
	require.NoError(t, err)
	other, err := turns.take(t.Context(), executor.Real(), "other")
	require.NoError(t, err, "another key has a turn of its own")
	other()

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	leave, err := turns.take(gone, executor.Real(), "k")
	require.ErrorIs(t, err, context.Canceled)
	leave()

	var order []int
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			release, err := turns.take(t.Context(), executor.Real(), "k")
			defer release()
			if err != nil {
				t.Error(err)
			}
			order = append(order, i) // one at a time
		})
		require.Eventually(t, func() bool {
			turns.mu.Lock()
			defer turns.mu.Unlock()
			return len(turns.waiting["k"]) == i+2
		}, 10*time.Second, time.Millisecond)
	}
	release()
	wg.Wait()
	require.Equal(t, []int{0, 1, 2}, order)
	require.Empty(t, turns.waiting)
}
