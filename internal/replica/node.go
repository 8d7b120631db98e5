package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/transport"
)

// Errors of identity, to be tested with errors.Is.
var (
	// ErrForeignStore says that the store holds the data of another node, cluster or engine.
	ErrForeignStore = errors.New("replica: store of another node, cluster or engine")
	// ErrBootstrapped says that the group exists in this store.
	ErrBootstrapped = errors.New("replica: group exists already")
	// ErrNotBootstrapped says that the group does not exist in this store.
	ErrNotBootstrapped = errors.New("replica: group does not exist in this store")
	// ErrMember says that the group counts on this node's replica.
	ErrMember = errors.New("replica: the node is a member of the group: have the leader remove it by SetMembers, and leave when the replica has stopped with synod.ErrRemoved")
	// ErrRunning says that the group is running on this node already.
	ErrRunning = errors.New("replica: group is running already")
)

// Node hosts the groups of one protocol on one transport and one store.
type Node struct {
	cfg         Config
	ex          executor.Executor
	incarnation uint64
	run         run
	counts      map[uint64]uint64 // of the commits of each loop, when the run began
	progress    atomic.Uint64     // commits of all runs that are durable
	rolledBack  atomic.Pointer[error]
	silent      atomic.Bool // it is closing, and greets nobody any more
	cluster     uint64
	loops       []*loop
	applier     *applier
	events      events
	calls       sync.Pool

	mu            sync.Mutex
	groups        map[uint64]*Group
	bootstrapping bool
	bootstraps    []*executor.Event // of those that wait for their turn
	opening       int               // calls of Bootstrap and StartGroup that are under way
	opened        *executor.Event   // set when there are none, after Close was called
	closed        bool              // no more of them begin
	ended         bool              // Close is done
	closing       []*executor.Event // set then

	pinMu   sync.Mutex // for what each message needs: held for moments only
	pins    map[pinKey]*pin
	current map[uint64]uint64 // the incarnation of each peer that is spoken to; 0: the one that is heard from next
	refused map[uint64]uint64 // the last incarnation of each peer that was refused

	stranger map[uint64]uint64 // an incarnation of each peer that was not listened to, since listenFor

	paceMu sync.Mutex
	paced  time.Time // what was sent of snapshots is paid for until then

	addressMu  sync.Mutex
	addresses  map[uint64]string // as Config.SetAddress was told them last
	ownAddress string            // as a configuration has it

	refusalMu sync.Mutex
	refusals  map[uint64]time.Time // when something about each peer was last reported
	greeted   map[uint64]time.Time // when each peer was last greeted
	told      map[uint64]time.Time // when each peer was last told that it is stale
}

// Start opens the node's records in the store and begins to serve. ctx carries the
// executor; it does not bound the node's life.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg:       cfg,
		ex:        executor.From(ctx, executor.Real()),
		cluster:   clusterHash(cfg.Cluster, cfg.Protocol.Name()),
		groups:    make(map[uint64]*Group),
		pins:      make(map[pinKey]*pin),
		current:   make(map[uint64]uint64),
		refused:   make(map[uint64]uint64),
		stranger:  make(map[uint64]uint64),
		refusals:  make(map[uint64]time.Time),
		greeted:   make(map[uint64]time.Time),
		told:      make(map[uint64]time.Time),
		addresses: make(map[uint64]string),
		opened:    executor.NewEvent(),
	}
	if err := n.identify(); err != nil {
		return nil, err
	}
	n.events.node = n
	n.applier = newApplier(n, cfg.Loops)
	for number := range uint64(cfg.Loops) {
		l := newLoop(n, number)
		n.loops = append(n.loops, l)
		n.ex.Go(l.run)
	}
	transport.HandleUnreachable(cfg.Transport, func(to uint64, err error) {
		for _, l := range n.loops {
			l.post(func(in *inbox) {
				if !slices.Contains(in.unreachable, to) {
					in.unreachable = append(in.unreachable, to)
				}
			})
		}
	})
	cfg.Transport.Handle(n.handle)
	return n, nil
}

