package grouptest

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
)

var linkRules = []rule{
	{"a group goes on when nothing reaches its leader, though all hear it", testDeafLeader},
	{"a group goes on when nothing leaves its leader", testMuteLeader},
	{"a group goes on when its members form a chain", testChain},
	{"a group goes on when one member alone reaches all others", testHub},
	{"a group goes on with one link after the other cut, in one direction", testOneWay},
	{"a group without a majority anywhere stands still, and goes on when there is one", testNoMajority},
	{"messages that are lost, repeated, late and out of order change nothing", testChaos},
	{"everything that was on its way before a partition may arrive after it", testLateMessages},
	{"what a member keeps of a message does not keep the frame in which it came", testKeptFrames},
	{"a member that is cut off does not slow the group, nor is more sent to it than the limit", testSilentFollower},
}

func testKeptFrames(t *testing.T, engine Engine) {
	const rounds, size = 100, 128 << 10
	c := newCluster(t, engine, options{groups: 2, config: func(cfg *replica.Settings) {
		cfg.Loops, cfg.CacheBytes = 1, 64<<10
	}})
	var l *member
	c.eventually("both groups have one leader", func() bool {
		l = c.leader(1)
		return c.leader(2) == l || c.leader(2).group(2).TransferLeader(c.ctx, l.id) == nil && c.leader(2) == l
	})
	c.network.track()
	for range rounds {
		// In one round mostly, and so in one frame.
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = c.propose(c.ctx, l, 1, c.newCommand(1)+strings.Repeat("x", size)) })
		wg.Go(func() { _, _ = c.propose(c.ctx, l, 2, c.newCommand(2)) })
		wg.Wait()
	}
	c.check(1)
	c.check(2)
	require.Eventually(t, func() bool {
		runtime.GC()
		return c.network.live.Load() < rounds*size/10
	}, 5*time.Second, heartbeat, "small entries in the cache of the log keep large frames")
}

func testDeafLeader(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	for range 3 {
		l := c.leader(1)
		for _, o := range c.others(l) {
			c.network.cut(o.id, l.id)
		}
		c.writes(1, 2, 5, c.others(l)...)
		c.network.healAll()
		c.check(1)
	}
}

func testMuteLeader(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	for range 3 {
		l := c.leader(1)
		for _, o := range c.others(l) {
			c.network.cut(l.id, o.id)
		}
		c.writes(1, 2, 5, c.others(l)...)
		c.network.healAll()
		c.check(1)
	}
}

func testChain(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	for middle := uint64(1); middle <= 3; middle++ {
		ends := []uint64{middle%3 + 1, (middle+1)%3 + 1}
		c.check(1)
		c.network.connect([2]uint64{middle, ends[0]}, [2]uint64{middle, ends[1]})
		c.writes(1, 3, 10)
		c.network.healAll()
		c.check(1)
	}
}

func testHub(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 5})
	c.writes(1, 3, 5)
	for _, hub := range []uint64{2, 5} {
		c.check(1) // all are up to date, the hub too
		var spokes [][2]uint64
		for id := uint64(1); id <= 5; id++ {
			if id != hub {
				spokes = append(spokes, [2]uint64{hub, id})
			}
		}
		c.network.connect(spokes...)
		c.writes(1, 3, 10)
		require.Equal(t, hub, c.leader(1).id, "nobody else reaches a majority")
		c.network.healAll()
		c.check(1)
	}
}

func testOneWay(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.check(1) // all have met
	for from := uint64(1); from <= 3; from++ {
		for to := uint64(1); to <= 3; to++ {
			if from != to {
				c.network.cut(from, to)
				c.writes(1, 2, 4)
				c.network.heal(from, to)
			}
		}
	}
	c.check(1)
}

func testNoMajority(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 2, 5)
	c.network.connect() // nobody reaches anybody
	ctx, cancel := context.WithTimeout(c.ctx, 5*election)
	defer cancel()
	var wg sync.WaitGroup
	for _, m := range c.running() {
		wg.Go(func() {
			if err := m.group(1).Barrier(ctx); err == nil {
				t.Errorf("node %d answers a barrier alone", m.id)
			}
		})
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := c.propose(ctx, m, 1, c.newCommand(1)); err == nil {
					t.Errorf("node %d acknowledges a command alone", m.id)
				}
				_ = barrier(ctx, m.group(1))
			}
		})
	}
	wg.Wait()
	c.network.healAll()
	c.check(1)
}

func testChaos(t *testing.T, engine Engine) {
	for seed := range uint64(2) {
		c := newCluster(t, engine, options{group: compacting})
		c.network.setRule(chaos(seed, 4))
		c.writes(1, 8, 25)
		c.network.healAll()
		c.network.release(seed%2 == 0)
		c.check(1)
	}
}

func testLateMessages(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	for round := range 4 {
		l := c.leader(1)
		c.network.setRule(func(p packet) fate { return fate{hold: p.from == l.id || p.to == l.id} })
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() { _, _ = c.propose(c.ctx, l, 1, c.newCommand(1)) })
		}
		c.writes(1, 2, 10, c.others(l)...)
		c.network.setRule(nil)
		c.network.release(round%2 == 1)
		wg.Wait()
		c.check(1)
	}
}

func testSilentFollower(t *testing.T, engine Engine) {
	const inflight = 64 << 10
	c := newCluster(t, engine, options{config: func(cfg *replica.Settings) {
		cfg.MaxCommandBytes, cfg.MaxBatchBytes, cfg.MaxInflightBytes = 4<<10, 8<<10, inflight
		cfg.CacheBytes, cfg.MaxInboxBytes = 16<<10, 256<<10
	}})
	c.writes(1, 2, 5)
	c.eventually("one leader all the time", func() bool {
		l := c.leader(1)
		f := c.others(l)[0]
		term := l.group(1).Status().Term
		c.network.cut(l.id, f.id)
		c.network.cut(f.id, l.id)
		before := c.network.bytesSent(l.id, f.id)
		// Many times as much as may be on its way.
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 40 {
					padded := make([]byte, 4<<10)
					copy(padded, c.newCommand(1))
					_, err := c.propose(c.ctx, l, 1, string(padded))
					_ = err // the history keeps it
				}
			})
		}
		wg.Wait()
		sent := c.network.bytesSent(l.id, f.id) - before
		s := l.group(1).Status()
		c.network.healAll()
		if s.Leader != l.id || s.Term != term {
			c.check(1)
			return false
		}
		require.Less(t, sent, int64(3*inflight), "bytes that were sent to a member that does not answer")
		c.check(1) // it catches up
		return true
	})
	for _, m := range c.running() {
		for _, e := range m.events.all(0) {
			require.NotEqual(t, synod.EventGroupFailed, e.Kind, "node %d: %v", m.id, e.Err)
		}
	}
}
