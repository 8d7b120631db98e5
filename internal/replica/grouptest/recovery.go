package grouptest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

var recoveryRules = []rule{
	{"a group that is exported and imported elsewhere has the same state, and goes on", testExport},
	{"what is exported while a state machine is ahead of the log is not ahead of it elsewhere", testExportAhead},
	{"a replica that has received nothing has nothing to export", testExportNothing},
	{"an import is there as a whole or not at all", testImportCrash},
	{"what is not an exported group is refused, and leaves nothing", testImportMalformed},
	{"who waits for an import does so no longer than it wants", testImportWaits},
	{"sessions are exported with the state", testExportSessions},
	{"an export ends with its group, and when its writer or its caller wants no more", testExportEnds},
	{"a survivor goes on without its majority, by an explicit call, and the group grows again", testRecover},
	{"a recovery that is not wanted, or not possible, is refused and changes nothing", testRecoverRefused},
	{"members that were given up are not listened to", testGivenUp},
	{"nor is a member that a change was about to remove", testGivenUpEarlier},
}

func (c *cluster) exported(m *member) []byte {
	c.Helper()
	require.NoError(c, m.group(1).Barrier(c.ctx))
	var b bytes.Buffer
	require.NoError(c, m.group(1).Export(c.ctx, &b))
	return b.Bytes()
}

func testExport(t *testing.T, engine Engine) {
	for _, from := range []kind{plain, batched, durable} {
		for _, to := range []kind{plain, durable} {
			c := newCluster(t, engine, options{kind: from, group: compacting})
			index := c.writes(1, 2, 30)
			c.check(1)
			m := c.others(c.leader(1))[0]
			stream := c.exported(m)
			state := m.machine(1).state()
			require.GreaterOrEqual(t, len(state), int(index))
			c.writes(1, 1, 3) // it goes on
			c.check(1)
			for _, m := range c.running() {
				c.stop(m.id)
			}

			other := newCluster(t, engine, options{kind: to, group: compacting, stopped: true})
			other.names.Store(c.names.Load()) // commands have names that nobody used before
			for id := uint64(1); id <= 3; id++ {
				m, err := other.open(id, nil)
				require.NoError(t, err)
				require.NoError(t, m.node.Import(other.ctx, 1, voters(1, 2, 3), bytes.NewReader(stream)))
				require.ErrorIs(t, m.node.Import(other.ctx, 1, voters(1, 2, 3), bytes.NewReader(stream)), replica.ErrBootstrapped)
				require.NoError(t, m.startGroup(1))
				require.Equal(t, state, m.machine(1).state())
			}
			after := other.write(1)
			require.Equal(t, uint64(len(state))+1, after)
			other.check(1)
			other.crash(1, 2, 3)
			for id := uint64(1); id <= 3; id++ {
				other.restart(id)
			}
			other.check(1)
			require.Equal(t, state, other.member(1).machine(1).state()[:len(state)])
			for _, m := range other.running() {
				other.stop(m.id)
			}
		}
	}
}

func testExportAhead(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{kind: durable})
	c.writes(1, 1, 30)
	c.check(1)
	// It has the commands, but has not heard yet that they are decided.
	behind := c.others(c.leader(1))[0].id
	c.stop(behind)
	c.network.isolate(behind)
	m := c.restart(behind)
	require.GreaterOrEqual(t, m.machine(1).index(), uint64(30))
	short, cancel := contextFor(c, attempt)
	defer cancel()
	var early bytes.Buffer
	err := m.group(1).Export(short, &early)
	if err != nil {
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Zero(t, early.Len())
	}
	var late bytes.Buffer
	exporting := background(func() error { return m.group(1).Export(c.ctx, &late) })
	c.network.healAll()
	require.NoError(t, receive(c, exporting, "an export of what has been replayed"))
	streams := [][]byte{late.Bytes()}
	if err == nil {
		streams = append(streams, early.Bytes())
	}
	for _, stream := range streams {
		other := newCluster(t, engine, options{size: 1, stopped: true})
		other.names.Store(c.names.Load())
		m, err := other.open(1, nil)
		require.NoError(t, err)
		require.NoError(t, m.node.Import(other.ctx, 1, voters(1), bytes.NewReader(stream)))
		require.NoError(t, m.startGroup(1))
		had := m.machine(1).index()
		require.GreaterOrEqual(t, had, uint64(30))
		for range 5 {
			short, cancel := contextFor(other, 10*attempt)
			index, err := other.tryWrite(short, 1)
			cancel()
			require.NoError(t, err)
			had++
			require.Equal(t, had, index)
		}
		other.check(1)
		other.stop(1)
	}
	// One that waits ends with its group.
	c.stop(behind)
	c.network.isolate(behind)
	m = c.restart(behind)
	g := m.group(1)
	waiting := background(func() error { return g.Export(c.ctx, io.Discard) })
	require.NoError(t, m.closeGroup(1))
	if err := receive(c, waiting, "an export whose group closes"); err != nil {
		require.ErrorIs(t, err, synod.ErrClosed)
	}
	require.ErrorIs(t, g.Export(c.ctx, io.Discard), synod.ErrClosed)
}

