package grouptest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
)

var memberRules = []rule{
	{"a new node becomes a learner, catches up, and votes", testAddMember},
	{"a member that is removed stops with ErrRemoved, and may join again", testRemoveMember},
	{"a member can't leave before it is removed, unless nobody counts on it", testLeaveMember},
	{"a replica that left a group that counts on it takes no part when it is back", testForgetful},
	{"a leader that is removed hands over, and its caller is answered", testRemoveLeader},
	{"all members are replaced by others under load", testReplaceAll},
	{"a group grows from one member and shrinks to one", testGrowAndShrink},
	{"a change that was begun is completed by whoever leads", testChangeSurvivesLeader},
	{"a change that can't be is refused, and one that hangs is taken back", testRefusedChanges},
	{"that a node had caught up once does not count when it comes again", testCatchesUpAgain},
	{"of changes that are asked for at once one is begun, and the others are refused", testChangesAtOnce},
	{"an incarnation that a node has not is refused, and costs the group no member", testWrongIncarnation},
	{"a change does not make voters of nodes of which no majority is there", testUnreachableVoters},
	{"a change whose end a snapshot hides has an unknown outcome", testChangeInSnapshot},
	{"a change that was not begun is not executed when its leader goes", testChangeNotBegun},
	{"a learner can be read from and does not count", testLearner},
	{"members have addresses, which the transport is told", testAddresses},
	{"a new member learns where the others are from those who greet it", testUnknownAddresses},
	{"a node that was wiped comes back as a learner under its new incarnation, and votes again", testReadmit},
	{"an old copy of a disk is recognised, stops, and comes back as a new node", testOldCopy},
	{"an old copy of the only member of a group that has grown does not lead", testOldCopyAlone},
	{"a node that starts gives no vote before others have answered it, or are silent for long", testHeldVote},
	{"a member that was away while it was removed is told so", testRemovedWhileAway},
	{"an answer to what an earlier run of a member has asked does not end a later one", testLateAnswer},
	{"a joiner gets a snapshot that knows it, and then the log", testJoinerSnapshot},
}

// voters makes a list of members.
func voters(ids ...uint64) []synod.Member {
	members := make([]synod.Member, 0, len(ids))
	for _, id := range ids {
		members = append(members, synod.Member{Node: id})
	}
	return members
}

// setMembers changes the members of group 1, wherever the leader is.
func (c *cluster) setMembers(members []synod.Member) {
	c.Helper()
	c.eventually("members are changed", func() bool {
		err := c.leader(1).group(1).SetMembers(c.ctx, members)
		var elsewhere *synod.NotLeaderError
		if errors.As(err, &elsewhere) {
			return false
		}
		require.NoError(c, err)
		return true
	})
}

// awaitMembers waits until a node knows that the members are these.
func (m *member) awaitMembers(ids ...uint64) {
	m.cluster.Helper()
	m.cluster.eventually("the members are known", func() bool {
		s := m.group(1).Status()
		return slices.Equal(s.Members, ids) && s.Target == nil
	})
}

// awaitFailed waits until a node's group has stopped, and returns why.
func (m *member) awaitFailed() error {
	m.cluster.Helper()
	e := m.awaitKind(0, synod.EventGroupFailed, 1)
	require.ErrorAs(m.cluster, m.group(1).Err(), new(*synod.FailedError))
	return e.Err
}

func testUnreachableVoters(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 1, 5)
	leader := c.leader(1)
	away := c.others(leader)[0].id
	c.crash(away)
	c.eventually("the leader misses it", func() bool {
		leader = c.leader(1)
		peers := leader.group(1).Status().Peers
		i := slices.IndexFunc(peers, func(p synod.PeerStatus) bool { return p.Node == away })
		return i >= 0 && !peers[i].Active
	})
	ctx, cancel := context.WithCancel(c.ctx)
	changed := make(chan error, 1)
	go func() { changed <- leader.group(1).SetMembers(ctx, voters(leader.id, away)) }()
	c.eventually("the change has begun", func() bool { return leader.group(1).Status().Target != nil })
	// The two that are there are a majority of the members, and stay one: for more heartbeats
	// than the leader waits for between two steps.
	var beats atomic.Int64
	c.network.setRule(func(p packet) fate {
		if p.to == away {
			beats.Add(1)
		}
		return fate{}
	})
	c.eventually("heartbeats", func() bool { return beats.Load() > 4*int64(election/heartbeat) })
	c.network.setRule(nil)
	c.writes(1, 1, 2, leader)
	require.Equal(t, []uint64{1, 2, 3}, leader.group(1).Status().Members)
	require.False(t, slices.ContainsFunc(leader.group(1).Status().Configuration, func(m synod.Member) bool { return m.Learner }))
	cancel()
	require.Error(t, <-changed)
	c.setMembers(voters(1, 2, 3))
	c.restart(away)
	c.check(1)
}

