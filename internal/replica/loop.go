package replica

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/transport"
)

// loop is an event loop: one task that owns the cores of many groups. It works in
// rounds. A round takes all that has arrived, feeds the cores, and collects what
// they want done: one frame for each peer, which leaves at once, and one batch for
// the store, which is committed while the next rounds go on.
//
// At most one commit is under way. What is to be stored meanwhile gathers in the
// pending batch, so that load makes the batches larger and not the syncs more. A batch
// that has grown to commitBytes is closed, and waits in a queue for its turn.
type loop struct {
	node   *Node
	number uint64 // among the node's loops
	wake   *executor.Event

	mu     sync.Mutex
	in     inbox // what has arrived and waits for the next round
	closed bool

	// All below belongs to the loop's task.
	groups   map[uint64]*Group
	order    []*Group // the same, in the order of their start
	repairs  map[uint64]*repair
	taken    inbox // what this round works on
	dirty    []*Group
	out      Output
	scratch  storage.Batch
	frames   []*outFrame // by order of first use
	pending  *commit     // gathers
	queue    []*commit   // go before it, in this order: closed, or refused for want of space
	inflight *commit
	spare    []*commit
	count    uint64 // commits so far, of all runs
	ticks    uint64
	took     int               // bytes that this round has taken up beside what waits for the store
	closers  []*executor.Event // of Group.Close: set when its records are written
	full     error             // the store has no space: why; all waits for room
	timer    executor.Timer
	stopping bool
	exited   *executor.Event
}

// inbox is what a loop has been handed. Its slices are reused.
type inbox struct {
	controls    []func()
	commits     []*commit
	frames      []inFrame
	calls       []*call
	applied     []*Group
	unreachable []uint64
	ticks       int
	bytes       int
}

func (b *inbox) empty() bool {
	return len(b.controls) == 0 && len(b.commits) == 0 && len(b.frames) == 0 && len(b.calls) == 0 &&
		len(b.applied) == 0 && len(b.unreachable) == 0 && b.ticks == 0
}

func (b *inbox) reset() {
	clear(b.controls)
	clear(b.frames)
	clear(b.calls)
	clear(b.applied)
	*b = inbox{controls: b.controls[:0], commits: b.commits[:0], frames: b.frames[:0], calls: b.calls[:0],
		applied: b.applied[:0], unreachable: b.unreachable[:0]}
}

type inFrame struct {
	from        uint64
	incarnation uint64
	kind        frameKind
	messages    []frameMessage
	bytes       int // of the messages, as the inbox counts them
	size        int // of the frame in which they came, maybe with those for other loops
}

// commit is one batch on its way to the store.
type commit struct {
	batch   storage.Batch
	urgent  bool
	counted bool // the number of commits is in it
	acks    []ack
	after   []func() // run by the loop once the batch is durable
	always  []func() // run by the loop once the batch is durable, or never will be
	err     error
	done    func(error)
}

const (
	// commitBytes is the size at which a commit takes no more. More would not make a
	// sync cheaper, and stores refuse what is very large: storage/pebble from 1 GiB on.
	commitBytes = 16 << 20

	// maxHeads and maxOutMessages are for how many bytes of beginnings of messages, and for how many messages, a loop keeps room, for each peer:
	// a frame of frameTarget has no more, but for one of the shortest messages.
	maxHeads       = frameTarget
	maxOutMessages = 1 << 14

	// smallMessage is the size up to which messages are taken up whatever waits for the
	// store: heartbeats, votes and acknowledgements are smaller.
	smallMessage = 1 << 10
)

// ack is what a core is told when a commit is durable.
type ack struct {
	group   *Group
	token   uint64
	restore *SnapshotMeta // the snapshot that the commit put in the place of the log
}

// outFrame gathers the messages for one peer in one round.
type outFrame struct {
	to       uint64
	address  frameAddress // as of the first message
	messages []outMessage
	heads    []byte // of all messages
	size     int    // of all messages in the frame
	groups   []*Group
}

// outMessage is a message of a frame: what stands among the heads between the end of the one before and its own, and the tail.
type outMessage struct {
	end  int
	tail []byte
}

