package grouptest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
)

var readRules = []rule{
	{"after Barrier, on any member, the local state has everything acknowledged before, anywhere", testBarrier},
	{"Barrier waits for a leader", testBarrierWaits},
	{"a leader that is cut off from its majority answers no barrier", testBarrierCutOff},
	{"a new leader answers a barrier only when it has applied what may have been acknowledged before it", testBarrierNewLeader},
	{"the only member answers a barrier after a restart only when it has applied what it has acknowledged", testBarrierLone},
	{"an answer to an earlier attempt of a barrier is not believed", testBarrierOldAnswer},
}

// register is the highest index that was acknowledged.
type register struct{ atomic.Uint64 }

func (r *register) raise(to uint64) {
	for have := r.Load(); to > have && !r.CompareAndSwap(have, to); have = r.Load() {
	}
}

func testBarrier(t *testing.T, engine Engine) { barrierRule(t, engine, unleased) }

func barrierRule(t *testing.T, engine Engine, with func(options) options) {
	c := newCluster(t, engine, with(options{}))
	var acknowledged register
	var reads atomic.Int64
	ctx, cancel := context.WithCancel(c.ctx)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if index, err := c.tryWrite(ctx, 1); err == nil {
					acknowledged.raise(index)
				}
			}
		})
	}
	for _, m := range c.running() {
		for range 2 {
			wg.Go(func() {
				for ctx.Err() == nil {
					before := acknowledged.Load()
					if barrier(ctx, m.group(1)) != nil {
						continue
					}
					reads.Add(1)
					if have := m.machine(1).index(); have < before {
						t.Errorf("node %d read state %d after a barrier, but %d was acknowledged before it", m.id, have, before)
						return
					}
				}
			})
		}
	}
	// Through leaders that change, and links that lose, repeat and reorder.
	for round := range 10 {
		if round == 5 {
			c.network.setRule(chaos(7, 10))
		}
		l := c.leader(1)
		switch to := c.others(l)[round%2]; round % 3 {
		case 0:
			_ = l.group(1).TransferLeader(ctx, to.id)
		case 1:
			c.network.isolate(l.id)
			c.write(1, c.others(l)...)
			c.network.connect([2]uint64{1, 2}, [2]uint64{1, 3}, [2]uint64{2, 3})
		}
		goal := reads.Load() + 50
		for reads.Load() < goal && ctx.Err() == nil {
			acknowledged.raise(c.write(1))
		}
	}
	cancel()
	wg.Wait()
	c.network.healAll()
	c.network.release(false)
	c.check(1)
	require.Greater(t, reads.Load(), int64(500))
}

func testBarrierWaits(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	end := c.writes(1, 1, 10)
	c.stop(c.ids()...)
	one := c.start(1)
	waiting := background(func() error { return one.group(1).Barrier(c.ctx) })
	ctx, cancel := context.WithTimeout(c.ctx, 2*election)
	defer cancel()
	err := one.group(1).Barrier(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, synod.ErrUnknownOutcome)
	c.start(2)
	require.NoError(t, receive(c, waiting, "the barrier"))
	require.GreaterOrEqual(t, one.machine(1).index(), end)
}

func testBarrierCutOff(t *testing.T, engine Engine) {
	for _, direction := range []string{"both ways", "nothing reaches it", "nothing leaves it"} {
		t.Run(direction, func(t *testing.T) {
			c := newCluster(t, engine, options{})
			c.write(1)
			l := c.leader(1)
			for _, o := range c.others(l) {
				if direction != "nothing reaches it" {
					c.network.cut(l.id, o.id)
				}
				if direction != "nothing leaves it" {
					c.network.cut(o.id, l.id)
				}
			}
			c.network.drain() // what was on its way may count
			ctx, cancel := context.WithCancel(c.ctx)
			reads := make(chan error, 8)
			for range cap(reads) {
				go func() { reads <- l.group(1).Barrier(ctx) }()
			}
			c.writes(1, 1, 3, c.others(l)...)
			select {
			case err := <-reads:
				require.Error(t, err, "a leader that is cut off answers")
			default:
			}
			// Those that wait are answered when it is back, with the newer state.
			late := background(func() error { return l.group(1).Barrier(c.ctx) })
			end := c.write(1, c.others(l)...)
			cancel()
			for range cap(reads) {
				require.ErrorIs(t, receive(c, reads, "a barrier ends with its context"), context.Canceled)
			}
			c.network.healAll()
			require.NoError(t, receive(c, late, "the barrier"))
			require.NoError(t, l.group(1).Barrier(c.ctx))
			require.GreaterOrEqual(t, l.machine(1).index(), end)
			c.check(1)
		})
	}
}