func testCatchesUpAgain(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{spare: 2})
	c.writes(1, 1, 5)
	l := c.leader(1)
	m := c.join(4)
	c.join(5)
	// Node 5 answers, and does not catch up: node 4, which does, waits for it.
	c.network.setRule(func(p packet) fate { return fate{drop: p.to == 5 && p.payload[1] <= chunkKind} })
	change := background(func() error { return l.group(1).SetMembers(c.ctx, voters(1, 2, 3, 4, 5)) })
	c.eventually("node 4 has caught up", func() bool {
		s := l.group(1).Status()
		i := slices.IndexFunc(s.Peers, func(p synod.PeerStatus) bool { return p.Node == 4 })
		return i >= 0 && s.Peers[i].Match >= s.Commit && len(s.Learners) == 2
	})
	beats := func() {
		var n atomic.Int64
		c.network.setRule(func(p packet) fate {
			if p.from == l.id {
				n.Add(1)
			}
			return fate{drop: (p.to == 5 || p.to == 4) && p.payload[1] <= chunkKind}
		})
		c.eventually("heartbeats", func() bool { return n.Load() > 10*int64(election/heartbeat) })
	}
	beats()
	// It is taken back by another leader.
	next := c.others(l)[0]
	c.eventually("another one leads", func() bool { return c.leader(1) == next || c.leader(1).group(1).TransferLeader(c.ctx, next.id) == nil })
	c.network.setRule(func(p packet) fate { return fate{drop: p.to == 5 && p.payload[1] <= chunkKind} })
	c.setMembers(voters(1, 2, 3))
	require.ErrorIs(t, receive(c, change, "a change that was taken back"), synod.ErrSuperseded)
	require.ErrorIs(t, m.awaitFailed(), synod.ErrRemoved)
	require.NoError(t, m.closeGroup(1))
	require.NoError(t, m.node.Leave(c.ctx, 1))
	require.NoError(t, m.node.Join(c.ctx, 1))
	require.NoError(t, m.startGroup(1))
	// Back on the first one, it has nothing, and gets nothing.
	c.stop(5)
	c.eventually("the first one leads", func() bool { return c.leader(1) == l || c.leader(1).group(1).TransferLeader(c.ctx, l.id) == nil })
	c.network.setRule(func(p packet) fate { return fate{drop: p.to == 4 && p.payload[1] <= chunkKind} })
	change = background(func() error { return l.group(1).SetMembers(c.ctx, voters(1, 2, 3, 4)) })
	c.eventually("node 4 is a learner", func() bool { return len(l.group(1).Status().Learners) == 1 })
	beats()
	require.Equal(t, []uint64{4}, l.group(1).Status().Learners)
	require.Equal(t, []uint64{1, 2, 3}, l.group(1).Status().Members)
	c.network.healAll()
	require.NoError(t, receive(c, change, "the change"))
	c.check(1)
}

func testAddMember(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{spare: 1, group: compacting})
	c.writes(1, 2, 30)
	m := c.join(4)
	require.Empty(t, m.group(1).Status().Members)
	from := c.member(1).events.now()
	c.setMembers(voters(1, 2, 3, 4))
	for _, m := range c.running() {
		m.awaitMembers(1, 2, 3, 4)
	}
	c.check(1)
	// It was a learner before.
	learner := false
	for _, e := range c.member(1).events.all(from) {
		if e.Kind == synod.EventMembershipChanged {
			i := slices.IndexFunc(e.Configuration, func(m synod.Member) bool { return m.Node == 4 })
			learner = learner || i >= 0 && e.Configuration[i].Learner
			require.True(t, learner || !slices.Contains(e.Members, 4))
		}
	}
	require.True(t, learner)
	// It counts: of four, three are a majority.
	c.crash(c.others(c.leader(1))[0].id)
	c.writes(1, 2, 10)
	c.check(1)
	for id := range uint64(4) {
		if c.member(id+1) == nil {
			c.restart(id + 1)
		}
	}
	c.check(1)
	c.setMembers(voters(1, 2, 3, 4)) // no change
}

