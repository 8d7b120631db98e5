package hlc_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/txn/hlc"
)

var start = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// machine is an executor whose two clocks are set by hand.
type machine struct {
	executor.Executor
	mu         sync.Mutex
	wall, mono time.Time
}

func newMachine() *machine { return &machine{Executor: executor.Real(), wall: start, mono: start} }

func (m *machine) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mono
}

func (m *machine) Wall() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.wall
}

// pass lets time pass, on both clocks.
func (m *machine) pass(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wall, m.mono = m.wall.Add(d), m.mono.Add(d)
}

// set sets the clock on the wall.
func (m *machine) set(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wall = m.wall.Add(d)
}

// alone returns a clock without peers on such a machine.
func alone(t *testing.T, cfg hlc.Config) (*hlc.Clock, *machine) {
	m := newMachine()
	cfg.Node = 1
	c, err := hlc.New(executor.With(t.Context(), m), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c, m
}

func TestTimestamps(t *testing.T) {
	ts := hlc.FromTime(start.Add(123456789))
	require.LessOrEqual(t, ts.Time(), start.Add(123456789))
	require.Greater(t, ts.Time().Add(65537), start.Add(123456789))
	require.Equal(t, ts, hlc.FromTime(ts.Time()))
	require.Equal(t, "2026-11-29T12:00:00.123437056Z#2", (hlc.FromTime(start.Add(123456789)) + 2).String())
	require.Equal(t, "none", hlc.Timestamp(0).String())
	require.Equal(t, ts.Time(), ts.Next().Time())
	require.Equal(t, ts.Time().Add(65536), (ts | 0xffff).Next().Time(), "an overflow carries")
	last := hlc.Timestamp(math.MaxUint64)
	require.Equal(t, last, last.Next())
	require.Positive(t, last.Time().Unix())

	require.Zero(t, hlc.FromTime(time.Time{}), "before 1970")
	require.Equal(t, 2116, hlc.FromTime(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)).Time().Year())
	r := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		a, b := time.Unix(r.Int64N(1<<32), r.Int64N(1e9)), time.Unix(r.Int64N(1<<32), r.Int64N(1e9))
		if a.Before(b) {
			a, b = b, a
		}
		require.GreaterOrEqual(t, hlc.FromTime(a), hlc.FromTime(b))
		require.Equal(t, hlc.FromTime(a), hlc.FromTime(hlc.FromTime(a).Time()))
		require.GreaterOrEqual(t, a.Sub(hlc.FromTime(a).Time()), time.Duration(0))
		require.Less(t, a.Sub(hlc.FromTime(a).Time()), time.Duration(1<<16))
	}
}

func TestNowIsPhysicalTime(t *testing.T) {
	c, m := alone(t, hlc.Config{})
	require.Equal(t, hlc.FromTime(start), c.Now())
	require.Equal(t, hlc.FromTime(start)+1, c.Now())
	m.pass(time.Second)
	require.Equal(t, hlc.FromTime(start.Add(time.Second)), c.Now())
	require.Equal(t, c.Last(), c.Status().Last)
	require.NoError(t, c.Check())
}

func TestACounterThatOverflowsCarries(t *testing.T) {
	c, _ := alone(t, hlc.Config{})
	var last hlc.Timestamp
	for range 1<<16 + 10 {
		now := c.Now()
		require.Greater(t, now, last)
		last = now
	}
	require.Equal(t, hlc.FromTime(start).Time().Add(1<<16), last.Time())
}

func TestNowIsAboveWhatWasTakenIn(t *testing.T) {
	c, m := alone(t, hlc.Config{})
	ahead := hlc.FromTime(start.Add(499 * time.Millisecond))
	require.NoError(t, c.Update(0))
	require.NoError(t, c.Update(ahead+7))
	require.Equal(t, ahead+8, c.Now())
	require.NoError(t, c.Update(ahead), "it is known already")
	require.Equal(t, ahead+9, c.Now())
	m.pass(time.Second)
	require.Equal(t, hlc.FromTime(start.Add(time.Second)), c.Now())
}

