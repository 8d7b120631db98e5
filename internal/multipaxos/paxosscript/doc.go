// Package paxosscript plays scripts (see package script of internal/replica) on cores of Multi-Paxos.
//
// # Usage
//
//	out, err := script.Play(script.New(paxosscript.Engine()), text)
//
// # Language
//
// Beside what all scripts take, bootstrap takes
//
//	phase1=COUNT phase2=COUNT       multipaxos.Quorums.Phase1, Phase2
//	sets1=(1+2,2+3) sets2=(1+3,2)   Sets1 and Sets2
//	priority=(0,0,9)                Protocol.Priority, a node each
//	quorums-of=NODE                 only this node has these quorums, the others have majorities
//
// A value reads slot:what@ballot, or slot:what@ballot/origin where it was first proposed in a lower ballot; a ballot
// round.node, or round.priority.node; @chosen is what is known to be chosen, in whatever ballot. A star
// marks, in a status, what is accepted and not durable. "fence" is a leader's first value, "gap" what it puts
// where nobody reported a value.
//
// # Guarantees
//
// Beside what holds for any engine: all acceptors have the same value for a ballot and a slot; nobody promises less,
// on its disk, than it did before, or than it has accepted; and nobody tells of a promise, or of what it
// has accepted, that is not on its disk.
package paxosscript
