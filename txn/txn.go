package txn

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/synod-go/synod/internal/twophase"
)

// ID names a transaction. It never recurs, on any node, whatever crashes or is lost: Incarnation is drawn at random when
// the store of the coordinator's node is first used, and counters are reserved there, durably, before they are given.
type ID struct {
	Node        uint64 // the coordinator's
	Incarnation uint64 // of its store
	Counter     uint64 // from 1 on; ascending, with gaps
}

// String returns the ID in a form that ParseID reads: node, incarnation in hexadecimal, counter. It has at most 58
// bytes, digits and letters and dots: short enough for a foreign resource's names of transactions.
func (id ID) String() string { return twophase.ID(id).String() }

// Compare orders IDs: by node, incarnation, and counter. It is 0 if both are the same.
func (id ID) Compare(other ID) int { return twophase.ID(id).Compare(twophase.ID(other)) }

// ParseID reads what ID.String returns, in its one form. The error wraps ErrInvalid.
func ParseID(s string) (ID, error) {
	parts := strings.Split(s, ".")
	if len(parts) == 3 {
		node, err1 := strconv.ParseUint(parts[0], 10, 64)
		incarnation, err2 := strconv.ParseUint(parts[1], 16, 64)
		counter, err3 := strconv.ParseUint(parts[2], 10, 64)
		id := ID{node, incarnation, counter}
		if errors.Join(err1, err2, err3) == nil && id.String() == s {
			return id, nil
		}
	}
	return ID{}, fmt.Errorf("%w: %q is no transaction ID: it is NODE.INCARNATION.COUNTER", ErrInvalid, s)
}

// Vote is a participant's answer to the request to prepare.
type Vote uint8

// The votes.
const (
	// Yes promises that the resource can commit and can abort from now on, whatever happens to it.
	Yes = Vote(twophase.VoteYes)
	// ReadOnly says that there is nothing to commit: the resource is not asked again, unless
	// PrepareRequest.MayLeave is false.
	ReadOnly = Vote(twophase.VoteReadOnly)
	// No says that the resource has aborted.
	No = Vote(twophase.VoteNo)
)

// String returns the vote's name.
func (v Vote) String() string { return twophase.Vote(v).String() }

// Outcome is how a transaction ended, as far as one knows.
type Outcome uint8

// The outcomes.
const (
	Unknown   = Outcome(twophase.OutcomeUnknown)
	Committed = Outcome(twophase.OutcomeCommitted)
	Aborted   = Outcome(twophase.OutcomeAborted)
)

// String returns the outcome's name.
func (o Outcome) String() string { return twophase.Outcome(o).String() }

// Participant is a resource that takes part in a transaction.
type Participant struct {
	// Node is the node that has it, and Resource its name there, 1 to 255 bytes.
	Node     uint64
	Resource string

	// LastAgent says that the resource cannot prepare: it is a OnePhaseCommitter, and its Prepare is not
	// called. It is asked when all others are prepared, and what it does is the decision. At most one
	// participant may be one. See the package comment for its window.
	LastAgent bool

	// Work is handed to the resource with the request to prepare: what it is to do, where it does not know that
	// already. nil: it does. It must not be changed until Commit has returned. Where any of several
	// participants has work, those that vote ReadOnly stay until the outcome is known, so that all locks
	// are taken before the first is released.
	Work []byte
}

// Resource is what can take part in transactions: a store, a database, a queue. All methods may be called concurrently
// for different transactions; for one transaction they are called one after the other. ctx ends when
// the manager is closed: what was called then is called again, or asked about, after the next Start.
//
// A panic of Prepare is a no; one of Commit or Abort is an error.
//
// Package txn/txntest has a suite that an implementation must pass; txn/files and txn/postgres are two of them.
type Resource interface {
	// Prepare makes it possible to commit and to abort the transaction, and votes. Before it returns Yes
	// everything that Commit needs must be durable, and InDoubt must list the transaction from then
	// on. After ReadOnly or No it holds nothing of the transaction any more: but for ReadOnly where request.MayLeave is
	// false, where it keeps its read locks until Commit or Abort is called. An error is a No, and its reason. If it
	// was not told of the transaction before, or has lost what it was told, it must not vote Yes.
	Prepare(ctx context.Context, request PrepareRequest) (Vote, error)

	// Commit commits a prepared transaction, durably. It is called again until it returns nil, or a
	// *HeuristicError, also for a transaction that it has committed long ago: that is no error.
	Commit(ctx context.Context, id ID) error

	// Abort takes back all that the resource did for a transaction, prepared or not. It is called
	// again until it returns nil or a *HeuristicError, and for transactions that the resource knows nothing of: that is
	// no error.
	Abort(ctx context.Context, id ID) error

	// InDoubt returns the transactions that are prepared and neither committed nor aborted, of this
	// node's manager alone. It is called once, by Start.
	InDoubt(ctx context.Context) ([]ID, error)
}

