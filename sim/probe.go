package sim

import "github.com/synod-go/synod/internal/probe"

// Sometimes marks a place in an application, and says whether what makes it worth
// visiting was so this time: a cache that was full, a retry that was needed. A run
// counts it, so that a test over many seeds can demand that each place was reached
// (Result.Sites): a simulation that never gets there proves nothing about it. Outside
// of a simulation it does nothing, and costs about a nanosecond.
func Sometimes(name string, condition bool) {
	if !probe.Active() {
		return
	}
	if p, ok := probe.Current().(*worldProbe); ok {
		mark(p.own, name, condition)
	}
}

func mark(sites map[string]int, name string, condition bool) {
	if condition {
		sites[name]++
	} else if _, ok := sites[name]; !ok {
		sites[name] = 0
	}
}

// Buggify reports whether a rare branch of an application shall be taken for once: a
// buffer of one byte, an early flush, an extra retry. It is false outside of a
// simulation, at the cost of about a nanosecond; within, the seed decides which branches
// take part in the run, and when. Once everything has healed, none is taken.
func Buggify(name string) bool { return probe.Buggify(name) }

// branch is what a seed makes of a Buggify.
type branch struct {
	chance float64
	taken  int
}

// worldProbe is the world as the code sees it.
type worldProbe World

var _ probe.Probe = (*worldProbe)(nil)

// Sometimes implements probe.Probe.
func (p *worldProbe) Sometimes(name string, condition bool) { mark(p.sites, name, condition) }

// Buggify implements probe.Probe.
func (p *worldProbe) Buggify(name string) bool {
	b := p.buggify[name]
	if b == nil {
		b = &branch{}
		if r := newRandom(p.config.Seed, "buggify "+name); r.IntN(2) == 0 {
			b.chance = logarithmic(r, 0.002, 0.2)
		}
		p.buggify[name] = b
	}
	if b.chance == 0 || p.healed || p.config.Calm || p.random.Float64() >= b.chance {
		return false
	}
	b.taken++
	return true
}

// Bug implements probe.Probe.
func (p *worldProbe) Bug(name string) bool { return p.bugs[name] }

// Observe implements probe.Probe.
func (p *worldProbe) Observe(what any) {
	if p.watch == nil {
		return
	}
	var node uint64
	if t := p.current; t != nil {
		if n := t.owner(); n != nil {
			node = n.ID
		}
	}
	defer func() {
		// The code that is observed may turn panics into something else.
		if v := recover(); v != nil {
			(*World)(p).fail("panic", panicError(v))
		}
	}()
	p.watch(node, what)
}
