package pebble

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// The queue takes no more than its limit, but for a commit that is larger alone.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(100)
		q.reserve(60)
		q.reserve(40)
		entered := false
		go func() {
			q.reserve(50)
			entered = true
		}()
		synctest.Wait()
		require.False(t, entered)
		q.release(40)
		synctest.Wait()
		require.False(t, entered, "60 and 50 are more than 100")
		q.release(60)
		synctest.Wait()
		require.True(t, entered)
		q.release(50)

		q.reserve(1000)
		entered = false
		go func() {
			q.reserve(1)
			entered = true
		}()
		synctest.Wait()
		require.False(t, entered)
		q.release(1000)
		synctest.Wait()
		require.True(t, entered)
	})
}

// Nothing that was pushed is lost when the queue is closed, and nothing is taken
// afterwards.
func TestQueueEnds(t *testing.T) {
	q := newQueue(100)
	require.True(t, q.push(commit{size: 1}))
	require.True(t, q.push(commit{size: 2}))
	q.close()
	require.True(t, q.push(commit{size: 3}), "the queue has not ended yet")
	taken := q.take(nil)
	require.Len(t, taken, 3)
	for i := range taken {
		require.EqualValues(t, i+1, taken[i].size)
	}
	require.True(t, q.push(commit{size: 4}))
	taken = q.take(taken)
	require.Len(t, taken, 1)
	require.Empty(t, q.take(taken))
	require.False(t, q.push(commit{size: 5}))
}
