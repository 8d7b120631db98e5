package threephase

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/twophase"
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
	w.open()
	n := w.nodes[2]
	id := ID{Node: 1, Incarnation: 7, Counter: 1000}
	n.resources["a"].votes[id] = twophase.VoteNo
	for _, m := range []Message{
		{Kind: KindPrepare, From: 1, Participants: on(2, 3, 4)},
		{Kind: KindElect, From: 3, Participants: on(2, 3, 4), Ballot: Ballot{2, 2}},
	} {
		m.To, m.ID, m.Resource = 2, id, "a"
		n.core.Step(m)
		n.work()
		for {
			i := slices.IndexFunc(w.queue, func(a action) bool { return a.order != "write" })
			if i < 0 {
				break
			}
			w.act(i)
		}
	}
	return slices.ContainsFunc(w.net, func(m Message) bool { return m.Kind == KindState })
}

func TestNothingIsSaidEarly(t *testing.T) { require.False(t, tellsEarly()) }

// mistakes returns the names of all mistakes that the code can be told to make.
func mistakes(t *testing.T) (bugs []string) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		source, err := os.ReadFile(f)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`probe\.Bug\("([^"]+)"\)`).FindAllStringSubmatch(string(source), -1) {
			if !slices.Contains(bugs, m[1]) {
				bugs = append(bugs, m[1])
			}
		}
	}
	return bugs
}

// Each mistake that the code can be told to make is found: by a crash, alone or in a pair, by a random run, or by the
// test that is named.
func TestPlantedBugs(t *testing.T) {
	bugs := mistakes(t)
	require.GreaterOrEqual(t, len(bugs), 15)
	for _, bug := range bugs {
		t.Run(bug, func(t *testing.T) {
			p := &planted{bug: bug, reached: map[string]bool{}}
			defer probe.Install(p)()
			if find := named[bug]; find != nil {
				require.True(t, find(t), "not found")
				require.True(t, p.made)
				return
			}
			if slices.Contains(rare, bug) {
				files, err := filepath.Glob("../modelcheck/threephase/testdata/*.txt")
				require.NoError(t, err)
				require.True(t, slices.ContainsFunc(files, func(file string) bool {
					text, err := os.ReadFile(file)
					require.NoError(t, err)
					return strings.HasPrefix(string(text), "# Planted: "+bug+"\n") && strings.Contains(string(text), "\nVIOLATION: ")
				}), "no counterexample")
				return
			}
			for _, s := range scenarios() {
				points, w := s.play(Enhanced, nil, false)
				if len(w.broken) > 0 {
					t.Logf("found by: %s, without a crash", s.name)
					return
				}
				for i := range 2 * points {
					if s.fail(nil, Enhanced, []crash{{i / 2, i%2 == 1}}) {
						t.Logf("found by: %s, crash %d", s.name, i/2)
						return
					}
				}
			}
			if racing || testing.Short() {
				return // it takes a random run
			}
			for seed := uint64(1); seed <= 2000; seed++ {
				if len(random(seed, false).broken) > 0 {
					t.Logf("found by: seed %d", seed)
					return
				}
			}
			t.Errorf("not found, made: %v", p.made)
		})
	}
}
