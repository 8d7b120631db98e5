package system

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/synod-go/synod/sim"
)

// A share of the seeds runs with lease reads. Clocks drift there no further than what the
// nodes are told to expect; everything else may happen, pauses of processes too: their
// clocks go on. Beside the faults that strike at random there is one who knows how leases
// come to grief, and tries (tempt).

// drifts are by how much clocks may drift in a run with leases, by its seed; 0: without.
var drifts = [9]float64{0, 0, 0.002, 0, 0, 0.02, 0, 0, 0.05}

// clockDrift returns how far two clocks come apart while one of them goes on by an election
// timeout, if both run off by so much at most.
func clockDrift(drift float64) time.Duration {
	if drift == 0 {
		return 0
	}
	return time.Duration(2*drift/(1-drift)*float64(election)) + time.Millisecond
}

// tempt tries to have another leader elected while the old one may still count on its
// lease, and then asks the old one for what was written to the new one.
func (s *run) tempt(ctx context.Context) {
	r := s.w.Rand()
	wait := func(least, most float64) bool {
		_ = sim.Sleep(ctx, time.Duration((least+r.Float64()*(most-least))*float64(election)))
		return !s.calm
	}
	for wait(0, 4) {
		for end := s.w.Now() + 4*election; s.engine.more() && s.leader() == 0 && s.w.Now() < end && !s.calm; {
			_ = sim.Sleep(ctx, election/20)
		}
		old := s.leader()
		g := s.groups[old]
		if g == nil || !s.w.Node(old).Running() {
			continue
		}
		others := s.voters(old)
		if len(others) == 0 {
			continue
		}
		r.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
		var undo []func()
		cut := func(from, to uint64) {
			l := s.w.Link(from, to)
			if before := l.Cut; !before {
				l.Cut = true
				undo = append(undo, func() { l.Cut = false })
			}
		}
		s.warm(ctx, g)
		kind := r.IntN(5)
		if s.engine.more() && r.IntN(3) == 0 {
			kind = 5
		}
		switch kind {
		case 0: // what it asks is answered while it stands still
			for _, o := range others {
				l := s.w.Link(o, old)
				before := l.Slow
				l.Slow = 70 * time.Millisecond
				undo = append(undo, func() { l.Slow = before })
			}
			for range 1 + r.IntN(6) {
				s.warm(ctx, g)
				_ = sim.Sleep(ctx, 50*time.Millisecond)
			}
			s.w.Node(old).Pause()
			_ = wait(0.2, 0.3)
			for _, o := range others {
				cut(o, old)
			}
			_ = wait(1, 2.5)
			s.w.Node(old).Resume()
		case 1: // it hands over, and hears nothing of it
			for _, o := range others {
				if cut(o, old); r.IntN(2) == 0 {
					cut(old, o)
				}
			}
			if len(undo) == 2*len(others) { // somebody must hear it
				s.w.Link(old, others[0]).Cut = false
			}
			s.w.Go(func(ctx context.Context) {
				short, cancel := sim.WithTimeout(ctx, election/2)
				defer cancel()
				_ = g.TransferLeader(short, others[0])
			})
		case 2: // it is cut off
			for _, o := range others {
				if cut(o, old); r.IntN(2) == 0 {
					cut(old, o)
				}
			}
		case 5: // those who would elect another one hear it again before they are asked
			for _, o := range others {
				l, d := s.w.Link(o, old), s.w.Node(o).Disk
				l.Slow, d.Slow = election/4, election/5
				undo = append(undo, func() { l.Slow, d.Slow = 0, 0 })
			}
			_ = wait(0.8, 1) // from here on it believes of them what was so a while ago
			for _, o := range others {
				cut(old, o)
			}
			standing, elected := s.invariants.rules.standing, s.invariants.rules.elected
			for end := s.w.Now() + 2*election; s.w.Now() < end && !slices.ContainsFunc(others, standing); {
				_ = sim.Sleep(ctx, election/100)
			}
			for _, o := range others {
				if standing(o) {
					cut(o, old)
				} else {
					s.w.Link(old, o).Cut, s.w.Link(o, old).Slow, s.w.Node(o).Disk.Slow = false, 0, 0
				}
			}
			s.ambush = func() {
				if slices.ContainsFunc(others, elected) {
					s.ambush = nil
					for _, o := range others {
						cut(old, o)
						cut(o, old)
					}
				}
			}
			for end := s.w.Now() + election; s.w.Now() < end && s.ambush != nil; {
				s.warm(ctx, g)
				_ = sim.Sleep(ctx, election/50)
			}
			s.ambush = nil
			for _, o := range others {
				s.w.Node(o).Disk.Slow = 0
			}
		default: // a minority misses it, and one of those that do not forgets it
			s.hush = true
			_ = wait(0.1, 0.2)
			few := others[:len(others)/2]
			for _, o := range few {
				cut(o, old)
				cut(old, o)
			}
			for range 10 + r.IntN(20) {
				s.warm(ctx, g)
				_ = sim.Sleep(ctx, election/10)
			}
			// It hears from the old leader for as long as it takes to learn, in its first tick,
			// that it is known again, and that is all.
			forgets := others[len(others)/2]
			cut(old, forgets)
			s.w.Node(forgets).Crash()
			s.w.Node(forgets).Start()
			_ = sim.Sleep(ctx, election/10*19/20)
			s.w.Link(old, forgets).Cut = false
			_ = sim.Sleep(ctx, election/10*2/20)
			cut(old, forgets)
			cut(forgets, old)
			s.hush = false
		}
		s.duel(ctx, old, g)
		for _, fn := range undo {
			fn()
		}
	}
}

// voters returns the members that vote, as far as anybody knows, but for one.
func (s *run) voters(but uint64) (list []uint64) {
	for _, m := range s.invariants.latest().Members {
		if m.Voter && m.Node != but {
			list = append(list, m.Node)
		}
	}
	if s.invariants.latest().Members == nil {
		for id := uint64(1); id <= s.options.founders; id++ {
			if id != but {
				list = append(list, id)
			}
		}
	}
	return list
}

// warm reads on a leader, so that it has a lease.
func (s *run) warm(ctx context.Context, g group) {
	short, cancel := sim.WithTimeout(ctx, election/10)
	defer cancel()
	_ = g.Barrier(short)
}

// duel writes to whoever leads, and reads what it wrote from one that has led, for two
// election timeouts.
func (s *run) duel(ctx context.Context, old uint64, g group) {
	number := 2_000_000
	for end := s.w.Now() + 2*election; s.w.Now() < end && !s.calm; {
		key := fmt.Sprintf("duel-%d", s.next)
		if leader := s.leader(); leader != old && s.groups[leader] != nil {
			short, cancel := sim.WithTimeout(ctx, election/10)
			s.write(short, &number, key, leader, s.groups[leader])
			cancel()
		}
		if s.groups[old] == g {
			short, cancel := sim.WithTimeout(ctx, 10*time.Millisecond)
			s.read(short, 2_000_001, key, old, g, s.machines[old])
			cancel()
		}
		_ = sim.Sleep(ctx, 10*time.Millisecond)
	}
}
