package grouptest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage/memory"
)

var reportRules = []rule{
	{"a configuration that is wrong is refused with the field's name", testConfig},
	{"Status tells what is so", testStatus},
	{"events tell what happens, in order", testEvents},
	{"a reader of events who is too slow is told how many it missed", testMissed},
	{"metrics are counted", testMetrics},
}

func testConfig(t *testing.T, engine Engine) {
	ctx := context.Background()
	network := newNetwork(1)
	for _, bad := range []struct {
		field  string
		change func(*replica.Settings)
	}{
		{"Cluster", func(c *replica.Settings) { c.Cluster = "" }},
		{"Cluster", func(c *replica.Settings) { c.Cluster = strings.Repeat("x", 256) }},
		{"Node", func(c *replica.Settings) { c.Node = 0 }},
		{"Transport", func(c *replica.Settings) { c.Transport = nil }},
		{"Store", func(c *replica.Settings) { c.Store = nil }},
		{"HeartbeatInterval", func(c *replica.Settings) { c.HeartbeatInterval = time.Microsecond }},
		{"HeartbeatInterval", func(c *replica.Settings) { c.HeartbeatInterval = -time.Second }},
		{"ElectionTimeout", func(c *replica.Settings) { c.ElectionTimeout = 2 * heartbeat }},
		{"ElectionTimeout", func(c *replica.Settings) { c.ElectionTimeout = -1 }},
		{"MaxClockDrift", func(c *replica.Settings) { c.MaxClockDrift = -1 }},
		{"MaxClockDrift", func(c *replica.Settings) { c.MaxClockDrift = 8*heartbeat + 1 }}, // leaves less than a heartbeat
		{"MaxClockDrift", func(c *replica.Settings) { c.ElectionTimeout, c.MaxClockDrift = 4*heartbeat-1, heartbeat+1 }},
		{"Loops", func(c *replica.Settings) { c.Loops = -1 }},
		{"MaxCommandBytes", func(c *replica.Settings) { c.MaxCommandBytes = -1 }},
		{"MaxBatchBytes", func(c *replica.Settings) { c.MaxBatchBytes = -1 }},
		{"MaxPendingBytes", func(c *replica.Settings) { c.MaxPendingBytes = -1 }},
		{"MaxPendingBytes", func(c *replica.Settings) { c.MaxPendingBytes, c.MaxCommandBytes = 10, 11 }},
		{"MaxPending", func(c *replica.Settings) { c.MaxPending = -1 }},
		{"MaxInflightBytes", func(c *replica.Settings) { c.MaxInflightBytes = -1 }},
		{"MaxInflightBytes", func(c *replica.Settings) { c.MaxInflightBytes, c.MaxBatchBytes, c.MaxCommandBytes = 29, 10, 20 }},
		{"MaxInboxBytes", func(c *replica.Settings) { c.MaxInboxBytes = -1 }},
		{"MaxInboxBytes", func(c *replica.Settings) { c.MaxInboxBytes, c.MaxBatchBytes, c.MaxCommandBytes = 29, 10, 20 }},
		{"MaxInboxBytes", func(c *replica.Settings) { c.MaxInboxBytes = 8 << 20 }}, // as large as a command may be by default
		{"MaxUnwrittenBytes", func(c *replica.Settings) { c.MaxUnwrittenBytes = -1 }},
		{"MaxBatchBytes", func(c *replica.Settings) { c.MaxBatchBytes = 1<<28 + 1 }},
		{"MaxCommandBytes", func(c *replica.Settings) { c.MaxCommandBytes = 1<<28 + 1 }},
		{"MaxApplyBytes", func(c *replica.Settings) { c.MaxApplyBytes = -1 }},
		{"CacheBytes", func(c *replica.Settings) { c.CacheBytes = -1 }},
	} {
		store := memory.Open(memory.Config{})
		cfg := replica.Settings{Cluster: clusterName, Node: 1, Transport: network.open(1), Store: store, HeartbeatInterval: heartbeat}
		bad.change(&cfg)
		_, err := engine.Start(ctx, cfg)
		var wrong *synod.ConfigError
		require.ErrorAs(t, err, &wrong, bad.field)
		require.Equal(t, bad.field, wrong.Field)
		require.Equal(t, engine.Name(), wrong.Package)
		require.NotEmpty(t, wrong.Reason)
		if commits, _ := store.Counts(); commits != 0 {
			t.Errorf("%s: something was written", bad.field)
		}
	}
	// What is required is enough.
	e := newNetwork(1).open(1)
	node, err := engine.Start(ctx, replica.Settings{Cluster: clusterName, Node: 1, Transport: e, Store: memory.Open(memory.Config{})})
	require.NoError(t, err)
	require.NoError(t, node.Bootstrap(ctx, 1, []uint64{1}))
	for field, cfg := range map[string]replica.GroupConfig{
		"ID":           {StateMachine: newMachine("", t.Errorf)},
		"StateMachine": {ID: 1},
	} {
		_, err := node.StartGroup(ctx, cfg)
		var wrong *synod.ConfigError
		require.ErrorAs(t, err, &wrong, field)
		require.Equal(t, field, wrong.Field)
		require.Equal(t, engine.Name(), wrong.Package)
	}
	group, err := node.StartGroup(ctx, replica.GroupConfig{ID: 1, StateMachine: newMachine("", t.Errorf)})
	require.NoError(t, err)
	_, err = group.Propose(ctx, []byte("x"))
	for err != nil { // it elects itself
		_, err = group.Propose(ctx, []byte("x"))
	}
	require.NoError(t, node.Close())
	require.NoError(t, e.Close())
}

