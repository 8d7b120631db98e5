package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/storage"
)

// Group is one replica of one group. It implements synod.Log.
type Group struct {
	id   uint64
	node *Node
	loop *loop
	cfg  GroupConfig
	keys Keys
	boot uint64 // names this run of this replica in the batches that it proposes

	opened time.Time

	failure atomic.Pointer[synod.FailedError]
	stopped atomic.Bool
	leader  atomic.Uint64 // as the loop saw it last

	// Limits of what the application may have under way.
	calls     atomic.Int64
	callBytes atomic.Int64

	pend   pending
	reads  reads
	leases leases

	// The loop's.
	core       Core
	term       uint64
	leading    bool
	dirty      bool
	ticks      uint64
	fed        int // bytes that the core was given since it was last asked what is to be done
	incoming   []*call
	batch      []byte
	transfers  []*call
	incomer    *incoming
	unstored   int               // chunks that were received and are not durable yet
	received   uint64            // the last transfer that came through
	compacted  uint64            // what the core was last told to compact to
	introduced bool              // the members have met: see introduce.go
	founders   map[uint64]uint64 // the incarnations of the first members
	trusted    bool              // the core may vote
	banned     []pinKey          // members that were given up
	conf       Configuration     // the one in effect, as of confIndex
	confIndex  uint64
	removed    bool // it says that this node is no member any more
	change     *change
	driver     driver

	apply applyState
	tasks tasks

	giving bool // a piece of the log is about to be sent to a replica that is being repaired

	snapMu       sync.Mutex
	snapshot     SnapshotMeta // the newest stored snapshot; Chunks 0: none
	pins         map[uint64]int
	senders      map[uint64]*sender
	holds        map[uint64]hold // by peer
	live         *liveSnapshot
	capturing    bool // the applier is about to have another live one
	wantSnapshot atomic.Bool
	appliedPosted,
	snapshotting,
	restoring atomic.Bool
	applied      atomic.Uint64
	commands     atomic.Uint64
	sessions     atomic.Int64
	compactBelow atomic.Uint64 // the last index that the log lacks
}

var _ synod.Log = (*Group)(nil)

// StartGroup opens a group that Bootstrap has written, brings the state machine up
// to the newest snapshot, and begins to take part.
func (n *Node) StartGroup(ctx context.Context, cfg GroupConfig) (*Group, error) {
	if err := cfg.setDefaults(n.cfg.Package); err != nil {
		return nil, err
	}
	if !n.enter() {
		return nil, fmt.Errorf("%s: start group %d: %w", n.cfg.Package, cfg.ID, synod.ErrClosed)
	}
	defer n.leave()
	if err := n.rolledBack.Load(); err != nil {
		return nil, fmt.Errorf("%s: start group %d: %w", n.cfg.Package, cfg.ID, *err)
	}
	g := n.newGroup(cfg)
	n.mu.Lock()
	if _, ok := n.groups[g.id]; ok {
		n.mu.Unlock()
		return nil, fmt.Errorf("%s: start group %d: %w", n.cfg.Package, g.id, ErrRunning)
	}
	n.groups[g.id] = g
	n.mu.Unlock()
	err := g.open()
	for repairs := 0; errors.Is(err, storage.ErrCorrupt) && repairs < maxRepairs; repairs++ {
		if err = n.repair(ctx, g, err); err != nil {
			break
		}
		// As if nothing had happened.
		again := n.newGroup(cfg)
		n.mu.Lock()
		n.groups[g.id] = again
		n.mu.Unlock()
		g = again
		err = g.open()
	}
	if err == nil && !g.loop.do(func() { g.loop.adopt(g) }) {
		err = synod.ErrClosed
	}
	if err != nil {
		n.forget(g)
		return nil, fmt.Errorf("%s: start group %d: %w", n.cfg.Package, g.id, err)
	}
	return g, nil
}

// newGroup returns a group that is still to be opened.
func (n *Node) newGroup(cfg GroupConfig) *Group {
	g := &Group{
		id:      cfg.ID,
		node:    n,
		loop:    n.loopOf(cfg.ID),
		cfg:     cfg,
		keys:    GroupKeys(cfg.ID),
		boot:    n.ex.Uint64(),
		opened:  n.ex.Now(),
		pins:    make(map[uint64]int),
		senders: make(map[uint64]*sender),
		holds:   make(map[uint64]hold),
	}
	g.reads.init(g)
	g.setSessions(newSessionTable())
	g.leases.length = n.cfg.leaseLength()
	return g
}

func (n *Node) forget(g *Group) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.groups[g.id] == g {
		delete(n.groups, g.id)
	}
}

