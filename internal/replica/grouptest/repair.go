package grouptest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

var repairRules = []rule{
	{"damaged or missing records of the log come again from a peer", testRepairLog},
	{"a damaged or missing snapshot comes again from a peer", testRepairSnapshot},
	{"a damaged checkpoint of sessions is replaced by a snapshot", testRepairCheckpoint},
	{"the data of a state machine that keeps them itself, if they are lost, come again from a peer", testRepairMachine},
	{"entries that all peers have compacted away are replaced by a snapshot that covers them", testRepairCompacted},
	{"entries that nobody else has are replaced by the node's own snapshot, if that covers them", testRepairOwnSnapshot},
	{"a replica that nobody can help does not open, names what is damaged, and changes nothing", testRepairAlone},
	{"a repair goes on after the peer that helps has restarted", testRepairHelperRestarts},
	{"replicas that are all damaged, each elsewhere, help each other", testRepairAll},
	{"what does not fit, or is altered, is not taken in a repair", testRepairLies},
	{"a request for a repair that is malformed, or a stranger's, has no effect", testRepairRequests},
	{"a repair takes nothing from members that were given up", testRepairGivenUp},
	{"a repair takes nothing from an incarnation that the group has not admitted", testRepairUnadmitted},
}

// Kinds of frames, as they stand in a frame's second byte: what cores say is 1, chunks of
// snapshots are 2, the answer that a member was removed is 8, a repair's questions and answers the last ones.
const (
	chunkKind = 2
	goneKind  = 8
	needKind  = 9
	giveKind  = 10
)

// logRecords returns a group's log: of the protocol's records, those of which there are most.
func (c *cluster) logRecords(node, group uint64) []record {
	c.Helper()
	records, err := c.disks[node].records()
	require.NoError(c, err)
	kinds := make(map[byte][]record)
	var most []record
	for _, r := range records {
		if r.key[0] == 'g' && binary.BigEndian.Uint64(r.key[1:]) == group && r.key[9] == 'x' {
			kinds[r.key[10]] = append(kinds[r.key[10]], r)
		}
	}
	for _, list := range kinds {
		if len(list) > len(most) {
			most = list
		}
	}
	return most
}

// records returns the group's records of a kind.
func (c *cluster) recordsOf(node, group uint64, kind string) (list []record) {
	c.Helper()
	records, err := c.disks[node].records()
	require.NoError(c, err)
	for _, r := range records {
		if r.key[0] == 'g' && binary.BigEndian.Uint64(r.key[1:]) == group && recordKind(r.key) == kind {
			list = append(list, r)
		}
	}
	return list
}

// stopWithLog stops a node when its log has so many records at least, and returns them.
func (c *cluster) stopWithLog(node, group uint64, least int) []record {
	c.Helper()
	for len(c.logRecords(node, group)) < least { // it gets many entries at once if it was behind
		c.writes(group, 1, 5)
	}
	c.check(group)
	c.stop(node)
	return c.logRecords(node, group)
}

// A damage is done to some records.
type damage struct {
	name string
	do   func(b *storage.Batch, r record)
}

var damages = []damage{
	{"flipped", func(b *storage.Batch, r record) {
		value := bytes.Clone(r.value)
		value[len(value)/2] ^= 4
		b.Set(r.key, value)
	}},
	{"cut", func(b *storage.Batch, r record) { b.Set(r.key, r.value[:len(r.value)/2]) }},
	{"deleted", func(b *storage.Batch, r record) { b.Delete(r.key) }},
}

func (c *cluster) damage(node uint64, d damage, records ...record) {
	c.Helper()
	var b storage.Batch
	for _, r := range records {
		d.do(&b, r)
	}
	require.NotZero(c, b.Len())
	require.NoError(c, c.disks[node].Commit(&b))
}

