package multipaxos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

// cluster runs bare cores on a network and on disks of its own, which a test or a seed
// rules, and watches what Paxos promises.
type cluster struct {
	t        testing.TB
	protocol Protocol
	nodes    map[uint64]*node
	order    []uint64
	network  []packet
	cut      map[[2]uint64]bool

	voted    map[string]bool   // by node, slot and ballot: durable
	chosen   map[uint64]string // by slot, as anybody handed it out
	terms    map[uint64]uint64
	proposed map[string]string // by ballot and slot
	decided  uint64            // the highest slot that a leader has taken for decided
	leases   bool
	attempts uint64
	reads    map[replica.ReadID]uint64 // the least index that is right
	readDone int
	options  func(*replica.OpenOptions)
	trace    func(format string, args ...any)
}

type packet struct {
	from, to uint64
	body     []byte
}

type node struct {
	c        *cluster
	id       uint64
	keys     replica.Keys
	store    storage.Store
	core     *Core
	queue    []queued
	applied  replica.Position
	config   []byte
	kept     replica.SnapshotMeta // durable
	incoming replica.SnapshotMeta
	lost     map[string]uint64 // values that were said to be lost, by content, with the slot that said so
	mine     map[string]uint64 // values that this node proposed, with the round
	promise  Ballot            // that was told
	leader   uint64
	leading  bool
	ticks    int    // of this run
	heard    int    // the tick in which a leader was followed last; -1: none was
	checked  uint64 // the last slot whose votes were counted
	of       Ballot
	held     uint64 // the most that it ever knew to be decided
	before   Ballot // promised before this run
}

type queued struct {
	batch   storage.Batch
	token   uint64
	restore *replica.SnapshotMeta
}

func members(voters ...uint64) replica.Configuration {
	var list []synod.Member
	for _, v := range voters {
		list = append(list, synod.Member{Node: v})
	}
	return replica.NewConfiguration(list)
}

func newCluster(t testing.TB, p Protocol, voters int, more int) *cluster {
	c := &cluster{t: t, protocol: p, nodes: map[uint64]*node{}, cut: map[[2]uint64]bool{}, voted: map[string]bool{}, chosen: map[uint64]string{}, terms: map[uint64]uint64{},
		proposed: map[string]string{}, reads: map[replica.ReadID]uint64{}, trace: func(string, ...any) {}}
	if *verbose {
		c.trace = func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	}
	var ids []uint64
	for i := range uint64(voters) {
		ids = append(ids, i+1)
	}
	conf := members(ids...).Append(nil)
	for i := range uint64(voters + more) {
		n := &node{c: c, id: i + 1, keys: replica.GroupKeys(7), store: memory.Open(memory.Config{}), lost: map[string]uint64{}, mine: map[string]uint64{}}
		var b storage.Batch
		if i < uint64(voters) {
			require.NoError(t, p.Bootstrap(n.keys, conf, &b))
		} else {
			require.NoError(t, p.Join(n.keys, n.store, &b))
		}
		require.NoError(t, n.store.Commit(&b))
		c.nodes[n.id] = n
		c.order = append(c.order, n.id)
	}
	return c
}

func (c *cluster) start() {
	for _, id := range c.order {
		c.nodes[id].open()
	}
}

func (n *node) open() {
	start, config, err := n.c.protocol.Start(n.keys, n.store)
	require.NoError(n.c.t, err)
	if n.kept.Index >= start.Index && n.kept.Index > 0 {
		start, config = n.kept.Position, n.kept.Config
	}
	o := replica.OpenOptions{Node: n.id, Keys: n.keys, Store: n.store, Start: start, Config: config, ElectionTicks: 10, HeartbeatTicks: 1, Leases: n.c.leases,
		MessageBytes: 200, InflightBytes: 1000, PendingBytes: 4000, ApplyBytes: 300, CacheBytes: 500}
	if n.c.options != nil {
		n.c.options(&o)
	}
	core, err := n.c.protocol.Open(o)
	require.NoError(n.c.t, err)
	n.core = core.(*Core)
	n.c.trace("open %d at %d: %+v", n.id, start.Index, n.core.View())
	n.queue, n.applied, n.config = nil, start, config
	n.ticks, n.heard, n.before = 0, -1, n.core.durable
	n.vote(0)
	n.lost, n.mine = map[string]uint64{}, map[string]uint64{}
	n.leader, n.leading = 0, false
	if n.kept.Index > 0 {
		n.core.SnapshotAvailable(n.kept)
	}
	n.ready()
}

