package grouptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/transport"
)

var commandRules = []rule{
	{"a command is applied once on every member, in one order, and its caller gets the result",
		func(t *testing.T, engine Engine) { testApply(t, engine, plain) }},
	{"a BatchApplier is given the same, as batches",
		func(t *testing.T, engine Engine) { testApply(t, engine, batched) }},
	{"a DurableIndex is given the same",
		func(t *testing.T, engine Engine) { testApply(t, engine, durable) }},
	{"a group of one member works alone, and of five with two down", testSizes},
	{"a command over the limit is refused with ErrTooLarge", testTooLarge},
	{"a command that is large to some members reaches them too", testLargeToSome},
	{"a transport that takes no message as large as a command is complained of", testNarrowTransport},
	{"a command is copied before Propose returns", testCopied},
	{"a command whose context ends before it is taken up is not executed", testNotExecuted},
	{"calls that are under way when a group or a node is closed get one answer each, and a true one", testCloseUnderCalls},
}

func testApply(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k})
	var wg sync.WaitGroup
	wg.Go(func() { c.writes(1, 16, 20) })
	// Large ones among them: larger than a batch, and than what goes into one message.
	large := "g1 large " + strings.Repeat("0123456789abcdef", 80_000)
	wg.Go(func() {
		for i := range 3 {
			c.eventually("a large command", func() bool {
				_, err := c.propose(c.ctx, c.leader(1), 1, large[:len(large)-i])
				return err == nil || errors.Is(err, synod.ErrUnknownOutcome)
			})
		}
	})
	wg.Go(func() {
		for _, empty := range [][]byte{nil, {}} {
			c.eventually("an empty command", func() bool {
				answer, err := c.leader(1).group(1).Propose(c.ctx, empty)
				if err == nil && !strings.HasSuffix(string(answer), " ") {
					t.Errorf("an empty command was answered %q", answer)
				}
				return err == nil
			})
		}
	})
	wg.Wait()
	c.check(1)
	acknowledged, _, _ := c.history.counts()
	require.GreaterOrEqual(t, acknowledged, 16*20)
}

func testSizes(t *testing.T, engine Engine) {
	one := newCluster(t, engine, options{size: 1})
	one.writes(1, 4, 10)
	one.check(1)
	require.NoError(t, one.member(1).group(1).Barrier(one.ctx))
	five := newCluster(t, engine, options{size: 5})
	five.writes(1, 4, 10)
	five.crash(five.leader(1).id)
	five.stop(five.running()[0].id)
	five.writes(1, 4, 10)
	five.check(1)
	for id := uint64(1); id <= 5; id++ {
		if five.member(id) == nil {
			five.start(id)
		}
	}
	five.check(1)
}

func testTooLarge(t *testing.T, engine Engine) {
	const limit = 1000
	c := newCluster(t, engine, options{config: func(cfg *replica.Settings) { cfg.MaxCommandBytes = limit }})
	large := "g1 " + strings.Repeat("x", limit)
	for _, m := range c.running() {
		_, err := c.propose(c.ctx, m, 1, large[:limit+1])
		require.ErrorIs(t, err, synod.ErrTooLarge)
		require.NotErrorIs(t, err, synod.ErrUnknownOutcome)
	}
	c.eventually("a command of the largest size", func() bool {
		_, err := c.propose(c.ctx, c.leader(1), 1, large[:limit])
		require.NotErrorIs(t, err, synod.ErrTooLarge)
		return err == nil || errors.Is(err, synod.ErrUnknownOutcome)
	})
	c.check(1)
}

func testLargeToSome(t *testing.T, engine Engine) {
	const small, size = 16 << 10, 256 << 10
	c := newCluster(t, engine, options{config: func(cfg *replica.Settings) {
		if cfg.Node > 1 {
			cfg.MaxCommandBytes, cfg.MaxBatchBytes, cfg.MaxInboxBytes = small, small, 3*small
		}
	}})
	c.eventually("a large command is acknowledged", func() bool {
		if l := c.leader(1); l.id != 1 {
			_ = l.group(1).TransferLeader(c.ctx, 1)
			return false
		}
		one, cancel := contextFor(c, attempt)
		defer cancel()
		_, err := c.propose(one, c.member(1), 1, c.newCommand(1)+strings.Repeat("x", size))
		return err == nil
	})
	c.check(1)
}

