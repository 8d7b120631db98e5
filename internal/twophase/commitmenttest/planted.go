package commitmenttest

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/probe"
)

// planted is a probe that switches on one mistake, and counts what is reached.
type planted struct {
	made    bool // the code came to where it can make it
	bug     string
	reached map[string]bool
}

// newPlanted returns a probe for the mistake of a name; "": none.
func newPlanted(bug string) *planted { return &planted{bug: bug, reached: make(map[string]bool)} }

// Sometimes notes what is reached.
func (p *planted) Sometimes(name string, condition bool) {
	p.reached[name] = p.reached[name] || condition
}

// Buggify does nothing.
func (p *planted) Buggify(string) bool { return false }

// Bug reports whether the code is to make a mistake.
func (p *planted) Bug(name string) bool {
	p.made = p.made || name == p.bug
	return name == p.bug
}

// Observe does nothing.
func (p *planted) Observe(any) {}

// mistakes returns the names of all mistakes that the code in a folder can be told to make.
func mistakes(t *testing.T, folder fs.FS) (bugs []string) {
	files, err := fs.Glob(folder, "*.go")
	require.NoError(t, err)
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		source, err := fs.ReadFile(folder, f)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`probe\.Bug\("([^"]+)"\)`).FindAllStringSubmatch(string(source), -1) {
			if !slices.Contains(bugs, m[1]) {
				bugs = append(bugs, m[1])
			}
		}
	}
	return bugs
}

// Hunt is where mistakes are looked for.
type Hunt[C Core[M, P], M, P fmt.Stringer] struct {
	// Named are the mistakes that a test of their own finds: what they break is no split, or takes too much coming together.
	Named map[string]func(t *testing.T) (broken bool)
	// Elsewhere reports whether tests of another package find a mistake. It may be nil.
	Elsewhere func(t *testing.T, bug string) bool
	// Scenarios are tried without a crash, and with each one.
	Scenarios []Scenario[C, M, P]
	// Seeds is how many random runs there may be, with Random. If it is zero, what takes one is not found, and that is no failure.
	Seeds  uint64
	Random func(seed uint64) *World[C, M, P]
}

// Run switches on each mistake that the code in a folder can be told to make, of which there are at least some, and fails if it is not found.
func (h Hunt[C, M, P]) Run(t *testing.T, folder fs.FS, atLeast int) {
	bugs := mistakes(t, folder)
	require.GreaterOrEqual(t, len(bugs), atLeast)
	for _, bug := range bugs {
		t.Run(bug, func(t *testing.T) {
			p := newPlanted(bug)
			defer probe.Install(p)()
			if find := h.Named[bug]; find != nil {
				require.True(t, find(t), "not found")
				require.True(t, p.made)
				return
			}
			if h.Elsewhere != nil && h.Elsewhere(t, bug) {
				return
			}
			if by := h.find(); by != "" {
				t.Logf("found by: %s", by)
			} else if h.Seeds > 0 {
				t.Errorf("not found, made: %v", p.made)
			}
		})
	}
}

// find returns what finds the mistake that is switched on; "": nothing does.
func (h Hunt[C, M, P]) find() string {
	for _, s := range h.Scenarios {
		points, w := s.Play(nil, false)
		if len(w.Broken) > 0 {
			return s.Name + ", without a crash"
		}
		for _, c := range crashes(0, points) {
			if s.Fails(nil, c) {
				return fmt.Sprintf("%s, crash %d", s.Name, c.At)
			}
		}
	}
	for seed := uint64(1); seed <= h.Seeds; seed++ {
		if len(h.Random(seed).Broken) > 0 {
			return fmt.Sprintf("seed %d", seed)
		}
	}
	return ""
}
