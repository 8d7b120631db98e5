package grouptest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

var identityRules = []rule{
	{"a store of another node, or of another cluster, is refused", testForeignStore},
	{"a store that can't be read is not taken for an empty one", testUnreadableStore},
	{"a group of another protocol is refused", testForeignProtocol},
	{"a group is bootstrapped once, by its members, and not started before", testBootstrap},
	{"a group runs once on a node", testRunning},
	{"a node whose disk was wiped is not listened to", testWiped},
	{"a log that was wiped does not count when a leader is elected", testWipedVote},
	{"of two nodes with one ID the first is listened to", testTwins},
	{"a node of another cluster is not listened to", testOtherCluster},
	{"a message that goes astray counts nowhere", testMisdelivery},
	{"garbage is refused and does no harm", testGarbage},
	{"messages of a group that is not there do no harm", testUnknownGroup},
}

// refusal waits until a node has refused a message of a peer for a reason.
func (m *member) refusal(from int, peer uint64, reason error) {
	m.cluster.Helper()
	m.await(from, fmt.Sprintf("node %d is refused: %v", peer, reason), func(e synod.Event) bool {
		return e.Kind == synod.EventPeerRefused && e.Peer == peer && errors.Is(e.Err, reason)
	})
}

// awaitDistrust waits until a node and a peer that is not who it was refuse each other.
func (m *member) awaitDistrust(peer *member) {
	m.cluster.Helper()
	m.refusal(0, peer.id, replica.ErrIncarnation)
	peer.refusal(0, m.id, replica.ErrIncarnation)
	require.NoError(m.cluster, peer.group(1).Err())
}

func testForeignStore(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 1, 3)
	c.stop(1)
	d := c.disks[1]
	before, err := d.records()
	require.NoError(t, err)
	for _, change := range []func(*replica.Settings){
		func(cfg *replica.Settings) { cfg.Node = 2 },
		func(cfg *replica.Settings) { cfg.Cluster = "another" },
	} {
		_, err := c.openOn(1, d, change)
		require.ErrorIs(t, err, replica.ErrForeignStore)
		require.ErrorContains(t, err, "node 1")
		require.ErrorContains(t, err, clusterName)
		after, err := d.records()
		require.NoError(t, err)
		require.Equal(t, before, after)
	}
	c.start(1)
	c.check(1)
}

// unreadable is a store whose iterators fail after some records.
type unreadable struct {
	storage.Store
	after int
}

func (u unreadable) Scan(from, to []byte) (storage.Iterator, error) {
	it, err := u.Store.Scan(from, to)
	return &unreadableIterator{it, u.after}, err
}

type unreadableIterator struct {
	storage.Iterator
	after int
}

func (it *unreadableIterator) Next() ([]byte, []byte, error) {
	if it.after--; it.after < 0 {
		return nil, nil, &storage.CorruptError{Reason: "a block can't be read"}
	}
	return it.Iterator.Next()
}

func testUnreadableStore(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 1, 3)
	c.check(1)
	c.stop(1)
	full := c.disks[1]
	for _, test := range []struct {
		what string
		disk *disk
	}{
		{"nothing", newDisk(memory.Open(memory.Config{}))},
		{"all", full},
		{"all but the identity", func() *disk {
			records, err := full.records()
			require.NoError(t, err)
			d, err := diskOf(records)
			require.NoError(t, err)
			var b storage.Batch
			b.Delete(replica.IdentityKey())
			require.NoError(t, d.Commit(&b))
			return d
		}()},
	} {
		before, err := test.disk.records()
		require.NoError(t, err)
		m, err := c.openOn(1, test.disk, func(cfg *replica.Settings) { cfg.Store = unreadable{test.disk, 0} })
		if err == nil {
			m.close()
		}
		require.ErrorIs(t, err, storage.ErrCorrupt, test.what)
		require.ErrorContains(t, err, "can't be read", test.what)
		after, err := test.disk.records()
		require.NoError(t, err)
		require.Equal(t, before, after, test.what)
	}
	c.start(1)
	c.check(1)
}

