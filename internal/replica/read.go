package replica

import (
	"sync"

	"github.com/synod-go/synod/internal/probe"
)

// reads is the linearizable reads of one group. All that wait when an attempt
// begins share it; those that come later wait for the next. An attempt that takes
// long is given up and repeated under a new ID, with everyone who waits by then:
// an answer to an old ID is not believed (it may have been asked before the
// last writes were acknowledged to those who joined since).
type reads struct {
	group *Group

	// The loop's.
	queued  []*call // wait for the next attempt
	asked   []*call // wait for the one under way
	renew   bool    // the next attempt is for the lease: nobody need wait for it
	busy    bool    // an attempt is under way
	id      ReadID
	started uint64 // the group's tick at which it began

	mu      sync.Mutex
	waiting []*call // confirmed, by index: wait for the applier
}

// readRetryTicks is how long an attempt may take, in heartbeats.
const readRetryTicks = 2

func (r *reads) init(g *Group) {
	r.group = g
	r.id.Boot = g.boot
}

// read begins an attempt unless one is under way.
func (l *loop) read(g *Group) {
	l.leaseReads(g)
	r := &g.reads
	if r.busy || len(r.queued) == 0 && !r.renew {
		return
	}
	r.asked, r.queued = r.queued, r.asked[:0]
	r.busy, r.renew = true, false
	r.id.Attempt++
	r.started = g.ticks
	g.leases.begin(g)
	defer l.recover(g)
	g.core.Read(r.id)
}

// restartReads gives up the attempt under way and begins a new one.
func (l *loop) restartReads(g *Group) {
	r := &g.reads
	if !r.busy {
		return
	}
	r.busy = false
	r.queued = append(r.queued, r.asked...)
	clear(r.asked)
	r.asked = r.asked[:0]
	l.mark(g)
}

func (l *loop) retryReads(g *Group) {
	if g.ticks-g.reads.started >= readRetryTicks {
		probe.Sometimes("replica: a read is asked again", len(g.reads.asked) > 0)
		l.restartReads(g)
	}
	l.renewLease(g)
}

// readConfirmed takes the answer to an attempt.
func (l *loop) readConfirmed(g *Group, result ReadResult) {
	r := &g.reads
	if result.ID != r.id || !r.busy {
		return
	}
	r.busy = false
	g.leases.confirmed(g)
	r.confirmed(r.asked, result.Index)
	clear(r.asked)
	r.asked = r.asked[:0]
	l.read(g) // ready goes on with what this brings
}

// confirmed answers calls once the state machine has applied everything up to an index.
func (r *reads) confirmed(calls []*call, index uint64) {
	r.mu.Lock()
	applied := r.group.applied.Load()
	probe.Sometimes("replica: a read waits for the state machine", applied < index)
	if applied >= index || probe.Bug("a read does not wait for the state machine") {
		r.mu.Unlock()
		for _, c := range calls {
			c.answer(nil, nil)
		}
		return
	}
	if n := len(r.waiting); n > 0 {
		index = max(index, r.waiting[n-1].index) // an attempt knows less than a lease since
	}
	for _, c := range calls {
		c.index = index
	}
	r.waiting = append(r.waiting, calls...)
	r.mu.Unlock()
}

// reached answers the reads that waited for the state machine to get this far. The
// applier calls it after it has set the group's applied index: whichever of the
// two comes second, it or readConfirmed, finds the read.
func (r *reads) reached(applied uint64) {
	r.mu.Lock()
	n := 0
	for n < len(r.waiting) && r.waiting[n].index <= applied {
		n++
	}
	ready := append([]*call(nil), r.waiting[:n]...)
	if n > 0 {
		m := copy(r.waiting, r.waiting[n:])
		clear(r.waiting[m:])
		r.waiting = r.waiting[:m]
	}
	r.mu.Unlock()
	for _, c := range ready {
		c.answer(nil, nil)
	}
}

// endReads answers everyone who waits with an error.
func (l *loop) endReads(g *Group, err error) {
	r := &g.reads
	r.mu.Lock()
	waiting := r.waiting
	r.waiting = nil
	r.mu.Unlock()
	for _, list := range [][]*call{r.queued, r.asked, waiting} {
		for _, c := range list {
			c.answer(nil, err)
		}
	}
	r.queued, r.asked, r.busy, r.renew = nil, nil, false, false
	revokeLease(g)
}
