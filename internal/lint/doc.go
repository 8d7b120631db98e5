// Package lint is the rules of the house as ordinary tests: what may import what,
// who may use the clock and start goroutines, what a protocol core may not touch,
// that everything is documented, that the module stays light. It has no code to
// import; `go test ./internal/lint` checks the tree.
//
// # Marks
//
//	//synod:core       in a file: it is part of a protocol core
//	//synod:ordered    at the end of a line that ranges over a map: the order in which
//	                   it does so reaches no output (say why, unless it is plain)
//
// # Limits
//
// The rules look at syntax, file by file, without types: they catch what one does
// by habit, not what one does to get around them.
package lint