func testForeignProtocol(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{groups: 2})
	c.writes(1, 1, 3)
	c.stop(1)
	records, err := c.disks[1].records()
	require.NoError(t, err)
	for _, r := range records {
		if recordKind(r.key) == "group" && r.key[8] == 1 {
			var b storage.Batch
			b.Set(r.key, storage.AppendRecord(nil, r.key, []byte("pigeons")))
			require.NoError(t, c.disks[1].Commit(&b))
		}
	}
	m, err := c.open(1, nil)
	require.NoError(t, err)
	err = m.startGroup(1)
	require.ErrorIs(t, err, replica.ErrForeignStore)
	require.ErrorContains(t, err, "pigeons")
	for _, err := range []error{m.node.Bootstrap(c.ctx, 1, c.ids()), m.node.Join(c.ctx, 1)} {
		require.ErrorIs(t, err, replica.ErrForeignStore)
		require.ErrorContains(t, err, "pigeons")
		require.NotErrorIs(t, err, replica.ErrBootstrapped, "an application would go on after that")
	}
	require.NoError(t, m.startGroup(2))
	c.check(2)
	// Nor is it left, recovered or read as what it is not.
	require.ErrorIs(t, m.node.Leave(c.ctx, 1), replica.ErrForeignStore)
	require.ErrorIs(t, engine.Recover(c.ctx, replica.RecoverConfig{Cluster: clusterName, Node: 1, Group: 1, Store: c.disks[1], AcceptLoss: true}), replica.ErrForeignStore)
	remains, err := engine.Inspect(c.ctx, c.disks[1])
	require.NoError(t, err)
	require.Len(t, remains, 2)
	require.ErrorIs(t, remains[0].Err, replica.ErrForeignStore)
	require.NoError(t, remains[1].Err)
	// What another one has left behind says nothing that this one understands.
	c.stop(1)
	var left storage.Batch
	for _, r := range records {
		switch {
		case recordKind(r.key) == "group" && r.key[8] == 1:
			key := append(bytes.Clone(r.key[:9]), 'v')
			left.Set(key, storage.AppendRecord(nil, key, []byte("pigeons")))
			left.Delete(r.key)
		case r.key[0] == 'g' && r.key[8] == 1:
			left.Delete(r.key)
		}
	}
	require.NoError(t, c.disks[1].Commit(&left))
	m, err = c.open(1, nil)
	require.NoError(t, err)
	require.ErrorIs(t, m.node.Join(c.ctx, 1), replica.ErrForeignStore)
	require.ErrorIs(t, m.node.Bootstrap(c.ctx, 1, c.ids()), replica.ErrForeignStore)
	require.NoError(t, m.startGroup(2))
	c.check(2)
}

func testBootstrap(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{stopped: true})
	m, err := c.open(1, nil)
	require.NoError(t, err)
	require.ErrorIs(t, m.startGroup(1), replica.ErrNotBootstrapped)
	for what, members := range map[string][]uint64{
		"no members":   nil,
		"node 0":       {0, 1},
		"a node twice": {1, 2, 2},
		"not this one": {2, 3},
	} {
		err := m.node.Bootstrap(c.ctx, 1, members)
		var bad *synod.ConfigError
		require.ErrorAs(t, err, &bad, what)
		require.Equal(t, engine.Name(), bad.Package)
		require.Equal(t, "Members", bad.Field)
	}
	var bad *synod.ConfigError
	require.ErrorAs(t, m.node.Bootstrap(c.ctx, 0, []uint64{1}), &bad)
	require.Equal(t, "ID", bad.Field)
	require.ErrorIs(t, m.startGroup(1), replica.ErrNotBootstrapped, "a bootstrap that was refused left something behind")

	members := []uint64{3, 1, 2}
	require.NoError(t, m.node.Bootstrap(c.ctx, 1, members))
	require.Equal(t, []uint64{3, 1, 2}, members, "the caller's slice was changed")
	require.ErrorIs(t, m.node.Bootstrap(c.ctx, 1, members), replica.ErrBootstrapped)
	require.NoError(t, m.startGroup(1))
	require.Equal(t, []uint64{1, 2, 3}, m.group(1).Status().Members)
	require.ErrorIs(t, m.node.Bootstrap(c.ctx, 1, []uint64{1}), replica.ErrBootstrapped)
	// It begins when all have met: a majority may not go ahead, since the third would not
	// know the two again.
	second := c.start(2)
	ctx, cancel := context.WithTimeout(c.ctx, 4*election)
	defer cancel()
	require.ErrorIs(t, barrier(ctx, second.group(1)), context.DeadlineExceeded)
	var elsewhere *synod.NotLeaderError
	_, err = m.group(1).Propose(c.ctx, []byte("early"))
	require.ErrorAs(t, err, &elsewhere)
	require.Zero(t, elsewhere.Leader)
	require.ErrorIs(t, m.node.Bootstrap(c.ctx, 1, members), replica.ErrBootstrapped)
	c.network.cut(2, 3)
	c.start(3)
	ctx, cancel = context.WithTimeout(c.ctx, 4*election)
	defer cancel()
	require.ErrorIs(t, barrier(ctx, m.group(1)), context.DeadlineExceeded, "node 3 has never heard of node 2")
	c.network.healAll()
	c.writes(1, 1, 3)
	c.check(1)
	// It is durable when it returns.
	require.NoError(t, m.node.Bootstrap(c.ctx, 7, []uint64{1}))
	c.crash(1)
	m = c.start(1)
	require.NoError(t, m.startGroup(7))
	c.writes(7, 1, 3, m)
	c.check(1)
}

