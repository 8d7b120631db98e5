// Package txn is atomic commitment: a transaction over several resources, on several nodes, is committed by all of them
// or by none. It is two-phase commit as it was meant, with what is usually left out: recovery of both sides, presumed abort,
// participants that have nothing to commit, cooperative termination, operators' decisions and their damage, and a
// decision that is written once, on one node or in a replicated log. Or, over the same resources, it is three-phase commit, which
// needs neither of them: the participants decide.
//
// # Usage
//
// Each node runs a [Manager] over its transport and its store, with the resources that it has:
//
//	manager, err := txn.Start(ctx, txn.Config{
//		Cluster: "shop", Node: 1, Transport: tr, Store: st,
//		Resources: map[string]txn.Resource{"orders": orders},
//	})
//	tx, err := manager.Begin(ctx)
//	… // have the resources do something, under tx.ID(); or hand them their work with Commit
//	err = tx.Commit(ctx,
//		txn.Participant{Node: 1, Resource: "orders"},
//		txn.Participant{Node: 2, Resource: "stock", Work: work},
//	)
//
// The node that begins a transaction coordinates it. What can take part implements [Resource]; what can commit without
// preparing may be a [OnePhaseCommitter] as well.
//
// # Guarantees
//
// If one participant commits, all do, or will when they can; nobody does after a Commit that returned an [AbortError]. Commit has
// three ends: nil, ErrAborted, and synod.ErrUnknownOutcome where the caller did not wait for the outcome.
//
// A vote of yes, an acknowledgement and a decision are durable before anybody is told. A transaction's ID never recurs. An
// aborted transaction leaves a tombstone, so that a request to prepare that comes late is refused, and where tombstones
// were collected a mark below which all are refused. A transaction that is over holds nothing.
//
// What a participant that has voted yes waits for is asked for: of the coordinator, after [Config].PeerTimeout of the other
// participants, and after Config.TakeOver, where the decision log is replicated, of the log itself, by a proposal to abort. It
// never decides alone. [Manager.Status] says for how long it has been in doubt, and for whom it waits.
//
// # Cost
//
// N participants that vote yes, beside the coordinator or not, cost N+1 forced writes until the caller is answered: each
// its record that it is prepared, and one decision. What a resource writes itself is its own. That a branch is over is written with
// the next record that somebody waits for, or with the next tick; the acknowledgement waits for that. Messages, with the
// coordinator elsewhere: 3N, and N acknowledgements; with it beside one of them, 3(N-1), and N-1.
//
//	participants        messages  acknowledgements  forced writes
//	1, remote                  2                 0              1
//	2, one beside              3                 1              3
//	3, one beside              6                 2              4
//	5, one beside             12                 4              6
//	3, all remote              9                 3              4
//	read-only, each            2                 0              0, and one in 65,536 transactions
//
// # Where decisions are
//
// [LocalLog] is in the coordinator's own store: classic two-phase commit. While the coordinator is away, a participant in doubt is
// helped by the others if one of them knows, or has not voted; if all have voted, they wait. [ReplicatedLog] is in a group of
// raft or paxos: any participant may propose to abort, whichever proposal is first wins, and a coordinator that was only
// slow learns it. Nobody blocks then, as long as the group works. [DecisionLog] is the seam between; package txn/txntest has its
// rules.
//
// # Which protocol
//
// Config.Protocol, the same on all nodes:
//
//	                                     blocked by                          answer after              forced writes
//	TwoPhase, LocalLog                   the coordinator's node, while       2 delays, and one write   N+1
//	                                     nobody else knows the outcome
//	TwoPhase, ReplicatedLog              a group without a majority          2 delays, and the log's   N, and the log's
//	EnhancedThreePhase                   no majority of the participants     4 delays                  2N
//	SkeenThreePhase                      nothing: and splits                 4 delays                  2N
//
// EnhancedThreePhase is E3PC of Keidar and Dolev. After its votes the participants are asked to pre-commit, and a majority that has makes a
// commit; a coordinator keeps no records. Whoever hears no leader for Config.PeerTimeout is elected by a majority, and terminates the
// transaction by what the latest attempt was that it knows of. So neither the coordinator nor whoever was elected is needed by the others, and
// partitions and failures one after the other do no harm: it is for three and more participants without a group of consensus beside
// them. Two participants are no majority without each other. A participant that has nothing to commit has a voice, and writes its
// vote: a node can be added as a witness. Messages: 5N, or 5(N-1) with the coordinator beside one, and 2N, or 2(N-1), to forget the transaction.
//
// There is no last agent, nothing is committed in one phase, and operators decide nothing: a majority has to be brought back. A
// node that is lost for good keeps the other participants of its last transactions from forgetting them: at most Config.MaxBranches.
//
// SkeenThreePhase is Skeen's nonblocking protocol, where whoever is left decides. Warning: it splits transactions when a node that
// is only slow, or cut off, is taken for crashed. A test shows it (internal/threephase, TestSkeenSplitsUnderAPartition), and
// that EnhancedThreePhase does not in the same place.
//
// # Last agent
//
// One participant may be unable to prepare: Participant.LastAgent. It is asked when all others are prepared and a record says so,
// and what it does is the decision. From then until its answer has arrived only it knows the outcome: if it is lost for good in
// that window, or cannot tell afterwards what it did, the others stay in doubt until an operator looks, and says so by
// [Manager.Settle]. Nobody may take over, whatever the log.
//
// # Operators
//
// [Manager.Force] decides what is in doubt by hand. If the outcome turns out to be another, that is damage: it is
// recorded, durably, on the participant's node and, for a commit, on the coordinator's, reported in Status, and stays until
// [Manager.ClearDamage]; of more than 16,384 only the log says more. A resource that decided by itself says so by a [HeuristicError], with the same effect.
//
// # Limits
//
// Atomicity is not isolation: what others see between the commits of two participants, and which locks are held for
// how long, is the resources' business. Locks are held while a participant is in doubt.
//
// A store must not be brought back as an older copy, and a node whose store was lost must come back under a new ID: it has
// forgotten its votes. Both are noticed, and refused, where somebody knows better: a transaction that the coordinator has not begun, a
// decision log that is ahead, a resource that has prepared what a new store knows nothing of, a peer that was met with another
// store. They are not where nobody does.
//
// A resource's work that was never prepared is the resource's own to give up when it hears nothing more. All its prepared
// transactions belong to one manager: two names for one thing are two resources, and each lists its own in InDoubt.
// Resources must answer InDoubt for Start to succeed.
//
// A read-only vote is not written. If the node crashes after it and the request to prepare arrives a second time, the resource is
// asked again, and may be in doubt until the coordinator answers.
//
// A decision in a ReplicatedLog is proposed through the log of the coordinator's node: raft and paxos take proposals on their leader
// alone, so that it stands over a [Forwarder], which passes them on to it.
//
// # Differences from the papers
//
// Mohan, Lindsay and Obermarck ("Transaction Management in the R* Distributed Database Management System", 1986) have presumed
// abort with a forced commit record at each participant, and so 2N+1 forced writes; here it is not forced, and the acknowledgement
// waits instead. Gray and Lamport ("Consensus on Transaction Commit", 2006) count 3N-1 messages from a participant that begins
// the commit; here the coordinator is the caller's own node. They do not count acknowledgements, without which a
// decision could never be forgotten. Those from the papers of three-phase commit are in the documentation of internal/threephase.
package txn