func newLoop(n *Node, number uint64) *loop {
	l := &loop{
		node:    n,
		number:  number,
		count:   n.counts[number],
		wake:    executor.NewEvent(),
		groups:  make(map[uint64]*Group),
		repairs: make(map[uint64]*repair),
		exited:  executor.NewEvent(),
	}
	l.pending = l.newCommit()
	return l
}

// newCommit returns an empty commit.
func (l *loop) newCommit() *commit {
	if n := len(l.spare); n > 0 {
		c := l.spare[n-1]
		l.spare = l.spare[:n-1]
		return c
	}
	c := &commit{}
	c.done = func(err error) {
		c.err = err
		l.post(func(in *inbox) { in.commits = append(in.commits, c) })
	}
	return c
}

// post hands something to the loop; false if the loop has ended.
func (l *loop) post(put func(*inbox)) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	idle := l.in.empty()
	put(&l.in)
	l.mu.Unlock()
	if idle {
		l.wake.Set()
	}
	return true
}

// postCall is post without a closure, for what happens most.
func (l *loop) postCall(c *call) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	idle := l.in.empty()
	l.in.calls = append(l.in.calls, c)
	l.mu.Unlock()
	if idle {
		l.wake.Set()
	}
	return true
}

// postFrame hands over messages that have arrived; those over the limit are
// dropped, as the network might have done.
func (l *loop) postFrame(f inFrame) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	// An empty inbox takes anything: a sender may have larger limits.
	if l.in.bytes > 0 && l.in.bytes+f.bytes > l.node.cfg.MaxInboxBytes || probe.Buggify("replica: the inbox is full") {
		l.mu.Unlock()
		l.node.count(metricFramesDropped, 0, 1)
		return
	}
	idle := l.in.empty()
	l.in.frames = append(l.in.frames, f)
	l.in.bytes += f.bytes
	l.mu.Unlock()
	if idle {
		l.wake.Set()
	}
}

// do runs fn in the loop; false if the loop has ended.
func (l *loop) do(fn func()) bool {
	return l.post(func(in *inbox) { in.controls = append(in.controls, fn) })
}

// call runs fn in the loop and waits for it; false if the loop has ended before.
func (l *loop) call(ctx context.Context, fn func()) bool {
	done, ran := executor.NewEvent(), false
	if !l.do(func() { fn(); ran = true; done.Set() }) {
		return false
	}
	l.node.wait(ctx, done)
	return ran
}

func (l *loop) run() {
	l.timer = l.node.ex.AfterFunc(l.node.cfg.HeartbeatInterval, func() {
		l.post(func(in *inbox) { in.ticks++ })
	})
	for {
		l.mu.Lock()
		l.in, l.taken = l.taken, l.in
		l.mu.Unlock()
		if l.taken.empty() {
			if l.stopping && l.inflight == nil {
				break
			}
			_ = l.node.ex.Wait(context.Background(), l.wake)
			// Whoever woke the loop is seldom alone: callers that were answered together
			// come back together. Letting them go first makes one round of many.
			l.node.ex.Yield()
			continue
		}
		l.round(&l.taken)
		l.taken.reset()
	}
	l.mu.Lock()
	l.closed = true
	rest := l.in
	l.mu.Unlock()
	for _, c := range rest.calls {
		if c.take() {
			c.answer(nil, fmt.Errorf("group %d: %w", c.group.id, synod.ErrClosed))
		}
	}
	for _, fn := range rest.controls {
		fn()
	}
	// What is pending now promises nothing to anyone and is dropped.
	for _, c := range append(l.queue, l.pending) {
		for _, fn := range c.always {
			fn()
		}
	}
	l.exited.Set()
}

func (l *loop) round(in *inbox) {
	l.took = 0
	for _, fn := range in.controls {
		fn()
	}
	for _, c := range in.commits {
		l.committed(c)
	}
	for _, g := range in.applied {
		g.appliedPosted.Store(false)
		if l.live(g) {
			l.applied(g)
		}
	}
	for i := range in.frames {
		l.receive(&in.frames[i])
	}
	for _, c := range in.calls {
		l.begin(c)
	}
	for _, peer := range in.unreachable {
		for _, g := range l.order {
			l.unreachable(g, peer)
		}
	}
	if in.ticks > 0 {
		l.timer.Reset(l.node.cfg.HeartbeatInterval)
		if l.ticks++; l.number == 0 && l.ticks%progressTicks == 0 && l.pending.batch.Len() > 0 {
			l.node.keepProgress(&l.pending.batch)
		}
		for _, g := range l.order {
			l.tick(g)
		}
		if l.full != nil {
			l.full = nil // try whether there is room now
			l.pending.urgent = true
		}
		if l.pending.batch.Len() > 0 {
			l.pending.urgent = true
		}
	}
	// A group may become dirty again while it is worked on.
	for i := 0; i < len(l.dirty); i++ {
		g := l.dirty[i]
		g.dirty = false
		if l.live(g) {
			l.propose(g)
			l.read(g)
			l.ready(g)
		}
	}
	clear(l.dirty)
	l.dirty = l.dirty[:0]
	l.flush()
	l.commit()
}

