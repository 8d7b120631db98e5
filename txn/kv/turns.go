package kv

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/synod-go/synod/internal/executor"
)

// turns has the transactions of a DB that write the same keys commit one after the other: together they would only make each other lose. A
// transaction joins the queues of all its keys at one moment, so nobody waits in a circle. It is no lock: those of other DBs do not
// ask, and who has waited for long goes on without.
type turns struct {
	limit time.Duration // how long one waits for its turn, until it goes on without

	mu     sync.Mutex
	queues map[string]queue
}

// queue is who wants to write a key: the first does.
type queue struct {
	first *turn
	rest  []*turn
}

// turn is the place of a transaction in the queues.
type turn struct {
	turns *turns
	keys  []string
	ahead int             // queues in which another one is first
	event *executor.Event // when there are none
}

// maxTurns is how many keys a transaction may queue for. One that writes more does not queue: it would hold up too many others.
const maxTurns = 64

// take queues for keys, which differ, and waits. The turn is to be left when it returns no error; waited says that others had theirs before.
func (t *turns) take(ctx context.Context, ex executor.Executor, keys []string) (mine *turn, waited bool, err error) {
	mine = &turn{turns: t, keys: keys}
	if len(keys) > maxTurns {
		mine.keys = nil
		return mine, false, nil
	}
	t.mu.Lock()
	if t.queues == nil {
		t.queues = make(map[string]queue)
	}
	for _, k := range keys {
		q := t.queues[k]
		if q.first == nil {
			q.first = mine
		} else {
			q.rest = append(q.rest, mine)
			mine.ahead++
		}
		t.queues[k] = q
	}
	if mine.ahead == 0 {
		t.mu.Unlock()
		return mine, false, nil
	}
	mine.event = executor.NewEvent()
	t.mu.Unlock()
	timer := ex.AfterFunc(t.limit, mine.event.Set)
	defer timer.Stop()
	if err := executor.From(ctx, ex).Wait(ctx, mine.event); err != nil {
		mine.leave()
		return nil, true, err
	}
	return mine, true, nil
}

// covers reports whether the turn is for all of these keys, or for none because they are too many.
func (m *turn) covers(keys []string) bool {
	return len(keys) > maxTurns || !slices.ContainsFunc(keys, func(k string) bool { return !slices.Contains(m.keys, k) })
}

// leave gives the turn up, or the place in the queues.
func (m *turn) leave() {
	m.turns.mu.Lock()
	defer m.turns.mu.Unlock()
	for _, k := range m.keys {
		q := m.turns.queues[k]
		switch {
		case q.first != m:
			q.rest = slices.DeleteFunc(q.rest, func(o *turn) bool { return o == m })
		case len(q.rest) == 0:
			delete(m.turns.queues, k)
			continue
		default:
			q.first = q.rest[0]
			q.rest = slices.Delete(q.rest, 0, 1)
			if q.first.ahead--; q.first.ahead == 0 {
				q.first.event.Set()
			}
		}
		m.turns.queues[k] = q
	}
	m.keys = nil
}
