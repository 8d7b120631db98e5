// Package grouptest proves that an engine, that is a protocol on the runtime of
// package replica, keeps what packages synod and replica promise of a group as a
// whole. Each rule is a subtest whose name states the rule. It knows no protocol:
// what belongs to one alone is tested in its own package.
//
// # Usage
//
// An engine's test hands in how to start a node:
//
//	func TestGroup(t *testing.T) { grouptest.Run(t, engine{}) }
//
// Run it with the race detector, too.
//
// # How it tests
//
// Each subtest runs a cluster in the process: nodes of the engine, a network whose
// links can be cut, and lose, repeat, delay and reorder what the test says, disks
// that can hold back syncs, fail, be full, and crash, and state machines that keep
// every command that they applied and can block, fail and panic. A history keeps
// what every caller was told; at the end it is held against the state machines:
// what was acknowledged stands in all of them, once, at its place; what was
// certainly not executed in none.
//
// The subtests wait for what happens and do not measure time: they bear an election
// that nobody asked for. What must not happen is looked for after something else
// has happened that would have come later.
//
// # Limits
//
// The interleavings are those that the scheduler happens to make. That every one of
// them is right is for a simulation and for the tests of a protocol's core.
package grouptest
