package replica

import (
	"context"
	"sync"

	"github.com/synod-go/synod/internal/executor"
)

// tasks counts the background tasks of a group, so that closing it can wait for them.
type tasks struct {
	mu      sync.Mutex
	running int
	closed  bool
	idle    []*executor.Event // set when the last one ends after close
}

// enter begins work on a task that is not the group's and that closing it waits for; false
// if the group is closing.
func (t *tasks) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.running++
	return true
}

// leave ends what enter began.
func (t *tasks) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running--; t.running == 0 {
		for _, e := range t.idle {
			e.Set()
		}
		t.idle = nil
	}
}

// spawn runs fn on a task of its own; false if the group is closing. What panics
// there, a state machine's snapshot most likely, stops the group.
func (g *Group) spawn(fn func()) bool {
	t := &g.tasks
	if !t.enter() {
		return false
	}
	g.node.ex.Go(func() {
		defer func() {
			if v := recover(); v != nil {
				g.stop(panicError(v))
			}
			t.leave()
		}()
		fn()
	})
	return true
}

// close waits for the tasks and lets no more begin.
func (t *tasks) close(g *Group) {
	t.mu.Lock()
	t.closed = true
	var wait *executor.Event
	if t.running > 0 {
		wait = executor.NewEvent()
		t.idle = append(t.idle, wait)
	}
	t.mu.Unlock()
	if wait != nil {
		g.node.wait(context.Background(), wait)
	}
}
