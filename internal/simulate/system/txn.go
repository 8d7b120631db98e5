package system

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/sim"
	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/txn"
	"github.com/synod-go/synod/txn/check"
	"github.com/synod-go/synod/txn/hlc"
	"github.com/synod-go/synod/txn/kv"
)

// txnRun is one simulated cluster of package txn/kv, and all that its clients know: nodes with a replica of each of
// several groups, and databases over them, whose clients live and die with their node.
type txnRun struct {
	w       *sim.World
	engine  engine
	options txnOptions

	nodes   map[uint64]*txnNode // those that run
	leaders map[int]uint64      // of groups, as nodes have last said
	clients int                 // that have not ended

	strict   check.Recorder // transactions that happen between their call and their return
	past     check.Recorder // reads as of a timestamp
	work     workloads
	outcomes map[string]int // how transactions ended

	calm   bool // nobody makes trouble any more
	over   bool // no client begins another transaction
	commit map[txnClient]int
}

// txnClient is a client of a node, whichever process it has.
type txnClient struct {
	node   uint64
	number int
}

// txnNode is a process of a node.
type txnNode struct {
	id         uint64
	ctx        context.Context
	node       node
	groups     []group
	machines   []*kv.Machine
	forwarders []*txn.Forwarder
	clock      *hlc.Clock
	databases  []*database
	stopped    bool
}

// database is a DB of a node, and what only its own clients are promised.
type database struct {
	*kv.DB // nil: it is closed
	counts map[string]int64
}

// txnOptions is what the seed makes of the cluster.
type txnOptions struct {
	engine                         string
	nodes                          uint64
	groups                         int
	clients                        int // of a node
	databases                      int // of a node
	reopen                         bool
	think                          time.Duration
	patience                       time.Duration // of most clients
	gather                         time.Duration // when they begin: at multiples of it; 0: whenever they like
	move                           bool          // leaders change without a fault
	snapshotEntries, retainEntries uint64
	batchBytes                     int
	recoverAfter, retention, ttl   time.Duration
	attempts, transactions, served int
	request                        time.Duration
	offset, interval, skew         time.Duration
	keys                           int           // of a kind, at a time
	epoch                          time.Duration // after which keys are others
	inARow                         int           // transactions that a client does right after another one, at most
	mix                            [kindsOfWork]int
}

const txnTrouble = 20 * time.Second

// Observe implements Run: what engines do is for their own systems to judge.
func (s *txnRun) Observe(uint64, any) {}

func (s *txnRun) draw(w *sim.World) {
	s.w = w
	s.nodes, s.leaders = make(map[uint64]*txnNode), make(map[int]uint64)
	s.outcomes, s.commit = make(map[string]int), make(map[txnClient]int)
	r := w.Rand()
	o := txnOptions{
		engine: "raft", nodes: 3, groups: 2 + r.IntN(2), clients: 1 + r.IntN(3), databases: 1, reopen: r.IntN(2) == 0,
		patience:        100 * time.Millisecond << r.IntN(7),
		move:            r.IntN(2) == 0,
		snapshotEntries: 10 << r.IntN(7), retainEntries: 1 << r.IntN(8), batchBytes: 256 << r.IntN(8),
		recoverAfter: 50 * time.Millisecond << r.IntN(6), retention: 200 * time.Millisecond << r.IntN(7), ttl: time.Hour,
		attempts: 2 + r.IntN(60), transactions: 1 << 10, served: 1 << 10,
		request: 200 * time.Millisecond << r.IntN(5),
		offset:  100 * time.Millisecond << r.IntN(4), interval: 50 * time.Millisecond << r.IntN(4), skew: 200 * time.Millisecond << r.IntN(6),
		keys: 1 + r.IntN(5), epoch: time.Second << r.IntN(4),
	}
	o.interval = min(o.interval, 4*o.offset) // what a peer has said is worth something until it is asked again
	if r.IntN(2) == 0 {
		o.engine = "paxos"
	}
	if r.IntN(8) == 0 {
		o.nodes = 5
	}
	// All clients together begin up to 100 transactions a second.
	o.think = time.Duration(int(o.nodes)*o.clients) * 10 * time.Millisecond << r.IntN(4)
	if r.IntN(4) > 0 {
		o.gather = 50 * time.Millisecond << r.IntN(3)
	}
	if r.IntN(4) == 0 {
		o.databases = 2
	}
	if r.IntN(2) == 0 {
		o.ttl = time.Second << r.IntN(4)
	}
	if r.IntN(4) == 0 {
		o.transactions = 1 + r.IntN(4)
	}
	if r.IntN(6) == 0 {
		o.served = 1 + r.IntN(3)
	}
	if r.IntN(2) == 0 {
		o.inARow = 1 + r.IntN(4)
	}
	for i := range o.mix {
		o.mix[i] = r.IntN(2) * (1 + r.IntN(4))
	}
	o.mix[r.IntN(len(o.mix))] += 4
	s.options = o
	s.engine = map[string]engine{"raft": raftEngine{}, "paxos": &paxosEngine{}}[o.engine]
	w.Logf("options: %+v", o)
	s.work.start(s)
}

