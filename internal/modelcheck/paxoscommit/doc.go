// Package paxoscommit is the models of commitment over consensus groups: the cores that ship (internal/paxoscommit), with what
// txn/kv does around them.
//
// # Usage
//
//	s := paxoscommit.System()
//	network, err := s.Models[0].New(false)
//	result, err := explore.Run(network, explore.Options{})
//
// A [Model] says what is explored and within which bounds. [Player] plays the scripts in which counterexamples are told.
//
// # Steps
//
// A group is a replicated log, and so one machine that never crashes. The client begins a transaction, or gives one up whose
// outcome it does not know; a message is delivered, at any time after it was sent, as often as one likes, or never; a group forgets the
// sessions that nobody has used for some time; it is full, and takes in no session that it does not know.
//
// A message is a command that was proposed, which is applied when it is delivered, and so late, repeatedly or never; or the answer
// to one; or that somebody looks at a group's state, which may be an old one, and comes across a transaction that has a record there. That
// is how recoverers begin. A client or a recoverer crashes by hearing nothing any more: they have nothing that lasts.
//
// Whether a group votes yes or no is chosen by which of two requests arrives first.
//
// # What is checked
//
// Of each step of a group:
//
//   - A vote is written once, and not again after it was forgotten.
//   - Locks are held exactly while the group has voted yes and knows no outcome. So nothing but the outcome releases them, and
//     no yes without one is forgotten.
//
// Of a run, by an observer that sees what groups write, learn and forget, and what the client's caller is told:
//
//   - All learn the same outcome, which the answer does not contradict: a commit if all vote yes, in the end, and an abort otherwise.
//   - It is at one timestamp, the highest of the votes', whoever finds it out.
//   - A group forgets a transaction, or is told that all know its outcome, only when that is so; and nobody votes yes then.
//   - Nobody reports a contradiction.
//
// Of all states: once nothing fails any more everything ends, though all that was on its way is lost. That is asked of a recoverer that begins
// then, without anybody else, and of the client with a recoverer after it. No group holds anything then, and each can forget all sessions.
//
// # Limits
//
// What is explored is what the bounds say (Model.Bounds), and no more. Data and conflicts, which make groups vote no or wait, are in no
// model, nor is the order of outcomes that txn/kv tells a group in one command. The model follows txn/kv's client and recoverer, which
// are not the code itself. They tell a group what they know as soon as they do, where txn/kv waits for what it has asked others: that is more than it does.
// A limit of the registers is a group that says so, for it is too high to be reached.
package paxoscommit
