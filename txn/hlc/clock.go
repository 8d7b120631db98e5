package hlc

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/probe"
)

// The names of the metrics.
const (
	metricRefused = "synod_hlc_refused_timestamps_total"
	metricFenced  = "synod_hlc_fenced_total"
	metricOffset  = "synod_hlc_offset_nanoseconds" // of a peer, as an answer says, ahead or behind
)

// Clock is a hybrid logical clock. All methods may be called concurrently.
type Clock struct {
	cfg    Config
	limits limits
	ex     executor.Executor
	wall   executor.WallClock // nil: ex.Now is this clock, too
	began  time.Time
	done   *executor.Event // the task that asks has ended
	wake   *executor.Event

	last    atomic.Uint64 // the highest timestamp given out or taken in
	anchor  atomic.Int64  // the clock on the wall less the monotonic one, when it was last believed
	holding atomic.Bool   // the clock on the wall is not believed
	refused atomic.Uint64

	mu     sync.Mutex
	peers  []peer       // ascending by node
	number uint64       // of the last question
	apart  *OffsetError // most peers said so, and have not said otherwise
	fenced bool         // as the log has it
	closed bool
}

// New starts a clock. ctx carries the executor, from which time comes; it does not bound the clock's life. The error is a
// *synod.ConfigError. The first answers of peers have come a round trip later: until then Check says what it knows, which is nothing.
func New(ctx context.Context, cfg Config) (*Clock, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	ex := executor.From(ctx, executor.Real())
	c := &Clock{cfg: cfg, limits: cfg.limits(), ex: ex, began: ex.Now(), done: executor.NewEvent(), wake: executor.NewEvent()}
	c.wall, _ = ex.(executor.WallClock)
	if !probe.Bug("hlc: a restart forgets what was given out") {
		c.last.Store(uint64(cfg.Last))
	}
	now := c.read()
	c.anchor.Store(now.wall - now.mono)
	c.number = ex.Uint64() // an answer to an earlier run is not taken for one to this
	for _, node := range cfg.Peers {
		c.peers = append(c.peers, peer{node: node})
	}
	if cfg.Transport != nil {
		cfg.Transport.Handle(c.handle)
	}
	if len(c.peers) == 0 {
		c.done.Set()
		return c, nil
	}
	run := executor.With(context.WithoutCancel(ctx), ex)
	ex.Go(func() { c.run(run) })
	return c, nil
}

// read reads both clocks.
func (c *Clock) read() reading {
	now := c.ex.Now()
	r := reading{mono: int64(now.Sub(c.began))}
	if c.wall != nil {
		now = c.wall.Wall()
	}
	r.wall = nanoseconds(now)
	return r
}

// held is what the clock on the wall would show if it had gone on as it was when it was last believed.
func (c *Clock) held(now reading) int64 { return max(0, c.anchor.Load()+now.mono) }

// jumped reports whether the clock on the wall was set since.
func (c *Clock) jumped(now reading) bool {
	return len(c.peers) > 0 && magnitude(now.wall-c.held(now)) > c.limits.offset
}

// physical is the time to go by: that on the wall while it is believed. Once a wrong time is in a timestamp it does not leave again, so
// that the doubt comes first.
func (c *Clock) physical() int64 {
	now := c.read()
	if (c.holding.Load() || c.jumped(now)) && !probe.Bug("hlc: a clock that jumps is followed") {
		return c.held(now)
	}
	return now.wall
}

// Now returns a timestamp that is above all that this clock has returned and taken in, and otherwise the physical time. A fenced clock
// gives timestamps, too: whoever gives them out to others calls Check first. It does not allocate, and takes no lock.
func (c *Clock) Now() Timestamp {
	physical := Timestamp(c.physical() &^ logicalMask)
	for {
		last := c.last.Load()
		next := max(physical, Timestamp(last).Next())
		if probe.Bug("hlc: time goes back with the clock") {
			next = physical
		}
		if c.last.CompareAndSwap(last, uint64(next)) {
			return next
		}
	}
}

