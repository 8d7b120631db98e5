package probe

import "sync/atomic"

// Probe is the simulation's side.
type Probe interface {
	Sometimes(name string, condition bool)
	Buggify(name string) bool
	Bug(name string) bool
	Observe(what any)
}

type installed struct{ Probe }

var active atomic.Pointer[installed]

// Install makes p the one that is asked, until the function that is returned is
// called.
func Install(p Probe) (remove func()) {
	before := active.Swap(&installed{p})
	return func() { active.Store(before) }
}

// Active reports whether somebody listens: for what is dear to describe.
func Active() bool { return active.Load() != nil }

// Current returns who listens; nil: nobody.
func Current() Probe {
	if p := active.Load(); p != nil {
		return p.Probe
	}
	return nil
}

// Sometimes marks a place, and says whether what makes it worth visiting was so this
// time. A sweep of simulations fails if it never was.
func Sometimes(name string, condition bool) {
	if p := active.Load(); p != nil {
		p.Sometimes(name, condition)
	}
}

// Buggify reports whether a rare branch shall be taken for once.
func Buggify(name string) bool {
	p := active.Load()
	return p != nil && p.Buggify(name)
}

// Bug reports whether the mistake of this name shall be made.
func Bug(name string) bool {
	p := active.Load()
	return p != nil && p.Bug(name)
}

// Observe shows something to the invariants of a simulation. Guard what is dear to
// describe with [Active].
func Observe(what any) {
	if p := active.Load(); p != nil {
		p.Observe(what)
	}
}
