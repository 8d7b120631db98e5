package grouptest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

var faultRules = []rule{
	{"a sync that fails on a follower stops its groups with the reason, and the others go on",
		func(t *testing.T, engine Engine) { testFailedStore(t, engine, false, (*disk).failSync) }},
	{"a sync that fails on the leader stops its groups with the reason, and the others go on",
		func(t *testing.T, engine Engine) { testFailedStore(t, engine, true, (*disk).failSync) }},
	{"a write that fails on the leader stops its groups with the reason, and the others go on",
		func(t *testing.T, engine Engine) { testFailedStore(t, engine, true, (*disk).failCommit) }},
	{"a leader without space refuses commands with ErrNoSpace, loses nothing, and goes on when there is room", testFullLeader},
	{"a follower without space does not disturb the group, and catches up when there is room", testFullFollower},
	{"what gathers while the store stalls is committed in parts that a store takes",
		func(t *testing.T, engine Engine) { testStalledStore(t, engine, false) }},
	{"what gathers while the store stalls, and finds it full, is committed in its order when there is room",
		func(t *testing.T, engine Engine) { testStalledStore(t, engine, true) }},
	{"more bytes than MaxUnwrittenBytes do not gather on a leader whose store stalls", testUnwrittenLeader},
	{"more bytes than MaxUnwrittenBytes do not gather on a follower whose store stalls", testUnwrittenFollower},
	{"a state machine that panics in Apply stops its group on its node alone",
		func(t *testing.T, engine Engine) { testPanic(t, engine, plain) }},
	{"a state machine that panics in ApplyBatch stops its group on its node alone",
		func(t *testing.T, engine Engine) { testPanic(t, engine, batched) }},
	{"a state machine that panics in Snapshot, or while one is written, stops its group on its node alone", testSnapshotPanics},
	{"a state machine that gives no snapshot is asked again", testSnapshotErrors},
	{"a state machine that can't be restored stops its group on its node alone", testRestoreFails},
	{"more calls than MaxPending are refused with ErrOverloaded, and none is dropped",
		func(t *testing.T, engine Engine) {
			testOverload(t, engine, func(cfg *replica.Settings) { cfg.MaxPending = overloadCalls })
		}},
	{"more bytes than MaxPendingBytes are refused with ErrOverloaded, and none is dropped",
		func(t *testing.T, engine Engine) {
			testOverload(t, engine, func(cfg *replica.Settings) {
				// What an engine adds to commands in its log counts there too, overloadCalls times
				// if none shares an entry: less than a command's bytes.
				cfg.MaxPendingBytes, cfg.MaxCommandBytes = (overloadCalls+1)*overloadBytes-1, overloadBytes
			})
		}},
	{"a state machine that is slow holds up its callers alone", testSlowMachine},
}

func (d *disk) failSync(cause error)   { d.FailSync(1, cause) }
func (d *disk) failCommit(cause error) { d.FailCommit(1, cause) }

// mixed runs half of the members' groups by odd IDs and half by even ones: the
// default of two loops.
const mixed = 3

func testFailedStore(t *testing.T, engine Engine, leader bool, fail func(*disk, error)) {
	c := newCluster(t, engine, options{groups: mixed})
	for g := uint64(1); g <= mixed; g++ {
		c.writes(g, 2, 3)
	}
	victim := c.leader(1)
	if !leader {
		victim = c.others(victim)[0]
	}
	cause := errors.New("the disk burns")
	from := victim.events.now()
	ctx, cancel := context.WithCancel(c.ctx)
	var wg sync.WaitGroup
	for g := uint64(1); g <= mixed; g++ {
		for range 3 {
			wg.Go(func() {
				for ctx.Err() == nil {
					_, _ = c.tryWrite(ctx, g)
				}
			})
		}
	}
	fail(victim.disk, cause)
	for g := uint64(1); g <= mixed; g++ {
		e := victim.awaitKind(from, synod.EventGroupFailed, g)
		for _, err := range []error{e.Err, victim.group(g).Err(), victim.group(g).Status().Err} {
			var failed *synod.FailedError
			require.ErrorAs(t, err, &failed)
			require.Equal(t, g, failed.Group)
			require.ErrorIs(t, err, storage.ErrFailed)
			require.ErrorIs(t, err, cause)
		}
		_, err := c.propose(c.ctx, victim, g, c.newCommand(g))
		require.ErrorAs(t, err, new(*synod.FailedError))
		require.NotErrorIs(t, err, synod.ErrUnknownOutcome)
		require.ErrorAs(t, victim.group(g).Barrier(c.ctx), new(*synod.FailedError))
		require.ErrorAs(t, victim.group(g).TransferLeader(c.ctx, victim.id), new(*synod.FailedError))
	}
	for g := uint64(1); g <= mixed; g++ {
		c.writes(g, 2, 3, c.others(victim)...)
	}
	cancel()
	wg.Wait()
	for g := uint64(1); g <= mixed; g++ {
		c.check(g)
	}
	// After the crash of the others too: with what the victim has on disk it comes back.
	c.crash(c.ids()...)
	for _, id := range c.ids() {
		c.start(id)
	}
	for g := uint64(1); g <= mixed; g++ {
		c.check(g)
	}
}