// Last returns the highest timestamp that the clock has returned or taken in; 0: none. It is what to store for Config.Last.
func (c *Clock) Last() Timestamp { return Timestamp(c.last.Load()) }

// Update takes in a timestamp that was seen elsewhere, so that Now is above it. One that is ahead of this node's clock by more than
// MaxOffset is refused with an *OffsetError, and not taken in: Now would be ahead as well from then on, and so would everybody who hears
// of it, because of one clock that is wrong. One timestamp does not tell which of the two clocks that is. Whoever has it refuses what
// came with it; if it is this node's, Check says so, once most peers have. It does not allocate unless it refuses, and takes no lock.
func (c *Clock) Update(t Timestamp) error {
	last := c.last.Load()
	if uint64(t) <= last {
		return nil
	}
	physical := c.physical()
	if t > Timestamp(physical+c.limits.offset)|logicalMask && !probe.Bug("hlc: a timestamp from far ahead is taken in") {
		c.refused.Add(1)
		c.count(metricRefused)
		return &OffsetError{Cause: CauseAhead, Node: c.cfg.Node, Timestamp: t, Offset: time.Duration(t.physical() - physical), MaxOffset: c.cfg.MaxOffset}
	}
	if probe.Bug("hlc: a timestamp is not taken in") {
		return nil
	}
	for uint64(t) > last && !c.last.CompareAndSwap(last, uint64(t)) {
		last = c.last.Load()
	}
	return nil
}

// Check returns nil, or the *OffsetError with which this node is fenced. It is, while
//
//   - its clock is certainly further than MaxOffset from those of most peers whose clock is known ([CauseApart]),
//   - its clock was set by more than MaxOffset, and most peers do not say that it is right ([CauseJumped]), or
//   - it has used timestamps further ahead of its clock than MaxOffset ([CauseBackwards]).
//
// It ends by itself when the clocks agree again. A peer that does not answer has no say: a node that has heard of none is not fenced,
// and one that is fenced stays so until it hears. After Close it is synod.ErrClosed. It does not allocate while it returns nil.
func (c *Clock) Check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fmt.Errorf("hlc: node %d: %w", c.cfg.Node, synod.ErrClosed)
	}
	if e := c.judge(); e != nil {
		return e
	}
	return nil
}

// judge decides whether the clock on the wall is believed, and whether the node is fenced.
func (c *Clock) judge() *OffsetError {
	now := c.read()
	if len(c.peers) > 0 {
		compared, jumped := c.limits.compare(c.peers, now), c.jumped(now)
		switch {
		case compared.apart():
			p := &c.peers[compared.least]
			c.apart = &OffsetError{Cause: CauseApart, Node: c.cfg.Node, MaxOffset: c.cfg.MaxOffset, Peer: p.node, Far: compared.far, Known: compared.known,
				Offset: time.Duration(p.sample.offset(now)), Uncertainty: time.Duration(p.sample.uncertainty(now, c.limits.drift))}
		case compared.known > 0 || probe.Bug("hlc: silence ends a fence"):
			c.apart = nil
		}
		believed := c.apart == nil && (!jumped || compared.agrees() || probe.Bug("hlc: a clock that was set is believed unasked"))
		probe.Sometimes("hlc: a clock that was set is believed again", believed && jumped)
		probe.Sometimes("hlc: a node's clock is apart from that of most", compared.apart())
		if believed {
			c.anchor.Store(now.wall - now.mono)
		}
		c.holding.Store(!believed)
		switch {
		case c.apart != nil:
			return c.apart
		case !believed:
			return &OffsetError{Cause: CauseJumped, Node: c.cfg.Node, MaxOffset: c.cfg.MaxOffset, Offset: time.Duration(c.held(now) - now.wall)}
		}
	}
	last := c.Last()
	if ahead := last.physical() - now.wall; ahead > c.limits.offset {
		return &OffsetError{Cause: CauseBackwards, Node: c.cfg.Node, MaxOffset: c.cfg.MaxOffset, Timestamp: last, Offset: time.Duration(ahead)}
	}
	return nil
}

