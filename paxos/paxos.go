package paxos

import (
	"context"
	"io"
	"iter"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/multipaxos"
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

	// ErrMember says that other members count on this node's replica of the group, so
	// that it can't leave.
	ErrMember = replica.ErrMember

	// ErrRunning says that the group runs on this node already.
	ErrRunning = replica.ErrRunning

	// ErrTransfer says that the leadership was not handed over.
	ErrTransfer = replica.ErrTransfer

	// ErrIncarnation is the reason of an event: a node's disk was wiped or replaced,
	// or two nodes run under one ID.
	ErrIncarnation = replica.ErrIncarnation

	// ErrStray is the reason of an event: a message of another cluster, of another
	// engine, or for another node.
	ErrStray = replica.ErrStray

	// ErrQuorums is the reason of an event: another node has another Config.Quorums, and
	// is not listened to.
	ErrQuorums = multipaxos.ErrQuorums
)

// name is the package's, in errors.
const name = "paxos"

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
	if err := multipaxos.Quorums(cfg.Quorums).Check(name); err != nil {
		return nil, err
	}
	n, err := replica.Start(ctx, replica.Config{Protocol: cfg.protocol(), Package: name, Settings: cfg.settings()})
	if err != nil {
		return nil, err
	}
	return &Node{n}, nil
}

// Bootstrap creates a group in this node's store, with the given nodes as its
// first voting members, durably. It must be called once on each of them, with the
// same members, and never again: not after the data were lost, and not to join a
// group that exists. It returns an error that matches ErrBootstrapped if the group
// is there already, which is harmless, or if the node has left it; ErrForeignStore if
// another engine keeps it here.
func (n *Node) Bootstrap(ctx context.Context, group uint64, members []uint64) error {
	list := make([]synod.Member, 0, len(members))
	for _, node := range members {
		list = append(list, synod.Member{Node: node})
	}
	return n.n.Bootstrap(ctx, group, list)
}

// BootstrapMembers is Bootstrap with members whose addresses the group is to know, so
// that nodes that join later learn them: see Config.SetAddress.
func (n *Node) BootstrapMembers(ctx context.Context, group uint64, members []synod.Member) error {
	return n.n.Bootstrap(ctx, group, members)
}

// Join creates a replica of a group that exists elsewhere, and that this node is to become
// a member of, in the node's store, durably. After it, StartGroup runs the replica, which
// waits until the group's leader adds the node: see Group.SetMembers. The error matches
// ErrBootstrapped if there is a replica already, and ErrForeignStore if it is another engine's.
func (n *Node) Join(ctx context.Context, group uint64) error { return n.n.Join(ctx, group) }

// Import creates a group in this node's store with the state that Group.Export wrote, in
// another cluster or under another ID maybe, and the given nodes as its first voting members. Like
// Bootstrap it is called once on each of them, with the same members and the same stream. It
// reads r to the end of what Export wrote. When it returns nil, all of it is durable; after an error or a
// crash nothing of it counts, and it may be repeated. What can't be read gives an error that matches
// storage.ErrCorrupt; a group that is there already, or that the node has left, one that matches
// ErrBootstrapped, or ErrForeignStore if another engine keeps it here; members that can't be, a *synod.ConfigError.
func (n *Node) Import(ctx context.Context, group uint64, members []synod.Member, r io.Reader) error {
	return n.n.Import(ctx, group, members, r)
}

// Leave removes a replica's data from the node's store, durably, when the group has removed the
// node. The replica must not run: close it before. What it must not forget, should the node ever
// Join the group again, stays: some bytes.
//
// Errors: ErrMember, if the node is still a member, as far as it knows: it knows better once its
// replica has stopped with synod.ErrRemoved; the last member of all may go. ErrRunning; ErrNotBootstrapped.
// A replica whose records can't be read may leave whatever it was, and if the group still counts on it, and it
// joins again, it stops with ErrIncarnation as soon as it hears that: remove it, and add it again.
func (n *Node) Leave(ctx context.Context, group uint64) error { return n.n.Leave(ctx, group) }

// StartGroup opens a group that Bootstrap has created, restores its state machine
// from the newest snapshot if there is one, and takes part. It blocks while it
// reads. Entries that were applied before are applied again as soon as the group
// has a leader: use Barrier to wait for them. Damaged records of the log and of the snapshot come again
// from other members, for which it waits, until ctx is done at most; if nobody can help, the error matches
// storage.ErrCorrupt.
func (n *Node) StartGroup(ctx context.Context, cfg GroupConfig) (*Group, error) {
	g, err := n.n.StartGroup(ctx, replica.GroupConfig(cfg))
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
// on leader and followers: enough voters to decide a value confirm the leader, and nothing is
// written. Everyone who waits at one moment shares one confirmation. With
// Config.MaxClockDrift a leader that was confirmed a moment ago answers without asking: see the
// package's section on reads. Without a leader the members are asked what they have accepted, and if
// that can't be told to be decided it waits, up to ctx.
func (g *Group) Barrier(ctx context.Context) error { return g.g.Barrier(ctx) }

// TransferLeader hands the leadership to another voting member and waits until it
// leads; meanwhile proposals are refused. An error that matches ErrTransfer says
// that this did not happen, within two election timeouts; a *synod.NotLeaderError,
// that this node is not the one to ask.
func (g *Group) TransferLeader(ctx context.Context, to uint64) error {
	return g.g.TransferLeader(ctx, to)
}

// SetMembers makes the group's members the given ones, in any order, and waits until they
// are, up to ctx. Only the leader takes it: elsewhere the error is a *synod.NotLeaderError.
//
// New members become learners first, and voters once they have caught up; old and new voters
// decide together before the new ones do alone (joint consensus); a leader that is to go
// hands its office over. All of that is in the log: a change that was begun is
// completed by whoever leads then, whatever becomes of this call. Each new node must run, with
// the group joined and started (Join, StartGroup), and be reachable, under its Member.Address
// if there is one. A change that hangs because a new node does not catch up is taken back by
// a call with the members as they were.
//
// A member that lost its data, or whose disk was replaced by an old copy, comes back with an
// empty store: Join and StartGroup there, and SetMembers here, with the Member.Incarnation that the
// node's Status shows. It leaves the group, comes back as a learner, and votes again when it
// has caught up.
//
// Errors: *synod.ConfigError, if the list is no good (a group needs a voter); ErrIncarnation, if
// the ID of a new node was that of another one before, and Member.Incarnation does not say that this is meant;
// synod.ErrChanging, if another change is under way; synod.ErrSuperseded, if this one was
// taken back; synod.ErrUnknownOutcome, with the cause, if ctx is done, the group stopped, or a snapshot
// took the place of the log of a leader that was deposed, and the change may have been begun.
func (g *Group) SetMembers(ctx context.Context, members []synod.Member) error {
	return g.g.SetMembers(ctx, members)
}

// Export writes the group's state to w: what the state machine is on this node, as of one
// index, and the sessions; call Barrier before, for what is newest. The group goes on meanwhile, as while it
// takes a snapshot. The stream is checked by Import: it has its own checksums. After an error what
// was written is of no use. Export does not close w.
//
// It needs no majority, unless the state machine keeps its state itself and is ahead of the log that
// is replayed to it after a start: then Export waits until the log has got there, up to ctx. A replica
// that was joined, and has received nothing, gives ErrNotBootstrapped.
func (g *Group) Export(ctx context.Context, w io.Writer) error { return g.g.Export(ctx, w) }

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
