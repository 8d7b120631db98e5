package executor

import (
	"context"
	"math/rand/v2"
	"runtime"
	"time"
)

// Real returns the executor that uses goroutines, the system's clock and the
// runtime's random source. It has no state: all its values are equal.
func Real() Executor { return realExecutor{} }

type realExecutor struct{}

var _ Executor = realExecutor{}

func (realExecutor) Now() time.Time { return time.Now() }

func (realExecutor) Uint64() uint64 { return rand.Uint64() }

func (realExecutor) AfterFunc(d time.Duration, fn func()) Timer { return time.AfterFunc(d, fn) }

func (realExecutor) Go(fn func()) { go fn() }

func (realExecutor) Yield() { runtime.Gosched() }

func (realExecutor) Wait(ctx context.Context, e *Event) error {
	select {
	case <-e.ch:
		return nil
	default:
	}
	select {
	case <-e.ch:
		return nil
	case <-ctx.Done():
		// Both may be ready: the event wins, or a result that has arrived would be
		// reported as a timeout.
		if e.TryWait() {
			return nil
		}
		return ctx.Err()
	}
}
