// Package network makes a system that can be explored of nodes that send each other messages.
//
// # Usage
//
// A [Node] is one participant, a [Config] all of them, with an [Observer] that remembers what must be
// remembered of a run to say whether it is right. [New] makes an explore.System of that. A protocol's package has a
// [System], of some [Model], which the command in the folder above explores; [Network.Script] tells of a path that
// explore.Run has found, as a script that a Model plays. What all of them have in common of that is here, too: a [Command] is a line
// of a script, a [Stage] has what is on its way between the nodes, [Play] goes from line to line.
//
// # Steps
//
// A step is one input to one node: a message is delivered, or one of its [Node.Inputs] happens. What happens to a
// node depends on nothing but what it is and what it is given.
//
// A message that was ever sent can be delivered at any time from then on, as often as one likes, or never: so
// messages are lost, repeated, late and out of order, and none of that is a step of its own. The order in which messages
// were sent is no part of a state.
//
// What may happen without end is bounded by a [Budget]. [Input.Late] and a late delivery mean that what the node
// writes is not durable when it goes on.
//
// # Fewer states
//
// Nothing is left out by the following, but what can be told from a state that was explored.
//
//   - Two nodes that will do the same from here on are the same ([Node.Fingerprint]); two that will if they never restart
//     are, once none restarts any more, or if they belong to those that never do ([Running], Config.Restarting).
//   - A message that will have no effect is no part of a state ([Deaf]). What a node says of that is held against what
//     it does: [ErrDeaf].
//   - If a message makes a node send others, and the node stays as it is, that happens at once: it only
//     adds to what may be delivered.
//   - Of two states that are the same, but that less was used of the budgets in one, the other is left out (Budget.Free): all
//     that can come of it can come of the first, too.
//
// # Guarantees
//
// Each different step of a single node is taken once, however many states it occurs in, and then taken again from a copy:
// nodes that do not do the same each time, or that share something with their copies, are found out. A panic is a violation.
//
// # Limits
//
// At most [MaxNodes] nodes and [MaxBudgets] budgets of up to 255. All different states of single nodes, and all messages, are
// kept in memory. Fingerprints are taken at their word: what a node leaves out of it must not matter.
package network
