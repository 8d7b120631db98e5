//go:build !race

package grouptest

// slower is how much longer than usual things may take.
const slower = 1
