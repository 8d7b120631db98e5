//synod:core

package threephase

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/twophase"
)

// What both protocols have in common.
type (
	// ID names a transaction.
	ID = twophase.ID
	// Vote is what a participant says of a transaction.
	Vote = twophase.Vote
	// Outcome is how a transaction ended.
	Outcome = twophase.Outcome
	// Call is something that a resource is asked to do.
	Call = twophase.Call
	// Result is what whoever asked for a commit is told.
	Result = twophase.Result
	// Damage says what is wrong with a participant of a transaction that was decided.
	Damage = twophase.Damage
	// Report is a damage, whose it is, and what was decided.
	Report = twophase.Report
	// Knowledge is what an answer says of a transaction beside its outcome.
	Knowledge = twophase.Knowledge
)

const (
	unknown   = twophase.OutcomeUnknown
	committed = twophase.OutcomeCommitted
	aborted   = twophase.OutcomeAborted
)

// Protocol is how transactions are terminated when their coordinator is not heard any more.
type Protocol uint8

// The protocols.
const (
	// Enhanced is E3PC, of Keidar and Dolev: quorums decide. It never splits.
	Enhanced Protocol = iota
	// Skeen is the nonblocking commit of Skeen: whoever is left decides, and takes the others for crashed. It splits
	// where they are not.
	Skeen
)

// String returns the protocol's name.
func (p Protocol) String() string { return name(int(p), "enhanced", "skeen") }

func name(i int, names ...string) string {
	if i < 0 || i >= len(names) {
		return "unknown"
	}
	return names[i]
}

// Participant is the part of a transaction that one resource of one node has. It is a site of the papers.
type Participant struct {
	twophase.Branch
	Weight uint32 // of its voice in a quorum; 0: 1
}

func (p *Participant) weight() uint64 { return max(1, uint64(p.Weight)) }

// quorum reports whether some participants have more than half of all weights.
func quorum(all []Participant, in func(i int) bool) bool {
	var some, sum uint64
	for i := range all {
		sum += all[i].weight()
		if in(i) {
			some += all[i].weight()
		}
	}
	if probe.Bug("3pc: half of all is a quorum") {
		return 2*some >= sum
	}
	return 2*some > sum
}

// Ballot names an election, and the attempt to commit or to abort that follows it. The coordinator's own attempt
// to commit is base, without an election.
type Ballot struct {
	Number uint64 // from 1 on; 0: none
	Rank   uint32 // who was elected: 0 the coordinator, i the i-th participant
}

var base = Ballot{Number: 1}

// Compare orders ballots.
func (b Ballot) Compare(o Ballot) int {
	return cmp.Or(cmp.Compare(b.Number, o.Number), cmp.Compare(b.Rank, o.Rank))
}

func (b Ballot) less(o Ballot) bool { return b.Compare(o) < 0 }

// String returns number and rank.
func (b Ballot) String() string { return fmt.Sprintf("%d.%d", b.Number, b.Rank) }

// State is how far a participant is.
type State uint8

// The states.
const (
	StateInitial      State = iota // it has not voted; with a record: and never will
	StateWait                      // it has voted yes, or read-only
	StatePreCommitted              // it takes part in an attempt to commit
	StatePreAborted                // it takes part in an attempt to abort
	StateCommitted
	StateAborted
)

// String returns the state's name.
func (s State) String() string {
	return name(int(s), "initial", "wait", "pre-committed", "pre-aborted", "committed", "aborted")
}

// final reports whether the state is an outcome, and which.
func (s State) final() Outcome {
	switch s {
	case StateCommitted:
		return committed
	case StateAborted:
		return aborted
	}
	return unknown
}

func stateOf(o Outcome) State {
	if o == committed {
		return StateCommitted
	}
	return StateAborted
}

// Kind is the kind of a message.
type Kind uint8

// The kinds of messages. C is the coordinator, P a participant, L whoever leads an attempt: the coordinator, or a
// participant that was elected.
const (
	KindPrepare   Kind = iota + 1 // C to P
	KindVote                      // P to C
	KindElect                     // L to P: say how far you are, and take part in nothing older
	KindState                     // P to L
	KindPreCommit                 // L to P
	KindPreAbort                  // L to P
	KindAck                       // P to L: it takes part in the attempt
	KindOutcome                   // L to P
	KindDone                      // P to L: it has done so
	KindOver                      // L to P: all have
	KindInquire                   // P to C
	KindAnswer                    // C to P
)

