package grouptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

var sessionRules = concat(
	kinds("a request that is sent again to another member is applied once, and has the first result", testRetryElsewhere),
	kinds("a request that is sent again after restarts and snapshots is not applied again", testRetryAfterRestart),
	kinds("requests are applied once while leaders change and crash", testRetryUnderFaults),
	kinds("copies of a request that come at once are applied once, and have one result", testRetryAtOnce),
	both("a member that was brought up by a snapshot knows what was applied, and the results", testSessionsInSnapshot),
	[]rule{
		{"a state machine whose disk is behind its memory is given what it lost, once", testSessionsLazy},
		{"a checkpoint of sessions that is damaged or missing is an ErrCorrupt", testCheckpointCorrupt},
		{"a session that nobody uses expires, on all members alike, and one that is used does not", testSessionExpires},
		{"a session that is closed, or never was, is an ErrSessionExpired", testSessionClosed},
		{"more sessions than MaxSessions are refused with ErrOverloaded, until one is closed", testSessionLimit},
		{"results beyond MaxSessionBytes are lost, the oldest first, and their commands are not applied again", testSessionBytes},
		{"a request below the floor is an ErrStaleRequest, and is not applied", testSessionFloor},
		{"a request that can't be one is an ErrInvalidRequest", testInvalidRequests},
		{"a member that does not lead refuses sessions and names the leader", testSessionNotLeader},
		{"commands with and without a session keep their order and get their own answers", testSessionMixed},
	},
)

// kinds makes a rule of one test for each kind of state machine.
func kinds(name string, test func(t *testing.T, engine Engine, k kind)) (rules []rule) {
	for k, what := range []string{plain: "in memory", batched: "a BatchApplier", durable: "on disk"} {
		rules = append(rules, rule{name + ", " + what, func(t *testing.T, engine Engine) { test(t, engine, kind(k)) }})
	}
	return rules
}