func testRunning(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1})
	m := c.member(1)
	second := newMachine("second", t.Errorf)
	require.ErrorIs(t, m.startGroupOn(1, second, second), replica.ErrRunning)
	require.Equal(t, uint64(1), m.group(1).ID())
	c.writes(1, 1, 3)
	require.NoError(t, m.closeGroup(1))
	require.NoError(t, m.startGroup(1))
	c.check(1)
}

// wipe gives a node that is stopped an empty disk, and the group anew.
func (c *cluster) wipe(id uint64) {
	c.mu.Lock()
	c.disks[id] = newDisk(memory.Open(memory.Config{}))
	c.mu.Unlock()
}

func testWiped(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 2, 5)
	c.check(1)
	wiped := c.others(c.leader(1))[0].id
	incarnation := c.member(wiped).node.Status().Incarnation
	require.NotZero(t, incarnation)
	// Its peers have met it, and remember that when they come back.
	rest := c.others(c.member(wiped))
	for _, m := range rest {
		require.Eventually(t, func() bool {
			records, err := m.disk.records()
			require.NoError(t, err)
			return slices.ContainsFunc(records, func(r record) bool {
				return recordKind(r.key) == "peer" && binary.BigEndian.Uint64(r.key[1:]) == wiped
			}) || m.group(1).Status().Leader != m.id
		}, patience, heartbeat)
	}
	c.stop(wiped)
	c.wipe(wiped)
	back := c.start(wiped)
	require.NotEqual(t, incarnation, back.node.Status().Incarnation)
	l := c.leader(1, rest...)
	l.awaitDistrust(back)
	c.writes(1, 2, 5, rest...)
	// With it alone the leader has no majority.
	other := rest[0]
	if other == l {
		other = rest[1]
	}
	c.crash(other.id)
	c.history.mu.Lock()
	before := len(c.history.acknowledged)
	c.history.mu.Unlock()
	for range 2 {
		require.Error(t, barrier(c.ctx, l.group(1)), "a barrier with a majority of one and one that forgot")
		_, err := c.proposeOnce(l)
		require.Error(t, err, "acknowledged by one and one that forgot")
	}
	acknowledged, _, _ := c.history.counts()
	require.Equal(t, before, acknowledged)
	c.stop(wiped)
	c.start(other.id)
	c.check(1)
}

// proposeOnce proposes a new command on one node, for an attempt.
func (c *cluster) proposeOnce(m *member) (uint64, error) {
	ctx, cancel := contextFor(c, attempt)
	defer cancel()
	return c.propose(ctx, m, 1, c.newCommand(1))
}

func testWipedVote(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 2, 5)
	// Everybody meets everybody: each leads once.
	for id := uint64(1); id <= 3; id++ {
		c.eventually("each leads once", func() bool {
			return c.leader(1).id == id || c.leader(1).group(1).TransferLeader(c.ctx, id) == nil
		})
		c.check(1)
	}
	l := c.leader(1)
	behind, forgets := c.others(l)[0], c.others(l)[1]
	c.network.isolate(behind.id)
	c.writes(1, 2, 10, l, forgets)
	// Now the writes are on the leader, which goes, and on one that forgets them.
	c.crash(l.id)
	c.stop(forgets.id)
	c.wipe(forgets.id)
	from := behind.events.now()
	// What is reported of a peer is limited, but this must not fall by the wayside.
	c.network.inject(forgets.id, behind.id, []byte("garbage"))
	c.start(forgets.id)
	c.network.healAll()
	behind.refusal(from, forgets.id, replica.ErrIncarnation)
	for range 2 {
		require.Error(t, barrier(c.ctx, behind.group(1)))
		_, err := c.proposeOnce(behind)
		require.Error(t, err)
	}
	c.stop(forgets.id)
	c.start(l.id)
	c.check(1)
}

func testTwins(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 2, 5)
	first := c.others(c.leader(1))[0]
	twin, err := c.openOn(first.id, newDisk(memory.Open(memory.Config{})), nil)
	require.NoError(t, err)
	defer twin.close()
	require.NoError(t, twin.node.Bootstrap(c.ctx, 1, c.ids()))
	require.NoError(t, twin.startGroup(1))
	c.leader(1, c.others(first)...).awaitDistrust(twin)
	c.writes(1, 2, 20)
	c.check(1)
	require.NoError(t, first.group(1).Err())
}

