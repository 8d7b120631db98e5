// Package systemtest is what each engine's tests do with its simulation.
//
// # Usage
//
//	func TestSimulation(t *testing.T) { systemtest.Sweep(t, "raft", 60) }
//
// # Limits
//
// One simulation runs in a process at a time: none of these tests runs beside another, in parallel.
package systemtest
