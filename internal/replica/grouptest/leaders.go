package grouptest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
)

var leaderRules = []rule{
	{"when the leader stops another one leads, nothing acknowledged is lost, and the old one catches up from the log", testFailover},
	{"when the leader changes again and again nothing acknowledged is lost", testManyFailovers},
	{"a member that does not lead refuses proposals and names the leader", testNotLeader},
	{"leadership goes to the member that TransferLeader names", testTransfer},
	{"a member does not lead before its own promise is durable", testLeaderDurable},
	{"leadership that can't be handed over stays, or goes elsewhere, and the caller is told", testTransferFails},
	{"a leader that is cut off acknowledges nothing, and what is overwritten was certainly not executed", testLeaderCutOff},
	{"a leader that has been deposed meanwhile does not name itself for a proposal that was lost", testLostOfLeader},
	{"a proposal with a deadline on a leader that is cut off has an unknown outcome", testDeadline},
}

func testFailover(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	for _, crash := range []bool{false, true} {
		c.writes(1, 4, 5)
		l := c.leader(1)
		others := c.others(l)
		from := others[0].events.now()
		if crash {
			c.crash(l.id)
		} else {
			c.stop(l.id)
		}
		others[0].await(from, "another leader", func(e synod.Event) bool {
			return e.Kind == synod.EventLeaderChanged && e.Leader != 0 && e.Leader != l.id
		})
		c.writes(1, 4, 5)
		c.check(1)
		back := c.start(l.id)
		require.NoError(t, back.group(1).Barrier(c.ctx))
		c.check(1)
		require.Zero(t, back.machine(1).restored())
	}
}

func testManyFailovers(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{group: compacting})
	ctx, cancel := context.WithCancel(c.ctx)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, _ = c.tryWrite(ctx, 1)
			}
		})
	}
	for i := range 9 {
		l := c.leader(1)
		from := c.others(l)[0].events.now()
		another := func(e synod.Event) bool {
			return e.Kind == synod.EventLeaderChanged && e.Leader != 0 && e.Leader != l.id
		}
		switch i % 3 {
		case 0:
			_ = l.group(1).TransferLeader(ctx, c.others(l)[i/3%2].id)
		case 1:
			c.network.isolate(l.id)
			c.others(l)[0].await(from, "another leader", another)
			c.network.healAll()
		case 2:
			c.crash(l.id)
			c.running()[0].await(0, "another leader", another)
			c.start(l.id)
		}
	}
	cancel()
	wg.Wait()
	c.check(1)
	acknowledged, never, unknown := c.history.counts()
	t.Logf("%d acknowledged, %d certainly not, %d unknown", acknowledged, never, unknown)
}

func testNotLeader(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.eventually("a follower that names the leader", func() bool {
		l := c.leader(1)
		for _, f := range c.others(l) {
			_, err := c.propose(c.ctx, f, 1, c.newCommand(1))
			var elsewhere *synod.NotLeaderError
			if !errors.As(err, &elsewhere) {
				require.True(t, err == nil || errors.Is(err, synod.ErrUnknownOutcome), "%v", err)
				return false // it leads by now
			}
			require.Equal(t, uint64(1), elsewhere.Group)
			require.NotEqual(t, f.id, elsewhere.Leader, "a member that does not lead names itself")
			if elsewhere.Leader != l.id {
				return false
			}
		}
		return true
	})
	// One that knows of no leader says so.
	f := c.others(c.leader(1))[0]
	from := f.events.now()
	c.network.isolate(f.id)
	f.await(from, "no leader", func(e synod.Event) bool { return e.Kind == synod.EventLeaderChanged && e.Leader == 0 })
	_, err := c.propose(c.ctx, f, 1, c.newCommand(1))
	var elsewhere *synod.NotLeaderError
	require.ErrorAs(t, err, &elsewhere)
	require.Zero(t, elsewhere.Leader)
	c.network.healAll()
	c.check(1)
}