func (n *node) crash() {
	n.c.trace("crash %d, %d batches lost", n.id, len(n.queue))
	n.core, n.queue = nil, nil
}

func content(e replica.Entry) string { return fmt.Sprintf("%d:%s", e.Kind, e.Data) }

// ready does what a runtime does.
func (n *node) ready() {
	c := n.c
	for n.core != nil {
		var out replica.Output
		q := queued{}
		out.Batch = &q.batch
		if !n.core.Ready(&out) {
			return
		}
		q.token = out.Token
		n.leader, n.leading = out.Leader, out.Leading
		if out.Restore != nil {
			require.Equal(c.t, n.incoming.Position, *out.Restore)
			meta := n.incoming
			q.restore = &meta
		}
		n.held = max(n.held, n.core.held)
		if out.Leading {
			n.checkDecided()
			c.decided = max(c.decided, out.Decided)
		}
		if q.batch.Len() > 0 || q.token != 0 {
			n.queue = append(n.queue, q)
		}
		for _, e := range out.Committed {
			require.Equal(c.t, n.applied.Index+1, e.Index, "node %d hands out in order", n.id)
			value := content(e)
			c.trace("node %d takes slot %d for %s", n.id, e.Index, value)
			if before, ok := c.chosen[e.Index]; ok {
				require.Equal(c.t, before, value, "one value is chosen in slot %d (node %d)", e.Index, n.id)
				require.Equal(c.t, c.terms[e.Index], e.Term, "one term in slot %d", e.Index)
			}
			c.chosen[e.Index], c.terms[e.Index] = value, e.Term
			require.GreaterOrEqual(c.t, e.Term, n.applied.Term)
			if e.Kind == replica.EntryCommand {
				if slot, ok := n.lost[value]; ok {
					c.t.Fatalf("node %d was told at slot %d that %q is lost, and it is decided at %d", n.id, slot, value, e.Index)
				}
				delete(n.mine, value)
			}
			for value, round := range n.mine {
				if round < e.Fence {
					n.lost[value] = e.Index
					delete(n.mine, value)
				}
			}
			if e.Kind == replica.EntryConfig {
				n.config = e.Data
			}
			n.applied = replica.Position{Index: e.Index, Term: e.Term, Commands: n.applied.Commands + 1}
		}
		if len(out.Committed) > 0 {
			n.core.Applied(n.applied.Index)
		}
		for _, m := range out.Messages {
			n.checkMessage(m.To, m.Head, m.Tail)
			c.network = append(c.network, packet{n.id, m.To, append(slices.Clone(m.Head), m.Tail...)})
		}
		for _, s := range out.Snapshots {
			to := c.nodes[s.To]
			ok := to != nil && to.core != nil && !c.cut[[2]uint64{n.id, s.To}] && s.Index == n.kept.Index
			if ok {
				to.incoming = n.kept
				require.NoError(c.t, to.core.Step(n.id, s.Message, len(s.Message)))
				to.ready()
			}
			n.core.SnapshotSent(s.To, ok)
		}
		if out.WantSnapshot && n.core.restoring == 0 {
			n.snapshot()
		}
		for _, r := range out.Reads {
			if least, ok := c.reads[r.ID]; ok {
				require.GreaterOrEqual(c.t, r.Index, least, "a read at node %d misses what was decided before it began", n.id)
				delete(c.reads, r.ID)
				c.readDone++
			}
		}
		require.False(c.t, n.core.promised.Less(n.promise), "promises do not fall")
		n.promise = n.core.durable
	}
}

// snapshot makes a durable snapshot of what is applied.
func (n *node) snapshot() {
	if n.applied.Index == 0 || n.applied.Index < n.kept.Index {
		return
	}
	n.kept = replica.SnapshotMeta{Position: n.applied, Config: n.config, Held: n.applied.Commands}
	n.core.SnapshotAvailable(n.kept)
}

func (n *node) compact(to uint64) {
	if n.core.restoring != 0 || n.kept.Index == 0 || to < n.kept.Index {
		return
	}
	q := queued{}
	n.core.Compact(n.kept.Position, n.kept.Config, &q.batch)
	n.queue = append(n.queue, q)
}

// persist makes the oldest batch durable.
func (n *node) persist() bool {
	if len(n.queue) == 0 {
		return false
	}
	q := n.queue[0]
	n.queue = n.queue[1:]
	require.NoError(n.c.t, n.store.Commit(&q.batch))
	if q.restore != nil {
		n.kept = *q.restore
		n.applied, n.config = n.kept.Position, n.kept.Config
	}
	if q.token != 0 {
		n.core.Persisted(q.token)
		n.vote(q.token)
		if q.restore != nil {
			n.core.Applied(n.applied.Index)
		}
	}
	n.ready()
	return true
}