// narrowTransport takes no large messages.
type narrowTransport struct {
	transport.Transport
	limit int
}

func (n narrowTransport) Send(to uint64, payload []byte) error {
	if len(payload) > n.limit {
		return fmt.Errorf("to node %d: %w: %d bytes, at most %d", to, transport.ErrTooLarge, len(payload), n.limit)
	}
	return n.Transport.Send(to, payload)
}

func testNarrowTransport(t *testing.T, engine Engine) {
	const limit = 64 << 10
	var mu sync.Mutex
	var log bytes.Buffer
	c := newCluster(t, engine, options{config: func(cfg *replica.Settings) {
		cfg.Transport = narrowTransport{cfg.Transport, limit}
		cfg.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil))
	}})
	c.write(1)
	one, cancel := context.WithCancel(c.ctx)
	call := background(func() (err error) {
		for one.Err() == nil { // its leader may have lost its office
			_, err = c.propose(one, c.running()[c.names.Load()%3], 1, c.newCommand(1)+strings.Repeat("x", 2*limit))
		}
		return err
	})
	c.eventually("the log says so", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(log.String(), transport.ErrTooLarge.Error())
	})
	cancel()
	require.Error(t, receive(c, call, "the proposal"))
	mu.Lock()
	defer mu.Unlock()
	require.Contains(t, log.String(), "MaxCommandBytes")
	require.Less(t, strings.Count(log.String(), transport.ErrTooLarge.Error()), 50, "it fills the log")
}

type lockedWriter struct {
	mu *sync.Mutex
	to io.Writer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(p)
}

func testCopied(t *testing.T, engine Engine) {
	g := newGate()
	c := newCluster(t, engine, options{size: 1, machine: func(_, _ uint64, m *machine) {
		m.hooks.apply = func(index uint64, _ []byte) {
			if index == 1 {
				g.pass()
			}
		}
	}})
	defer g.release()
	require.NoError(t, barrier(c.ctx, c.member(1).group(1)))
	command := []byte("the command")
	ctx, cancel := context.WithCancel(c.ctx)
	answer := background(func() error {
		_, err := c.member(1).group(1).Propose(ctx, command)
		return err
	})
	receive(c, g.reached, "the state machine is given the command")
	cancel()
	err := receive(c, answer, "Propose returns when its context ends")
	require.ErrorIs(t, err, synod.ErrUnknownOutcome)
	require.ErrorIs(t, err, context.Canceled)
	copy(command, "!!!!!!!!!!!")
	g.release()
	require.NoError(t, c.member(1).machine(1).await(c.ctx, 1))
	require.Equal(t, []string{"the command"}, c.member(1).machine(1).state())
	// Nor does anything of later commands get into the caller's bytes.
	c.writes(1, 2, 10)
	require.Equal(t, "!!!!!!!!!!!", string(command))
	kept := []byte("another command")
	_, err = c.member(1).group(1).Propose(c.ctx, kept)
	require.NoError(t, err)
	c.writes(1, 2, 10)
	require.Equal(t, "another command", string(kept))
	// The same after a restart: from the log.
	c.stop(1)
	c.start(1)
	require.NoError(t, c.member(1).group(1).Barrier(c.ctx))
	require.Equal(t, "the command", c.member(1).machine(1).state()[0])
	c.check(1)
}

// stuckMetrics blocks the task that takes up proposals.
type stuckMetrics struct {
	mu   sync.Mutex
	gate *gate
}

func (s *stuckMetrics) arm(g *gate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = g
}

// Add implements synod.Metrics.
func (s *stuckMetrics) Add(name string, _ uint64, _ int64) {
	s.mu.Lock()
	g := s.gate
	s.mu.Unlock()
	if g != nil && strings.Contains(name, "proposals") {
		g.pass()
	}
}

// Observe implements synod.Metrics.
func (s *stuckMetrics) Observe(string, uint64, int64) {}