func testFullLeader(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{groups: 2})
	c.writes(1, 2, 3)
	c.writes(2, 2, 3)
	l := c.leader(1)
	l.disk.SetFull(true)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	// The first are in the log already when the store refuses them: they wait. Then
	// comes the refusal, unless the leader lost its office.
	refused := make(chan error, 1)
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				one, cancel := context.WithTimeout(ctx, 2*heartbeat)
				_, err := c.propose(one, l, 1, c.newCommand(1))
				cancel()
				switch {
				case errors.Is(err, storage.ErrNoSpace) || errors.As(err, new(*synod.NotLeaderError)):
					if errors.Is(err, synod.ErrUnknownOutcome) {
						t.Errorf("a refusal that leaves the outcome open: %v", err)
					}
					select {
					case refused <- err:
					default:
					}
					return
				case errors.As(err, new(*synod.FailedError)):
					t.Errorf("a store without space is no failure: %v", err)
					return
				}
			}
		})
	}
	err := receive(c, refused, "a refusal")
	t.Logf("refused: %v", err)
	cancel()
	wg.Wait()
	for g := uint64(1); g <= 2; g++ {
		require.NoError(t, l.group(g).Err())
	}
	l.disk.SetFull(false)
	c.writes(1, 2, 3)
	c.writes(2, 2, 3)
	c.check(1)
	c.check(2)
	c.crash(c.ids()...)
	for _, id := range c.ids() {
		c.start(id)
	}
	c.check(1)
	c.check(2)
}

func testFullFollower(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{group: compacting})
	c.writes(1, 2, 3)
	for range 2 {
		f := c.others(c.leader(1))[0]
		f.disk.SetFull(true)
		c.writes(1, 4, 60, c.others(f)...)
		require.NoError(t, f.group(1).Err())
		f.disk.SetFull(false)
		c.check(1)
	}
	// One that is full when it is closed, and started again.
	f := c.others(c.leader(1))[0]
	f.disk.SetFull(true)
	c.writes(1, 1, 10, c.others(f)...)
	c.crash(f.id)
	c.start(f.id)
	c.check(1)
}

func testStalledStore(t *testing.T, engine Engine, full bool) {
	const groups, size, limit = 8, 3 << 20, 20 << 20
	c := newCluster(t, engine, options{size: 1, groups: groups, config: func(cfg *replica.Settings) { cfg.Loops = 1 }})
	m := c.member(1)
	for g := uint64(1); g <= groups; g++ {
		c.write(g)
	}
	m.disk.setLimit(limit)
	m.disk.HoldSync()
	answers := make(chan error, 2*groups)
	for range 2 {
		for g := uint64(1); g <= groups; g++ {
			last := m.group(g).Status().Last
			command := c.newCommand(g) + string(make([]byte, size))
			go func() {
				_, err := c.propose(c.ctx, m, g, command)
				answers <- err
			}()
			c.eventually("it is in the log", func() bool { return m.group(g).Status().Last > last })
		}
	}
	if full {
		m.disk.SetFull(true)
		m.disk.ReleaseSync()
		c.eventually("a command is refused", func() bool {
			one, cancel := contextFor(c, heartbeat)
			defer cancel()
			_, err := c.propose(one, m, 1, c.newCommand(1))
			return errors.Is(err, storage.ErrNoSpace)
		})
		m.disk.SetFull(false)
	}
	m.disk.ReleaseSync()
	for range cap(answers) {
		require.NoError(t, receive(c, answers, "a proposal"))
	}
	require.Less(t, m.disk.setLimit(0), limit)
	for g := uint64(1); g <= groups; g++ {
		require.NoError(t, m.group(g).Err())
	}
	c.crash(1)
	c.start(1)
	for g := uint64(1); g <= groups; g++ {
		c.check(g)
	}
}

const unwritten = 1 << 20