func testStatus(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{groups: 2, group: compacting, machine: large})
	end := c.writes(1, 1, 150)
	c.check(1)
	for _, m := range c.running() {
		m.awaitKind(0, synod.EventSnapshotTaken, 1)
	}
	c.eventually("a quiet moment", func() bool {
		l := c.leader(1)
		for _, m := range c.running() {
			require.NoError(t, m.group(1).Barrier(c.ctx))
			s := m.group(1).Status()
			if s.Leader != l.id || s.Term != l.group(1).Status().Term {
				return false
			}
			require.Equal(t, uint64(1), s.Group)
			require.Equal(t, m.id, s.Node)
			require.NotZero(t, s.Term)
			require.Greater(t, s.First, uint64(2), "the log was cut")
			require.LessOrEqual(t, s.First, s.Last)
			require.LessOrEqual(t, s.Applied, s.Commit)
			require.LessOrEqual(t, s.Commit, s.Last)
			require.GreaterOrEqual(t, s.Commands, end)
			require.Equal(t, m.machine(1).index(), s.Commands)
			require.LessOrEqual(t, s.Commands, s.Applied)
			require.NotZero(t, s.Snapshot)
			require.LessOrEqual(t, s.Snapshot, s.Applied)
			require.Equal(t, []uint64{1, 2, 3}, s.Members)
			require.Empty(t, s.Learners)
			require.NoError(t, s.Err)
			require.Zero(t, s.Pending)
			if m != l {
				require.Empty(t, s.Peers)
				continue
			}
			require.Len(t, s.Peers, 2)
			for i, p := range s.Peers {
				require.Equal(t, c.others(l)[i].id, p.Node)
				require.Contains(t, []string{"probe", "replicate", "snapshot"}, p.State)
				require.LessOrEqual(t, p.Match, s.Last)
			}
		}
		n := l.node.Status()
		require.Equal(t, l.id, n.Node)
		require.Equal(t, clusterName, n.Cluster)
		require.NotZero(t, n.Incarnation)
		require.Equal(t, []uint64{1, 2}, groupIDs(n))
		return true
	})
	// A member that is gone is told from one that is there, and what it has from what
	// it lacks.
	c.eventually("a leader that stays", func() bool {
		l := c.leader(1)
		gone, there := c.others(l)[0], c.others(l)[1]
		last := gone.group(1).Status().Last
		c.network.isolate(gone.id)
		defer c.network.healAll()
		for {
			end := c.write(1, l, there)
			require.NoError(t, there.machine(1).await(c.ctx, end))
			s := l.group(1).Status()
			if s.Leader != l.id {
				return false
			}
			at := func(id uint64) synod.PeerStatus {
				return s.Peers[slices.IndexFunc(s.Peers, func(p synod.PeerStatus) bool { return p.Node == id })]
			}
			if g, h := at(gone.id), at(there.id); !g.Active && h.Active {
				require.LessOrEqual(t, g.Match, last)
				require.Greater(t, h.Match, last)
				return true
			}
		}
	})
	// One that waits for a snapshot is shown so.
	f := c.others(c.leader(1))[0].id
	c.leaveBehind(f)
	reached := c.midway(f, 2)
	c.start(f)
	sender := c.member(receive(c, reached, "the transfer"))
	require.Eventually(t, func() bool {
		for _, p := range sender.group(1).Status().Peers {
			if p.Node == f && p.State == "snapshot" {
				return true
			}
		}
		return sender.group(1).Status().Leader != sender.id
	}, patience, heartbeat)
	c.network.healAll()
	c.check(1)
	// What is closed is gone from the node's status, and says so itself.
	m := c.running()[0]
	g := m.group(2)
	require.NoError(t, m.closeGroup(2))
	require.Equal(t, []uint64{1}, groupIDs(m.node.Status()))
	require.ErrorIs(t, g.Status().Err, synod.ErrClosed)
	require.NoError(t, m.startGroup(2))
}

func groupIDs(s synod.NodeStatus) (ids []uint64) {
	for _, g := range s.Groups {
		ids = append(ids, g.Group)
	}
	return ids
}

