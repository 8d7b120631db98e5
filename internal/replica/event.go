package replica

import (
	"context"
	"iter"
	"sync"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
)

// eventBacklog is how many events a reader may be behind before it loses some.
const eventBacklog = 1024

// events hands what happens on a node to everyone who listens.
type events struct {
	node *Node

	mu      sync.Mutex
	readers []*eventReader
	closed  bool
}

type eventReader struct {
	wake   *executor.Event
	queue  []synod.Event
	missed uint64
}

func (n *Node) emit(e synod.Event) {
	s := &n.events
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.readers) == 0 {
		return
	}
	e.Time = n.ex.Now()
	for _, r := range s.readers {
		if len(r.queue) >= eventBacklog {
			r.missed++
			continue
		}
		r.queue = append(r.queue, e)
		r.wake.Set()
	}
}

// subscribe begins to listen at once, and yields when it is ranged over.
func (s *events) subscribe(ctx context.Context) iter.Seq[synod.Event] {
	r := &eventReader{wake: executor.NewEvent()}
	s.mu.Lock()
	s.readers = append(s.readers, r)
	if s.closed {
		r.wake.Set()
	}
	s.mu.Unlock()
	return func(yield func(synod.Event) bool) {
		defer s.drop(r)
		for {
			s.mu.Lock()
			queue, missed, closed := r.queue, r.missed, s.closed
			r.queue, r.missed = nil, 0
			s.mu.Unlock()
			for _, e := range queue {
				if !yield(e) {
					return
				}
			}
			if missed > 0 && !yield(synod.Event{Kind: synod.EventMissed, Time: s.node.ex.Now(), Index: missed}) {
				return
			}
			if len(queue) > 0 {
				continue
			}
			if closed || executor.From(ctx, s.node.ex).Wait(ctx, r.wake) != nil {
				return
			}
		}
	}
}

func (s *events) drop(r *eventReader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, o := range s.readers {
		if o == r {
			s.readers = append(s.readers[:i:i], s.readers[i+1:]...)
			return
		}
	}
}

func (s *events) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, r := range s.readers {
		r.wake.Set()
	}
}
