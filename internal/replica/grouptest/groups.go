package grouptest

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/transport"
)

var groupRules = []rule{
	{"many groups share a node, and one that fails is alone in that", testManyGroups},
	{"a group is closed and opened again while others run, and also while the store lags", testReopen},
	{"Close waits for the state machine, also when it is called twice at once", testCloseWaits},
	{"Close of a node waits for Bootstrap and StartGroup", testCloseWaitsForStart},
	{"Close of a group returns while the store has no space, also when that shows after it was called", testCloseFull},
	{"a group that is bootstrapped holds up no other", testBootstrapApart},
	{"a transport and a store without optional powers are enough", testPlain},
	{"groups of several loops and nodes with other numbers of loops work together", testLoops},
}

// alone are the rules that must not be tested beside others.
var alone = []rule{
	{"Close leaves nothing behind", testNothingLeft},
}

const manyGroups = 50

func testManyGroups(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{groups: manyGroups, group: compacting})
	var wg sync.WaitGroup
	all := func(n int) {
		for g := uint64(1); g <= manyGroups; g++ {
			wg.Go(func() {
				for range n {
					if _, err := c.tryWrite(c.ctx, g); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	all(5)
	m := c.running()[0]
	m.machine(7).set(func(h *hooks) { h.apply = func(uint64, []byte) { panic("seven") } })
	all(3)
	m.awaitFailure(0, 7, "seven")
	for _, s := range m.node.Status().Groups {
		if s.Group == 7 {
			require.Error(t, s.Err)
		} else {
			require.NoError(t, s.Err)
		}
	}
	// A node goes, and with it the leaders of many.
	c.crash(m.id)
	all(2)
	for id := uint64(1); id <= 3; id++ {
		if c.member(id) == nil {
			c.start(id)
		}
	}
	for g := uint64(1); g <= manyGroups; g++ {
		c.check(g)
	}
}

func testReopen(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{groups: 4, group: compacting, config: func(cfg *replica.Settings) { cfg.Loops = 1 }})
	ctx, cancel := context.WithCancel(c.ctx)
	var wg sync.WaitGroup
	for g := uint64(1); g <= 4; g++ {
		for range 2 {
			wg.Go(func() {
				for ctx.Err() == nil {
					_, _ = c.tryWrite(ctx, g)
				}
			})
		}
	}
	for round := range 12 {
		m := c.running()[round%3]
		lag := round%2 == 1
		if lag {
			m.disk.HoldSync()
			one, cancel := contextFor(c, attempt)
			lag = m.disk.awaitHeld(one) == nil
			cancel()
		}
		g := m.group(2)
		closed := background(func() error { return m.closeGroup(2) })
		if lag {
			// It waits for what is on its way to the store.
			require.Eventually(t, func() bool { return g.Err() != nil }, patience, time.Millisecond)
			m.node.Status() // and what the loop did with it is over
			select {
			case <-closed:
				require.Fail(t, "Close returned while records are on their way: who opens the group reads an old log")
			default:
			}
		}
		m.disk.ReleaseSync()
		require.NoError(t, receive(c, closed, "Close"))
		_, running := slices.BinarySearchFunc(m.node.Status().Groups, uint64(2), func(s synod.GroupStatus, g uint64) int { return int(s.Group) - int(g) })
		require.False(t, running)
		require.NoError(t, m.startGroup(2))
	}
	cancel()
	wg.Wait()
	for g := uint64(1); g <= 4; g++ {
		c.check(g)
	}
}

func testCloseWaits(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1, groups: 2, group: compacting})
	for variant := range 4 {
		node, write := variant%2 == 1, variant/2 == 1
		m := c.member(1)
		require.NoError(t, m.group(1).Barrier(c.ctx))
		require.NoError(t, m.group(2).Barrier(c.ctx))
		g := newGate()
		defer g.release()
		if write { // a snapshot, in the background
			m.machine(1).set(func(h *hooks) { h.write = func() error { g.pass(); return nil } })
			c.writes(1, 1, 100)
		} else {
			m.machine(1).set(func(h *hooks) { h.apply = func(uint64, []byte) { g.pass() } })
		}
		call := background(func() error {
			_, err := c.propose(c.ctx, m, 1, c.newCommand(1))
			return err
		})
		receive(c, g.reached, "the state machine is used")
		sm, end := m.machine(1), m.group(1).Close
		if node {
			end = m.node.Close
		}
		released := make(chan struct{})
		closed := make(chan error, 3)
		for range cap(closed) {
			go func() {
				err := end()
				select {
				case <-released:
				default:
					t.Error("Close returned while the state machine was in use")
				}
				sm.close()
				closed <- err
			}()
		}
		grp := m.group(1)
		require.Eventually(t, func() bool { return grp.Err() != nil }, patience, time.Millisecond)
		if !node {
			c.writes(2, 2, 5) // the other group works on
		}
		close(released)
		g.release()
		for range cap(closed) {
			require.NoError(t, receive(c, closed, "Close"))
		}
		if err := receive(c, call, "the proposal"); err != nil {
			require.ErrorIs(t, err, synod.ErrClosed)
		}
		if node {
			c.stop(1)
			c.start(1)
		} else {
			require.NoError(t, m.closeGroup(1), "Close once more")
			require.NoError(t, m.startGroup(1))
		}
		c.check(1)
		c.check(2)
	}
}

func testCloseWaitsForStart(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1, group: compacting})
	c.writes(1, 1, 100)
	c.member(1).awaitKind(0, synod.EventSnapshotTaken, 1)
	for _, test := range []struct {
		what string
		at   string
		call func(m *member) error
	}{
		{"Bootstrap", "Commit", func(m *member) error { return m.node.Bootstrap(c.ctx, 2, []uint64{1}) }},
		{"Bootstrap", "Get", func(m *member) error { return m.node.Bootstrap(c.ctx, 3, []uint64{1}) }},
		{"StartGroup", "Get", func(m *member) error { return m.startGroup(1) }},
		{"StartGroup", "Restore", func(m *member) error {
			sm := newMachine("restored", t.Errorf)
			sm.hooks.restore = func() error { m.disk.pass("Restore"); return nil }
			return m.startGroupOn(1, sm, sm)
		}},
	} {
		what := test.what + " in " + test.at
		c.stop(1)
		m, err := c.open(1, nil)
		require.NoError(t, err)
		if test.what == "Bootstrap" {
			require.NoError(t, m.startGroup(1))
		}
		g := newGate()
		defer g.release()
		m.disk.block(test.at, g)
		over := make(chan struct{})
		call := background(func() error {
			defer close(over)
			return test.call(m)
		})
		receive(c, g.reached, what)
		closed := background(func() error {
			err := m.node.Close()
			select {
			case <-over:
			default:
				t.Errorf("%s: Close returned while it was under way", what)
			}
			return err
		})
		c.eventually("it takes no more calls", func() bool {
			sm := newMachine("late", t.Errorf)
			_, err := m.node.StartGroup(c.ctx, replica.GroupConfig{ID: 1, StateMachine: sm})
			require.Error(t, err)
			return errors.Is(err, synod.ErrClosed)
		})
		g.release()
		if err := receive(c, call, what); err != nil {
			require.ErrorIs(t, err, synod.ErrClosed, what)
		}
		require.NoError(t, receive(c, closed, "Close"))
		m.disk.block(test.at, nil)
		c.stop(1)
		c.start(1)
		c.check(1)
	}
}

