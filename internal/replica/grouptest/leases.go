package grouptest

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/replica"
)

// What holds of barriers holds of those under a lease.
var leaseRules = []rule{
	{"with leases, after Barrier, on any member, the local state has everything acknowledged before, anywhere",
		func(t *testing.T, engine Engine) { barrierRule(t, engine, leased) }},
	{"with leases, a new leader answers a barrier only when it has applied what may have been acknowledged before it",
		func(t *testing.T, engine Engine) { newLeaderRule(t, engine, leased) }},
	{"with leases, the only member answers a barrier after a restart only when it has applied what it has acknowledged",
		func(t *testing.T, engine Engine) { loneRule(t, engine, leased) }},
	{"a leader with a lease answers barriers without a message", testLeaseSilent},
	{"without leases each barrier is asked for", testNoLease},
	{"a leader that is cut off answers no barrier under a lease that another leader could make stale", testLeaseCutOff},
	{"a leader that has handed over answers no barrier under its lease", testLeaseTransfer},
	{"a leader that hands over in vain answers barriers by asking, and the next one has leases again", testLeaseAfterTransfer},
	{"a barrier under a lease waits for the state machine", testLeaseSlowMachine},
	{"with leases, a group that is restarted as a whole goes on", testLeaseRestart},
}

// leased is options with leases.
func leased(o options) options {
	o.config = func(c *replica.Settings) { c.MaxClockDrift = 2 * heartbeat }
	return o
}

func unleased(o options) options { return o }

// barriers does many barriers on a member, one after the other, and returns how many
// messages it sent to another one meanwhile. false: it does not lead all the while.
func (c *cluster) barriers(l, to *member, n int) (sent int64, ok bool) {
	var count atomic.Int64
	c.network.setRule(func(p packet) fate {
		if p.from == l.id && p.to == to.id {
			count.Add(1)
		}
		return fate{}
	})
	defer c.network.setRule(nil)
	from := l.events.now()
	for range n {
		require.NoError(c, l.group(1).Barrier(c.ctx))
	}
	return count.Load(), len(l.events.all(from)) == 0
}

// many barriers are more than there are heartbeats meanwhile, on the slowest machine.
const many = 2000

func testLeaseSilent(t *testing.T, engine Engine) {
	c := newCluster(t, engine, leased(options{}))
	c.write(1)
	c.eventually("one member leads all the while", func() bool {
		l := c.leader(1)
		sent, ok := c.barriers(l, c.others(l)[0], many)
		if ok {
			require.Less(t, sent, int64(many/2))
		}
		return ok
	})
	c.check(1)
}

func testNoLease(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.write(1)
	c.eventually("one member leads all the while", func() bool {
		l := c.leader(1)
		sent, ok := c.barriers(l, c.others(l)[0], 100)
		if ok {
			require.GreaterOrEqual(t, sent, int64(100))
		}
		return ok
	})
	c.check(1)
}

// stale reads on a member that has led until it learns of what the others wrote, or does
// not answer for a while.
func (c *cluster) stale(l *member, acknowledged *register) {
	ctx, cancel := context.WithTimeout(c.ctx, 3*election)
	defer cancel()
	for ctx.Err() == nil {
		before := acknowledged.Load()
		short, cancel := context.WithTimeout(ctx, heartbeat)
		err := l.group(1).Barrier(short)
		cancel()
		if err == nil {
			require.GreaterOrEqual(c, l.machine(1).index(), before, "node %d answers a barrier, and lacks what was acknowledged before it", l.id)
		}
	}
}

func testLeaseCutOff(t *testing.T, engine Engine) {
	c := newCluster(t, engine, leased(options{}))
	var acknowledged register
	for round := range 6 {
		acknowledged.raise(c.write(1))
		l := c.leader(1)
		for _, o := range c.others(l) {
			if round%3 != 0 {
				c.network.cut(l.id, o.id)
			}
			if round%3 != 1 {
				c.network.cut(o.id, l.id)
			}
		}
		others := c.others(l)
		done := background(func() error {
			for range 5 {
				index, err := c.tryWrite(c.ctx, 1, others...)
				if err != nil {
					return err
				}
				acknowledged.raise(index)
			}
			return nil
		})
		c.stale(l, &acknowledged)
		require.NoError(t, receive(c, done, "the others write"))
		c.network.healAll()
		require.NoError(t, l.group(1).Barrier(c.ctx))
	}
	c.check(1)
}

