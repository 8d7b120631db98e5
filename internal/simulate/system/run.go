package system

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/sim"
	"github.com/synod-go/synod/sim/history"
	"github.com/synod-go/synod/storage"
)

// run is one simulated cluster of an engine, and all that is known of it.
type run struct {
	engine     engine
	w          *sim.World
	invariants *invariants
	history    *history.History[uint64, history.Access, uint64]
	options    options

	groups    map[uint64]group
	machines  map[uint64]*machine
	kept      map[uint64]*machine // what those with a disk of their own have on it
	hashes    map[uint64]uint64   // of the commands up to an index, on any node
	appliedAt map[uint64]uint64   // where each command was applied
	acked     []uint64
	refused   map[uint64]bool // certainly not executed
	next      uint64
	over      bool
	hush      bool   // nobody writes
	steady    bool   // nobody changes the members
	changing  bool   // somebody does
	ambush    func() // is called after each event, where there are rivals
	calm      bool   // nobody makes trouble any more

	unknown, barriers int

	removed map[uint64]bool // nodes that the group has removed, and whose replica may go
}

// options is what the seed makes of the cluster.
type options struct {
	founders        uint64 // the first members
	nodes           uint64 // all that there are
	clients         int
	think           time.Duration // of a client, between two calls, on average
	snapshotEntries uint64
	retainEntries   uint64
	batchBytes      int
	cacheBytes      int
	padding         int  // of a command
	bursts          int  // clients that write much, and wait for nothing
	durable         bool // the state machine keeps its state on a disk of its own
	batches         bool // it takes many commands at once
	operator        bool // members change
	mistaken        bool // a node whose disk was lost is bootstrapped again
	sessions        int  // one client in so many uses sessions; 0: none
	sessionLife     time.Duration
	maxSessions     int
	sessionBytes    int
	drift           float64 // of clocks, with leases; 0: without
}

// election is the election timeout. progress is how many of them a healed cluster may
// take until it acknowledges a write again, and until every node has caught up.
const (
	election = time.Second
	progress = 20
	trouble  = time.Minute
)

// Observe implements Run.
func (s *run) Observe(node uint64, what any) {
	if s.invariants != nil {
		s.invariants.observe(node, what)
	}
}

func (s *run) start(w *sim.World) {
	s.w = w
	s.invariants = newInvariants(w)
	s.history = history.New(history.Registers)
	s.removed = make(map[uint64]bool)
	s.groups, s.machines, s.kept = make(map[uint64]group), make(map[uint64]*machine), make(map[uint64]*machine)
	s.hashes, s.appliedAt, s.refused = make(map[uint64]uint64), make(map[uint64]uint64), make(map[uint64]bool)
	r := w.Rand()
	s.options = options{
		founders:        3 + 2*uint64(r.IntN(2)),
		clients:         1 + r.IntN(6),
		think:           10 * time.Millisecond << r.IntN(7),
		snapshotEntries: 10 << r.IntN(6),
		retainEntries:   1 << r.IntN(8),
		batchBytes:      64 << r.IntN(6),
		cacheBytes:      256 << r.IntN(8),
		padding:         r.IntN(2) * r.IntN(200),
		bursts:          r.IntN(3),
		durable:         r.IntN(3) == 0,
		batches:         r.IntN(3) == 0,
		sessions:        r.IntN(4),
		sessionLife:     250 * time.Millisecond << r.IntN(9),
		maxSessions:     1 + r.IntN(12),
		sessionBytes:    64 << r.IntN(9),
	}
	if r.IntN(8) == 0 {
		s.options.founders = 1
	}
	s.options.nodes = s.options.founders
	if s.options.operator = r.IntN(2) == 0; s.options.operator {
		s.options.nodes += uint64(r.IntN(3))
	}
	s.options.mistaken = r.IntN(4) == 0 && s.options.founders > 1 // one that is alone nobody would correct
	s.options.drift = drifts[w.Seed()%uint64(len(drifts))]
	w.Logf("options: %+v", s.options)
	s.engine.draw(s)
	s.invariants.rules = s.engine.rules(s.invariants)
	for id := uint64(1); id <= s.options.nodes; id++ {
		w.AddNode(id, s.startNode)
	}
}