func testTransfer(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	ctx, cancel := context.WithCancel(c.ctx)
	var wg sync.WaitGroup
	for range 4 { // under load
		wg.Go(func() {
			for ctx.Err() == nil {
				_, _ = c.tryWrite(ctx, 1)
			}
		})
	}
	for _, to := range []uint64{1, 2, 3, 1, 3, 2} {
		from := c.member(to).events.now()
		took := false
		c.eventually("the transfer succeeds", func() bool {
			l := c.leader(1)
			took = took || l.id != to
			return l.group(1).TransferLeader(c.ctx, to) == nil && took || l.id == to
		})
		if took {
			c.member(to).await(from, "it leads", func(e synod.Event) bool {
				return e.Kind == synod.EventLeaderChanged && e.Leader == to
			})
		}
	}
	cancel()
	wg.Wait()
	// To oneself, there is nothing to do.
	c.eventually("a transfer to the leader itself", func() bool {
		l := c.leader(1)
		return l.group(1).TransferLeader(c.ctx, l.id) == nil
	})
	c.check(1)
}

// With four others to vote for it, a member could lead without having stored that it
// stands for election; after a crash it would stand for the same election again.
func testLeaderDurable(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 5})
	for range 3 {
		c.check(1)
		l := c.leader(1)
		f := c.others(l)[0]
		from := f.events.now()
		f.disk.HoldSync()
		require.Error(t, l.group(1).TransferLeader(c.ctx, f.id))
		for _, e := range f.events.all(from) {
			require.False(t, e.Kind == synod.EventLeaderChanged && e.Leader == f.id, "it leads, and will not remember")
		}
		if c.crash(f.id); f.id%2 == 0 {
			c.write(1)
		}
		c.start(f.id)
		c.check(1)
	}
}

func testTransferFails(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.eventually("not a member", func() bool {
		err := c.leader(1).group(1).TransferLeader(c.ctx, 99)
		require.Error(t, err)
		return errors.Is(err, replica.ErrTransfer)
	})
	c.eventually("on a follower", func() bool {
		l := c.leader(1)
		err := c.others(l)[0].group(1).TransferLeader(c.ctx, l.id)
		var elsewhere *synod.NotLeaderError
		return errors.As(err, &elsewhere) && elsewhere.Leader == l.id
	})
	c.eventually("to a member that can't be reached", func() bool {
		l := c.leader(1)
		f := c.others(l)[0]
		c.network.isolate(f.id)
		transfer := background(func() error { return l.group(1).TransferLeader(c.ctx, f.id) })
		// Whatever is proposed meanwhile is refused, or done, and nobody is sent to
		// where he came from.
		for done := false; !done; {
			_, err := c.propose(c.ctx, l, 1, c.newCommand(1))
			var elsewhere *synod.NotLeaderError
			if errors.As(err, &elsewhere) {
				require.NotEqual(t, l.id, elsewhere.Leader, "it refuses and names itself")
			}
			select {
			case err = <-transfer:
				require.Error(t, err)
				transfer = nil
				done = true
				if !errors.Is(err, replica.ErrTransfer) {
					require.ErrorAs(t, err, new(*synod.NotLeaderError))
				}
			default:
			}
		}
		c.network.healAll()
		return true
	})
	c.check(1)
	// A caller may leave.
	l := c.leader(1)
	f := c.others(l)[0]
	c.network.isolate(f.id)
	ctx, cancel := context.WithCancel(c.ctx)
	transfer := background(func() error { return l.group(1).TransferLeader(ctx, f.id) })
	cancel()
	require.Error(t, receive(c, transfer, "the transfer returns"))
	c.network.healAll()
	c.check(1)
}

