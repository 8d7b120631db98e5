package storagetest_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/storage/storagetest"
)

// buggy is a good store with one of its methods replaced.
type buggy struct {
	*memory.Store
	get      func(key []byte) ([]byte, error)
	scan     func(from, to []byte) (storage.Iterator, error)
	commit   func(b *storage.Batch) error
	async    func(b *storage.Batch, done func(error))
	snapshot func() (storage.View, error)
	close    func() error
}

func (s *buggy) Get(key []byte) ([]byte, error) {
	if s.get != nil {
		return s.get(key)
	}
	return s.Store.Get(key)
}

func (s *buggy) Scan(from, to []byte) (storage.Iterator, error) {
	if s.scan != nil {
		return s.scan(from, to)
	}
	return s.Store.Scan(from, to)
}

func (s *buggy) Commit(b *storage.Batch) error {
	if s.commit != nil {
		return s.commit(b)
	}
	return s.Store.Commit(b)
}

func (s *buggy) CommitAsync(b *storage.Batch, done func(error)) {
	if s.async != nil {
		s.async(b, done)
		return
	}
	if s.commit != nil {
		done(s.commit(b))
		return
	}
	s.Store.CommitAsync(b, done)
}

func (s *buggy) Snapshot() (storage.View, error) {
	if s.snapshot != nil {
		return s.snapshot()
	}
	return s.Store.Snapshot()
}

func (s *buggy) Close() error {
	if s.close != nil {
		return s.close()
	}
	return s.Store.Close()
}

type funcIterator func() (key, value []byte, err error)

func (f funcIterator) Next() (key, value []byte, err error) { return f() }
func (f funcIterator) Close() error                         { return nil }

// rebuilt returns a batch of the operations that fn makes of those of b.
func rebuilt(b *storage.Batch, fn func(op storage.Op, add func(storage.Op))) *storage.Batch {
	out := new(storage.Batch)
	add := func(op storage.Op) {
		switch op.Kind {
		case storage.KindSet:
			out.Set(op.Key, op.Value)
		case storage.KindDelete:
			out.Delete(op.Key)
		case storage.KindDeleteRange:
			out.DeleteRange(op.Key, op.End)
		}
	}
	for _, op := range b.Ops() {
		fn(op, add)
	}
	return out
}