// tryGroup starts a group, but does not wait longer than ctx.
func (m *member) tryGroup(ctx context.Context, group uint64) error {
	machine, sm := m.cluster.newMachine(m.id, group)
	cfg := replica.GroupConfig{ID: group, StateMachine: sm}
	if fn := m.cluster.options.group; fn != nil {
		fn(&cfg)
	}
	g, err := m.node.StartGroup(ctx, cfg)
	if err != nil {
		machine.close()
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.groups[group], m.machines[group] = g, machine
	return nil
}

func testRepairLog(t *testing.T, engine Engine) {
	for _, k := range []kind{plain, durable} {
		c := newCluster(t, engine, options{kind: k, config: func(c *replica.Settings) { c.MaxBatchBytes = 256 }})
		c.writes(1, 1, 40)
		victim := c.others(c.leader(1))[0].id
		for _, d := range damages {
			for _, which := range []struct {
				name string
				of   func(n int) (first, last int)
			}{
				{"head", func(int) (int, int) { return 0, 0 }},
				{"middle", func(n int) (int, int) { return n / 3, n / 2 }},
				{"tail", func(n int) (int, int) { return n - 1, n - 1 }},
				{"all", func(n int) (int, int) { return 0, n - 1 }},
			} {
				what := d.name + ", " + which.name
				log := c.stopWithLog(victim, 1, 10)
				first, last := which.of(len(log))
				c.damage(victim, d, log[first:last+1]...)
				c.writes(1, 1, 2)
				m, err := c.open(victim, nil)
				require.NoError(t, err)
				require.NoError(t, m.startGroup(1), what)
				e := m.awaitKind(0, synod.EventRepaired, 1)
				require.NotZero(t, e.Peer)
				require.NotZero(t, e.First, what)
				require.LessOrEqual(t, e.First, e.Index)
				c.check(1)
			}
		}
	}
}

func testRepairSnapshot(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{group: compacting, machine: large})
	c.writes(1, 1, 150)
	victim := c.others(c.leader(1))[0].id
	c.member(victim).awaitKind(0, synod.EventSnapshotTaken, 1)
	for _, kind := range []string{"chunk", "snapshot"} {
		for _, d := range damages {
			c.check(1)
			c.stop(victim)
			list := c.recordsOf(victim, 1, kind)
			require.NotEmpty(t, list)
			if d.name == "deleted" || kind == "chunk" && len(list) > 2 {
				c.damage(victim, d, list...) // of an older snapshot they are nobody's
			} else {
				c.damage(victim, d, list[0])
			}
			m, err := c.open(victim, nil)
			require.NoError(t, err)
			require.NoError(t, m.startGroup(1), "%s, %s", kind, d.name)
			e := m.awaitKind(0, synod.EventRepaired, 1)
			require.Zero(t, e.First)
			require.NotZero(t, e.Peer)
			c.check(1)
			c.writes(1, 1, 5)
		}
	}
}

func testRepairCheckpoint(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{kind: durable, group: compacting})
	victim := c.others(c.leader(1))[0].id
	for _, d := range damages[:2] {
		for len(c.recordsOf(victim, 1, "checkpoint")) == 0 {
			c.writes(1, 1, 50)
			c.check(1)
		}
		c.stop(victim)
		list := c.recordsOf(victim, 1, "checkpoint")
		c.damage(victim, d, list...)
		m, err := c.open(victim, nil)
		require.NoError(t, err)
		require.NoError(t, m.startGroup(1), d.name)
		require.Zero(t, m.awaitKind(0, synod.EventRepaired, 1).First)
		c.check(1)
	}
}

func testRepairMachine(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{kind: durable, group: compacting})
	victim := c.others(c.leader(1))[0].id
	for _, rest := range []int{0, 1} {
		c.eventually("the log is cut", func() bool {
			c.writes(1, 1, 20)
			c.check(1)
			return c.member(victim).group(1).Status().First > 30
		})
		require.NoError(t, c.member(victim).closeGroup(1))
		c.stop(victim)
		place := link{victim, 1}
		c.machineDisks[place] = &machineDisk{commands: c.machineDisks[place].load()[:rest]}
		// Alone it is refused, and changes nothing.
		before, err := c.disks[victim].records()
		require.NoError(t, err)
		c.network.isolate(victim)
		m, err := c.open(victim, nil)
		require.NoError(t, err)
		err = m.startGroup(1)
		require.ErrorIs(t, err, storage.ErrCorrupt)
		require.ErrorContains(t, err, "lost")
		after, err := c.disks[victim].records()
		require.NoError(t, err)
		requireKept(t, before, after, 1, "nobody could help")
		c.network.healAll()
		require.NoError(t, m.startGroup(1))
		e := m.awaitKind(0, synod.EventRepaired, 1)
		require.Zero(t, e.First)
		require.NotEqual(t, victim, e.Peer)
		c.check(1)
		c.crash(victim)
		c.restart(victim)
		c.check(1)
	}
}

