package txn

import (
	"context"

	"github.com/synod-go/synod/internal/twophase"
)

// Decision is what is written into the register of a transaction, once.
type Decision struct {
	ID      ID
	Outcome Outcome // Committed or Aborted

	// Participants are those who have to acknowledge a commit before it may be forgotten. Only Node and Resource are
	// kept of them. At most 1,024.
	Participants []Participant
}

// Progress says which transactions of one incarnation of a coordinator are over: all whose counter is below
// Upcoming, but for those in Open.
type Progress struct {
	Node        uint64
	Incarnation uint64
	Upcoming    uint64
	Open        []uint64 // ascending; at most 1,048,576
}

// Over reports whether a transaction of this incarnation is over.
func (p Progress) Over(counter uint64) bool {
	q := twophase.Progress(p)
	return q.Over(counter)
}

// DecisionLog is a register for each transaction, which is written once: whoever proposes learns which proposal won. So a
// coordinator that is slow cannot commit what somebody who waited for it has aborted, and both know. All methods may be called
// concurrently.
//
// Package txn/txntest has a suite that an implementation must pass.
type DecisionLog interface {
	// Decide proposes a decision, and returns the one that stands in the register: this one, if it was the
	// first. It is durable when Decide returns. The same proposal may be made again, and is answered as
	// before. The error wraps ErrForgotten if the transaction is over and its register gone; after any other
	// error the proposal may or may not have won, or may yet: propose again, or propose the contrary, to know. The
	// log keeps nothing of proposal, and what it returns belongs to the caller.
	Decide(ctx context.Context, proposal Decision) (winner Decision, err error)

	// Recover is what a coordinator calls first when it starts, with a progress that says which transactions it began
	// in earlier runs: those in progress.Open are still to be decided, all others below progress.Upcoming never
	// will be: a proposal for one, though it was made long ago and is still on its way, has ErrForgotten. But what is decided
	// stays. All transactions of other incarnations of the node are treated alike, with no exceptions: its store
	// is new, and nobody will decide them. It returns the decisions that stay, of all incarnations, ascending by ID.
	// Each call has a higher progress.Upcoming than all before, those that failed included: if the log knows the same
	// or a higher one the error wraps ErrRolledBack.
	Recover(ctx context.Context, progress Progress) ([]Decision, error)

	// Forget removes the decisions of transactions that are over: a commit after each participant has acknowledged
	// it. From then on Decide has ErrForgotten for them. It is durable when Forget returns. What was over stays so, whatever
	// an older Progress says that arrives late.
	Forget(ctx context.Context, progress Progress) error
}
