// Package replica is the runtime that every engine runs on. An engine (package raft
// is one) is a protocol core behind [Core], its records and its messages; all that
// engines share is here, once:
//
//   - event loops, each a task that owns the cores of many groups (loop.go);
//   - frames: all messages for one peer, of all groups of a loop, in one round (frame.go);
//   - one commit at a time for all groups of a loop, acknowledged to the cores when durable;
//   - calls: what became of each proposal, read and transfer (call.go, pending.go, read.go);
//   - leases, under which a leader answers reads without asking (lease.go);
//   - the state machines, on tasks of their own (apply.go);
//   - sessions: commands that are sent again and applied once (sessions.go, sessiontable.go,
//     sessionbatch.go; what a client needs: session.go);
//   - snapshots: taking, storing, sending, installing (snapshot.go, transfer.go);
//   - repairs: damaged records, again from a peer (repair.go);
//   - identity: which node, which cluster, which incarnation (node.go, record.go);
//   - limits, events, metrics, status.
//
// # The way of a command
//
//	Propose ─▶ loop: batch ─▶ Core.Propose
//	                             │ Core.Ready
//	            ┌────────────────┼──────────────────────┐
//	         Messages          Batch                Committed
//	            │                │                      │
//	       one frame a      one commit a          applier task:
//	       peer and round   loop at a time        state machine
//	            │                │                      │
//	       the network     Core.Persisted      the caller's answer,
//	                                           Core.Applied
//
// Commands that arrive in one round become one value in the log, a batch, so that
// what the log costs is paid by rounds and not by commands. A state machine does
// not notice: the index that it sees counts commands.
//
// # Guarantees
//
// A core's promise leaves the node only through Core.Persisted, that is after the
// records of the same Output are durable. A store that fails ends every group on
// it, and none of their callers hears yes. One that has no space is waited for:
// what it refused is committed, in the old order, when it takes it.
//
// The records of one Output are one commit, and commits are closed at 16 MiB: none is
// larger than that, or than one Output, which a core is asked for before it would
// grow far beyond it. What waits for the store is bounded by Config.MaxUnwrittenBytes and
// one round more: then commands are refused as overload, and large messages and chunks
// of snapshots lost. Small messages are taken up always, so that a node whose store
// stalls still answers heartbeats and votes that need no record.
//
// A snapshot says how many commands its state holds. These may be more than those up to
// its position: a state machine that keeps its state itself is ahead of the log that it
// replays. Whoever restores it is given none of them again.
//
// What is remembered of sessions is a part of the replicated state, like the state machine's:
// it is changed by entries alone, the same on all replicas, and stands at the front of each
// snapshot. Commands that were applied before are neither given to the state machine nor
// counted.
//
// A call ends in exactly one answer. One that was not shown to the core, or whose
// value the core knows lost ([Entry].Fence), certainly had no effect. One that may
// stand in the log when the caller, the group or the node goes is an unknown
// outcome.
//
// Whatever a core, a state machine or a record does wrong, panics included, stops
// the one group, with a *synod.FailedError.
//
// # Repair
//
// StartGroup reads all of a group's records. If one is damaged, or missing, of the log or of
// the snapshot, and the protocol is a [Repairer], the replica asks the other members for it before it opens its
// core: until all is whole it gives no vote, acknowledges nothing and answers nothing. What
// it takes from a peer must be what was there: the protocol checks that it fits with what is intact,
// down from the last entry, which a record of its own names. Where the peers have dropped the
// entries, or the snapshot is damaged, or a state machine that keeps its state itself lacks what was cut off the log, a peer's snapshot takes the place of both, if it reaches at least to the
// last entry that is missing and agrees with the intact ones that follow, which are kept; or goes beyond the log's end. So does
// this node's own snapshot, if it is intact and covers what nobody else has. Nothing is ever cut off.
//
// Members are asked one after the other, four times, with growing pauses, for pieces of at most Config.MaxBatchBytes, which
// travel no faster than snapshots (Config.SnapshotBytesPerSecond). Each piece is durable before the next is asked for,
// so that a repair that breaks off is gone on with. If nobody can help, StartGroup returns the
// *storage.CorruptError that it would have returned without a repair, and the records are as they were. Other groups
// go on meanwhile, but for the reads of a member that helps.
//
// Not repaired are the records that say what is missing, or who the node is: of a protocol those of
// its promises and of the log's begin; the node's identity, its runs and its peers; which
// protocol keeps the group, its founders and who was given up. Nor is the end of a log that nobody else has: of entries
// that were not decided, until the others have decided more than this log has. A replica that finds a damaged
// record while it runs stops, and is repaired when it is started again.
//
// # Limits
//
// Groups are assigned to loops by their ID and stay there. Ticks cost each group
// work even when it is idle. A snapshot transfer that broke off goes on where it was, after
// a restart of either side too, as long as it is of the same snapshot: not with another
// sender, nor when a newer snapshot has taken its place.
package replica
