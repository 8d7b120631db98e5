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
// # Reads
//
// Barrier is linearizable on any member: what was acknowledged before the call, by
// anyone to anyone, is in the local state when it returns. It costs a round trip from
// the leader to a majority, which everyone shares who reads at that moment, from a
// follower one more to the leader; nothing is written. It assumes nothing about time.
//
// With Config.MaxClockDrift, off by default, a leader that a majority has confirmed holds a
// lease: for ElectionTimeout, less a heartbeat and less MaxClockDrift, counted on its
// monotonic clock from before it asked, no other member can be elected. Until then its
// Barrier asks nobody and returns at once, if all that is decided is applied. While there
// are reads the lease is renewed before it ends; without any, nothing is sent for it.
// Barriers on followers ask as before.
//
// This is safe as long as the monotonic clocks of two members come apart by no more than
// MaxClockDrift while one of them goes on by ElectionTimeout. Steps of the wall clock do
// not matter, nor does a process that is late or stopped (SIGSTOP): its clock goes on,
// and its lease with it. A machine whose clock stands still with it, such as a virtual
// one that is suspended or moved, may come back with a lease that ended long ago for
// the others, and answers stale reads until its own clock has ended the lease,
// too: leave leases off where that may happen. A clock that is wrong never loses a
// write, with leases or without.
//
// A lease ends early when its leader steps down, when the members change, and when
// TransferLeader was called: after a transfer that failed, the leader asks for each read
// until its term ends. A member that starts gives no vote and does not stand for election
// for one ElectionTimeout, as it may have forgotten whose lease it confirmed: after a
// restart of all members the first election takes that much longer.
//
// # Members
//
// A group begins with the members that Bootstrap names, on each of them; it begins once all of
// them have met. Later its leader changes them, by Group.SetMembers, to any others: learners,
// which receive everything and can be read from, and voters. A change is planned and
// carried out by the group itself, is in its log, and is completed by whoever leads. What the group
// needs of the application:
//
//   - a new node runs, with the group joined and started: Join, StartGroup;
//   - it can be reached: by an address that is part of the configuration (synod.Member.Address,
//     Config.SetAddress), or because its transport and the others' know by themselves;
//   - a node that is removed runs until SetMembers has returned. Its replica then ends, with
//     synod.ErrRemoved; Close and Leave remove what it stored.
//
// A member is removed, or replaced, while a majority of the old voters and one of the new ones
// can be reached. After the loss of a majority no change can be decided.
//
// # Identity
//
// A node draws a random incarnation when its store is first used, and its peers
// keep the first that they see. A node whose disk was wiped, or replaced by that of
// another, and a second one under the same ID, are so recognised and not listened
// to: they have forgotten what the ID promised (an EventPeerRefused with
// ErrIncarnation says so, on them and on the node itself, which does not listen to
// what is meant for its predecessor). Such a node comes back by Join, and by a call of SetMembers
// with its new incarnation.
//
// A store in which a group was begun by package paxos is refused (ErrForeignStore), and the frames of a
// node that runs paxos are (ErrStray). There is no way from one to the other but a new group.
//
// Each start of a node is a run with a number, and its commits are counted; peers keep, durably, how
// far they have known it to be. A node on an old copy of its disk is so recognised by each
// member that has heard of something that the copy lacks: its groups stop with
// synod.ErrRolledBack, and it must be wiped and come back as above. A node that starts waits for the other
// voters' word before it votes, two election timeouts at most. An old copy goes unrecognised where none of the
// members that know better can be reached for that long.
//
// # Damaged records
//
// StartGroup reads the whole log and the newest snapshot. Records of them that are damaged, or missing, come again from
// another member before the replica takes part in anything (EventRepaired, and a line in the
// log): entries, if they end in the index and term that the record after them, or that of term and vote, names, which
// by log matching makes them the very same; or a snapshot, if the others have compacted them away, or if a state machine
// that keeps its state itself has lost it. This takes as long as the transfer
// and some election timeouts; ctx bounds it. If no member can help, StartGroup returns an error that matches
// storage.ErrCorrupt and names the record, and may be called again. The record of term and vote and that of where the
// log begins are not repaired: a replica without them does not know what it has promised. Its node
// comes back with an empty store, by Join and SetMembers.
//
// # Limits
//
// Followers do not pass proposals on. A single command is limited to
// Config.MaxCommandBytes, and the transport must take messages of that and MaxBatchBytes: Start can't
// ask it, and a message that it refuses for its size is complained of in the log. A leader whose
// disk is full, or stalls, keeps its office as long as it hears a majority: commands are refused or
// wait, reads go on. To have another one lead, call TransferLeader. A leader reads the log
// from the store for a follower that lags by more than Config.CacheBytes; the
// loop's other groups wait for those reads. Only the log and a snapshot stand
// between a crash and the state of a state machine that keeps it in memory: on
// start, it is restored and the rest of the log replayed. A new member always gets a snapshot first.
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
// configuration. Members change by joint consensus (the 2014 paper, section 6), as etcd's core
// has it: a configuration is in effect when it is decided, not when it is in the log. A change
// ends with one entry more than there: see internal/replica, membership.go. Learners are
// those of the thesis, section 4.2.1.
package raft