// route says which group keeps a key: what its last byte says.
func (s *txnRun) route(key []byte) int { return int(key[len(key)-1]) % s.options.groups }

// Channels of a node's transport.
const (
	channelNode = iota + 1
	channelClock
	channelForwarder // of the first group; the others follow
)

func (s *txnRun) startNode(ctx context.Context, env *sim.Env) (func(), error) {
	delete(s.nodes, env.ID)
	o := s.options
	mux := transport.NewMux(env.Transport)
	n := &txnNode{id: env.ID, ctx: ctx}
	var err error
	n.node, err = s.engine.start(ctx, replica.Settings{Cluster: "sim", Node: env.ID, Transport: mux.Channel(channelNode), Store: env.Store, Logger: env.Logger, Loops: 1,
		HeartbeatInterval: election / 10, ElectionTimeout: election, MaxBatchBytes: o.batchBytes})
	if err != nil {
		return nil, err
	}
	var members []uint64
	for id := uint64(1); id <= o.nodes; id++ {
		members = append(members, id)
	}
	for i := range o.groups {
		id := uint64(i + 1)
		if err := n.node.Bootstrap(ctx, id, members); err != nil && !errors.Is(err, replica.ErrBootstrapped) {
			return nil, err
		}
		machine := kv.NewMachine()
		g, err := n.node.StartGroup(ctx, replica.GroupConfig{ID: id, StateMachine: machine, SnapshotEntries: o.snapshotEntries, RetainEntries: o.retainEntries})
		if err != nil {
			return nil, err
		}
		f, err := txn.NewForwarder(ctx, txn.ForwarderConfig{Log: g, Node: env.ID, Transport: mux.Channel(uint32(channelForwarder + i)), RequestTimeout: o.request, MaxServed: o.served})
		if err != nil {
			return nil, err
		}
		n.groups, n.machines, n.forwarders = append(n.groups, g), append(n.machines, machine), append(n.forwarders, f)
	}
	n.clock, err = hlc.New(ctx, hlc.Config{Node: env.ID, Peers: members, Transport: mux.Channel(channelClock), Logger: env.Logger,
		MaxOffset: o.offset, Interval: o.interval, MaxDrift: 0.06})
	if err != nil {
		return nil, err
	}
	for range o.databases {
		d := &database{}
		if err := s.open(n, d, env); err != nil {
			return nil, err
		}
		n.databases = append(n.databases, d)
	}
	s.nodes[env.ID] = n
	for c := range o.clients {
		s.clients++
		sim.Go(ctx, func() {
			defer func() { s.clients-- }()
			s.client(n, c)
		})
	}
	sim.Go(ctx, func() { s.lead(n) })
	if o.reopen {
		for _, d := range n.databases {
			sim.Go(ctx, func() { s.reopen(n, d, env) })
		}
	}
	return func() { s.stop(n) }, nil
}

func (s *txnRun) open(n *txnNode, d *database, env *sim.Env) error {
	o := s.options
	cfg := kv.Config{Route: s.route, Clock: n.clock, RecoverAfter: o.recoverAfter, Retention: o.retention, SessionTTL: o.ttl,
		MaxAttempts: o.attempts, MaxTransactions: o.transactions, Logger: env.Logger}
	for i := range n.machines {
		cfg.Groups = append(cfg.Groups, kv.Group{Log: n.forwarders[i], Machine: n.machines[i]})
	}
	db, err := kv.Open(n.ctx, cfg)
	if err != nil {
		return err
	}
	d.DB, d.counts = db, make(map[string]int64)
	return nil
}

func (s *txnRun) stop(n *txnNode) {
	n.stopped = true
	for _, d := range n.databases {
		if db := d.DB; db != nil {
			d.DB = nil
			_ = db.Close()
		}
	}
	_ = n.clock.Close()
	for _, f := range n.forwarders {
		_ = f.Close()
	}
	_ = n.node.Close()
}