func (c *cluster) deliver(i int, again bool) {
	p := c.network[i]
	if !again {
		c.network = slices.Delete(c.network, i, i+1)
	}
	n := c.nodes[p.to]
	if n == nil || n.core == nil || c.cut[[2]uint64{p.from, p.to}] {
		return
	}
	c.trace("%d>%d %s", p.from, p.to, Describe(7, p.from, p.body))
	require.NoError(c.t, n.core.Step(p.from, slices.Clone(p.body), len(p.body)))
	if m, err := decodeMessage(7, p.from, p.body); err == nil && (m.kind == kindAccept || m.kind == kindHeartbeat) && n.core.leader == m.ballot {
		n.heard = n.ticks
	}
	n.ready()
}

// vote notes what a node has accepted durably.
func (n *node) vote(token uint64) {
	for _, s := range n.core.log.spans {
		for slot := s.first; slot <= s.last && s.rec.token == token; slot++ {
			if !s.rec.bad {
				n.c.voted[fmt.Sprint(n.id, "/", slot, "/", s.rec.ballot)] = true
			}
		}
	}
}

// checkDecided holds what a leader takes for decided against the votes.
func (n *node) checkDecided() {
	k := n.core
	if n.of != k.ballot {
		n.of, n.checked = k.ballot, k.base
	}
	n.checked = max(n.checked, k.base)
	for slot := n.checked + 1; slot <= k.decided; slot++ {
		var mask, all uint64
		for _, id := range n.c.order {
			all |= k.voters.bit(id)
			o := n.c.nodes[id]
			if n.c.voted[fmt.Sprint(id, "/", slot, "/", k.ballot)] || o != n && o.held >= slot || o.kept.Index >= slot {
				mask |= k.voters.bit(id)
			}
		}
		if s := k.log.find(slot); slot > k.confSlot && (s == nil || !s.rec.ballot.isChosen()) {
			require.True(n.c.t, k.voters.phase2(mask), "slot %d is decided in ballot %v by votes %b of %b", slot, k.ballot, mask, all)
		}
	}
	n.checked = max(n.checked, k.decided)
}

// checkMessage holds what leaves against what is durable, and against leases.
func (n *node) checkMessage(to uint64, head, tail []byte) {
	m, err := decodeMessage(7, n.id, append(slices.Clone(head), tail...))
	require.NoError(n.c.t, err)
	switch m.kind {
	case kindPromise, kindPrepare:
		hard, err := readHard(n.keys, n.store)
		require.NoError(n.c.t, err)
		require.False(n.c.t, hard.promised.Less(m.ballot), "node %d promises %v and has %v on its disk", n.id, m.ballot, hard.promised)
		if n.c.leases && n.core.durable == m.ballot && m.kind == kindPromise && m.from == n.core.held+1 && !n.core.alone() {
			require.True(n.c.t, n.before == m.ballot || n.core.leader == m.ballot || n.ticks >= n.core.electionTicks, "node %d promises though it may have forgotten a lease", n.id)
			require.True(n.c.t, n.heard < 0 || n.ticks-n.heard >= n.core.electionTicks || n.core.leader == m.ballot, "node %d promises though it has heard a leader", n.id)
		}
	}
}

// settle delivers and persists until nothing is left.
func (c *cluster) settle() {
	for range 100000 {
		for range len(c.network) {
			c.deliver(0, false)
		}
		busy := len(c.network) > 0
		for _, id := range c.order {
			n := c.nodes[id]
			busy = n.core != nil && n.persist() || busy
		}
		if !busy {
			return
		}
	}
	for range 40 {
		if len(c.network) > 0 {
			p := c.network[0]
			c.t.Logf("%d>%d %s", p.from, p.to, Describe(7, p.from, p.body))
			c.deliver(0, false)
		} else {
			for _, id := range c.order {
				if n := c.nodes[id]; n.core != nil && n.persist() {
					c.t.Logf("persist at %d", id)
				}
			}
		}
	}
	c.t.Fatal("it does not settle")
}

func (c *cluster) tick(ids ...uint64) {
	if len(ids) == 0 {
		ids = c.order
	}
	for _, id := range ids {
		if n := c.nodes[id]; n.core != nil {
			n.ticks++
			n.core.Tick()
			n.ready()
		}
	}
}

