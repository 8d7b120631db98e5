//go:build race

package files

// racing says that the race detector watches: it is ten times slower.
const racing = true
