package system

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/synod-go/synod/sim"
)

// partial cuts links, so that few nodes reach each other, and demands progress as long as there is a voter
// that reaches enough others both ways: one in the middle of those who do not reach each other, a chain, a
// leader that is heard and hears nothing, one that all can reach and that lacks what is newest. Everything else
// is whole. (Ng, Haridi and Carbone, "Omni-Paxos", section 2, has the first three.)
func (s *run) partial(ctx context.Context) {
	r := s.w.Rand()
	s.steady = true
	defer func() { s.steady = false }()
	for range 1 + r.IntN(3) {
		if !s.settled(ctx) {
			return
		}
		links, late := s.links()
		able := s.reaches(links)
		if len(able) == 0 {
			continue
		}
		if late != 0 { // it misses something first
			for _, n := range s.w.Nodes() {
				s.cut(n.ID, late, true)
				s.cut(late, n.ID, true)
			}
			if s.writes(ctx, 1+r.IntN(20), progress*election) {
				s.w.Logf("node %d has missed something", late)
			}
		}
		for l, cut := range links {
			s.cut(l[0], l[1], cut)
		}
		began := s.w.Now()
		s.w.Logf("nodes %v reach enough voters", able)
		if !s.writes(ctx, 5, progress*election) {
			s.w.Failf("progress where one node reaches a quorum", "nodes %v reach enough voters, both ways, and there were no five writes within %v", able, s.w.Now()-began)
			return
		}
		s.w.Logf("five writes took %v", s.w.Now()-began)
		for l := range links {
			s.cut(l[0], l[1], false)
		}
	}
}

func (s *run) cut(from, to uint64, cut bool) {
	if from != to {
		s.w.Link(from, to).Cut = cut
	}
}

// settled waits until no change of the members is under way, and reports whether there is none.
func (s *run) settled(ctx context.Context) bool {
	for end := s.w.Now() + progress*election; s.w.Now() < end; _ = sim.Sleep(ctx, election/10) {
		changing := s.changing || s.invariants.latest().Joint
		for _, n := range s.w.Nodes() {
			if g := s.groups[n.ID]; g != nil && s.member(n.ID) && g.Err() == nil && g.Status().Target != nil {
				changing = true
			}
		}
		if !changing {
			return true
		}
	}
	return false
}

// links draws which links are to be cut, and a node that is to be late before; 0: none is.
func (s *run) links() (links map[[2]uint64]bool, late uint64) {
	r := s.w.Rand()
	links = make(map[[2]uint64]bool)
	var nodes []uint64
	for _, n := range s.w.Nodes() {
		nodes = append(nodes, n.ID)
	}
	r.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	each := func(cut func(i, j int) bool) {
		for i, from := range nodes {
			for j, to := range nodes {
				if i != j {
					links[[2]uint64{from, to}] = cut(i, j)
				}
			}
		}
	}
	leader := slices.Index(nodes, s.leader())
	switch r.IntN(5) {
	case 0: // a star
		each(func(i, j int) bool { return i != 0 && j != 0 })
	case 1: // a chain
		each(func(i, j int) bool { return i-j > 1 || j-i > 1 })
	case 2: // any links
		rate := r.Float64()
		each(func(int, int) bool { return r.Float64() < rate })
	case 3: // the leader is heard, and hears nothing
		each(func(_, j int) bool { return j == leader })
	default: // a star, around one that lacks what is newest
		late = nodes[0]
		each(func(i, j int) bool { return i != 0 && j != 0 })
	}
	if r.IntN(2) == 0 { // some go one way only
		for _, from := range nodes {
			for _, to := range nodes {
				if from != to && r.IntN(6) == 0 {
					links[[2]uint64{from, to}] = true
				}
			}
		}
	}
	return links, late
}

// reaches returns the voters that reach enough others.
func (s *run) reaches(cut map[[2]uint64]bool) (able []uint64) {
	voters := s.voters(0)
	for _, v := range voters {
		if s.sound(v) && s.engine.decides(voters, func(o uint64) bool {
			return s.sound(o) && !cut[[2]uint64{v, o}] && !cut[[2]uint64{o, v}]
		}) {
			able = append(able, v)
		}
	}
	return able
}

// writes makes so many writes, one after the other, wherever the leader is, and reports whether
// it could within a time.
func (s *run) writes(ctx context.Context, count int, within time.Duration) bool {
	number, r := 1<<40, s.w.Rand()
	for end := s.w.Now() + within; count > 0; _ = sim.Sleep(ctx, 5*time.Millisecond) {
		if s.w.Now() > end {
			return false
		}
		at := s.leader()
		if s.groups[at] == nil {
			at = 1 + r.Uint64N(s.options.nodes)
		}
		if s.groups[at] == nil {
			continue
		}
		short, cancel := sim.WithTimeout(ctx, election/2)
		id := s.next + 1
		s.write(short, &number, fmt.Sprintf("partial-%d", id), at, s.groups[at])
		cancel()
		if slices.Contains(s.acked[max(0, len(s.acked)-100):], id) {
			count--
		}
	}
	return true
}