func testRemoveMember(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 2, 5)
	gone := c.others(c.leader(1))[0]
	rest := slices.DeleteFunc(c.ids(), func(id uint64) bool { return id == gone.id })
	c.setMembers(voters(rest...))
	require.ErrorIs(t, gone.awaitFailed(), synod.ErrRemoved)
	require.ErrorIs(t, gone.group(1).Barrier(c.ctx), synod.ErrRemoved)
	c.writes(1, 2, 5, c.others(gone)...)
	require.ErrorIs(t, gone.node.Leave(c.ctx, 1), replica.ErrRunning)
	require.NoError(t, gone.closeGroup(1))
	require.NoError(t, gone.node.Leave(c.ctx, 1))
	require.ErrorIs(t, gone.node.Leave(c.ctx, 1), replica.ErrNotBootstrapped)
	require.ErrorIs(t, gone.startGroup(1), replica.ErrNotBootstrapped)
	require.ErrorIs(t, gone.node.Bootstrap(c.ctx, 1, c.ids()), replica.ErrBootstrapped, "it was a member")
	stream := c.exported(c.leader(1, c.others(gone)...))
	require.ErrorIs(t, gone.node.Import(c.ctx, 1, voters(gone.id), bytes.NewReader(stream)), replica.ErrBootstrapped, "it was a member")
	records, err := gone.disk.records()
	require.NoError(t, err)
	require.False(t, slices.ContainsFunc(records, func(r record) bool { return recordKind(r.key) == "group" }))

	require.NoError(t, gone.node.Join(c.ctx, 1))
	require.ErrorIs(t, gone.node.Join(c.ctx, 1), replica.ErrBootstrapped)
	require.NoError(t, gone.startGroup(1))
	c.setMembers(voters(1, 2, 3))
	gone.awaitMembers(1, 2, 3)
	c.writes(1, 2, 5)
	c.check(1)
}

func testLeaveMember(t *testing.T, engine Engine) {
	for _, admitted := range []bool{false, true} {
		c := newCluster(t, engine, options{spare: 1})
		if admitted {
			c.setMembers([]synod.Member{{Node: 1, Address: "one:1"}, {Node: 2}, {Node: 3}})
		}
		c.writes(1, 1, 5)
		c.check(1)
		m := c.others(c.leader(1))[0]
		require.NoError(t, m.closeGroup(1))
		before, err := m.disk.records()
		require.NoError(t, err)
		require.ErrorIs(t, m.node.Leave(c.ctx, 1), replica.ErrMember)
		after, err := m.disk.records()
		require.NoError(t, err)
		requireKept(t, before, after, 1, "a member left")
		require.NoError(t, m.startGroup(1))
		c.writes(1, 1, 5)
		c.check(1)
		// One that is removed and added again before it has left is counted on again.
		rest := slices.DeleteFunc(c.ids(), func(id uint64) bool { return id == m.id })
		c.setMembers(voters(rest...))
		require.ErrorIs(t, m.awaitFailed(), synod.ErrRemoved)
		require.NoError(t, m.closeGroup(1))
		require.NoError(t, m.startGroup(1))
		c.setMembers(voters(1, 2, 3))
		c.check(1)
		require.NoError(t, m.closeGroup(1))
		require.ErrorIs(t, m.node.Leave(c.ctx, 1), replica.ErrMember)
		require.NoError(t, m.startGroup(1))
		c.check(1)
		// Who was told nothing yet may go.
		joined := c.join(4)
		require.NoError(t, joined.closeGroup(1))
		require.NoError(t, joined.node.Leave(c.ctx, 1))
	}
	// And so may the last one.
	c := newCluster(t, engine, options{size: 1})
	c.writes(1, 1, 5)
	require.NoError(t, c.member(1).closeGroup(1))
	require.NoError(t, c.member(1).node.Leave(c.ctx, 1))
}