func testUnwrittenLeader(t *testing.T, engine Engine) {
	const groups, size = 4, unwritten / 8
	c := newCluster(t, engine, options{size: 1, groups: groups, config: func(cfg *replica.Settings) {
		cfg.Loops, cfg.MaxUnwrittenBytes = 1, unwritten
	}})
	m := c.member(1)
	for g := uint64(1); g <= groups; g++ {
		c.write(g)
	}
	m.disk.HoldSync()
	answers := make(chan error)
	for n := range 16 {
		go func() {
			group := uint64(n%groups + 1)
			_, err := c.propose(c.ctx, m, group, c.newCommand(group)+string(make([]byte, size)))
			answers <- err
		}()
	}
	// Those that are refused are so at once.
	for range 16 - 8 {
		require.ErrorIs(t, receive(c, answers, "a proposal"), synod.ErrOverloaded)
	}
	m.disk.ReleaseSync()
	for range 8 {
		require.NoError(t, receive(c, answers, "a proposal"))
	}
	for g := uint64(1); g <= groups; g++ {
		c.check(g)
	}
}

func testUnwrittenFollower(t *testing.T, engine Engine) {
	const size, count = 64 << 10, 100
	c := newCluster(t, engine, options{config: func(cfg *replica.Settings) {
		cfg.Loops, cfg.MaxUnwrittenBytes, cfg.MaxBatchBytes = 1, unwritten, size
	}})
	c.write(1)
	var f *member
	c.eventually("the store of a follower stalls", func() bool {
		f = c.others(c.leader(1))[0]
		f.disk.setLimit(0)
		f.disk.HoldSync()
		if f.group(1).Status().Leader != f.id {
			return true
		}
		f.disk.ReleaseSync() // it leads by now
		return false
	})
	for range count {
		c.eventually("a command is acknowledged", func() bool {
			one, cancel := contextFor(c, attempt)
			defer cancel()
			_, err := c.propose(one, c.leader(1, c.others(f)...), 1, c.newCommand(1)+string(make([]byte, size)))
			return err == nil
		})
	}
	c.network.drain()
	f.node.Status()
	f.disk.ReleaseSync()
	c.check(1)
	// Whatever the last message brought went beyond the limit, and no more.
	require.Less(t, f.disk.setLimit(0), unwritten+3*size)
}

// awaitFailure waits until a group has stopped with a cause.
func (m *member) awaitFailure(from int, group uint64, cause string) {
	c := m.cluster
	c.Helper()
	e := m.awaitKind(from, synod.EventGroupFailed, group)
	require.ErrorAs(c, e.Err, new(*synod.FailedError))
	require.ErrorContains(c, e.Err, cause)
	require.ErrorContains(c, m.group(group).Err(), cause)
}

func testPanic(t *testing.T, engine Engine, k kind) {
	const poison = "g1 poison"
	c := newCluster(t, engine, options{groups: mixed, kind: k})
	c.writes(1, 2, 3)
	for _, leads := range []bool{false, true} {
		victim := c.leader(1)
		if !leads {
			victim = c.others(victim)[0]
		}
		from := victim.events.now()
		victim.machine(1).set(func(h *hooks) { h.apply = isCommand(poison, func() { panic("bad state") }) })
		ctx, cancel := context.WithCancel(c.ctx)
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				for ctx.Err() == nil {
					_, _ = c.tryWrite(ctx, 1)
				}
			})
		}
		c.eventually("the poison is applied", func() bool {
			_, err := c.propose(c.ctx, c.leader(1), 1, poison)
			return err == nil || errors.Is(err, synod.ErrUnknownOutcome)
		})
		victim.awaitFailure(from, 1, "bad state")
		cancel()
		wg.Wait()
		c.writes(1, 2, 3, c.others(victim)...)
		for g := uint64(2); g <= mixed; g++ {
			require.NoError(t, victim.group(g).Err())
			c.check(g)
		}
		// Closed and opened again, with a state machine that knows better.
		require.NoError(t, victim.closeGroup(1))
		require.NoError(t, victim.startGroup(1))
		c.history.forget(poison) // it is proposed twice
		c.check(1)
	}
}

// forget takes a command out of the history.
func (h *history) forget(command string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.acknowledged, command)
	delete(h.unknown, command)
}

func testSnapshotPanics(t *testing.T, engine Engine) {
	boom := func() error { panic("no picture") }
	for what, arm := range map[string]func(*hooks){
		"Snapshot": func(h *hooks) { h.snapshot = boom },
		"WriteTo":  func(h *hooks) { h.write = boom },
	} {
		c := newCluster(t, engine, options{groups: 2, group: compacting})
		victim := c.others(c.leader(1))[0]
		victim.machine(1).set(arm)
		// One that was behind gets a snapshot, and takes its own later.
		c.eventually("it is asked for a snapshot", func() bool {
			c.writes(1, 1, 50)
			return victim.group(1).Err() != nil
		})
		victim.awaitFailure(0, 1, "no picture")
		c.check(1)
		c.check(2)
		require.NoError(t, victim.group(2).Err(), what)
		require.NoError(t, victim.closeGroup(1))
		require.NoError(t, victim.startGroup(1))
		c.check(1)
	}
}

