package synod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// StateMachine is what an application replicates. Every replica of a group
// holds one, and feeds it the same commands in the same order.
//
// Apply and Restore are never called concurrently with each other or with
// Snapshot. What Snapshot returns is used concurrently with later calls.
//
// A StateMachine may also be a [BatchApplier], a [DurableIndex], or both.
type StateMachine interface {
	// Apply executes a command and returns its result. index is its number in the
	// group's sequence of commands, from 1 on and without gaps, the same on every
	// replica.
	// It must be deterministic: state and result depend on the earlier state and
	// the command alone, never on time, randomness, map order or the node.
	//
	// command belongs to the caller: it must be neither changed nor retained.
	// result passes to the caller, and must not be changed afterwards; nil is a
	// result. A command
	// that is invalid for the application is answered by a result that says so:
	// there is no error, since every replica would have to fail alike. A panic
	// stops this replica of the group.
	Apply(index uint64, command []byte) (result []byte)

	// Snapshot captures the state as it is now. It is called between two
	// applies and should be cheap (a copy-on-write handle, a clone of the map's
	// top level, a store's checkpoint): the group applies nothing until it
	// returns. WriteTo of the returned value serializes the captured state and
	// runs concurrently with Apply; it must write the same bytes whenever it is
	// called. If the value is also an io.Closer, Close is called when it is no
	// longer needed, whether or not it was written.
	Snapshot() (io.WriterTo, error)

	// Restore replaces all state by what a snapshot's WriteTo wrote, on this node
	// or another. After an error the state machine is not used any more, and
	// this replica of the group stops.
	Restore(r io.Reader) error
}

// BatchApplier is an optional power of a [StateMachine]: it takes many commands
// at once, so that a state machine with a write of its own pays for one.
type BatchApplier interface {
	// ApplyBatch applies the commands in order, as Apply would one by one, and
	// sets Result of each. The slice and the commands belong to the caller and
	// must not be retained.
	ApplyBatch(entries []Entry)
}

// Entry is one command of a batch.
type Entry struct {
	Index   uint64 // as for Apply
	Command []byte // read only, not to be retained
	Result  []byte // set by ApplyBatch; passes to the caller
}

// DurableIndex is an optional power of a [StateMachine] that keeps its state on
// disk itself. The group then replays on start only what the state machine
// lacks, stores no snapshot of its own, and streams one straight from the state
// machine to a follower that needs it.
type DurableIndex interface {
	// DurableIndex returns the highest index such that the effects of it and of
	// everything below survive a crash now; 0 for an empty state. It must be
	// stored atomically with those effects, and travel inside the snapshot: when
	// Restore returns, the restored state and its index are durable. It may be
	// called concurrently with everything else.
	DurableIndex() (uint64, error)
}

// Log is one replicated log as its users see it; *raft.Group and *paxos.Group are. All
// methods may be called concurrently. A Log may also be a [SessionLog].
type Log interface {
	// Propose appends the command to the log and returns what the state machine
	// answered once a quorum holds it durably and this node has applied it. ctx
	// bounds the whole call. The command is copied before Propose returns. See
	// the package comment for the three outcomes.
	Propose(ctx context.Context, command []byte) (result []byte, err error)

	// Barrier waits until the local state machine has applied every command
	// whose Propose had returned, on any node, before Barrier was called. After
	// nil, a read of the local state machine is linearizable. ctx bounds the
	// whole call. An error promises nothing and has no effect.
	Barrier(ctx context.Context) error
}

// SessionLog is an optional power of a [Log]: commands that may be sent again, and
// are applied once; *raft.Group and *paxos.Group have it. A session is data that the log keeps, tied
// to no node and no connection: its ID may be handed from process to process. All
// methods may be called concurrently, and end as those of Log do.
type SessionLog interface {
	Log

	// OpenSession makes a session and returns its ID, which is drawn at random and
	// never 0. The session expires when nobody has used it for ttl, in a time that
	// the log keeps: it passes while leaders with sessions in use are up, not by
	// anyone's wall clock. 0: an hour. Too many open sessions are ErrOverloaded.
	// After an ErrUnknownOutcome a session may be there that nobody knows of, and that
	// will expire: open another one.
	OpenSession(ctx context.Context, ttl time.Duration) (session uint64, err error)

	// CloseSession removes a session and all that is kept of it. It is no error if
	// there is none.
	CloseSession(ctx context.Context, session uint64) error

	// ProposeOnce is Propose of a command that was maybe proposed before, through this
	// node or another, under the same Request.Session and Request.Sequence: it is
	// applied if it has not been, and the result is that of the first time. The
	// command must be the same, too: it is not compared. What an error says of this
	// attempt is what Propose's would; of the command as a whole:
	//
	//	ErrUnknownOutcome         send the Request again, here or elsewhere
	//	*NotLeaderError,          this attempt had no effect and never will, an earlier
	//	ErrOverloaded, …          one may: send it again
	//	ErrResultLost             it was applied, once, but its result is not kept any more
	//	ErrSessionExpired         this attempt had no effect, and no attempt will any more;
	//	                          an earlier one may have had it before the session ended
	//	ErrStaleRequest           the same, since a Floor above its Sequence was seen
	//
	// So a command whose first attempt is refused was not applied; one that had an
	// ErrUnknownOutcome before may have been.
	ProposeOnce(ctx context.Context, request Request, command []byte) (result []byte, err error)
}

