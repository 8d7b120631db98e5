// Package modeltest is what the tests of each protocol's models have in common: that each planted mistake is found, that the
// counterexamples which are kept still show what it leads to, and that no mistake is forgotten.
//
// # Usage
//
// A protocol's test says what it has, and calls what is to hold, each in a test of its own:
//
//	var suite = modeltest.Suite[*Model]{Models: models, Bugs: bugs, Sources: []string{"../../twophase/*.go"}, …}
//
//	func TestBugsAreFound(t *testing.T) { suite.BugsAreFound(t) }
//
// Counterexamples are kept in the package's folder testdata, a file each. After a change of a model, or of the code,
//
//	go test ./internal/modelcheck/commit -rewrite
//
// finds all of them again and writes them, those of slow mistakes, too; what is different is to be looked at before it is kept.
//
// # Limits
//
// A mistake is planted in the whole process: none of these tests runs beside another, in parallel.
package modeltest