func TestWhatIsFarAheadIsNotTakenIn(t *testing.T) {
	figures := &figures{}
	c, m := alone(t, hlc.Config{Metrics: figures})
	limit := hlc.FromTime(start.Add(500 * time.Millisecond))
	for _, ts := range []hlc.Timestamp{limit | 0xffff + 1, hlc.FromTime(start.AddDate(1, 0, 0)), 1 << 63, math.MaxUint64} {
		err := c.Update(ts)
		require.ErrorIs(t, err, hlc.ErrOffset)
		var e *hlc.OffsetError
		require.ErrorAs(t, err, &e)
		require.Equal(t, hlc.CauseAhead, e.Cause)
		require.Equal(t, ts, e.Timestamp)
		require.Greater(t, e.Offset, 499*time.Millisecond)
		require.ErrorContains(t, err, "hlc: node 1: timestamp "+ts.String())
	}
	require.Equal(t, hlc.FromTime(start), c.Now())
	require.NoError(t, c.Check(), "who is wrong is not known")
	require.EqualValues(t, 4, c.Status().Refused)
	require.EqualValues(t, 4, figures.get("synod_hlc_refused_timestamps_total"))

	// Step by step does not lead further than at once.
	for ts := c.Now(); c.Update(ts) == nil; ts = hlc.FromTime(c.Now().Time().Add(100 * time.Millisecond)) {
		require.LessOrEqual(t, ts, limit|0xffff)
	}
	m.pass(time.Second)
	require.NoError(t, c.Update(limit|0xffff+1))
}

func TestAClockThatIsSetBackFencesItsNode(t *testing.T) {
	c, m := alone(t, hlc.Config{})
	before := c.Now()
	m.set(-400 * time.Millisecond)
	require.Equal(t, before+1, c.Now())
	require.NoError(t, c.Check(), "within the limit")
	m.set(-10 * time.Minute)
	require.Equal(t, before+2, c.Now(), "it goes on")
	err := c.Check()
	var e *hlc.OffsetError
	require.ErrorAs(t, err, &e)
	require.ErrorIs(t, err, hlc.ErrOffset)
	require.Equal(t, hlc.CauseBackwards, e.Cause)
	require.Equal(t, before+2, e.Timestamp)
	require.Greater(t, e.Offset, 10*time.Minute)
	require.ErrorContains(t, err, "wait until it has caught up")
	require.Equal(t, err, c.Status().Fenced)
	m.pass(10 * time.Minute)
	require.NoError(t, c.Check(), "it has caught up")
}

// Over a restart, too.
func TestAClockThatWentBackWhileItsNodeWasDown(t *testing.T) {
	last := hlc.FromTime(start.Add(time.Hour)) + 5
	c, m := alone(t, hlc.Config{Last: last})
	require.ErrorIs(t, c.Check(), hlc.ErrOffset)
	require.Equal(t, last+1, c.Now())
	m.pass(time.Hour)
	require.NoError(t, c.Check())
	require.Greater(t, c.Now(), last+1)

	c, _ = alone(t, hlc.Config{})
	require.ErrorIs(t, c.Update(last), hlc.ErrOffset)
}

// figures are metrics.
type figures struct {
	mu   sync.Mutex
	sums map[string]int64
}

func (f *figures) Add(name string, _ uint64, delta int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sums == nil {
		f.sums = make(map[string]int64)
	}
	f.sums[name] += delta
}

func (f *figures) Observe(name string, _ uint64, _ int64) { f.Add(name, 0, 1) }

func (f *figures) get(name string) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sums[name]
}

var _ synod.Metrics = (*figures)(nil)

