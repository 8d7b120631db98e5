//synod:core

package twophase

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// ID names a transaction. It never recurs: Incarnation is drawn at random when the store of the coordinator's
// node is first used, and a Counter is given once in an incarnation.
type ID struct {
	Node        uint64 // the coordinator's
	Incarnation uint64
	Counter     uint64 // from 1 on
}

// String returns the ID as node, incarnation in hexadecimal, and counter.
func (id ID) String() string { return fmt.Sprintf("%d.%x.%d", id.Node, id.Incarnation, id.Counter) }

// Compare orders IDs.
func (id ID) Compare(other ID) int {
	return cmp.Or(cmp.Compare(id.Node, other.Node), cmp.Compare(id.Incarnation, other.Incarnation), cmp.Compare(id.Counter, other.Counter))
}

// Vote is what a participant says of a transaction.
type Vote uint8

// The votes.
const (
	VoteYes      Vote = iota + 1 // it can commit and it can abort, whatever happens
	VoteReadOnly                 // it has nothing to commit, and leaves
	VoteNo                       // it has aborted
)

// String returns the vote's name.
func (v Vote) String() string { return name(int(v), "none", "yes", "read-only", "no") }

// Outcome is how a transaction ended.
type Outcome uint8

// The outcomes.
const (
	OutcomeUnknown Outcome = iota
	OutcomeCommitted
	OutcomeAborted
)

// String returns the outcome's name.
func (o Outcome) String() string { return name(int(o), "unknown", "committed", "aborted") }

func name(i int, names ...string) string {
	if i < 0 || i >= len(names) {
		i = 0
	}
	return names[i]
}

// Branch is the part of a transaction that one resource of one node has.
type Branch struct {
	Node      uint64
	Resource  string
	LastAgent bool   // it cannot prepare: it is asked last, and decides
	Work      []byte // handed to the resource with the request to prepare
}

// String returns node and resource, and marks a last agent.
func (b Branch) String() string {
	s := fmt.Sprintf("%d/%s", b.Node, b.Resource)
	if b.LastAgent {
		s += "*"
	}
	return s
}

// Kind is the kind of a message.
type Kind uint8

// The kinds of messages. C is the coordinator, P a participant.
const (
	KindPrepare   Kind = iota + 1 // C to P
	KindVote                      // P to C
	KindOutcome                   // C to P
	KindAck                       // P to C: the commit is done
	KindInquire                   // P to C, or to another P, whose resource is Peer
	KindAnswer                    // to P
	KindCommitOne                 // C to P: commit alone; with Only: abort unless it is done
	KindResult                    // P to C: how that ended
)

// String returns the kind's name.
func (k Kind) String() string {
	return name(int(k), "unknown", "prepare", "vote", "outcome", "ack", "inquire", "answer", "commit-one", "result")
}

// Knowledge is what an answer says of a transaction beside its outcome.
type Knowledge uint8

// What whoever answers knows.
const (
	Decided   Knowledge = iota // Outcome is it
	Undecided                  // nothing is decided, as far as it knows
	Ignorant                   // it cannot tell
	Lost                       // the coordinator does not have the records that it would take
)

// String returns what it says.
func (k Knowledge) String() string { return name(int(k), "decided", "undecided", "ignorant", "lost") }

// Message is a message between two nodes.
type Message struct {
	Kind     Kind
	From, To uint64
	ID       ID
	Resource string // that of the participant that the message is from or for

	Floor     uint64 // from the coordinator: transactions of its incarnation below it are over
	Vote      Vote
	Outcome   Outcome
	Knowledge Knowledge
	Damage    Damage   // of an ack
	Peer      string   // inquiry and answer among participants: the resource that is asked
	Branches  []Branch // of a prepare: all participants, without their work
	Work      []byte
	MayLeave  bool   // of a prepare: read-only participants need not wait for the outcome
	Fixed     bool   // of a prepare: nobody but the coordinator may abort: there is a last agent
	Only      bool   // of a commit-one
	Reason    string // of a no
}

