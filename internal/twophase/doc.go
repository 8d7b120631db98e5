//synod:core

// Package twophase is two-phase commit as a pure step function: coordinator and participant of one node in one
// core. It is "presumed abort" (Mohan, Lindsay and Obermarck, "Transaction Management in the R* Distributed Database
// Management System", 1986), with participants that have nothing to commit, transactions with a single participant,
// a last agent that cannot prepare, recovery of both sides, cooperative termination, and operators' decisions.
//
// # Usage
//
// A [Core] takes in what happens (Commit, Step, Tick, Persisted, Voted, Done, DoneOne, Decided) and says in [Ready]
// what is to be done. Package txn is the runtime around it, with its own names for what applications see.
//
// # Protocol
//
//	client     coordinator                participant
//	commit ──▶ prepare ─────────────────▶ the resource prepares
//	           vote ◀──────────────────── record "prepared" is durable
//	           decision is durable
//	answer ◀── outcome ─────────────────▶ the resource commits
//	           ack ◀───────────────────── record "finished" is durable
//	           decision may be forgotten
//
// The decision is in a register that is written once, which is not a part of this package: whoever proposes learns
// which proposal has won. Only a coordinator proposes to commit, and only once; anybody may propose to abort.
//
// An abort has no record at the coordinator, and needs no acknowledgement: what it does not know was aborted. This
// is right because a commit is known until every participant that voted yes has acknowledged it.
//
// The acknowledgement waits for the record that the branch is over, and that record for the next one that somebody
// else waits for, or for a tick: so a commit costs each participant one forced write, and the coordinator one.
//
// # What is remembered
//
// A participant remembers a branch that is over until its whole transaction is: until the coordinator's floor, which
// comes with each of its messages, has passed it. Below the floor nothing is prepared any more. If too many are to be
// remembered, a node raises the floor by itself: later it refuses what it could have prepared, and cannot help others
// that are in doubt; it never says anything wrong.
//
// # Cooperative termination
//
// A participant in doubt asks the others. One that knows the outcome says so. One that has not voted gives up its
// right to, durably, and lets the other abort. All that makes this safe is that nobody takes its own forgetting for
// not having voted: votes of yes are durable, branches that are over are remembered as long as somebody can be in
// doubt, and votes of read-only are remembered for a run of the node, and across runs by a mark below which there
// may have been some, which is written once for many transactions.
//
// # Last agent
//
// A resource that cannot prepare is asked last, when all others are prepared and a record says so, and its answer is
// the decision. While it is under way only it knows the outcome. Nobody else may decide then: not even through the
// register. If it cannot tell what it did, an operator has to.
package twophase