func TestConfigurationsThatAreRefused(t *testing.T) {
	tr := quiet{}
	for field, cfg := range map[string]hlc.Config{
		"Node":      {},
		"MaxOffset": {Node: 1, MaxOffset: time.Microsecond},
		"Interval":  {Node: 1, Interval: time.Hour},
		"MaxDrift":  {Node: 1, MaxDrift: math.NaN()},
		"Last":      {Node: 1, Last: math.MaxUint64},
		"Peers":     {Node: 1, Peers: []uint64{0, 2}, Transport: tr},
		"Transport": {Node: 1, Peers: []uint64{2}},
	} {
		_, err := hlc.New(t.Context(), cfg)
		var e *synod.ConfigError
		require.ErrorAs(t, err, &e)
		require.Equal(t, "hlc", e.Package)
		require.Equal(t, field, e.Field)
	}
	_, err := hlc.New(t.Context(), hlc.Config{Node: 1, Peers: []uint64{2}, Transport: tr, MaxOffset: time.Millisecond})
	require.ErrorContains(t, err, "Config.MaxOffset: 1ms: at least 4ms")
	many := hlc.Config{Node: 1, Transport: tr}
	for i := range uint64(258) {
		many.Peers = append(many.Peers, i+1)
	}
	_, err = hlc.New(t.Context(), many)
	require.ErrorContains(t, err, "257 of them")
	own := hlc.Config{Node: 1, Peers: []uint64{1, 1}}
	c, err := hlc.New(t.Context(), own)
	require.NoError(t, err, "itself alone is no peer")
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Check(), synod.ErrClosed)
	require.NotZero(t, c.Now())
}

// quiet is a transport to nobody.
type quiet struct{}

func (quiet) Send(uint64, []byte) error   { return transport.ErrUnknownNode }
func (quiet) Handle(func(uint64, []byte)) {}
func (quiet) Close() error                { return nil }

// hand is a transport whose messages a test delivers by hand.
type hand struct {
	handler func(from uint64, payload []byte)
	mu      sync.Mutex
	sent    map[uint64][][]byte
	arrived *executor.Event
}

func (h *hand) Send(to uint64, payload []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent[to] = append(h.sent[to], payload)
	h.arrived.Set()
	return nil
}
func (h *hand) Handle(fn func(uint64, []byte)) { h.handler = fn }
func (h *hand) Close() error                   { return nil }

func (h *hand) take(to uint64) [][]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	sent := h.sent[to]
	h.sent[to] = nil
	return sent
}

// Two that ask each other at once, and whose answers are of no use, do not go on for ever.
func TestWhoAsksIsAskedOnce(t *testing.T) {
	mine, theirs := &hand{sent: map[uint64][][]byte{}, arrived: executor.NewEvent()}, &hand{sent: map[uint64][][]byte{}, arrived: executor.NewEvent()}
	a, b := newMachine(), newMachine()
	ca, err := hlc.New(executor.With(t.Context(), a), hlc.Config{Node: 1, Peers: []uint64{2}, Transport: mine, Interval: time.Minute})
	require.NoError(t, err)
	defer ca.Close()
	require.NoError(t, executor.Real().Wait(t.Context(), mine.arrived))
	first := mine.take(2)
	require.Len(t, first, 1)
	cb, err := hlc.New(executor.With(t.Context(), b), hlc.Config{Node: 2, Peers: []uint64{1}, Transport: theirs, Interval: time.Minute})
	require.NoError(t, err)
	defer cb.Close()
	require.NoError(t, executor.Real().Wait(t.Context(), theirs.arrived))
	messages := 0
	for i := 0; i < 20; i++ {
		a.pass(10 * time.Second)
		b.pass(10 * time.Second)
		for _, m := range theirs.take(1) {
			messages++
			mine.handler(2, m)
		}
		for _, m := range mine.take(2) {
			messages++
			theirs.handler(1, m)
		}
	}
	require.LessOrEqual(t, messages, 7)
	require.False(t, ca.Status().Peers[0].Known, "the answers took too long to say something")
	require.False(t, cb.Status().Peers[0].Known)

	theirs.handler(9, first[0]) // a stranger's question
	require.Len(t, theirs.take(9), 1)
	theirs.handler(1, []byte("noise"))
	require.Empty(t, theirs.take(1))
}