// live reports whether the group still runs in this loop.
func (l *loop) live(g *Group) bool { return l.groups[g.id] == g }

func (l *loop) mark(g *Group) {
	if !g.dirty {
		g.dirty = true
		l.dirty = append(l.dirty, g)
	}
}

// recover turns a panic of a core into the failure of its group. It is deferred
// around every call of a core.
func (l *loop) recover(g *Group) {
	if v := recover(); v != nil {
		l.fail(g, panicError(v))
	}
}

func panicError(v any) error {
	if err, ok := v.(error); ok {
		var runtime interface{ RuntimeError() }
		if !errors.As(err, &runtime) {
			return err
		}
	}
	return &panicked{v, debug.Stack()}
}

// panicked is what a core or a state machine panicked with. Where it happened is
// for the log, and not for whoever gets the error.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// begin takes up a call of the application.
func (l *loop) begin(c *call) {
	g := c.group
	if !c.take() {
		return
	}
	if !l.live(g) {
		c.answer(nil, g.closedError())
		return
	}
	switch c.kind {
	case callPropose:
		switch {
		case l.full != nil:
			c.answer(nil, fmt.Errorf("group %d: not executed: %w", g.id, l.full))
			return
		case l.swamped():
			c.answer(nil, fmt.Errorf("group %d: %w: too many bytes wait for the store", g.id, synod.ErrOverloaded))
			return
		case !g.leading:
			c.answer(nil, g.notLeader())
			return
		}
		l.took += len(c.command)
		g.incoming = append(g.incoming, c)
	case callRead:
		if len(g.reads.asked) > 0 && probe.Bug("a read joins an attempt under way") {
			g.reads.asked = append(g.reads.asked, c)
			return
		}
		g.reads.queued = append(g.reads.queued, c)
	case callTransfer:
		l.transfer(g, c)
	case callMembers:
		l.setMembers(g, c)
	}
	l.mark(g)
}

// propose puts the commands that came in this round into batches, and the batches
// into the log.
func (l *loop) propose(g *Group) {
	defer l.recover(g)
	for len(g.incoming) > 0 {
		n, size, sessions := 0, batchOverhead, false
		single := probe.Buggify("replica: a batch of one command")
		for n < len(g.incoming) && (n == 0 || size < l.node.cfg.MaxBatchBytes && !single) {
			size += len(g.incoming[n].command) + 10
			if g.incoming[n].item.kind != itemPlain {
				size += itemOverhead
				sessions = true
			}
			n++
		}
		probe.Sometimes("replica: a batch holds many commands", n > 1)
		calls := g.incoming[:n]
		if sessions {
			g.batch = g.appendSessionBatch(g.batch[:0], calls)
		} else {
			g.batch = appendBatchHeader(g.batch[:0], g.boot, g.pend.next(), n)
			for _, c := range calls {
				g.batch = AppendBytes(g.batch, c.command)
			}
		}
		err := g.core.Propose(g.batch)
		if err == nil {
			g.pend.add(calls, g.term)
			l.node.count(metricProposals, g.id, int64(n))
			l.node.observe(metricBatch, g.id, int64(n))
		} else {
			err = g.refused(err)
			for _, c := range calls {
				c.answer(nil, err)
			}
		}
		clear(calls)
		g.incoming = g.incoming[n:]
		if l.fed(g, size); !l.live(g) {
			return
		}
	}
	g.incoming = g.incoming[:0]
	if cap(g.batch) > 4*l.node.cfg.MaxBatchBytes {
		g.batch = nil
	}
}

