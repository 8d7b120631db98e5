package replica

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/storage"
)

// applier is the tasks that run the state machines of all groups of a node, so
// that a slow one holds up neither heartbeats nor, while a task is free, others.
// A group is worked on by one task at a time.
type applier struct {
	node *Node

	mu     sync.Mutex
	queue  []*Group
	head   int
	idle   []*executor.Event
	live   int // tasks that have not ended
	closed bool
	exited []*executor.Event
}

func newApplier(n *Node, tasks int) *applier {
	a := &applier{node: n, live: tasks}
	for range tasks {
		exited := executor.NewEvent()
		a.exited = append(a.exited, exited)
		n.ex.Go(func() { a.run(exited) })
	}
	return a
}

// push has a group worked on; false if there is nobody any more who would.
func (a *applier) push(g *Group) bool {
	a.mu.Lock()
	if a.live == 0 {
		a.mu.Unlock()
		return false
	}
	a.queue = append(a.queue, g)
	var wake *executor.Event
	if n := len(a.idle); n > 0 {
		wake = a.idle[n-1]
		a.idle = a.idle[:n-1]
	}
	a.mu.Unlock()
	if wake != nil {
		wake.Set()
	}
	return true
}

func (a *applier) run(exited *executor.Event) {
	wake := executor.NewEvent()
	for {
		a.mu.Lock()
		if a.head == len(a.queue) {
			a.queue, a.head = a.queue[:0], 0
			if a.closed {
				a.live--
				a.mu.Unlock()
				exited.Set()
				return
			}
			a.idle = append(a.idle, wake)
			a.mu.Unlock()
			_ = a.node.ex.Wait(context.Background(), wake)
			continue
		}
		g := a.queue[a.head]
		a.queue[a.head] = nil
		a.head++
		a.mu.Unlock()
		g.applyRound()
	}
}

func (a *applier) close(ctx context.Context) {
	a.mu.Lock()
	a.closed = true
	for _, e := range a.idle {
		e.Set()
	}
	a.idle = nil
	a.mu.Unlock()
	for _, e := range a.exited {
		_ = a.node.ex.Wait(ctx, e)
	}
}

// applyItem is work for a group's state machine. An empty one makes the applier
// look at what else there is to do.
type applyItem struct {
	entries []Entry
	restore *SnapshotMeta
	export  *exporting
}

// applyState is what the applier knows of a group.
type applyState struct {
	mu        sync.Mutex
	queue     []applyItem
	spare     []applyItem
	scheduled bool
	closed    bool
	closing   []*executor.Event // set when the last round is over

	// Used by one applier task at a time.
	position     Position // up to where the state machine has applied
	config       []byte   // the configuration there
	skip         uint64   // commands up to this one were in it before the log got there
	fence        uint64
	lastSnapshot Position // the last one that was taken, or tried
	bytes        uint64   // of entries since then
	total        uint64   // of entries since the group was opened
	marks        []mark
	batch        []synod.Entry
	callers      []*call
	sessions     *sessionTable // as of position
	saved        *checkpoint   // that the state machine does not have durably yet
	taken        []*call       // of the batch that is applied
	keeping      []keeping
	exports      []*exporting // that wait until the log is where the state machine is
}

// held returns how many commands are in the state machine. While it replays what a
// state machine kept by itself, the log is behind that.
func (s *applyState) held() uint64 { return max(s.position.Commands, s.skip) }

// pushApply queues work for the state machine; false if it is over with that.
func (g *Group) pushApply(item applyItem) bool {
	s := &g.apply
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	s.queue = append(s.queue, item)
	schedule := !s.scheduled
	s.scheduled = true
	s.mu.Unlock()
	if !schedule || g.node.applier.push(g) {
		return true
	}
	s.mu.Lock() // the node has closed
	queue := s.queue
	s.queue, s.scheduled = nil, false
	s.mu.Unlock()
	g.endExports(queue)
	return false
}

