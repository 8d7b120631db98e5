//go:build race

package grouptest

// slower is how much more time there is between two heartbeats: with the race detector all takes much longer.
const slower = 4