func testRepairCompacted(t *testing.T, engine Engine) {
	for _, k := range []kind{plain, durable} {
		c := newCluster(t, engine, options{kind: k, group: compacting, machine: large})
		victim := c.others(c.leader(1))[0].id
		for _, d := range damages {
			for len(c.logRecords(victim, 1)) <= 3 { // it may just have installed a snapshot, or cut its log
				c.writes(1, 1, 5)
				c.check(1)
			}
			c.leaveBehind(victim)
			log := c.logRecords(victim, 1)
			c.damage(victim, d, log[len(log)/2])
			m, err := c.open(victim, nil)
			require.NoError(t, err)
			require.NoError(t, m.startGroup(1), d.name)
			e := m.awaitKind(0, synod.EventRepaired, 1)
			require.Zero(t, e.First)
			c.check(1)
		}
	}
}

func testRepairOwnSnapshot(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1, group: compacting})
	c.writes(1, 1, 100)
	c.member(1).awaitKind(0, synod.EventLogCompacted, 1)
	for _, d := range damages {
		for s := c.member(1).group(1).Status(); s.Snapshot < s.First+10; s = c.member(1).group(1).Status() {
			c.writes(1, 1, 10)
		}
		c.stop(1)
		log := c.logRecords(1, 1)
		require.Greater(t, len(log), 10)
		c.damage(1, d, log[1])
		m, err := c.open(1, nil)
		require.NoError(t, err)
		require.NoError(t, m.startGroup(1), d.name)
		e := m.awaitKind(0, synod.EventRepaired, 1)
		require.Zero(t, e.First)
		require.Equal(t, uint64(1), e.Peer)
		c.writes(1, 1, 100)
		c.check(1)
		// What no snapshot covers, nobody has. The next one is not due.
		c.eventually("entries follow the snapshot", func() bool {
			c.writes(1, 1, 5)
			s := m.group(1).Status()
			return s.Snapshot+5 < s.Last && s.Last < s.Snapshot+30
		})
		c.stop(1)
		log = c.logRecords(1, 1)
		last := log[len(log)-1]
		c.damage(1, d, last)
		m, err = c.open(1, nil)
		require.NoError(t, err)
		require.ErrorIs(t, m.startGroup(1), storage.ErrCorrupt)
		c.stop(1)
		c.damage(1, damage{"mended", func(b *storage.Batch, r record) { b.Set(r.key, r.value) }}, last)
		c.restart(1)
		c.check(1)
	}
}

func testRepairAlone(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{groups: 2})
	c.writes(1, 1, 20)
	c.writes(2, 1, 3)
	victim := c.others(c.leader(1))[0].id
	c.check(2)
	log := c.stopWithLog(victim, 1, 10)
	bad := log[len(log)/2]
	c.damage(victim, damages[0], bad)
	before, err := c.disks[victim].records()
	require.NoError(t, err)
	var asked atomic.Int64
	c.network.setRule(func(p packet) fate {
		if p.payload[1] == needKind {
			asked.Add(1)
			return fate{drop: true}
		}
		return fate{}
	})
	m, err := c.open(victim, nil)
	require.NoError(t, err)
	started := background(func() error { return m.tryGroup(c.ctx, 1) })
	// The node's other group is not held up.
	require.NoError(t, m.startGroup(2))
	require.NoError(t, m.group(2).Barrier(c.ctx))
	err = receive(c, started, "the end of the repair")
	var corrupt *storage.CorruptError
	require.ErrorAs(t, err, &corrupt)
	require.ErrorIs(t, err, storage.ErrCorrupt)
	require.Equal(t, uint64(1), corrupt.Group)
	require.Equal(t, bad.key, corrupt.Key)
	require.ErrorContains(t, err, "no peer could help")
	require.Greater(t, asked.Load(), int64(3), "each peer more than once")
	// Nor does it take longer than its caller wants, nor keep the node from closing.
	short, cancel := context.WithTimeout(c.ctx, heartbeat)
	defer cancel()
	err = m.tryGroup(short, 1)
	require.ErrorIs(t, err, storage.ErrCorrupt)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	asked.Store(0)
	started = background(func() error { return m.tryGroup(c.ctx, 1) })
	require.Eventually(t, func() bool { return asked.Load() > 0 }, patience, heartbeat)
	c.stop(victim)
	require.ErrorIs(t, receive(c, started, "the end of the repair that the node's end ends"), synod.ErrClosed)
	after, err := c.disks[victim].records()
	require.NoError(t, err)
	requireKept(t, before, after, 1, "nobody could help")
	// When somebody can, it comes back.
	c.network.healAll()
	c.restart(victim)
	c.check(1)
	c.check(2)
}