// endExports answers the calls of Export that are among work that is not done.
func (g *Group) endExports(items []applyItem) {
	for _, item := range items {
		if item.export != nil {
			item.export.finish(SnapshotMeta{}, nil, g.closedError())
		}
	}
}

// endWaitingExports answers those that wait. It is called in a round, or after the last one, and then by
// each who closes the group.
func (g *Group) endWaitingExports() {
	s := &g.apply
	s.mu.Lock()
	exports := s.exports
	s.exports = nil
	s.mu.Unlock()
	for _, x := range exports {
		x.finish(SnapshotMeta{}, nil, g.closedError())
	}
}

// close waits until no round of the group runs and none will.
func (s *applyState) close(g *Group) {
	s.mu.Lock()
	s.closed = true
	queue := s.queue
	s.queue = nil
	var wait *executor.Event
	if s.scheduled {
		wait = executor.NewEvent()
		s.closing = append(s.closing, wait)
	}
	s.mu.Unlock()
	g.endExports(queue)
	if wait != nil {
		g.node.wait(context.Background(), wait)
	}
	g.endWaitingExports()
}

func (g *Group) applyRound() {
	s := &g.apply
	s.mu.Lock()
	items := s.queue
	s.queue = s.spare[:0]
	s.mu.Unlock()
	if !g.stopped.Load() && len(items) > 0 {
		g.applyItems(items)
	} else {
		g.endExports(items)
	}
	if g.stopped.Load() {
		g.endWaitingExports()
	}
	clear(items)
	s.mu.Lock()
	s.spare = items[:0]
	again := len(s.queue) > 0 && !s.closed
	s.scheduled = again
	closing := s.closing
	s.mu.Unlock()
	if again {
		g.node.applier.push(g)
		return
	}
	for _, e := range closing {
		e.Set()
	}
}

// applyItems runs the state machine. Whatever goes wrong stops the group.
func (g *Group) applyItems(items []applyItem) {
	defer func() {
		if v := recover(); v != nil {
			g.stop(fmt.Errorf("state machine: %w", panicError(v)))
		}
		// Callers whose commands the state machine may have seen, or not.
		for _, callers := range []*[]*call{&g.apply.callers, &g.apply.taken} {
			for i, c := range *callers {
				if c != nil {
					c.answer(nil, unknown(g.id, g.closedError()))
					(*callers)[i] = nil
				}
			}
			*callers = (*callers)[:0]
		}
	}()
	done := 0
	defer func() { g.endExports(items[done:]) }()
	for i := range items {
		item := &items[i]
		var err error
		switch {
		case item.export != nil:
			g.apply.exports = append(g.apply.exports, item.export)
			done = i + 1
		case item.restore != nil:
			err = g.applyRestore(item.restore)
		default:
			err = g.applyEntries(item.entries)
		}
		if err != nil {
			g.stop(err)
			return
		}
		g.publishApplied()
		g.captureExports()
	}
	g.maintain()
}

// stop fails the group from the applier.
func (g *Group) stop(err error) {
	g.stopped.Store(true) // no later entry may be applied, nor answered
	g.failure.CompareAndSwap(nil, &synod.FailedError{Group: g.id, Err: err})
	g.loop.do(func() { g.loop.fail(g, err) })
}

// publishApplied tells everyone who waits how far the state machine has got.
func (g *Group) publishApplied() {
	index := g.apply.position.Index
	if g.applied.Load() == index {
		return
	}
	g.commands.Store(g.apply.held())
	g.applied.Store(index)
	g.reads.reached(index)
	if !g.appliedPosted.Swap(true) {
		g.loop.post(func(in *inbox) { in.applied = append(in.applied, g) })
	}
}

