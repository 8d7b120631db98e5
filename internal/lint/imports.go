package lint

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// floors says on which floor a folder, and what is below it, stands: that of the
// longest prefix counts. Imports run downwards only, or stay within one entry.
var floors = map[string]int{
	".":                   0,
	"hashring":            1,
	"txn/check":           1, // tests of all floors hold histories against it
	"internal/executor":   1,
	"internal/probe":      1,
	"transport":           2,
	"storage":             2,
	"sim":                 3,
	"internal/replica":    3,
	"internal/multipaxos": 4, // the core of paxos, which internal/modelcheck explores, too
	"internal/twophase":   4, // the core of txn
	"raft":                5,
	"paxos":               5,
	"txn":                 6,
	"shard":               7,
	"examples":            8,
	"internal/simulate":   8, // commands that run whole clusters
	"internal/experiment": 8,
	"internal/modelcheck": 8,
	"internal/lint":       8,

	"internal/wire":        1,
	"internal/paxoscommit": 4, // the cores of txn/kv
	"txn/hlc":              4,
	"txn/files":            7, // a resource: what takes part in transactions stands above them

	// A state machine for a Log, that comes with the store's engine. Its tests run it under
	// one.
	"storage/pebble/statemachine": 6,
}

// strangers may not see each other, whatever the floor.
var strangers = []struct{ from, to, why string }{
	{"raft", "paxos", "engines do not know each other"},
	{"paxos", "raft", "engines do not know each other"},
	{"txn", "raft", "it sees a synod.Log"},
	{"txn", "paxos", "it sees a synod.Log"},
	{"txn", "internal/replica", "it sees a synod.Log"},
	{"shard", "raft", "it sees a synod.Log"},
	{"shard", "paxos", "it sees a synod.Log"},
	{"shard", "internal/replica", "it sees a synod.Log"},
	{"transport", "storage", "the seams do not know each other"},
	{"storage", "transport", "the seams do not know each other"},
	{"hashring", ".", "it imports nothing of ours"},
	{"txn/check", ".", "it imports nothing of ours"},
	{"transport/inproc", "transport/tcp", "whoever takes one does not compile the other"},
	{"transport/tcp", "transport/inproc", "whoever takes one does not compile the other"},
	{"storage/memory", "storage/pebble", "whoever takes one does not compile the other"},
	{"storage/pebble", "storage/memory", "whoever takes one does not compile the other"},
}

// simulated is all of ours that sim imports: the interfaces, and nothing above them.
var simulated = []string{".", "transport", "storage", "internal/executor", "internal/probe"}

func inside(dir, home string) bool {
	return dir == home || home != "." && strings.HasPrefix(dir, home+"/")
}

// home returns the entry of floors that a folder belongs to.
func home(dir string) (entry string, floor int, known bool) {
	for d, f := range floors {
		if inside(dir, d) && len(d) > len(entry) {
			entry, floor, known = d, f, true
		}
	}
	return entry, floor, known
}

func imports(f *file) []string {
	var paths []string
	for _, s := range f.syntax.Imports {
		p, _ := strconv.Unquote(s.Path.Value)
		paths = append(paths, p)
	}
	return paths
}

// helper reports whether a folder helps tests: it is called something-test.
func helper(dir string) bool { return strings.HasSuffix(path.Base(dir), "test") }

// checkImports holds the imports of one file against the house.
func checkImports(f *file) (problems []string) {
	say := func(format string, args ...any) {
		problems = append(problems, f.path+": "+fmt.Sprintf(format, args...))
	}
	from, floor, known := home(f.dir)
	if !known {
		say("the folder %s stands on no floor: give it one in internal/lint, imports.go", f.dir)
		return problems
	}
	for _, p := range imports(f) {
		if strings.HasPrefix(p, "github.com/cockroachdb/pebble") && !inside(f.dir, "storage/pebble") {
			say("imports %s: only storage/pebble does, and what is below it, so that whoever brings a store does not compile it", p)
		}
		if f.dir == "." && !f.test && strings.Contains(p, ".") {
			say("imports %s: the vocabulary imports the standard library only", p)
		}
		if !f.test && !helper(f.dir) && (p == "testing" || strings.HasPrefix(p, "testing/") || strings.HasPrefix(p, "github.com/stretchr/testify")) {
			say("imports %s: only tests and their helpers do", p)
		}
		dir, ours := below(p)
		if !ours {
			continue
		}
		if f.test && inside(dir, "internal/simulate") {
			continue // the tests of an engine run the simulated system that it is a part of
		}
		if dir == "storage/pebble/statemachine" && f.dir != dir && !inside(f.dir, "examples") && !f.test {
			say("imports %s: applications do", dir)
		}
		to, toFloor, known := home(dir)
		switch {
		case !known:
			say("imports %s, which stands on no floor: give it one in internal/lint, imports.go", dir)
		case toFloor >= floor && to != from:
			say("imports %s, which is not below %s", dir, from)
		}
		if f.test {
			continue // tests may bring together what does not know each other
		}
		if helper(dir) && !helper(f.dir) {
			say("imports %s: only tests and their helpers do", dir)
		}
		if f.dir == "sim" && !slices.Contains(simulated, dir) {
			say("imports %s: sim knows the interfaces and nothing above them", dir)
		}
		for _, s := range strangers {
			if inside(f.dir, s.from) && inside(dir, s.to) {
				say("imports %s: %s", dir, s.why)
			}
		}
	}
	return problems
}
