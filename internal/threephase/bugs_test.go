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
)

// named are the mistakes that a test of their own finds.
var named = map[string]func(t *testing.T) (broken bool){}

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
			for seed := uint64(1); seed <= 3000; seed++ {
				if len(random(seed, false).broken) > 0 {
					t.Logf("found by: seed %d", seed)
					return
				}
			}
			t.Errorf("not found, made: %v", p.made)
		})
	}
}