// open reads the group's records and restores the state machine.
func (g *Group) open() (err error) {
	// Whatever a corrupt record makes of the core, it must not take the process down.
	defer func() {
		if v := recover(); v != nil {
			err = panicError(v)
		}
	}()
	store := g.node.cfg.Store
	name, found, err := getRecord(store, g.keys.key(tagMeta), g.id)
	switch {
	case err != nil:
		return err
	case !found:
		if _, left, err := getRecord(store, g.keys.key(tagLeft), g.id); err != nil {
			return err
		} else if !left {
			if _, imported, err := getRecord(store, g.keys.key(tagImport), g.id); err != nil {
				return err
			} else if imported {
				return ErrNotBootstrapped // not to its end
			}
			if err := absent(store, g.keys); err != nil {
				return err
			}
		}
		return ErrNotBootstrapped
	case string(name) != g.node.cfg.Protocol.Name():
		return keptBy(name, g.node.cfg.Protocol)
	}
	if err := g.readIntroduced(); err != nil {
		return err
	}
	if g.banned, err = readBanned(store, g.keys); err != nil {
		return err
	}
	start, config, err := g.node.cfg.Protocol.Start(g.keys, store)
	if err != nil {
		return err
	}
	logStart := start
	g.compactBelow.Store(start.Index)
	g.compacted = start.Index
	meta, found, err := g.readSnapshotMeta()
	if err != nil {
		return err
	}
	if found {
		g.snapshot = meta
	}
	durable, keepsState := g.cfg.StateMachine.(synod.DurableIndex)
	if keepsState {
		have, err := durable.DurableIndex()
		if err != nil {
			return fmt.Errorf("state machine's durable index: %w", err)
		}
		if found && have < meta.Commands {
			if have, err = g.restoreStateMachine(meta); err != nil {
				return err
			}
		}
		if have >= start.Commands {
			if start, config, err = g.resume(start, config, have); err != nil {
				return err
			}
		}
		if have < start.Commands {
			return &storage.CorruptError{Group: g.id, Index: start.Index,
				Reason: fmt.Sprintf("the state machine holds %d commands, but the log begins after %d: its data was lost, or is another group's", have, start.Commands)}
		}
		g.apply.skip = have
	} else {
		if !found && start.Commands == 0 {
			if start, config, err = g.resume(start, config, 0); err != nil {
				return err
			}
		}
		switch {
		case found:
			if g.apply.skip, err = g.restoreStateMachine(meta); err != nil {
				return err
			}
			start, config = meta.Position, meta.Config
		case start.Commands > 0:
			return &storage.CorruptError{Group: g.id, Index: start.Index, Key: g.keys.key(tagSnapshot),
				Reason: "the log was compacted, but the snapshot that took its place is missing"}
		}
		if start.Index < logStart.Index {
			return &storage.CorruptError{Group: g.id, Index: start.Index, Key: g.keys.key(tagSnapshot),
				Reason: fmt.Sprintf("the snapshot ends at index %d, but the log begins after %d", start.Index, logStart.Index)}
		}
	}
	if g.conf, err = DecodeConfiguration(config); err != nil {
		return &storage.CorruptError{Group: g.id, Index: start.Index, Reason: err.Error()}
	}
	if g.introduced {
		if err := g.unadmitted(g.conf); err != nil {
			return err
		}
	}
	g.confIndex = start.Index
	_, is := g.conf.Find(g.node.cfg.Node)
	g.removed = !is && len(g.conf.Members) > 0
	others := len(g.node.acquaintances()) > 0 || slices.ContainsFunc(g.conf.Members, func(p Participant) bool { return p.Node != g.node.cfg.Node })
	g.apply.position, g.apply.config = start, config
	g.apply.lastSnapshot = start
	g.applied.Store(start.Index)
	g.commands.Store(g.apply.held())
	c := &g.node.cfg
	g.core, err = c.Protocol.Open(OpenOptions{
		Node:           c.Node,
		Keys:           g.keys,
		Store:          store,
		Start:          start,
		Config:         config,
		Held:           others,
		Logger:         c.Logger.With("group", g.id, "node", c.Node),
		ElectionTicks:  int(c.ElectionTimeout / c.HeartbeatInterval),
		Leases:         c.MaxClockDrift > 0,
		HeartbeatTicks: 1,
		MessageBytes:   uint64(c.MaxBatchBytes),
		InflightBytes:  uint64(c.MaxInflightBytes),
		PendingBytes:   uint64(c.MaxPendingBytes),
		ApplyBytes:     uint64(c.MaxApplyBytes),
		CacheBytes:     uint64(c.CacheBytes),
	})
	if err != nil {
		return err
	}
	if err := g.readIncoming(); err != nil {
		return err
	}
	// Only now: a group that can't be opened is left as it is.
	if err := g.dropStrayChunks(); err != nil {
		return err
	}
	if g.snapshot.Chunks > 0 && !keepsState {
		g.core.SnapshotAvailable(g.snapshot)
	}
	return nil
}