// bugs are mistakes that stores make, each with a rule that must catch it.
var bugs = map[string]struct {
	rule  string
	plant func(s *buggy)
}{
	"an empty value is taken for none": {"an empty value is a value", func(s *buggy) {
		s.get = func(key []byte) ([]byte, error) {
			v, err := s.Store.Get(key)
			if err == nil && len(v) == 0 {
				return nil, storage.ErrNotFound
			}
			return v, err
		}
	}},
	"keys are compared without regard to zero bytes at the end": {"keys and values are any bytes", func(s *buggy) {
		s.commit = func(b *storage.Batch) error {
			return s.Store.Commit(rebuilt(b, func(op storage.Op, add func(storage.Op)) {
				if k := bytes.TrimRight(op.Key, "\x00"); len(k) > 0 {
					op.Key = k
				}
				add(op)
			}))
		}
	}},
	"deletes are applied before sets": {"the operations of a batch take effect in their order", func(s *buggy) {
		s.commit = func(b *storage.Batch) error {
			var sets []storage.Op
			out := rebuilt(b, func(op storage.Op, add func(storage.Op)) {
				if op.Kind == storage.KindSet {
					sets = append(sets, op)
				} else {
					add(op)
				}
			})
			for _, op := range sets {
				out.Set(op.Key, op.Value)
			}
			return s.Store.Commit(out)
		}
	}},
	"a batch is applied one operation at a time": {"a batch is seen whole or not at all", func(s *buggy) {
		s.commit = func(b *storage.Batch) error {
			for _, op := range b.Ops() {
				one := new(storage.Batch)
				one.Append(rebuilt(b, func(o storage.Op, add func(storage.Op)) {
					if bytes.Equal(o.Key, op.Key) && o.Kind == op.Kind {
						add(o)
					}
				}))
				if err := s.Store.Commit(one); err != nil {
					return err
				}
				runtime.Gosched() // gives the readers a chance to see it
			}
			return nil
		}
	}},
	"a deleted range includes its end": {"DeleteRange removes what is in", func(s *buggy) {
		s.commit = func(b *storage.Batch) error {
			return s.Store.Commit(rebuilt(b, func(op storage.Op, add func(storage.Op)) {
				if len(op.End) > 0 {
					op.End = append(bytes.Clone(op.End), 0)
				}
				add(op)
			}))
		}
	}},
	"a deleted range without an end stops at 0xff": {"DeleteRange without an upper bound", func(s *buggy) {
		s.commit = func(b *storage.Batch) error {
			return s.Store.Commit(rebuilt(b, func(op storage.Op, add func(storage.Op)) {
				if op.Kind == storage.KindDeleteRange && len(op.End) == 0 {
					op.End = []byte{0xff, 0xff}
				}
				add(op)
			}))
		}
	}},
	"a scan includes its end": {"Scan sees [from, to)", func(s *buggy) {
		s.scan = func(from, to []byte) (storage.Iterator, error) {
			if len(to) > 0 {
				to = append(bytes.Clone(to), 0)
			}
			return s.Store.Scan(from, to)
		}
	}},
	"an iterator begins again after its end": {"after the last key, Next returns io.EOF", func(s *buggy) {
		s.scan = func(from, to []byte) (storage.Iterator, error) {
			it, err := s.Store.Scan(from, to)
			if err != nil {
				return nil, err
			}
			return funcIterator(func() ([]byte, []byte, error) {
				k, v, err := it.Next()
				if errors.Is(err, io.EOF) {
					it, _ = s.Store.Scan(from, to)
				}
				return k, v, err
			}), nil
		}
	}},
	"an iterator sees later commits": {"an iterator sees the store as it was", func(s *buggy) {
		s.scan = func(from, to []byte) (storage.Iterator, error) {
			from, to = bytes.Clone(from), bytes.Clone(to)
			return funcIterator(func() ([]byte, []byte, error) {
				it, err := s.Store.Scan(from, to)
				if err != nil {
					return nil, nil, err
				}
				k, v, err := it.Next()
				if err == nil {
					from = append(bytes.Clone(k), 0)
				}
				return k, v, err
			}), nil
		}
	}},
	"Scan keeps its bounds": {"Scan keeps neither bound", func(s *buggy) {
		s.scan = func(from, to []byte) (storage.Iterator, error) {
			var it storage.Iterator
			return funcIterator(func() ([]byte, []byte, error) {
				if it == nil {
					var err error
					if it, err = s.Store.Scan(from, to); err != nil {
						return nil, nil, err
					}
				}
				return it.Next()
			}), nil
		}
	}},
	"Get returns the same memory again": {"what Get returned belongs to the caller", func(s *buggy) {
		var mu sync.Mutex
		var memory []byte
		s.get = func(key []byte) ([]byte, error) {
			v, err := s.Store.Get(key)
			mu.Lock()
			defer mu.Unlock()
			memory = append(memory[:0], v...)
			return memory, err
		}
	}},
	"the batch is kept": {"after Commit, the batch's bytes may be used again", func(s *buggy) {
		kept := new(storage.Batch)
		s.commit = func(b *storage.Batch) error {
			err := s.Store.Commit(b)
			kept.Append(b)
			return err
		}
		s.scan = func(from, to []byte) (storage.Iterator, error) {
			if err := s.Store.Commit(kept); err != nil {
				return nil, err
			}
			return s.Store.Scan(from, to)
		}
	}},
	"Commit sorts the batch": {"Commit changes nothing in the batch", func(s *buggy) {
		s.commit = func(b *storage.Batch) error {
			slices.SortStableFunc(b.Ops(), func(x, y storage.Op) int { return bytes.Compare(x.Key, y.Key) })
			slices.Reverse(b.Ops())
			return s.Store.Commit(b)
		}
	}},
	"an empty key is taken": {"a batch with an empty key is refused", func(s *buggy) {
		s.commit = func(b *storage.Batch) error {
			return s.Store.Commit(rebuilt(b, func(op storage.Op, add func(storage.Op)) {
				if len(op.Key) > 0 || op.Kind == storage.KindDeleteRange {
					add(op)
				}
			}))
		}
	}},
	"commits are acknowledged before they are durable": {"what was acknowledged survives a crash", func(s *buggy) {
		s.HoldSync()
		s.async = func(b *storage.Batch, done func(error)) {
			s.Store.CommitAsync(b, func(error) {})
			done(nil)
		}
		s.commit = func(b *storage.Batch) error {
			s.Store.CommitAsync(b, func(error) {})
			return nil
		}
	}},
	"a closed store finds nothing": {"after Close, every method returns ErrClosed", func(s *buggy) {
		s.get = func(key []byte) ([]byte, error) {
			v, err := s.Store.Get(key)
			if errors.Is(err, storage.ErrClosed) {
				err = storage.ErrNotFound
			}
			return v, err
		}
	}},
	"a closed store has empty iterators": {"Close makes open iterators and views invalid", func(s *buggy) {
		s.scan = func(from, to []byte) (storage.Iterator, error) {
			it, err := s.Store.Scan(from, to)
			if err != nil {
				return nil, err
			}
			return funcIterator(func() ([]byte, []byte, error) {
				k, v, err := it.Next()
				if errors.Is(err, storage.ErrClosed) {
					err = io.EOF
				}
				return k, v, err
			}), nil
		}
	}},
	"Close does not wait": {"Close waits for commits that are under way", func(s *buggy) {
		s.async = func(b *storage.Batch, done func(error)) {
			s.Store.CommitAsync(b, func(error) {}) // done comes after the test
		}
	}},
	"done is called twice": {"CommitAsync calls every done once", func(s *buggy) {
		s.async = func(b *storage.Batch, done func(error)) {
			s.Store.CommitAsync(b, func(err error) { done(err); done(err) })
		}
	}},
	"dones are called in pairs, the later first": {"CommitAsync calls every done once", func(s *buggy) {
		var mu sync.Mutex
		var waiting func(error)
		s.async = func(b *storage.Batch, done func(error)) {
			s.Store.CommitAsync(b, func(err error) {
				mu.Lock()
				defer mu.Unlock()
				if waiting == nil {
					waiting = done
					return
				}
				done(err)
				waiting(err)
				waiting = nil
			})
		}
	}},
	"a snapshot is the store itself": {"a view sees the store at one moment", func(s *buggy) {
		s.snapshot = func() (storage.View, error) { return openView{s.Store}, nil }
	}},
}

