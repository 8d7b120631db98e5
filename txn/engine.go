package txn

import (
	"fmt"

	"github.com/synod-go/synod/internal/threephase"
	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/storage"
)

// Protocol is how a manager's nodes agree on outcomes.
type Protocol uint8

// The protocols. All managers of a cluster run the same one; see the package comment for which one when.
const (
	// TwoPhase is two-phase commit: the coordinator's decision log decides. While the coordinator, or its log, is away, participants
	// that have voted yes may have to wait for it.
	TwoPhase Protocol = iota

	// EnhancedThreePhase is E3PC, of Keidar and Dolev: the participants keep the decision among themselves, and any majority of them
	// that reach each other ends a transaction, whatever has failed before. It never splits. It costs one round and one
	// forced write of each participant more than TwoPhase.
	EnhancedThreePhase

	// SkeenThreePhase is the nonblocking commit of Skeen: whoever is left decides, also if it is only one.
	//
	// Warning: it is safe only if nodes do nothing but crash, and a node that does not answer has crashed. If messages are
	// lost, a node is slow, or the network is cut in two, transactions are split: some participants commit and others
	// abort. That is reported as damage, in Status, if those ever hear of each other. It is here to be compared with; use
	// EnhancedThreePhase.
	SkeenThreePhase
)

// String returns the protocol's name.
func (p Protocol) String() string {
	if names := [...]string{"two-phase commit", "enhanced three-phase commit", "Skeen's three-phase commit"}; int(p) < len(names) {
		return names[p]
	}
	return fmt.Sprintf("protocol %d", p)
}

// prefix is where the protocol's records are in the store.
func (p Protocol) prefix() string { return [...]string{prefixCore, "3", "s"}[p] }

// outgoing is a message that was encoded.
type outgoing struct {
	to   uint64
	body []byte
}

// work is what a core wants done.
type work struct {
	messages []outgoing
	batch    *storage.Batch
	token    uint64
	calls    []twophase.Call
	decide   []twophase.Decision
	results  []twophase.Result
	damages  []twophase.Report
	over     []twophase.Progress
}

// doubt is a branch that is in doubt.
type doubt struct {
	twophase.Doubt
	state   string
	missing []twophase.Branch
}

// engine is a core: that of a protocol. Its methods belong to the loop, but for open.
type engine interface {
	open(from, to uint64, bodies [][]byte) (step func(), err error) // decodes messages; any goroutine may call it
	take() (w work, some bool)
	doubts() []doubt
	unfinished() []twophase.Waiting
	commit(id twophase.ID, branches []twophase.Branch) error
	abandon(id twophase.ID, branches []twophase.Branch)

	SetNow(now int64)
	Err() error
	Open(id twophase.ID) error
	Orphan(id twophase.ID, resource string)
	Tick()
	Busy() bool
	Persisted(token uint64)
	Voted(id twophase.ID, resource string, v twophase.Vote, reason string)
	Done(id twophase.ID, resource string, heuristic twophase.Outcome, failure string)
	DoneOne(id twophase.ID, resource string, outcome twophase.Outcome, reason string)
	Decided(id twophase.ID, v twophase.Verdict)
	Transactions() []twophase.Waiting
	Stuck() []twophase.Stuck
	Damages() []twophase.Report
	ClearDamage(id twophase.ID) bool
	Force(id twophase.ID, resource string, outcome twophase.Outcome) error
	Settle(id twophase.ID, outcome twophase.Outcome) error
}

type twoPhase struct{ *twophase.Core }

var _ engine = twoPhase{}

func (c twoPhase) open(from, to uint64, bodies [][]byte) (func(), error) {
	list := make([]twophase.Message, len(bodies))
	for i, b := range bodies {
		m, err := twophase.DecodeMessage(b)
		if err != nil {
			return nil, err
		}
		m.From, m.To = from, to
		list[i] = m
	}
	return func() {
		for _, m := range list {
			c.Step(m)
		}
	}, nil
}

func (c twoPhase) take() (work, bool) {
	r := c.Ready()
	w := work{batch: r.Batch, token: r.Token, calls: r.Calls, decide: r.Decide, results: r.Results, damages: r.Damages, over: r.Over}
	for _, m := range r.Messages {
		w.messages = append(w.messages, outgoing{m.To, twophase.AppendMessage(nil, m)})
	}
	return w, !r.Empty()
}

func (c twoPhase) commit(id twophase.ID, branches []twophase.Branch) error {
	return c.Commit(id, branches)
}

func (c twoPhase) abandon(id twophase.ID, branches []twophase.Branch) { c.Abandon(id, branches) }

func (c twoPhase) doubts() (list []doubt) {
	for _, d := range c.InDoubt() {
		list = append(list, doubt{Doubt: d, state: "prepared"})
	}
	return list
}

func (twoPhase) unfinished() []twophase.Waiting { return nil }

type threePhase struct{ *threephase.Core }

var _ engine = threePhase{}

func (c threePhase) open(from, to uint64, bodies [][]byte) (func(), error) {
	list := make([]threephase.Message, len(bodies))
	for i, b := range bodies {
		m, err := threephase.DecodeMessage(b)
		if err != nil {
			return nil, err
		}
		m.From, m.To = from, to
		list[i] = m
	}
	return func() {
		for _, m := range list {
			c.Step(m)
		}
	}, nil
}

func (c threePhase) take() (work, bool) {
	r := c.Ready()
	w := work{batch: r.Batch, token: r.Token, calls: r.Calls, results: r.Results, damages: r.Damages}
	for _, m := range r.Messages {
		w.messages = append(w.messages, outgoing{m.To, threephase.AppendMessage(nil, m)})
	}
	return w, !r.Empty()
}

func sites(branches []twophase.Branch) []threephase.Participant {
	list := make([]threephase.Participant, len(branches))
	for i, b := range branches {
		list[i].Branch = b
	}
	return list
}

func (c threePhase) commit(id twophase.ID, branches []twophase.Branch) error {
	return c.Commit(id, sites(branches))
}

func (c threePhase) abandon(id twophase.ID, branches []twophase.Branch) {
	c.Abandon(id, sites(branches))
}

func (c threePhase) doubts() (list []doubt) {
	for _, d := range c.InDoubt() {
		list = append(list, doubt{
			Doubt:   twophase.Doubt{ID: d.ID, Resource: d.Resource, Since: d.Since, Heard: d.Heard, Answer: d.Answer, Peers: d.Peers},
			state:   d.State.String(),
			missing: d.Missing,
		})
	}
	return list
}

func (c threePhase) unfinished() []twophase.Waiting { return c.Unfinished() }

// DoneOne implements engine: nothing is committed in one phase.
func (threePhase) DoneOne(twophase.ID, string, twophase.Outcome, string) {}

// Decided implements engine: there is no decision log.
func (threePhase) Decided(twophase.ID, twophase.Verdict) {}

// Force implements engine.
func (threePhase) Force(id twophase.ID, resource string, _ twophase.Outcome) error {
	return fmt.Errorf("%w: resource %q, transaction %v: in three phases participants decide, not operators: bring a majority of them back", twophase.ErrNotInDoubt, resource, id)
}

// Settle implements engine: there are no last agents.
func (threePhase) Settle(id twophase.ID, _ twophase.Outcome) error {
	return fmt.Errorf("%w: transaction %v: there are no last agents in three phases", twophase.ErrNotInDoubt, id)
}
