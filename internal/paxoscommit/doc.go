// Package paxoscommit is commitment over consensus groups, which nobody can block: the cores that package txn/kv is
// made of, and that internal/modelcheck explores.
//
// # The protocol
//
// Each group that takes part in a transaction has one register for it, which is written once: its vote. The register
// is a part of the state of the group's replicated state machine ([Registers]), so that it survives what the group
// survives. The transaction is committed as soon as all votes are yes, and aborted as soon as one is no; there is no
// other record, and no coordinator's decision to wait for: whoever has read the votes knows. Where one group takes part,
// its vote is the commit.
//
// A [Coordinator] asks all groups at a time: the answer is there after one round of consensus. If it vanishes, anybody who
// meets what it has left ends the transaction: a recoverer closes the votes that are missing, by writing no where nothing
// is written, and then knows. It races with the coordinator in the registers, and both learn the same.
//
// A commit has a timestamp: each yes has the lowest that its group can take, and the highest of all is it. So it is
// fixed when the votes are, whoever reads them.
//
// # Forgetting
//
// A register may be forgotten when all groups know the outcome, and nothing that is still under way may then be taken
// for a new transaction. A client numbers its transactions in a [Session], and says with its commands below which number all
// are over. A session that is not used any more is forgotten as a whole, when it has left nothing unfinished, and a
// horizon refuses its ID for ever: IDs begin with the time at which they were made.
//
// # Limits
//
// Groups are trusted to be alive: a transaction waits for a group without a majority. There are no read-only votes that leave
// early: locks stay until the outcome is known, which strict serializability needs.
//
// # Differences from the papers
//
// Gray and Lamport ("Consensus on Transaction Commit", 2006) have an instance of Paxos for each resource manager's vote, and
// acceptors that all instances share; here the acceptors of a vote are the group whose vote it is, so that the vote and what it
// promises are one entry of one log. CockroachDB ("parallel commits", 2019) writes the list of participants into one record,
// and has a transaction committed when that and all intents are there; here each vote has the list, and there is no record.
//
//synod:core
package paxoscommit