// PrepareRequest is what Resource.Prepare is asked.
type PrepareRequest struct {
	ID       ID
	Work     []byte // Participant.Work; must be neither changed nor retained
	MayLeave bool   // whether a read-only participant may release its locks at once: nobody takes any more
}

// OnePhaseCommitter is an optional power of a [Resource]: it can commit a transaction without preparing it. It is used
// where the resource is the only participant, and saves a write; a participant that is a LastAgent must have it.
type OnePhaseCommitter interface {
	Resource

	// CommitOnePhase commits the transaction, durably, and returns Committed; or does nothing, and returns Aborted, and an
	// error that says why. It is called once for a transaction. If it returns Unknown, Outcome is called.
	CommitOnePhase(ctx context.Context, id ID, work []byte) (Outcome, error)

	// Outcome says what became of a transaction that CommitOnePhase was called for, in this run of the process or an earlier
	// one: Committed; Aborted if it was not committed, and never will be; Unknown, with an error, if it cannot
	// tell, or not yet: it is called again. It must be able to tell until nobody asks any more. For a
	// single participant that is until CommitOnePhase returned and a tick has passed; a marker that is written with
	// what the transaction changes, and kept for a day, is plenty.
	Outcome(ctx context.Context, id ID) (Outcome, error)
}

// HeuristicForgetter is an optional power of a [Resource] that may decide by itself, and say so by a *HeuristicError.
type HeuristicForgetter interface {
	Resource

	// ForgetHeuristic says that the manager has recorded what the resource decided: it need not be remembered.
	// It may be called again, and for what is forgotten.
	ForgetHeuristic(ctx context.Context, id ID) error
}

// HeuristicError is what Commit and Abort return where the resource has decided before, by itself or since somebody
// made it. If it is the contrary of what is asked, that is recorded as damage; it ends the transaction for the
// resource in any case.
type HeuristicError struct {
	Outcome Outcome // what it has done: Committed or Aborted
}

// Error implements error.
func (e *HeuristicError) Error() string {
	return fmt.Sprintf("txn: the resource has decided by itself before: %v", e.Outcome)
}

// Errors, to be tested with errors.Is. Unless one of them says so, or synod.ErrUnknownOutcome is wrapped, a transaction is
// as it was before the call.
var (
	// ErrAborted says that the transaction was aborted, everywhere. The error is an *AbortError, which says why.
	ErrAborted = errors.New("txn: transaction aborted")

	// ErrInvalid says that an argument is out of bounds, or that the transaction is not open.
	ErrInvalid = errors.New("txn: invalid request")

	// ErrForgotten says that a transaction is over, and that its decision is not kept any more: whoever voted yes has
	// acknowledged a commit, or it was aborted. Nothing is proposed for it any more.
	ErrForgotten = errors.New("txn: the transaction is over, and its decision forgotten")

	// ErrRolledBack says that a store is an old copy: others know of transactions that it has not begun. The manager
	// stops, as it has forgotten what was decided. Bring the newest copy back; or, if there is none, give
	// the node a new ID and an empty store, and see to what is in doubt because of it.
	ErrRolledBack = errors.New("txn: the store is an old copy")

	// ErrStoreLost says that a resource has prepared transactions and the manager's store is new: it has lost what it
	// promised. Bring the store back; or resolve the resource's transactions by hand, if it is gone.
	ErrStoreLost = errors.New("txn: the store was lost")

	// ErrForeignStore says that the store belongs to another node, or another cluster.
	ErrForeignStore = errors.New("txn: the store belongs to another node")

	// ErrNotInDoubt says that there is nothing for an operator to decide.
	ErrNotInDoubt = errors.New("txn: not in doubt")

	// ErrSuperseded says that a later run of this node uses the same decision log: this one stops.
	ErrSuperseded = errors.New("txn: a later run of this node has taken over")
)

// AbortError says why a transaction was aborted. Retrieve it with errors.As; it matches ErrAborted.
type AbortError struct {
	ID     ID
	Node   uint64 // the node that wanted it; 0: the coordinator's
	Reason string // in words, for people
}

// Error implements error.
func (e *AbortError) Error() string {
	if e.Node == 0 {
		return fmt.Sprintf("txn: transaction %v aborted: %s", e.ID, e.Reason)
	}
	return fmt.Sprintf("txn: transaction %v aborted by node %d: %s", e.ID, e.Node, e.Reason)
}

// Is makes the error match ErrAborted.
func (e *AbortError) Is(target error) bool { return target == ErrAborted }
