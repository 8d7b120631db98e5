//go:build unix

package postgres

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const bugVariable = "SYNOD_POSTGRES_BUG"

// finders are the tests that find the mistakes that the code can be told to make.
var finders = map[string]string{
	"postgres: any answer to PREPARE TRANSACTION is a yes":   "TestAFailedTransactionIsVotedNo",
	"postgres: what was ended and begun again is prepared":   "TestWhatCannotBePreparedIsVotedNo",
	"postgres: another role prepares":                        "TestWhatCannotBePreparedIsVotedNo",
	"postgres: there are no markers":                         "TestMarkersTellCommittedFromNeverPrepared",
	"postgres: earlier runs go on":                           "TestALaterRunTakesOver",
	"postgres: a session that is lost is not ended":          "TestTheConnectionIsLostInPrepare",
	"postgres: what is not prepared is committed":            "TestMarkersTellCommittedFromNeverPrepared",
	"postgres: an abort overlooks a commit":                  "TestADecisionByHand",
	"postgres: what another role has prepared is overlooked": "TestPreparedByAnotherRole",
	"postgres: earlier sessions are not ended":               "TestAnEarlierRunIsPreparing",
	"postgres: markers of what was in doubt are removed":     "TestMarkersAreRemoved",
}

// try runs tests with a mistake planted.
func try(s *server, bug, tests string) (string, error) {
	cmd := exec.Command(os.Args[0], "-test.run=^("+tests+")$")
	cmd.Env = append(os.Environ(), bugVariable+"="+bug, bugVariable+"_SERVER="+s.dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Each mistake is found: its test fails, in a process of its own, at the same server.
func TestPlantedBugs(t *testing.T) {
	s := running(t)
	t.Run("none", func(t *testing.T) {
		defer clean(t, s)
		out, err := try(s, "none", strings.Join(slices.Sorted(maps.Values(finders)), "|"))
		require.NoError(t, err, "%s", out)
	})
	found := 0
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range names {
		source, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`probe\.Bug\("([^"]+)"\)`).FindAllStringSubmatch(string(source), -1) {
			found++
			bug := m[1]
			t.Run(bug, func(t *testing.T) {
				require.Contains(t, finders, bug)
				defer clean(t, s)
				out, err := try(s, bug, finders[bug])
				require.Error(t, err, "not found:\n%s", out)
				require.Contains(t, out, "--- FAIL: "+finders[bug])
				t.Log(out)
			})
		}
	}
	require.Len(t, finders, found)
}
