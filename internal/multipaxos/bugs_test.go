package multipaxos

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/probe"
)

var (
	seeds   = flag.Int("seeds", 300, "how many random runs")
	first   = flag.Int("first", 0, "the first seed")
	verbose = flag.Bool("show", false, "print what happens")
)

// planted is a probe that switches on one mistake, and counts what is reached.
type planted struct {
	bug     string
	made    bool
	mu      sync.Mutex
	reached map[string]bool
}

func (p *planted) Sometimes(name string, condition bool) {
	p.mu.Lock()
	p.reached[name] = p.reached[name] || condition
	p.mu.Unlock()
}
func (p *planted) Buggify(string) bool { return false }
func (p *planted) Bug(name string) bool {
	p.made = p.made || name == p.bug
	return name == p.bug
}
func (p *planted) Observe(any) {}

// failure makes a failed check a panic, so that it can be expected.
type failure struct {
	testing.TB
	text string
}

func (f *failure) Errorf(format string, args ...any) { f.text += fmt.Sprintf(format, args...) }
func (f *failure) FailNow()                          { panic(f) }
func (f *failure) Fatal(args ...any)                 { f.text += fmt.Sprint(args...); panic(f) }
func (f *failure) Fatalf(format string, args ...any) { f.Errorf(format, args...); panic(f) }
func (f *failure) Logf(string, ...any)               {}
func (f *failure) Helper()                           {}

// attempt runs a seed and returns what went wrong.
func attempt(seed uint64, protocol Protocol, voters, spare, steps int) (text string) {
	defer func() {
		if v := recover(); v != nil {
			if f, ok := v.(*failure); ok {
				text = f.text
			} else {
				text = fmt.Sprint("panic: ", v, "\n", string(debug.Stack()))
			}
			if text == "" {
				text = "failed"
			}
		}
	}()
	random(&failure{}, seed, protocol, voters, spare, steps)
	return ""
}

// shape says which cluster a seed runs.
func shape(seed uint64) (p Protocol, voters, spare int) {
	voters, spare = 1+int(seed%5), int(seed/5%3)
	if seed%7 == 3 && voters > 2 {
		p.Quorums.Phase2 = 2
	}
	return p, voters, spare
}

// A failed seed, once more, with all that happens: -seeds 1 -first N -show.
func TestRandom(t *testing.T) {
	probes := &planted{reached: map[string]bool{}}
	defer probe.Install(probes)()
	for seed := uint64(*first); seed < uint64(*first+*seeds); seed++ {
		p, voters, spare := shape(seed)
		if text := attempt(seed, p, voters, spare, 3000); text != "" {
			t.Fatalf("seed %d: %s", seed, text)
		}
	}
	var missed []string
	for _, name := range slices.Sorted(maps.Keys(probes.reached)) {
		if !probes.reached[name] {
			missed = append(missed, name)
		}
	}
	t.Logf("%d places, not reached: %q", len(probes.reached), missed)
}

// plantedSeeds is within how many random runs each planted bug is found.
const plantedSeeds = 3000

// Bugs are all those in the package's code.
func Bugs(t *testing.T) []string {
	var list []string
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`probe\.Bug\("([^"]+)"\)`).FindAllStringSubmatch(string(b), -1) {
			if !slices.Contains(list, m[1]) {
				list = append(list, m[1])
			}
		}
	}
	sort.Strings(list)
	return list
}

// Scripted are the planted bugs that so many random runs do not find, since what they need is rare, or is not
// done at all there: TestScriptsFindPlantedBugs does, as it finds all the others.
var Scripted = []string{
	"a node that hears a leader stands for election",
	"a node that may not be the only voter leads at once",
	"a replica that joins again takes what it accepted for nothing",
	"a replica that leaves forgets its promise",
	"accepts of another ballot counted",
	"an unknown slot taken for an empty one",
	"phase 1 of the old configuration only",
	"quorums need not intersect",
	"the lowest ballot's value taken",
}

// Simulated are those in what bare cores do not do: internal/simulate finds them.
var Simulated = []string{"a repair forgets what follows its snapshot"}

func TestPlantedBugsAreFound(t *testing.T) {
	for _, bug := range Bugs(t) {
		if slices.Contains(Scripted, bug) || slices.Contains(Simulated, bug) {
			continue
		}
		t.Run(bug, func(t *testing.T) {
			probes := &planted{bug: bug, reached: map[string]bool{}}
			defer probe.Install(probes)()
			for seed := range uint64(plantedSeeds) {
				p, voters, spare := shape(seed)
				if text := attempt(seed, p, voters, spare, 3000); text != "" {
					t.Logf("seed %d: %.300s", seed, text)
					return
				}
			}
			t.Errorf("not found, made: %v", probes.made)
		})
	}
}
func (f *failure) Name() string { return "a run" }
