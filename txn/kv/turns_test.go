package kv

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/executor"
)

// TestTurns: transactions with a key in common go on in the order in which they came, others beside, and nobody is left waiting by one who gives up.
func TestTurns(t *testing.T) {
	turns := turns{limit: time.Hour}
	take := func(ctx context.Context, keys ...string) (*turn, bool, error) {
		return turns.take(ctx, executor.Real(), keys)
	}
	first, waited, err := take(t.Context(), "k", "l")
	require.NoError(t, err)
	require.False(t, waited)
	other, waited, err := take(t.Context(), "other")
	require.NoError(t, err)
	require.False(t, waited, "another key has a queue of its own")
	other.leave()

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = take(gone, "k")
	require.ErrorIs(t, err, context.Canceled)

	var order []int
	var wg sync.WaitGroup
	for i, keys := range [][]string{{"m", "k"}, {"l", "m"}, {"m", "k", "l"}} {
		wg.Go(func() {
			turn, waited, err := take(t.Context(), keys...)
			if err != nil || !waited {
				t.Error(waited, err)
				return
			}
			order = append(order, i) // one at a time
			turn.leave()
		})
		require.Eventually(t, func() bool {
			turns.mu.Lock()
			defer turns.mu.Unlock()
			waiting := 0
			for _, k := range []string{"k", "l", "m"} {
				waiting += len(turns.queues[k].rest)
			}
			return waiting == []int{1, 3, 6}[i]
		}, 10*time.Second, time.Millisecond)
	}
	first.leave()
	wg.Wait()
	require.Equal(t, []int{0, 1, 2}, order)
	require.Empty(t, turns.queues)
}

// TestTurnsEnd: who has waited for long goes on without, and keeps its place; who writes very much does not wait.
func TestTurnsEnd(t *testing.T) {
	turns := turns{limit: time.Millisecond}
	first, _, err := turns.take(t.Context(), executor.Real(), []string{"k"})
	require.NoError(t, err)
	second, waited, err := turns.take(t.Context(), executor.Real(), []string{"k"})
	require.NoError(t, err)
	require.True(t, waited)
	require.True(t, second.covers([]string{"k"}))
	require.False(t, second.covers([]string{"k", "l"}))
	var many []string
	for i := range maxTurns + 1 {
		many = append(many, fmt.Sprint("k", i))
	}
	third, waited, err := turns.take(t.Context(), executor.Real(), append(many, "k"))
	require.NoError(t, err)
	require.False(t, waited)
	for _, turn := range []*turn{second, first, third} {
		turn.leave()
	}
	require.Empty(t, turns.queues)
}