func testBarrierNewLeader(t *testing.T, engine Engine) { newLeaderRule(t, engine, unleased) }

func newLeaderRule(t *testing.T, engine Engine, with func(options) options) {
	c := newCluster(t, engine, with(options{}))
	c.writes(1, 1, 3)
	c.eventually("the member with the slow state machine leads", func() bool {
		l := c.leader(1)
		slow, third := c.others(l)[0], c.others(l)[1]
		slow.machine(1).await(c.ctx, c.write(1))
		g := newGate()
		defer func() {
			g.release()
			slow.machine(1).set(func(h *hooks) { h.apply = nil })
		}()
		slow.machine(1).set(func(h *hooks) { h.apply = func(uint64, []byte) { g.pass() } })
		var end uint64
		for range 3 {
			var err error
			if end, err = c.propose(c.ctx, l, 1, c.newCommand(1)); err != nil {
				return false // it does not lead any more: should the slow one lead, nothing would be answered
			}
		}
		receive(c, g.reached, "the slow state machine is given a command")
		if err := l.group(1).TransferLeader(c.ctx, slow.id); err != nil {
			return false // it does not lead, for once
		}
		read := background(func() error { return slow.group(1).Barrier(c.ctx) })
		// That the other one gets an answer shows that the new leader gives answers.
		require.NoError(t, third.group(1).Barrier(c.ctx))
		select {
		case err := <-read:
			require.FailNow(t, "a leader that has not applied what was acknowledged answers", "%v", err)
		default:
		}
		g.release()
		require.NoError(t, receive(c, read, "the barrier"))
		require.GreaterOrEqual(t, slow.machine(1).index(), end)
		return true
	})
	c.check(1)
}

func testBarrierLone(t *testing.T, engine Engine) { loneRule(t, engine, unleased) }

func loneRule(t *testing.T, engine Engine, with func(options) options) {
	c := newCluster(t, engine, with(options{size: 1}))
	// Which record of the new office is not durable yet when it is asked.
	for record := 1; record <= 3; record++ {
		end := c.writes(1, 1, 3)
		c.stop(1)
		d := c.disks[1]
		d.holdFrom(record)
		m := c.start(1)
		g := m.group(1)
		var have uint64
		read := make(chan error, 1)
		go func() {
			err := g.Barrier(c.ctx)
			have = m.machine(1).index()
			read <- err
		}()
		if record < 3 {
			require.NoError(t, d.awaitHeld(c.ctx))
			c.eventually("it is asked", func() bool { return g.Status().Pending > 0 || len(read) > 0 })
			g.Status() // and the loop has thought about it
		}
		d.holdFrom(0)
		d.ReleaseSync()
		require.NoError(t, receive(c, read, "the barrier"))
		require.GreaterOrEqual(t, have, end, "record %d: a barrier returned before what was acknowledged was applied", record)
		c.check(1)
	}
}

func testBarrierOldAnswer(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 1, 3)
	c.eventually("a follower waits for the old leader's answer", func() bool {
		l := c.leader(1)
		f, next := c.others(l)[0], c.others(l)[1]
		// What the leader says to the follower is late.
		c.network.setRule(func(p packet) fate { return fate{hold: p.from == l.id && p.to == f.id} })
		first := background(func() error { return f.group(1).Barrier(c.ctx) })
		// It is asked, and asked again.
		from := f.events.now()
		f.await(from, "the follower misses its leader", func(e synod.Event) bool {
			return e.Kind == synod.EventLeaderChanged && e.Leader == 0
		})
		// The other one leads now, and the follower does not hear of it.
		c.network.cut(next.id, f.id)
		if l.group(1).TransferLeader(c.ctx, next.id) != nil {
			c.network.healAll()
			c.network.release(false)
			require.NoError(t, receive(c, first, "the first barrier"))
			return false
		}
		end := c.write(1, l, next)
		second := background(func() error {
			err := f.group(1).Barrier(c.ctx)
			if have := f.machine(1).index(); err == nil && have < end {
				t.Errorf("a barrier returned with state %d, but %d was acknowledged before it", have, end)
			}
			return err
		})
		// The old leader's words arrive, each in a round of its own.
		c.network.setRule(nil)
		c.network.releaseOneByOne(func() { f.group(1).Status() })
		c.network.healAll()
		require.NoError(t, receive(c, first, "the first barrier"))
		require.NoError(t, receive(c, second, "the second barrier"))
		return true
	})
	c.check(1)
}
