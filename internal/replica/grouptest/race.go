//go:build race

package grouptest

// slower is how much longer things may take, and heartbeats are apart: the race detector makes all much slower.
const slower = 4