// handle receives from the transport.
func (n *Node) handle(from uint64, payload []byte) {
	kind, a, rest, err := openFrame(payload)
	switch {
	case err != nil:
		n.refuse(from, 0, err)
		return
	case a.cluster != n.cluster || a.from != from || a.to != n.cfg.Node:
		n.refuse(from, 0, fmt.Errorf("%w: from node %d to node %d", ErrStray, a.from, a.to))
		return
	case kind == frameStale: // which the sender does not say to a friend
		if m, _, err := nextFrameMessage(rest); err == nil && a.expectedIs(n.incarnation) {
			n.toldStale(from, m.body)
		}
		return
	case a.expected != 0 && a.expected != n.incarnation && !probe.Bug("a wiped node is trusted"):
		// What is meant for this node's predecessor speaks of promises that this one
		// does not remember.
		n.refuse(from, 0, fmt.Errorf("%w: node %d remembers another incarnation of this node", ErrIncarnation, from))
		if kind == frameHello { // so that it learns of this one
			n.learnAddress(from, rest)
			n.greet(from, frameMet)
		}
		return
	case !n.listens(from, a):
		return
	case kind == frameHello:
		n.learnAddress(from, rest)
		n.pinMu.Lock()
		durable := n.pins[pinKey{from, a.incarnation}].durable
		n.pinMu.Unlock()
		if durable { // or the peer asks again
			n.greet(from, frameMet)
		}
		return
	case kind == frameMet:
		return
	}
	// Usually all messages of a frame belong to one loop: the sender has as many.
	frames := make([]inFrame, 0, 1)
	loops := make([]*loop, 0, 1)
	for len(rest) > 0 {
		var m frameMessage
		if m, rest, err = nextFrameMessage(rest); err != nil {
			n.refuse(from, 0, err)
			return
		}
		l := n.loopOf(m.group)
		i := slices.Index(loops, l)
		if i < 0 {
			i = len(loops)
			loops = append(loops, l)
			frames = append(frames, inFrame{from: from, incarnation: a.incarnation, kind: kind, size: len(payload)})
		}
		frames[i].messages = append(frames[i].messages, m)
		frames[i].bytes += len(m.body) + messageCost
	}
	for i, l := range loops {
		l.postFrame(frames[i])
	}
}

// refusalInterval is the least time between two reports of one peer's messages: a
// peer that sends nothing else must not fill the log.
const refusalInterval = time.Second

// quiet reports whether something was just reported of a peer, and is not to be said
// again.
func (n *Node) quiet(peer uint64) bool {
	now := n.ex.Now()
	n.refusalMu.Lock()
	defer n.refusalMu.Unlock()
	if last, ok := n.refusals[peer]; ok && now.Sub(last) < refusalInterval {
		return true
	}
	if len(n.refusals) >= 1024 {
		clear(n.refusals)
	}
	n.refusals[peer] = now
	return false
}

// refuse reports a message that is not believed, unless it has just reported another
// one of that peer, and says whether it did.
func (n *Node) refuse(from, group uint64, err error) bool {
	n.count(metricFramesRefused, group, 1)
	if n.quiet(from) {
		return false
	}
	n.cfg.Logger.Warn("refused a message", "from", from, "group", group, "error", err)
	n.emit(synod.Event{Kind: synod.EventPeerRefused, Group: group, Peer: from, Err: err})
	return true
}

// commit makes a batch durable without blocking the caller.
func (n *Node) commit(b *storage.Batch, done func(error)) {
	if a, ok := n.cfg.Store.(storage.AsyncCommitter); ok {
		a.CommitAsync(b, done)
		return
	}
	n.ex.Go(func() { done(n.cfg.Store.Commit(b)) })
}

func (n *Node) loopOf(group uint64) *loop { return n.loops[group%uint64(len(n.loops))] }

// enter begins a call that uses the store and that Close waits for; false if the node
// is closed.
func (n *Node) enter() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.opening++
	return true
}

func (n *Node) leave() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.opening--; n.opening == 0 && n.closed {
		n.opened.Set()
	}
}

// Bootstrap writes the first configuration of a group into this node's store.
func (n *Node) Bootstrap(ctx context.Context, group uint64, members []synod.Member) error {
	what := fmt.Sprintf("bootstrap group %d", group)
	members, err := n.checkFounders(members)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", n.cfg.Package, what, err)
	}
	return n.create(ctx, group, what, func(keys Keys, b *storage.Batch) error {
		if err := n.neverLeft(keys); err != nil {
			return err
		}
		return n.cfg.Protocol.Bootstrap(keys, NewConfiguration(members).Append(nil), b)
	})
}

// neverLeft returns an error if this node has left a group of that ID: another one under it would be
// taken for it, and begin with less than what was promised.
func (n *Node) neverLeft(keys Keys) error {
	_, left, err := getRecord(n.cfg.Store, keys.key(tagLeft), keys.group)
	if err == nil && left {
		err = fmt.Errorf("%w: the node has left it, and can only join it again: give a new one another ID", ErrBootstrapped)
	}
	return err
}

// Join writes the records of a replica of a group that exists, which knows nothing of it.
func (n *Node) Join(ctx context.Context, group uint64) error {
	return n.create(ctx, group, fmt.Sprintf("join group %d", group), func(keys Keys, b *storage.Batch) error {
		b.Delete(keys.key(tagLeft))
		introduced := keys.key(tagIntroduced)
		b.Set(introduced, storage.AppendRecord(nil, introduced, nil))
		return n.cfg.Protocol.Join(keys, n.cfg.Store, b)
	})
}

