// Package commit is the models of two-phase commit: the core that ships (internal/twophase), and the state machine of the
// decision log that ships (txn.DecisionMachine), with what the runtime does around them, over disks that lose what was not
// durable, and resources that do not.
//
// # Usage
//
//	s := commit.System()
//	network, err := s.Models[0].New(false)
//	result, err := explore.Run(network, explore.Options{})
//
// A [Model] says what is explored and within which bounds. [Player] plays the scripts in which counterexamples are told.
//
// # Steps
//
// A transaction begins; a message is delivered, at any time after it was sent, as often as one likes, or never; the oldest batch
// of a node becomes durable; a resource does what it was asked, and answers, with any vote that the model allows; time passes on a
// node, by one tick, which is as long as anybody waits for anything, so that all time-outs may come at any moment; a node
// crashes, loses what was not durable, and starts again; a proposal to a shared decision log fails for who made it; a resource
// fails; an operator decides; a coordinator's store is lost.
//
// A decision in a local log is durable in the step that makes it: a crash right before it is the same as one before that step, and one
// right after it the same as one after it whose messages are lost. For the same reason there is no crash between a write, or what a
// resource does, and its being told to the core. A shared log is a node of its own that never crashes, to which proposals, and
// from which answers, may be late, lost or repeated.
//
// # What is checked
//
// Of each step of a node:
//
//   - A vote of yes leaves only when its record is durable, an acknowledgement only when no record says that the branch is not over.
//   - Nothing is prepared, or begun in one phase, of which a durable record says that it is over: not after its tombstone, and
//     not after that was collected.
//   - A resource is asked to commit only what it has prepared, never to abort what it has committed, and to commit in one phase
//     once.
//   - No core stops, panics, refuses a message of another one, or reports damage where no operator has decided.
//
// Of a run, by an observer that sees what resources have done, what is decided, answered, and told by one node to another:
//
//   - A transaction is decided to be committed, told so or answered so only when all its branches are prepared or have
//     nothing to commit; and where no single resource decides, only when that stands in the decision log.
//   - Nothing is committed that was aborted anywhere, decided, told or answered to be, and the other way round: no split,
//     and nobody who has voted yes decides alone.
//   - A register is written once; that a transaction was committed is forgotten only after each participant has committed it.
//   - A transaction is answered once.
//   - Whoever has nothing to commit lets go of its locks only when nobody takes any more.
//
// Of states, all of them or a sample (Model.Sample): once nothing fails any more everything ends, though all that was on its way is
// lost. No resource holds anything then, nobody is in doubt, local logs have forgotten all commits, and an operator's wrong decision is
// on record. With a shared log the same is asked without the coordinator, which never runs again: it blocks nobody.
//
// # Limits
//
// What is explored is what the bounds say (Model.Bounds), and no more. A node that does not crash in a model makes everything
// durable at once. What a resource did before it was asked to prepare, and a call of it that goes on while its node
// crashes, are in no model; a resource that has had nothing to commit has nothing later, either. In a shared log, a lost
// request to forget is not repeated as the runtime does: that it forgets in the end is not checked.
package commit