func (g *Group) applyEntries(entries []Entry) error {
	s := &g.apply
	batcher, batched := g.cfg.StateMachine.(synod.BatchApplier)
	var applied int64
	for i := range entries {
		e := &entries[i]
		if e.Index != s.position.Index+1 {
			return fmt.Errorf("entry %d follows entry %d: this is a bug in the protocol's core", e.Index, s.position.Index)
		}
		if e.Fence > s.fence {
			s.fence = e.Fence
			g.pend.lost(e.Fence, func(c *call) {
				probe.Sometimes("replica: a proposal is lost to a later term", true)
				c.answer(nil, g.notLeader())
			})
		}
		s.bytes += uint64(len(e.Data))
		s.total += uint64(len(e.Data))
		switch e.Kind {
		case EntryEmpty:
		case EntryConfig:
			s.config = e.Data
		case EntryCommand:
			n, err := 0, error(nil)
			if len(e.Data) > 0 && e.Data[0] == sessionBatchVersion {
				n, err = g.applySessionBatch(e, batcher)
			} else {
				n, err = g.applyBatch(e, batched)
			}
			if err != nil {
				return &storage.CorruptError{Group: g.id, Index: e.Index, Reason: err.Error()}
			}
			applied += int64(n)
			if batched && len(s.batch) >= maxApplyBatch {
				g.flushBatch(batcher)
			}
		}
		s.position = e.Position(s.position.Commands)
		s.mark()
	}
	if batched {
		g.flushBatch(batcher)
	}
	g.node.count(metricApplied, g.id, applied)
	return nil
}

// maxApplyBatch is the number of commands from which on a batch is handed to a
// BatchApplier, at the next end of an entry.
const maxApplyBatch = 4096

// applyBatch applies the commands of one entry, or gathers them for a BatchApplier.
func (g *Group) applyBatch(e *Entry, batched bool) (int, error) {
	s := &g.apply
	r := NewReader(e.Data)
	h, err := readBatchHeader(r)
	if err != nil {
		return 0, err
	}
	own := h.boot == g.boot
	first := len(s.callers)
	if own {
		s.callers = g.pend.take(s.callers, h.first, h.count)
	}
	for i := range h.count {
		command := r.Bytes()
		if r.err != nil {
			return 0, r.err
		}
		s.position.Commands++
		if s.position.Commands <= s.skip {
			if own && batched { // callers go with the batch, one by one
				at := len(s.callers) - (h.count - i)
				s.callers = slices.Delete(s.callers, at, at+1)
			}
			continue
		}
		if batched {
			s.batch = append(s.batch, synod.Entry{Index: s.position.Commands, Command: command})
			if !own {
				s.callers = append(s.callers, nil)
			}
			continue
		}
		result := g.cfg.StateMachine.Apply(s.position.Commands, command)
		if own {
			if c := s.callers[first+i]; c != nil {
				s.callers[first+i] = nil
				c.answer(result, nil)
			}
		}
	}
	if !batched {
		clear(s.callers)
		s.callers = s.callers[:0]
	}
	return h.count, r.Err()
}

func (g *Group) flushBatch(b synod.BatchApplier) {
	s := &g.apply
	if len(s.batch) == 0 {
		return
	}
	b.ApplyBatch(s.batch)
	s.keepResults()
	for i, c := range s.callers {
		if c != nil {
			s.callers[i] = nil
			c.answer(s.batch[i].Result, nil)
		}
	}
	clear(s.batch)
	clear(s.callers)
	s.batch, s.callers = s.batch[:0], s.callers[:0]
	if cap(s.batch) > 4*maxApplyBatch {
		s.batch, s.callers = nil, nil
	}
}