func testOtherCluster(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 2, 5)
	const stranger = 4
	m, err := c.openOn(stranger, newDisk(memory.Open(memory.Config{})), func(cfg *replica.Settings) { cfg.Cluster = "another" })
	require.NoError(t, err)
	defer m.close()
	require.NoError(t, m.node.Bootstrap(c.ctx, 1, []uint64{1, 2, stranger}))
	require.NoError(t, m.startGroup(1))
	// It stands for election.
	for _, id := range []uint64{1, 2} {
		c.member(id).refusal(0, stranger, replica.ErrStray)
	}
	require.Error(t, barrier(c.ctx, m.group(1)))
	require.Zero(t, m.group(1).Status().Leader)
	c.writes(1, 2, 5)
	c.check(1)
	require.Zero(t, m.machine(1).index())
}

func testMisdelivery(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 2, 5)
	l := c.leader(1)
	a, b := c.others(l)[0], c.others(l)[1]
	// What is meant for one arrives at the other too.
	c.network.setRule(func(p packet) fate {
		switch p.to {
		case a.id:
			return fate{also: b.id}
		case b.id:
			return fate{also: a.id}
		}
		return fate{}
	})
	from := b.events.now()
	c.writes(1, 4, 20)
	b.refusal(from, l.id, replica.ErrStray)
	c.network.healAll()
	// What one says arrives as another's.
	frame := c.network.lastFrame(l.id, a.id)
	from = a.events.now()
	c.network.inject(b.id, a.id, frame)
	a.refusal(from, b.id, replica.ErrStray)
	c.check(1)
}

// reseal makes the checksum of a frame right.
func reseal(frame []byte) []byte {
	body := frame[:len(frame)-4]
	sum := crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))
	return binary.LittleEndian.AppendUint32(bytes.Clone(body), sum)
}

func testGarbage(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 2, 5)
	l := c.leader(1)
	victim := c.others(l)[0]
	good := c.network.lastFrame(l.id, victim.id)
	require.NotEmpty(t, good)
	change := func(at int, to byte) []byte {
		frame := bytes.Clone(good)
		frame[at] = to
		return reseal(frame)
	}
	garbage := map[string][]byte{
		"empty":            nil,
		"text":             []byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"),
		"zeros":            make([]byte, 100),
		"large":            bytes.Repeat([]byte{0xff}, 1<<20),
		"cut":              good[:len(good)-1],
		"longer":           append(bytes.Clone(good), 0),
		"another version":  change(0, 99),
		"another kind":     change(1, 99),
		"no kind":          change(1, 0),
		"a broken message": reseal(append(bytes.Clone(good[:len(good)-4]), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0)),
		"a huge message":   reseal(append(bytes.Clone(good[:len(good)-4]), 1, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0)),
	}
	for kind := range byte(3) { // of each kind of frame, with a message that is none
		frame := bytes.Clone(good[:42])
		frame[1] = kind + 1
		garbage[fmt.Sprintf("nonsense of kind %d", kind+1)] = reseal(append(frame, 1, 5, 0xee, 0xee, 0xee, 0xee, 0xee, 0, 0, 0, 0))
	}
	for bit := range 8 * min(len(good), 60) {
		frame := bytes.Clone(good)
		frame[bit/8] ^= 1 << (bit % 8)
		garbage[fmt.Sprintf("bit %d", bit)] = frame
	}
	peer := uint64(1000) // a sender of its own for each: reports of one are limited
	refused := 0
	for what, frame := range garbage {
		sender := l.id
		if !strings.HasPrefix(what, "nonsense") && !strings.HasPrefix(what, "a ") {
			peer++
			sender = peer
		}
		from := victim.events.now()
		c.network.inject(sender, victim.id, frame)
		if sender == l.id {
			continue
		}
		refused++
		victim.await(from, "refused: "+what, func(e synod.Event) bool {
			return e.Kind == synod.EventPeerRefused && e.Peer == sender && e.Err != nil
		})
	}
	require.Greater(t, refused, 100)
	victim.await(0, "a message of the leader is refused", func(e synod.Event) bool {
		return e.Kind == synod.EventPeerRefused && e.Peer == l.id
	})
	require.NoError(t, victim.group(1).Err())
	c.check(1)
}

func testUnknownGroup(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{groups: 2})
	c.writes(1, 1, 3)
	c.writes(2, 1, 3)
	f := c.others(c.leader(2))[0]
	require.NoError(t, f.closeGroup(2))
	c.writes(2, 2, 20, c.others(f)...)
	c.writes(1, 2, 20)
	require.NoError(t, f.startGroup(2))
	c.check(1)
	c.check(2)
}
