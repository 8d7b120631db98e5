// Package system is what can be simulated: clusters of this library's engines, with clients,
// faults and checks. The command in the folder above runs them over many seeds; the tests of
// the engines run a few.
//
// # Usage
//
//	s := system.All()["raft"]
//	outcome := s.Do(system.Job{Seed: 7, Twice: true})
//
// # Limits
//
// One job runs in a process at a time, as one simulation does.
package system
