package replica

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/transport"
)

// Errors of identity, to be tested with errors.Is.
var (
	// ErrForeignStore says that the store holds another node's data.
	ErrForeignStore = errors.New("replica: store belongs to another node")
	// ErrBootstrapped says that the group exists in this store.
	ErrBootstrapped = errors.New("replica: group exists already")
	// ErrNotBootstrapped says that the group does not exist in this store.
	ErrNotBootstrapped = errors.New("replica: group does not exist in this store")
	// ErrRunning says that the group is running on this node already.
	ErrRunning = errors.New("replica: group is running already")
)

// Node hosts the groups of one protocol on one transport and one store.
type Node struct {
	cfg         Config
	ex          executor.Executor
	incarnation uint64
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
	pins    map[uint64]pin
	refused map[uint64]uint64 // the last incarnation of each peer that was refused

	refusalMu sync.Mutex
	refusals  map[uint64]time.Time // when something about each peer was last reported
}

// pin is what a node remembers of a peer.
type pin struct {
	incarnation uint64 // that the peer was first met with
	durable     bool
	met         bool // the peer has said that it remembers this node, durably
}

// Start opens the node's records in the store and begins to serve. ctx carries the
// executor; it does not bound the node's life.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg:      cfg,
		ex:       executor.From(ctx, executor.Real()),
		cluster:  clusterHash(cfg.Cluster),
		groups:   make(map[uint64]*Group),
		pins:     make(map[uint64]pin),
		refused:  make(map[uint64]uint64),
		refusals: make(map[uint64]time.Time),
		opened:   executor.NewEvent(),
	}
	if err := n.identify(); err != nil {
		return nil, err
	}
	n.events.node = n
	n.applier = newApplier(n, cfg.Loops)
	for range cfg.Loops {
		l := newLoop(n)
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

// identify reads the node's identity, or gives it one if the store is empty.
func (n *Node) identify() error {
	store := n.cfg.Store
	key := IdentityKey()
	payload, found, err := getRecord(store, key, 0)
	if err != nil {
		return fmt.Errorf("%s: identity of node %d: %w", n.cfg.Package, n.cfg.Node, err)
	}
	if !found {
		it, err := store.Scan([]byte{tagGroup}, []byte{tagPeer + 1})
		if err != nil {
			return fmt.Errorf("%s: read store: %w", n.cfg.Package, err)
		}
		k, _, err := it.Next()
		k = append([]byte(nil), k...)
		it.Close()
		switch {
		case err == nil:
			return fmt.Errorf("%s: %w", n.cfg.Package, &storage.CorruptError{Key: key,
				Reason: fmt.Sprintf("the node's identity is missing, but there is data of it (key %x)", k)})
		case !errors.Is(err, io.EOF):
			// It may hold a life's promises.
			return fmt.Errorf("%s: read store: %w", n.cfg.Package, err)
		}
		id := identity{cluster: n.cfg.Cluster, node: n.cfg.Node, incarnation: n.ex.Uint64()}
		var b storage.Batch
		b.Set(key, storage.AppendRecord(nil, key, id.encode()))
		if err := store.Commit(&b); err != nil {
			return fmt.Errorf("%s: write identity: %w", n.cfg.Package, err)
		}
		n.incarnation = id.incarnation
		return nil
	}
	id, err := decodeIdentity(payload)
	if err != nil {
		return fmt.Errorf("%s: %w", n.cfg.Package, &storage.CorruptError{Key: key, Reason: err.Error()})
	}
	if id.cluster != n.cfg.Cluster || id.node != n.cfg.Node {
		return fmt.Errorf("%s: %w: it is that of node %d of cluster %q, not of node %d of cluster %q: check Config.Store, Config.Node and Config.Cluster",
			n.cfg.Package, ErrForeignStore, id.node, id.cluster, n.cfg.Node, n.cfg.Cluster)
	}
	n.incarnation = id.incarnation
	return n.readPins()
}

func (n *Node) readPins() error {
	it, err := n.cfg.Store.Scan([]byte{tagPeer}, []byte{tagPeer + 1})
	if err != nil {
		return fmt.Errorf("%s: read store: %w", n.cfg.Package, err)
	}
	keys, values, err := storage.Collect(it)
	if err != nil {
		return fmt.Errorf("%s: read store: %w", n.cfg.Package, err)
	}
	for i, key := range keys {
		payload, err := storage.OpenRecord(key, values[i])
		if err != nil {
			return fmt.Errorf("%s: incarnation of a peer: %w", n.cfg.Package, err)
		}
		if len(key) != 9 || len(payload) != 8 {
			return fmt.Errorf("%s: incarnation of a peer: %w", n.cfg.Package, &storage.CorruptError{Key: key, Reason: "wrong length"})
		}
		n.pins[binary.BigEndian.Uint64(key[1:])] = pin{incarnation: binary.LittleEndian.Uint64(payload), durable: true}
	}
	return nil
}

func (n *Node) address(to uint64) frameAddress {
	a := frameAddress{cluster: n.cluster, from: n.cfg.Node, to: to, incarnation: n.incarnation}
	n.pinMu.Lock()
	if p := n.pins[to]; p.durable {
		a.expected = p.incarnation // which says that it will not be forgotten
	}
	n.pinMu.Unlock()
	return a
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
	case a.expected != 0 && a.expected != n.incarnation && !probe.Bug("a wiped node is trusted"):
		// What is meant for this node's predecessor speaks of promises that this one
		// does not remember.
		n.refuse(from, 0, fmt.Errorf("%w: node %d remembers another incarnation of this node", ErrIncarnation, from))
		return
	case !n.pinned(from, a.incarnation, a.expected == n.incarnation):
		return
	case kind == frameHello:
		n.pinMu.Lock()
		durable := n.pins[from].durable
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
			frames = append(frames, inFrame{from: from, kind: kind, size: len(payload)})
		}
		frames[i].messages = append(frames[i].messages, m)
		frames[i].bytes += len(m.body) + messageCost
	}
	for i, l := range loops {
		l.postFrame(frames[i])
	}
}

