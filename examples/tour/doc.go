// Package tour is the code that the README shows. It stands here so that it
// compiles and runs as a test; internal/lint checks that the README shows just
// this.
package tour
