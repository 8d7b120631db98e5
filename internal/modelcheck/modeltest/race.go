//go:build race

package modeltest

// Racing says that the race detector watches: it is ten times slower.
const Racing = true