// String returns the kind's name.
func (k Kind) String() string {
	return name(int(k), "unknown", "prepare", "vote", "elect", "state", "pre-commit", "pre-abort", "ack", "outcome", "done", "over", "inquire", "answer")
}

// Message is a message between two nodes.
type Message struct {
	Kind     Kind
	From, To uint64
	ID       ID
	Resource string // that of the participant that the message is from or for

	Floor        uint64 // from the coordinator: it asks nobody to prepare what is below, any more
	Ballot       Ballot // which election, or attempt, this is about; of an outcome, a done and an over: Rank alone, of L
	Vote         Vote
	Outcome      Outcome
	Early        bool // of an outcome: nobody was ever asked to pre-commit
	Knowledge    Knowledge
	State        State
	Elected      Ballot // of a state: the last election that the participant took part in
	Attempt      Ballot // and the last attempt
	Recovered    bool   // and whether it has crashed since it voted
	Damage       Damage // of a done
	Participants []Participant
	Work         []byte // of a prepare
	MayLeave     bool   // of a prepare: read-only participants need not keep their locks
	Reason       string // of a no
}

// String returns the message as scripts have it.
func (m Message) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s", m.Kind, short(m.ID))
	if m.Resource != "" {
		fmt.Fprintf(&s, " %s", m.Resource)
	}
	switch m.Kind {
	case KindElect, KindPreCommit, KindPreAbort, KindAck:
		fmt.Fprintf(&s, " ballot=%v", m.Ballot)
	case KindVote:
		fmt.Fprintf(&s, " %s", m.Vote)
	case KindState:
		fmt.Fprintf(&s, " ballot=%v %s", m.Ballot, m.State)
		if m.State.final() == unknown {
			fmt.Fprintf(&s, " elected=%v attempt=%v", m.Elected, m.Attempt)
		}
		if m.Recovered {
			s.WriteString(" recovered")
		}
	case KindOutcome, KindDone:
		fmt.Fprintf(&s, " %s", m.Outcome)
		if m.Early {
			s.WriteString(" early")
		}
	case KindAnswer:
		if m.Knowledge == twophase.Decided {
			fmt.Fprintf(&s, " %s", m.Outcome)
		} else {
			fmt.Fprintf(&s, " %s", m.Knowledge)
		}
	}
	if m.Damage != twophase.NoDamage {
		fmt.Fprintf(&s, " damage=%s", m.Damage)
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

func short(id ID) string { return fmt.Sprintf("%d.%d", id.Node, id.Counter) }

// Config says how a core works.
type Config struct {
	Protocol    Protocol // the same on all nodes
	Node        uint64
	Incarnation uint64
	Base        uint64   // the first counter of this run
	Resources   []string // of this node

	// In ticks.
	OpenTicks    int // until a transaction that nobody commits is abandoned; 0: never
	PrepareTicks int // until a transaction without all votes is aborted
	ResendTicks  int // until what was not answered is sent again; twice that long whoever is silent is taken for crashed, by Skeen's protocol
	InquireTicks int // until a participant in doubt asks the coordinator
	PeerTicks    int // until a participant that hears nobody stands for election; the i-th one waits i ResendTicks longer

	MaxTransactions int // coordinated here at a time
	MaxBranches     int // of resources of this node that are not over for all
	MaxParticipants int // of a transaction
	MaxFinished     int // branches that are over for all and remembered
}

// key names a branch on its node.
type key struct {
	id       ID
	resource string
}

func (k key) compare(o key) int {
	return cmp.Or(k.id.Compare(o.id), strings.Compare(k.resource, o.resource))
}

// origin is a coordinator in one incarnation.
type origin struct{ node, incarnation uint64 }

func originOf(id ID) origin { return origin{id.Node, id.Incarnation} }

func (o origin) compare(other origin) int {
	return cmp.Or(cmp.Compare(o.node, other.node), cmp.Compare(o.incarnation, other.incarnation))
}

// withoutWork returns copies of participants.
func withoutWork(list []Participant) []Participant {
	list = slices.Clone(list)
	for i := range list {
		list[i].Work = nil
	}
	return list
}

// find returns the rank of a participant; 0: it is none.
func find(list []Participant, node uint64, resource string) int {
	return 1 + slices.IndexFunc(list, func(p Participant) bool { return p.Node == node && p.Resource == resource })
}
