package system

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/synod-go/synod/sim"
)

// rivals lets one leader after the other propose what only few hear of, some of it with gaps, and has the
// answers to one come when it is another's turn, or its own again: what a new leader finds then is
// of several ballots, in the same slots. Faults at random bring that about now and then; mistakes in how a
// value is picked from it show where it is the rule.
func (s *run) rivals(ctx context.Context) {
	r := s.w.Rand()
	wait := func(least, most float64) bool {
		_ = sim.Sleep(ctx, time.Duration((least+r.Float64()*(most-least))*float64(election)))
		return !s.calm
	}
	for wait(0, 3) {
		var undo []func()
		hinder := func(from, to uint64, loss float64, slow time.Duration) {
			l := s.w.Link(from, to)
			l.Loss, l.Slow = loss, slow
			undo = append(undo, func() { l.Loss, l.Slow = 0, 0 })
		}
		cut := func(from, to uint64) {
			if l := s.w.Link(from, to); !l.Cut { // or somebody else looks after it
				l.Cut = true
				undo = append(undo, func() { l.Cut = false })
			}
		}
		for end := s.w.Now() + 4*election; s.leader() == 0 && s.w.Now() < end && !s.calm; {
			_ = sim.Sleep(ctx, election/20)
		}
		switch r.IntN(3) {
		case 0: // it hears what some said to it long ago, when it led before, and little from others
			at := s.leader()
			others := s.voters(at)
			r.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
			late, few := others[:len(others)/2], others[len(others)/2:]
			with := func(some []uint64) bool {
				return s.engine.decides(append(others, at), func(node uint64) bool { return node == at || slices.Contains(some, node) })
			}
			if s.groups[at] == nil || len(late) == 0 || !with(late) || !with(few) {
				break
			}
			for _, o := range late {
				hinder(o, at, 0, time.Duration((1+2*r.Float64())*float64(election)))
				for _, f := range few {
					cut(o, f)
					cut(f, o)
				}
			}
			for _, o := range few {
				cut(o, at)
			}
			s.volley(at)
			for end := s.w.Now() + 2*election; s.leader() == at && s.w.Now() < end; {
				_ = sim.Sleep(ctx, election/20)
			}
			for _, o := range few {
				s.w.Link(o, at).Cut = false
			}
			s.ambush = func() { // when it is about to lead again, nobody hears it
				if s.invariants.rules.elected(at) {
					s.ambush = nil
					for _, o := range others {
						cut(at, o)
					}
				}
			}
			_ = wait(2, 4)
			s.ambush = nil
		case 1: // everything takes its time
			for _, from := range s.w.Nodes() {
				for _, to := range s.w.Nodes() {
					if from != to {
						hinder(from.ID, to.ID, r.Float64()/2, time.Duration(r.Float64()*r.Float64()*float64(2*election)))
					}
				}
			}
			for range 4 + r.IntN(8) {
				if at := s.leader(); s.groups[at] != nil {
					s.volley(at)
				}
				if !wait(0.2, 1) {
					break
				}
			}
		default: // one after the other
			for range 2 + r.IntN(4) {
				at := s.leader()
				others := s.voters(at)
				if s.groups[at] == nil || len(others) == 0 {
					break
				}
				r.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
				few := r.IntN(len(others))
				for i, o := range others {
					if i >= few {
						cut(at, o)
					} else if r.IntN(2) == 0 {
						hinder(at, o, 0.5, 0)
					}
				}
				s.volley(at)
				_ = wait(0.03, 0.1)
				for _, o := range others {
					cut(at, o)
					cut(o, at)
				}
				if !wait(1, 2.5) {
					break
				}
				if r.IntN(2) == 0 { // it comes back as one of those who are heard
					for _, o := range others {
						s.w.Link(at, o).Cut, s.w.Link(o, at).Cut = false, false
					}
				}
			}
		}
		for _, fn := range undo {
			fn()
		}
	}
}

// volley has some commands written at one node, one soon after the other, and waits for none.
func (s *run) volley(at uint64) {
	g, r := s.groups[at], s.w.Rand()
	var late time.Duration
	for range 1 + r.IntN(12) {
		late += time.Duration(r.Int64N(int64(3 * time.Millisecond)))
		s.w.Go(func(ctx context.Context) {
			_ = sim.Sleep(ctx, late)
			long, cancel := sim.WithTimeout(ctx, 6*election)
			defer cancel()
			number := 3_000_000
			s.write(long, &number, fmt.Sprintf("volley-%d", s.next), at, g)
		})
	}
}
