package paxos

import (
	"log/slog"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/multipaxos"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/transport"
)

// Config says how a node runs. Cluster, Node, Transport and Store are required;
// what is left zero gets the default that stands beside it. All nodes of a cluster
// should run with the same values, but need not, except where MaxClockDrift says so.
type Config struct {
	// Cluster names the cluster: 1 to 255 bytes, the same on all its nodes. Messages
	// of another cluster are refused.
	Cluster string

	// Node is this node's ID, above 0. It belongs to this node and this store for
	// ever: a node whose data were lost comes back under a new ID.
	Node uint64

	// Transport carries messages to the other nodes. The node sets its handlers and
	// uses it until Close; the caller closes it after that. To share it, hand in a
	// channel of a transport.Mux.
	Transport transport.Transport

	// Store keeps the node's records. The caller closes it after Close. To share it,
	// hand in a storage.Prefix.
	Store storage.Store

	// Logger receives what happens. Default: nothing is logged.
	Logger *slog.Logger

	// Metrics receives figures. Default: none are taken.
	Metrics synod.Metrics

	// SetAddress is told the addresses of members, as configurations name them, at the start
	// and when they change: hand in what makes the transport follow (tcp.Transport's
	// SetPeer). It is called from an event loop and must not block. Default: nobody is told.
	SetAddress func(node uint64, address string)

	// HeartbeatInterval is the time between two heartbeats of a leader, and the unit
	// in which time passes for a group. At least 1 ms, and well above the round trip
	// between the nodes. Default: 50 ms.
	HeartbeatInterval time.Duration

	// ElectionTimeout is how long a follower hears nothing from its leader before it
	// stands for election, plus a random part of up to as much again. It is rounded
	// down to whole heartbeats. A leader that hears from too few to decide anything for as
	// long steps down. At least three heartbeats. Default: ten.
	ElectionTimeout time.Duration

	// MaxClockDrift turns lease reads on: with it, Barrier on a leader asks nobody for
	// about as long as ElectionTimeout less MaxClockDrift after enough voters last confirmed
	// the leader. It is by how much the monotonic clocks of two nodes may come apart while
	// one of them goes on by ElectionTimeout, whatever the reason, and so an assumption
	// that nothing here can check: where it is wrong, Barrier lets stale reads through, for
	// as long as it is wrong by. A tenth of ElectionTimeout is plenty for clocks that
	// run; none is enough for a machine that is suspended, or moved, with its clock. At
	// most ElectionTimeout less two heartbeats. Default: 0, no leases.
	//
	// With it, MaxClockDrift, ElectionTimeout and HeartbeatInterval must be the same on
	// all nodes of the cluster: change them only while all nodes are stopped. A member
	// takes part in no election in the first ElectionTimeout after its start then.
	MaxClockDrift time.Duration

	// Loops is the number of event loops that the groups are spread over. A group
	// is served by one loop; groups of one loop share its writes and its frames.
	// Default: half of GOMAXPROCS, 1 to 4.
	Loops int

	// MaxCommandBytes is the largest command that Propose takes, at most 256 MiB. The
	// transport must take messages of MaxBatchBytes and MaxCommandBytes together, and
	// 1 KiB; where it does not, followers never get such a command. Default: 8 MiB.
	MaxCommandBytes int

	// MaxBatchBytes is the size from which on commands go into another value of the log,
	// and values into another message. At most 256 MiB. Default: 1 MiB.
	MaxBatchBytes int

	// MaxPending and MaxPendingBytes limit the calls of one group that are under way
	// on this node, and the bytes of their commands; what exceeds them is refused
	// with synod.ErrOverloaded. MaxPendingBytes also limits what a leader has in its
	// log that is not decided yet, where a value counts as 32 bytes and what is in it.
	// Default: 65,536 and 64 MiB.
	MaxPending      int
	MaxPendingBytes int

	// MaxInflightBytes limits what is on its way to one follower of one group and
	// not acknowledged. By Little's law it caps the throughput to MaxInflightBytes
	// a round trip. At least MaxBatchBytes and MaxCommandBytes together. Default: 16 MiB.
	MaxInflightBytes int

	// MaxInboxBytes limits what has arrived for one loop and was not worked on. What
	// exceeds it is dropped and asked for again. At least MaxBatchBytes and
	// MaxCommandBytes together, and 1 KiB. Default: 64 MiB.
	MaxInboxBytes int

	// MaxUnwrittenBytes limits the records of one loop that wait for the store, which may
	// stall or be full: beyond it commands are refused with synod.ErrOverloaded, and
	// messages of more than 1 KiB dropped, to be asked for again. Default: 256 MiB.
	MaxUnwrittenBytes int

	// MaxApplyBytes limits the decided values of one group that wait for its state
	// machine in memory. Default: 16 MiB.
	MaxApplyBytes int

	// CacheBytes is how much of the end of each group's log is kept in memory, for
	// followers and the state machine. Default: 8 MiB.
	CacheBytes int

	// SnapshotBytesPerSecond limits what this node sends of snapshots, to all followers of all
	// its groups together: well below what the network and the followers' disks take, so
	// that there is room for the groups' own work. At least 256 KiB. Default: 256 MiB.
	SnapshotBytesPerSecond int

	// Quorums says how many voters, or which, are enough to become the leader and to decide
	// a value. It holds for all groups of the node, and must be the same on all nodes of the
	// cluster: see Quorums. Default: a majority for both.
	Quorums Quorums

	// Priority makes one node rather than another the leader where both stand for election at
	// once: the ballot of the higher one counts. It starts no election, and ends no leader's
	// time in office: use Group.TransferLeader to move one that works. Default: 0; among
	// equals, the higher node ID counts.
	Priority uint8
}

