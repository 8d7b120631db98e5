// Package synod is the vocabulary that all packages of the library share: what
// an application replicates ([StateMachine]), what a replicated log looks like
// to its users ([Log]), what an operator sees ([GroupStatus], [NodeStatus],
// [Event], [Metrics]), and the errors that tell a caller what became of its
// request. It holds interfaces, plain data and errors, and no code that runs;
// it imports nothing but the standard library.
//
// # Usage
//
// An application implements [StateMachine], hands it to an engine (package
// raft), and talks to the resulting [Log]:
//
//	group, err := node.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: sm})
//	…
//	result, err := group.Propose(ctx, command)
//
// Code that needs a replicated log, and does not care which protocol stands
// behind it, takes a [Log].
//
// # The three outcomes
//
// A caller of [Log.Propose] learns one of three things:
//
//   - nil: the command was applied, and the result is the state machine's.
//   - an error for which errors.Is(err, ErrUnknownOutcome) holds: the command
//     may have been applied, may be applied later, or never. To repeat it
//     blindly is to risk applying it twice.
//   - any other error: the command was certainly not applied and never will be.
//
// # Sessions
//
// A command of unknown outcome can be repeated safely if it was proposed in a session:
// [SessionLog] numbers it, and the group applies it once, whoever sends it how often to
// which node. The group keeps the number, and the result until the client says that it
// has it, within limits; a session that nobody uses expires.
//
// # Identifiers
//
// Nodes and groups are named by a uint64 that is never zero. A node's ID is
// never used again for another node or for another disk. A state machine sees an
// index that counts commands; a [GroupStatus] counts entries of the log, of which
// one may hold many commands, or none.
//
// # Limits
//
// Nothing here says how a protocol works or how fast it is: see the packages
// that implement [Log].
package synod
