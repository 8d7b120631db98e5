package raft

import (
	"context"
	"iter"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
)

// Errors of a node and of its groups, to be tested with errors.Is.
var (
	// ErrForeignStore says that the store holds the data of another node, of
	// another cluster, or of another engine.
	ErrForeignStore = replica.ErrForeignStore

	// ErrBootstrapped says that the group exists in this store already.
	ErrBootstrapped = replica.ErrBootstrapped

	// ErrNotBootstrapped says that this store does not know the group. If it should,
	// the node has lost its data and must not be bootstrapped again.
	ErrNotBootstrapped = replica.ErrNotBootstrapped

	// ErrRunning says that the group runs on this node already.
	ErrRunning = replica.ErrRunning

	// ErrTransfer says that the leadership was not handed over.
	ErrTransfer = replica.ErrTransfer

	// ErrIncarnation is the reason of an event: a node's disk was wiped or replaced,
	// or two nodes run under one ID.
	ErrIncarnation = replica.ErrIncarnation

	// ErrStray is the reason of an event: a message of another cluster, or for
	// another node.
	ErrStray = replica.ErrStray
)

// Node hosts groups on one transport and one store. Its methods may be called
// concurrently.
type Node struct{ n *replica.Node }

// Start opens a node's records and begins to serve. In an empty store it gives the
// node an identity, durably; that makes it a member of nothing yet. A store of
// another node is refused with ErrForeignStore, a bad configuration with a
// *synod.ConfigError, unreadable records with an error that matches
// storage.ErrCorrupt.
//
// The context does not bound the node's life.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	n, err := replica.Start(ctx, cfg.runtime())
	if err != nil {
		return nil, err
	}
	return &Node{n}, nil
}

// Bootstrap creates a group in this node's store, with the given nodes as its
// first voting members, durably. It must be called once on each of them, with the
// same members, and never again: not after the data were lost, and not to join a
// group that exists. It returns an error that matches ErrBootstrapped if the group
// is there already, which is harmless.
func (n *Node) Bootstrap(ctx context.Context, group uint64, members []uint64) error {
	return n.n.Bootstrap(ctx, group, members)
}

// StartGroup opens a group that Bootstrap has created, restores its state machine
// from the newest snapshot if there is one, and takes part. It blocks while it
// reads. Entries that were applied before are applied again as soon as the group
// has a leader: use Barrier to wait for them.
func (n *Node) StartGroup(ctx context.Context, cfg GroupConfig) (*Group, error) {
	g, err := n.n.StartGroup(ctx, replica.GroupConfig{
		ID:              cfg.ID,
		StateMachine:    cfg.StateMachine,
		SnapshotEntries: cfg.SnapshotEntries,
		SnapshotBytes:   cfg.SnapshotBytes,
		RetainEntries:   cfg.RetainEntries,
		RetainBytes:     cfg.RetainBytes,
		MaxSessions:     cfg.MaxSessions,
		MaxSessionBytes: cfg.MaxSessionBytes,
	})
	if err != nil {
		return nil, err
	}
	return &Group{g}, nil
}

// Status describes the node and its running groups.
func (n *Node) Status() synod.NodeStatus { return n.n.Status() }

// Events yields what happens on the node from this call on, until ctx is done or
// the node is closed. It must be ranged over, once; a reader that falls behind by
// more than 1,024 events loses some and is told so by an EventMissed.
func (n *Node) Events(ctx context.Context) iter.Seq[synod.Event] { return n.n.Events(ctx) }

// Close stops all groups and waits for what is under way, calls of Bootstrap and
// StartGroup too; then it is safe to close the transport and the store. Callers that still wait get an error: synod.ErrClosed
// where the command was not taken up, synod.ErrUnknownOutcome where it was. Calls
// after the first return nil.
func (n *Node) Close() error { return n.n.Close() }

// Group is this node's replica of a group.
type Group struct{ g *replica.Group }

var _ synod.SessionLog = (*Group)(nil)

// ID returns the group's ID.
func (g *Group) ID() uint64 { return g.g.ID() }

// Propose appends a command to the group's log and returns the state machine's
// answer, as synod.Log says. Only the leader takes proposals: elsewhere the error
// is a *synod.NotLeaderError that names it. synod.ErrOverloaded asks to come back
// later. A proposal that loses its leader is certainly not executed, or unknown, as
// the error says.
func (g *Group) Propose(ctx context.Context, command []byte) (result []byte, err error) {
	return g.g.Propose(ctx, command)
}

// OpenSession makes a session, as synod.SessionLog says, on the leader.
func (g *Group) OpenSession(ctx context.Context, ttl time.Duration) (session uint64, err error) {
	return g.g.OpenSession(ctx, ttl)
}

// CloseSession removes a session, as synod.SessionLog says, on the leader.
func (g *Group) CloseSession(ctx context.Context, session uint64) error {
	return g.g.CloseSession(ctx, session)
}

// ProposeOnce appends a command of a session to the group's log, on the leader: one
// that may have been appended before, and is applied once, as synod.SessionLog says.
// [Session] makes the requests.
func (g *Group) ProposeOnce(ctx context.Context, request synod.Request, command []byte) (result []byte, err error) {
	return g.g.ProposeOnce(ctx, request, command)
}

// Session numbers the commands of one session for callers that run concurrently, and
// sends each again until it has an answer.
type Session = replica.Session

// NewSession returns a Session of an ID that OpenSession gave, on any node. next is the
// first number that was not used in the session; 0 is 1, for one that is new.
func NewSession(id, next uint64) *Session { return replica.NewSession(id, next) }

// Barrier makes a read of the local state machine linearizable, as synod.Log says,
// on leader and followers, by Raft's read index (Ongaro's thesis, section 6.4): a
// majority confirms the leader, and nothing is written. Everyone who waits at one
// moment shares one confirmation. While there is no leader it waits, up to ctx.
func (g *Group) Barrier(ctx context.Context) error { return g.g.Barrier(ctx) }

// TransferLeader hands the leadership to another voting member and waits until it
// leads; meanwhile proposals are refused. An error that matches ErrTransfer says
// that this did not happen, within two election timeouts; a *synod.NotLeaderError,
// that this node is not the one to ask.
func (g *Group) TransferLeader(ctx context.Context, to uint64) error {
	return g.g.TransferLeader(ctx, to)
}

// Status describes the group as this node sees it.
func (g *Group) Status() synod.GroupStatus { return g.g.Status() }

// Err returns nil while the group runs; a *synod.FailedError if it has stopped by
// itself, with the cause; an error that matches synod.ErrClosed after Close.
func (g *Group) Err() error { return g.g.Err() }

// Close stops this replica and leaves its data as they are: StartGroup opens it
// again, with a fresh state machine. The rest of the group goes on without it.
// When Close returns, the state machine is not used any more, and the group's records
// are written; while the store has no space Close does not wait for them, and
// StartGroup says ErrRunning until there is room.
func (g *Group) Close() error { return g.g.Close() }