func testForgetful(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.setMembers([]synod.Member{{Node: 1, Address: "one:1"}, {Node: 2}, {Node: 3}})
	c.writes(1, 1, 20)
	l := c.leader(1)
	id := c.others(l)[0].id
	c.check(1)
	c.stop(id)
	log := c.logRecords(id, 1)
	c.damage(id, damages[0], log[len(log)/2])
	m, err := c.open(id, nil)
	require.NoError(t, err)
	// Its records can't be read, and so can't say that it is a member.
	require.NoError(t, m.node.Leave(c.ctx, 1))
	// The leader would know what it had. One that leads from now on knows of nothing.
	c.eventually("another one leads", func() bool {
		l := c.leader(1, c.others(m)...)
		o := c.others(m)[0]
		if o == l {
			o = c.others(m)[1]
		}
		return l.group(1).TransferLeader(c.ctx, o.id) == nil
	})
	require.NoError(t, m.node.Join(c.ctx, 1))
	require.NoError(t, m.startGroup(1))
	require.ErrorIs(t, m.awaitFailed(), replica.ErrIncarnation)
	c.writes(1, 1, 5, c.others(m)...)
	rest := slices.DeleteFunc(c.ids(), func(o uint64) bool { return o == id })
	c.eventually("it is removed", func() bool { return c.leader(1, c.others(m)...).group(1).SetMembers(c.ctx, voters(rest...)) == nil })
	require.NoError(t, m.closeGroup(1))
	require.NoError(t, m.node.Leave(c.ctx, 1))
	require.NoError(t, m.node.Join(c.ctx, 1))
	require.NoError(t, m.startGroup(1))
	c.eventually("it is back", func() bool { return c.leader(1, c.others(m)...).group(1).SetMembers(c.ctx, voters(1, 2, 3)) == nil })
	m.awaitMembers(1, 2, 3)
	c.check(1)
}

func testRemoveLeader(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 2, 5)
	c.eventually("a leader removes itself", func() bool {
		l := c.leader(1)
		rest := slices.DeleteFunc(c.ids(), func(id uint64) bool { return id == l.id })
		err := l.group(1).SetMembers(c.ctx, voters(rest...))
		if errors.As(err, new(*synod.NotLeaderError)) {
			return false
		}
		require.NoError(t, err)
		require.ErrorIs(t, l.awaitFailed(), synod.ErrRemoved)
		for _, m := range c.others(l) {
			m.awaitMembers(rest...)
		}
		return true
	})
	c.writes(1, 2, 5)
	c.check(1)
}

func testReplaceAll(t *testing.T, engine Engine) {
	for _, kind := range []kind{plain, durable} {
		c := newCluster(t, engine, options{spare: 3, kind: kind, group: compacting})
		c.writes(1, 2, 30)
		ctx, cancel := context.WithCancel(c.ctx)
		var load sync.WaitGroup
		for range 4 {
			load.Go(func() {
				for ctx.Err() == nil {
					_, _ = c.tryWrite(ctx, 1)
				}
			})
		}
		for id := uint64(4); id <= 6; id++ {
			c.join(id)
		}
		c.setMembers(voters(4, 5, 6))
		for id := uint64(1); id <= 3; id++ {
			require.ErrorIs(t, c.member(id).awaitFailed(), synod.ErrRemoved)
		}
		cancel()
		load.Wait()
		for id := uint64(1); id <= 3; id++ {
			c.stop(id)
		}
		for _, m := range c.running() {
			m.awaitMembers(4, 5, 6)
		}
		c.writes(1, 2, 10)
		c.check(1)
		c.crash(c.leader(1).id)
		c.writes(1, 2, 10)
		c.check(1)
		for _, m := range c.running() {
			c.stop(m.id)
		}
	}
}

func testGrowAndShrink(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1, spare: 2})
	c.writes(1, 2, 5)
	c.join(2)
	c.join(3)
	c.setMembers(voters(1, 2, 3))
	c.writes(1, 2, 5)
	c.check(1)
	c.setMembers(voters(3))
	for _, id := range []uint64{1, 2} {
		require.ErrorIs(t, c.member(id).awaitFailed(), synod.ErrRemoved)
		c.stop(id)
	}
	c.writes(1, 2, 5)
	c.check(1)
	c.crash(3)
	c.restart(3)
	c.writes(1, 2, 5)
	c.check(1)
}