// Leave removes the records of a group that does not run.
func (n *Node) Leave(ctx context.Context, group uint64) error {
	fail := func(err error) error {
		return fmt.Errorf("%s: leave group %d: %w", n.cfg.Package, group, err)
	}
	release, err := n.alone(ctx)
	if err != nil {
		return fail(err)
	}
	defer release()
	n.mu.Lock()
	_, runs := n.groups[group]
	n.mu.Unlock()
	if runs {
		return fail(ErrRunning)
	}
	keys := GroupKeys(group)
	switch name, found, err := getRecord(n.cfg.Store, keys.key(tagMeta), group); {
	case err != nil:
		return fail(err)
	case !found:
		return fail(ErrNotBootstrapped)
	case string(name) != n.cfg.Protocol.Name():
		return fail(keptBy(name, n.cfg.Protocol))
	}
	if counts, err := n.countedOn(keys); err != nil {
		return fail(err)
	} else if counts {
		return fail(ErrMember)
	}
	var b storage.Batch
	b.DeleteRange(keys.key(0), keys.key(tagProtocol))
	key := keys.key(tagLeft)
	b.Set(key, storage.AppendRecord(nil, key, []byte(n.cfg.Protocol.Name())))
	if err := n.cfg.Protocol.Leave(keys, n.cfg.Store, &b); err != nil {
		return fail(err)
	}
	if err := n.cfg.Store.Commit(&b); err != nil {
		return fail(err)
	}
	return nil
}

// countedOn reports whether other members of a group count on this node's replica, as far as its
// records say. Of those that can't be read nobody can say it; should it be so, the replica takes no
// part if it ever joins again (forgetful).
func (n *Node) countedOn(keys Keys) (bool, error) {
	if _, told, err := getRecord(n.cfg.Store, keys.key(tagRemoved), keys.group); err == nil && told {
		return false, nil
	}
	remains := n.cfg.Protocol.Inspect(keys, n.cfg.Store)
	g := &Group{id: keys.group, node: n, keys: keys}
	if err := cmp.Or(remains.Err, g.readIntroduced()); err != nil {
		if errors.Is(err, storage.ErrCorrupt) {
			return false, nil
		}
		return false, err
	}
	member, others := false, false
	for _, m := range remains.Members {
		if m.Node != n.cfg.Node {
			others = true
		} else if member = m.Incarnation == n.incarnation; m.Incarnation == 0 {
			member = g.founders[m.Node] == n.incarnation
		}
	}
	return member && others, nil
}

// create writes the first records of a group.
func (n *Node) create(ctx context.Context, group uint64, what string, write func(Keys, *storage.Batch) error) error {
	fail := func(err error) error { return fmt.Errorf("%s: %s: %w", n.cfg.Package, what, err) }
	if group == 0 {
		return fail(&synod.ConfigError{Package: n.cfg.Package, Field: "ID", Reason: "groups have IDs above 0"})
	}
	release, err := n.alone(ctx)
	if err != nil {
		return fail(err)
	}
	defer release()
	keys := GroupKeys(group)
	switch name, found, err := getRecord(n.cfg.Store, keys.key(tagMeta), group); {
	case err != nil:
		return fail(err)
	case found && string(name) != n.cfg.Protocol.Name():
		// An application goes on after ErrBootstrapped, and would learn it only later.
		return fail(keptBy(name, n.cfg.Protocol))
	case found:
		return fail(ErrBootstrapped)
	}
	switch name, left, err := getRecord(n.cfg.Store, keys.key(tagLeft), group); {
	case err != nil:
		return fail(err)
	case left && string(name) != n.cfg.Protocol.Name():
		return fail(fmt.Errorf("%w: the node has left a group of that ID that was kept by %s, not by %s", ErrForeignStore, name, n.cfg.Protocol.Name()))
	case !left:
		if err := n.dropLeftovers(keys); err != nil {
			return fail(err)
		}
		if err := absent(n.cfg.Store, keys); err != nil {
			return fail(err)
		}
	}
	var b storage.Batch
	key := keys.key(tagMeta)
	b.Set(key, storage.AppendRecord(nil, key, []byte(n.cfg.Protocol.Name())))
	if err := write(keys, &b); err != nil {
		return fail(err)
	}
	if err := n.cfg.Store.Commit(&b); err != nil {
		return fail(err)
	}
	return nil
}

// keptBy says that a group in the store is another protocol's.
func keptBy(name []byte, p Protocol) error {
	return fmt.Errorf("%w: the group is kept by %s, not by %s", ErrForeignStore, name, p.Name())
}

// dropLeftovers removes what an import that did not come to its end has left.
func (n *Node) dropLeftovers(keys Keys) error {
	_, found, err := getRecord(n.cfg.Store, keys.key(tagImport), keys.group)
	if err != nil || !found {
		return err
	}
	var b storage.Batch
	dropImport(keys, &b)
	return n.cfg.Store.Commit(&b)
}