func testRepairHelperRestarts(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{config: func(c *replica.Settings) { c.MaxBatchBytes = 256 }})
	c.writes(1, 1, 40)
	l := c.leader(1)
	victim, other := c.others(l)[0].id, c.others(l)[1].id
	log := c.stopWithLog(victim, 1, 40)
	c.stop(other)
	c.damage(victim, damages[2], log[5:30]...)
	given := make(chan struct{}, 100)
	n := 0
	c.network.setRule(func(p packet) fate {
		if p.payload[1] != giveKind {
			return fate{}
		}
		if n++; n > 2 {
			given <- struct{}{}
			return fate{drop: true}
		}
		return fate{}
	})
	m, err := c.open(victim, nil)
	require.NoError(t, err)
	started := background(func() error { return m.tryGroup(c.ctx, 1) })
	receive(c, given, "the third answer")
	c.crash(l.id)
	c.network.healAll()
	c.restart(l.id)
	require.NoError(t, receive(c, started, "the repair"))
	require.Equal(t, l.id, m.awaitKind(0, synod.EventRepaired, 1).Peer)
	c.restart(other)
	c.check(1)
}

func testRepairAll(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 1, 40)
	for _, d := range damages[:2] {
		c.check(1)
		for _, id := range c.ids() {
			c.stop(id)
		}
		for i, id := range c.ids() {
			log := c.logRecords(id, 1)
			require.Greater(t, len(log), 12)
			c.damage(id, d, log[3*i+2], log[len(log)-2-3*i])
		}
		var starts []<-chan error
		for _, id := range c.ids() {
			m, err := c.open(id, nil)
			require.NoError(t, err)
			starts = append(starts, background(func() error { return m.tryGroup(c.ctx, 1) }))
		}
		for i, started := range starts {
			if err := receive(c, started, "a repair"); err != nil {
				// Whoever could help was not there yet, or is not there any more: those that run can.
				require.ErrorIs(t, err, storage.ErrCorrupt)
				c.eventually("the rest is repaired", func() bool { return c.member(uint64(i+1)).tryGroup(c.ctx, 1) == nil })
			}
		}
		for _, m := range c.running() {
			m.awaitKind(0, synod.EventRepaired, 1)
		}
		c.writes(1, 1, 10)
		c.check(1)
	}
}

// body returns where the message of a frame with one message begins.
func messageAt(frame []byte) int {
	at := 2 + 10*8
	for range 2 { // group and length
		_, n := binary.Uvarint(frame[at:])
		at += n
	}
	return at
}

func testRepairLies(t *testing.T, engine Engine) {
	for name, lie := range map[string]func(kind byte, frame []byte) []byte{
		"altered": func(kind byte, frame []byte) []byte {
			if kind == giveKind {
				frame[len(frame)-8] ^= 1
			}
			return frame
		},
		"cut": func(kind byte, frame []byte) []byte {
			if kind == giveKind {
				at := messageAt(frame)
				head := bytes.Clone(frame[:2+10*8])
				head = append(head, 1)
				head = replica.AppendBytes(head, frame[at:len(frame)-4-6])
				return append(head, 0, 0, 0, 0)
			}
			return frame
		},
		// What it gives is right, but for another gap: one that ends an entry lower.
		"unfit": func(kind byte, frame []byte) []byte {
			at := messageAt(frame)
			m := frame[at : len(frame)-4]
			if kind != needKind || m[8] != 1 { // of entries
				return frame
			}
			r := replica.NewReader(m[9:])
			first, last, term, limit := r.Uvarint(), r.Uvarint(), r.Uvarint(), r.Uvarint()
			lower := bytes.Clone(m[:9])
			for _, v := range []uint64{first - 1, last - 1, term, limit} {
				lower = binary.AppendUvarint(lower, v)
			}
			head := append(bytes.Clone(frame[:2+10*8]), 1)
			return append(replica.AppendBytes(head, lower), 0, 0, 0, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, engine, options{})
			c.writes(1, 1, 30)
			victim := c.others(c.leader(1))[0].id
			log := c.stopWithLog(victim, 1, 30)
			liar := c.running()[0].id // who is asked first
			c.damage(victim, damages[0], log[20])
			c.network.setRule(func(p packet) fate {
				kind := p.payload[1]
				if p.to == liar && kind == needKind || p.from == liar && kind == giveKind {
					changed := reseal(lie(kind, bytes.Clone(p.payload)))
					if !bytes.Equal(changed, p.payload) {
						go c.network.inject(p.from, p.to, changed)
						return fate{drop: true}
					}
				}
				return fate{}
			})
			m, err := c.open(victim, nil)
			require.NoError(t, err)
			require.NoError(t, m.startGroup(1))
			require.NotEqual(t, liar, m.awaitKind(0, synod.EventRepaired, 1).Peer)
			refused := m.await(0, "the lie is refused", func(e synod.Event) bool { return e.Kind == synod.EventPeerRefused && e.Peer == liar })
			require.Error(t, refused.Err)
			c.network.healAll()
			c.check(1)
		})
	}
}

