package executor_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/executor"
)

func TestWaitReturnsOnceTheEventIsSet(t *testing.T) {
	ex, e := executor.Real(), executor.NewEvent()
	done := make(chan error)
	go func() { done <- ex.Wait(t.Context(), e) }()
	e.Set()
	require.NoError(t, <-done)
	require.False(t, e.TryWait(), "Wait takes the setting back")
}

func TestAnEventRemembersThatItWasSet(t *testing.T) {
	ex, e := executor.Real(), executor.NewEvent()
	e.Set()
	e.Set() // is the same as once
	require.NoError(t, ex.Wait(t.Context(), e))
	require.False(t, e.TryWait())
}

func TestASetEventWinsOverADoneContext(t *testing.T) {
	ex, e := executor.Real(), executor.NewEvent()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, ex.Wait(ctx, e), context.Canceled)
	for range 1000 { // a select without care would choose at random
		e.Set()
		require.NoError(t, ex.Wait(ctx, e))
	}
}

func TestADoneContextEndsTheWait(t *testing.T) {
	ex, e := executor.Real(), executor.NewEvent()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- ex.Wait(ctx, e) }()
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	e.Set() // is kept for whoever waits next
	require.NoError(t, ex.Wait(t.Context(), e))

	ctx, cancel = context.WithTimeout(t.Context(), time.Microsecond)
	defer cancel()
	require.ErrorIs(t, ex.Wait(ctx, e), context.DeadlineExceeded)
}

// late is a context that is done at once, and whose user's result arrives in the
// moment in which it is asked.
type late struct {
	context.Context
	e *executor.Event
}

func (c late) Done() <-chan struct{} {
	c.e.Set()
	return c.Context.Done()
}

func TestAnEventThatIsSetWhileTheContextEndsWins(t *testing.T) {
	ex, e := executor.Real(), executor.NewEvent()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 1000 {
		require.NoError(t, ex.Wait(late{ctx, e}, e))
		require.False(t, e.TryWait())
	}
}

func TestWhatHappenedBeforeSetIsSeenAfterWait(t *testing.T) {
	ex := executor.Real()
	there, back := executor.NewEvent(), executor.NewEvent()
	n := 0 // without a lock: the race detector watches
	ex.Go(func() {
		for range 1000 {
			if ex.Wait(t.Context(), there) != nil {
				return
			}
			n++
			back.Set()
		}
	})
	for i := range 1000 {
		there.Set()
		require.NoError(t, ex.Wait(t.Context(), back))
		require.Equal(t, i+1, n)
	}
}

func TestNoSettingIsLost(t *testing.T) {
	ex, e := executor.Real(), executor.NewEvent()
	var mu sync.Mutex
	var queue []int
	const setters, each = 8, 1000
	for range setters {
		ex.Go(func() {
			for i := range each {
				mu.Lock()
				queue = append(queue, i)
				mu.Unlock()
				e.Set()
			}
		})
	}
	for got := 0; got < setters*each; {
		require.NoError(t, ex.Wait(t.Context(), e))
		mu.Lock()
		got += len(queue)
		queue = queue[:0]
		mu.Unlock()
	}
}

func TestOnSetIsCalledAfterTheEventIsSet(t *testing.T) {
	e := executor.NewEvent()
	calls := 0
	e.OnSet(func() {
		calls++
		require.True(t, e.TryWait())
	})
	e.Set()
	e.OnSet(nil)
	e.Set()
	require.Equal(t, 1, calls)
}

func TestTimers(t *testing.T) {
	ex, e := executor.Real(), executor.NewEvent()
	ex.AfterFunc(time.Microsecond, e.Set)
	require.NoError(t, ex.Wait(t.Context(), e))
	timer := ex.AfterFunc(time.Hour, e.Set)
	require.True(t, timer.Stop())
	require.False(t, timer.Stop())
	require.False(t, timer.Reset(time.Hour), "it was not pending")
	require.True(t, timer.Reset(time.Microsecond), "it was")
	require.NoError(t, ex.Wait(t.Context(), e))
	require.False(t, timer.Stop(), "it has fired")
	require.False(t, e.TryWait(), "it fires once")
}

func TestTheContextCarriesTheExecutor(t *testing.T) {
	type other struct{ executor.Executor }
	mine := &other{executor.Real()}
	require.Equal(t, executor.Real(), executor.From(t.Context(), executor.Real()))
	require.Same(t, mine, executor.From(executor.With(t.Context(), mine), executor.Real()))
}

// walled is an executor with a clock on the wall of its own.
type walled struct {
	executor.Executor
	shows time.Time
}

func (w walled) Wall() time.Time { return w.shows }

func TestTheClockOnTheWall(t *testing.T) {
	require.WithinDuration(t, time.Now(), executor.Wall(executor.Real()), time.Minute)
	then := time.Unix(17, 0)
	require.Equal(t, then, executor.Wall(walled{executor.Real(), then}))
}

func TestAnExecutorIsASourceOfRandomness(t *testing.T) {
	var source rand.Source = executor.Real()
	require.NotEqual(t, source.Uint64(), source.Uint64())
	require.WithinDuration(t, time.Now(), executor.Real().Now(), time.Minute)
	executor.Real().Yield()
}