// lead says whom the node takes for a leader, and lets itself be followed by another one from time to time.
func (s *txnRun) lead(n *txnNode) {
	r := s.w.Rand()
	for !s.over && !n.stopped {
		_ = sim.Sleep(n.ctx, election/2+time.Duration(r.Int64N(int64(2*election))))
		for i, g := range n.groups {
			if g.Status().Leader != n.id {
				continue
			}
			s.leaders[i] = n.id
			if s.options.move && !s.calm && r.IntN(3) == 0 {
				short, cancel := sim.WithTimeout(n.ctx, election)
				_ = g.TransferLeader(short, 1+r.Uint64N(s.options.nodes))
				cancel()
			}
		}
	}
}

// reopen closes a database from time to time, as a program does that ends, and opens another one.
func (s *txnRun) reopen(n *txnNode, d *database, env *sim.Env) {
	r := s.w.Rand()
	for !s.calm && !n.stopped {
		_ = sim.Sleep(n.ctx, time.Duration(r.Int64N(int64(8*time.Second))))
		if n.stopped || s.calm {
			return
		}
		db := d.DB
		d.DB = nil
		if err := db.Close(); err != nil {
			s.w.Failf("close", "node %d: %w", n.id, err)
		}
		_ = sim.Sleep(n.ctx, time.Duration(r.Int64N(int64(time.Second))))
		if n.stopped {
			return
		}
		if err := s.open(n, d, env); err != nil {
			s.w.Fail(err)
		}
	}
}

// client begins one transaction after the other.
func (s *txnRun) client(n *txnNode, number int) {
	r, me := s.w.Rand(), txnClient{n.id, number}
	think := func() {
		think := s.options.think
		if s.calm {
			think = min(think, 300*time.Millisecond)
		}
		_ = sim.Sleep(n.ctx, time.Duration(r.Int64N(int64(2*think))))
		if gather := s.options.gather; gather > 0 && !s.calm { // so that many want the same at a time
			_ = sim.Sleep(n.ctx, gather-s.w.Now()%gather+time.Duration(r.Int64N(int64(2*time.Millisecond))))
		}
	}
	for row := 0; !s.over && !n.stopped; row-- {
		if row == 0 {
			think()
			row = 1 + r.IntN(1+s.options.inARow)
		}
		d := n.databases[r.IntN(len(n.databases))]
		if d.DB == nil {
			_ = sim.Sleep(n.ctx, 50*time.Millisecond)
			continue
		}
		patience := s.options.patience
		switch {
		case s.calm:
			patience = 10 * election
		case r.IntN(6) == 0:
			patience = time.Duration(r.Int64N(int64(20 * time.Millisecond)))
		}
		ctx, cancel := sim.WithTimeout(n.ctx, patience)
		if s.work.one(ctx, d) && s.calm {
			s.commit[me]++
		}
		cancel()
	}
}

// Main implements Run.
func (s *txnRun) Main(w *sim.World) {
	s.draw(w)
	ctx := w.Context()
	for id := uint64(1); id <= s.options.nodes; id++ {
		w.AddNode(id, s.startNode)
	}
	target := func() uint64 { return s.leaders[w.Rand().IntN(s.options.groups)] }
	_ = sim.Sleep(ctx, 3*election)
	w.Trouble(ctx, txnTrouble, sim.Atlas{Damaged: -1, Target: target, Skew: s.options.skew})
	s.calm = true

	// Clocks that were ahead may have made timestamps that are, and fence those who have taken them in until the time has come.
	limit := 2*progress*election + 8*s.options.skew
	if !s.await(limit, s.progressed) {
		w.Failf("progress", "a client has not committed anything %v after everything healed: %v; %s", limit, s.commit, s.status())
		return
	}
	s.over = true
	if !s.await(limit, func() bool { return s.clients == 0 }) {
		w.Failf("waiting ends", "a transaction has not returned %v after its time", limit)
		return
	}
	s.settle(limit)
	if w.Failed() {
		return
	}
	s.work.finish(ctx)
	s.judge()
}

// await polls until something is so, for so long.
func (s *txnRun) await(limit time.Duration, so func() bool) bool {
	for until := s.w.Now() + limit; !so(); _ = sim.Sleep(s.w.Context(), 100*time.Millisecond) {
		if s.w.Now() > until || s.w.Failed() {
			return false
		}
	}
	return true
}