func testCloseFull(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1, groups: 2, config: func(cfg *replica.Settings) { cfg.Loops = 1 }})
	end := c.writes(1, 1, 3)
	c.writes(2, 1, 3)
	m := c.member(1)
	g := m.group(1)
	m.disk.HoldSync()
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	for range 2 { // one is on its way to the store, another one waits for that
		last := g.Status().Last
		go func() { _, _ = c.propose(ctx, m, 1, c.newCommand(1)) }()
		c.eventually("it is in the log", func() bool { return g.Status().Last > last })
		require.NoError(t, m.disk.awaitHeld(c.ctx))
	}
	m.disk.SetFull(true)
	closed := background(func() error { return m.closeGroup(1) })
	c.eventually("it closes", func() bool { return g.Err() != nil })
	m.node.Status() // and the loop did its part of that
	m.disk.ReleaseSync()
	require.NoError(t, receive(c, closed, "Close"))
	// Its records are not written yet.
	require.ErrorIs(t, m.startGroup(1), replica.ErrRunning)
	m.disk.SetFull(false)
	c.eventually("it is opened again", func() bool {
		err := m.startGroup(1)
		if err != nil {
			require.ErrorIs(t, err, replica.ErrRunning)
		}
		return err == nil
	})
	require.Greater(t, c.write(1), end)
	c.check(1)
	c.check(2)
}

