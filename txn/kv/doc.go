// Package kv is a transactional key-value store over replicated logs: strictly serializable transactions over the keys of one
// group of raft or paxos, or of many, which commit in one round of consensus and have no coordinator that could block them.
//
// # Usage
//
// Each node runs a replica of each group, with a Machine as its state machine; and a DB over them:
//
//	machine := kv.NewMachine()
//	group, err := node.StartGroup(ctx, raft.GroupConfig{Group: 1, StateMachine: machine, …})
//	forwarder, err := txn.NewForwarder(ctx, txn.ForwarderConfig{Log: group, Node: 1, Transport: mux.Channel(…)})
//	db, err := kv.Open(ctx, kv.Config{
//		Groups: []kv.Group{{Log: forwarder, Machine: machine}, …},
//		Route:  func(key []byte) int { … },
//	})
//	err = db.Update(ctx, func(tx *kv.Tx) error {
//		balance, err := tx.Get(from)
//		…
//		return tx.Put(from, less)
//	})
//
// # Guarantees
//
// Transactions are strictly serializable, ranges included (no phantoms), over all groups: each Update and View happens at one
// moment between its call and its return. That does not depend on clocks. After nil an Update's writes are durable
// in a majority of each group. An Update that returns another error than synod.ErrUnknownOutcome has committed nothing, and never
// will; it is run again only where that is certain.
//
// A transaction over one group is one command in its log; one over several is one in each, at the same time, and the answer leaves when
// all have voted. Nobody blocks on a client that has gone: whoever meets what it has left closes the votes that are missing, and knows
// the outcome (package internal/paxoscommit has the protocol). A transaction that is over holds nothing.
//
// Waiting ends: a transaction that has asked for votes in several groups does not wait for an older one, but is tried again; so that
// those who wait never wait for each other. Those of one DB that write the same keys commit in turns: one learns what it writes by running
// its function, queues for all of that at one moment, and is run again if it had to wait; one that has read nothing, in one group, can't lose,
// and does not queue. One that has lost four times against those of other DBs, or has met three of them in its way one after the other, has its
// keys kept for it, for which older ones take them away and younger ones wait (wound-wait); once it has voted yes nobody takes anything
// away. It keeps its age, and is the oldest some day.
//
// # Cost
//
// The commands in the groups' logs, and messages between the nodes for them, are all that there is; what is on disk is
// the logs'. An Update that reads keys of replicas that are current costs no more than its commit; where others have changed them,
// it is tried again. A View costs a barrier in its first group, and in all if there are several.
//
// Transactions over several groups that follow each other over the same keys on one DB need a round each: when all have voted the next
// one reads what was written, though the groups do not know yet that it is committed, and they learn it from the command that asks for
// its vote. Who scans it, reads a key that was deleted, expects a value, or reads very much waits until the groups know, and so do other DBs: another round. Outcomes
// that no command takes along within a millisecond have one of their own, together; and so have those whose command has no answer within a quarter
// of Config.RecoverAfter.
//
//	                               commands in logs    rounds to the answer
//	Update in one group            1                   1
//	Update in n groups             n, and n batched    1
//	View in one group              none                a barrier
//	View in n groups               none                two barriers
//	ViewAt                         none, or one each   none, or 1
//
// # Timestamps
//
// A group's vote has a timestamp above all that it has given out, and at or above the client's clock, a hybrid logical one (package
// hlc); the highest of all votes is the commit's. Where two transactions have a key in common the later has the higher one. Between
// others timestamps follow the clocks: ViewAt reads as of one, without locks, and sees the commits up to it, all of
// them, and of each all or nothing. A node whose clock is off by more than hlc.Config.MaxOffset refuses transactions.
//
// # Limits
//
// A group's state is in memory. The groups and the route are the same for all nodes and for ever: moving keys between groups
// is package shard's. Each node that has a DB has a replica of each group. A transaction's part in a group is one command, and has its size.
//
// Where many DBs write the same key at a time all but one of them are tried again. Turns are for up to 64 keys a transaction; one that writes more
// does not queue. A value is kept until it is replaced, and for
// Config.Retention after it. A transaction that runs for longer than that is tried again, and fails at last.
//
// A group that has lost its majority holds what is prepared in it, and in the others, until it is back.
//
// # Differences from the papers
//
// Reads are validated when the group votes, as by Kung and Robinson ("On Optimistic Methods for Concurrency Control", 1981), and are
// locked from then until the outcome is known, as Spanner locks them from the start (Corbett et al., "Spanner", 2012):
// without that, two transactions over two groups could each miss the other's write. There is no commit wait: what is real-time order
// there from clocks is here from locks and barriers; the price is that a View over several groups may have to be tried again.
// Wound-wait (Rosenkrantz, Stearns and Lewis, 1978) is for what is kept for those that have lost; among those that have voted in part it is
// the younger that gives way by itself, their wait-die.
//
// What a transaction will write is found out by running it, as Calvin does for those that do not say so (Thomson et al., "Calvin", 2012, section
// 3.2.1); but the turns that follow are only advice, and the votes decide. What is read ahead of its groups is certain to be committed: unlike with
// controlled lock violation (Graefe et al., 2013) no commit waits for another one's outcome.
package kv