// alone begins a call that changes which groups there are: one at a time, and nothing
// else waits for its commit. It waits for its turn up to ctx.
func (n *Node) alone(ctx context.Context) (release func(), err error) {
	if !n.enter() {
		return nil, synod.ErrClosed
	}
	release = func() {
		n.mu.Lock()
		if n.bootstrapping = len(n.bootstraps) > 0; n.bootstrapping {
			n.bootstraps[0].Set()
			n.bootstraps = n.bootstraps[1:]
		}
		n.mu.Unlock()
		n.leave()
	}
	n.mu.Lock()
	if !n.bootstrapping {
		n.bootstrapping = true
		n.mu.Unlock()
		return release, nil
	}
	turn := executor.NewEvent()
	n.bootstraps = append(n.bootstraps, turn)
	n.mu.Unlock()
	err = executor.From(ctx, n.ex).Wait(ctx, turn)
	if err == nil {
		return release, nil
	}
	n.mu.Lock()
	at := slices.Index(n.bootstraps, turn)
	if at >= 0 {
		n.bootstraps = slices.Delete(n.bootstraps, at, at+1)
	}
	n.mu.Unlock()
	if at >= 0 {
		n.leave()
	} else {
		release() // it was its turn after all
	}
	return nil, err
}

// Group returns a running group.
func (n *Node) Group(id uint64) (*Group, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	g, ok := n.groups[id]
	return g, ok
}

// running returns the groups that run, or are being opened, ascending.
func (n *Node) running() []*Group {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.SortedFunc(maps.Values(n.groups), func(a, b *Group) int { return cmp.Compare(a.id, b.id) })
}

// Status describes the node and its groups.
func (n *Node) Status() synod.NodeStatus {
	s := synod.NodeStatus{Node: n.cfg.Node, Cluster: n.cfg.Cluster, Incarnation: n.incarnation}
	for _, g := range n.running() {
		s.Groups = append(s.Groups, g.Status())
	}
	return s
}

// Events yields what happens from now on, until ctx is done or the node closes.
func (n *Node) Events(ctx context.Context) iter.Seq[synod.Event] { return n.events.subscribe(ctx) }

// Close stops all groups and waits for what is under way: calls of Bootstrap and
// StartGroup too.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.closed {
		var wait *executor.Event
		if !n.ended {
			wait = executor.NewEvent()
			n.closing = append(n.closing, wait)
		}
		n.mu.Unlock()
		if wait != nil {
			n.wait(context.Background(), wait)
		}
		return nil
	}
	n.closed = true
	n.silent.Store(true)
	if n.opening == 0 {
		n.opened.Set()
	}
	n.mu.Unlock()
	groups := n.running() // of which some may be closed meanwhile
	for _, l := range n.loops {
		l.do(func() {
			l.timer.Stop()
			l.stopping = true
			for _, g := range slices.Clone(l.order) {
				l.remove(g)
			}
			l.endRepairs()
		})
	}
	bg := context.Background()
	for _, l := range n.loops {
		_ = n.ex.Wait(bg, l.exited)
	}
	_ = n.ex.Wait(bg, n.opened)
	n.applier.close(bg)
	for _, g := range append(groups, n.running()...) {
		g.tasks.close(g)
	}
	n.events.close()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended = true
	for _, e := range n.closing {
		e.Set()
	}
	return nil
}

// wait waits for an event that is certain to come.
func (n *Node) wait(ctx context.Context, e *executor.Event) {
	_ = executor.From(ctx, n.ex).Wait(context.WithoutCancel(ctx), e)
}

func (n *Node) count(name string, group uint64, delta int64) {
	if n.cfg.Metrics != nil {
		n.cfg.Metrics.Add(name, group, delta)
	}
}

func (n *Node) observe(name string, group uint64, value int64) {
	if n.cfg.Metrics != nil {
		n.cfg.Metrics.Observe(name, group, value)
	}
}

// Names of metrics.
const (
	metricProposals     = "synod_proposals_total"
	metricBatch         = "synod_batch_commands"
	metricCommitBytes   = "synod_commit_bytes"
	metricApplied       = "synod_applied_total"
	metricLeaderChanges = "synod_leader_changes_total"
	metricFramesDropped = "synod_frames_dropped_total"
	metricFramesRefused = "synod_frames_refused_total"
	metricSendFailures  = "synod_send_failures_total"
	metricUnknownGroup  = "synod_unknown_group_total"
	metricSnapshotBytes = "synod_snapshot_bytes"

	metricSessionRetries  = "synod_session_retries_total"
	metricSessionsExpired = "synod_sessions_expired_total"
)