// adopt takes a group into the loop.
func (l *loop) adopt(g *Group) {
	if l.stopping {
		g.stopped.Store(true)
		return
	}
	l.groups[g.id] = g
	l.order = append(l.order, g)
	l.mark(g)
	if _, ok := g.cfg.StateMachine.(synod.DurableIndex); ok && g.snapshot.Chunks > 0 {
		// It was installed before a crash, and the state machine has it by now.
		l.dropSnapshot(g, g.snapshot.ID, g.apply.capture())
	}
	l.pending.batch.Delete(g.keys.key(tagRemoved)) // it may be a member again
	l.tellMembers(g)
	if !g.introduced {
		l.introduce(g)
	} else {
		l.trust(g)
	}
}

// campaignAlone has the only voter lead at once.
func (l *loop) campaignAlone(g *Group) {
	if s := g.core.Status(); len(s.Members) == 1 && s.Members[0] == l.node.cfg.Node {
		g.core.Campaign()
	}
}

// ID returns the group's ID.
func (g *Group) ID() uint64 { return g.id }

// Propose implements synod.Log.
func (g *Group) Propose(ctx context.Context, command []byte) ([]byte, error) {
	return g.proposeItem(ctx, item{}, command)
}

func (g *Group) proposeItem(ctx context.Context, i item, command []byte) ([]byte, error) {
	cfg := &g.node.cfg
	if len(command) > cfg.MaxCommandBytes {
		return nil, fmt.Errorf("group %d: %w: %d bytes, at most %d", g.id, synod.ErrTooLarge, len(command), cfg.MaxCommandBytes)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("group %d: not executed: %w", g.id, err)
	}
	c := g.node.newCall(g, callPropose)
	c.item = i
	c.command = append(c.command, command...)
	if err := g.submit(c); err != nil {
		return nil, err
	}
	return c.wait(ctx)
}

// submit hands a call to the loop within the limits, or recycles it.
func (g *Group) submit(c *call) error {
	size := int64(len(c.command))
	calls, bytes := g.calls.Add(1), g.callBytes.Add(size)
	if calls > int64(g.node.cfg.MaxPending) || bytes > int64(g.node.cfg.MaxPendingBytes) {
		g.released(c)
		g.node.recycle(c)
		return fmt.Errorf("group %d: %w: too many requests of this node have no answer yet", g.id, synod.ErrOverloaded)
	}
	if g.stopped.Load() || !g.loop.postCall(c) {
		g.released(c)
		g.node.recycle(c)
		return g.closedError()
	}
	return nil
}

// released takes a call out of the limits.
func (g *Group) released(c *call) {
	g.calls.Add(-1)
	g.callBytes.Add(-int64(len(c.command)))
}

// refused translates what a core says of a proposal that it did not take up.
func (g *Group) refused(err error) error {
	switch {
	case errors.Is(err, ErrNotLeading):
		return g.notLeader()
	case errors.Is(err, ErrBudget):
		return fmt.Errorf("group %d: %w: too many bytes are not decided yet", g.id, synod.ErrOverloaded)
	}
	return fmt.Errorf("group %d: not executed: %w", g.id, err)
}

// notLeader says who leads. It does not name this node, which may be handing over, or
// lead again since the command in question was lost.
func (g *Group) notLeader() error {
	leader := g.leader.Load()
	if leader == g.node.cfg.Node {
		leader = 0
	}
	return &synod.NotLeaderError{Group: g.id, Leader: leader}
}

// Barrier implements synod.Log.
func (g *Group) Barrier(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("group %d: %w", g.id, err)
	}
	if g.readLeased() {
		return nil
	}
	c := g.node.newCall(g, callRead)
	if err := g.submit(c); err != nil {
		return err
	}
	_, err := c.wait(ctx)
	return err
}

// TransferLeader asks the leader to hand over to another member and waits until
// it leads.
func (g *Group) TransferLeader(ctx context.Context, to uint64) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("group %d: %w", g.id, err)
	}
	c := g.node.newCall(g, callTransfer)
	c.index = to
	if err := g.submit(c); err != nil {
		return err
	}
	_, err := c.wait(ctx)
	return err
}

// ErrTransfer says that the leadership was not handed over.
var ErrTransfer = errors.New("replica: leadership not transferred")