func testChangeSurvivesLeader(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{spare: 3})
	c.writes(1, 2, 5)
	for id := uint64(4); id <= 6; id++ {
		c.join(id)
	}
	// One of the new ones can't be reached after it has answered, so that the change waits for it.
	l := c.leader(1)
	from := l.events.now()
	begun := background(func() error { return l.group(1).SetMembers(c.ctx, voters(4, 5, 6)) })
	l.await(from, "node 4 is a learner", func(e synod.Event) bool {
		return e.Kind == synod.EventMembershipChanged && slices.ContainsFunc(e.Configuration, func(m synod.Member) bool { return m.Node == 4 })
	})
	c.network.isolate(6)
	c.crash(l.id)
	err := receive(c, begun, "the call on a leader that is gone")
	if err != nil {
		require.ErrorIs(t, err, synod.ErrUnknownOutcome)
	}
	c.writes(1, 2, 5)
	c.network.healAll()
	for id := uint64(4); id <= 6; id++ {
		c.member(id).awaitMembers(4, 5, 6)
	}
	c.writes(1, 2, 5, c.member(4), c.member(5), c.member(6))
	for _, m := range c.running() {
		if m.id <= 3 {
			require.ErrorIs(t, m.awaitFailed(), synod.ErrRemoved)
		}
	}
	c.check(1)
}

func testRefusedChanges(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{spare: 2})
	c.writes(1, 1, 3)
	l := c.leader(1)
	for what, members := range map[string][]synod.Member{
		"nobody":           nil,
		"node 0":           voters(0, 1),
		"a node twice":     voters(1, 2, 2),
		"no voter":         {{Node: 1, Learner: true}, {Node: 2, Learner: true}},
		"an address twice": {{Node: 1, Address: "a:1"}, {Node: 2, Address: "a:1"}},
		"a long address":   {{Node: 1, Address: strings.Repeat("a", 300)}},
	} {
		err := l.group(1).SetMembers(c.ctx, members)
		var bad *synod.ConfigError
		require.ErrorAs(t, err, &bad, what)
		require.Equal(t, "Members", bad.Field)
		require.Equal(t, engine.Name(), bad.Package)
	}
	var elsewhere *synod.NotLeaderError
	f := c.others(l)[0]
	err := f.group(1).SetMembers(c.ctx, voters(1, 2))
	require.ErrorAs(t, err, &elsewhere)
	require.Equal(t, l.id, elsewhere.Leader)

	// Node 4 answers, and then is not there: it does not catch up.
	c.join(4)
	from := l.events.now()
	hanging := background(func() error { return l.group(1).SetMembers(c.ctx, voters(1, 2, 3, 4)) })
	l.await(from, "the change begins", func(e synod.Event) bool { return e.Kind == synod.EventMembershipChanged })
	c.stop(4)
	c.eventually("another one is refused", func() bool {
		err := c.leader(1).group(1).SetMembers(c.ctx, voters(1, 2))
		if errors.As(err, new(*synod.NotLeaderError)) {
			return false
		}
		require.ErrorIs(t, err, synod.ErrChanging)
		return true
	})
	c.writes(1, 2, 5)
	c.setMembers(voters(1, 2, 3))
	if err := receive(c, hanging, "a change that was taken back"); err != nil && !errors.Is(err, synod.ErrUnknownOutcome) { // unless it was quick, or its leader fell
		require.ErrorIs(t, err, synod.ErrSuperseded)
	}
	c.leader(1).awaitMembers(1, 2, 3)
	require.Empty(t, c.leader(1).group(1).Status().Learners)
	c.check(1)
	// A caller that gives up does not know.
	c.eventually("it is waited for", func() bool {
		ctx, cancel := contextFor(c, attempt)
		defer cancel()
		err := c.leader(1).group(1).SetMembers(ctx, voters(1, 2, 3, 5))
		if errors.As(err, new(*synod.NotLeaderError)) {
			return false
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
		return true
	})
	c.leader(1).awaitMembers(1, 2, 3) // node 5 has never answered
	c.check(1)
}

