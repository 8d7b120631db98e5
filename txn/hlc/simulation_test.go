package hlc_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/sim"
	"github.com/synod-go/synod/txn/hlc"
)

var simulations = flag.Uint64("simulations", 60, "how many seeds are simulated")

const (
	maxOffset = 500 * time.Millisecond
	step      = 1 << 16 * time.Nanosecond // of timestamps
	year      = 365 * 24 * time.Hour
)

// cluster is simulated nodes that have a clock each, and tell each other timestamps.
type cluster struct {
	w      *sim.World
	nodes  uint64
	ctx    map[uint64]context.Context
	clocks map[uint64]*hlc.Clock
	stored map[uint64]hlc.Timestamp // the highest that was given out or taken in: it survives a crash
	off    map[uint64]time.Duration // by how much the clock on the wall is
	set    map[uint64]time.Duration // when it was last set
	drift  float64

	refused, fenced, known int
}

func newCluster(w *sim.World, nodes uint64, drift float64) *cluster {
	c := &cluster{w: w, nodes: nodes, drift: drift, ctx: map[uint64]context.Context{}, clocks: map[uint64]*hlc.Clock{}, stored: map[uint64]hlc.Timestamp{},
		off: map[uint64]time.Duration{}, set: map[uint64]time.Duration{}}
	for id := uint64(1); id <= nodes; id++ {
		w.AddNode(id, c.start)
	}
	w.Check("clocks on the wall", func() error {
		for id := uint64(1); id <= nodes; id++ {
			if ctx := c.ctx[id]; ctx != nil {
				if off := sim.Now(ctx).Sub(sim.Now(w.Context())); off != c.off[id] {
					c.off[id], c.set[id] = off, w.Now()
				}
			}
		}
		return nil
	})
	return c
}

func (c *cluster) start(ctx context.Context, env *sim.Env) (func(), error) {
	cfg := hlc.Config{Node: env.ID, MaxOffset: maxOffset, Last: c.stored[env.ID], Transport: env.Transport, MaxDrift: c.drift, Logger: env.Logger}
	for id := uint64(1); id <= c.nodes; id++ {
		cfg.Peers = append(cfg.Peers, id)
	}
	clock, err := hlc.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	c.ctx[env.ID], c.clocks[env.ID] = ctx, clock
	return func() { _ = clock.Close() }, nil
}

// chatter has one node tell another what time it is, until there is no more time.
func (c *cluster) chatter(ctx context.Context, until time.Duration) {
	r := c.w.Rand()
	for c.w.Now() < until {
		_ = sim.Sleep(ctx, time.Duration(r.IntN(40))*time.Millisecond)
		from, to := uint64(1+r.IntN(int(c.nodes))), uint64(1+r.IntN(int(c.nodes)))
		if c.clocks[from] == nil || c.clocks[to] == nil || !c.w.Node(from).Running() || !c.w.Node(to).Running() {
			continue
		}
		c.tell(from, to)
		c.measured(from)
	}
}

// now draws a timestamp.
func (c *cluster) now(id uint64) hlc.Timestamp {
	ts := c.clocks[id].Now()
	if ts <= c.stored[id] {
		c.w.Failf("monotone", "node %d gives out %v, and has had %v before", id, ts, c.stored[id])
	}
	c.stored[id] = ts
	return ts
}

func (c *cluster) tell(from, to uint64) {
	ts, before, physical := c.now(from), c.clocks[to].Last(), c.clocks[to].Status().Physical
	if err := c.clocks[to].Update(ts); err != nil {
		c.refused++
		if !errors.Is(err, hlc.ErrOffset) {
			c.w.Failf("error", "node %d, of %v: %v", to, ts, err)
		}
		if after := c.clocks[to].Last(); after != before {
			c.w.Failf("refused", "node %d has refused %v, and has %v", to, ts, after)
		}
		return
	}
	if ts > before && ts.Time().Sub(physical) > maxOffset+step {
		c.w.Failf("poison", "node %d takes in %v at %v", to, ts, physical)
	}
	if later := c.now(to); later <= ts {
		c.w.Failf("order", "node %d has taken in %v, and %v comes after it", to, ts, later)
	}
}

