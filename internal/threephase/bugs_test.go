package threephase

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/internal/twophase/commitmenttest"
)

// named are the mistakes that a test of their own finds.
var named = map[string]func(t *testing.T) (broken bool){
	"3pc: a no is told to others before it is durable":  func(*testing.T) bool { return tellsEarly() },
	"3pc: any pre-commit is taken for the last attempt": func(t *testing.T) bool { return len(lastAttempt(t)) > 0 },
}

// rare are the mistakes that take so much coming together that only the model checker finds them: its counterexamples are in
// its testdata, and its tests play them.
var rare = []string{
	"3pc: acknowledgements of another attempt count",
	"3pc: a participant's election is not durable",
	"3pc: an attempt does not count as one",
	"3pc: an election is not durable before it is held",
}

// tellsEarly reports whether a participant relies on a no that a crash would undo.
func tellsEarly() bool {
	w := newWorld(4, Enhanced)
	w.Open()
	n := w.Nodes[2]
	id := ID{Node: 1, Incarnation: 7, Counter: 1000}
	n.Resources["a"].Votes[id] = twophase.VoteNo
	for _, m := range []Message{
		{Kind: KindPrepare, From: 1, Participants: on(2, 3, 4)},
		{Kind: KindElect, From: 3, Participants: on(2, 3, 4), Ballot: Ballot{2, 2}},
	} {
		m.To, m.ID, m.Resource = 2, id, "a"
		n.Core.Step(m)
		n.Work()
		for w.First(func(a action) bool { return a.Order != "write" }) {
		}
	}
	return slices.ContainsFunc(w.Net, func(m Message) bool { return m.Kind == KindState })
}

func TestNothingIsSaidEarly(t *testing.T) { require.False(t, tellsEarly()) }

// Each mistake that the code can be told to make is found: by a crash, alone or in a pair, by a random run, or by the
// test that is named.
func TestPlantedBugs(t *testing.T) {
	hunt := commitmenttest.Hunt[*Core, Message, Participant]{
		Named: named, Elsewhere: counterexample, Scenarios: scenarios(Enhanced), Seeds: 2000,
		Random: func(seed uint64) *simulated { return random(seed, false).simulated },
	}
	if racing || testing.Short() {
		hunt.Seeds = 0
	}
	hunt.Run(t, os.DirFS("."), 15)
}

// counterexample reports whether a mistake is a rare one, of which there is a counterexample.
func counterexample(t *testing.T, bug string) bool {
	if !slices.Contains(rare, bug) {
		return false
	}
	files, err := filepath.Glob("../modelcheck/threephase/testdata/*.txt")
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		return strings.HasPrefix(string(text), "# Planted: "+bug+"\n") && strings.Contains(string(text), "\nVIOLATION: ")
	}), "no counterexample")
	return true
}