func testWrongIncarnation(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{spare: 2})
	c.writes(1, 1, 3)
	c.join(4)
	for _, wrong := range []uint64{c.others(c.leader(1))[0].id, c.leader(1).id, 4} {
		c.eventually("it is refused", func() bool {
			members := voters(1, 2, 3)
			if wrong == 4 {
				members = append(members, synod.Member{Node: 4})
			}
			members[wrong-1].Incarnation = c.member(wrong).node.Status().Incarnation + 1
			err := c.leader(1).group(1).SetMembers(c.ctx, members)
			if errors.As(err, new(*synod.NotLeaderError)) {
				return false
			}
			require.ErrorIs(t, err, replica.ErrIncarnation)
			return true
		})
		s := c.leader(1).group(1).Status()
		require.Nil(t, s.Target)
		require.Equal(t, []uint64{1, 2, 3}, s.Members)
	}
	for _, m := range c.running() {
		require.NoError(t, m.group(1).Err())
	}
	// Of one that is not there nobody knows.
	c.eventually("it is waited for", func() bool {
		short, cancel := contextFor(c, attempt)
		defer cancel()
		err := c.leader(1).group(1).SetMembers(short, append(voters(1, 2, 3), synod.Member{Node: 5, Incarnation: 77}))
		if errors.As(err, new(*synod.NotLeaderError)) {
			return false
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
		return true
	})
	require.Equal(t, []uint64{1, 2, 3}, c.leader(1).group(1).Status().Members)
	// The right one is taken.
	members := append(voters(1, 2, 3), synod.Member{Node: 4, Incarnation: c.member(4).node.Status().Incarnation})
	c.setMembers(members)
	c.check(1)
}

func testChangesAtOnce(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 4})
	c.writes(1, 1, 3)
	l := c.leader(1)
	var rest []uint64
	for _, m := range c.others(l) {
		rest = append(rest, m.id)
	}
	// The first one is in the log, but nobody else can store it: it is not decided.
	last := l.group(1).Status().Last
	for _, id := range rest {
		c.disks[id].HoldSync()
	}
	first := background(func() error { return l.group(1).SetMembers(c.ctx, voters(l.id, rest[0], rest[1])) })
	c.eventually("the change is in the log", func() bool { return l.group(1).Status().Last > last })
	require.Nil(t, l.group(1).Status().Target)
	require.ErrorIs(t, l.group(1).SetMembers(c.ctx, voters(l.id, rest[1], rest[2])), synod.ErrChanging)
	same := background(func() error { return l.group(1).SetMembers(c.ctx, voters(l.id, rest[0], rest[1])) })
	// So is one that names the incarnation that a member has; one that names another wants that one in its place.
	named := voters(l.id, rest[0], rest[1])
	named[1].Incarnation = c.member(rest[0]).node.Status().Incarnation
	alike := background(func() error { return l.group(1).SetMembers(c.ctx, named) })
	wiped := slices.Clone(named)
	wiped[1].Incarnation++
	short, cancel := contextFor(c, attempt)
	defer cancel()
	require.ErrorIs(t, l.group(1).SetMembers(short, wiped), synod.ErrChanging)
	for _, id := range rest {
		c.disks[id].ReleaseSync()
	}
	require.NoError(t, receive(c, first, "the first change"))
	require.NoError(t, receive(c, same, "the same again"))
	require.NoError(t, receive(c, alike, "the same, by its incarnation"))
	require.Equal(t, slices.Sorted(slices.Values([]uint64{l.id, rest[0], rest[1]})), l.group(1).Status().Members)
	c.writes(1, 1, 3, l)
}

func testChangeInSnapshot(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{group: compacting})
	c.writes(1, 1, 3)
	l := c.leader(1)
	rest := c.others(l)
	addressed := func(name string) []synod.Member {
		members := voters(1, 2, 3)
		members[l.id-1].Address = name
		return members
	}
	// The change is in the log of all, but the leader does not learn that it is decided.
	last := l.group(1).Status().Last
	for _, m := range rest {
		m.disk.HoldSync()
	}
	change := background(func() error { return l.group(1).SetMembers(c.ctx, addressed("one:1")) })
	c.eventually("the change is in the log", func() bool { return l.group(1).Status().Last > last })
	for _, m := range rest {
		c.network.cut(m.id, l.id)
	}
	for _, m := range rest {
		m.disk.ReleaseSync()
		c.eventually("the others have it", func() bool { return m.group(1).Status().Last > last })
	}
	c.network.isolate(l.id)
	// The others complete it, and then another one.
	next := c.leader(1, rest...)
	c.eventually("the change is done", func() bool {
		s := next.group(1).Status()
		return s.Target == nil && s.Configuration[l.id-1].Address == "one:1"
	})
	require.NoError(t, c.leader(1, rest...).group(1).SetMembers(c.ctx, addressed("another:1")))
	c.eventually("the log is cut", func() bool {
		c.writes(1, 1, 20, rest...)
		return !slices.ContainsFunc(rest, func(m *member) bool { return m.group(1).Status().First <= last+5 })
	})
	from := l.events.now()
	c.network.healAll()
	l.awaitKind(from, synod.EventSnapshotInstalled, 1)
	c.writes(1, 1, 3)
	require.ErrorIs(t, receive(c, change, "the call on the old leader"), synod.ErrUnknownOutcome)
	c.check(1)
}

