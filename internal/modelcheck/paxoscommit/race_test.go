//go:build race

package paxoscommit

// racing says that the race detector watches: it is ten times slower.
const racing = true
