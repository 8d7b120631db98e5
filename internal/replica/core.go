package replica

import (
	"encoding/binary"
	"errors"
	"log/slog"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/storage"
)

// Core is one group's protocol: a deterministic step function over plain data.
// The runtime feeds it inputs (Propose, Step, Tick, Read, …) and acknowledgements
// (Persisted, Applied), and collects what is to be done with Ready. A core has no
// goroutine, lock, clock or log of its own, and is used by one task at a time.
//
// A core may panic on a state that its protocol excludes. The runtime turns that
// into the failure of the one group.
type Core interface {
	// Propose appends one value to the log, as leader. The core copies it. nil
	// means that it was taken up, not that it will be decided. ErrNotLeading and
	// ErrBudget say that it certainly was not.
	Propose(value []byte) error

	// Step takes in a message of a peer. The core may keep the bytes; they are part of
	// a frame of that many bytes, all of which is kept as long as any of it. An error
	// says that the message was malformed; it has had no effect then.
	Step(from uint64, message []byte, frame int) error

	// Tick says that one unit of time has passed.
	Tick()

	// Read asks for the index up to which a replica must have applied to answer
	// reads that arrived before this call. The answer comes in Output.Reads under
	// the same id, or never: then the runtime asks again under a new one, and an
	// answer to the old one is of no use any more. An id is never used twice.
	//
	// Where OpenOptions.Leases is set, an answer is a promise, too, if this node led when
	// it called Read, and has led since, in one term: a majority of the members heard
	// from it after that call, and none of them helps to elect another leader before
	// its own core has been given ElectionTicks ticks since then. It neither votes nor
	// stands for election, nor takes notice of a term in which nobody leads; and since a
	// restart may have made it forget whom it heard, it does none of this in its first
	// ElectionTicks ticks either; only a node that is the only voter may lead at once. The
	// one exception is what a Transfer of this leader brings about: see Output.HandedOver.
	Read(id ReadID)

	// Transfer asks the leader to hand its office to another member. It is
	// ignored elsewhere.
	Transfer(to uint64)

	// Reconfigure proposes an encoded [Configuration] that is to follow the one that is in
	// effect, as leader. It is one step away from that: two sets of voters begin to decide
	// together, or cease to; or the voters stay, and no more than one learner comes or goes.
	// nil means that it was taken up, not that it will be decided: the core may drop it
	// when another one is not applied yet, or when those who have to decide under it are not
	// heard. What is decided comes as an Entry, and is in effect when the core hands that out.
	// ErrNotLeading says that it was not taken up; any other error, that it can't be: neither
	// this configuration nor those on the way to its target, say for a protocol with quorums of
	// a given size.
	Reconfigure(config []byte) error

	// Check returns the error that Reconfigure will return, whoever leads, for a configuration that
	// can't be taken up. Its target may name incarnations that are not known yet, as 0.
	Check(config []byte) error

	// Trust says that the members that could be reached know of no later state of this
	// node than its store has. A core that was opened with OpenOptions.Held gives no vote
	// and stands for no election before.
	Trust()

	// Campaign starts an election at once.
	Campaign()

	// Unreachable says that messages to a peer were dropped.
	Unreachable(peer uint64)

	// SnapshotSent ends what Output.Snapshots began.
	SnapshotSent(peer uint64, ok bool)

	// SnapshotAvailable offers the newest snapshot for peers that are behind.
	SnapshotAvailable(meta SnapshotMeta)

	// Compact drops the log up to and including a position that has been
	// applied, and writes the records of that into batch.
	Compact(to Position, config []byte, batch *storage.Batch)

	// Ready moves all that is to be done into out and reports whether there was
	// anything.
	Ready(out *Output) bool

	// Persisted says that the records of every Output up to this token are
	// durable. Only now may the core send what promises them.
	Persisted(token uint64)

	// Applied says that the state machine has applied everything up to an index.
	Applied(index uint64)

	// Status describes the core's view. Fields that only the runtime knows are
	// left zero.
	Status() synod.GroupStatus
}

// Errors of Core.Propose: the value certainly was not taken up.
var (
	ErrNotLeading = errors.New("replica: not leading")
	ErrBudget     = errors.New("replica: too many undecided bytes")
)

// ReadID names one attempt of a linearizable read: which run of which node asks,
// and a number that it counts up.
type ReadID struct {
	Boot    uint64
	Attempt uint64
}

// Position is a place in the log: an index, the term of the entry there, and how
// many commands stand in the log up to and including it. Where two nodes may have begun
// terms of one number, as in Paxos, Leader and Priority say which one it is; elsewhere they are 0.
type Position struct {
	Index, Term, Commands uint64

	Leader   uint64
	Priority uint8
}

// appendPosition appends what Reader.position reads.
func appendPosition(b []byte, p Position) []byte {
	b = binary.AppendUvarint(b, p.Index)
	b = binary.AppendUvarint(b, p.Term)
	b = binary.AppendUvarint(b, p.Commands)
	b = binary.AppendUvarint(b, p.Leader)
	return append(b, p.Priority)
}

func (r *Reader) position() Position {
	return Position{Index: r.Uvarint(), Term: r.Uvarint(), Commands: r.Uvarint(), Leader: r.Uvarint(), Priority: r.Byte()}
}

