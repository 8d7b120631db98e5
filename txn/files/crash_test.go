package files

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/txn"
)

func testID(counter uint64) txn.ID { return txn.ID{Node: 1, Incarnation: 0xfeed, Counter: counter} }

// sight is what the application sees of files.
type sight map[string]string

func (s sight) with(changes ...Change) sight {
	after := maps.Clone(s)
	for _, c := range changes {
		if c.Remove {
			delete(after, c.Path)
		} else {
			after[c.Path] = string(c.Data)
		}
	}
	return after
}

func write(name, content string) Change { return Change{Path: name, Data: []byte(content)} }
func remove(name string) Change         { return Change{Path: name, Remove: true} }

// What stands there at first, and what the transactions do. The second has to do with the same files.
var (
	before = sight{"keep": "kept", "old": "old content", "dir/gone": "going"}
	first  = []Change{write("old", "new content, longer"), write("new/deep/file", "deep"), write("dir/second", "second"), remove("dir/gone"), write("empty", "")}
	second = []Change{write("old", "newest"), write("dir/gone", "back"), remove("new/deep/file")}
	third  = []Change{remove("old")}
)

// plan says how a story goes on after a branch is prepared.
type plan struct {
	name   string
	ending func(s *story) error
}

// story is a run over files that crash, and what it knows to be so.
type story struct {
	files     *memoryFiles
	r         *Resource
	expected  []sight // what may be seen, if it crashed now
	doubt     []txn.ID
	may       []txn.ID        // be in doubt, or not
	committed []txn.ID        // durably, and so is all they did
	decided   map[txn.ID]bool // whose Commit was called: it is called again
	one       map[txn.ID]bool // may be decided in one phase: Outcome says
}

func (s *story) start(ctx context.Context) error {
	r, err := open(ctx, Config{Dir: "crash", MaxMarkers: 16, OpenTimeout: 3600e9, MaxOpen: 16, MaxChanges: 16, MaxBytes: 1 << 20, Logger: quiet()}, s.files)
	s.r = r
	return err
}

// prepare has a branch prepared.
func (s *story) prepare(id txn.ID, changes []Change) error {
	s.may = append(s.may, id)
	vote, err := s.r.Prepare(context.Background(), txn.PrepareRequest{ID: id, Work: Work(changes...)})
	if err != nil {
		return err
	}
	if vote != txn.Yes {
		return fmt.Errorf("it votes %v", vote)
	}
	s.may = without(s.may, id)
	s.doubt = append(s.doubt, id)
	return nil
}

// commit commits a branch. Its files change one after the other.
func (s *story) commit(id txn.ID, after sight) error {
	s.decided[id] = true
	s.doubt, s.may = without(s.doubt, id), append(s.may, id)
	s.expected = nil // while it is under way any of its files may be old or new
	if err := s.r.Commit(context.Background(), id); err != nil {
		return err
	}
	s.may = without(s.may, id)
	s.committed = append(s.committed, id)
	s.expected = []sight{after}
	return nil
}

func (s *story) abort(id txn.ID) error {
	s.doubt, s.may = without(s.doubt, id), append(s.may, id)
	if err := s.r.Abort(context.Background(), id); err != nil {
		return err
	}
	s.may = without(s.may, id)
	return nil
}

func without(list []txn.ID, id txn.ID) []txn.ID {
	return slices.DeleteFunc(slices.Clone(list), func(o txn.ID) bool { return o == id })
}

var plans = []plan{
	{"committed, and the same files again", func(s *story) error {
		if err := s.prepare(testID(1), first); err != nil {
			return err
		}
		if err := s.commit(testID(1), before.with(first...)); err != nil {
			return err
		}
		if err := s.prepare(testID(2), second); err != nil {
			return err
		}
		return s.commit(testID(2), before.with(first...).with(second...))
	}},
	{"aborted, and then committed by another one", func(s *story) error {
		if err := s.prepare(testID(1), first); err != nil {
			return err
		}
		if err := s.abort(testID(1)); err != nil {
			return err
		}
		if err := s.prepare(testID(2), second); err != nil {
			return err
		}
		return s.commit(testID(2), before.with(second...))
	}},
	{"a file is removed, and nothing else", func(s *story) error {
		if err := s.prepare(testID(3), third); err != nil {
			return err
		}
		return s.commit(testID(3), before.with(third...))
	}},
	{"in one phase", func(s *story) error {
		s.one[testID(1)] = true
		s.expected = nil
		outcome, err := s.r.CommitOnePhase(context.Background(), testID(1), Work(first...))
		if err != nil || outcome != txn.Committed {
			return fmt.Errorf("%v: %w", outcome, err)
		}
		delete(s.one, testID(1))
		s.committed = append(s.committed, testID(1))
		s.expected = []sight{before.with(first...)}
		return nil
	}},
}

