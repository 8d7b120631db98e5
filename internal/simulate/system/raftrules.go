package system

import (
	"maps"
	"slices"

	"github.com/synod-go/synod/internal/probe"
)

// raftRules are what must hold of Raft's logs (Ongaro and Ousterhout, figure 3), held
// against what the cores show of themselves, and that no node forgets what it has
// promised.
type raftRules struct {
	*invariants
	members map[uint64]*raftMember
	leaders map[uint64]uint64 // by term
	entries map[place]entry   // what stands where, in any log
	chosen  []uint64          // the term of each committed entry, by index
	until   map[uint64]uint64 // what was known as committed in each term, at most
}

var _ rules = (*raftRules)(nil)

func newRaftRules(v *invariants) *raftRules {
	return &raftRules{
		invariants: v,
		members:    make(map[uint64]*raftMember),
		leaders:    make(map[uint64]uint64),
		entries:    make(map[place]entry),
		chosen:     []uint64{0},
		until:      make(map[uint64]uint64),
	}
}

// place names an entry: with a term, an index has one.
type place struct{ index, term uint64 }

type entry struct {
	hash   uint64
	before uint64 // the term of the entry before it
}

// raftMember is what is known of one node: what it is, and what it has promised, which its
// disk must remember.
type raftMember struct {
	first  uint64   // index of terms[0]
	terms  []uint64 // of the log's entries; terms[0] is that of the one before the log
	term   uint64
	commit uint64
	leads  bool

	promised uint64            // the highest term that it spoke in as a promise
	votes    map[uint64]uint64 // by term
	accepted place             // the last entry that it said was durable
}

func (m *raftMember) last() uint64 { return m.first + uint64(len(m.terms)) - 1 }

// termAt returns the term of an entry, and whether the log has it.
func (m *raftMember) termAt(index uint64) (uint64, bool) {
	if index < m.first || index > m.last() {
		return 0, false
	}
	return m.terms[index-m.first], true
}

// observe implements rules.
func (v *raftRules) observe(node uint64, what any) {
	m := v.members[node]
	if m == nil {
		m = &raftMember{votes: make(map[uint64]uint64)}
		v.members[node] = m
	}
	switch x := what.(type) {
	case probe.RaftOpened:
		v.opened(node, m, x)
	case probe.RaftState:
		v.state(node, m, x)
	case probe.RaftEntries:
		v.appended(node, m, x)
	case probe.RaftSnapshot:
		if x.Index < m.commit {
			v.w.Failf("commit never regresses", "node %d: a snapshot at index %d takes the place of a log that is committed up to %d", node, x.Index, m.commit)
		}
		m.first, m.terms = x.Index, []uint64{x.Term}
		m.accepted = place{}
		v.committed(node, x.Index, x.Term)
	case probe.RaftVoted:
		v.promises(node)
		m.promised = max(m.promised, x.Term)
		if before, ok := m.votes[x.Term]; ok && before != x.For {
			v.w.Failf("one vote a term", "node %d votes for node %d in term %d, and has voted for node %d", node, x.For, x.Term, before)
		}
		m.votes[x.Term] = x.For
	case probe.RaftAccepted:
		v.promises(node)
		m.promised = max(m.promised, x.Term)
		// One of an earlier term may leave when the log has changed since.
		if term, ok := m.termAt(x.Index); ok && x.Term == m.term && x.Index >= m.accepted.index {
			m.accepted = place{x.Index, term}
		}
	}
}

// left implements rules.
func (v *raftRules) left(node uint64) {
	if m := v.members[node]; m != nil {
		m.accepted, m.first, m.terms, m.commit = place{}, 0, nil, 0
	}
}

// leader implements rules.
func (v *raftRules) leader() (leader uint64) {
	var term uint64
	for _, n := range v.w.Nodes() {
		if m := v.members[n.ID]; m != nil && m.leads && m.term >= term {
			leader, term = n.ID, m.term
		}
	}
	return leader
}

// standing implements rules: nobody asks.
func (v *raftRules) standing(uint64) bool { return false }

// elected implements rules: nobody asks.
func (v *raftRules) elected(uint64) bool { return false }

// alone implements rules.
func (v *raftRules) alone(node uint64) bool {
	m := v.members[node]
	return m != nil && m.last() >= uint64(len(v.chosen))
}