type openView struct{ *memory.Store }

func (openView) Close() error { return nil }

const plantedBug = "SYNOD_TEST_PLANTED_BUG"

// TestBuggyStore is not a test of its own: TestPlantedBugs runs it as another
// process, where it must fail.
func TestBuggyStore(t *testing.T) {
	bug, ok := bugs[os.Getenv(plantedBug)]
	if !ok {
		t.Skip("not started by TestPlantedBugs")
	}
	shelf := map[string]*memory.Store{}
	storagetest.Run(t, func(_ *testing.T, dir string) storage.Store {
		if old := shelf[dir]; old == nil {
			shelf[dir] = memory.Open(memory.Config{})
		} else {
			shelf[dir] = old.Crash()
		}
		s := &buggy{Store: shelf[dir]}
		bug.plant(s)
		return s
	}, storagetest.WithCrash(func(_ *testing.T, _ storage.Store, dir string) { shelf[dir] = shelf[dir].Crash() }))
}

// TestPlantedBugs checks the suite: each mistake must be caught, by its rule.
func TestPlantedBugs(t *testing.T) {
	for name, bug := range bugs {
		t.Run(name, func(t *testing.T) {
			words := strings.ReplaceAll(bug.rule, " ", "_")
			for _, c := range []string{"[", "]", "(", ")", "."} {
				words = strings.ReplaceAll(words, c, `\`+c)
			}
			cmd := exec.Command(os.Args[0], "-test.run=^TestBuggyStore$/^"+words)
			cmd.Env = append(os.Environ(), plantedBug+"="+name)
			out, err := cmd.CombinedOutput()
			require.Error(t, err, "not caught:\n%s", out)
			require.Contains(t, string(out), strings.ReplaceAll(bug.rule, " ", "_"))
		})
	}
}
