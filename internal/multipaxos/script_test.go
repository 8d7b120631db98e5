package multipaxos_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/multipaxos/paxosscript"
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