// measured holds against the world what a node knows of the others' clocks, and of its own.
func (c *cluster) measured(id uint64) {
	quiet := true // nothing was set for a while
	for _, at := range c.set {
		quiet = quiet && c.w.Now()-at > 10*time.Second
	}
	s := c.clocks[id].Status()
	for _, p := range s.Peers {
		if !p.Known {
			continue
		}
		c.known++
		// What a peer has said is about the clock that it had then.
		if c.w.Now()-c.set[p.Node] < (p.Age+p.RoundTrip)*11/10+time.Millisecond {
			if p.Age > 7*time.Second {
				c.w.Failf("old", "node %d believes what node %d said %v ago", id, p.Node, p.Age)
			}
			continue
		}
		if truth := c.off[p.Node] - c.off[id]; max(truth-p.Offset, p.Offset-truth) > p.Uncertainty {
			c.w.Failf("offset", "node %d takes node %d to be ahead by %v ± %v, and it is by %v", id, p.Node, p.Offset, p.Uncertainty, truth)
		}
	}
	var e *hlc.OffsetError
	if !errors.As(s.Fenced, &e) {
		return
	}
	c.fenced++
	if e.Cause == hlc.CauseApart {
		if truth := c.off[e.Peer] - c.off[id]; quiet && max(truth, -truth) <= maxOffset {
			c.w.Failf("fenced", "node %d is fenced, and its clock is %v from that of node %d", id, truth, e.Peer)
		}
		if 2*e.Far <= e.Known {
			c.w.Failf("minority", "node %d is fenced because of %d of %d", id, e.Far, e.Known)
		}
	}
}

// whole reports why not all is well yet.
func (c *cluster) whole() error {
	for id := uint64(1); id <= c.nodes; id++ {
		if !c.w.Node(id).Running() || c.clocks[id] == nil {
			return fmt.Errorf("node %d does not run", id)
		}
		s := c.clocks[id].Status()
		if s.Fenced != nil {
			return s.Fenced
		}
		for _, p := range s.Peers {
			if !p.Known {
				return fmt.Errorf("node %d does not know the clock of node %d", id, p.Node)
			}
		}
		if ahead := c.now(id).Time().Sub(sim.Now(c.w.Context())); ahead > maxOffset+step || ahead < -step {
			return fmt.Errorf("node %d is ahead of time by %v, and not fenced", id, ahead)
		}
	}
	return nil
}

// trouble is everything at once: nodes crash, pause and lose messages, clocks drift and are set.
func trouble(w *sim.World) *cluster {
	c := newCluster(w, 5, 0.06)
	const long = 40 * time.Second
	for range 3 {
		w.Go(func(ctx context.Context) { c.chatter(ctx, long) })
	}
	w.Trouble(w.Context(), long, sim.Atlas{Damaged: -1})
	var err error
	for range 120 {
		if err = c.whole(); err == nil {
			return c
		}
		_ = sim.Sleep(w.Context(), time.Second)
	}
	w.Failf("liveness", "two minutes after everything healed: %v", err)
	return c
}

