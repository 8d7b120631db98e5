// Package lint is the rules of the house as ordinary tests: what may import what,
// who may use the clock and start goroutines, what a protocol core may not touch,
// that everything is documented, that the module stays light. It has no code to
// import.
//
// # Usage
//
//	go test ./internal/lint
//
// checks the tree. What breaks a rule is named with file and line, with the rule,
// and with what to do instead. A new folder needs a floor in imports.go; code that
// really does input and output, an entry in allowances.
//
// # Marks
//
//	//synod:core             on a line of its own, in a file: it is part of a protocol
//	                         core; in doc.go: the whole package is
//	//synod:ordered REASON   at the end of a line of a core that walks through a map:
//	                         why the order in which it does so reaches no output
//
// # Limits
//
// Uses of the clock, of goroutines and of maps are found by their types, whatever
// the name under which they are known, but not through what another module does
// with them, nor through reflection. Files that are not built on this platform are
// not looked at in this way, and tests may use the clock as they like.
package lint