// On goroutines, with a real clock, all at once.
func TestConcurrently(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	network, err := inproc.New(ctx, inproc.Config{})
	require.NoError(t, err)
	var log lines
	figures := &figures{}
	var clocks []*hlc.Clock
	for id := uint64(1); id <= 3; id++ {
		tr, err := network.Open(id)
		require.NoError(t, err)
		defer tr.Close()
		c, err := hlc.New(ctx, hlc.Config{Node: id, Peers: []uint64{1, 2, 3}, Transport: tr, Interval: time.Millisecond, MaxOffset: time.Minute, Logger: slog.New(slog.NewTextHandler(&log, nil)), Metrics: figures})
		require.NoError(t, err)
		clocks = append(clocks, c)
	}
	var wg sync.WaitGroup
	seen := make([][]hlc.Timestamp, 8)
	for i := range seen {
		wg.Go(func() {
			c, other := clocks[i%2], clocks[1+i%2]
			for range 3000 {
				now := c.Now()
				seen[i] = append(seen[i], now)
				if err := other.Update(now); err != nil {
					t.Error(err)
				}
				if later := other.Now(); later <= now {
					t.Errorf("%v is taken in, and %v comes after it", now, later)
				}
				if c.Check() != nil || other.Status().Fenced != nil {
					t.Error("one machine's clock is apart from itself")
				}
			}
		})
	}
	wg.Wait()
	all := make(map[hlc.Timestamp]bool)
	for i, list := range seen {
		for j, ts := range list {
			require.True(t, j == 0 || ts > list[j-1])
			if i%2 == 0 {
				require.False(t, all[ts], "%v was given out twice", ts)
				all[ts] = true
			}
		}
	}
	for _, c := range clocks {
		for {
			s := c.Status()
			if s.Peers[0].Known && s.Peers[1].Known {
				require.LessOrEqual(t, max(s.Peers[0].Offset, -s.Peers[0].Offset), s.Peers[0].Uncertainty+time.Millisecond)
				break
			}
			require.NoError(t, ctx.Err())
			executor.Real().Yield()
		}
	}
	for _, c := range clocks {
		require.NoError(t, c.Close())
	}
	require.Empty(t, log.String())
	require.Positive(t, figures.get("synod_hlc_offset_nanoseconds"))
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestNothingIsAllocated(t *testing.T) {
	if racing {
		return // the race detector allocates; the same test runs without
	}
	c, err := hlc.New(t.Context(), hlc.Config{Node: 1, Peers: []uint64{2, 3}, Transport: quiet{}, Interval: time.Minute})
	require.NoError(t, err)
	defer c.Close()
	require.Zero(t, testing.AllocsPerRun(1000, func() { c.Now() }))
	require.Zero(t, testing.AllocsPerRun(1000, func() { _ = c.Update(c.Last() + 1) }))
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if err := c.Check(); err != nil {
			panic(err)
		}
	}))
	require.False(t, probe.Active())
}

func TestErrors(t *testing.T) {
	require.False(t, errors.Is(&hlc.OffsetError{}, synod.ErrClosed))
	for cause, text := range map[hlc.Cause]string{
		0:                  "apart",
		hlc.CauseAhead:     "it was not taken in",
		hlc.CauseApart:     "node 3, is ahead by 2s, give or take 1ms",
		hlc.CauseJumped:    "set by -2s while it ran",
		hlc.CauseBackwards: "were in use here",
	} {
		e := &hlc.OffsetError{Cause: cause, Node: 1, Peer: 3, Offset: 2 * time.Second, Uncertainty: time.Millisecond, MaxOffset: time.Second, Far: 2, Known: 2}
		require.ErrorContains(t, e, "hlc: node 1: ")
		require.ErrorContains(t, e, text)
	}
}

func BenchmarkNow(b *testing.B) {
	c, err := hlc.New(b.Context(), hlc.Config{Node: 1, Peers: []uint64{2, 3}, Transport: quiet{}, Interval: time.Minute})
	require.NoError(b, err)
	defer c.Close()
	b.Run("alone", func(b *testing.B) {
		for b.Loop() {
			c.Now()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				c.Now()
			}
		})
	})
	b.Run("locked", func(b *testing.B) { // what a mutex would cost, beside
		var mu sync.Mutex
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				mu.Lock()
				c.Now()
				mu.Unlock()
			}
		})
	})
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			_ = c.Check()
		}
	})
}

func BenchmarkUpdate(b *testing.B) {
	c, err := hlc.New(b.Context(), hlc.Config{Node: 1})
	require.NoError(b, err)
	for b.Loop() {
		if err := c.Update(c.Last() + 1); err != nil {
			b.Fatal(err)
		}
	}
}