func testSnapshotErrors(t *testing.T, engine Engine) {
	for _, arm := range []func(*hooks, func() error){
		func(h *hooks, fn func() error) { h.snapshot = fn },
		func(h *hooks, fn func() error) { h.write = fn },
	} {
		var mu sync.Mutex
		tries := 0
		c := newCluster(t, engine, options{size: 1, group: compacting, machine: func(_, _ uint64, m *machine) {
			arm(&m.hooks, func() error {
				mu.Lock()
				defer mu.Unlock()
				if tries++; tries <= 2 {
					return errors.New("not now")
				}
				return nil
			})
		}})
		c.writes(1, 1, 200)
		m := c.member(1)
		m.awaitKind(0, synod.EventSnapshotTaken, 1)
		require.NoError(t, m.group(1).Err())
		c.check(1)
		c.stop(1)
		c.start(1)
		c.check(1)
	}
}

func testRestoreFails(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{groups: 2, group: compacting})
	for _, fn := range []func() error{
		func() error { return errors.New("unreadable") },
		func() error { panic("unreadable") },
	} {
		// By a snapshot of another member.
		victim := c.others(c.leader(1))[0]
		c.network.isolate(victim.id)
		c.writes(1, 1, 200, c.others(victim)...)
		from := victim.events.now()
		victim.machine(1).set(func(h *hooks) { h.restore = fn })
		c.network.healAll()
		victim.awaitFailure(from, 1, "unreadable")
		c.check(1)
		c.check(2)
		require.NoError(t, victim.group(2).Err())
		require.NoError(t, victim.closeGroup(1))
		// By its own, at the start.
		bad := newMachine("bad", t.Errorf)
		bad.hooks.restore = fn
		require.ErrorContains(t, victim.startGroupOn(1, bad, bad), "unreadable")
		require.NoError(t, victim.startGroup(1))
		c.check(1)
	}
}

const (
	overloadCalls = 6
	overloadBytes = 1000
)

func testOverload(t *testing.T, engine Engine, limit func(*replica.Settings)) {
	c := newCluster(t, engine, options{size: 1, config: limit})
	m := c.member(1)
	require.NoError(t, m.group(1).Barrier(c.ctx))
	padded := func() string {
		b := make([]byte, overloadBytes)
		copy(b, c.newCommand(1))
		return string(b)
	}
	for range 3 {
		m.disk.HoldSync()
		answers := make(chan error, overloadCalls)
		// One after the other, so that none shares an entry with others: that costs the most.
		for i := range overloadCalls {
			last := m.group(1).Status().Last
			go func() {
				_, err := c.propose(c.ctx, m, 1, padded())
				answers <- err
			}()
			require.Eventually(t, func() bool {
				s := m.group(1).Status()
				return s.Pending == i+1 && s.Last == last+1
			}, patience, heartbeat)
		}
		for range 3 {
			_, err := c.propose(c.ctx, m, 1, padded())
			require.ErrorIs(t, err, synod.ErrOverloaded)
			require.NotErrorIs(t, err, synod.ErrUnknownOutcome)
		}
		m.disk.ReleaseSync()
		for range overloadCalls {
			require.NoError(t, receive(c, answers, "a call within the limit"))
		}
		require.Zero(t, m.group(1).Status().Pending)
		_, err := c.propose(c.ctx, m, 1, padded())
		require.NoError(t, err)
	}
	c.check(1)
	acknowledged, never, unknown := c.history.counts()
	require.Equal(t, fmt.Sprint([]int{3*overloadCalls + 3 + 1, 9, 0}), fmt.Sprint([]int{acknowledged, never, unknown}))
}

func testSlowMachine(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{groups: 2, config: func(cfg *replica.Settings) { cfg.MaxApplyBytes = 4 << 10 }})
	c.writes(1, 1, 2)
	victim := c.others(c.leader(1))[0]
	g := newGate()
	defer g.release()
	victim.machine(1).set(func(h *hooks) { h.apply = func(uint64, []byte) { g.pass() } })
	c.writes(1, 4, 50, slices.DeleteFunc(c.running(), func(m *member) bool { return m == victim })...)
	receive(c, g.reached, "the slow state machine is given a command")
	c.writes(2, 2, 5)
	c.check(2)
	require.LessOrEqual(t, victim.machine(1).index(), uint64(2))
	require.NoError(t, victim.group(1).Err())
	g.release()
	c.check(1)
}
