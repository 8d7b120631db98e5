package system

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/sim"
)

// operator changes the members, again and again, wherever it is led.
func (s *run) operator(ctx context.Context) {
	r := s.w.Rand()
	for !s.over {
		_ = sim.Sleep(ctx, time.Duration(r.Int64N(int64(4*election))))
		for id := uint64(1); id <= s.options.nodes; id++ {
			if g := s.groups[id]; g != nil && errors.Is(g.Err(), synod.ErrRemoved) {
				s.removed[id] = true
			}
		}
		at := s.leader()
		g := s.groups[at]
		if g == nil || s.hush || s.steady {
			continue
		}
		var now []synod.Member // as far as anybody knows: Status would wait for a node that crashes
		for _, m := range s.invariants.latest().Members {
			now = append(now, synod.Member{Node: m.Node, Learner: !m.Voter && !m.Outgoing, Incarnation: m.Incarnation})
		}
		if now == nil {
			now = s.founders()
		}
		desired := s.desired(now)
		if desired == nil {
			continue
		}
		for _, m := range desired {
			if s.removed[m.Node] {
				// It begins anew: see startNode.
				s.w.Node(m.Node).Crash()
				s.w.Node(m.Node).Start()
			}
		}
		s.w.Logf("operator: node %d is to make the members %v", at, desired)
		short, cancel := sim.WithTimeout(ctx, time.Duration(1+r.Int64N(int64(10*election))))
		s.changing = true
		err := g.SetMembers(short, desired)
		s.changing = false
		cancel()
		s.w.Logf("operator: %v", err)
		var elsewhere *synod.NotLeaderError
		switch {
		case err == nil:
			if latest := s.invariants.latest(); !slices.EqualFunc(latest.Members, desired, func(c probe.ConfiguredMember, m synod.Member) bool { return c.Node == m.Node }) {
				s.w.Failf("members are what was asked for", "SetMembers of %v returned, and the members are %v", desired, latest.Members)
			}
		case errors.As(err, &elsewhere), errors.Is(err, synod.ErrChanging), errors.Is(err, synod.ErrUnknownOutcome), errors.Is(err, synod.ErrSuperseded),
			errors.Is(err, replica.ErrIncarnation), errors.Is(err, synod.ErrClosed), errors.Is(err, context.DeadlineExceeded), errors.As(err, new(*synod.FailedError)):
		default:
			s.w.Failf("errors have types", "SetMembers: %v", err)
		}
	}
}

// desired returns what the members are to become; nil: what they are.
func (s *run) desired(now []synod.Member) []synod.Member {
	r := s.w.Rand()
	desired := slices.Clone(now)
	find := func(id uint64) int {
		return slices.IndexFunc(desired, func(m synod.Member) bool { return m.Node == id })
	}
	// Those that have lost their disk come first.
	for i, m := range desired {
		n := s.w.Node(m.Node)
		if n.Damaged() == sim.Lost && n.Running() && s.groups[m.Node] != nil && s.invariants.incarnations[m.Node] != m.Incarnation && !s.options.mistaken {
			desired[i].Incarnation = s.invariants.incarnations[m.Node]
			return s.sane(now, desired)
		}
	}
	for range 1 + r.IntN(3) {
		id := 1 + r.Uint64N(s.options.nodes)
		switch i := find(id); {
		case i >= 0 && r.IntN(3) == 0:
			desired[i].Learner = !desired[i].Learner
		case i >= 0:
			desired = slices.Delete(desired, i, i+1)
		case s.invariants.was[id] && !s.removed[id]:
			// It is told by and by, and then begins anew.
		case s.w.Node(id).Damaged() == "" || s.w.Node(id).Damaged() == sim.Lost && !s.options.mistaken:
			desired = append(desired, synod.Member{Node: id, Learner: r.IntN(4) == 0, Incarnation: s.invariants.incarnations[id]})
		}
	}
	return s.sane(now, desired)
}

// sane returns a list of members if an operator in his senses would ask for it: most of the
// voters can vote.
func (s *run) sane(now, desired []synod.Member) []synod.Member {
	slices.SortFunc(desired, func(a, b synod.Member) int { return cmp.Compare(a.Node, b.Node) })
	var voters []uint64
	for _, m := range desired {
		if !m.Learner {
			voters = append(voters, m.Node)
		}
	}
	if !s.engine.fits(voters) || !s.engine.decides(voters, s.sound) || slices.Equal(now, desired) {
		return nil
	}
	return desired
}

