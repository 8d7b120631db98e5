// Package threephase is the models of three-phase commit: the core that ships (internal/threephase), over disks that lose what was
// not durable, with a resource on each node.
//
// # Usage
//
//	s := threephase.Enhanced()
//	network, err := s.Models[0].New(false)
//	result, err := explore.Run(network, explore.Options{})
//
// A [Model] is one transaction that node 1 coordinates, and bounds: how often participants stand for election, how often the
// coordinator gives up waiting, how often nodes crash. Messages come at any time, as often as they like, or never, so that partitions,
// however they come and go, need no steps of their own. [Enhanced] has the models of E3PC, [Skeen] those of Skeen's protocol, where a leader
// may take at any time those for crashed who have not answered: that is what a partition looks like. [Player] plays scripts.
//
// # What is checked
//
// All resources that do something do the same, and the caller is told the same; nobody commits if one votes no; nothing is committed that
// is not prepared, prepared after it was committed, or aborted after it was committed; no damage is reported; no core stops.
//
// # Limits
//
// One transaction, one resource on each node. No time passes: what happens by time are steps that may be taken at any moment. Most models leave
// out how a transaction is forgotten, which "closing", "forgetting" and "alone" look at.
package threephase