func testBootstrapApart(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.write(1)
	l := c.leader(1)
	g := newGate()
	defer g.release()
	l.disk.block("Commit", g)
	first := background(func() error { return l.node.Bootstrap(c.ctx, 2, c.ids()) })
	second := background(func() error { return l.node.Bootstrap(c.ctx, 3, c.ids()) })
	receive(c, g.reached, "the commit")
	c.writes(1, 2, 5)
	require.NoError(t, l.group(1).Barrier(c.ctx)) // messages come and go
	require.Len(t, l.node.Status().Groups, 1)
	g.release()
	require.NoError(t, receive(c, first, "Bootstrap"))
	require.NoError(t, receive(c, second, "Bootstrap"))
	c.check(1)
}

func testPlain(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{groups: 2, group: compacting, machine: large, config: func(cfg *replica.Settings) {
		cfg.Transport = struct{ transport.Transport }{cfg.Transport}
		cfg.Store = struct{ storage.Store }{cfg.Store}
	}})
	c.writes(1, 4, 20)
	c.writes(2, 4, 20)
	f := c.others(c.leader(1))[0].id
	c.leaveBehind(f)
	c.start(f).awaitKind(0, synod.EventSnapshotInstalled, 1)
	c.check(1)
	c.check(2)
	c.crash(c.ids()...)
	for _, id := range c.ids() {
		c.start(id)
	}
	c.check(1)
	c.check(2)
}

func testLoops(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{groups: 5, config: func(cfg *replica.Settings) { cfg.Loops = int(cfg.Node) }})
	var wg sync.WaitGroup
	for g := uint64(1); g <= 5; g++ {
		wg.Go(func() {
			for range 20 {
				if _, err := c.tryWrite(c.ctx, g); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for g := uint64(1); g <= 5; g++ {
		c.check(g)
	}
}

// ours counts the goroutines that run code of the module, but for tests'.
func ours() (count int, stacks string) {
	buf := make([]byte, 8<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var list []string
	for _, g := range strings.Split(string(buf), "\n\n") {
		if strings.Contains(g, "synod/internal/replica.") || strings.Contains(g, "internal/executor.") {
			list = append(list, g)
		}
	}
	return len(list), strings.Join(list, "\n\n")
}

func testNothingLeft(t *testing.T, engine Engine) {
	for _, k := range []kind{plain, durable} {
		c := newCluster(t, engine, options{groups: 3, kind: k, group: compacting, machine: large})
		c.writes(1, 4, 40)
		f := c.others(c.leader(1))[0].id
		c.leaveBehind(f)
		// In the middle of a transfer, of calls that wait, and with an event's reader.
		reached := c.midway(f, 2)
		c.start(f)
		receive(c, reached, "the transfer")
		c.network.isolate(c.leader(1).id)
		var wg sync.WaitGroup
		for _, m := range c.running() {
			for range 3 {
				wg.Go(func() { _, _ = c.propose(c.ctx, m, 1, c.newCommand(1)) })
				wg.Go(func() {
					if err := m.group(2).Barrier(c.ctx); err != nil && !errors.Is(err, synod.ErrClosed) {
						t.Error(err)
					}
				})
			}
		}
		for _, m := range c.running() {
			c.stop(m.id) // which complains of every use after it
		}
		wg.Wait()
		require.Eventually(t, func() bool { n, _ := ours(); return n == 0 }, patience, heartbeat)
		if n, stacks := ours(); n != 0 {
			t.Errorf("%d goroutines are left:\n%s", n, stacks)
		}
	}
}