// EntryKind says what an [Entry] holds.
type EntryKind uint8

// The kinds of entries.
const (
	EntryEmpty   EntryKind = iota // nothing: a leader's first entry, a filled gap
	EntryCommand                  // a value that was proposed: a batch of commands
	EntryConfig                   // a Configuration, encoded: Data is what is in effect from here on
)

// Entry is one decided entry of the log.
type Entry struct {
	Index uint64
	Term  uint64
	Kind  EntryKind
	Data  []byte // read only

	Leader   uint64 // as in Position
	Priority uint8

	// Fence says that no value that this node proposed in a term below Fence, and
	// that has not been decided at a lower index, will ever be. 0 says nothing.
	Fence uint64
}

// Position returns the entry's, if so many commands stand in the log up to and including it.
func (e *Entry) Position(commands uint64) Position {
	return Position{Index: e.Index, Term: e.Term, Commands: commands, Leader: e.Leader, Priority: e.Priority}
}

// Message goes to a peer. Its bytes are Head followed by Tail, MinMessage at least. Head is valid until
// the next call of Ready; Tail may be shared between messages and is never changed.
type Message struct {
	To   uint64
	Head []byte
	Tail []byte
}

// ReadResult answers Core.Read.
type ReadResult struct {
	ID    ReadID
	Index uint64
}

// SnapshotRequest asks the runtime to bring a snapshot to a peer. When the peer
// holds it durably, the runtime there steps Message into its core, and here calls
// SnapshotSent.
type SnapshotRequest struct {
	To      uint64
	Index   uint64
	Message []byte
}

// Output is what a core wants done, in this order: Restore, then Committed, are
// handed to the state machine; Messages leave at once; Batch is made durable, and
// then acknowledged by its Token.
type Output struct {
	Messages  []Message
	Batch     *storage.Batch // the core adds its records; provided by the runtime
	Token     uint64         // 0: nothing that needs to be acknowledged
	Restore   *Position      // the log now begins after this snapshot, which was received before
	Committed []Entry
	Reads     []ReadResult
	Snapshots []SnapshotRequest
	// WantSnapshot asks for a SnapshotAvailable: a peer needs one and there is none.
	WantSnapshot bool

	Leader  uint64 // valid after every Ready
	Term    uint64
	Leading bool

	// Decided is the index up to which the core knows all entries decided, valid after
	// every Ready. No other node knows of more in this term if this one leads: what it
	// tells others of decisions stands in the Messages of this Output, or later ones.
	Decided uint64

	// HandedOver says that Transfer was called in this term, valid after every Ready, at
	// the latest in the one whose Messages say so to the other member. From then on,
	// until the term ends, that member may be elected at any time.
	HandedOver bool
}

func (o *Output) reset() {
	clear(o.Messages)
	clear(o.Reads)
	clear(o.Snapshots)
	*o = Output{Messages: o.Messages[:0], Reads: o.Reads[:0], Snapshots: o.Snapshots[:0], Batch: o.Batch}
}

// Protocol makes cores. It is the part of an engine that the runtime calls.
type Protocol interface {
	// Name is stored with a group, so that another engine refuses to open it.
	Name() string

	// Bootstrap writes the records of a new group with a first configuration.
	Bootstrap(keys Keys, config []byte, batch *storage.Batch) error

	// Begin writes the records of a group whose log begins after a position, up to which a
	// snapshot has the state, with a configuration there.
	Begin(keys Keys, at Position, config []byte, batch *storage.Batch) error

	// Inspect reads what a store has of a group. The members are those of the newest
	// configuration in the log, decided or not.
	Inspect(keys Keys, store storage.Store) Remains

	// Recover changes a group's records so that a configuration of this node alone holds from
	// the log's begin to its end, no other one stands in the log, all of it is decided, and the
	// next term is another than any before. All records are intact.
	Recover(keys Keys, store storage.Store, config []byte, batch *storage.Batch) error

	// Join writes the records of a replica that knows nothing yet of a group that exists. Where
	// Leave has left something, it goes on from that.
	Join(keys Keys, store storage.Store, batch *storage.Batch) error

	// Leave removes a group's records, but for what the replica has promised and must not
	// forget if it ever joins again.
	Leave(keys Keys, store storage.Store, batch *storage.Batch) error

	// Open makes a core from a group's records.
	Open(o OpenOptions) (Core, error)

	// Start tells where the group's log begins and the configuration there.
	Start(keys Keys, store storage.Store) (Position, []byte, error)
}

// OpenOptions is what Protocol.Open gets.
type OpenOptions struct {
	Node   uint64
	Keys   Keys
	Store  storage.Store
	Start  Position // everything up to here is in the state machine or a snapshot
	Config []byte   // the configuration as of Start
	Held   bool     // no vote is given before Core.Trust
	Logger *slog.Logger

	ElectionTicks  int  // ticks without a leader until an election, at least
	HeartbeatTicks int  // ticks between two heartbeats
	Leases         bool // leaders count on what Core.Read says of leases
	MessageBytes   uint64
	InflightBytes  uint64
	PendingBytes   uint64
	ApplyBytes     uint64
	CacheBytes     uint64
}
