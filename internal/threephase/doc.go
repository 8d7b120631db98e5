//synod:core

// Package threephase is three-phase commit as a pure step function: coordinator and participant of one node in one
// core, and whoever is elected to terminate a transaction. It is E3PC, of Keidar and Dolev ("Increasing the Resilience of
// Distributed and Replicated Database Systems", 1998), which never splits and which a connected quorum always ends; or, by Config.Protocol,
// Skeen's nonblocking protocol ("Nonblocking Commit Protocols", 1981), from which it comes, and which splits where nodes are taken for
// crashed that are not.
//
// # Usage
//
// A [Core] takes in what happens (Commit, Step, Tick, Persisted, Voted, Done) and says in [Ready] what is to be
// done, in the words of package twophase: it can stand in its place before the same resources. Package txn is the runtime around it, and
// txn.Config.Protocol chooses it.
//
// # Protocol
//
//	client     coordinator                participant
//	commit ──▶ prepare ─────────────────▶ the resource prepares
//	           vote ◀──────────────────── record "wait" is durable
//	           pre-commit ──────────────▶
//	           ack ◀───────────────────── record "pre-committed" is durable
//	answer ◀── outcome ─────────────────▶ the resource commits
//	           done ◀──────────────────── record "committed" is durable
//	           over ────────────────────▶ it may be forgotten
//
// The transaction is committed when a quorum of the participants, more than half of their weights, has acknowledged the same attempt. The
// coordinator keeps no records: what it has attempted its participants know.
//
// # Termination
//
// A participant that is in doubt and hears no leader stands for election, with a number that is durable before anybody hears it. Whoever
// takes part promises, durably, to take part in nothing older, and says how far it is: its state, and the last attempt that it took part
// in. Of a quorum of such reports the leader goes by the last attempt alone: if that was to commit, it attempts to commit; else to abort. The
// attempt has the number of the election, is recorded by each participant before it acknowledges it, and decides when a quorum has done so.
//
//	somebody knows the outcome                 that
//	no quorum                                  wait
//	the last attempt of a quorum is to commit  pre-commit
//	it is to abort, or there is none           pre-abort
//
// An attempt that may have succeeded has a participant in common with every later quorum, and all attempts after it are the same. So it does not
// matter how often those who terminate fail, or in what partitions: whichever quorum is connected goes on. The coordinator may
// stand as well, where it reaches a quorum and the participants do not reach each other.
//
// A participant that has not voted takes part, too: it gives up its right to. So does one that has nothing to commit, which keeps its
// voice, and records its vote, though it lets go of what it has read: a node can be added as a witness that way.
//
// With Skeen's rule a leader waits for a time, takes those who are silent for crashed, and decides with the others: if one of them has
// pre-committed, to pre-commit all and commit; else to abort, at once. Those that have crashed since they voted do not count, unless all
// have.
//
// # What is remembered
//
// A branch remembers the outcome until all branches are known to have done it: until then somebody may be in doubt, and hold an election.
// The leader sees to it, or, if it is lost, whoever notices. What was aborted before anybody was asked to pre-commit need not be
// remembered: every election would come to the same. It is presumed by the coordinator's run that has aborted it, and by no other.
//
// Then a tombstone remains, which refuses a request to prepare that comes late, until the coordinator's floor, which comes with each of its
// messages, has passed it. Below the floor nothing is prepared any more. If too many are to be remembered, a node raises the floor by
// itself; a branch whose tombstone went so still has a voice in elections, and a coordinator that asks for its outcome is told that it is
// not known any more.
//
// # Cost
//
// N participants that vote yes, until the caller is answered; it is answered after four message delays, and all have committed after five.
// What lets them forget is not waited for. Skeen's protocol costs the same. TestCosts counts.
//
//	                         messages  forced writes  to forget
//	1, remote                       2              1          1
//	N, one beside               5(N-1)            2N     2(N-1)
//	N, all remote                  5N             2N         2N
//	read-only, each                 3              1          2, where the others are a quorum
//
// Two-phase commit has 3N messages, N+1 forced writes, and answers after two delays and the coordinator's write.
//
// # Guarantees
//
// E3PC: no two participants of a transaction end it differently, whatever is lost, repeated, late or cut off, and whoever crashes
// and comes back with its disk, as often as it likes; nor does a caller hear otherwise. If a quorum of the participants can reach each
// other for long enough they end it. An attempt, an election, a vote and the end of a branch are durable before anybody is told.
//
// Skeen's: the same if nothing is ever lost and whoever is silent for two ResendTicks has crashed. Else it splits: TestSkeenSplitsUnderAPartition shows
// how. Where participants learn of that, both report damage.
//
// # Limits
//
// Two participants are no quorum without each other: use three, or a weight. A participant whose node is lost for good keeps the others from
// forgetting: a branch each, of Config.MaxBranches. A node must not come back with an older copy of its store, or without it: it has
// forgotten its votes. No operator decides, no resource commits in one phase, and none decides last.
//
// A single participant that is not heard of any more after eight elections is unknown to its caller.
//
// # Differences from the papers
//
// Keidar and Dolev number elections through a membership service: the members of a component agree on who is in it and take the
// highest number that any of them knows plus one. Here an election is a number and its candidate ([Ballot]), so that no two have the
// same, and a participant refuses older ones by itself: it is the ballot of Paxos, and needs no membership. A leader goes on when it has
// a quorum, not when all of its component have answered. It need not record its own attempt before others hear of it, as an
// attempt has a number that is never used again; it is recorded by the leader's branch as by any other. The coordinator need not be a
// participant. Participants that are read-only, what is forgotten, and when, are not in the papers.
//
// Skeen's coordinator is a site with a log of its own; here the participants' suffice. His election is left open; here it is the same as
// that of E3PC.
package threephase