func testExportNothing(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{spare: 1})
	m := c.join(4)
	var b bytes.Buffer
	err := m.group(1).Export(c.ctx, &b)
	require.ErrorIs(t, err, replica.ErrNotBootstrapped)
	require.Zero(t, b.Len())
}

func testExportSessions(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1})
	m := c.member(1)
	require.NoError(t, m.group(1).Barrier(c.ctx))
	session, err := m.group(1).OpenSession(c.ctx, time.Hour)
	require.NoError(t, err)
	request := synod.Request{Session: session, Sequence: 1, Floor: 1}
	first, err := m.group(1).ProposeOnce(c.ctx, request, []byte("once"))
	require.NoError(t, err)
	stream := c.exported(m)
	c.stop(1)
	c.wipe(1)
	m, err = c.open(1, nil)
	require.NoError(t, err)
	require.NoError(t, m.node.Import(c.ctx, 1, voters(1), bytes.NewReader(stream)))
	require.NoError(t, m.startGroup(1))
	require.NoError(t, m.group(1).Barrier(c.ctx))
	again, err := m.group(1).ProposeOnce(c.ctx, request, []byte("once"))
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Len(t, m.machine(1).state(), 1)
}

func testImportCrash(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1, machine: large})
	c.writes(1, 2, 5)
	stream := c.exported(c.member(1))
	state := c.member(1).machine(1).state()
	c.stop(1)
	done := false
	for commits := 1; !done; commits++ {
		require.Less(t, commits, 100)
		c.wipe(1)
		m, err := c.open(1, nil)
		require.NoError(t, err)
		c.disks[1].holdFrom(commits)
		importing := background(func() error { return m.node.Import(c.ctx, 1, voters(1), bytes.NewReader(stream)) })
		held := background(func() error { return c.disks[1].awaitHeld(c.ctx) })
		select {
		case err := <-importing:
			require.NoError(t, err)
			done = true
			c.disks[1].ReleaseSync()
		case err := <-held:
			require.NoError(t, err)
		}
		bury := c.kill(1)
		if !done {
			<-importing
		}
		bury()
		m, err = c.open(1, nil)
		require.NoError(t, err)
		if err := m.startGroup(1); err != nil {
			require.ErrorIs(t, err, replica.ErrNotBootstrapped, "after %d commits", commits)
			require.False(t, done)
			require.NoError(t, m.node.Import(c.ctx, 1, voters(1), bytes.NewReader(stream)))
			require.NoError(t, m.startGroup(1))
		}
		require.Equal(t, state, m.machine(1).state())
		c.stop(1)
		records, err := c.disks[1].records()
		require.NoError(t, err)
		chunks := make(map[string]bool)
		for _, r := range records {
			if recordKind(r.key) == "chunk" {
				chunks[string(r.key[10:18])] = true
			}
		}
		require.LessOrEqual(t, len(chunks), 1, "chunks of an import that did not come to its end")
	}
}

