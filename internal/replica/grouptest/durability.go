package grouptest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
)

var durabilityRules = []rule{
	{"after a restart of all members everything acknowledged is there, from the log",
		func(t *testing.T, engine Engine) { testRestart(t, engine, plain, 1) }},
	{"after a restart of all members everything acknowledged is there, from snapshot and log",
		func(t *testing.T, engine Engine) { testRestart(t, engine, batched, 300) }},
	{"after a restart a DurableIndex is given what it lacks and nothing else",
		func(t *testing.T, engine Engine) { testRestart(t, engine, durable, 300) }},
	{"nothing is acknowledged before a majority holds it durably", testDurableBeforeVisible},
	{"what was acknowledged survives a crash of all members at any moment",
		func(t *testing.T, engine Engine) { testCrashes(t, engine, plain) }},
	{"what was acknowledged survives a crash of all members at any moment, with state machines on disk",
		func(t *testing.T, engine Engine) { testCrashes(t, engine, durable) }},
	{"a promise that was made survives a crash of its maker", testPromise},
}

// compacting makes a cluster that takes snapshots and cuts its log often.
func compacting(cfg *replica.GroupConfig) { cfg.SnapshotEntries, cfg.RetainEntries = 40, 10 }

func testRestart(t *testing.T, engine Engine, k kind, writes int) {
	c := newCluster(t, engine, options{kind: k, group: compacting})
	c.writes(1, 1, writes)
	for _, m := range c.running() {
		if k != durable && writes > 1 {
			m.awaitKind(0, synod.EventSnapshotTaken, 1)
		}
	}
	c.check(1)
	for _, crash := range []bool{false, true} {
		if crash {
			c.crash(c.ids()...)
		} else {
			c.stop(c.ids()...)
		}
		for _, id := range c.ids() {
			m := c.start(id)
			switch {
			case k == durable:
				require.Zero(t, m.machine(1).restored(), "node %d: a state machine that has everything was restored", id)
			case writes > 1:
				require.NotZero(t, m.machine(1).restored(), "node %d: the snapshot was not used", id)
			}
		}
		for _, m := range c.running() {
			require.NoError(t, m.group(1).Barrier(c.ctx))
			acknowledged, _, _ := c.history.counts()
			require.GreaterOrEqual(t, m.machine(1).index(), uint64(acknowledged))
		}
		c.check(1)
	}
}

func testDurableBeforeVisible(t *testing.T, engine Engine) {
	for _, held := range [][]uint64{{1, 2, 3}, {1, 2}, {2, 3}, {1, 3}} {
		t.Run(fmt.Sprint("without syncs on ", held), func(t *testing.T) {
			c := newCluster(t, engine, options{})
			c.write(1)
			for _, id := range held {
				c.member(id).disk.HoldSync()
			}
			ctx, cancel := context.WithCancel(c.ctx)
			var wg sync.WaitGroup
			for _, m := range c.running() {
				wg.Go(func() {
					if _, err := c.propose(ctx, m, 1, c.newCommand(1)); err == nil {
						t.Error("acknowledged, though no majority holds it")
					}
				})
			}
			// Reads need no store: each of these is an exchange of messages, by which a
			// false acknowledgement would have come.
			for range 5 {
				for _, m := range c.running() {
					_ = barrier(ctx, m.group(1))
				}
			}
			for _, m := range c.running() {
				require.LessOrEqual(t, m.machine(1).index(), uint64(1), "node %d applied what no majority holds", m.id)
			}
			c.crash(c.ids()...)
			cancel()
			wg.Wait()
			for _, id := range c.ids() {
				c.start(id)
			}
			c.check(1)
		})
	}
}

func testCrashes(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k, group: compacting, machine: func(node, _ uint64, m *machine) {
		m.hooks.lazy = node == 1 // its disk is behind its memory
	}})
	for round := range 6 {
		ctx, cancel := context.WithCancel(c.ctx)
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				for ctx.Err() == nil {
					_, _ = c.tryWrite(ctx, 1)
				}
			})
		}
		// Disks that lag, one after the other, until some more was acknowledged.
		before, _, _ := c.history.counts()
		for i := 0; ; i++ {
			d := c.member(uint64(i%3 + 1)).disk
			d.HoldSync()
			one, cancel := context.WithTimeout(ctx, attempt)
			_ = d.awaitHeld(one)
			cancel()
			now, _, _ := c.history.counts()
			if now >= before+60 {
				break // crash with syncs held
			}
			d.ReleaseSync()
		}
		if k == durable && round%2 == 1 {
			c.member(1).machine(1).sync()
		}
		if round%3 == 2 { // not all of them
			c.crash(2)
			c.crash(1)
		} else {
			c.crash(2, 1, 3)
		}
		cancel()
		wg.Wait()
		for _, id := range c.ids() {
			if c.member(id) == nil {
				c.start(id)
			} else {
				c.member(id).disk.ReleaseSync()
			}
		}
		c.check(1)
	}
	_, _, unknown := c.history.counts()
	t.Logf("%d callers were left without an answer", unknown)
}

// A leader of which a majority has gone comes back with the rest: what the others
// promised the last leader, or acknowledged to it, must have lasted.
func testPromise(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	for range 8 {
		c.writes(1, 2, 2)
		l := c.leader(1)
		follower := c.others(l)[0]
		third := c.others(l)[1]
		// The third does not hear of the next writes. The follower loses what it had
		// not synced when it acknowledged them.
		c.network.isolate(third.id)
		one, cancel := context.WithTimeout(c.ctx, attempt)
		_, err := c.propose(one, l, 1, c.newCommand(1))
		cancel()
		if err != nil && !errors.Is(err, synod.ErrUnknownOutcome) {
			require.ErrorAs(t, err, new(*synod.NotLeaderError))
		}
		c.crash(follower.id, l.id)
		c.network.healAll()
		c.start(follower.id)
		// Without the leader: only the follower knows of it.
		c.write(1)
		c.start(l.id)
		c.check(1)
	}
}