func testRepairRequests(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{config: func(c *replica.Settings) { c.MaxBatchBytes = 256 }})
	c.writes(1, 1, 30)
	l := c.leader(1)
	victim, other := c.others(l)[0], c.others(l)[1]
	c.damage(victim.id, damages[0], c.stopWithLog(victim.id, 1, 20)[10])
	// The question, as it is asked.
	question := make(chan []byte, 10)
	c.network.setRule(func(p packet) fate {
		if p.payload[1] == needKind {
			if p.to == l.id {
				select {
				case question <- bytes.Clone(p.payload):
				default:
				}
			}
			return fate{drop: true}
		}
		return fate{}
	})
	m, err := c.open(victim.id, nil)
	require.NoError(t, err)
	short, cancel := context.WithTimeout(c.ctx, 4*election)
	defer cancel()
	require.ErrorIs(t, m.tryGroup(short, 1), storage.ErrCorrupt)
	frame := receive(c, question, "a question")
	at := messageAt(frame)
	answers := func(frame []byte) {
		c.network.inject(victim.id, l.id, frame)
		c.network.drain()
		require.NoError(t, l.group(1).Barrier(c.ctx))
	}
	var given atomic.Int64
	c.network.setRule(func(p packet) fate {
		if p.payload[1] == giveKind {
			given.Add(1)
		}
		return fate{}
	})
	answers(frame)
	require.Equal(t, int64(1), given.Load(), "as it was asked")
	with := func(message []byte) []byte {
		head := append(bytes.Clone(frame[:2+10*8]), 1)
		return reseal(append(replica.AppendBytes(head, message), 0, 0, 0, 0))
	}
	good := bytes.Clone(frame[at : len(frame)-4])
	malformed := [][]byte{good[:8], good[:9], good[:len(good)-1], append(bytes.Clone(good), 0), make([]byte, 20), bytes.Repeat([]byte{0xff}, 40)}
	for what := range 256 {
		if what == 0 || what > 3 {
			bad := bytes.Clone(good)
			bad[8] = byte(what)
			malformed = append(malformed, bad)
		}
	}
	backwards := binary.AppendUvarint(binary.AppendUvarint(bytes.Clone(good[:9]), 10), 9)
	malformed = append(malformed, append(backwards, 1, 1))
	for i, message := range malformed {
		answers(with(message))
		require.Equal(t, int64(1), given.Load(), fmt.Sprint(i, message))
	}
	// A stranger gets nothing, nor does another incarnation of a member.
	stranger := bytes.Clone(frame)
	binary.LittleEndian.PutUint64(stranger[10:], 4)
	c.network.inject(4, l.id, reseal(stranger))
	twin := bytes.Clone(frame)
	twin[26]++
	answers(reseal(twin))
	c.network.drain()
	require.NoError(t, l.group(1).Barrier(c.ctx))
	require.Equal(t, int64(1), given.Load())
	// What nobody has is answered, and harms nobody.
	huge := bytes.Clone(good[:9])
	for range 4 {
		huge = binary.AppendUvarint(huge, ^uint64(0))
	}
	answers(with(huge))
	require.Equal(t, int64(2), given.Load())
	// A replica that is stopped says nothing.
	require.NoError(t, l.closeGroup(1))
	before := given.Load()
	c.network.inject(victim.id, l.id, frame)
	c.network.drain()
	require.Equal(t, before, given.Load())
	require.NoError(t, l.startGroup(1))
	c.network.healAll()
	require.NoError(t, m.startGroup(1))
	require.True(t, slices.Contains([]uint64{l.id, other.id}, m.awaitKind(0, synod.EventRepaired, 1).Peer))
	c.check(1)
}