func testImportMalformed(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1})
	c.writes(1, 1, 3)
	stream := c.exported(c.member(1))
	c.stop(1)
	c.wipe(1)
	m, err := c.open(1, nil)
	require.NoError(t, err)
	before, err := c.disks[1].records()
	require.NoError(t, err)
	refused := func(b []byte, what string) {
		err := m.node.Import(c.ctx, 1, voters(1), bytes.NewReader(b))
		require.ErrorIs(t, err, storage.ErrCorrupt, what)
		require.ErrorContains(t, err, engine.Name())
		after, err := c.disks[1].records()
		require.NoError(t, err)
		require.Equal(t, before, after, what)
		require.ErrorIs(t, m.startGroup(1), replica.ErrNotBootstrapped, what)
	}
	for n := range stream {
		refused(stream[:n], fmt.Sprintf("cut at byte %d", n))
	}
	for i := range 8 * len(stream) {
		damaged := bytes.Clone(stream)
		damaged[i/8] ^= 1 << (i % 8)
		refused(damaged, fmt.Sprintf("bit %d", i))
	}
	var bad *synod.ConfigError
	require.ErrorAs(t, m.node.Import(c.ctx, 1, voters(2), bytes.NewReader(stream)), &bad)
	require.Equal(t, "Members", bad.Field)
	broken := errors.New("the disk is on fire")
	require.ErrorIs(t, m.node.Import(c.ctx, 1, voters(1), io.MultiReader(bytes.NewReader(stream[:len(stream)/2]), failing{broken})), broken)
	require.NoError(t, m.node.Import(c.ctx, 1, voters(1), io.MultiReader(bytes.NewReader(stream), strings.NewReader("and more"))))
	require.NoError(t, m.startGroup(1))
}

func testImportWaits(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1, machine: large})
	c.writes(1, 1, 3)
	m := c.member(1)
	stream := c.exported(m)
	r, w := io.Pipe()
	importing := background(func() error { return m.node.Import(c.ctx, 2, voters(1), r) })
	_, err := w.Write(stream[:len(stream)/2])
	require.NoError(t, err)
	c.eventually("the import has begun", func() bool {
		records, err := m.disk.records()
		require.NoError(t, err)
		return slices.ContainsFunc(records, func(r record) bool { return r.key[0] == 'g' && binary.BigEndian.Uint64(r.key[1:]) == 2 })
	})
	short, cancel := contextFor(c, heartbeat)
	defer cancel()
	require.ErrorIs(t, m.node.Bootstrap(short, 3, []uint64{1}), context.DeadlineExceeded)
	require.ErrorIs(t, m.node.Join(short, 3), context.DeadlineExceeded)
	require.ErrorIs(t, m.node.Leave(short, 1), context.DeadlineExceeded)
	waits := background(func() error { return m.node.Bootstrap(c.ctx, 3, []uint64{1}) })
	_, err = w.Write(stream[len(stream)/2:])
	require.NoError(t, err)
	require.NoError(t, receive(c, importing, "the import"))
	require.NoError(t, receive(c, waits, "who waited for it"))
	require.NoError(t, m.startGroup(2))
	require.NoError(t, m.startGroup(3))
	c.writes(2, 1, 3)
	c.writes(3, 1, 3)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

func testExportEnds(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1, machine: large})
	c.writes(1, 1, 5)
	m := c.member(1)
	broken := errors.New("the line is cut")
	require.ErrorIs(t, m.group(1).Export(c.ctx, failing{broken}), broken)
	// One that is written slowly is waited for when the group closes, and ends.
	r, w := io.Pipe()
	exporting := background(func() error { return m.group(1).Export(c.ctx, w) })
	_, err := r.Read(make([]byte, 1))
	require.NoError(t, err)
	g := m.group(1)
	closing := background(func() error { return m.closeGroup(1) })
	require.NoError(t, r.CloseWithError(broken))
	require.Error(t, receive(c, exporting, "an export whose group closes"))
	require.NoError(t, receive(c, closing, "the group closes"))
	require.ErrorIs(t, g.Export(c.ctx, io.Discard), synod.ErrClosed)
}

// survivor stops a cluster of three after writes, and returns one of its nodes.
func (c *cluster) survivor() uint64 {
	c.Helper()
	c.writes(1, 2, 20)
	c.check(1)
	for _, m := range c.running() {
		c.stop(m.id)
	}
	return 2
}