func TestSimulation(t *testing.T) {
	seeds := *simulations
	if testing.Short() || racing {
		seeds = min(seeds, 3)
	}
	var refused, fenced, known int
	library := make(map[string]int)
	for seed := range sim.Seeds(1, seeds) {
		var c *cluster
		r := sim.Run(t, seed, func(w *sim.World) { c = trouble(w) })
		refused, fenced, known = refused+c.refused, fenced+c.fenced, known+c.known
		for name, n := range r.Library {
			library[name] += n
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d timestamps refused, %d times fenced, %d offsets, %v", refused, fenced, known, library)
	if seeds >= 60 {
		require.Positive(t, refused)
		require.Positive(t, fenced)
		require.Positive(t, known)
		for name, n := range library {
			require.Positive(t, n, name)
		}
	}
}

// near fails the run unless the node is not fenced and its timestamps are near the true time.
func (c *cluster) near(id uint64) {
	if err := c.clocks[id].Check(); err != nil {
		c.w.Failf("good node", "%v", err)
	}
	c.close(id)
}

// close fails the run unless the node's timestamps are near the true time.
func (c *cluster) close(id uint64) {
	if ahead := c.now(id).Time().Sub(sim.Now(c.w.Context())); ahead > maxOffset || ahead < -maxOffset {
		c.w.Failf("carried away", "node %d gives out timestamps that are ahead by %v", id, ahead)
	}
}

// cause fails the run unless the node is fenced for this.
func (c *cluster) cause(id uint64, causes ...hlc.Cause) {
	var e *hlc.OffsetError
	if !errors.As(c.clocks[id].Check(), &e) {
		c.w.Failf("bad node", "node %d is not fenced", id)
		return
	}
	for _, cause := range causes {
		if e.Cause == cause {
			return
		}
	}
	c.w.Failf("bad node", "node %d is fenced by another cause: %v", id, e)
}

// everybody has all nodes tell each other for a while, the fenced too, and calls check each time.
func (c *cluster) everybody(d time.Duration, check func()) {
	for until := c.w.Now() + d; c.w.Now() < until && !c.w.Failed(); {
		_ = sim.Sleep(c.w.Context(), 50*time.Millisecond)
		for from := uint64(1); from <= c.nodes; from++ {
			for to := uint64(1); to <= c.nodes; to++ {
				c.tell(from, to)
			}
			c.measured(from)
		}
		check()
	}
}

// jumping is a node whose clock is set, by a year, while it runs.
func jumping(by time.Duration) func(w *sim.World) {
	return func(w *sim.World) {
		c := newCluster(w, 5, 0.001)
		good := func() {
			for id := uint64(1); id < 5; id++ {
				c.near(id)
			}
		}
		c.everybody(3*time.Second, func() { good(); c.near(5) })
		w.Node(5).SetClock(by)
		c.cause(5, hlc.CauseApart) // at once
		c.everybody(5*time.Second, func() {
			good()
			c.cause(5, hlc.CauseApart, hlc.CauseJumped) // an answer that was on the way says little
			c.close(5)
		})
		w.Node(5).SetClock(-by)
		c.everybody(3*time.Second, func() { good(); c.near(5) })
	}
}

// starting is a node that starts with a clock that is a year off, and is set right.
func starting(by time.Duration) func(w *sim.World) {
	return func(w *sim.World) {
		c := newCluster(w, 5, 0.001)
		w.Node(5).SetClock(by)
		_ = sim.Sleep(w.Context(), 10*time.Millisecond)
		good := func() {
			for id := uint64(1); id < 5; id++ {
				c.near(id)
			}
		}
		c.everybody(5*time.Second, func() {
			good()
			c.cause(5, hlc.CauseApart)
			if by < 0 {
				c.measured(5)
			}
		})
		w.Node(5).SetClock(-by)
		if by > 0 { // what was given out does not come back
			_ = sim.Sleep(w.Context(), 2*time.Second)
			c.everybody(3*time.Second, func() { good(); c.cause(5, hlc.CauseBackwards) })
			return
		}
		c.everybody(3*time.Second, func() { good(); c.near(5) })
	}
}

// alike is two nodes of five whose clocks are off by the same: three are more.
func alike(w *sim.World) {
	c := newCluster(w, 5, 0.001)
	c.everybody(3*time.Second, func() {})
	w.Node(2).SetClock(time.Hour)
	w.Node(4).SetClock(time.Hour)
	_ = sim.Sleep(w.Context(), 2*time.Second)
	c.everybody(3*time.Second, func() {
		for id := uint64(1); id <= 5; id++ {
			if id%2 == 0 {
				c.cause(id, hlc.CauseApart)
			} else {
				c.near(id)
			}
			c.close(id)
		}
	})
}

// two is a cluster of two: whose clock is wrong they do not know.
func two(w *sim.World) {
	c := newCluster(w, 2, 0.001)
	c.everybody(2*time.Second, func() { c.near(1); c.near(2) })
	w.Node(2).SetClock(-time.Minute)
	_ = sim.Sleep(w.Context(), 2*time.Second)
	c.everybody(2*time.Second, func() { c.cause(1, hlc.CauseApart); c.cause(2, hlc.CauseApart) })
	w.Node(2).SetClock(time.Minute)
	_ = sim.Sleep(w.Context(), 2*time.Second)
	c.everybody(2*time.Second, func() { c.near(1); c.near(2) })
}

// unheard is a node that is cut off, and whose clock is set then: nobody tells whether that was right, until somebody does.
func unheard(w *sim.World) {
	c := newCluster(w, 3, 0.001)
	c.everybody(2*time.Second, func() {})
	cut := func(cut bool) {
		for id := uint64(2); id <= 3; id++ {
			w.Link(1, id).Cut, w.Link(id, 1).Cut = cut, cut
		}
	}
	cut(true)
	_ = sim.Sleep(w.Context(), 10*time.Second)
	if err := c.clocks[1].Check(); err != nil {
		w.Failf("cut off", "who is cut off is not fenced for that: %v", err)
	}
	w.Node(1).SetClock(time.Hour)
	c.everybody(2*time.Second, func() { c.cause(1, hlc.CauseJumped); c.close(1) })
	cut(false)
	_ = sim.Sleep(w.Context(), 3*time.Second)
	c.everybody(2*time.Second, func() { c.cause(1, hlc.CauseApart); c.close(1) })
	cut(true)
	_ = sim.Sleep(w.Context(), 10*time.Second)
	c.cause(1, hlc.CauseApart) // it has heard nothing better
	for id := uint64(2); id <= 3; id++ {
		w.Node(id).SetClock(time.Hour) // it was right
	}
	cut(false)
	_ = sim.Sleep(w.Context(), 3*time.Second)
	for id := uint64(1); id <= 3; id++ {
		if err := c.clocks[id].Check(); err != nil {
			w.Failf("agreed", "%v", err)
		}
		if d := c.now(id).Time().Sub(sim.Now(c.ctx[id])); d > maxOffset || d < -maxOffset {
			w.Failf("agreed", "node %d: %v", id, d)
		}
	}
}

var scenarios = []struct {
	name string
	run  func(w *sim.World)
}{
	{"a clock is set forward while it runs", jumping(year)},
	{"a clock is set back while it runs", jumping(-year)},
	{"a clock is set by little more than the limit", jumping(maxOffset + 10*time.Millisecond)},
	{"a node starts with a clock ahead", starting(year)},
	{"a node starts with a clock behind", starting(-time.Hour)},
	{"two of five are off alike", alike},
	{"two nodes", two},
	{"a node that hears of nobody", unheard},
}

// A node whose clock is wrong knows it, and carries nobody away; the others go on.
func TestScenarios(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			for seed := range sim.Seeds(1, 5) {
				sim.Run(t, seed, s.run)
			}
		})
	}
}

