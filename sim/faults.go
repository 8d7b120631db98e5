package sim

import (
	"context"
	"time"
)

// fault is one kind of trouble. begin starts it and returns what ends it.
type fault struct {
	name  string
	begin func(w *World) (end func())
}

func (w *World) anyNode() *Node { return w.order[w.random.IntN(len(w.order))] }

// anyLink returns a directed link between two nodes.
func (w *World) anyLink() *Link {
	from := w.anyNode()
	to := w.anyNode()
	for to == from && len(w.order) > 1 {
		to = w.anyNode()
	}
	return w.Link(from.ID, to.ID)
}

// between runs fn on the links from every node of one side to every one of another.
func (w *World) between(a, b []*Node, fn func(*Link)) {
	for _, x := range a {
		for _, y := range b {
			if x != y {
				fn(w.Link(x.ID, y.ID))
			}
		}
	}
}

// with changes a link, and returns what changes it back.
func with(l *Link, change func(*Link)) func() {
	before := *l
	change(l)
	return func() {
		clogged, last := l.clogged, l.last
		*l = before
		l.clogged, l.last = clogged, last
	}
}

// kinds are all faults that the world knows, but for those that a disk or a link
// brings about by chance (see hit).
var kinds = []fault{
	{"link cut one way", func(w *World) func() {
		return with(w.anyLink(), func(l *Link) { l.Cut = true })
	}},
	{"node cut off", func(w *World) func() {
		n := []*Node{w.anyNode()}
		cut := func(on bool) {
			set := func(l *Link) { l.Cut = on }
			w.between(n, w.order, set)
			w.between(w.order, n, set)
		}
		cut(true)
		return func() { cut(false) }
	}},
	{"network split", func(w *World) func() {
		nodes := append([]*Node(nil), w.order...)
		w.random.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		at := 1 + w.random.IntN(max(1, len(nodes)-1))
		cut := func(on bool) {
			set := func(l *Link) { l.Cut = on }
			w.between(nodes[:at], nodes[at:], set)
			w.between(nodes[at:], nodes[:at], set)
		}
		cut(true)
		return func() { cut(false) }
	}},
	{"two nodes apart", func(w *World) func() { // a third one reaches both
		a, b := w.anyNode(), w.anyNode()
		cut := func(on bool) { w.Link(a.ID, b.ID).Cut, w.Link(b.ID, a.ID).Cut = on, on }
		cut(true)
		return func() { cut(false) }
	}},
	{"link loses", func(w *World) func() {
		p := w.random.Float64() / 2
		return with(w.anyLink(), func(l *Link) { l.Loss = p })
	}},
	{"all links lose", func(w *World) func() {
		p := w.random.Float64() / 10
		w.between(w.order, w.order, func(l *Link) { l.Loss = p })
		return func() { w.between(w.order, w.order, func(l *Link) { l.Loss = 0 }) }
	}},
	{"link repeats", func(w *World) func() {
		return with(w.anyLink(), func(l *Link) { l.Repeat, l.Late = 0.3, 50*time.Millisecond })
	}},
	{"link reorders", func(w *World) func() {
		return with(w.anyLink(), func(l *Link) { l.Reorder, l.Late = 0.3, 50*time.Millisecond })
	}},
	{"link slow", func(w *World) func() {
		return with(w.anyLink(), func(l *Link) { l.Slow = 20 * time.Millisecond })
	}},
	{"link clogged", func(w *World) func() {
		l := w.anyLink()
		l.clogged = w.now + w.some(2*time.Second)
		return func() {}
	}},
	{"link corrupts", func(w *World) func() {
		return with(w.anyLink(), func(l *Link) { l.Corrupt = 0.1 })
	}},
	{"disk slow", func(w *World) func() {
		d := w.anyNode().Disk
		d.Slow = 30 * time.Millisecond
		return func() { d.Slow = 0 }
	}},
	{"disk stuck", func(w *World) func() {
		d := w.anyNode().Disk
		d.Stuck = true
		return func() { d.Stuck = false }
	}},
	{"disk full for a while", func(w *World) func() {
		d := w.anyNode().Disk
		d.Full = true
		return func() { d.Full = false }
	}},
	{"disk fails a sync", func(w *World) func() {
		n := w.anyNode()
		n.Disk.FailAt = 1 + w.random.IntN(20)
		return func() {
			n.Disk.FailAt = 0
			if n.Disk.failed != nil {
				n.Crash() // somebody looks after it
				n.Start()
			}
		}
	}},
	{"crash", func(w *World) func() {
		n := w.anyNode()
		n.Crash()
		return n.Start
	}},
	{"crash of all", func(w *World) func() {
		for _, n := range w.order {
			n.Crash()
		}
		return func() {
			for _, n := range w.order {
				n.Start()
			}
		}
	}},
	{"crash at the n-th commit", func(w *World) func() {
		n := w.anyNode()
		n.Disk.CutAt = 1 + w.random.IntN(20)
		return func() {
			n.Disk.CutAt = 0
			n.Start()
		}
	}},
	{"pause", func(w *World) func() {
		n := w.anyNode()
		n.Pause()
		return n.Resume
	}},
}

// Trouble lets faults happen for a while: the seed picks which kinds, how often, and
// how long each lasts. It ends what it began.
func (w *World) Trouble(ctx context.Context, d time.Duration) {
	until := w.now + d
	var chosen []fault
	for _, k := range kinds {
		if w.random.IntN(2) == 0 {
			chosen = append(chosen, k)
		}
	}
	pause := 20*time.Millisecond + w.some(time.Second)
	lasts := 20*time.Millisecond + w.some(2*time.Second)
	for len(chosen) > 0 && w.now < until {
		if w.Sleep(ctx, w.some(2*pause)) != nil {
			break
		}
		f := chosen[w.random.IntN(len(chosen))]
		w.hit(f.name)
		w.Logf("fault: %s", f.name)
		w.note(eventFault, 0)
		end, era := f.begin(w), w.era
		w.after(w.some(2*lasts), eventFault, func() {
			if w.era == era { // or it has healed already
				end()
			}
		})
	}
	w.Heal()
}

// Heal ends all trouble: every link is whole, every disk works, every node runs. A
// node whose disk had failed is restarted.
func (w *World) Heal() {
	w.Logf("everything heals")
	w.era++
	w.between(w.order, w.order, func(l *Link) { *l = Link{last: l.last} })
	for _, n := range w.order {
		failed := n.Disk.failed != nil
		n.Disk.Slow, n.Disk.Stuck, n.Disk.Full, n.Disk.FailAt, n.Disk.CutAt = 0, false, false, 0, 0
		n.Resume()
		if failed || n.failed != nil {
			n.Crash()
		}
		n.Start()
	}
}