func testLeaseTransfer(t *testing.T, engine Engine) {
	c := newCluster(t, engine, leased(options{}))
	var acknowledged register
	for round := range 6 {
		acknowledged.raise(c.write(1))
		l := c.leader(1)
		others := c.others(l)
		require.NoError(t, l.group(1).Barrier(c.ctx))
		if round%2 == 0 { // it does not hear what comes of it
			for _, o := range others {
				c.network.cut(o.id, l.id)
			}
		}
		ctx, cancel := context.WithCancel(c.ctx)
		transfer := background(func() error { return l.group(1).TransferLeader(ctx, others[0].id) })
		done := background(func() error {
			for range 5 {
				index, err := c.tryWrite(c.ctx, 1, others...)
				if err != nil {
					return err
				}
				acknowledged.raise(index)
			}
			return nil
		})
		c.stale(l, &acknowledged)
		require.NoError(t, receive(c, done, "the others write"))
		cancel()
		_ = receive(c, transfer, "the transfer")
		c.network.healAll()
		require.NoError(t, l.group(1).Barrier(c.ctx))
	}
	c.check(1)
}

func testLeaseAfterTransfer(t *testing.T, engine Engine) {
	c := newCluster(t, engine, leased(options{}))
	c.write(1)
	c.eventually("a member that can't be reached is handed the leadership, and does not get it", func() bool {
		l := c.leader(1)
		from, away, third := l.events.now(), c.others(l)[0], c.others(l)[1]
		c.network.isolate(away.id)
		defer c.network.healAll()
		if l.group(1).TransferLeader(c.ctx, away.id) == nil {
			return false
		}
		sent, ok := c.barriers(l, third, 100)
		if !ok || len(l.events.all(from)) > 0 {
			return false // it has not led all the while
		}
		require.GreaterOrEqual(t, sent, int64(100), "what was sent to the other member may yet arrive")
		return true
	})
	c.eventually("the next one leads", func() bool {
		l := c.leader(1)
		_ = l.group(1).TransferLeader(c.ctx, c.others(l)[0].id)
		next := c.leader(1)
		if next == l {
			return false
		}
		sent, ok := c.barriers(next, l, many)
		if ok {
			require.Less(t, sent, int64(many/2))
		}
		return ok
	})
	c.check(1)
}

func testLeaseSlowMachine(t *testing.T, engine Engine) {
	c := newCluster(t, engine, leased(options{}))
	c.write(1)
	c.eventually("the leader keeps its office", func() bool {
		l := c.leader(1)
		require.NoError(t, l.group(1).Barrier(c.ctx))
		g := newGate()
		l.machine(1).set(func(h *hooks) { h.apply = func(uint64, []byte) { g.pass() } })
		defer l.machine(1).set(func(h *hooks) { h.apply = nil })
		defer g.release()
		before := l.machine(1).index()
		write := background(func() error { _, err := c.propose(c.ctx, l, 1, c.newCommand(1)); return err })
		select {
		case <-g.reached:
		case <-write:
			return false
		}
		read := background(func() error {
			err := l.group(1).Barrier(c.ctx)
			if have := l.machine(1).index(); err == nil && have <= before {
				t.Errorf("a barrier was answered with state %d, before what is decided was applied", have)
			}
			return err
		})
		l.group(1).Status()
		select {
		case err := <-read:
			require.FailNow(t, "a barrier was answered before what is decided was applied", "%v", err)
		default:
		}
		g.release()
		require.NoError(t, receive(c, read, "the barrier"))
		_ = receive(c, write, "the write")
		return true
	})
	c.check(1)
}

func testLeaseRestart(t *testing.T, engine Engine) {
	c := newCluster(t, engine, leased(options{}))
	for range 3 {
		end := c.writes(1, 1, 3)
		c.crash(c.ids()...)
		for _, id := range c.ids() {
			c.start(id)
		}
		l := c.leader(1)
		require.GreaterOrEqual(t, l.machine(1).index(), end)
		c.check(1)
	}
}
