package sim

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/synod-go/synod/internal/executor"
)

// The functions of this file are for code that runs in a simulation and outside of it:
// they take the world from the context, and without one do what the standard library
// does.

func inside(ctx context.Context) *sandbox {
	s, _ := executor.From(ctx, nil).(*sandbox)
	return s
}

// Sleep waits until d has passed, or returns the context's error. In a simulation it is
// virtual time, on the clock of the node that the task belongs to.
func Sleep(ctx context.Context, d time.Duration) error {
	ex := executor.From(ctx, nil)
	if ex == nil {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			return nil
		}
	}
	e := executor.NewEvent()
	t := ex.AfterFunc(d, e.Set)
	defer t.Stop()
	return ex.Wait(ctx, e)
}

// WithTimeout is context.WithTimeout. In a simulation the deadline is virtual: a context
// of the standard library ends on real time, which no seed repeats, and a wait with one
// fails the run.
func WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	s := inside(ctx)
	if s == nil {
		return context.WithTimeout(ctx, d)
	}
	c := &deadline{Context: ctx, at: s.Now().Add(d), done: make(chan struct{})}
	t := s.AfterFunc(d, func() { c.end(context.DeadlineExceeded) })
	stop := func() bool { return false }
	if outer, ok := ctx.(*deadline); ok {
		stop = outer.AfterFunc(func() { c.end(outer.err) })
	}
	return c, func() {
		t.Stop()
		stop()
		c.end(context.Canceled)
	}
}

// Now returns the time that the clock on the wall of the task's node shows. In a
// simulation it may be wrong, run apart from that of others, and jump.
func Now(ctx context.Context) time.Time {
	if s := inside(ctx); s != nil {
		return s.Wall()
	}
	return time.Now()
}

// Rand returns a random source: one that depends on the seed, in a simulation.
func Rand(ctx context.Context) *rand.Rand {
	if s := inside(ctx); s != nil {
		return s.world.random
	}
	return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
}

// Go runs fn as a task of the node to which the caller belongs, or as a goroutine. A
// crash of the node ends it.
func Go(ctx context.Context, fn func()) {
	if s := inside(ctx); s != nil {
		s.Go(fn)
		return
	}
	go fn()
}