func testNotExecuted(t *testing.T, engine Engine) {
	metrics := &stuckMetrics{}
	c := newCluster(t, engine, options{size: 1, config: func(cfg *replica.Settings) { cfg.Metrics = metrics }})
	m := c.member(1)
	c.write(1)

	over, cancel := context.WithCancel(c.ctx)
	cancel()
	_, err := c.propose(over, m, 1, c.newCommand(1))
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, synod.ErrUnknownOutcome)
	require.ErrorIs(t, m.group(1).Barrier(over), context.Canceled)
	require.ErrorIs(t, m.group(1).TransferLeader(over, 1), context.Canceled)

	// While the node is busy with the first, the second is not taken up.
	g := newGate()
	defer g.release()
	metrics.arm(g)
	first := background(func() error {
		_, err := c.propose(c.ctx, m, 1, c.newCommand(1))
		return err
	})
	receive(c, g.reached, "the first is taken up")
	ctx, cancel := context.WithCancel(c.ctx)
	second := background(func() error {
		_, err := c.propose(ctx, m, 1, c.newCommand(1))
		return err
	})
	read := background(func() error { return m.group(1).Barrier(ctx) })
	cancel()
	err = receive(c, second, "the second returns")
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, synod.ErrUnknownOutcome)
	require.ErrorIs(t, receive(c, read, "the barrier returns"), context.Canceled)
	metrics.arm(nil)
	g.release()
	require.NoError(t, receive(c, first, "the first returns"))
	c.check(1)
}

func testCloseUnderCalls(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	for round := range 6 {
		m := c.leader(1)
		grp := m.group(1)
		var wg sync.WaitGroup
		begun := make(chan struct{}, 100)
		for range 8 {
			wg.Go(func() {
				for {
					_, err := c.propose(c.ctx, m, 1, c.newCommand(1))
					select {
					case begun <- struct{}{}:
					default:
					}
					switch {
					case err == nil:
						continue
					case errors.As(err, new(*synod.NotLeaderError)):
						continue // until it is closed
					case !errors.Is(err, synod.ErrClosed):
						t.Errorf("a proposal under way at Close: %v", err)
					}
					return
				}
			})
			wg.Go(func() {
				for {
					if err := grp.Barrier(c.ctx); err != nil {
						if !errors.Is(err, synod.ErrClosed) {
							t.Errorf("a barrier under way at Close: %v", err)
						}
						return
					}
				}
			})
		}
		receive(c, begun, "a proposal has an answer")
		if round%2 == 0 {
			require.NoError(t, m.closeGroup(1))
			wg.Wait()
			require.ErrorIs(t, grp.Err(), synod.ErrClosed)
			_, err := grp.Propose(c.ctx, []byte("late"))
			require.ErrorIs(t, err, synod.ErrClosed)
			require.NotErrorIs(t, err, synod.ErrUnknownOutcome)
			require.NoError(t, grp.Close(), "a second Close")
			require.NoError(t, m.startGroup(1))
		} else {
			c.stop(m.id)
			wg.Wait()
			_, err := grp.Propose(c.ctx, []byte("late"))
			require.ErrorIs(t, err, synod.ErrClosed)
			require.ErrorIs(t, grp.Barrier(c.ctx), synod.ErrClosed)
			require.ErrorIs(t, grp.TransferLeader(c.ctx, m.id), synod.ErrClosed)
			require.ErrorIs(t, grp.Err(), synod.ErrClosed)
			require.NoError(t, m.node.Close(), "a second Close")
			_, err = m.node.StartGroup(c.ctx, replica.GroupConfig{ID: 1, StateMachine: newMachine("late", t.Errorf)})
			require.ErrorIs(t, err, synod.ErrClosed)
			require.ErrorIs(t, m.node.Bootstrap(c.ctx, 9, c.ids()), synod.ErrClosed)
			c.start(m.id)
		}
		c.check(1)
	}
	state := c.running()[0].machine(1).state()
	require.False(t, bytes.Contains([]byte(strings.Join(state, "\n")), []byte("late")))
}