// Request names one command of one session. See SessionLog.ProposeOnce.
type Request struct {
	// Session is the session's ID.
	Session uint64

	// Sequence is the command's number in the session, from 1 on. It is given once, and
	// to one command. Numbers may be skipped, and come in any order.
	Sequence uint64

	// Floor says that all commands below this number have been answered, or are given
	// up: what is kept of them may be forgotten. 0 is 1: none. It is at most
	// Sequence, and above Sequence-SessionWindow.
	Floor uint64
}

// SessionWindow is how many numbers of a session there may be from the lowest that has
// no answer up to the highest that is in use.
const SessionWindow = 1024

// Errors that engines return, to be tested with errors.Is. What is returned
// wraps them, and names the group and the cause.
var (
	// ErrUnknownOutcome says that a command may or may not have been, or may yet
	// be, applied. It is never returned for a command that certainly was not.
	ErrUnknownOutcome = errors.New("synod: outcome unknown")

	// ErrClosed says that the node or the group was closed before the request
	// was taken up.
	ErrClosed = errors.New("synod: closed")

	// ErrOverloaded says that a queue or a byte budget is full and the request
	// was refused. Retry later, with jitter.
	ErrOverloaded = errors.New("synod: overloaded")

	// ErrChanging says that a change of members was refused because another one is under
	// way. Wait for it, or take it back.
	ErrChanging = errors.New("synod: another change of members is under way")

	// ErrSuperseded says that a change of members was taken back by a later one.
	ErrSuperseded = errors.New("synod: the change of members was taken back")

	// ErrRemoved is the cause of a *FailedError: the node is not a member of the group any
	// more.
	ErrRemoved = errors.New("synod: not a member of the group any more")

	// ErrRolledBack is the cause of a *FailedError: other nodes remember a later state of
	// this node's store than it has. It is an old copy, and has forgotten what the node
	// promised.
	ErrRolledBack = errors.New("synod: the store is an old copy")

	// ErrTooLarge says that a command is over the configured limit.
	ErrTooLarge = errors.New("synod: command too large")

	// ErrSessionExpired says that there is no such session: it has expired, was closed,
	// or never was. The request had no effect and never will; an earlier attempt of the
	// same one may have had. Open another session.
	ErrSessionExpired = errors.New("synod: no such session")

	// ErrStaleRequest says that a request is below the floor of its session, which a
	// later one has raised. It had no effect and never will; an earlier attempt may
	// have had.
	ErrStaleRequest = errors.New("synod: request below its session's floor")

	// ErrResultLost says that a command was applied, once and by an earlier attempt, and
	// that its result is not known any more.
	ErrResultLost = errors.New("synod: applied before, result lost")

	// ErrInvalidRequest says that the arguments of a session's call are out of bounds.
	// Nothing was executed.
	ErrInvalidRequest = errors.New("synod: invalid request")
)

// NotLeaderError says that the request was certainly not executed because this
// node does not lead the group. Retrieve it with errors.As.
type NotLeaderError struct {
	Group  uint64
	Leader uint64 // the node that leads, as far as this one knows; 0: unknown
}

// Error implements error.
func (e *NotLeaderError) Error() string {
	if e.Leader == 0 {
		return fmt.Sprintf("synod: group %d: not leader, leader unknown: retry after an election", e.Group)
	}
	return fmt.Sprintf("synod: group %d: not leader: ask node %d", e.Group, e.Leader)
}

// FailedError says that this replica of a group has stopped for good after an
// error that it can't survive: a failed sync, a corrupt record, a state machine
// that panicked. Other groups of the node go on. Retrieve it with errors.As.
type FailedError struct {
	Group uint64
	Err   error // the cause
}

// Error implements error.
func (e *FailedError) Error() string {
	return fmt.Sprintf("synod: group %d stopped on this node: %v", e.Group, e.Err)
}

