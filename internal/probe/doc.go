// Package probe is where the library's code and a simulation meet: places that must
// be reached once in a while, rare branches that a simulation can force, mistakes
// that can be put back on purpose, and what an invariant wants to see.
//
// # Usage
//
// The code says what it has to say and does not ask who listens:
//
//	probe.Sometimes("raft: a follower's entries are overwritten", first <= last)
//	if probe.Buggify("replica: a small batch") { limit = 1 }
//
// A test plants a bug by its name ([Plant]), which stands in one line of the code:
//
//	if !probe.Bug("acknowledge before durable") { … }
//
// # Guarantees
//
// Without a simulation in this process, which is always so in production, Sometimes and
// Observe do nothing, and Buggify and Bug are false: each costs one load of a variable
// that never changes. A protocol core may use this package: what it asks here has one
// answer outside of a simulation, and one that the seed decides within.
//
// # Limits
//
// One simulation runs in a process at a time, since the probe is the process's. Tests
// that run beside it, in parallel, would be taken for a part of it.
package probe