func (s *run) startNode(ctx context.Context, env *sim.Env) (func(), error) {
	delete(s.groups, env.ID)
	node, err := s.engine.start(ctx, replica.Settings{Cluster: "sim", Node: env.ID, Transport: env.Transport, Store: env.Store, Logger: env.Logger, Loops: 1,
		HeartbeatInterval: election / 10, ElectionTimeout: election, MaxClockDrift: clockDrift(s.options.drift), MaxBatchBytes: s.options.batchBytes, CacheBytes: s.options.cacheBytes})
	if err != nil {
		return nil, err
	}
	s.invariants.incarnations[env.ID] = node.Status().Incarnation
	if err := s.create(ctx, env, node); err != nil && !errors.Is(err, replica.ErrBootstrapped) {
		return nil, err
	}
	m := s.machine(env.ID)
	cfg := replica.GroupConfig{ID: 1, StateMachine: m.powers(), SnapshotEntries: s.options.snapshotEntries, RetainEntries: s.options.retainEntries,
		MaxSessions: s.options.maxSessions, MaxSessionBytes: s.options.sessionBytes}
	group, err := node.StartGroup(ctx, cfg)
	if errors.Is(err, replica.ErrIncarnation) { // it has promised nothing, and begins anew
		s.removed[env.ID] = true
		if err := s.create(ctx, env, node); err != nil {
			return nil, err
		}
		m = s.machine(env.ID)
		cfg.StateMachine = m.powers()
		group, err = node.StartGroup(ctx, cfg)
	}
	if err != nil {
		return nil, err
	}
	s.groups[env.ID], s.machines[env.ID] = group, m
	return func() { _ = node.Close() }, nil
}

// create makes a node's replica, if there is none.
func (s *run) create(ctx context.Context, env *sim.Env, node node) error {
	lost := s.w.Node(env.ID).Disk.Generation() > 0 && !s.options.mistaken
	switch {
	case s.removed[env.ID]:
		switch err := node.Leave(ctx, 1); {
		case errors.Is(err, replica.ErrMember): // a crash has lost that it was told: it is told again
			delete(s.removed, env.ID)
			return replica.ErrBootstrapped
		case err != nil && !errors.Is(err, replica.ErrNotBootstrapped):
			return err
		}
		s.invariants.rules.left(env.ID)
		delete(s.kept, env.ID)
		delete(s.removed, env.ID)
		return node.Join(ctx, 1)
	case lost || env.ID > s.options.founders:
		return node.Join(ctx, 1)
	}
	var members []uint64
	for id := uint64(1); id <= s.options.founders; id++ {
		members = append(members, id)
	}
	return node.Bootstrap(ctx, 1, members)
}

// machine is the state machine under test: registers, and a hash of all commands in their
// order. Every command has a number of its own.
type machine struct {
	run    *run
	node   uint64
	disk   int // the node's disk's generation
	count  uint64
	hash   uint64
	values map[string]uint64
	recent []change // since the state was kept
}

type change struct {
	key   string
	value uint64
}

// machine returns a node's machine as it is after a start.
func (s *run) machine(node uint64) *machine {
	m := &machine{run: s, node: node, disk: s.w.Node(node).Disk.Generation(), values: make(map[string]uint64)}
	if !s.options.durable {
		return m
	}
	if kept := s.kept[node]; kept != nil && kept.disk == m.disk {
		m.count, m.hash, m.values = kept.count, kept.hash, maps.Clone(kept.values)
	} else {
		s.kept[node] = &machine{disk: m.disk, values: make(map[string]uint64)}
	}
	return m
}