// atLeader calls fn on one member after the other until its error is not one that
// another member, or another moment, would mend.
func (c *cluster) atLeader(ctx context.Context, group uint64, fn func(ctx context.Context, g Group) error, among ...*member) error {
	var hint uint64
	for i := 0; ; i++ {
		list := among
		if len(list) == 0 {
			list = c.running()
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(list) == 0 {
			continue
		}
		m := list[i%len(list)]
		for _, o := range list {
			if o.id == hint {
				m = o
			}
		}
		hint = 0
		g := m.group(group)
		if g == nil {
			continue
		}
		one, cancel := context.WithTimeout(ctx, attempt)
		err := fn(one, g)
		cancel()
		var elsewhere *synod.NotLeaderError
		switch {
		case errors.As(err, &elsewhere):
			if hint = elsewhere.Leader; hint == 0 {
				c.waitForLeader(group, []*member{m})
			}
		case errors.Is(err, synod.ErrUnknownOutcome), errors.Is(err, synod.ErrClosed), errors.Is(err, context.DeadlineExceeded):
		default:
			return err
		}
	}
}

// openSession opens a session, wherever the leader is.
func (c *cluster) openSession(group uint64, ttl time.Duration) *replica.Session {
	c.Helper()
	var id uint64
	require.NoError(c, c.atLeader(c.ctx, group, func(ctx context.Context, g Group) (err error) {
		id, err = g.OpenSession(ctx, ttl)
		return err
	}))
	require.NotZero(c, id)
	return replica.NewSession(id, 0)
}

// send sends a request to whoever leads, until it has an answer.
func (c *cluster) send(group uint64, r synod.Request, command string, among ...*member) (answer []byte, err error) {
	err = c.atLeader(c.ctx, group, func(ctx context.Context, g Group) (err error) {
		answer, err = g.ProposeOnce(ctx, r, []byte(command))
		return err
	}, among...)
	return answer, err
}

// once runs a new command of a session to its end, and notes what came of it.
func (c *cluster) once(ctx context.Context, s *replica.Session, group uint64) error {
	command := c.newCommand(group)
	var hint uint64
	turn := c.names.Load()
	answer, err := s.Do(ctx, func(ctx context.Context, r synod.Request) ([]byte, error) {
		list := c.running()
		if len(list) == 0 {
			return nil, &synod.NotLeaderError{Group: group}
		}
		turn++
		m := list[turn%uint64(len(list))]
		for _, o := range list {
			if o.id == hint {
				m = o
			}
		}
		hint = 0
		g := m.group(group)
		if g == nil {
			return nil, &synod.NotLeaderError{Group: group}
		}
		one, cancel := context.WithTimeout(ctx, attempt)
		defer cancel()
		answer, err := g.ProposeOnce(one, r, []byte(command))
		var elsewhere *synod.NotLeaderError
		switch {
		case errors.As(err, &elsewhere):
			hint = elsewhere.Leader
		case errors.Is(err, synod.ErrUnknownOutcome):
		case errors.Is(err, synod.ErrClosed), errors.Is(err, context.DeadlineExceeded):
			return nil, &synod.NotLeaderError{Group: group} // others are there
		}
		return answer, err
	})
	if errors.Is(err, synod.ErrResultLost) {
		return nil
	}
	c.history.record(c.T, command, answer, err)
	return err
}

// count returns how often a member has applied a command.
func (m *member) count(group uint64, command string) (n int) {
	for _, have := range m.machine(group).state() {
		if have == digest([]byte(command)) {
			n++
		}
	}
	return n
}

// checkOnce checks that all members have the same state, and applied a command once.
func (c *cluster) checkOnce(group uint64, commands ...string) {
	c.Helper()
	c.check(group)
	for _, m := range c.running() {
		for _, command := range commands {
			require.Equal(c, 1, m.count(group, command), "node %d applied %q", m.id, command)
		}
	}
}

// requireFirst checks the answer to a request that was sent again. A state machine that
// kept its effects itself may have lost the result.
func requireFirst(t *testing.T, first, answer []byte, err error, mayBeLost bool) {
	t.Helper()
	if mayBeLost && errors.Is(err, synod.ErrResultLost) {
		return
	}
	require.NoError(t, err)
	require.Equal(t, string(first), string(answer))
}

func testRetryElsewhere(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k})
	s := c.openSession(1, 0)
	c.eventually("the outcome is unknown, and the command applied", func() bool {
		r, err := s.Begin(c.ctx)
		require.NoError(t, err)
		defer s.End(r)
		command := c.newCommand(1)
		l := c.leader(1)
		others := c.others(l)
		// It speaks, and hears nothing: what it proposes is decided without it.
		for _, o := range others {
			c.network.cut(o.id, l.id)
		}
		ctx, cancel := context.WithTimeout(c.ctx, election/2)
		_, err = l.group(1).ProposeOnce(ctx, r, []byte(command))
		cancel()
		unknown := errors.Is(err, synod.ErrUnknownOutcome)
		c.network.isolate(l.id)
		// One that was refused may be sent again, too.
		first, err := c.send(1, r, command, others...)
		require.NoError(t, err)
		before := others[0].count(1, command) + others[1].count(1, command)
		again, err := c.send(1, r, command, others...)
		requireFirst(t, first, again, err, false)
		c.network.healAll()
		require.NotZero(t, before)
		// To the old leader, too, if it leads again.
		for i := range 3 {
			_ = c.leader(1).group(1).TransferLeader(c.ctx, c.ids()[(int(l.id)+i)%3])
			again, err = c.send(1, r, command)
			requireFirst(t, first, again, err, false)
		}
		c.checkOnce(1, command)
		return unknown
	})
	// The caller's copy is its own.
	r, err := s.Begin(c.ctx)
	require.NoError(t, err)
	command := c.newCommand(1)
	first, err := c.send(1, r, command)
	require.NoError(t, err)
	want := bytes.Clone(first)
	for range 3 {
		clear(first)
		first, err = c.send(1, r, command)
		requireFirst(t, want, first, err, false)
	}
}

func testRetryAfterRestart(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k, group: compacting})
	s := c.openSession(1, 0)
	type request struct {
		synod.Request
		command string
		answer  []byte
	}
	var requests []request
	var commands []string
	for round := range 6 {
		for range 3 {
			r, err := s.Begin(c.ctx)
			require.NoError(t, err)
			command := c.newCommand(1)
			answer, err := c.send(1, r, command)
			require.NoError(t, err)
			requests = append(requests, request{r, command, answer})
			commands = append(commands, command)
		}
		switch round {
		case 0, 3: // from the log alone, or with some of it
		default:
			c.writes(1, 1, 120)
		}
		if round%2 == 0 {
			c.crash(c.ids()...)
		} else {
			c.stop(c.ids()...)
		}
		for _, id := range c.ids() {
			c.start(id)
		}
		for _, r := range requests {
			answer, err := c.send(1, r.Request, r.command)
			requireFirst(t, r.answer, answer, err, k == durable)
		}
		c.checkOnce(1, commands...)
		for _, m := range c.running() {
			require.NoError(t, m.group(1).Barrier(c.ctx))
			require.Equal(t, 1, m.group(1).Status().Sessions)
		}
	}
}