// progressed reports whether each client has committed something since all is whole.
func (s *txnRun) progressed() bool {
	for id := uint64(1); id <= s.options.nodes; id++ {
		for c := range s.options.clients {
			if s.commit[txnClient{id, c}] < 2 {
				return false
			}
		}
	}
	return true
}

// settle sees that all that was left behind is ended: no lock stays anywhere, sessions are forgotten, and all replicas are equal.
func (s *txnRun) settle(limit time.Duration) {
	bounded := s.options.ttl < time.Minute
	if bounded {
		limit += 3 * s.options.ttl
	}
	over := func() bool {
		for _, w := range s.w.Nodes() {
			n := s.nodes[w.ID]
			if n == nil || n.stopped || slices.ContainsFunc(n.databases, func(d *database) bool { return d.DB == nil }) {
				return false
			}
			for i, m := range n.machines {
				x := m.Status()
				if x.Contradicted > 0 {
					s.w.Failf("outcomes agree", "node %d, group %d: %+v", n.id, i, x)
				}
				if x.Prepared > 0 || x.Locks > 0 || bounded && x.Sessions+x.Records > 0 {
					return false
				}
			}
		}
		return true
	}
	if !s.await(limit, over) {
		s.w.Failf("no lock left", "%v after the last transaction something is left: %s", limit, s.status())
		return
	}
	// Nobody proposes anything any more, but for what collects.
	if !s.await(limit, func() bool {
		for i := range s.options.groups {
			if !s.equal(i) {
				return false
			}
		}
		return true
	}) {
		s.w.Failf("equal replicas", "replicas of a group differ %v after the last transaction: %s", limit, s.status())
	}
}

// equal reports whether all replicas of a group have the same state.
func (s *txnRun) equal(i int) bool {
	var first []byte
	for id := uint64(1); id <= s.options.nodes; id++ {
		var b bytes.Buffer
		image, err := s.nodes[id].machines[i].Snapshot()
		if err == nil {
			_, err = image.WriteTo(&b)
		}
		if err != nil {
			s.w.Fail(err)
		}
		if id > 1 && !bytes.Equal(first, b.Bytes()) {
			return false
		}
		first = b.Bytes()
	}
	return true
}

func (s *txnRun) status() (all string) {
	for id := uint64(1); id <= s.options.nodes; id++ {
		n := s.nodes[id]
		if n == nil {
			all += fmt.Sprintf("\nnode %d does not run: %v", id, s.w.Node(id).Err())
			continue
		}
		all += fmt.Sprintf("\nnode %d: stopped %v, clock: %v", id, n.stopped, n.clock.Check())
		for i, m := range n.machines {
			all += fmt.Sprintf("\n  group %d: %+v, %v", i, m.Status(), n.groups[i].Err())
		}
		for _, d := range n.databases {
			if d.DB != nil {
				x := d.Status()
				x.Groups = nil
				all += fmt.Sprintf("\n  database: %+v", x)
			}
		}
	}
	return all
}

// judge holds what all clients saw against strict serializability, and what was read as of a timestamp against an order of all that
// was committed.
func (s *txnRun) judge() {
	h := s.strict.History()
	s.hold("strictly serializable", h, check.StrictSerializable)
	past := s.past.History()
	if len(past.Transactions) == 0 {
		return
	}
	// Who only reads has no timestamp, and is left out: where two commits know nothing of each other he may have seen the one with the
	// higher timestamp first.
	h.Transactions = slices.DeleteFunc(h.Transactions, func(t check.Transaction) bool { return !slices.ContainsFunc(t.Operations, writes) })
	h.Transactions = append(h.Transactions, past.Transactions...)
	for i := range h.Transactions {
		h.Transactions[i].Begin, h.Transactions[i].End = 0, 0
	}
	s.hold("reads as of a timestamp are serializable", h, check.Serializable)
}

func writes(o check.Operation) bool { return o.Kind == check.Append || o.Kind == check.Write }

func (s *txnRun) hold(name string, h check.History, model check.Model) {
	report, err := h.Check(check.Config{Model: model})
	switch {
	case err != nil:
		s.w.Failf(name, "%w", err)
	case !report.OK():
		s.w.Failf(name, "%v", report)
	}
}

// Checked implements Run.
func (s *txnRun) Checked() (histories, calls int) {
	for _, n := range s.outcomes {
		calls += n
	}
	return 1, calls
}

// Transactions returns how many ended how.
func (s *txnRun) Transactions() map[string]int { return s.outcomes }
