//go:build race

package check

// scale divides the number of seeds: what runs on one goroutine is slow under the race
// detector, and teaches it nothing.
const scale = 10