// keep makes the state durable.
func (m *machine) keep() {
	kept := m.run.kept[m.node]
	kept.count, kept.hash = m.count, m.hash
	for _, c := range m.recent {
		kept.values[c.key] = c.value
	}
	m.recent = m.recent[:0]
}

// A machine has the optional powers that the run wants to see.
type (
	batching struct{ *machine }
	keeping  struct{ *machine }
	both     struct{ *machine }
)

var (
	_ synod.BatchApplier = batching{}
	_ synod.DurableIndex = keeping{}
)

func (m *machine) powers() synod.StateMachine {
	switch o := m.run.options; {
	case o.durable && o.batches:
		return both{m}
	case o.durable:
		return keeping{m}
	case o.batches:
		return batching{m}
	}
	return m
}

func (m *machine) applyBatch(entries []synod.Entry) {
	for i := range entries {
		entries[i].Result = m.Apply(entries[i].Index, entries[i].Command)
	}
}

// ApplyBatch implements synod.BatchApplier.
func (b batching) ApplyBatch(entries []synod.Entry) { b.applyBatch(entries) }

// ApplyBatch implements synod.BatchApplier.
func (b both) ApplyBatch(entries []synod.Entry) { b.applyBatch(entries) }

// DurableIndex implements synod.DurableIndex.
func (k keeping) DurableIndex() (uint64, error) { return k.run.kept[k.node].count, nil }

// DurableIndex implements synod.DurableIndex.
func (b both) DurableIndex() (uint64, error) { return b.run.kept[b.node].count, nil }

func encodeWrite(id uint64, key string, padding int) []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 9+len(key)+padding), id)
	b = append(b, byte(len(key)))
	return append(append(b, key...), make([]byte, padding)...)
}

// Apply implements synod.StateMachine.
func (m *machine) Apply(index uint64, command []byte) []byte {
	s := m.run
	if index != m.count+1 {
		s.w.Failf("applied in order", "node %d: index %d follows %d", m.node, index, m.count)
	}
	id, key := binary.LittleEndian.Uint64(command), string(command[9:9+int(command[8])])
	h := fnv.New64a()
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, m.hash))
	_, _ = h.Write(command)
	m.count, m.hash = index, h.Sum64()
	if known, ok := s.hashes[index]; ok && known != m.hash {
		s.w.Failf("equal state at equal index", "node %d has applied other commands than another node, up to index %d", m.node, index)
	}
	s.hashes[index] = m.hash
	if at, ok := s.appliedAt[id]; ok && at != index {
		s.w.Failf("applied once", "node %d applies command %d at index %d; it was applied at index %d", m.node, id, index, at)
	}
	s.appliedAt[id] = index
	if s.refused[id] {
		s.w.Failf("certainly not executed", "node %d applies command %d, which was refused", m.node, id)
	}
	old := m.values[key]
	m.values[key] = id
	if s.options.durable {
		if m.recent = append(m.recent, change{key, id}); s.w.Rand().IntN(8) == 0 {
			m.keep()
		}
	}
	return binary.LittleEndian.AppendUint64(nil, old)
}

// image is a machine's snapshot.
type image []byte