func testChangeNotBegun(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{spare: 1})
	c.writes(1, 1, 3)
	l := c.leader(1)
	// Node 4 is not there, so that there is nothing in the log.
	waits := background(func() error { return l.group(1).SetMembers(c.ctx, voters(1, 2, 3, 4)) })
	c.eventually("leadership is moved", func() bool { return l.group(1).TransferLeader(c.ctx, c.others(l)[0].id) == nil })
	require.ErrorAs(t, receive(c, waits, "the call on the old leader"), new(*synod.NotLeaderError))
	require.Equal(t, []uint64{1, 2, 3}, c.leader(1).group(1).Status().Members)
	c.check(1)
}

func testReadmit(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{group: compacting})
	c.writes(1, 2, 20)
	c.check(1)
	wiped := c.others(c.leader(1))[0].id
	c.stop(wiped)
	c.wipe(wiped)
	back := c.join(wiped)
	l := c.leader(1, c.others(back)...)
	// Nobody listens to it, and as long as nothing is said about it, nothing changes.
	require.NoError(t, l.group(1).SetMembers(c.ctx, voters(1, 2, 3)))
	incarnation := back.node.Status().Incarnation
	members := voters(1, 2, 3)
	members[wiped-1].Incarnation = incarnation
	from := l.events.now()
	require.NoError(t, l.group(1).SetMembers(c.ctx, members))
	back.awaitMembers(1, 2, 3)
	learner, out := false, false
	for _, e := range l.events.all(from) {
		if e.Kind != synod.EventMembershipChanged {
			continue
		}
		i := slices.IndexFunc(e.Configuration, func(m synod.Member) bool { return m.Node == wiped })
		out = out || i < 0
		learner = learner || i >= 0 && e.Configuration[i].Learner
		if i >= 0 && e.Configuration[i].Incarnation == incarnation {
			require.True(t, out, "the new one takes the place of the old before that has left")
		}
	}
	require.True(t, learner && out)
	c.check(1)
	// It counts again.
	for _, m := range c.others(back) {
		if m.id != c.leader(1).id {
			c.crash(m.id)
			break
		}
	}
	c.writes(1, 2, 5)
	for id := range uint64(3) {
		if c.member(id+1) == nil {
			c.restart(id + 1)
		}
	}
	c.check(1)
	// And it is known after everybody has been started again.
	for id := uint64(1); id <= 3; id++ {
		c.stop(id)
	}
	for id := uint64(1); id <= 3; id++ {
		c.restart(id)
	}
	c.writes(1, 2, 5)
	c.check(1)
}

func testOldCopy(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 2, 5)
	c.check(1)
	victim := c.others(c.leader(1))[0].id
	for _, stopped := range []bool{true, false} {
		// The copy is one of a node that was stopped, or one that was made while it ran.
		if stopped {
			c.stop(victim)
		}
		var copied []record
		var err error
		if stopped {
			copied, err = c.disks[victim].records()
			require.NoError(t, err)
			c.restart(victim)
		} else {
			copied, err = c.member(victim).disk.records()
			require.NoError(t, err)
		}
		c.writes(1, 2, 5)
		c.check(1)
		c.stop(victim)
		d, err := diskOf(copied)
		require.NoError(t, err)
		c.mu.Lock()
		c.disks[victim] = d
		c.mu.Unlock()
		old := c.restart(victim)
		require.ErrorIs(t, old.awaitFailed(), synod.ErrRolledBack)
		require.ErrorIs(t, old.startGroup(1), synod.ErrRolledBack)
		c.writes(1, 2, 5, c.others(old)...)
		c.stop(victim)
		c.wipe(victim)
		back := c.join(victim)
		members := voters(1, 2, 3)
		members[victim-1].Incarnation = back.node.Status().Incarnation
		c.setMembers(members)
		back.awaitMembers(1, 2, 3)
		c.check(1)
	}
}