// founders returns the first members.
func (s *run) founders() (members []synod.Member) {
	for id := uint64(1); id <= s.options.founders; id++ {
		members = append(members, synod.Member{Node: id})
	}
	return members
}

// sound reports whether nothing has happened to a node's disk that does not heal. One that was
// lost may be in use again, but who knows what happens to the next.
func (s *run) sound(id uint64) bool { return s.w.Node(id).Damaged() == "" }

// member reports whether a node is a member of the newest configuration.
func (s *run) member(id uint64) bool {
	latest := s.invariants.latest()
	if len(latest.Members) == 0 {
		return id <= s.options.founders
	}
	return slices.ContainsFunc(latest.Members, func(m probe.ConfiguredMember) bool { return m.Node == id })
}

// able reports whether the group can decide: most voters of each set of them are sound.
func (s *run) able() bool {
	latest := s.invariants.latest()
	if len(latest.Members) == 0 {
		return false // members have not all met
	}
	for _, votes := range []func(probe.ConfiguredMember) bool{
		func(m probe.ConfiguredMember) bool { return m.Voter },
		func(m probe.ConfiguredMember) bool { return m.Outgoing },
	} {
		var voters []uint64
		for _, m := range latest.Members {
			if votes(m) {
				voters = append(voters, m.Node)
			}
		}
		if len(voters) > 0 && !s.engine.decides(voters, s.sound) {
			return false
		}
	}
	return true
}

// oldCopy replaces the disk of a member by an old copy, with its identity, while all members
// can be reached. It must be recognised.
func (s *run) oldCopy(ctx context.Context) {
	w := s.w
	latest := s.invariants.latest()
	var candidates []uint64
	for _, n := range w.Nodes() {
		if n.Damaged() != "" {
			return // it may be the one that knows
		}
		votes := slices.ContainsFunc(latest.Members, func(m probe.ConfiguredMember) bool { return m.Node == n.ID && m.Voter })
		if g := s.groups[n.ID]; votes && g != nil && g.Err() == nil {
			candidates = append(candidates, n.ID)
		}
	}
	if latest.Joint || len(candidates) < 3 || s.options.durable || w.Rand().IntN(2) == 0 {
		return
	}
	victim := candidates[w.Rand().IntN(len(candidates))]
	n := w.Node(victim)
	old := n.Disk.Copy()
	if w.Rand().IntN(2) == 0 {
		n.Crash()
		n.Start()
	}
	limit, cancel := sim.WithTimeout(ctx, progress*election)
	defer cancel()
	write := func() {
		number := 1 << 40
		for acked := len(s.acked); len(s.acked) == acked && limit.Err() == nil; {
			_ = sim.Sleep(ctx, 10*time.Millisecond)
			if at := s.leader(); s.groups[at] != nil {
				short, cancel := sim.WithTimeout(ctx, election)
				s.write(short, &number, "last", at, s.groups[at])
				cancel()
			}
		}
	}
	write()
	for s.groups[victim] == nil && limit.Err() == nil {
		_ = sim.Sleep(ctx, 10*time.Millisecond)
	}
	if g := s.groups[victim]; g == nil || g.Barrier(limit) != nil {
		w.Failf("progress", "node %d does not catch up before its disk is replaced", victim)
		return
	}
	_ = sim.Sleep(ctx, election) // others hear of it
	// A change of the members that was under way may have left too few to do without one.
	enough := s.engine.decides(s.voters(0), func(node uint64) bool { return node != victim })
	if g := s.groups[victim]; s.invariants.latest().Joint || !enough || g == nil || g.Status().Target != nil {
		return
	}
	n.Crash()
	n.Disk.Restore(old)
	n.Start()
	for limit.Err() == nil {
		_ = sim.Sleep(ctx, 10*time.Millisecond)
		if g := s.groups[victim]; g != nil && errors.Is(g.Err(), synod.ErrRolledBack) {
			write()
			if limit.Err() != nil {
				w.Failf("progress", "the others do not go on without node %d, whose disk was replaced", victim)
			}
			return
		}
	}
	w.Failf("an old copy is recognised", "node %d runs on an old copy of its disk", victim)
}
