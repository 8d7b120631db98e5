//go:build race

package twophase_test

// racing says that the race detector watches: it is ten times slower.
const racing = true
