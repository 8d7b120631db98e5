package pebble

import (
	"sync"

	engine "github.com/cockroachdb/pebble/v2"
)

// commit is one CommitAsync whose done is to be called.
type commit struct {
	batch *engine.Batch // nil: there is nothing to wait for
	err   error         // why there isn't, if it failed
	size  int64         // bytes reserved in the queue
	done  func(error)
	over  chan struct{} // closed after done, if somebody waits for that
}

// queue holds the commits under way, in order.
type queue struct {
	limit int64 // bytes

	mu      sync.Mutex
	filled  sync.Cond // a commit was added, or the queue is closing
	drained sync.Cond // bytes were released
	commits []commit
	bytes   int64
	closing bool
	ended   bool
}

func newQueue(limit int64) *queue {
	q := &queue{limit: limit}
	q.filled.L, q.drained.L = &q.mu, &q.mu
	return q
}

// reserve waits until there is room for n bytes. What is larger than the limit
// has room in an empty queue.
func (q *queue) reserve(n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.bytes > 0 && q.bytes+n > q.limit {
		q.drained.Wait()
	}
	q.bytes += n
}

// release gives back what reserve took.
func (q *queue) release(n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= n
	q.drained.Broadcast()
}

// push adds a commit, unless the queue has ended.
func (q *queue) push(c commit) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return false
	}
	q.commits = append(q.commits, c)
	if len(q.commits) == 1 {
		q.filled.Signal()
	}
	return true
}

// take waits for commits, and returns all there are, or none once the queue has
// been closed and is empty. It takes over the slice that it returned before.
func (q *queue) take(old []commit) []commit {
	clear(old)
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.commits) == 0 && !q.closing {
		q.filled.Wait()
	}
	taken := q.commits
	q.commits = old[:0]
	q.ended = len(taken) == 0
	return taken
}

// close makes take return nothing once the queue is empty.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closing = true
	q.filled.Signal()
}
