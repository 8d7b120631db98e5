// Package multipaxos is the core of our Multi-Paxos (Lamport, "Paxos Made Simple", 2001): a
// deterministic step function over plain data, and the records and messages that go with it.
// The runtime of internal/replica drives it, as it drives raft's.
//
// # Usage
//
// [Protocol] is the engine, as the runtime wants one; [Protocol.Open] makes a [Core] from a
// group's records. [Core.Clone], [Core.Fingerprint] and [Core.View] are for a model checker; [Describe],
// [DescribeRecord] and [Core.Describe] for people, and for the scripts that paxosscript plays.
//
// # Parts
//
//   - acceptor: promises, accepts, and tells what it accepted, in pieces of bounded size. An
//     accept raises the promise. Nothing that it promises leaves before its record is durable.
//   - learner: finds out what is chosen, hands it out in order, fetches what it lacks from other
//     members, and takes snapshots in.
//   - election: who stands for election, and when. It is about progress, never about safety.
//   - proposer: one phase 1 for all slots that are open, then phase 2, pipelined, acknowledged
//     out of order.
//   - reads: how far a replica must have applied to answer a read, with a leader or without.
//
// # Guarantees
//
// In each slot one value is decided, whatever is lost, repeated, late or out of order, and whoever
// crashes: tests run bare cores on random networks and disks, and play scripts that a person can read
// (testdata); between them they find all mistakes that are planted (TestPlantedBugsAreFound,
// TestScriptsFindPlantedBugs).
//
// What an acceptor can't read it reports as unknown, never as empty, and helps no quorum with it, until
// the slot is decided, or accepted again in the ballot up to which it does not know, or in a higher one. Where a
// record is missing, which a digest of all keys tells, that holds for all slots, until a fresh value of a higher
// ballot is decided. A replica that leaves its group and joins it again knows nothing of what it has
// accepted before, and says so: all slots up to there are unknown.
//
// # Where it differs from the papers
//
//   - Ballots are (round, priority, node). A round is durable, as the candidate's own promise, before
//     the first prepare leaves.
//   - A promise says "decided through k, fetch it" for what is chosen; it is never silent about a slot
//     that was trimmed ("Paxos Made Simple" has no trimming). Should nobody be left who knows that, a leader that has
//     not fetched it steps down: the next phase 1 finds the values where they are accepted.
//   - A leader's accept leaves before its own record is durable; its own vote counts after.
//   - A configuration is a value in the log. Nothing is proposed beyond it before it is decided, and
//     phase 1 is done with a quorum of the new one before anything is proposed under it: a window of one
//     in the terms of "Paxos Made Simple", section 3.
//   - A value that was proposed for a slot is chosen there or never. A fresh value shows that phase 1 of
//     its ballot found nothing from its slot on; values of lower rounds in higher slots are void, and are
//     not proposed again. So a proposer can be told that its value is lost, see replica.Entry.Fence. It also
//     means that a value which a quorum has accepted may be given up while a slot before it is open: decided is
//     what is accepted by quorums from the first open slot on, without a gap, in one ballot. So a leader
//     counts nothing behind a slot that others have decided (testdata/void.txt).
//   - Quorums may be any that intersect ([Quorums]; Howard, Malkhi and Spiegelman, "Flexible Paxos", 2016).
//
// # Limits
//
// At most [MaxVoters] voters. A group keeps the Quorums that it began with: its stores know them, and nodes with
// others refuse each other. A group of which too few voters know what they accepted decides nothing,
// or nothing from the first slot on that they do not know, until another one of them comes back.
package multipaxos