// refusesHelp starts a group whose log is damaged, and sees that what a peer answers is not taken.
func (m *member) refusesHelp(peers ...uint64) {
	c := m.cluster
	c.Helper()
	require.ErrorIs(c, m.tryGroup(c.ctx, 1), storage.ErrCorrupt)
	m.await(0, "the answer of a peer is refused", func(e synod.Event) bool {
		return e.Kind == synod.EventPeerRefused && e.Group == 1 && slices.Contains(peers, e.Peer) && errors.Is(e.Err, replica.ErrIncarnation)
	})
	require.False(c, slices.ContainsFunc(m.events.all(0), func(e synod.Event) bool { return e.Kind == synod.EventRepaired }))
}

func testRepairGivenUp(t *testing.T, engine Engine) {
	for _, group := range []func(*replica.GroupConfig){nil, compacting} {
		c := newCluster(t, engine, options{group: group, machine: large})
		id := c.survivor()
		require.NoError(t, engine.Recover(c.ctx, replica.RecoverConfig{Cluster: clusterName, Node: id, Group: 1, Store: c.disks[id], AcceptLoss: true}))
		c.restart(id)
		c.writes(1, 1, 30)
		// The others come back as they were. They have what is missing, and with it a log, or a
		// snapshot, that the recovered group knows nothing of.
		c.stop(id)
		log := c.logRecords(id, 1)
		c.damage(id, damages[0], log[len(log)-1], log[0])
		rest := slices.DeleteFunc(c.ids(), func(o uint64) bool { return o == id })
		for _, o := range rest {
			c.restart(o)
		}
		for range 100 {
			_, _ = c.tryWrite(c.ctx, 1, c.running()...)
		}
		m, err := c.open(id, nil)
		require.NoError(t, err)
		m.refusesHelp(rest...)
		for _, m := range c.running() {
			c.stop(m.id)
		}
	}
}

func testRepairUnadmitted(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{groups: 2})
	c.writes(1, 1, 30)
	c.writes(2, 1, 3)
	const victim, helper, wiped = 1, 2, 3
	// A wiped node is admitted to one group, and so listened to, but not to the other.
	c.stop(wiped)
	c.wipe(wiped)
	back, err := c.open(wiped, nil)
	require.NoError(t, err)
	require.NoError(t, back.node.Join(c.ctx, 2))
	require.NoError(t, back.startGroup(2))
	members := voters(1, 2, 3)
	members[wiped-1].Incarnation = back.node.Status().Incarnation
	c.eventually("the wiped node is admitted", func() bool {
		err := c.leader(2, c.member(victim), c.member(helper)).group(2).SetMembers(c.ctx, members)
		return err == nil
	})
	c.check(2)
	log := c.stopWithLog(victim, 1, 10)
	c.damage(victim, damages[0], log[len(log)/2])
	m, err := c.open(victim, nil)
	require.NoError(t, err)
	require.NoError(t, m.startGroup(2))
	c.writes(2, 1, 3)
	c.check(2)
	require.NotEmpty(t, c.network.lastFrame(wiped, victim))
	// What it is asked for it answers rightly: with what another member says.
	const header = 2 + 10*8
	var toHelper []byte
	var answered atomic.Int64
	c.network.setRule(func(p packet) fate {
		kind := p.payload[1]
		if kind != needKind && kind != giveKind {
			return fate{}
		}
		switch {
		case p.from == victim && p.to == helper:
			toHelper = bytes.Clone(p.payload[:header])
		case p.from == victim && p.to == wiped && toHelper != nil:
			asked := reseal(append(toHelper[:header:header], p.payload[header:]...))
			go c.network.inject(victim, helper, asked)
		case p.from == helper && p.to == victim:
			last := c.network.last[link{wiped, victim}]
			answer := append(bytes.Clone(last[:header]), p.payload[header:]...)
			answer[1] = giveKind
			answered.Add(1)
			go c.network.inject(wiped, victim, reseal(answer))
		}
		return fate{drop: true}
	})
	m.refusesHelp(wiped)
	require.NotZero(t, answered.Load())
	c.network.healAll()
	require.NoError(t, m.startGroup(1))
	require.Equal(t, uint64(helper), m.awaitKind(0, synod.EventRepaired, 1).Peer)
}