func (l *loop) transfer(g *Group, c *call) {
	to := c.index
	switch {
	case !g.leading:
		c.answer(nil, g.notLeader())
	case to == l.node.cfg.Node:
		c.answer(nil, nil)
	case !slices.Contains(g.core.Status().Members, to):
		c.answer(nil, fmt.Errorf("group %d: %w: node %d is not a voting member", g.id, ErrTransfer, to))
	default:
		c.epoch = g.ticks + 2*uint64(l.node.cfg.ElectionTimeout/l.node.cfg.HeartbeatInterval)
		g.transfers = append(g.transfers, c)
		defer l.recover(g)
		g.core.Transfer(to)
	}
}

// transfersChanged answers the transfers that a new leader ends.
func (l *loop) transfersChanged(g *Group) {
	leader := g.leader.Load()
	if leader == 0 {
		return
	}
	g.transfers = slices.DeleteFunc(g.transfers, func(c *call) bool {
		switch leader {
		case l.node.cfg.Node:
			return false
		case c.index:
			c.answer(nil, nil)
		default:
			c.answer(nil, fmt.Errorf("group %d: %w: node %d leads now", g.id, ErrTransfer, leader))
		}
		return true
	})
}

func (l *loop) checkTransfers(g *Group) {
	if len(g.transfers) == 0 {
		return
	}
	g.transfers = slices.DeleteFunc(g.transfers, func(c *call) bool {
		if g.ticks < c.epoch {
			return false
		}
		c.answer(nil, fmt.Errorf("group %d: %w: node %d did not take over within two election timeouts", g.id, ErrTransfer, c.index))
		return true
	})
}

// Err returns why the group stopped, or nil while it runs.
func (g *Group) Err() error {
	if f := g.failure.Load(); f != nil {
		return f
	}
	if g.stopped.Load() {
		return fmt.Errorf("group %d: %w", g.id, synod.ErrClosed)
	}
	return nil
}

func (g *Group) closedError() error {
	if err := g.Err(); err != nil {
		return err
	}
	return fmt.Errorf("group %d: %w", g.id, synod.ErrClosed)
}

// Status describes the group as this node sees it.
func (g *Group) Status() synod.GroupStatus {
	var s synod.GroupStatus
	ran := g.loop.call(context.Background(), func() {
		if g.loop.live(g) {
			defer g.loop.recover(g)
			s = g.core.Status()
			s.Configuration, s.Target = g.conf.Current(), slices.Clone(g.conf.Target)
		}
	})
	if !ran || s.Node == 0 {
		s = synod.GroupStatus{Leader: g.leader.Load()}
	}
	s.Group, s.Node = g.id, g.node.cfg.Node
	s.Applied, s.Commands, s.Sessions = g.applied.Load(), g.commands.Load(), int(g.sessions.Load())
	g.snapMu.Lock()
	s.Snapshot = g.snapshot.Index
	g.snapMu.Unlock()
	s.Pending = int(g.calls.Load())
	s.Err = g.Err()
	return s
}

// Close stops this replica of the group and leaves its data as they are.
func (g *Group) Close() error {
	done := executor.NewEvent()
	if g.loop.do(func() { g.loop.closeGroup(g, done) }) {
		g.node.wait(context.Background(), done)
	} else {
		g.node.forget(g)
	}
	g.apply.close(g)
	g.tasks.close(g)
	return nil
}

// closeGroup takes a group out of the loop and sets done when none of its records
// is on its way to the store any more. Only then may the group be opened again: it
// would read a log that still changes. While the store has no space that can take
// long, and is not waited for; until then the group counts as running.
func (l *loop) closeGroup(g *Group, done *executor.Event) {
	if l.live(g) {
		l.remove(g)
	}
	g.stopped.Store(true)
	l.closers = append(l.closers, done)
	written := func() {
		l.node.forget(g)
		done.Set()
		l.closers = slices.DeleteFunc(l.closers, func(e *executor.Event) bool { return e == done })
	}
	switch {
	case l.pending.batch.Len() > 0:
		l.pending.urgent = true
		l.pending.always = append(l.pending.always, written)
	case len(l.queue) > 0:
		last := l.queue[len(l.queue)-1]
		last.always = append(last.always, written)
	case l.inflight != nil:
		l.inflight.always = append(l.inflight.always, written)
	default:
		written()
	}
	if l.full != nil {
		l.releaseClosers()
	}
}

// releaseClosers lets those go who wait in Close for records that the store has no
// space for.
func (l *loop) releaseClosers() {
	for _, done := range l.closers {
		done.Set()
	}
	clear(l.closers)
	l.closers = l.closers[:0]
}
