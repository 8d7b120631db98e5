//go:build !race

package grouptest

// slower is how much more time there is between two heartbeats than usual.
const slower = 1
