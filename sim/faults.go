package sim

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Atlas says what a system promises to survive, so that whatever it loses is a bug.
// The zero value is right for consensus: everything may happen to any node at any time,
// except that what heals by no repair happens to the disks of a minority at most.
type Atlas struct {
	// Kinds are the kinds of faults that may happen, by name: see [Kinds]. nil: all.
	Kinds []string

	// Damaged is how many nodes may have their disk damaged for good: lost, replaced by
	// an old copy, or with a bit that flipped. 0: a minority; below 0: none.
	Damaged int

	// OldCopy is called with a disk whose content was replaced by an old copy, before
	// its node starts, to do what the system's manual asks for then. nil: no disk is
	// replaced by an old copy.
	OldCopy func(d *Disk)

	// Target names a node that faults strike more often than others, one in three: the
	// leader, say. nil, or 0: none.
	Target func() uint64

	// Drift is by how much clocks may run apart from the world's: 0.05 is a twentieth, the
	// default. Skew is by how much they may be off, and jump. Default: 10 s.
	Drift float64
	Skew  time.Duration
}

// What [Node.Damaged] says. A disk that was lost, or replaced, is that and no longer one
// with a bit that flipped.
const (
	Flipped  = "altered by a bit that flipped"
	Lost     = "lost"
	Replaced = "replaced by an old copy"
)

// injection is one fault of a run. What it does depends on its own random source, so that
// it stays what it is when others are dropped.
type injection struct {
	index  int
	kind   *kind
	at     time.Duration
	lasts  time.Duration
	world  *World
	atlas  *Atlas
	copies map[uint64]*Copy // of the disks, from when the trouble began
	random *rand.Rand
	end    func()
	what   string // and to whom
}

// kind is a kind of fault. begin does it and returns what ends it, or nil if the atlas
// does not allow it now.
type kind struct {
	name  string
	long  int // lasts so many times as long as others
	begin func(f *injection) (end func())
}

// nothing ends a fault that is over at once.
func nothing() {}

func (f *injection) node() *Node {
	n := f.world.order[f.random.IntN(len(f.world.order))]
	if strike := f.random.IntN(3) == 0; strike && f.atlas.Target != nil {
		if target := f.world.nodes[f.atlas.Target()]; target != nil {
			n = target
		}
	}
	f.what += fmt.Sprintf(" node %d", n.ID)
	return n
}

// link returns the way from one node to another.
func (f *injection) link() *Link {
	order := f.world.order
	from := f.random.IntN(len(order))
	to := from
	if len(order) > 1 {
		to = (from + 1 + f.random.IntN(len(order)-1)) % len(order)
	}
	f.what += fmt.Sprintf(" from node %d to node %d", order[from].ID, order[to].ID)
	return f.world.Link(order[from].ID, order[to].ID)
}

// shuffled returns the nodes in random order.
func (f *injection) shuffled() []*Node {
	nodes := slices.Clone(f.world.order)
	f.random.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	return nodes
}