func (c *cluster) leader() *node {
	var best *node
	for _, id := range c.order {
		if n := c.nodes[id]; n.core != nil && n.leading && (best == nil || best.core.promised.Less(n.core.promised)) {
			best = n
		}
	}
	return best
}

// elect ticks until somebody leads and can be read from.
func (c *cluster) elect() *node {
	for range 200 {
		c.settle()
		if n := c.leader(); n != nil && n.core.fenced && n.core.decided >= n.core.fenceSlot {
			return n
		}
		c.tick()
	}
	for _, id := range c.order {
		c.debug(c.nodes[id])
	}
	c.t.Fatal("nobody leads")
	return nil
}

func (n *node) propose(data string) error {
	err := n.core.Propose([]byte(data))
	if err == nil {
		n.mine[fmt.Sprintf("%d:%s", replica.EntryCommand, data)] = n.core.promised.Round
	}
	n.ready()
	return err
}

func (n *node) read() {
	n.c.attempts++
	id := replica.ReadID{Boot: n.id, Attempt: n.c.attempts}
	n.c.reads[id] = n.c.decided
	n.core.Read(id)
	n.ready()
}

func TestOneNode(t *testing.T) {
	c := newCluster(t, Protocol{}, 1, 0)
	c.start()
	c.nodes[1].core.Campaign()
	c.nodes[1].ready()
	n := c.elect()
	require.NoError(t, n.propose("a"))
	c.settle()
	require.Equal(t, "1:a", c.chosen[3])
	n.read()
	require.Equal(t, 1, c.readDone)
}

func TestThreeNodes(t *testing.T) {
	c := newCluster(t, Protocol{}, 3, 0)
	c.start()
	n := c.elect()
	for i := range 20 {
		require.NoError(t, n.propose(fmt.Sprint("v", i)))
	}
	c.settle()
	c.tick()
	c.settle()
	for _, n := range c.nodes {
		require.EqualValues(t, 22, n.applied.Index)
		n.read()
	}
	c.settle()
	require.Equal(t, 3, c.readDone)
}

// random runs a cluster on random inputs and faults, and asks at the end for progress.
func random(t testing.TB, seed uint64, p Protocol, voters, spare int, steps int) *cluster {
	r := rand.New(rand.NewPCG(seed, 1))
	c := newCluster(t, p, voters, spare)
	c.leases = seed%3 == 0
	c.start()
	ids := c.order
	pick := func() *node { return c.nodes[ids[r.IntN(len(ids))]] }
	values := 0
	lossy := r.IntN(10)
	victim := uint64(0) // whose disk forgets
	if voters >= 3 && spare == 0 && p.Quorums.hash() == 0 && seed%2 == 1 {
		victim = 1 + seed/2%uint64(voters)
	}
	slow := r.IntN(4)
	for step := range steps {
		n := pick()
		switch k := r.IntN(100); {
		case k < 50 && len(c.network) > 0:
			i := 0
			if r.IntN(4) == 0 {
				i = r.IntN(len(c.network))
			}
			if r.IntN(100) < lossy {
				c.network = slices.Delete(c.network, i, i+1)
				continue
			}
			c.deliver(i, r.IntN(20) == 0)
		case k < 70:
			if n.core != nil && (slow == 0 || r.IntN(slow) == 0) {
				n.persist()
			}
		case k < 82:
			c.tick(n.id)
		case k < 91:
			if n.core != nil {
				values++
				_ = n.propose(fmt.Sprint("v", values))
			}
		case k < 93:
			if n.core != nil {
				n.read()
			}
		case k < 94 && r.IntN(4) == 0:
			if n.core != nil {
				n.crash()
			}
		case k < 96:
			if n.core == nil {
				if n.id == victim {
					n.damage(r)
				}
				n.open()
			}
		case k < 97 && r.IntN(8) == 0:
			if len(c.cut) > 0 {
				clear(c.cut)
				continue
			}
			for _, a := range ids {
				for _, b := range ids {
					if a != b && r.IntN(3) == 0 {
						c.cut[[2]uint64{a, b}] = true
					}
				}
			}
		case k < 98:
			if n.core != nil && r.IntN(3) == 0 {
				n.snapshot()
				if r.IntN(2) == 0 {
					n.compact(n.applied.Index)
				}
				n.ready()
			}
		case k < 99 && r.IntN(4) == 0:
			if l := c.leader(); l != nil && !c.leases {
				l.core.Transfer(n.id)
				l.ready()
			}
		case k < 100 && spare > 0 && (seed%2 == 0 || r.IntN(4) == 0):
			if l := c.leader(); l != nil {
				c.reconfigure(l, r)
			}
		}
		if step%64 == 0 {
			c.check()
		}
	}
	// All is well from here on.
	clear(c.cut)
	for _, id := range ids {
		if c.nodes[id].core == nil {
			c.nodes[id].open()
		}
	}
	for range 60 {
		c.settle()
		c.tick()
	}
	l := c.elect()
	require.NoError(t, l.propose("the end"))
	for range 30 {
		c.settle()
		c.tick()
	}
	c.check()
	l = c.elect()
	require.Contains(t, mapValues(c.chosen), "1:the end")
	for _, m := range l.core.conf.Members {
		if n := c.nodes[m.Node]; n.applied != l.applied {
			c.debug(l, n)
		}
		require.Equal(t, l.applied.Index, c.nodes[m.Node].applied.Index, "node %d has all", m.Node)
	}
	return c
}