func testOldCopyAlone(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1, spare: 2})
	c.writes(1, 1, 3)
	c.join(2)
	c.join(3)
	// It has met the others, and they are no members yet.
	c.setMembers([]synod.Member{{Node: 1}, {Node: 2, Learner: true}})
	c.setMembers(voters(1))
	c.stop(1)
	copied, err := c.disks[1].records()
	require.NoError(t, err)
	c.restart(1)
	require.ErrorIs(t, c.member(2).awaitFailed(), synod.ErrRemoved)
	require.NoError(t, c.member(2).closeGroup(1))
	require.NoError(t, c.member(2).node.Leave(c.ctx, 1))
	require.NoError(t, c.member(2).node.Join(c.ctx, 1))
	require.NoError(t, c.member(2).startGroup(1))
	c.setMembers(voters(1, 2, 3))
	c.writes(1, 1, 5)
	c.check(1)
	c.stop(1)
	d, err := diskOf(copied)
	require.NoError(t, err)
	c.mu.Lock()
	c.disks[1] = d
	c.mu.Unlock()
	old := c.restart(1)
	_, err = c.proposeOnce(old)
	require.Error(t, err)
	require.ErrorIs(t, old.awaitFailed(), synod.ErrRolledBack)
	c.writes(1, 1, 5, c.member(2), c.member(3))
	c.stop(1)
	c.check(1)
}

func testHeldVote(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 2, 5)
	for id := uint64(1); id <= 3; id++ {
		c.stop(id)
	}
	// Of three, two are enough; they wait for the third, but not for ever.
	c.restart(1)
	c.restart(2)
	c.writes(1, 1, 3)
	c.restart(3)
	c.check(1)
}

func testRemovedWhileAway(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{spare: 1})
	c.writes(1, 2, 5)
	away := c.others(c.leader(1))[0].id
	c.stop(away)
	rest := slices.DeleteFunc(c.ids(), func(id uint64) bool { return id == away })
	c.setMembers(voters(rest...))
	c.writes(1, 2, 5)
	back := c.restart(away)
	require.ErrorIs(t, back.awaitFailed(), synod.ErrRemoved)
	c.writes(1, 2, 5, c.others(back)...)
	c.check(1)
	// Someone else under its ID is another node.
	c.stop(away)
	c.wipe(away)
	c.join(away)
	l := c.leader(1, c.others(c.member(away))...)
	err := l.group(1).SetMembers(c.ctx, voters(1, 2, 3))
	require.ErrorIs(t, err, replica.ErrIncarnation)
	c.stop(away)
	c.check(1)
}

func testLateAnswer(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 1, 5)
	m := c.others(c.leader(1))[0]
	rest := slices.DeleteFunc(c.ids(), func(id uint64) bool { return id == m.id })
	var mu sync.Mutex
	var late []packet
	c.network.setRule(func(p packet) fate {
		if p.to == m.id && p.payload[1] == goneKind {
			mu.Lock()
			defer mu.Unlock()
			late = append(late, packet{link: p.link, payload: bytes.Clone(p.payload)})
		}
		return fate{}
	})
	c.setMembers(voters(rest...))
	require.ErrorIs(t, m.awaitFailed(), synod.ErrRemoved)
	// What the later run asks before it is a member again has the same answer, which is true then, and would end it.
	c.network.setRule(func(p packet) fate { return fate{drop: p.to == m.id && p.payload[1] == goneKind} })
	c.network.drain()
	require.NoError(t, m.closeGroup(1))
	from := m.events.now()
	require.NoError(t, m.startGroup(1))
	mu.Lock()
	require.NotEmpty(t, late)
	for _, p := range late {
		c.network.inject(p.from, p.to, p.payload)
	}
	mu.Unlock()
	c.setMembers(voters(1, 2, 3))
	c.network.setRule(nil)
	c.check(1)
	for _, e := range m.events.all(from) {
		require.NotEqual(t, synod.EventGroupFailed, e.Kind, "%v", e.Err)
	}
}

func testJoinerSnapshot(t *testing.T, engine Engine) {
	for _, kind := range []kind{plain, batched, durable} {
		c := newCluster(t, engine, options{spare: 1, kind: kind})
		c.writes(1, 2, 10)
		m := c.join(4)
		c.setMembers(voters(1, 2, 3, 4))
		m.awaitMembers(1, 2, 3, 4)
		c.check(1)
		c.crash(4)
		m = c.restart(4)
		c.check(1)
		require.NoError(t, m.group(1).Err())
		for _, m := range c.running() {
			c.stop(m.id)
		}
	}
}
