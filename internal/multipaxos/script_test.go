package multipaxos_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/multipaxos"
	"github.com/synod-go/synod/internal/multipaxos/paxosscript"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica/script"
)

// TestScripts plays the scripts of testdata. Run with -rewrite to write what the cores do into
// the scripts, and read the difference.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			r := script.New(paxosscript.Engine())
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				out, err := r.Exec(line(d))
				if err != nil {
					d.Fatalf(t, "%v", err)
				}
				return out
			})
			require.Empty(t, r.Violations())
		})
	}
}

func line(d *datadriven.TestData) string {
	text := d.Cmd
	for _, a := range d.CmdArgs {
		text += " " + a.String()
	}
	return text
}

// TestPlay plays the scripts without datadriven, as whoever writes one does.
func TestPlay(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	for _, path := range files {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		out, err := script.Play(script.New(paxosscript.Engine()), string(text))
		require.NoError(t, err, path)
		require.Equal(t, string(text), out, path)
	}
}

var dump = flag.Bool("dump", false, "print what scripts do while a mistake is planted")

// mistake says which script finds a planted mistake, and how: by a violation of an invariant, or only because
// something else happens than is written there.
type mistake struct {
	bug, script string
	violation   bool
}

var mistakes = []mistake{
	{"a leader counts its accept before it is durable", "own_vote", true},
	{"an accept is acknowledged before it is durable", "normal", true},
	{"a promise leaves before it is durable", "normal", true},
	{"the round is not durable before the prepare", "round_durable", true},
	{"a round is used twice", "round_durable", true},
	{"a trimmed acceptor says empty", "promise_trimmed", true},
	{"the lowest ballot's value taken", "promise_highest_ballot", true},
	{"a partial promise counts", "promise_pieces", true},
	{"an accept does not raise the promise", "accept_raises_promise", true},
	{"a promise is not stored", "promise_survives_crash", true},
	{"an accept of a lower ballot is taken", "promise_survives_crash", true},
	{"a promise is forgotten", "promise_then_lower_prepare", false},
	{"accepts of another ballot counted", "accepts_of_own_ballot", true},
	{"decided marks slots of other ballots", "decided_marks", true},
	{"a gap is filled where there is a value", "gaps", true},
	{"a filled gap is a fence", "gaps", true},
	{"the window open behind a configuration", "reconfigure_window", true},
	{"phase 1 of the old configuration only", "reconfigure_twice", true},
	{"a quorum of one half decides", "reconfigure_joint", false},
	{"quorums need not intersect", "quorums_refused", true},
	{"a new leader answers reads at once", "read_leader", true},
	{"a leader answers reads without asking", "read_leader", true},
	{"a read looks at one member only", "read_quorum", true},
	{"a read takes what is accepted for decided", "read_quorum", true},
	{"an unreadable slot is empty", "damaged_slot", true},
	{"an unknown slot taken for an empty one", "damaged_slot", true},
	{"records are not checked", "damaged_slot", true},
	{"a lease binds nobody", "leases", false},
	{"a restarted member promises at once", "leases", false},
	{"a fence is about its own round, too", "state_ahead_of_log", true},
	{"a node that may not be the only voter leads at once", "leases_only_voter", false},
	{"a node that hears a leader stands for election", "leases", false},
	{"a replica that leaves forgets its promise", "leave_and_join", true},
	{"a replica that joins again takes what it accepted for nothing", "leave_and_join", true},
}

// TestScriptsFindPlantedBugs plays scripts while a mistake is planted, and wants them to fail.
func TestScriptsFindPlantedBugs(t *testing.T) {
	for _, m := range mistakes {
		t.Run(m.bug, func(t *testing.T) {
			text, err := os.ReadFile("testdata/" + m.script + ".txt")
			require.NoError(t, err)
			defer probe.Plant(m.bug)()
			r := script.New(paxosscript.Engine())
			out, err := script.Play(r, string(text))
			if err == nil {
				require.False(t, string(text) == out, "the script does not notice")
			}
			if *dump {
				t.Log(out)
			}
			was, is := firstDifference(string(text), out)
			t.Logf("before: %s\nnow: %s\n%v", was, is, err)
			t.Logf("%q", r.Violations())
			require.Equal(t, m.violation, len(r.Violations()) > 0)
		})
	}
}

func firstDifference(a, b string) (string, string) {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return x[i], y[i]
		}
	}
	return "", ""
}

// TestScriptedBugs holds the mistakes that only scripts find, and those that scripts find, against the code.
func TestScriptedBugs(t *testing.T) {
	for _, bug := range multipaxos.Scripted {
		require.True(t, slices.ContainsFunc(mistakes, func(m mistake) bool { return m.bug == bug }), "%q has no script", bug)
	}
	for _, m := range mistakes {
		require.Contains(t, multipaxos.Bugs(t), m.bug)
	}
}