func (l *loop) tick(g *Group) {
	defer l.recover(g)
	g.ticks++
	if !g.introduced {
		l.introduce(g)
		return
	}
	l.trust(g)
	g.core.Tick()
	l.retryReads(g)
	l.checkTransfers(g)
	l.driveMembers(g)
	l.expireTransfers(g)
	l.mark(g)
}

func (l *loop) applied(g *Group) {
	defer l.recover(g)
	g.core.Applied(g.applied.Load())
	l.mark(g)
}

func (l *loop) unreachable(g *Group, peer uint64) {
	if !l.live(g) {
		return
	}
	defer l.recover(g)
	g.core.Unreachable(peer)
	l.mark(g)
}

// fed notes that a core was given so many bytes that it will want stored. An Output
// becomes part of one commit: where it would grow too large, it is taken early.
func (l *loop) fed(g *Group, size int) {
	if g.fed += size; g.fed >= commitBytes {
		l.ready(g)
	}
}

// backlog returns how many bytes wait for the store.
func (l *loop) backlog() int {
	size := l.pending.batch.Size()
	for _, c := range l.queue {
		size += c.batch.Size()
	}
	if l.inflight != nil {
		size += l.inflight.batch.Size()
	}
	return size
}

// swamped reports whether so much waits for the store that nothing large may be added.
func (l *loop) swamped() bool { return l.backlog()+l.took > l.node.cfg.MaxUnwrittenBytes }

func (l *loop) receive(f *inFrame) {
	for _, m := range f.messages {
		g := l.groups[m.group]
		if r := l.repairs[m.group]; g == nil && r != nil {
			r.receive(f, m.body)
			continue
		}
		if g == nil {
			l.node.count(metricUnknownGroup, m.group, 1)
			continue
		}
		if f.kind != frameLost && !l.admits(g, f.from, f.incarnation) {
			continue
		}
		if len(m.body) > smallMessage {
			if l.swamped() {
				l.node.count(metricFramesDropped, m.group, 1)
				continue
			}
			l.took += len(m.body)
		}
		switch f.kind {
		case frameCore:
			l.step(g, f.from, m.body, f.size)
		case frameChunk:
			l.receiveChunk(g, f.from, m.body)
		case frameChunkAck:
			l.receiveChunkAck(g, f.from, m.body)
		case frameLost:
			l.receiveLost(g, f.from, f.incarnation, m.body)
		case frameGone:
			l.receiveGone(g, f.from, m.body)
		case frameNeed:
			l.receiveNeed(g, f.from, m.body)
		}
		l.mark(g)
	}
}

func (l *loop) step(g *Group, from uint64, body []byte, frame int) {
	if !l.live(g) || !g.introduced {
		return
	}
	defer l.recover(g)
	if err := g.core.Step(from, body, frame); err != nil {
		l.node.refuse(from, g.id, err)
	}
	l.fed(g, len(body))
}

// ready collects and carries out what a core wants done.
func (l *loop) ready(g *Group) {
	defer l.recover(g)
	g.fed = 0
	for {
		l.scratch.Reset()
		l.out.Batch = &l.scratch
		l.out.reset()
		if !g.core.Ready(&l.out) {
			break
		}
		out := &l.out
		if out.Leader != g.leader.Load() || out.Term != g.term || out.Leading != g.leading {
			l.leaderChanged(g, out)
		}
		l.keepLease(g, out)
		var restore *SnapshotMeta
		if out.Restore != nil {
			restore = l.install(g, *out.Restore, &l.scratch)
			l.configured(g, restore.Index, restore.Config, true)
		}
		for i := range out.Committed {
			e := &out.Committed[i]
			if e.Kind == EntryConfig {
				l.configured(g, e.Index, e.Data, false)
			}
			if g.change != nil {
				l.fenced(g, e.Fence)
			}
		}
		if len(out.Committed) > 0 {
			g.pushApply(applyItem{entries: out.Committed})
			out.Committed = nil // it belongs to the queue now
		}
		for i := range out.Messages {
			l.send(g, &out.Messages[i])
		}
		// Records and their acknowledgement go into the same commit.
		c := l.gather(l.scratch.Size())
		c.batch.Append(&l.scratch)
		if out.Token != 0 {
			c.urgent = true
			c.acks = append(c.acks, ack{group: g, token: out.Token, restore: restore})
		}
		for _, r := range out.Reads {
			l.readConfirmed(g, r)
		}
		for _, s := range out.Snapshots {
			l.startTransferSnapshot(g, s)
		}
		if out.WantSnapshot {
			l.requestSnapshot(g)
		}
	}
}