func testEvents(t *testing.T, engine Engine) {
	begin := time.Now()
	c := newCluster(t, engine, options{group: compacting})
	c.writes(1, 1, 200)
	for _, m := range c.running() {
		changed := m.await(0, "a leader", func(e synod.Event) bool { return e.Kind == synod.EventLeaderChanged && e.Leader != 0 })
		require.NotZero(t, changed.Term)
		require.False(t, changed.Time.Before(begin) || changed.Time.After(time.Now()))
		taken := m.awaitKind(0, synod.EventSnapshotTaken, 1)
		require.NotZero(t, taken.Index)
		require.NotZero(t, taken.Term)
		cut := m.awaitKind(0, synod.EventLogCompacted, 1)
		require.NotZero(t, cut.Index)
		require.Less(t, cut.Index, m.group(1).Status().First)
		var term, snapshot, compacted uint64
		for _, e := range m.events.all(0) {
			require.False(t, e.Time.IsZero())
			switch e.Kind {
			case synod.EventLeaderChanged:
				require.GreaterOrEqual(t, e.Term, term)
				term = e.Term
			case synod.EventSnapshotTaken:
				require.Greater(t, e.Index, snapshot)
				snapshot = e.Index
			case synod.EventLogCompacted:
				require.Greater(t, e.Index, compacted)
				compacted = e.Index
			case synod.EventSnapshotSent, synod.EventSnapshotInstalled:
				require.NotZero(t, e.Index) // a member was slow, and the log is short
			default:
				require.Fail(t, "an event that has no reason", "%v", e)
			}
		}
	}
	// A reader may leave, by its context or by itself; others go on.
	m := c.running()[0]
	ctx, cancel := context.WithCancel(c.ctx)
	seq := m.node.Events(ctx)
	ended := background(func() error {
		for range seq {
		}
		return nil
	})
	cancel()
	require.NoError(t, receive(c, ended, "the reader's end"))
	leave := m.node.Events(c.ctx)
	left := background(func() error {
		for range leave {
			break
		}
		return nil
	})
	from := m.events.now()
	c.network.inject(77, m.id, []byte("hello"))
	require.NoError(t, receive(c, left, "the reader leaves"))
	refused := m.awaitKind(from, synod.EventPeerRefused, 0)
	require.Equal(t, uint64(77), refused.Peer)
	require.Error(t, refused.Err)
	// Close ends those who listen, and those who begin to.
	last := m.node.Events(context.Background())
	c.stop(m.id)
	for e := range last {
		_ = e
	}
	for range m.node.Events(context.Background()) {
		t.Error("an event after Close")
	}
}

func testMissed(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1})
	m := c.member(1)
	seq := m.node.Events(c.ctx)
	g := newGate()
	defer g.release()
	const many = 2500
	type count struct{ seen, missed uint64 }
	counted := make(chan count, 1)
	go func() {
		var n count
		for e := range seq {
			switch e.Kind {
			case synod.EventMissed:
				n.missed += e.Index
			case synod.EventPeerRefused:
				if n.seen++; e.Peer == 1 {
					g.pass() // and is busy for a while
				}
			}
			if n.seen+n.missed >= many {
				counted <- n
				return
			}
		}
	}()
	c.network.inject(1, 1, []byte("hello"))
	receive(c, g.reached, "the reader has an event")
	from := m.events.now()
	for peer := uint64(2); peer <= many; peer++ {
		c.network.inject(peer, 1, []byte("hello"))
	}
	c.network.drain()
	m.await(from, "the last", func(e synod.Event) bool {
		return e.Peer == many || e.Kind == synod.EventMissed // this reader may be slow, too
	})
	g.release()
	n := receive(c, counted, "all events are seen or missed")
	require.NotZero(t, n.missed)
	require.Greater(t, n.seen, uint64(1000))
	require.Equal(t, uint64(many), n.seen+n.missed)
	c.check(1)
}

// meter collects metrics.
type meter struct {
	mu       sync.Mutex
	counters map[string]int64
	values   map[string]int
}

func (m *meter) Add(name string, group uint64, delta int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counters[fmt.Sprintf("%s %d", name, group)] += delta
}

func (m *meter) Observe(name string, group uint64, value int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if value < 0 {
		value = 0
	}
	m.values[fmt.Sprintf("%s %d", name, group)]++
}

func (m *meter) counter(name string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counters[name]
}

func (m *meter) observed(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[name]
}

func testMetrics(t *testing.T, engine Engine) {
	m := &meter{counters: make(map[string]int64), values: make(map[string]int)}
	c := newCluster(t, engine, options{size: 1, group: compacting, config: func(cfg *replica.Settings) { cfg.Metrics = m }})
	c.writes(1, 1, 100)
	c.member(1).awaitKind(0, synod.EventSnapshotTaken, 1)
	c.network.inject(1, 1, []byte("hello"))
	c.network.drain()
	c.check(1)
	end := int64(c.member(1).machine(1).index())
	c.stop(1)
	require.Equal(t, end, m.counter("synod_proposals_total 1"))
	require.Equal(t, end, m.counter("synod_applied_total 1"))
	require.Equal(t, int64(1), m.counter("synod_frames_refused_total 0"))
	require.NotZero(t, m.counter("synod_leader_changes_total 1"))
	require.NotZero(t, m.observed("synod_batch_commands 1"))
	require.NotZero(t, m.observed("synod_commit_bytes 0"))
	require.NotZero(t, m.observed("synod_snapshot_bytes 1"))
}