func testRetryUnderFaults(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k, group: func(cfg *replica.GroupConfig) {
		compacting(cfg)
		cfg.MaxSessionBytes = 2000
	}, machine: func(node, _ uint64, m *machine) { m.hooks.lazy = k == durable && node == 1 }})
	ctx, cancel := context.WithCancel(c.ctx)
	var wg sync.WaitGroup
	for range 2 {
		s := c.openSession(1, 0)
		for range 3 {
			wg.Go(func() {
				for ctx.Err() == nil {
					// The outcome is never unknown: a caller goes on until it has one.
					if err := c.once(c.ctx, s, 1); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	for i := range 6 {
		l := c.leader(1)
		from := c.others(l)[0].events.now()
		another := func(e synod.Event) bool {
			return e.Kind == synod.EventLeaderChanged && e.Leader != 0 && e.Leader != l.id
		}
		switch i % 3 {
		case 0:
			c.crash(l.id)
			c.running()[0].await(0, "another leader", another)
			c.start(l.id)
		case 1:
			for _, o := range c.others(l) {
				c.network.cut(o.id, l.id)
			}
			c.others(l)[0].await(from, "another leader", another)
			c.network.healAll()
		case 2:
			c.crash(c.ids()...)
			for _, id := range c.ids() {
				c.start(id)
			}
		}
	}
	cancel()
	wg.Wait()
	c.check(1)
	acknowledged, _, unknown := c.history.counts()
	require.NotZero(t, acknowledged)
	require.Zero(t, unknown)
}

func testRetryAtOnce(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k})
	s := c.openSession(1, 0)
	for range 10 {
		r, err := s.Begin(c.ctx)
		require.NoError(t, err)
		command := c.newCommand(1)
		answers := make([][]byte, 12)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() {
				var err error
				if answers[i], err = c.send(1, r, command); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, a := range answers {
			require.Equal(t, string(answers[0]), string(a))
		}
		require.True(t, bytes.HasSuffix(answers[0], []byte(" "+command)))
		s.End(r)
		c.checkOnce(1, command)
	}
}

func testSessionsInSnapshot(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k, group: compacting})
	s := c.openSession(1, 0)
	lead := func(id uint64) {
		c.eventually("it leads", func() bool {
			_ = c.leader(1).group(1).TransferLeader(c.ctx, id)
			return c.leader(1).id == id
		})
	}
	f := c.others(c.leader(1))[0].id
	c.leaveBehind(f)
	r, err := s.Begin(c.ctx)
	require.NoError(t, err)
	command := c.newCommand(1)
	first, err := c.send(1, r, command)
	require.NoError(t, err)
	last := c.leader(1).group(1).Status().Last
	c.eventually("the log is cut", func() bool {
		c.writes(1, 1, 20)
		return c.running()[0].group(1).Status().First > last && c.running()[1].group(1).Status().First > last
	})
	back := c.start(f)
	back.awaitKind(0, synod.EventSnapshotInstalled, 1)
	c.check(1)
	require.Equal(t, 1, back.group(1).Status().Sessions)
	lead(f)
	again, err := c.send(1, r, command, back)
	requireFirst(t, first, again, err, false)
	c.checkOnce(1, command)
	// What it was given lasts.
	for range 2 {
		c.crash(f)
		back = c.start(f)
		c.check(1)
		lead(f)
		again, err = c.send(1, r, command, back)
		requireFirst(t, first, again, err, k == durable)
		c.checkOnce(1, command)
		c.writes(1, 1, 100)
	}
}

func testSessionsLazy(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1, kind: durable, group: compacting, machine: func(_, _ uint64, m *machine) {
		m.hooks.lazy = true
	}})
	s := c.openSession(1, 0)
	type request struct {
		synod.Request
		command string
	}
	var requests []request
	var commands []string
	first := c.member(1).group(1).Status().First
	for round := range 5 {
		for i := range 150 + round%2*100 {
			r, err := s.Begin(c.ctx)
			require.NoError(t, err)
			command := c.newCommand(1)
			_, err = c.send(1, r, command)
			require.NoError(t, err)
			switch {
			case i%50 == 0:
				requests = append(requests, request{r, command}) // without End: it is sent again
				commands = append(commands, command)
			default:
				s.End(r)
			}
			if i == 30*round || i == 100 {
				c.member(1).machine(1).sync()
			}
		}
		c.crash(1)
		m := c.start(1)
		require.NoError(t, m.group(1).Barrier(c.ctx))
		require.Equal(t, 1, m.group(1).Status().Sessions)
		for _, r := range requests {
			answer, err := c.send(1, r.Request, r.command)
			if err == nil {
				require.True(t, bytes.HasSuffix(answer, []byte(" "+r.command)), "%q", answer)
			} else {
				require.ErrorIs(t, err, synod.ErrResultLost)
			}
		}
		c.checkOnce(1, commands...)
	}
	require.Greater(t, c.member(1).group(1).Status().First, first+100, "the log is not cut")
}