func (l *loop) leaderChanged(g *Group, out *Output) {
	changed := out.Leader != g.leader.Load()
	if g.leading && !out.Leading && probe.Bug("what a deposed leader proposed is said not to be executed") {
		g.pend.drain(func(c *call) { c.answer(nil, &synod.NotLeaderError{Group: g.id}) })
	}
	if out.Term != g.term {
		g.driver = driver{asked: g.driver.asked} // what was so in an earlier term need not be
	}
	g.term, g.leading = out.Term, out.Leading
	if !changed {
		return
	}
	g.leader.Store(out.Leader)
	l.node.count(metricLeaderChanges, g.id, 1)
	l.node.emit(synod.Event{Kind: synod.EventLeaderChanged, Group: g.id, Leader: out.Leader, Term: out.Term})
	l.transfersChanged(g)
	// What was asked of the old leader may be lost: ask the new one.
	l.restartReads(g)
}

// send puts a message into its peer's frame.
func (l *loop) send(g *Group, m *Message) {
	f := l.frame(m.To)
	size := len(m.Head) + len(m.Tail)
	if size < MinMessage {
		panic(fmt.Errorf("a message of %d bytes, of %d at least: this is a bug in the protocol's core", size, MinMessage))
	}
	if len(f.messages) > 0 && frameHeader+f.size+size > frameTarget {
		l.flushFrame(f)
	}
	if len(f.messages) == 0 {
		f.address = l.node.address(m.To)
	}
	before := len(f.heads)
	f.heads = appendMessageHead(f.heads, g.id, m.Head, m.Tail)
	f.messages = append(f.messages, outMessage{len(f.heads), m.Tail})
	f.size += len(f.heads) - before + len(m.Tail)
	if n := len(f.groups); n == 0 || f.groups[n-1] != g {
		f.groups = append(f.groups, g)
	}
}

func (l *loop) frame(to uint64) *outFrame {
	for _, f := range l.frames {
		if f.to == to {
			return f
		}
	}
	f := &outFrame{to: to}
	l.frames = append(l.frames, f)
	return f
}

func (l *loop) flush() {
	for _, f := range l.frames {
		if len(f.messages) > 0 {
			l.flushFrame(f)
		}
	}
}

func (l *loop) flushFrame(f *outFrame) {
	// Made at once, when it is known how large it is: with messages of many groups it would grow, and be copied, several times.
	buf := appendFrameHeader(make([]byte, 0, frameCapacity(f.size)), frameCore, f.address)
	start := 0
	for _, m := range f.messages {
		buf = append(append(buf, f.heads[start:m.end]...), m.tail...)
		start = m.end
	}
	clear(f.messages)
	f.messages, f.heads, f.size = f.messages[:0], f.heads[:0], 0
	if cap(f.messages) > maxOutMessages {
		f.messages = nil
	}
	if cap(f.heads) > maxHeads {
		f.heads = nil
	}
	err := l.node.cfg.Transport.Send(f.to, sealFrame(buf)) // the transport's from now on
	if err != nil {
		l.node.count(metricSendFailures, 0, 1)
		if errors.Is(err, transport.ErrTooLarge) && !l.node.quiet(f.to) {
			l.node.cfg.Logger.Error("the transport refuses a message for its size, and always will: let it take more than MaxBatchBytes and MaxCommandBytes together", "to", f.to, "error", err)
		}
		for _, g := range f.groups {
			l.unreachable(g, f.to)
		}
	}
	clear(f.groups)
	f.groups = f.groups[:0]
}

// gather returns the commit to which so many bytes are to be added.
func (l *loop) gather(size int) *commit {
	if l.pending.batch.Len() > 0 && l.pending.batch.Size()+size > commitBytes {
		l.queue = append(l.queue, l.pending)
		l.pending = l.newCommit()
	}
	return l.pending
}