func testRecover(t *testing.T, engine Engine) {
	for _, kind := range []kind{plain, durable} {
		c := newCluster(t, engine, options{kind: kind, group: compacting, spare: 1})
		// A change of members is in the log.
		c.writes(1, 1, 5)
		c.join(4)
		c.setMembers(voters(1, 2, 3, 4))
		id := c.survivor()
		remains, err := engine.Inspect(c.ctx, c.disks[id])
		require.NoError(t, err)
		require.Len(t, remains, 1)
		require.NoError(t, remains[0].Err)
		require.Equal(t, uint64(1), remains[0].Group)
		require.Len(t, remains[0].Members, 4)
		require.NoError(t, engine.Recover(c.ctx, replica.RecoverConfig{Cluster: clusterName, Node: id, Group: 1, Store: c.disks[id], AcceptLoss: true}))
		after, err := engine.Inspect(c.ctx, c.disks[id])
		require.NoError(t, err)
		require.NoError(t, after[0].Err)
		require.Equal(t, remains[0].Term+1, after[0].Term)
		require.Equal(t, remains[0].Last, after[0].Commit)
		require.NotZero(t, remains[0].LastTerm)
		require.LessOrEqual(t, remains[0].LastTerm, remains[0].Term)
		require.Len(t, after[0].Members, 1)
		m := c.restart(id)
		c.writes(1, 2, 5)
		c.check(1)
		require.Equal(t, []uint64{id}, m.group(1).Status().Members)
		for _, other := range []uint64{1, 3} {
			c.wipe(other)
			c.mu.Lock()
			delete(c.machineDisks, link{other, 1})
			c.mu.Unlock()
			c.join(other)
		}
		members := voters(1, 2, 3)
		for i := range members {
			members[i].Incarnation = c.member(members[i].Node).node.Status().Incarnation
		}
		c.setMembers(members)
		c.writes(1, 2, 5)
		c.check(1)
		c.crash(id)
		c.writes(1, 2, 5)
		c.restart(id)
		c.check(1)
		for _, m := range c.running() {
			c.stop(m.id)
		}
	}
}

func testRecoverRefused(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	id := c.survivor()
	before, err := c.disks[id].records()
	require.NoError(t, err)
	good := replica.RecoverConfig{Cluster: clusterName, Node: id, Group: 1, Store: c.disks[id], AcceptLoss: true}
	try := func(change func(*replica.RecoverConfig)) error {
		cfg := good
		change(&cfg)
		err := engine.Recover(c.ctx, cfg)
		require.Error(t, err)
		after, err2 := c.disks[id].records()
		require.NoError(t, err2)
		require.Equal(t, before, after)
		return err
	}
	for field, change := range map[string]func(*replica.RecoverConfig){
		"Cluster":    func(c *replica.RecoverConfig) { c.Cluster = "" },
		"Node":       func(c *replica.RecoverConfig) { c.Node = 0 },
		"Group":      func(c *replica.RecoverConfig) { c.Group = 0 },
		"Store":      func(c *replica.RecoverConfig) { c.Store = nil },
		"AcceptLoss": func(c *replica.RecoverConfig) { c.AcceptLoss = false },
	} {
		var bad *synod.ConfigError
		require.ErrorAs(t, try(change), &bad, field)
		require.Equal(t, field, bad.Field)
		require.Equal(t, engine.Name(), bad.Package)
	}
	require.ErrorIs(t, try(func(c *replica.RecoverConfig) { c.Node = 1 }), replica.ErrForeignStore)
	require.ErrorIs(t, try(func(c *replica.RecoverConfig) { c.Cluster = "another" }), replica.ErrForeignStore)
	require.ErrorIs(t, try(func(c *replica.RecoverConfig) { c.Group = 9 }), replica.ErrNotBootstrapped)
	require.ErrorIs(t, try(func(c *replica.RecoverConfig) { c.Store = memory.Open(memory.Config{}) }), replica.ErrNotBootstrapped)
	for i, r := range before {
		switch recordKind(r.key) {
		case "peer", "run", "count", "chunk":
			continue
		}
		damaged := clone(before)
		damaged[i].value[len(r.value)/2] ^= 8
		d, err := diskOf(damaged)
		require.NoError(t, err)
		require.ErrorIs(t, try(func(c *replica.RecoverConfig) { c.Store = d }), storage.ErrCorrupt, recordKind(r.key))
	}
	// A node that was removed has nothing to say.
	c.start(1)
	c.start(2)
	c.start(3)
	c.setMembers(voters(1, 3))
	require.ErrorIs(t, c.member(2).awaitFailed(), synod.ErrRemoved)
	c.stop(2)
	err = engine.Recover(c.ctx, good)
	require.ErrorIs(t, err, synod.ErrRemoved)
	c.check(1)
}