func mapValues(m map[uint64]string) []string {
	var list []string
	for _, v := range m {
		list = append(list, v)
	}
	sort.Strings(list)
	return list
}

// reconfigure takes a random step from the leader's configuration.
func (c *cluster) reconfigure(l *node, r *rand.Rand) {
	next := l.core.conf.Clone()
	switch {
	case next.Joint():
		for i := range next.Members {
			next.Members[i].Outgoing = false
		}
		next.Members = slices.DeleteFunc(next.Members, func(p replica.Participant) bool { return !p.Voter && !p.Learner })
	case r.IntN(2) == 0:
		node := c.order[r.IntN(len(c.order))]
		p, is := next.Find(node)
		switch {
		case !is:
			next.Members = append(next.Members, replica.Participant{Member: synod.Member{Node: node, Learner: true}})
			slices.SortFunc(next.Members, func(a, b replica.Participant) int { return int(a.Node) - int(b.Node) })
		case p.Learner:
			next.Members = slices.DeleteFunc(next.Members, func(p replica.Participant) bool { return p.Node == node })
		}
	default:
		voters := 0
		for i := range next.Members {
			p := &next.Members[i]
			p.Outgoing = p.Voter
			if r.IntN(2) == 0 {
				p.Voter = !p.Voter
				if p.Voter {
					p.Learner = false
				}
			}
			if p.Voter {
				voters++
			}
		}
		if voters == 0 {
			return
		}
	}
	_ = l.core.Reconfigure(next.Append(nil))
	l.ready()
}

// check holds the stores against what Paxos promises.
func (c *cluster) check() {
	for _, id := range c.order {
		n := c.nodes[id]
		if n.core == nil {
			continue
		}
		v := n.core.View()
		for _, a := range v.Accepted {
			if a.Chosen {
				continue
			}
			key := fmt.Sprintf("%v/%d", a.Ballot, a.Slot)
			value := fmt.Sprintf("%x", a.Hash)
			if before, ok := c.proposed[key]; ok && a.Slot > v.Held {
				require.Equal(c.t, before, value, "one value for ballot and slot %s", key)
			}
			c.proposed[key] = value
		}
	}
}

func (c *cluster) debug(nodes ...*node) {
	f, ok := c.t.(*failure)
	if !ok {
		return
	}
	for _, x := range nodes {
		v := x.core.View()
		f.text += fmt.Sprintf("node %d: %+v floor %d start %d lost %v restoring %d handed %d applied %d applying %d kept %d conf %v peers %+v promises %+v recovered %+v\n", x.id, v, x.core.floor, x.core.log.start.Index, x.core.lost, x.core.restoring, x.core.handed, x.applied.Index, x.core.applyingBytes, x.kept.Index, x.core.conf, x.core.peers, x.core.promises, x.core.recovered)
	}
}

// damage flips a bit in a run of values, or loses one.
func (n *node) damage(r *rand.Rand) {
	from, to := n.keys.ProtocolRange(tagRun)
	it, err := n.store.Scan(from, to)
	require.NoError(n.c.t, err)
	keys, values, err := storage.Collect(it)
	require.NoError(n.c.t, err)
	if len(keys) == 0 {
		return
	}
	i := r.IntN(len(keys))
	var b storage.Batch
	if r.IntN(2) == 0 {
		b.Delete(keys[i])
	} else {
		values[i][r.IntN(len(values[i]))] ^= 1 << r.IntN(8)
		b.Set(keys[i], values[i])
	}
	n.c.trace("damage %d: %x", n.id, keys[i])
	require.NoError(n.c.t, n.store.Commit(&b))
}
