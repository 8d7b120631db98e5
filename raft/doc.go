// Package raft replicates state machines by Raft. It is an engine around the core
// of go.etcd.io/raft/v3: what that core leaves to its user (storage, transport,
// batching, reads, snapshots, back-pressure, errors that can be told apart) is
// done here.
//
// # Usage
//
//	node, err := raft.Start(ctx, raft.Config{
//		Cluster: "orders", Node: 1, Transport: tr, Store: st,
//	})
//	if err := node.Bootstrap(ctx, 1, []uint64{1, 2, 3}); … // once, on each member
//	group, err := node.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: sm})
//	result, err := group.Propose(ctx, command) // on the leader
//	err = group.Barrier(ctx)                   // then read sm, on any member
//
// A node hosts many groups; all share its transport, its store, and each round of
// messages and writes. A group is a [synod.Log]: code that takes one need not
// know of Raft.
//
// # Guarantees
//
// A command whose Propose returned nil is durable on a majority of the group's
// members, applied on this node, and never lost while a majority keeps its disks.
// Every member applies the same commands in the same order. A read of the local
// state machine after Barrier sees every command acknowledged before, anywhere.
//
// An error of Propose for which errors.Is(err, synod.ErrUnknownOutcome) does not
// hold says that the command was not and will not be applied. That holds for a
// lost leader too: once an entry of a later term is applied, what was proposed in
// an earlier one and is not in the log below can't get there any more, and its
// callers get a *synod.NotLeaderError.
//
// Nothing that promises something leaves a node before its record is durable:
// acknowledgements of appends and votes, as etcd's core arranges; and, unlike
// there, a candidate's requests for votes, which wait for its own term and vote
// (figure 2 of the paper: currentTerm and votedFor are stored before). A leader's
// appends leave at once, in parallel with its own write. A leader answers no read
// before it has decided an entry of its own term, even where it is the only voter:
// etcd's core does there, with a commit index that may lag after a restart.
//
// A store that fails, a record that can't be read, a state machine that panics:
// the group concerned stops on this node and says why; nothing is retried or
// skipped. A store without space (storage.ErrNoSpace) refuses commands and goes
// on when there is room. What waits for a store that is full, or stalls, is limited
// by Config.MaxUnwrittenBytes.
//
// # Sessions
//
// A command whose outcome is unknown can't be proposed again without the risk that it is
// applied twice, unless it was proposed in a session:
//
//	id, err := group.OpenSession(ctx, time.Hour) // on the leader; once for a client
//	session := raft.NewSession(id, 0)
//	result, err := session.Do(ctx, func(ctx context.Context, r synod.Request) ([]byte, error) {
//		… // find a node of the group, and there:
//		return group.ProposeOnce(ctx, r, command)
//	})
//
// A session numbers its commands. The group remembers, as a part of its replicated state,
// which numbers it has applied, and what the state machine answered; a request that comes
// again, to whichever leader, after whatever crash, is not given to the state machine a
// second time, and gets that answer. This lasts until the client says that it has the
// answer (synod.Request.Floor), until the results are more than GroupConfig.MaxSessionBytes
// (then it is synod.ErrResultLost; the number is still known), or until the session ends:
// by CloseSession, or because nobody used it for as long as OpenSession was told. Then
// nothing of it is applied any more (synod.ErrSessionExpired). A state machine that is a
// synod.DurableIndex loses results in a restart, and nothing else.
//
// Sessions expire at one place in the log, when an entry of a session is applied: so the same
// everywhere. The time by which they do is what leaders have seen pass between their
// own entries, by their monotonic clocks: no clock has to be right, or to agree with another
// one. What passes between the last entry of one leader and the first of the next
// does not count, nor while no session is used at all.
//
// A plain Propose costs what it would without sessions. One in a session costs 10 to 20
// bytes more in the log, and its result and some 128 bytes of memory on each member until
// its number is below the floor. A snapshot begins with what is remembered: capturing it
// holds up the group's state machine for the time that it takes to copy it, some
// milliseconds for ten thousand sessions.
//
// # Identity
//
// A node draws a random incarnation when its store is first used, and its peers
// keep the first that they see. A node whose disk was wiped, or replaced by that of
// another, and a second one under the same ID, are so recognised and not listened
// to: they have forgotten what the ID promised (an EventPeerRefused with
// ErrIncarnation says so, on them and on the node itself, which does not listen to
// what is meant for its predecessor). An old copy of the same disk is not
// recognised, since it has the same incarnation.
//
// # Limits
//
// The members of a group are those that it was bootstrapped with: they can't be
// changed yet. Followers do not pass proposals on. Leases are not used for reads.
// A single command is limited to Config.MaxCommandBytes, and the transport must take
// messages of that and MaxBatchBytes: Start can't ask it, and a message that it refuses
// for its size is complained of in the log. A leader whose disk is full, or stalls,
// keeps its office as long as it hears a majority: commands are refused or wait, reads
// go on. To have another one lead, call TransferLeader. A leader reads the log
// from the store for a follower that lags by more than Config.CacheBytes; the
// loop's other groups wait for those reads. Only the log and a snapshot stand
// between a crash and the state of a state machine that keeps it in memory: on
// start, it is restored and the rest of the log replayed.
//
// # Differences from the paper
//
// Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm"
// (2014), and Ongaro's thesis (2014): as in go.etcd.io/raft/v3. Pre-vote (thesis,
// section 9.6), a leader that steps down without a majority (6.2) and reads by
// read index (6.4) are always on. A log entry holds a batch of commands, all that
// arrived in one round of the event loop. The index that a state machine sees
// counts commands from 1 on; the indexes in a synod.GroupStatus count log entries.
// A new group's log begins after index 1, where every member wrote the same
// configuration.
package raft