func testLeaderCutOff(t *testing.T, engine Engine) {
	const proposals = 20
	c := newCluster(t, engine, options{})
	c.writes(1, 1, 5)
	never := 0
	c.eventually("the leader was one when it was cut off", func() bool {
		l := c.leader(1)
		others := c.others(l)
		c.network.isolate(l.id)
		answers := make(chan error, proposals)
		for i := range proposals {
			go func() {
				_, err := c.propose(c.ctx, l, 1, c.newCommand(1))
				answers <- err
			}()
			if i%5 == 0 {
				l.group(1).Status() // so that they come in several rounds
			}
		}
		// The others go on. They write more than was proposed, so that each place that
		// it may have had is taken.
		c.writes(1, 1, 2*proposals, others...)
		state := l.machine(1).index()
		c.network.healAll()
		require.NoError(t, l.group(1).Barrier(c.ctx))
		require.Greater(t, l.machine(1).index(), state)
		overwritten := 0
		for range proposals {
			err := receive(c, answers, "an answer to what was proposed to the old leader")
			require.Error(t, err, "it was acknowledged without a majority")
			if errors.As(err, new(*synod.NotLeaderError)) && !errors.Is(err, synod.ErrUnknownOutcome) {
				overwritten++
			}
		}
		never += overwritten
		c.check(1)
		return never > 0
	})
	require.NotZero(t, never)
	// The logs are whole, without a rest of what was overwritten.
	c.crash(c.ids()...)
	for _, id := range c.ids() {
		c.start(id)
	}
	c.check(1)
}

func testLostOfLeader(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.eventually("it leads again before it learns what was lost", func() bool {
		l := c.leader(1)
		others := c.others(l)
		g := newGate()
		l.machine(1).set(func(h *hooks) { h.apply = func(uint64, []byte) { g.pass() } })
		defer l.machine(1).set(func(h *hooks) { h.apply = nil })
		defer g.release()
		first := background(func() error { _, err := c.propose(c.ctx, l, 1, c.newCommand(1)); return err })
		select {
		case <-g.reached:
		case <-first: // it does not lead, for once
			return false
		}
		last := l.group(1).Status().Last
		c.network.isolate(l.id)
		lost := background(func() error { _, err := c.propose(c.ctx, l, 1, c.newCommand(1)); return err })
		for l.group(1).Status().Last == last && len(lost) == 0 {
			require.NoError(t, c.ctx.Err())
		}
		c.writes(1, 1, 2, others...)
		c.network.healAll()
		one, cancel := contextFor(c, 2*attempt)
		defer cancel()
		for others[0].group(1).Status().Leader != l.id {
			if one.Err() != nil {
				return false
			}
			for _, o := range others {
				_ = o.group(1).TransferLeader(one, l.id) // one of them leads, or will
			}
		}
		if l.group(1).Status().Leader != l.id {
			return false
		}
		g.release()
		require.NoError(t, receive(c, first, "the first proposal"))
		var elsewhere *synod.NotLeaderError
		require.ErrorAs(t, receive(c, lost, "the lost proposal"), &elsewhere)
		require.NotEqual(t, l.id, elsewhere.Leader, "it names itself")
		return true
	})
	c.check(1)
}

func testDeadline(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.write(1)
	c.eventually("the leader was one when it was cut off", func() bool {
		l := c.leader(1)
		c.network.isolate(l.id)
		defer c.network.healAll()
		ctx, cancel := context.WithTimeout(c.ctx, election/4)
		defer cancel()
		_, err := c.propose(ctx, l, 1, c.newCommand(1))
		require.Error(t, err)
		if errors.As(err, new(*synod.NotLeaderError)) {
			require.NotErrorIs(t, err, synod.ErrUnknownOutcome)
			return false // it had stepped down
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
		return errors.Is(err, synod.ErrUnknownOutcome)
	})
	c.check(1)
	// What has no outcome yet counts as pending, also when nobody waits for it.
	for _, m := range c.running() {
		require.NoError(t, m.group(1).Barrier(c.ctx))
	}
	require.True(t, slices.ContainsFunc(c.running(), func(m *member) bool { return m.group(1).Status().Pending == 0 }))
}