func testGivenUp(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	id := c.survivor()
	require.NoError(t, engine.Recover(c.ctx, replica.RecoverConfig{Cluster: clusterName, Node: id, Group: 1, Store: c.disks[id], AcceptLoss: true}))
	survivor := c.restart(id)
	c.writes(1, 1, 5, survivor)
	before := survivor.machine(1).state()
	// The others come back by mistake. They are a majority of what was, and go on as that.
	rest := slices.DeleteFunc(c.ids(), func(o uint64) bool { return o == id })
	for _, o := range rest {
		c.restart(o)
	}
	survivor.await(0, "those who were given up are refused", func(e synod.Event) bool {
		return e.Kind == synod.EventPeerRefused && slices.Contains(rest, e.Peer) && errors.Is(e.Err, replica.ErrIncarnation)
	})
	for range 10 {
		_, _ = c.proposeOnce(c.member(rest[0]))
		_, _ = c.proposeOnce(c.member(rest[1]))
	}
	require.NoError(t, survivor.group(1).Err())
	index := c.write(1, survivor)
	require.NoError(t, survivor.machine(1).await(c.ctx, index))
	require.Equal(t, before, survivor.machine(1).state()[:len(before)])
	require.Equal(t, len(before)+1, len(survivor.machine(1).state()))
}

func testGivenUpEarlier(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 5})
	c.writes(1, 1, 5)
	l := c.leader(1)
	rest := c.others(l)
	gone := rest[0].id
	stay := slices.DeleteFunc(c.ids(), func(id uint64) bool { return id == gone })
	// The last step of the removal gets into the leader's log, and no further.
	from := l.events.now()
	change := background(func() error { return l.group(1).SetMembers(c.ctx, voters(stay...)) })
	both := 0
	l.await(from, "old and new voters decide together", func(e synod.Event) bool {
		if e.Kind == synod.EventMembershipChanged {
			both++
		}
		return both == 2
	})
	c.network.isolate(l.id)
	for _, m := range rest {
		c.crash(m.id)
	}
	last := l.group(1).Status().Last
	c.eventually("the last step is in the log", func() bool {
		s := l.group(1).Status()
		return s.Last > last || s.Leader != l.id
	})
	c.stop(l.id)
	require.Error(t, receive(c, change, "a change whose leader is gone"))
	remains, err := engine.Inspect(c.ctx, c.disks[l.id])
	require.NoError(t, err)
	require.NoError(t, remains[0].Err)
	named := func(list []synod.Member) bool {
		return slices.ContainsFunc(list, func(m synod.Member) bool { return m.Node == gone })
	}
	require.True(t, named(remains[0].Members) || named(remains[0].Earlier))
	require.NoError(t, engine.Recover(c.ctx, replica.RecoverConfig{Cluster: clusterName, Node: l.id, Group: 1, Store: c.disks[l.id], AcceptLoss: true}))
	c.network.healAll()
	survivor := c.restart(l.id)
	c.writes(1, 1, 5, survivor)
	c.restart(gone)
	survivor.await(0, "who was about to be removed is refused", func(e synod.Event) bool {
		return e.Kind == synod.EventPeerRefused && e.Peer == gone && e.Group == 1 && errors.Is(e.Err, replica.ErrIncarnation)
	})
	c.writes(1, 1, 5, survivor)
}
