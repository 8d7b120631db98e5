package kv

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/synod-go/synod/internal/executor"
)

// turns has the transactions of a DB that have lost for a key go on one after the other: together they would only lose again. A
// transaction has one turn at most, and does not wait for another while it has it: so nobody waits in a circle.
type turns struct {
	limit   time.Duration // how long one waits for its turn, until it goes on without
	mu      sync.Mutex
	waiting map[string][]*executor.Event // by key: the first has the turn
}

// turnAfter is the limit of a DB.
const turnAfter = 100 * time.Millisecond

// take waits for a key's turn. release gives it up; it is to be called in any case, once.
func (t *turns) take(ctx context.Context, ex executor.Executor, key string) (release func(), err error) {
	e := executor.NewEvent()
	t.mu.Lock()
	if t.waiting == nil {
		t.waiting = make(map[string][]*executor.Event)
	}
	t.waiting[key] = append(t.waiting[key], e)
	first := len(t.waiting[key]) == 1
	t.mu.Unlock()
	release = func() { t.leave(key, e) }
	if first {
		return release, nil
	}
	timer := ex.AfterFunc(t.limit, e.Set)
	defer timer.Stop()
	return release, executor.From(ctx, ex).Wait(ctx, e)
}

func (t *turns) leave(key string, e *executor.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.waiting[key]
	i := slices.Index(list, e)
	list = slices.Delete(list, i, i+1)
	switch {
	case len(list) == 0:
		delete(t.waiting, key)
		return
	case i == 0:
		list[0].Set()
	}
	t.waiting[key] = list
}