func testCheckpointCorrupt(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1, kind: durable, group: compacting})
	s := c.openSession(1, 0)
	c.eventually("the log is cut", func() bool {
		require.NoError(t, c.once(c.ctx, s, 1))
		return c.member(1).group(1).Status().First > 100
	})
	c.stop(1)
	good, err := c.disks[1].records()
	require.NoError(t, err)
	found := false
	for i, r := range good {
		if recordKind(r.key) != "checkpoint" {
			continue
		}
		found = true
		missing := append(clone(good[:i]), clone(good[i+1:])...)
		damaged := clone(good)
		damaged[i].value[len(r.value)/2] ^= 1
		foreign := clone(good) // sealed, and no checkpoint
		foreign[i].value = storage.AppendRecord(nil, r.key, []byte{1, 2, 3, 0, 9})
		for what, records := range map[string][]record{"missing": missing, "damaged": damaged, "foreign": foreign} {
			d, err := diskOf(records)
			require.NoError(t, err)
			m, err := c.openOn(1, d, nil)
			require.NoError(t, err)
			require.ErrorIs(t, m.startGroup(1), storage.ErrCorrupt, what)
			m.close()
			after, err := d.records()
			require.NoError(t, err)
			requireKept(t, records, after, 1, what)
		}
	}
	require.True(t, found)
	c.start(1)
	c.check(1)
}

func testSessionExpires(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	short, long := c.openSession(1, 5*heartbeat), c.openSession(1, time.Hour)
	r, err := short.Begin(c.ctx)
	require.NoError(t, err)
	c.eventually("all members have forgotten it", func() bool {
		require.NoError(t, c.once(c.ctx, long, 1))
		for _, m := range c.running() {
			if m.group(1).Status().Sessions != 1 {
				return false
			}
		}
		return true
	})
	command := c.newCommand(1)
	for _, m := range c.running() {
		_ = c.leader(1).group(1).TransferLeader(c.ctx, m.id)
		_, err = c.send(1, r, command)
		require.ErrorIs(t, err, synod.ErrSessionExpired)
		require.NotErrorIs(t, err, synod.ErrUnknownOutcome)
	}
	require.NoError(t, c.once(c.ctx, long, 1))
	// What expired stays so after a restart.
	c.crash(c.ids()...)
	for _, id := range c.ids() {
		c.start(id)
	}
	_, err = c.send(1, r, command)
	require.ErrorIs(t, err, synod.ErrSessionExpired)
	require.NoError(t, c.once(c.ctx, long, 1))
	c.check(1)
	for _, m := range c.running() {
		require.Zero(t, m.count(1, command))
	}
}

func testSessionClosed(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	s := c.openSession(1, 0)
	require.NoError(t, c.once(c.ctx, s, 1))
	end := func(id uint64) error {
		return c.atLeader(c.ctx, 1, func(ctx context.Context, g Group) error { return g.CloseSession(ctx, id) })
	}
	require.NoError(t, end(s.ID()))
	require.NoError(t, end(s.ID()), "a second time")
	r, err := s.Begin(c.ctx)
	require.NoError(t, err)
	for _, id := range []uint64{s.ID(), 1, math.MaxUint64} {
		command := c.newCommand(1)
		_, err := c.send(1, synod.Request{Session: id, Sequence: r.Sequence, Floor: r.Floor}, command)
		require.ErrorIs(t, err, synod.ErrSessionExpired)
		require.ErrorContains(t, err, "group 1")
		c.check(1)
		require.Zero(t, c.running()[0].count(1, command))
	}
	require.ErrorIs(t, c.once(c.ctx, s, 1), synod.ErrSessionExpired)
	other := c.openSession(1, 0)
	require.NotEqual(t, s.ID(), other.ID())
	require.NoError(t, c.once(c.ctx, other, 1))
	c.check(1)
}