// pinned reports whether a peer still is who it was when it was first met.
//
// A node whose disk was wiped, replaced, or that runs twice, draws another
// incarnation. It has forgotten what it promised, so that nothing that it says may
// count. The first incarnation that is seen is kept, in memory at once and durably
// with the next commit. The peer's groups begin only once it has heard that: see
// introduce.go.
func (n *Node) pinned(peer, incarnation uint64, met bool) bool {
	n.pinMu.Lock()
	known, ok := n.pins[peer]
	if ok && known.incarnation != incarnation && !probe.Bug("a wiped node is trusted") {
		said := n.refused[peer] == incarnation
		n.pinMu.Unlock()
		n.refusePeer(peer, incarnation, said)
		return false
	}
	defer n.pinMu.Unlock()
	switch {
	case !ok:
		n.pins[peer] = pin{incarnation: incarnation, met: met}
		n.storePin(peer, incarnation)
	case met && !known.met:
		known.met = true
		n.pins[peer] = known
	}
	return true
}

// refusePeer reports a peer that is not who it was, once.
func (n *Node) refusePeer(peer, incarnation uint64, said bool) {
	probe.Sometimes("replica: a wiped node is refused", true)
	if said {
		n.count(metricFramesRefused, 0, 1)
		return
	}
	if n.refuse(peer, 0, ErrIncarnation) {
		n.pinMu.Lock()
		defer n.pinMu.Unlock()
		n.refused[peer] = incarnation
	}
}

// storePin makes the incarnation of a peer durable with the next commit.
func (n *Node) storePin(peer, incarnation uint64) {
	key := binary.BigEndian.AppendUint64([]byte{tagPeer}, peer)
	record := storage.AppendRecord(nil, key, binary.LittleEndian.AppendUint64(nil, incarnation))
	l := n.loops[0]
	l.do(func() {
		l.pending.batch.Set(key, record)
		l.pending.urgent = true
		l.pending.after = append(l.pending.after, func() {
			n.pinMu.Lock()
			defer n.pinMu.Unlock()
			p := n.pins[peer]
			p.durable = true
			n.pins[peer] = p
		})
	})
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
func (n *Node) Bootstrap(ctx context.Context, group uint64, voters []uint64) error {
	fail := func(err error) error {
		return fmt.Errorf("%s: bootstrap group %d: %w", n.cfg.Package, group, err)
	}
	voters = slices.Clone(voters)
	slices.Sort(voters)
	switch {
	case group == 0:
		return fail(&synod.ConfigError{Package: n.cfg.Package, Field: "ID", Reason: "groups have IDs above 0"})
	case len(voters) == 0:
		return fail(&synod.ConfigError{Package: n.cfg.Package, Field: "Members", Reason: "a group needs at least one member"})
	case voters[0] == 0:
		return fail(&synod.ConfigError{Package: n.cfg.Package, Field: "Members", Reason: "nodes have IDs above 0"})
	case len(slices.Compact(slices.Clone(voters))) != len(voters):
		return fail(&synod.ConfigError{Package: n.cfg.Package, Field: "Members", Reason: "a node is named twice"})
	case !slices.Contains(voters, n.cfg.Node):
		return fail(&synod.ConfigError{Package: n.cfg.Package, Field: "Members", Reason: fmt.Sprintf("node %d is not among them", n.cfg.Node)})
	}
	if !n.enter() {
		return fail(synod.ErrClosed)
	}
	defer n.leave()
	// One at a time, and nothing else waits for its commit.
	n.mu.Lock()
	if n.bootstrapping {
		turn := executor.NewEvent()
		n.bootstraps = append(n.bootstraps, turn)
		n.mu.Unlock()
		n.wait(ctx, turn)
		n.mu.Lock()
	}
	n.bootstrapping = true
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.bootstrapping = len(n.bootstraps) > 0; n.bootstrapping {
			n.bootstraps[0].Set()
			n.bootstraps = n.bootstraps[1:]
		}
	}()
	keys := GroupKeys(group)
	if _, found, err := getRecord(n.cfg.Store, keys.key(tagMeta), group); err != nil {
		return fail(err)
	} else if found {
		return fail(ErrBootstrapped)
	}
	if err := absent(n.cfg.Store, keys); err != nil {
		return fail(err)
	}
	var b storage.Batch
	key := keys.key(tagMeta)
	b.Set(key, storage.AppendRecord(nil, key, []byte(n.cfg.Protocol.Name())))
	if err := n.cfg.Protocol.Bootstrap(keys, voters, &b); err != nil {
		return fail(err)
	}
	if err := n.cfg.Store.Commit(&b); err != nil {
		return fail(err)
	}
	return nil
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
