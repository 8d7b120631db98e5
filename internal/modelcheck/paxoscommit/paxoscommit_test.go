package paxoscommit

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/modelcheck/explore"
	"github.com/synod-go/synod/internal/modelcheck/modeltest"
	"github.com/synod-go/synod/internal/modelcheck/network"
)

var suite = modeltest.Suite[*Model]{
	Models: models, Bugs: bugs,
	Sources:   []string{"../../paxoscommit/*.go"},
	Elsewhere: []string{"kv: the floor passes what is open"}, // see bugs
}

// All models are right, as far as there is time: the command explores all of them.
func TestModels(t *testing.T) {
	for _, m := range models() {
		t.Run(m.Name, func(t *testing.T) {
			o := explore.Options{MaxStates: 5_000}
			if modeltest.Racing {
				o.MaxStates = 500
			}
			r, n := modeltest.Explore(t, m, false, o)
			require.NoError(t, r.Violation)
			require.True(t, r.Complete || r.States >= o.MaxStates, r.Stopped)
			require.Positive(t, n.Checked())
			t.Logf("%d states, complete: %v, depth %d, %d healed, %v", r.States, r.Complete, r.Depth, n.Checked(), r.Time)
		})
	}
}

func TestBugsAreFound(t *testing.T) {
	s := suite
	if modeltest.Racing { // they are played
		for _, b := range s.Bugs {
			s.Slow = append(s.Slow, b.Name)
		}
	}
	s.BugsAreFound(t)
}

func TestCounterexamples(t *testing.T) { suite.Counterexamples(t) }

// What the checker has found in the code that ships, and was mended: the same steps lead to nothing that is wrong any more.
func TestWhatWasMended(t *testing.T) {
	files, err := filepath.Glob("testdata/mended/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			saved, err := os.ReadFile(file)
			require.NoError(t, err)
			lines := network.Lines(string(saved))
			played, err := new(Model).Play(lines)
			require.NoError(t, err)
			require.NotContains(t, played, "VIOLATION")
			require.Equal(t, lines, network.Lines(played))
			require.Contains(t, played, "resolve 1.1 aborted")
		})
	}
}

// All mistakes of the cores have a model that finds them.
func TestAllBugsHaveAModel(t *testing.T) { suite.AllBugsHaveAModel(t) }

// What a script can't do is said.
func TestWhatAScriptRefuses(t *testing.T) {
	for _, line := range []string{"", "begin by=(1) session=1", "deliver", "groups 9", "groups 0", "groups 3 recoverers=7"} {
		_, _, err := new(Player).Exec(line)
		require.Error(t, err, line)
	}
	for _, line := range []string{"begin", "begin by=(3) session=1", "begin by=(1) session=9", "give-up 1.1", "expire 3 before=1", "deliver type=vote", "fly 1"} {
		_, err := models()[0].Play([]string{"groups 2 recoverers=1", line})
		require.Error(t, err, line)
	}
}
