//go:build race

package main

// racing: a simulation runs on one thread, so that the race detector, which makes it ten
// times as slow, has little to find.
const racing = true