// Unwrap returns the cause.
func (e *FailedError) Unwrap() error { return e.Err }

// ConfigError says which field of which Config is wrong, and what to do about it.
type ConfigError struct {
	Package string // the package whose Config it is
	Field   string // the field's name
	Reason  string // what is wrong, and the remedy
}

// Error implements error.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("%s: Config.%s: %s", e.Package, e.Field, e.Reason)
}

// Member is a node of a group, as the group's configuration has it.
type Member struct {
	// Node is the node's ID, above 0.
	Node uint64

	// Address is where the other members reach it, in the terms of the transport: at most
	// 255 bytes. It may be empty where the transport knows by itself.
	Address string

	// Learner says that the member receives everything and can be read from, but does
	// not vote and can't lead.
	Learner bool

	// Incarnation is the one under which the node was admitted, see NodeStatus. 0 is any:
	// where a change of members is asked for, that which the node has now.
	Incarnation uint64
}

// GroupStatus is what one node knows of one of its groups at one moment.
type GroupStatus struct {
	Group    uint64
	Node     uint64   // the node that reports
	Leader   uint64   // 0: unknown
	Term     uint64   // the current term (Raft) or the round of the promised ballot (Paxos)
	First    uint64   // index of the oldest entry that the log still holds
	Last     uint64   // index of the newest entry, durable or not
	Commit   uint64   // every index up to this one is decided
	Applied  uint64   // every index up to this one has been applied here
	Commands uint64   // the number of commands that were applied: the last index that Apply saw
	Snapshot uint64   // index of the newest stored snapshot; 0: none
	Members  []uint64 // voting members, ascending
	Learners []uint64 // non-voting members, ascending

	// Configuration is all members, ascending. While voters are exchanged it names the old
	// ones and the new.
	Configuration []Member
	Target        []Member     // what a change under way leads to, ascending; nil: none is
	Peers         []PeerStatus // on the leader: one for each other member, ascending
	Pending       int          // proposals of this node without an outcome yet
	Sessions      int          // open sessions, as of Applied
	Err           error        // why the group stopped, or nil while it runs
}

// PeerStatus is what a leader knows of another member.
type PeerStatus struct {
	Node   uint64
	Match  uint64 // the highest index known to be durable there
	Active bool   // heard of within the last election timeout
	State  string // "probe", "replicate" or "snapshot"
}

// NodeStatus is what a node says of itself.
type NodeStatus struct {
	Node        uint64
	Cluster     string
	Incarnation uint64        // drawn at random when the node's store was first used
	Groups      []GroupStatus // ascending by group
}

// EventKind says what an [Event] reports.
type EventKind uint8

// The kinds of events.
const (
	EventLeaderChanged     EventKind = iota + 1 // Leader leads now in Term, or nobody does (0)
	EventSnapshotTaken                          // the state up to Index was stored
	EventSnapshotSent                           // Peer took a snapshot up to Index over
	EventSnapshotInstalled                      // the state was replaced by a snapshot up to Index
	EventLogCompacted                           // entries up to Index were removed from the log
	EventMembershipChanged                      // Members are the voters as of Index, Configuration all members
	EventPeerRefused                            // a message of Peer was refused: see Err
	EventGroupFailed                            // the group stopped: see Err
	EventMissed                                 // the reader was too slow and lost events: Index says how many
	EventRepaired                               // damaged entries from First to Index came from Peer again; First 0: a snapshot up to Index took their place, its own where Peer is the node
)

// String returns the kind's name.
func (k EventKind) String() string {
	names := [...]string{"unknown", "leader changed", "snapshot taken", "snapshot sent", "snapshot installed",
		"log compacted", "membership changed", "peer refused", "group failed", "missed", "repaired"}
	if int(k) >= len(names) {
		k = 0
	}
	return names[k]
}

// Event is something that happened on a node and that an operator or an
// application may want to know. Fields that a kind does not mention are zero.
type Event struct {
	Kind    EventKind
	Time    time.Time
	Group   uint64 // 0: the node as a whole
	Leader  uint64
	Term    uint64
	Index   uint64
	First   uint64
	Peer    uint64
	Members []uint64
	Err     error

	Configuration []Member
}

// Metrics receives figures, for a collector of the application's choice. Both
// methods are called from hot paths, concurrently: they must be cheap and must
// not block. Names are constants of the form "synod_raft_proposals_total";
// counters end in "_total", observed values name their unit.
type Metrics interface {
	// Add raises a counter.
	Add(name string, group uint64, delta int64)
	// Observe records one value of a distribution: nanoseconds, bytes or a count.
	Observe(name string, group uint64, value int64)
}
