package system

import (
	"slices"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/sim"
)

// invariants are what must hold of any engine: nodes agree on who is in the group and on what is
// remembered of sessions, and one that was wiped takes no part. The engine's rules are those of
// its protocol.
type invariants struct {
	w     *sim.World
	rules rules

	configured   map[uint64]probe.Configured // by index
	incarnations map[uint64]uint64           // that each node has now
	was          map[uint64]bool             // a node that is, or was, a member
	sessions     map[uint64]uint64           // a hash of what is remembered of them after each entry
	memories     map[uint64]*memory
}

// rules are what must hold of a protocol, held against what its cores show of themselves.
type rules interface {
	// observe is shown what a node's core does.
	observe(node uint64, what any)
	// leader returns the node that leads, as far as the cores have shown; 0: none.
	leader() uint64
	// standing reports whether a node is about to stand for election, and has asked nobody yet.
	standing(node uint64) bool
	// elected reports whether enough have promised a node what it asks for, and it does not lead yet.
	elected(node uint64) bool
	// left notes that a node removes its replica's log, which it may.
	left(node uint64)
	// alone reports whether a node may have accepted what no other one has: the end of the log.
	alone(node uint64) bool
}

// memory is whether a node's disk can know what the node has promised.
type memory struct {
	generation int  // of its disk
	promised   bool // something, since it has this disk
	forgot     bool // it has promised something, and its disk was lost since
}

func newInvariants(w *sim.World) *invariants {
	return &invariants{
		w:            w,
		configured:   make(map[uint64]probe.Configured),
		incarnations: make(map[uint64]uint64),
		was:          make(map[uint64]bool),
		sessions:     make(map[uint64]uint64),
		memories:     make(map[uint64]*memory),
	}
}

func (v *invariants) observe(node uint64, what any) {
	switch x := what.(type) {
	case probe.Configured:
		v.reconfigured(node, x)
	case probe.Sessions:
		if known, ok := v.sessions[x.Index]; ok && known != x.Hash {
			v.w.Failf("equal sessions at equal index", "node %d remembers another thing of sessions than another node, after index %d", node, x.Index)
		}
		v.sessions[x.Index] = x.Hash
	default:
		v.rules.observe(node, what)
	}
}

func (v *invariants) memory(node uint64) *memory {
	m := v.memories[node]
	if m == nil {
		m = &memory{}
		v.memories[node] = m
	}
	return m
}

// promises notes that a node makes a promise, and checks that it may: one that was wiped
// before it ever made one is as good as new.
func (v *invariants) promises(node uint64) {
	m := v.memory(node)
	if m.forgot {
		v.w.Failf("a wiped node takes no part", "node %d, whose disk was %s, makes a promise", node, v.w.Node(node).Damaged())
	}
	m.promised = true
}

// replaced reports whether a node has another disk than when it was last asked. It can't remember then
// what it has promised, and must not promise anything again.
func (v *invariants) replaced(node uint64) bool {
	m, g := v.memory(node), v.w.Node(node).Disk.Generation()
	if g == m.generation {
		return false
	}
	m.generation, m.forgot, m.promised = g, m.forgot || m.promised, false
	return true
}

// reconfigured checks that nodes agree on who is in the group, and that a member that comes
// back under another incarnation was out in between.
func (v *invariants) reconfigured(node uint64, x probe.Configured) {
	if known, ok := v.configured[x.Index]; ok {
		if !slices.Equal(known.Members, x.Members) {
			v.w.Failf("equal configurations at equal index", "node %d: as of index %d the members are %v, and %v for another node", node, x.Index, x.Members, known.Members)
		}
		return
	}
	v.configured[x.Index] = x
	var before probe.Configured
	for index, c := range v.configured {
		if index < x.Index && index >= before.Index {
			before = c
		}
	}
	for _, m := range x.Members {
		v.was[m.Node] = true
		for _, old := range before.Members {
			if old.Node == m.Node && old.Incarnation != 0 && old.Incarnation != m.Incarnation {
				v.w.Failf("a wiped node takes no part", "node %d becomes a member under another incarnation at index %d, and was one under its old one at index %d", m.Node, x.Index, before.Index)
			}
		}
		// It may take part again.
		if m.Incarnation != 0 && m.Incarnation == v.incarnations[m.Node] {
			v.memory(m.Node).forgot = false
		}
	}
}

// latest returns the newest configuration that anybody has shown.
func (v *invariants) latest() (latest probe.Configured) {
	for index, c := range v.configured {
		if index > latest.Index {
			latest = c
		}
	}
	return latest
}
