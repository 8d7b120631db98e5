// Package executor puts time, timers, randomness, concurrency and waiting
// behind one interface, so that everything above a protocol core runs unchanged
// on goroutines and the clock ([Real]), or inside a simulation that runs a whole
// cluster on one thread from a seed.
//
// # Usage
//
// Code that runs for a while is a task, started with Go. A task that has nothing
// to do waits on an [Event]; whoever has work for it sets the event. Work in the
// background is a task too, and its completion is the event that it sets:
//
//	done := executor.NewEvent()
//	ex.Go(func() { result = work(); done.Set() })
//	…
//	err := ex.Wait(ctx, done)
//
// A public blocking call finds its executor in its context ([From]): in a
// simulation the context carries the simulation's, and the call parks a task
// instead of blocking a thread. This is the whole hook: application code that
// blocks needs no change.
//
// # Guarantees
//
// What a task did before Set is visible to the task that Wait returns to. Set
// never blocks and is never lost: an event set before Wait makes it return at
// once.
//
// # Limits
//
// A task must not block by any other means (channels, condition variables,
// sleeping), or a simulation hangs; it may hold a mutex, but never while it
// waits. internal/lint enforces both as far as syntax shows them.
package executor

import (
	"context"
	"time"
)

// Executor is the source of time, randomness and concurrency. All methods may
// be called concurrently.
type Executor interface {
	// Now returns the current time. Differences of two results are monotonic.
	Now() time.Time

	// Uint64 returns 64 random bits, so that an Executor is a math/rand/v2
	// Source. They are unpredictable on a real executor, a function of the seed
	// in a simulation.
	Uint64() uint64

	// AfterFunc calls fn once, d from now, on a task of its own. fn must not wait.
	AfterFunc(d time.Duration, fn func()) Timer

	// Go runs fn as a task of its own.
	Go(fn func())

	// Yield lets other tasks that are ready to run do so first.
	Yield()

	// Wait returns nil once e has been set, and takes the setting back, so that
	// the event can be used again. It returns the context's error if ctx is done
	// first; an event that is set already wins over a context that is done.
	Wait(ctx context.Context, e *Event) error
}

// WallClock is an optional power of an [Executor]: a clock on the wall that is another
// than that of Now. It may be wrong, run apart from that of others, and jump. Use it
// through [Wall].
type WallClock interface {
	// Wall returns what it shows. It may be called concurrently.
	Wall() time.Time
}

// Wall returns what ex's clock on the wall shows. Without one of its own it is Now, which
// on a real executor is both clocks in one.
func Wall(ex Executor) time.Time {
	if w, ok := ex.(WallClock); ok {
		return w.Wall()
	}
	return ex.Now()
}

// Timer is a pending AfterFunc.
type Timer interface {
	// Stop prevents the call, and reports whether it did.
	Stop() bool
	// Reset makes the call happen (again) d from now, as time.Timer.Reset does.
	Reset(d time.Duration) bool
}

// Event is a flag that one task waits for and any number of tasks set. Setting
// it twice before it is waited for is the same as setting it once. It is made
// with NewEvent and may be used again and again.
type Event struct {
	ch   chan struct{}
	hook func()
}

// NewEvent returns an event that is not set.
func NewEvent() *Event { return &Event{ch: make(chan struct{}, 1)} }

// Set sets the event and wakes the task that waits for it, if there is one.
func (e *Event) Set() {
	select {
	case e.ch <- struct{}{}:
	default:
	}
	if e.hook != nil {
		e.hook()
	}
}

// TryWait takes the setting back and reports whether there was one.
func (e *Event) TryWait() bool {
	select {
	case <-e.ch:
		return true
	default:
		return false
	}
}

// OnSet makes every later Set call fn, on the task that sets; nil ends that. It
// is for an Executor that schedules its tasks itself, and must not be called
// concurrently with Set.
func (e *Event) OnSet(fn func()) { e.hook = fn }

type contextKey struct{}

// With returns a context whose blocking calls wait through ex: ctx itself, where that is so already. What a context of the
// simulation can do beyond one of package context is not hidden then.
func With(ctx context.Context, ex Executor) context.Context {
	if From(ctx, nil) == ex {
		return ctx
	}
	return context.WithValue(ctx, contextKey{}, ex)
}

// From returns the executor that ctx carries, or fallback if it carries none.
func From(ctx context.Context, fallback Executor) Executor {
	if ex, ok := ctx.Value(contextKey{}).(Executor); ok {
		return ex
	}
	return fallback
}
