// Package paxos is the models of Multi-Paxos: the core that ships (internal/multipaxos), with what the runtime does
// around it, over disks that lose what was not durable.
//
// # Usage
//
//	s := paxos.System()
//	network, err := s.Models[0].New(false)
//	result, err := explore.Run(network, explore.Options{})
//
// A [Model] says what is explored and within which bounds: the first of them, base, elections, proposals and crashes in
// any order, with any loss and repetition; the others what that leaves out, each within bounds of its own. Some begin with a
// script (Model.Before), since what they look at is far from the first state. [Player] plays scripts; it takes those commands
// of the language of package script of internal/replica that a counterexample needs.
//
// # What is checked
//
// Of each step of a node:
//
//   - A prepare or a promise leaves only when the promise is durable; promises, over all restarts, do not become less.
//   - An accepted names only what is durable.
//   - What becomes durable was not accepted in a ballot below a durable promise.
//   - Decided values are handed out in order.
//   - With leases: nobody helps to elect a leader for ElectionTicks after it has heard another one, or was opened.
//   - No message of one of them is refused by another as malformed, no store by its own core, and no core panics; unless a
//     disk was damaged.
//
// Of a run, by an observer that sees all votes as they become durable:
//
//   - In each slot and ballot one value is proposed.
//   - In each slot one value is chosen: enough have accepted it in one ballot, and one is chosen in each slot before, in that
//     ballot or in a lower one. Behind an open slot a value may be given up even if all have accepted it: see package
//     multipaxos.
//   - Nothing else is proposed in the slot in a higher ballot, be it that it was before.
//   - What a leader takes for decided, what is handed out and what a snapshot stands for is chosen, and has one term.
//   - What a node is told to be lost (replica.Entry.Fence) is never chosen in a later slot.
//   - A read sees all that anybody knew to be decided when it began.
//   - Nothing is proposed under a configuration behind another one that is chosen.
//
// # Limits
//
// What is explored is what the bounds say (Model.Bounds), and no more: a few nodes, slots and ballots. A node takes up what it
// is given in one go, with all that the core wants done: batches in between are a model of their own (pipeline). Messages
// of kinds that a model loses are never delivered in it. Nothing is said of progress, and nothing of the runtime's threads, frames
// and sessions: the simulations of internal/simulate do.
//
// Values are named in the order in which they are proposed, so that runs which differ in their names alone are one. Nodes are
// not interchangeable: ballots end in their numbers, which decide who wins, so that a symmetry of nodes would not be sound.
package paxos