func TestOneSeedGivesOneRun(t *testing.T) {
	a := sim.Execute(sim.Config{Seed: 3}, func(w *sim.World) { trouble(w) })
	b := sim.Execute(sim.Config{Seed: 3}, func(w *sim.World) { trouble(w) })
	require.Equal(t, a.Hash, b.Hash)
}

// Each of these mistakes is found.
func TestMistakesAreFound(t *testing.T) {
	for _, bug := range []string{
		"hlc: time goes back with the clock",
		"hlc: a timestamp from far ahead is taken in",
		"hlc: a timestamp is not taken in",
		"hlc: a clock that jumps is followed",
		"hlc: the way back takes no time",
		"hlc: an offset is exact",
		"hlc: an answer to an earlier question counts",
		"hlc: a damaged frame is believed",
		"hlc: what a peer said is believed for ever",
		"hlc: one peer's clock is enough to be fenced",
		"hlc: silence ends a fence",
		"hlc: a clock that was set is believed unasked",
		"hlc: a restart forgets what was given out",
	} {
		t.Run(bug, func(t *testing.T) {
			for seed := uint64(1); seed <= 40; seed++ {
				for _, s := range scenarios {
					if seed == 1 && sim.Execute(sim.Config{Seed: seed, Bugs: []string{bug}}, s.run).Err != nil {
						t.Logf("by the scenario: %s", s.name)
						return
					}
				}
				if r := sim.Execute(sim.Config{Seed: seed, Bugs: []string{bug}}, func(w *sim.World) { trouble(w) }); r.Err != nil {
					t.Logf("by seed %d: %v", seed, r.Err)
					return
				}
			}
			t.Error("nobody has noticed")
		})
	}
}