// commit begins to make durable what comes first, unless a commit is under way.
func (l *loop) commit() {
	due := len(l.queue) > 0 || l.pending.urgent
	probe.Sometimes("replica: records gather while a commit is under way", l.inflight != nil && due)
	if l.inflight != nil || l.full != nil || !due || probe.Buggify("replica: a commit waits for the next round") {
		return
	}
	c := l.pending
	if len(l.queue) > 0 {
		c = l.queue[0]
		l.queue = slices.Delete(l.queue, 0, 1)
	} else {
		l.pending = l.newCommit()
	}
	l.inflight = c
	if c.batch.Len() == 0 {
		// Nothing to store, but something waits for what was stored before.
		c.done(nil)
		return
	}
	l.countCommit(c)
	l.node.observe(metricCommitBytes, 0, int64(c.batch.Size()))
	l.node.commit(&c.batch, c.done)
}

func (l *loop) committed(c *commit) {
	if errors.Is(c.err, storage.ErrNoSpace) && probe.Bug("no space is taken for success") || errors.Is(c.err, storage.ErrFailed) && probe.Bug("a failed sync is ignored") {
		c.err = nil
	}
	probe.Sometimes("replica: the store has no space", errors.Is(c.err, storage.ErrNoSpace))
	probe.Sometimes("replica: the store has failed", errors.Is(c.err, storage.ErrFailed))
	l.inflight = nil
	switch {
	case errors.Is(c.err, storage.ErrNoSpace):
		// Nothing of it was written: it goes first when there is room.
		l.node.cfg.Logger.Warn("store has no space: writes are refused", "error", c.err)
		l.full = c.err
		l.releaseClosers()
		c.err = nil
		l.queue = slices.Insert(l.queue, 0, c)
		return
	case c.err != nil:
		err := fmt.Errorf("store: %w", c.err)
		for _, g := range append([]*Group(nil), l.order...) {
			l.fail(g, err)
		}
	default:
		if c.counted {
			l.node.progress.Add(1)
		}
		for _, a := range c.acks {
			if l.live(a.group) {
				l.persisted(a)
			}
		}
		for _, fn := range c.after {
			fn()
		}
	}
	for _, fn := range c.always {
		fn()
	}
	c.reset()
	if len(l.spare) < 2 {
		l.spare = append(l.spare, c)
	}
}

func (c *commit) reset() {
	c.batch.Reset()
	clear(c.acks)
	clear(c.after)
	clear(c.always)
	c.acks, c.after, c.always = c.acks[:0], c.after[:0], c.always[:0]
	c.urgent, c.counted, c.err = false, false, nil
}

func (l *loop) persisted(a ack) {
	defer l.recover(a.group)
	if a.restore != nil {
		a.group.pushApply(applyItem{restore: a.restore})
	}
	a.group.core.Persisted(a.token)
	l.mark(a.group)
}

// fail stops a group for good. It may be called from within the group's own work.
func (l *loop) fail(g *Group, err error) {
	if !l.live(g) {
		return
	}
	failed := &synod.FailedError{Group: g.id, Err: err}
	g.failure.CompareAndSwap(nil, failed)
	log := l.node.cfg.Logger
	if p := (*panicked)(nil); errors.As(err, &p) {
		log = log.With("stack", string(p.stack))
	}
	log.Error("group stopped", "group", g.id, "error", err)
	if errors.Is(err, ErrRolledBack) {
		l.node.rollBack(err)
	}
	l.node.emit(synod.Event{Kind: synod.EventGroupFailed, Group: g.id, Err: failed})
	l.remove(g)
}

// remove takes a group out of the loop and ends everything that waits for it.
func (l *loop) remove(g *Group) {
	delete(l.groups, g.id)
	for i, o := range l.order {
		if o == g {
			l.order = append(l.order[:i:i], l.order[i+1:]...)
			break
		}
	}
	g.leading = false
	g.stopped.Store(true)
	err := g.closedError()
	for _, c := range g.incoming {
		if c != nil {
			c.answer(nil, err)
		}
	}
	g.incoming = nil
	l.endReads(g, err)
	l.endMembers(g, err)
	for _, c := range g.transfers {
		c.answer(nil, err)
	}
	g.transfers = nil
	g.endSnapshots()
	g.pushApply(applyItem{}) // which ends the calls of Export that wait
	// The proposals may yet be decided by the others.
	g.pend.drain(func(c *call) { c.answer(nil, unknown(g.id, err)) })
}