// String returns the message as scripts have it.
func (m Message) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s", m.Kind, shorten(m.ID))
	if m.Resource != "" {
		fmt.Fprintf(&s, " %s", m.Resource)
	}
	if m.Peer != "" {
		fmt.Fprintf(&s, " peer=%s", m.Peer)
	}
	switch m.Kind {
	case KindVote:
		fmt.Fprintf(&s, " %s", m.Vote)
	case KindOutcome, KindResult:
		fmt.Fprintf(&s, " %s", m.Outcome)
	case KindAnswer:
		if m.Knowledge == Decided {
			fmt.Fprintf(&s, " %s", m.Outcome)
		} else {
			fmt.Fprintf(&s, " %s", m.Knowledge)
		}
	}
	if m.Damage != NoDamage {
		fmt.Fprintf(&s, " damage=%s", m.Damage)
	}
	if m.Only {
		s.WriteString(" only")
	}
	if m.Fixed {
		s.WriteString(" fixed")
	}
	if m.Kind == KindPrepare && !m.MayLeave {
		s.WriteString(" stay")
	}
	if m.Floor != 0 {
		fmt.Fprintf(&s, " floor=%d", m.Floor)
	}
	if m.Reason != "" {
		fmt.Fprintf(&s, " (%s)", m.Reason)
	}
	return s.String()
}

func shorten(id ID) string { return fmt.Sprintf("%d.%d", id.Node, id.Counter) }

// Damage says what is wrong with a participant of a transaction that was decided.
type Damage uint8

// The kinds of damage.
const (
	NoDamage  Damage = iota
	Committed        // it has committed, and the transaction was aborted
	Aborted          // it has aborted, and the transaction was committed
	Forgotten        // the transaction was committed, and it knows nothing of it
)

// String returns the damage's name.
func (d Damage) String() string { return name(int(d), "none", "committed", "aborted", "forgotten") }

// Report is a damage, whose it is, and what was decided.
type Report struct {
	ID       ID
	Node     uint64
	Resource string
	Damage   Damage
}

// Decision is what stands in the register of a transaction.
type Decision struct {
	ID       ID
	Outcome  Outcome
	Branches []Branch // those that have to acknowledge it, without their work
}

// Progress says which transactions of an incarnation are over: all below Upcoming, but for those in Open.
type Progress struct {
	Node        uint64
	Incarnation uint64
	Upcoming    uint64
	Open        []uint64 // ascending
}

// Over reports whether a transaction of the incarnation is over.
func (p *Progress) Over(counter uint64) bool {
	if counter >= p.Upcoming {
		return false
	}
	_, open := slices.BinarySearch(p.Open, counter)
	return !open
}

// CallKind says what is asked of a resource.
type CallKind uint8

// The calls of a resource.
const (
	CallPrepare CallKind = iota + 1
	CallCommit
	CallAbort
	CallOne     // commit without being prepared
	CallOutcome // say what became of that
)

// String returns the call's name.
func (k CallKind) String() string {
	return name(int(k), "unknown", "prepare", "commit", "abort", "commit-one", "outcome")
}

// Call is something that a resource is asked to do.
type Call struct {
	Kind     CallKind
	ID       ID
	Resource string
	Work     []byte
	MayLeave bool
}

// String returns the call as scripts have it.
func (c Call) String() string { return fmt.Sprintf("%s %s %s", c.Kind, shorten(c.ID), c.Resource) }

// Result is what whoever asked for a commit is told.
type Result struct {
	ID      ID
	Outcome Outcome
	Reason  string // of an abort
	Node    uint64 // and who wanted it; 0: the coordinator
}

// Config says how a core works.
type Config struct {
	Node        uint64
	Incarnation uint64
	Base        uint64          // the first counter of this run
	OnePhase    map[string]bool // the resources of this node, and whether they commit in one phase

	// In ticks.
	OpenTicks     int // until a transaction that nobody commits is abandoned; 0: never
	PrepareTicks  int // until a transaction without all votes is aborted
	ResendTicks   int // until what was not answered is sent again
	InquireTicks  int // until a participant in doubt asks
	PeerTicks     int // until it asks the other participants
	TakeOverTicks int // until it proposes to abort; 0: never

	MaxTransactions int // coordinated here at a time
	MaxBranches     int // of resources of this node at a time
	MaxParticipants int // of a transaction
	MaxFinished     int // branches that are over and remembered
}

// key names a branch on its node.
type key struct {
	id       ID
	resource string
}

func (k key) compare(other key) int {
	return cmp.Or(k.id.Compare(other.id), strings.Compare(k.resource, other.resource))
}

// origin is a coordinator in one incarnation.
type origin struct{ node, incarnation uint64 }

func originOf(id ID) origin { return origin{id.Node, id.Incarnation} }

func (o origin) compare(other origin) int {
	return cmp.Or(cmp.Compare(o.node, other.node), cmp.Compare(o.incarnation, other.incarnation))
}

// withoutWork returns copies of branches.
func withoutWork(branches []Branch) []Branch {
	list := slices.Clone(branches)
	for i := range list {
		list[i].Work = nil
	}
	return list
}