// opened checks that a node's disk remembers what the node has promised.
func (v *raftRules) opened(node uint64, m *raftMember, x probe.RaftOpened) {
	if v.replaced(node) {
		m.promised, m.accepted, m.votes = 0, place{}, make(map[uint64]uint64)
	}
	if x.Term < m.promised {
		v.w.Failf("promises are kept", "node %d is in term %d, and has promised something in term %d", node, x.Term, m.promised)
	}
	if vote, ok := m.votes[x.Term]; ok && vote != x.Vote {
		v.w.Failf("promises are kept", "node %d has voted for node %d in term %d, and remembers %d", node, vote, x.Term, x.Vote)
	}
	if at := m.accepted; at.index >= x.First && at.index > 0 {
		if at.index > x.Last {
			v.w.Failf("promises are kept", "node %d has said that its log is durable up to index %d, and it ends at %d", node, at.index, x.Last)
		} else if term := x.TermAt(at.index); term != 0 && term != at.term {
			v.w.Failf("promises are kept", "node %d has said that the entry at index %d of term %d is durable, and has one of term %d", node, at.index, at.term, term)
		}
	}
	m.term, m.commit, m.leads = x.Term, x.Commit, false
	m.first, m.terms = x.First-1, nil
	for index := x.First - 1; index <= x.Last; index++ {
		term := x.TermAt(index)
		m.terms = append(m.terms, term)
		if term != 0 && index > 0 && index <= x.Commit {
			v.committed(node, index, term)
		}
	}
}

func (v *raftRules) state(node uint64, m *raftMember, x probe.RaftState) {
	if x.Term < m.term {
		v.w.Failf("terms never regress", "node %d was in term %d and is in term %d", node, m.term, x.Term)
	}
	if x.Commit < m.commit {
		v.w.Failf("commit never regresses", "node %d knew that index %d is committed, and knows %d", node, m.commit, x.Commit)
	}
	if x.Commit > m.last() {
		v.w.Failf("commit within the log", "node %d takes index %d for committed, and its log ends at %d", node, x.Commit, m.last())
	}
	if x.Leading {
		if other, ok := v.leaders[x.Term]; ok && other != node {
			v.w.Failf("election safety", "nodes %d and %d both lead in term %d", other, node, x.Term)
		}
		v.leaders[x.Term] = node
	}
	if x.Leading && (!m.leads || m.term != x.Term) {
		// Leader completeness: what was committed in earlier terms is in its log.
		for _, term := range slices.Sorted(maps.Keys(v.until)) {
			index := v.until[term]
			if term >= x.Term || index < m.first {
				continue
			}
			if have, ok := m.termAt(index); !ok || have != v.chosen[index] {
				v.w.Failf("leader completeness", "node %d leads in term %d; its log, up to index %d, has term %d at index %d, and an entry of term %d was committed there by term %d",
					node, x.Term, m.last(), have, index, v.chosen[index], term)
			}
		}
	}
	for index := max(m.commit, m.first) + 1; index <= min(x.Commit, m.last()); index++ {
		term, _ := m.termAt(index)
		v.committed(node, index, term)
	}
	if known := min(x.Commit, m.last()); known > v.until[x.Term] {
		v.until[x.Term] = known
	}
	m.term, m.commit, m.leads = x.Term, x.Commit, x.Leading
}

// committed checks that an index has one committed entry.
func (v *raftRules) committed(node, index, term uint64) {
	for uint64(len(v.chosen)) <= index {
		v.chosen = append(v.chosen, 0)
	}
	switch known := v.chosen[index]; known {
	case 0:
		v.chosen[index] = term
	case term:
	default:
		v.w.Failf("state-machine safety", "node %d takes the entry of term %d at index %d for committed; another one takes that of term %d", node, term, index, known)
	}
}

func (v *raftRules) appended(node uint64, m *raftMember, x probe.RaftEntries) {
	before, ok := m.termAt(x.First - 1)
	if !ok {
		v.w.Failf("log without gaps", "node %d appends at index %d to a log from %d to %d", node, x.First, m.first+1, m.last())
		return
	}
	if x.First <= m.commit {
		v.w.Failf("commit never regresses", "node %d overwrites from index %d on, and index %d is committed", node, x.First, m.commit)
	}
	if x.First <= m.last() {
		if x.Leading && m.leads && m.term == x.Term {
			v.w.Failf("a leader only appends", "node %d leads in term %d and overwrites from index %d on", node, x.Term, x.First)
		}
		m.terms = m.terms[:x.First-m.first]
		if m.accepted.index >= x.First {
			m.accepted = place{x.First - 1, before}
		}
	}
	for i, e := range x.Entries {
		at := place{x.First + uint64(i), e.Term}
		if known, ok := v.entries[at]; ok && (known.before != before || known.hash != e.Hash) {
			v.w.Failf("log matching", "node %d: the entry at index %d of term %d is not what it is elsewhere", node, at.index, at.term)
		}
		v.entries[at] = entry{hash: e.Hash, before: before}
		m.terms = append(m.terms, e.Term)
		before = e.Term
	}
}