// after is what is to be seen when these are committed, in their order.
func after(p plan, ids ...txn.ID) sight {
	s := before
	if slices.Contains(ids, testID(1)) {
		s = s.with(first...)
	}
	if slices.Contains(ids, testID(2)) {
		s = s.with(second...)
	}
	if slices.Contains(ids, testID(3)) {
		s = s.with(third...)
	}
	return s
}

// newStory has the files that are there at first, durably.
func newStory(noLinks bool) *story {
	m := newMemoryFiles()
	for name, content := range before {
		if strings.Contains(name, "/") {
			_ = m.mkdir(filepath.Dir(name))
		}
		f, err := m.create(name)
		if err != nil {
			panic(err)
		}
		_, _ = f.Write([]byte(content))
		_ = f.Sync()
		_ = m.syncDir(filepath.Dir(name))
	}
	_ = m.syncDir(".")
	m.calls, m.noLinks = 0, noLinks
	return &story{files: m, expected: []sight{before}, decided: map[txn.ID]bool{}, one: map[txn.ID]bool{}}
}

// tell plays a plan until it ends, or crashes.
func tell(p plan, crashAt int, noLinks bool) (*story, error) {
	s := newStory(noLinks)
	s.files.crashAt = crashAt
	err := s.start(context.Background())
	if err == nil {
		err = p.ending(s)
	}
	if s.files.crashed {
		err = nil
	}
	return s, err
}

// recover opens what a crash has left, holds it against what is known, and ends what is in doubt: what was being committed
// again; what was not, as commit says.
func (s *story) recover(p plan, image *memoryFiles, commit bool) error {
	ctx := context.Background()
	next := &story{files: image, decided: s.decided, one: s.one}
	if err := next.start(ctx); err != nil {
		return fmt.Errorf("it does not open: %w", err)
	}
	list, err := next.r.InDoubt(ctx)
	if err != nil {
		return err
	}
	for _, id := range s.doubt {
		if !slices.Contains(list, id) {
			return fmt.Errorf("%v was prepared, and is not in doubt", id)
		}
	}
	for _, id := range list {
		if !slices.Contains(s.doubt, id) && !slices.Contains(s.may, id) {
			return fmt.Errorf("%v is in doubt, and was not prepared, or is over", id)
		}
	}
	if s.expected != nil && !slices.ContainsFunc(s.expected, func(e sight) bool { return maps.Equal(e, image.files()) }) {
		return fmt.Errorf("there is %v, and should be one of %v", image.files(), s.expected)
	}
	// What is in doubt, others may not touch.
	for _, id := range list {
		vote, err := next.r.Prepare(ctx, txn.PrepareRequest{ID: testID(99), Work: Work(write("old", "stolen"))})
		if err == nil || vote == txn.Yes {
			return fmt.Errorf("%v is in doubt, and its file is not locked", id)
		}
	}
	done := slices.Clone(s.committed)
	for _, id := range s.committed {
		if err := next.r.Commit(ctx, id); err != nil {
			return fmt.Errorf("%v was committed, and a second Commit is: %w", id, err)
		}
	}
	for id := range s.one {
		outcome, err := next.r.Outcome(ctx, id)
		if err != nil {
			return err
		}
		if outcome == txn.Committed {
			done = append(done, id)
		}
	}
	for id := range s.decided {
		if slices.Contains(done, id) {
			continue
		}
		if err := next.r.Commit(ctx, id); err != nil {
			return fmt.Errorf("%v was prepared, and Commit is: %w", id, err)
		}
		done = append(done, id)
	}
	for _, id := range list {
		if s.decided[id] {
			continue
		}
		if commit && slices.Contains(s.doubt, id) {
			err = next.r.Commit(ctx, id)
			done = append(done, id)
		} else {
			err = next.r.Abort(ctx, id)
		}
		if err != nil {
			return fmt.Errorf("%v was in doubt, and ends with: %w", id, err)
		}
	}
	if want := after(p, done...); !maps.Equal(want, sight(image.files())) {
		return fmt.Errorf("with %v committed there is %v, and should be %v", done, image.files(), want)
	}
	if list, err := next.r.InDoubt(ctx); err != nil || len(list) > 0 {
		return fmt.Errorf("afterwards there is in doubt: %v %w", list, err)
	}
	next.r.mu.Lock()
	locks := len(next.r.locks) + len(next.r.below) + len(next.r.branches)
	next.r.mu.Unlock()
	if locks > 0 {
		return fmt.Errorf("%d locks are left", locks)
	}
	return nil
}