// links puts a fault on many links.
func (f *injection) links(fault Link, through func(from, to *Node) bool) (end func()) {
	var ends []func()
	for _, from := range f.world.order {
		for _, to := range f.world.order {
			if from != to && through(from, to) {
				ends = append(ends, f.world.Link(from.ID, to.ID).suffer(&fault))
			}
		}
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

// damage marks a node's disk as damaged for good, if the atlas allows one more.
func (f *injection) damage(n *Node, what string) bool {
	if n.damage != "" {
		if n.damage == Flipped {
			n.damage = what
		}
		return true
	}
	limit := f.atlas.Damaged
	if limit == 0 {
		limit = (len(f.world.order) - 1) / 2
	}
	for _, o := range f.world.order {
		if o.damage != "" {
			limit--
		}
	}
	if limit <= 0 {
		return false
	}
	n.damage = what
	return true
}

var kinds = []kind{
	{name: "link cut one way", begin: func(f *injection) func() { return f.link().suffer(&Link{Cut: true}) }},
	{name: "node cut off", begin: func(f *injection) func() {
		n := f.node()
		return f.links(Link{Cut: true}, func(from, to *Node) bool { return from == n || to == n })
	}},
	{name: "node hears nothing", begin: func(f *injection) func() {
		n := f.node()
		return f.links(Link{Cut: true}, func(_, to *Node) bool { return to == n })
	}},
	{name: "network split", begin: func(f *injection) func() {
		nodes := f.shuffled()
		side := nodes[:1+f.random.IntN(max(1, len(nodes)-1))]
		return f.links(Link{Cut: true}, func(from, to *Node) bool { return slices.Contains(side, from) != slices.Contains(side, to) })
	}},
	{name: "two nodes apart", begin: func(f *injection) func() { // a third one reaches both
		a, b := f.node(), f.node()
		return f.links(Link{Cut: true}, func(from, to *Node) bool { return from == a && to == b || from == b && to == a })
	}},
	{name: "one node in the middle", begin: func(f *injection) func() { // all others reach it alone
		n := f.node()
		return f.links(Link{Cut: true}, func(from, to *Node) bool { return from != n && to != n })
	}},
	{name: "chain", begin: func(f *injection) func() { // each reaches its neighbours
		nodes := f.shuffled()
		return f.links(Link{Cut: true}, func(from, to *Node) bool {
			apart := slices.Index(nodes, from) - slices.Index(nodes, to)
			return apart > 1 || apart < -1
		})
	}},
	{name: "link loses", begin: func(f *injection) func() { return f.link().suffer(&Link{Loss: f.random.Float64() / 2}) }},
	{name: "all links lose", begin: func(f *injection) func() {
		return f.links(Link{Loss: f.random.Float64() / 10}, func(_, _ *Node) bool { return true })
	}},
	{name: "link repeats", begin: func(f *injection) func() {
		return f.link().suffer(&Link{Repeat: f.random.Float64() / 2, Late: some(f.random, 200*time.Millisecond)})
	}},
	{name: "link reorders", begin: func(f *injection) func() {
		return f.link().suffer(&Link{Reorder: f.random.Float64() / 2, Late: some(f.random, 200*time.Millisecond)})
	}},
	{name: "link slow", begin: func(f *injection) func() {
		return f.link().suffer(&Link{Slow: some(f.random, 50*time.Millisecond)})
	}},
	{name: "all links slow", begin: func(f *injection) func() {
		return f.links(Link{Slow: some(f.random, 20*time.Millisecond)}, func(_, _ *Node) bool { return true })
	}},
	{name: "link clogged", begin: func(f *injection) func() {
		return f.link().suffer(&Link{clogged: f.world.now + some(f.random, 2*time.Second)})
	}},
	{name: "link corrupts", begin: func(f *injection) func() { return f.link().suffer(&Link{Corrupt: f.random.Float64() / 5}) }},

	{name: "disk slow", begin: func(f *injection) func() {
		return f.node().Disk.suffer(&Disk{Slow: some(f.random, 50*time.Millisecond)})
	}},
	{name: "disk stuck", begin: func(f *injection) func() { return f.node().Disk.suffer(&Disk{Stuck: true}) }},
	{name: "disk full", begin: func(f *injection) func() { return f.node().Disk.suffer(&Disk{Full: true}) }},
	{name: "disk fails a sync", begin: func(f *injection) func() {
		n := f.node()
		if n.process == nil {
			return nil
		}
		n.Disk.failAt = 1 + f.random.IntN(20)
		return func() {
			n.Disk.failAt = 0
			if n.Disk.failed != nil { // somebody looks after it
				n.Crash()
				n.Start()
			}
		}
	}},
	{name: "disk flips a bit", begin: func(f *injection) func() {
		n := f.node()
		if !f.damage(n, Flipped) {
			return nil
		}
		if key, ok := n.Disk.Flip(f.random); ok {
			f.what += fmt.Sprintf(" in the value of key %x", key)
		}
		if f.random.IntN(2) == 0 {
			return nothing
		}
		n.Crash() // so that it is read again
		return n.Start
	}},
	{name: "disk lost", begin: func(f *injection) func() { // and a new one is put in
		n := f.node()
		if !f.damage(n, Lost) {
			return nil
		}
		n.Crash()
		n.Disk.Lose()
		return n.Start
	}},
	{name: "disk replaced by an old copy", begin: func(f *injection) func() {
		n := f.node()
		if f.atlas.OldCopy == nil || !f.damage(n, Replaced) {
			return nil
		}
		n.Crash()
		n.Disk.Restore(f.copies[n.ID])
		f.atlas.OldCopy(n.Disk)
		return n.Start
	}},

	{name: "crash", begin: func(f *injection) func() {
		n := f.node()
		n.Crash()
		return n.Start
	}},
	{name: "crash for long", long: 10, begin: func(f *injection) func() {
		n := f.node()
		n.Crash()
		return n.Start
	}},
	{name: "crash again and again", begin: func(f *injection) func() {
		n, over := f.node(), false
		var again func()
		again = func() {
			if over {
				return
			}
			n.Crash()
			n.Start()
			f.world.after(some(f.random, 200*time.Millisecond), eventFault, n.ID, 0, again)
		}
		again()
		return func() { over = true }
	}},
	{name: "crash of all", begin: func(f *injection) func() {
		for _, n := range f.world.order {
			n.Crash()
		}
		return func() {
			for _, n := range f.world.order {
				n.Start()
			}
		}
	}},
	{name: "crash at the n-th operation", begin: func(f *injection) func() {
		n := f.node()
		if n.process == nil {
			return nil
		}
		n.crashAt = 1 + f.random.IntN(100)
		return func() {
			n.crashAt = 0
			n.Start()
		}
	}},
	{name: "pause", begin: func(f *injection) func() {
		n := f.node()
		n.Pause()
		return n.Resume
	}},
	{name: "pause for long", long: 5, begin: func(f *injection) func() {
		n := f.node()
		n.Pause()
		return n.Resume
	}},
	{name: "restart in order", begin: func(f *injection) func() {
		n := f.node()
		if n.process == nil || n.paused {
			return nil
		}
		over := false
		f.world.spawn(nil, func() {
			if n.Stop(); over {
				n.Start() // it took longer than the fault
			}
		})
		return func() {
			over = true
			n.Start()
		}
	}},

	{name: "clock off", begin: func(f *injection) func() {
		n := f.node()
		n.clock.jumped = some(f.random, 2*f.atlas.Skew) - f.atlas.Skew
		return nothing
	}},
	{name: "clock drifts", long: 5, begin: func(f *injection) func() {
		n := f.node()
		n.SetDrift((2*f.random.Float64() - 1) * f.atlas.Drift)
		return func() { n.SetDrift(0) }
	}},
	{name: "clock jumps", begin: func(f *injection) func() {
		n := f.node()
		d := some(f.random, 2*f.atlas.Skew) - f.atlas.Skew
		n.SetClock(d)
		return func() { n.SetClock(-d) }
	}},
}

// Kinds returns the names of all kinds of faults that [World.Trouble] knows.
func Kinds() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// The rates of a kind's faults in a minute of trouble, and how long one lasts, are drawn
// from these, evenly on a logarithmic scale.
const (
	leastRate, mostRate = 0.5, 30.0
	leastTime, mostTime = 20 * time.Millisecond, 5 * time.Second
)

func logarithmic(r *rand.Rand, least, most float64) float64 {
	return least * math.Pow(most/least, r.Float64())
}

// Trouble injects faults for the time d, and then heals everything. Which kinds there
// are this time, how often, and when, follows from the seed; half of the kinds stay
// away, since some bugs show only where there is no other trouble.
func (w *World) Trouble(ctx context.Context, d time.Duration, atlas Atlas) {
	if atlas.Drift == 0 {
		atlas.Drift = 0.05
	}
	if atlas.Skew == 0 {
		atlas.Skew = 10 * time.Second
	}
	for _, name := range atlas.Kinds {
		if !slices.ContainsFunc(kinds, func(k kind) bool { return k.name == name }) {
			panic(fmt.Sprintf("sim: Atlas.Kinds: there is no kind of fault called %q", name))
		}
	}
	w.healed = false
	copies := make(map[uint64]*Copy)
	for _, n := range w.order {
		copies[n.ID] = n.Disk.Copy()
	}
	r := newRandom(w.config.Seed, fmt.Sprintf("faults %d", len(w.plan)))
	first := len(w.plan)
	for i := range kinds {
		k := &kinds[i]
		if atlas.Kinds != nil && !slices.Contains(atlas.Kinds, k.name) || r.IntN(2) == 0 {
			continue
		}
		rate := logarithmic(r, leastRate, mostRate)
		lasts := time.Duration(logarithmic(r, float64(leastTime), float64(mostTime)) * float64(max(1, k.long)))
		w.rates = append(w.rates, fmt.Sprintf("%s: %.1f a minute, for %v each", k.name, rate, lasts.Round(time.Millisecond)))
		for at := time.Duration(0); ; {
			at += time.Duration(r.ExpFloat64() / rate * float64(time.Minute))
			if at >= d {
				break
			}
			w.plan = append(w.plan, &injection{kind: k, at: w.now + at, lasts: time.Duration(r.ExpFloat64() * float64(lasts)), world: w, atlas: &atlas, copies: copies})
		}
	}
	plan := w.plan[first:]
	slices.SortStableFunc(plan, func(a, b *injection) int { return int(a.at - b.at) })
	for i, f := range plan {
		f.index = first + i
		f.random = newRandom(w.config.Seed, fmt.Sprintf("fault %d", f.index))
		if w.config.Keep != nil && !slices.Contains(w.config.Keep, f.index) {
			continue
		}
		w.after(f.at-w.now, eventFault, uint64(f.index), 0, f.inject)
	}
	_ = Sleep(ctx, d)
	w.Heal()
}

func (f *injection) inject() {
	w := f.world
	end := f.kind.begin(f)
	if end == nil {
		return
	}
	w.faults[f.kind.name]++
	w.Logf("fault %d: %s,%s", f.index, f.kind.name, f.what)
	f.end = end
	w.after(f.lasts, eventFault, uint64(f.index), 1, func() {
		if end := f.end; end != nil {
			f.end = nil
			w.Logf("fault %d ends", f.index)
			end()
		}
	})
}

// Heal ends all faults that Trouble has injected, and starts what does not run. What is
// damaged for good stays so.
func (w *World) Heal() {
	w.Logf("everything heals")
	w.healed = true
	for _, f := range w.plan {
		if end := f.end; end != nil {
			f.end = nil
			end()
		}
	}
	for _, n := range w.order {
		n.Resume()
		n.crashAt, n.Disk.failAt, n.clock.jumped = 0, 0, 0
		if n.Disk.failed != nil {
			n.Crash()
		}
		n.Start()
	}
}

// effect counts what faults bring about.
func (w *World) effect(name string) { w.effects[name]++ }
