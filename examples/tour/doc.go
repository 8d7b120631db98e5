// Package tour is the code that the README shows: a state machine, a node that
// replicates it, writes with their three outcomes, and reads that are up to date
// on every node. It stands here so that it compiles and runs as a test;
// internal/lint checks that the README shows just this.
package tour