const variants = 9

// explore crashes every plan before every call, in every variant, and then once more in the recovery from that, and
// returns the first thing that is wrong. pairs: there are second crashes, where there are links.
func explore(pairs bool) (runs int, err error) {
	for _, p := range plans {
		for _, noLinks := range []bool{false, true} {
			for crashAt := 1; ; crashAt++ {
				s, err := tell(p, crashAt, noLinks)
				if err != nil {
					return runs, fmt.Errorf("%s: %w", p.name, err)
				}
				for variant := range variants {
					for _, commit := range []bool{false, true} {
						runs++
						where := fmt.Sprintf("%s (links %t), crash %d, variant %d, %t", p.name, !noLinks, crashAt, variant, commit)
						image := s.files.crash(variant)
						if err := s.recover(p, image, commit); err != nil {
							return runs, fmt.Errorf("%s: %w", where, err)
						}
						if !pairs || noLinks || variant > keepAll && variant < firstVariant {
							continue
						}
						for second, calls := 1, image.calls; second <= calls; second++ {
							runs++
							image := s.files.crash(variant)
							image.crashAt = second
							err := s.recover(p, image, commit)
							if !image.crashed {
								return runs, fmt.Errorf("%s, and crash %d: not reached: %w", where, second, err)
							}
							if err := s.twice(p, image.crash(variant+second), commit); err != nil {
								return runs, fmt.Errorf("%s, and crash %d: %w", where, second, err)
							}
						}
					}
				}
				if !s.files.crashed {
					break
				}
			}
		}
	}
	return runs, nil
}

// twice is the recovery from a recovery that crashed: what was in doubt then may be over now, as it was decided.
func (s *story) twice(p plan, image *memoryFiles, commit bool) error {
	next := *s
	next.expected = nil
	next.decided = maps.Clone(s.decided)
	next.may = append(slices.Clone(s.may), s.doubt...)
	if commit {
		for _, id := range s.doubt {
			next.decided[id] = true
		}
	}
	next.doubt = nil
	return next.recover(p, image, commit)
}

// Everything that happens to files is interrupted before every call, and what was not synced is lost in every way.
func TestCrashes(t *testing.T) {
	runs, err := explore(!testing.Short() && !racing)
	require.NoError(t, err)
	t.Logf("%d crashes", runs)
	require.Greater(t, runs, 1000)
}

// Each mistake that the code can be told to make is found by a crash.
func TestPlantedBugs(t *testing.T) {
	var bugs []string
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`probe\.Bug\("([^"]+)"\)`).FindAllStringSubmatch(string(source), -1) {
			bugs = append(bugs, m[1])
		}
	}
	require.GreaterOrEqual(t, len(bugs), 15)
	for _, bug := range bugs {
		t.Run(bug, func(t *testing.T) {
			defer probe.Plant(bug)()
			for _, pairs := range []bool{false, true} {
				if _, err := explore(pairs); err != nil {
					require.NotErrorIs(t, err, errors.ErrUnsupported)
					t.Log(err)
					return
				}
			}
			t.Error("not found")
		})
	}
}