func testSessionLimit(t *testing.T, engine Engine) {
	const limit = 5
	c := newCluster(t, engine, options{group: func(cfg *replica.GroupConfig) { cfg.MaxSessions = limit }})
	open := func() error {
		return c.atLeader(c.ctx, 1, func(ctx context.Context, g Group) error {
			_, err := g.OpenSession(ctx, 0)
			return err
		})
	}
	s := c.openSession(1, 0)
	c.eventually("too many", func() bool {
		err := open()
		if err != nil {
			require.ErrorIs(t, err, synod.ErrOverloaded)
			require.NotErrorIs(t, err, synod.ErrUnknownOutcome)
		}
		return err != nil
	})
	require.NoError(t, c.once(c.ctx, s, 1), "the others go on")
	c.check(1)
	for _, m := range c.running() {
		require.Equal(t, limit, m.group(1).Status().Sessions)
	}
	require.ErrorIs(t, open(), synod.ErrOverloaded)
	require.NoError(t, c.atLeader(c.ctx, 1, func(ctx context.Context, g Group) error { return g.CloseSession(ctx, s.ID()) }))
	require.NoError(t, open())
	require.ErrorIs(t, open(), synod.ErrOverloaded)
	c.check(1)
}

func testSessionBytes(t *testing.T, engine Engine) {
	const limit = 1000
	c := newCluster(t, engine, options{group: func(cfg *replica.GroupConfig) { cfg.MaxSessionBytes = limit }})
	s := c.openSession(1, 0)
	type request struct {
		synod.Request
		command string
		answer  []byte
	}
	var requests []request
	var commands []string
	for range 40 {
		r, err := s.Begin(c.ctx)
		require.NoError(t, err)
		command := c.newCommand(1)
		answer, err := c.send(1, r, command)
		require.NoError(t, err)
		requests = append(requests, request{r, command, answer})
		commands = append(commands, command)
	}
	kept := 0
	for round := range 3 {
		kept = 0
		for _, r := range requests {
			answer, err := c.send(1, r.Request, r.command)
			if err == nil {
				require.Equal(t, string(r.answer), string(answer))
				kept++
				continue
			}
			require.ErrorIs(t, err, synod.ErrResultLost)
			require.NotErrorIs(t, err, synod.ErrUnknownOutcome)
			require.Zero(t, kept, "a result is lost, and an older one is not")
		}
		require.Positive(t, kept)
		require.Less(t, kept, limit/100)
		// The same on another one.
		_ = c.leader(1).group(1).TransferLeader(c.ctx, uint64(round+1))
	}
	c.checkOnce(1, commands...)
}

func testSessionFloor(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	s := c.openSession(1, 0)
	request := func(sequence, floor uint64) synod.Request {
		return synod.Request{Session: s.ID(), Sequence: sequence, Floor: floor}
	}
	commands := make(map[uint64]string)
	for _, sequence := range []uint64{3, 1, 900} { // in any order
		commands[sequence] = c.newCommand(1)
		_, err := c.send(1, request(sequence, 0), commands[sequence])
		require.NoError(t, err)
	}
	commands[1500] = c.newCommand(1)
	_, err := c.send(1, request(1500, 800), commands[1500])
	require.NoError(t, err)
	for _, sequence := range []uint64{1, 2, 3, 799} {
		command := c.newCommand(1)
		_, err := c.send(1, request(sequence, 1), command)
		require.ErrorIs(t, err, synod.ErrStaleRequest)
		c.check(1)
		require.Zero(t, c.running()[0].count(1, command))
	}
	for _, sequence := range []uint64{900, 1500} {
		answer, err := c.send(1, request(sequence, 800), commands[sequence])
		require.NoError(t, err)
		require.True(t, strings.HasSuffix(string(answer), " "+commands[sequence]))
	}
	// The window is used again and again.
	for sequence := uint64(1000); sequence < 8*synod.SessionWindow; sequence += 700 {
		commands[sequence] = c.newCommand(1)
		for range 2 {
			answer, err := c.send(1, request(sequence, max(800, sequence-50)), commands[sequence])
			require.NoError(t, err)
			require.True(t, strings.HasSuffix(string(answer), " "+commands[sequence]))
		}
	}
	for _, command := range commands {
		c.checkOnce(1, command)
	}
}

