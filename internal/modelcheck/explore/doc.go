// Package explore goes through all states that a system can reach, breadth first, and finds the shortest
// way to one in which something is wrong.
//
// # Usage
//
// A [System] has a first state, and tells a [Visit] of each step that a state allows: where it leads to, or
// what it violates. [Run] explores it within [Options]; [Replay] goes along a path that it has found.
//
//	result, err := explore.Run(system, explore.Options{MaxBytes: 8 << 30})
//	if result.Violation != nil {
//		states, _ := explore.Replay(system, result.Path)
//		…
//	}
//
// # Guarantees
//
// If Complete is set all states were explored that can be reached within the system's own bounds; else Stopped says at
// which of the options the exploration ended. No path to a violation is shorter than Path. What is found depends
// on nothing but the system: not on how many workers there are, nor on who comes first. A system whose steps
// are not the same each time is found out, by taking the steps from some states twice, and Path once more.
//
// # Limits
//
// Of a state only its hash is kept, in 24 bytes and a place in a table of them. Two of n states have the same with a
// probability of n²/2¹²⁹: with 10⁹ states that is 10⁻²¹. At most 2²⁶ states have the same first six bits of their hash,
// so that about 4·10⁹ states in all are the limit. The states that were found and are not explored yet are held in memory.
//
// What goes on forever is not looked at: a run that never gets anywhere violates nothing here.
package explore