// run asks the peers, again and again, until the clock is closed.
func (c *Clock) run(ctx context.Context) {
	defer c.done.Set()
	timer := c.ex.AfterFunc(c.cfg.Interval, c.wake.Set)
	defer timer.Stop()
	for c.ask() {
		if err := c.ex.Wait(ctx, c.wake); err != nil {
			return
		}
		timer.Reset(c.cfg.Interval)
	}
}

// outgoing is a question on its way.
type outgoing struct{ to, number uint64 }

// question makes a new one to a peer.
func (c *Clock) question(p *peer, now reading) outgoing {
	if c.number++; c.number == 0 {
		c.number = 1
	}
	p.number, p.asked = c.number, now
	return outgoing{p.node, p.number}
}

// ask asks all peers that do not owe an answer; false: the clock is closed.
func (c *Clock) ask() bool {
	var questions []outgoing
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false
	}
	changed := c.note()
	now := c.read()
	for i := range c.peers {
		if p := &c.peers[i]; p.number == 0 || now.mono-p.asked.mono > c.cfg.patience() {
			questions = append(questions, c.question(p, now))
		}
	}
	c.mu.Unlock()
	changed()
	for _, q := range questions {
		c.send(q)
	}
	return true
}

// send asks. What is lost is asked again.
func (c *Clock) send(q outgoing) {
	_ = c.cfg.Transport.Send(q.to, frame{kind: kindQuestion, number: q.number}.encode())
}

// note judges, and returns what tells the log and the metrics if the node is fenced now and was not, or the other way around.
func (c *Clock) note() (tell func()) {
	e := c.judge()
	if c.fenced == (e != nil) {
		return func() {}
	}
	c.fenced = e != nil
	if e == nil {
		return func() { c.cfg.Logger.Info("hlc: clocks agree again", "node", c.cfg.Node) }
	}
	return func() {
		c.count(metricFenced)
		c.cfg.Logger.Warn("hlc: this node is fenced", "node", c.cfg.Node, "error", e)
	}
}

func (c *Clock) count(name string) {
	if c.cfg.Metrics != nil {
		c.cfg.Metrics.Add(name, 0, 1)
	}
}

// handle takes what arrives. What is malformed is dropped: whoever asked asks again.
func (c *Clock) handle(from uint64, payload []byte) {
	f, err := decode(payload)
	if err != nil {
		return
	}
	now := c.read()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	i, known := slices.BinarySearchFunc(c.peers, from, func(p peer, node uint64) int { return cmp.Compare(p.node, node) })
	if f.kind == kindAnswer {
		if !known || !c.peers[i].answered(f, now, c.limits) {
			c.mu.Unlock()
			return
		}
		tell := c.note()
		useful, offset := c.limits.usable(&c.peers[i].sample, now), c.peers[i].sample.offset(now)
		c.mu.Unlock()
		tell()
		if useful && c.cfg.Metrics != nil {
			c.cfg.Metrics.Observe(metricOffset, 0, offset)
		}
		return
	}
	// Whoever asks is there: one that was not, when it was asked, is asked again. Once, or two would ask each other for ever.
	var again outgoing
	if known && !c.peers[i].returned && !c.limits.usable(&c.peers[i].sample, now) {
		c.peers[i].returned = true
		again = c.question(&c.peers[i], now)
	}
	c.mu.Unlock()
	_ = c.cfg.Transport.Send(from, frame{kind: kindAnswer, number: f.number, time: now.wall}.encode())
	if again.to != 0 {
		c.send(again)
	}
}

// Close ends the comparison with peers, and waits for the task that asks them. It leaves Transport open. Now and Update work on,
// with a clock that nobody watches. Calls after the first return nil.
func (c *Clock) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.wake.Set()
	return c.ex.Wait(context.Background(), c.done)
}