func (g *Group) applyRestore(meta *SnapshotMeta) error {
	s := &g.apply
	// What was proposed before may be inside the snapshot.
	g.pend.drain(func(c *call) {
		probe.Sometimes("replica: an installed snapshot leaves an outcome unknown", true)
		c.answer(nil, unknown(g.id, errInstalled))
	})
	held, err := g.restoreStateMachine(*meta)
	if err != nil {
		return err
	}
	s.position, s.config, s.skip = meta.Position, meta.Config, held
	if probe.Bug("what a restored state holds beyond the log is applied again") {
		s.skip = 0
	}
	s.lastSnapshot, s.bytes, s.marks = meta.Position, 0, nil
	if _, ok := g.cfg.StateMachine.(synod.DurableIndex); ok {
		// The state machine has it: the chunks have done their work.
		c := s.capture()
		g.loop.do(func() { g.loop.dropSnapshot(g, meta.ID, c) })
	}
	g.restoring.Store(false)
	g.node.emit(synod.Event{Kind: synod.EventSnapshotInstalled, Group: g.id, Index: meta.Index, Term: meta.Term})
	return nil
}

// mark is a position at which the log may be cut, and the configuration there.
// Marks lie at least markDistance apart, and further when there are many.
type mark struct {
	Position
	config     []byte
	total      uint64 // bytes of entries up to there, since the group was opened
	checkpoint *checkpoint
}

const (
	markDistance = 64
	markBytes    = 1 << 20
	maxMarks     = 4096
)

func (s *applyState) mark() {
	if n := len(s.marks); n > 0 {
		last := &s.marks[n-1]
		if s.position.Index < last.Index+markDistance && s.total < last.total+markBytes {
			return
		}
	}
	if len(s.marks) == maxMarks {
		n := 0
		for i := 0; i < maxMarks; i += 2 {
			s.marks[n] = s.marks[i]
			n++
		}
		s.marks = s.marks[:n]
	}
	s.marks = append(s.marks, mark{Position: s.position, config: s.config, total: s.total})
}

// cut returns the last mark up to which the log may be cut, and forgets it and those before.
func (s *applyState) cut(may func(mark) bool) (mark, bool) {
	n := 0
	for n < len(s.marks) && may(s.marks[n]) {
		n++
	}
	if n == 0 {
		return mark{}, false
	}
	m := s.marks[n-1]
	s.marks = append(s.marks[:0], s.marks[n:]...)
	return m, true
}

// maintain takes snapshots and cuts the log, when it is time.
func (g *Group) maintain() {
	s := &g.apply
	since := s.position.Index - s.lastSnapshot.Index
	due := since >= g.cfg.SnapshotEntries || s.bytes >= g.cfg.SnapshotBytes || since > 0 && probe.Buggify("replica: a snapshot before it is due")
	durable, keepsState := g.cfg.StateMachine.(synod.DurableIndex)
	switch {
	case keepsState:
		if g.wantSnapshot.Load() {
			g.captureLive()
		}
		if due {
			s.lastSnapshot, s.bytes = s.position, 0
			have, err := durable.DurableIndex()
			if err != nil {
				g.stop(fmt.Errorf("state machine's durable index: %w", err))
				return
			}
			if m, ok := g.cutDurable(have); ok {
				g.loop.do(func() { g.loop.compact(g, m) })
			}
		}
	case due || g.wantSnapshot.Load():
		g.takeSnapshot()
	}
}

// mayCut says whether the entries up to m are not kept for followers that lag: so
// many entries follow, or so many bytes of them.
func (g *Group) mayCut(m mark) bool {
	s := &g.apply
	return m.Index+g.cfg.RetainEntries <= s.position.Index || m.total+g.cfg.RetainBytes <= s.total
}

func (l *loop) compact(g *Group, p mark) {
	if !l.live(g) || p.Index <= g.compacted {
		return
	}
	defer l.recover(g)
	if l.held(g, p.Index) {
		return // the next snapshot's cut goes further
	}
	l.scratch.Reset()
	g.core.Compact(p.Position, p.config, &l.scratch)
	p.checkpoint.store(g.keys, &l.scratch)
	l.pending.batch.Append(&l.scratch)
	g.compacted = p.Index
	g.compactBelow.Store(p.Index)
	l.node.emit(synod.Event{Kind: synod.EventLogCompacted, Group: g.id, Index: p.Index})
}