// WriteTo implements io.WriterTo, in many pieces.
func (i image) WriteTo(w io.Writer) (total int64, err error) {
	for piece := range slices.Chunk(i, 64) {
		n, err := w.Write(piece)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// Snapshot implements synod.StateMachine.
func (m *machine) Snapshot() (io.WriterTo, error) {
	b := binary.LittleEndian.AppendUint64(nil, m.count)
	b = binary.LittleEndian.AppendUint64(b, m.hash)
	for _, key := range slices.Sorted(maps.Keys(m.values)) {
		b = append(append(b, byte(len(key))), key...)
		b = binary.LittleEndian.AppendUint64(b, m.values[key])
	}
	return image(b), nil
}

// Restore implements synod.StateMachine.
func (m *machine) Restore(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if len(b) < 16 {
		return errors.New("a short snapshot")
	}
	count := m.count
	m.count, m.hash, m.values = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), make(map[string]uint64)
	for b = b[16:]; len(b) > 0; {
		n := int(b[0])
		if len(b) < 1+n+8 {
			return errors.New("a short snapshot")
		}
		m.values[string(b[1:1+n])] = binary.LittleEndian.Uint64(b[1+n:])
		b = b[1+n+8:]
	}
	if known, ok := m.run.hashes[m.count]; ok && known != m.hash {
		m.run.w.Failf("equal state at equal index", "node %d: a snapshot at index %d holds other commands than were applied", m.node, m.count)
	}
	if m.run.options.durable {
		m.recent = m.recent[:0]
		m.run.kept[m.node] = &machine{disk: m.disk, count: m.count, hash: m.hash, values: maps.Clone(m.values)}
	}
	if m.count < count {
		m.run.w.Failf("state never regresses", "node %d: a snapshot at index %d takes the place of the state at index %d", m.node, m.count, count)
	}
	return nil
}

// client writes and reads, wherever it is led.
func (s *run) client(ctx context.Context, number int) {
	r, at := s.w.Rand(), uint64(1+number)%s.options.nodes+1
	elsewhere := func() uint64 { return 1 + r.Uint64N(s.options.nodes) }
	// Some clients do nothing but read, more often, and on one node for a while: a stale
	// leader is found by those that stay with it, a lagging follower by those that crowd.
	reader, home, until := number%2 == 1, elsewhere(), time.Duration(0)
	var session *replica.Session
	for !s.over {
		think := s.options.think
		if reader {
			think = max(think/4, 20*time.Millisecond)
			if s.w.Now() > until {
				home, until = 1+uint64(s.w.Now()/(4*time.Second))%s.options.nodes, s.w.Now()+4*time.Second
				if leader := s.leader(); leader != 0 && r.IntN(2) == 0 {
					home = leader // who may be deposed before long, and not know it
				}
			}
			at = home
		}
		_ = sim.Sleep(ctx, time.Duration(r.Int64N(int64(2*think))))
		g, m := s.groups[at], s.machines[at]
		if g == nil {
			at = elsewhere()
			continue
		}
		// The keys change with time, so that writes of unknown outcome do not pile up on one.
		key := fmt.Sprintf("%d-%d", s.w.Now()/(2*time.Second), r.IntN(2))
		short, cancel := sim.WithTimeout(ctx, time.Duration(1+r.Int64N(int64(3*election))))
		if reader || s.hush || r.IntN(4) == 0 {
			at = s.read(short, number, key, at, g, m)
		} else if s.options.sessions > 0 && number/2%s.options.sessions == 0 {
			if session == nil {
				session = s.session(short, g)
			}
			if session != nil && s.writeOnce(short, &number, key, at, session) {
				session = nil // it is over
			}
			at = 0
		} else {
			at = s.write(short, &number, key, at, g)
		}
		cancel()
		if at == 0 {
			at = elsewhere()
			if leader := s.leader(); s.calm && leader != 0 && r.IntN(2) == 0 {
				at = leader // progress must not depend on whom a single client happens to ask
			}
		}
	}
}

// session opens a session; nil: not now.
func (s *run) session(ctx context.Context, g group) *replica.Session {
	id, err := g.OpenSession(ctx, s.options.sessionLife)
	if err != nil {
		return nil
	}
	return replica.NewSession(id, 0)
}

// writeOnce writes in a session, wherever the leader is, again and again until it knows
// what became of it. It reports whether the session is over.
func (s *run) writeOnce(ctx context.Context, number *int, key string, at uint64, session *replica.Session) bool {
	s.next++
	id, r := s.next, s.w.Rand()
	command := encodeWrite(id, key, s.options.padding)
	call := s.history.Begin(*number, history.Write(key, id))
	var request synod.Request
	attempt := func(ctx context.Context, q synod.Request) ([]byte, error) {
		request = q
		one, cancel := sim.WithTimeout(ctx, time.Duration(1+r.Int64N(int64(election))))
		defer cancel()
		g := s.groups[at]
		if g == nil {
			at = 1 + r.Uint64N(s.options.nodes)
			return nil, &synod.NotLeaderError{Group: 1}
		}
		result, err := g.ProposeOnce(one, q, command)
		var elsewhere *synod.NotLeaderError
		if errors.As(err, &elsewhere) {
			at = elsewhere.Leader
		}
		if err != nil && (at == 0 || elsewhere == nil) {
			at = 1 + r.Uint64N(s.options.nodes)
		}
		for _, end := range []error{nil, synod.ErrUnknownOutcome, synod.ErrResultLost, synod.ErrSessionExpired, synod.ErrStaleRequest} {
			if errors.Is(err, end) {
				return result, err
			}
		}
		return nil, &synod.NotLeaderError{Group: 1} // not executed: another node may do it
	}
	old, err := session.Do(ctx, attempt)
	switch {
	case err == nil, errors.Is(err, synod.ErrResultLost):
		if s.appliedAt[id] == 0 {
			s.w.Failf("acknowledged after it was applied", "command %d was acknowledged (%v) and not applied", id, err)
		}
		s.acked = append(s.acked, id)
		if err != nil {
			*number += 100 // what it has read is not known
			return false
		}
		call.Return(binary.LittleEndian.Uint64(old))
		if r.IntN(4) == 0 {
			// As if a copy of it had been under way for a while.
			late := time.Duration(r.Int64N(int64(2 * election)))
			s.w.Go(func(ctx context.Context) {
				_ = sim.Sleep(ctx, late)
				if s.over {
					return
				}
				again, err := attempt(ctx, request)
				if err == nil && !slices.Equal(old, again) {
					s.w.Failf("a retry has the first result", "command %d was answered %x, and %x when it came again", id, old, again)
				}
			})
		}
		return false
	case errors.Is(err, synod.ErrUnknownOutcome):
		s.unknown++
		*number += 100
	default:
		if errors.Is(err, synod.ErrStaleRequest) {
			s.w.Failf("a floor is not raised too far", "command %d was not answered: %v", id, err)
		}
		call.Refused()
		s.refused[id] = true
		if s.appliedAt[id] != 0 {
			s.w.Failf("certainly not executed", "command %d was refused (%v) and applied at index %d", id, err, s.appliedAt[id])
		}
	}
	return errors.Is(err, synod.ErrSessionExpired)
}

// burst writes many commands at once to one node, whether or not it answers: what a
// leader that is cut off then has in its log, nobody else has.
func (s *run) burst(ctx context.Context) {
	r := s.w.Rand()
	for !s.over {
		_ = sim.Sleep(ctx, time.Duration(r.Int64N(int64(4*election))))
		at := s.leader()
		var session *replica.Session
		if g := s.groups[at]; g != nil && s.options.sessions > 0 && r.IntN(2) == 0 {
			short, cancel := sim.WithTimeout(ctx, election)
			session = s.session(short, g)
			cancel()
		}
		var joins []func(context.Context) error
		for range r.IntN(30) {
			_ = sim.Sleep(ctx, time.Duration(r.Int64N(int64(5*time.Millisecond))))
			g := s.groups[at]
			if g == nil {
				continue
			}
			joins = append(joins, s.w.Go(func(ctx context.Context) {
				short, cancel := sim.WithTimeout(ctx, election)
				defer cancel()
				number, key := 1_000_000, "burst-"+strconv.FormatUint(s.next, 10)
				if session != nil {
					s.writeOnce(short, &number, key, at, session)
				} else {
					s.write(short, &number, key, at, g)
				}
			}))
		}
		for _, join := range joins {
			_ = join(ctx)
		}
	}
}

// leader returns the node that leads, as far as the cores have shown; 0: none.
func (s *run) leader() uint64 { return s.invariants.rules.leader() }

// read returns the node to turn to next; 0: any.
func (s *run) read(ctx context.Context, number int, key string, at uint64, g group, m *machine) uint64 {
	call := s.history.Begin(number, history.Read(key))
	if err := g.Barrier(ctx); err != nil || s.groups[at] != g {
		call.Refused()
		return 0
	}
	s.barriers++
	call.Return(m.values[key])
	if s.w.Rand().IntN(4) == 0 {
		return 0 // followers are read from, too
	}
	return at
}

// write returns the node to turn to next; 0: any.
func (s *run) write(ctx context.Context, number *int, key string, at uint64, g group) uint64 {
	if s.hush {
		return at
	}
	s.next++
	id := s.next
	call := s.history.Begin(*number, history.Write(key, id))
	old, err := g.Propose(ctx, encodeWrite(id, key, s.options.padding))
	var elsewhere *synod.NotLeaderError
	switch {
	case err == nil:
		if s.appliedAt[id] == 0 {
			s.w.Failf("acknowledged after it was applied", "command %d was acknowledged and not applied", id)
		}
		call.Return(binary.LittleEndian.Uint64(old))
		s.acked = append(s.acked, id)
		return at
	case errors.Is(err, synod.ErrUnknownOutcome):
		s.unknown++
		*number += 100 // that call may still be under way
		return 0
	}
	call.Refused()
	s.refused[id] = true
	if s.appliedAt[id] != 0 {
		s.w.Failf("certainly not executed", "command %d was refused (%v) and applied at index %d", id, err, s.appliedAt[id])
	}
	if errors.As(err, &elsewhere) {
		return elsewhere.Leader
	}
	return 0
}

// identity is the key under which a node's store has who it is.
func forgetIdentity(d *sim.Disk) {
	var b storage.Batch
	b.Delete(replica.IdentityKey())
	d.Write(&b)
}

// Main implements Run.
func (s *run) Main(w *sim.World) {
	s.start(w)
	ctx := w.Context()
	var joins []func(context.Context) error
	for c := range s.options.clients {
		joins = append(joins, w.Go(func(ctx context.Context) { s.client(ctx, c) }))
	}
	for range s.options.bursts {
		joins = append(joins, w.Go(s.burst))
	}
	if s.options.operator {
		joins = append(joins, w.Go(s.operator))
	}
	// An old copy of a disk without its identity belongs to nobody, and the node must refuse
	// to start on it. One that has its identity can be recognised by those who know better,
	// if they can be reached: that is tried when all is whole, below. Where disks are damaged before all members have met
	// there need not be progress: a new group does not begin without all of them.
	atlas, certain := sim.Atlas{Damaged: s.engine.damaged(s), OldCopy: forgetIdentity, Target: s.leader, Drift: s.options.drift}, true
	switch w.Rand().IntN(3) {
	case 0:
		if !s.met(ctx) {
			return
		}
	case 1:
		if s.engine.more() && !s.options.operator {
			limit := s.dispensable(atlas)
			w.Go(func(ctx context.Context) { s.vanish(ctx, limit) })
		}
		atlas.Damaged = -1 // from the beginning, but for the disks
	default:
		certain = false // with those of nodes that others have not met
		hub := 1 + w.Rand().Uint64N(s.options.nodes)
		s.apart(hub, true)
		w.Go(func(ctx context.Context) {
			_ = sim.Sleep(ctx, time.Duration(w.Rand().Int64N(int64(trouble/2))))
			s.apart(hub, false)
		})
	}
	tempted := func(context.Context) error { return nil }
	if s.options.drift > 0 && s.options.nodes > 1 {
		tempted = w.Go(s.tempt)
	} else if s.engine.more() && s.options.nodes > 1 && w.Rand().IntN(4) > 0 {
		tempted = w.Go(s.rivals)
	}
	if s.engine.more() {
		w.Check("", func() error {
			if s.ambush != nil {
				s.ambush()
			}
			return nil
		})
	}
	w.Trouble(ctx, trouble, atlas)
	s.calm = true
	if err := tempted(ctx); err != nil {
		w.Fail(err)
		return
	}

	// Everything is whole now, but for a minority of damaged disks: there must be progress.
	whole := !slices.ContainsFunc(w.Nodes(), func(n *sim.Node) bool { return n.Damaged() != "" })
	certain = (certain || whole) && (!s.options.operator || s.able())
	healed, acked := w.Now(), len(s.acked)
	for len(s.acked) < acked+5 {
		_ = sim.Sleep(ctx, 10*time.Millisecond)
		if w.Now()-healed <= progress*election+20*s.options.think {
			continue
		}
		if certain {
			w.Failf("progress", "no five writes within %v after everything healed; the members are %+v", w.Now()-healed, s.invariants.latest())
			return
		}
		break
	}
	if certain && s.engine.more() {
		s.partial(ctx)
	}
	s.over = true
	for _, join := range joins {
		if err := join(ctx); err != nil {
			w.Fail(err)
			return
		}
	}
	// Every node catches up, and every acknowledged command is there.
	limit, cancel := sim.WithTimeout(ctx, progress*election)
	defer cancel()
	for _, n := range w.Nodes() {
		if n.Damaged() == sim.Flipped && certain && s.member(n.ID) && !s.repaired(limit, n) {
			continue
		} else if n.Damaged() != sim.Flipped && !s.sound(n.ID) || !s.member(n.ID) {
			continue
		}
		for s.groups[n.ID] == nil && limit.Err() == nil {
			_ = sim.Sleep(ctx, 10*time.Millisecond) // it may be about to be started again
		}
		g := s.groups[n.ID]
		if g == nil && !certain {
			continue
		}
		if g == nil {
			w.Failf("progress", "node %d: its group does not run: %v", n.ID, n.Err())
			return
		}
		err := g.Barrier(limit)
		if err != nil && !certain {
			continue
		}
		if err != nil {
			status := ""
			for _, id := range slices.Sorted(maps.Keys(s.groups)) {
				status += fmt.Sprintf("; node %d: %+v", id, s.groups[id].Status())
			}
			w.Failf("progress", "node %d does not catch up: %v%s", n.ID, errors.Join(err, g.Err()), status)
			return
		}
		m := s.machines[n.ID]
		for _, id := range s.acked {
			if at := s.appliedAt[id]; at == 0 || at > m.count {
				w.Failf("nothing acknowledged is lost", "command %d was acknowledged; node %d, up to index %d, does not have it", id, n.ID, m.count)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(m.values)) {
			s.history.Begin(0, history.Read(key)).Return(m.values[key])
		}
	}
	if certain {
		s.oldCopy(ctx)
	}
	if err := s.history.Check(time.Minute); err != nil {
		var v *history.Violation
		if errors.As(err, &v) {
			s.picture(v)
		}
		w.Failf("linearizable", "%w", err)
	}
}

// apart cuts all links but those of one node, or heals them.
func (s *run) apart(hub uint64, cut bool) {
	for a := uint64(1); a <= s.options.nodes; a++ {
		for b := uint64(1); b <= s.options.nodes; b++ {
			if a != b && a != hub && b != hub {
				s.w.Link(a, b).Cut = cut
			}
		}
	}
}

// met waits until all members take part.
func (s *run) met(ctx context.Context) bool {
	limit, cancel := sim.WithTimeout(ctx, progress*election)
	defer cancel()
	for id := uint64(1); id <= s.options.founders; id++ {
		for s.groups[id] == nil && limit.Err() == nil {
			_ = sim.Sleep(ctx, time.Millisecond)
		}
		if err := limit.Err(); err != nil || s.groups[id].Barrier(limit) != nil {
			s.w.Failf("progress", "node %d does not take part within %v of its start", id, progress*election)
			return false
		}
	}
	return true
}

func (s *run) picture(v *history.Violation) { saved(s.w, v.WritePicture) }

// Checked implements Run.
func (s *run) Checked() (histories, calls int) {
	if s.history == nil {
		return 0, 0
	}
	calls, _ = s.history.Len()
	return 1, calls
}
