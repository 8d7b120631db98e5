package lint

import (
	"fmt"
	"slices"
	"strings"
)

// allowed is what the root module may require directly.
var allowed = []string{
	"github.com/anishathalye/porcupine", // checks histories: sim/history
	"github.com/cockroachdb/datadriven", // scripts in tests
	"github.com/cockroachdb/pebble/v2",
	"github.com/stretchr/testify",
	"github.com/tidwall/btree", // the keys of txn/kv: copies on write, no dependency of its own
	"go.etcd.io/raft/v3",
	"google.golang.org/protobuf", // the types of raft's own interface
}

// checkModule holds a go.mod against what the root module may be.
func checkModule(mod string) (problems []string) {
	block := ""
	for line := range strings.Lines(mod) {
		text, comment, _ := strings.Cut(strings.TrimSpace(line), "//")
		fields := strings.Fields(text)
		switch {
		case len(fields) == 0:
			continue
		case fields[0] == ")":
			block = ""
			continue
		case len(fields) == 2 && fields[1] == "(":
			block = fields[0]
			continue
		case block != "":
			fields = append([]string{block}, fields...)
		}
		switch fields[0] {
		case "replace":
			problems = append(problems, "go.mod: replace: whoever imports the module would not get it")
		case "toolchain":
			problems = append(problems, "go.mod: toolchain: it would be downloaded; the go line says what is needed")
		case "require":
			if !strings.Contains(comment, "indirect") && !slices.Contains(allowed, fields[1]) {
				problems = append(problems, fmt.Sprintf("go.mod: requires %s: heavy things live in nested modules", fields[1]))
			}
		}
	}
	return problems
}