func testInvalidRequests(t *testing.T, engine Engine) {
	const limit = 1000
	c := newCluster(t, engine, options{config: func(cfg *replica.Settings) { cfg.MaxCommandBytes = limit }})
	s := c.openSession(1, 0)
	id := s.ID()
	for _, m := range c.running() {
		for _, r := range []synod.Request{
			{}, {Session: id}, {Sequence: 1}, {Session: id, Sequence: 1, Floor: 2}, {Session: id, Sequence: math.MaxUint64, Floor: math.MaxUint64},
			{Session: id, Sequence: synod.SessionWindow + 1}, {Session: id, Sequence: synod.SessionWindow + 1, Floor: 1},
		} {
			_, err := m.group(1).ProposeOnce(c.ctx, r, []byte("no"))
			require.ErrorIs(t, err, synod.ErrInvalidRequest, "%+v", r)
		}
		for _, ttl := range []time.Duration{-1, -time.Hour, 1, math.MaxInt64} {
			_, err := m.group(1).OpenSession(c.ctx, ttl)
			require.ErrorIs(t, err, synod.ErrInvalidRequest, "%v", ttl)
		}
		require.ErrorIs(t, m.group(1).CloseSession(c.ctx, 0), synod.ErrInvalidRequest)
		_, err := m.group(1).ProposeOnce(c.ctx, synod.Request{Session: id, Sequence: 1}, make([]byte, limit+1))
		require.ErrorIs(t, err, synod.ErrTooLarge)
		over, cancel := context.WithCancel(c.ctx)
		cancel()
		_, err = m.group(1).ProposeOnce(over, synod.Request{Session: id, Sequence: 1}, []byte("no"))
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, synod.ErrUnknownOutcome)
	}
	for field, value := range map[string]replica.GroupConfig{
		"MaxSessions":     {MaxSessions: -1},
		"MaxSessionBytes": {MaxSessionBytes: math.MaxInt32},
	} {
		value.ID, value.StateMachine = 9, newMachine("none", t.Errorf)
		_, err := c.member(1).node.StartGroup(c.ctx, value)
		var wrong *synod.ConfigError
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, field, wrong.Field)
	}
	c.check(1)
	require.NotContains(t, c.running()[0].machine(1).state(), "no")
	// The last one that fits.
	_, err := c.send(1, synod.Request{Session: id, Sequence: synod.SessionWindow}, c.newCommand(1))
	require.NoError(t, err)
}

func testSessionNotLeader(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	s := c.openSession(1, 0)
	c.eventually("followers that name the leader", func() bool {
		l := c.leader(1)
		named := 0
		for _, f := range c.others(l) {
			_, opened := f.group(1).OpenSession(c.ctx, 0)
			_, proposed := f.group(1).ProposeOnce(c.ctx, synod.Request{Session: s.ID(), Sequence: 1}, []byte("g1 elsewhere"))
			for _, err := range []error{opened, proposed, f.group(1).CloseSession(c.ctx, s.ID())} {
				var elsewhere *synod.NotLeaderError
				if !errors.As(err, &elsewhere) {
					require.True(t, err == nil || errors.Is(err, synod.ErrUnknownOutcome) || errors.Is(err, synod.ErrSessionExpired), "%v", err)
					continue // it leads by now
				}
				require.NotEqual(t, f.id, elsewhere.Leader)
				if elsewhere.Leader == l.id {
					named++
				}
			}
		}
		return named == 6
	})
	c.check(1)
}

func testSessionMixed(t *testing.T, engine Engine) {
	for k := plain; k <= durable; k++ {
		t.Run(fmt.Sprint("kind ", k), func(t *testing.T) {
			c := newCluster(t, engine, options{kind: k, group: compacting})
			s := c.openSession(1, 0)
			var wg sync.WaitGroup
			wg.Go(func() { c.writes(1, 8, 15) })
			for range 8 {
				wg.Go(func() {
					for range 15 {
						if err := c.once(c.ctx, s, 1); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Go(func() {
				for range 20 {
					s := c.openSession(1, 0)
					if err := c.once(c.ctx, s, 1); err != nil {
						t.Error(err)
					}
					if err := c.atLeader(c.ctx, 1, func(ctx context.Context, g Group) error { return g.CloseSession(ctx, s.ID()) }); err != nil {
						t.Error(err)
					}
				}
			})
			wg.Wait()
			c.check(1)
			acknowledged, _, unknown := c.history.counts()
			require.GreaterOrEqual(t, acknowledged+unknown, 8*15*2+20)
		})
	}
}