// Quorums says which sets of voters decide (Howard, Malkhi and Spiegelman, "Flexible Paxos", 2016).
// Each quorum that makes a leader must have a voter in common with each that decides a value, which is
// checked; two that decide need not. So a value may be decided by few, if a new leader then has to hear from
// many. The zero value is a majority for both.
//
// The sizes, or sets, hold for all configurations that a group goes through; while two sets of voters
// decide together, each has quorums of its own. What does not go with the voters of a new group is
// refused by Bootstrap, and by SetMembers what does not go with a change of them, as a *synod.ConfigError. To give
// one size only, and have the other follow from the number of voters, goes with any.
//
// A group keeps the quorums that it began with: StartGroup refuses others, for a new leader could miss what was
// acknowledged by these. So all nodes of a cluster have the same; nodes with others do not listen to each other
// (ErrQuorums). To change them, Export the group, and Import it as a new one.
type Quorums struct {
	// Phase1 is how many voters a node needs to become the leader, itself included. Phase2 is how
	// many have to hold a command durably until it is acknowledged: commands survive the loss of Phase2 - 1
	// disks. The two together are more than there are voters; where there are fewer than one of them says, it is
	// all. If one is 0 it is as small as the other allows; if both are, they are a majority.
	Phase1, Phase2 int

	// Sets1 and Sets2 name the quorums one by one, by nodes, in the place of Phase1 and
	// Phase2: any of the sets is a quorum, and so is what contains one. Sets with nodes that do not
	// vote in a group do not count there. Both or none.
	Sets1, Sets2 [][]uint64
}

// protocol returns the engine that a configuration asks for.
func (c *Config) protocol() multipaxos.Protocol {
	return multipaxos.Protocol{Quorums: multipaxos.Quorums(c.Quorums), Priority: c.Priority, Whole: true}
}

// settings returns what all engines have.
func (c *Config) settings() replica.Settings {
	return replica.Settings{
		Cluster:           c.Cluster,
		Node:              c.Node,
		Transport:         c.Transport,
		Store:             c.Store,
		Logger:            c.Logger,
		Metrics:           c.Metrics,
		SetAddress:        c.SetAddress,
		HeartbeatInterval: c.HeartbeatInterval,
		ElectionTimeout:   c.ElectionTimeout,
		MaxClockDrift:     c.MaxClockDrift,
		Loops:             c.Loops,
		MaxCommandBytes:   c.MaxCommandBytes,
		MaxBatchBytes:     c.MaxBatchBytes,
		MaxPending:        c.MaxPending,
		MaxPendingBytes:   c.MaxPendingBytes,
		MaxInflightBytes:  c.MaxInflightBytes,
		MaxInboxBytes:     c.MaxInboxBytes,
		MaxUnwrittenBytes: c.MaxUnwrittenBytes,
		MaxApplyBytes:     c.MaxApplyBytes,
		CacheBytes:        c.CacheBytes,

		SnapshotBytesPerSecond: c.SnapshotBytesPerSecond,
	}
}

// GroupConfig says what a group replicates. ID and StateMachine are required.
type GroupConfig struct {
	// ID is the group's ID, above 0, the same on all its members.
	ID uint64

	// StateMachine is this node's replica. From StartGroup on it belongs to the group:
	// the application may read it concurrently with Apply if it synchronises that
	// itself. It starts empty, unless it is a synod.DurableIndex.
	StateMachine synod.StateMachine

	// SnapshotEntries and SnapshotBytes say when a snapshot is taken and the log
	// compacted: after so many log entries, or bytes of them, since the last one. An
	// entry is a batch of commands. Default: 100,000 and 64 MiB.
	SnapshotEntries uint64
	SnapshotBytes   uint64

	// RetainEntries and RetainBytes say how much of the applied log stays when it is
	// compacted, so that a follower that was away for a moment needs no snapshot: the
	// last so many entries, as far as they are no more than so many bytes. Default:
	// 5,000 and 32 MiB.
	RetainEntries uint64
	RetainBytes   uint64

	// MaxSessions and MaxSessionBytes limit what the group remembers of its clients'
	// sessions: how many may be open, beyond which OpenSession is refused with
	// synod.ErrOverloaded, and the bytes of the results that are kept for a command that
	// comes again, each counted with 128 bytes more; beyond it the oldest are dropped, and
	// whoever asks for them gets synod.ErrResultLost. What counts is the leader's value
	// when a session is opened. At most 1,048,576 and 1 GiB. Default: 65,536 and 64 MiB.
	MaxSessions     int
	MaxSessionBytes int
}
