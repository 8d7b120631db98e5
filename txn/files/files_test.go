package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/txn"
	"github.com/synod-go/synod/txn/txntest"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// subject makes a resource what the suite wants. Thing n is a file, and done if it is there.
func subject(r *Resource, look func(name string) (bool, error)) txntest.Subject {
	return txntest.Subject{
		Resource: r,
		Do: func(ctx context.Context, id txn.ID, n int) ([]byte, error) {
			if n%2 == 0 {
				return Work(write(fmt.Sprintf("d/%d", n), "done"), write(fmt.Sprintf("e%d", n), "too")), nil
			}
			tx, err := r.Begin(ctx, id)
			if err != nil {
				return nil, err
			}
			return nil, tx.WriteFile(fmt.Sprintf("d/%d", n), []byte("done"))
		},
		Done: func(_ context.Context, n int) (int, error) {
			there, err := look(fmt.Sprintf("d/%d", n))
			if there {
				return 1, err
			}
			return 0, err
		},
		Read: func(ctx context.Context, id txn.ID) ([]byte, error) {
			tx, err := r.Begin(ctx, id)
			if err != nil {
				return nil, err
			}
			if _, err = tx.ReadFile("d/100"); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			return nil, err
		},
		Refuse: func(ctx context.Context, id txn.ID, n int) ([]byte, error) {
			tx, err := r.Begin(ctx, id)
			if err != nil {
				return nil, err
			}
			if err := tx.WriteFile(fmt.Sprintf("d/%d", n), []byte("done")); err != nil {
				return nil, err
			}
			_ = tx.WriteFile("../outside", nil)
			return nil, nil
		},
	}
}

// The rules of txn.Resource, in a directory of this machine.
func TestResource(t *testing.T) {
	txntest.RunResource(t, func(t *testing.T, dir string) (txntest.Subject, func()) {
		r, err := Open(t.Context(), Config{Dir: dir})
		require.NoError(t, err)
		return subject(r, func(name string) (bool, error) {
			_, err := os.Stat(filepath.Join(dir, name))
			if errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
			return err == nil, err
		}), func() { r.Close() }
	})
}

// And with files that lose, whenever they are closed, what was not synced.
func TestResourceThatCrashes(t *testing.T) {
	for _, variant := range []int{loseAll, keepNames, firstVariant, firstVariant + 1} {
		t.Run(fmt.Sprint("variant ", variant), func(t *testing.T) {
			shelf := map[string]*memoryFiles{}
			txntest.RunResource(t, func(t *testing.T, name string) (txntest.Subject, func()) {
				if shelf[name] == nil {
					shelf[name] = newMemoryFiles()
				}
				m := shelf[name]
				cfg := Config{Dir: name}
				require.NoError(t, cfg.setDefaults())
				r, err := open(t.Context(), cfg, m)
				require.NoError(t, err)
				return subject(r, func(name string) (bool, error) {
						k, _, err := m.stat(name)
						return k == kindFile, err
					}), func() {
						m.mu.Lock()
						defer m.mu.Unlock()
						m.crashed = true
						shelf[name] = m.crash(variant)
					}
			})
		})
	}
}

func openTest(t *testing.T, adapt func(*Config)) (*Resource, string) {
	dir := t.TempDir()
	cfg := Config{Dir: dir}
	if adapt != nil {
		adapt(&cfg)
	}
	r, err := Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	return r, dir
}

func begin(t *testing.T, r *Resource, counter uint64) *Tx {
	tx, err := r.Begin(t.Context(), testID(counter))
	require.NoError(t, err)
	return tx
}

func prepare(t *testing.T, r *Resource, counter uint64) (txn.Vote, error) {
	return r.Prepare(t.Context(), txn.PrepareRequest{ID: testID(counter), MayLeave: true})
}

func TestOpenRefuses(t *testing.T) {
	for field, spoil := range map[string]func(*Config){
		"Dir":         func(c *Config) { c.Dir = "" },
		"FileMode":    func(c *Config) { c.FileMode = 0o200 },
		"DirMode":     func(c *Config) { c.DirMode = fs.ModeDir | 0o755 },
		"OpenTimeout": func(c *Config) { c.OpenTimeout = 1 },
		"MaxOpen":     func(c *Config) { c.MaxOpen = -1 },
		"MaxChanges":  func(c *Config) { c.MaxChanges = 1 << 20 },
		"MaxBytes":    func(c *Config) { c.MaxBytes = -1 },
		"MaxMarkers":  func(c *Config) { c.MaxMarkers = 1 },
	} {
		cfg := Config{Dir: t.TempDir()}
		spoil(&cfg)
		_, err := Open(t.Context(), cfg)
		var bad *synod.ConfigError
		require.ErrorAs(t, err, &bad, field)
		require.Equal(t, field, bad.Field)
	}
	_, err := Open(t.Context(), Config{Dir: filepath.Join(t.TempDir(), "missing")})
	require.ErrorIs(t, err, fs.ErrNotExist)
	r, dir := openTest(t, nil)
	_, err = Open(t.Context(), Config{Dir: dir})
	require.ErrorIs(t, err, ErrInUse)
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	again, err := Open(t.Context(), Config{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, again.Close())
	_, err = r.Begin(t.Context(), testID(1))
	require.ErrorIs(t, err, synod.ErrClosed)
}

// A path leads nowhere else, by whatever means.
func TestPathsStayInside(t *testing.T) {
	r, dir := openTest(t, nil)
	outside := t.TempDir()
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "link")))
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	require.NoError(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "alias")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "directory"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	bad := []string{"", ".", "..", "../x", "/etc/passwd", "a/../../x", "a//b", "a/", "./a", "a\\b", "a\x00b", ".synod", ".synod/prepared/x", ".SYNOD/x", "a/.synod-1",
		"link/secret", "alias", "directory", "file/below", strings.Repeat("a", 300), strings.Repeat("a/", 600) + "a"}
	for i, name := range bad {
		for j, do := range []func(tx *Tx) error{
			func(tx *Tx) error { return tx.WriteFile(name, []byte("x")) },
			func(tx *Tx) error { return tx.Remove(name) },
			func(tx *Tx) error { _, err := tx.ReadFile(name); return err },
		} {
			counter := uint64(10*i + j + 1)
			tx := begin(t, r, counter)
			require.ErrorIs(t, do(tx), ErrPath, "%q", name)
			vote, err := prepare(t, r, counter)
			require.ErrorIs(t, err, ErrPath)
			require.Equal(t, txn.No, vote)
		}
		vote, err := r.Prepare(t.Context(), txn.PrepareRequest{ID: testID(1000 + uint64(i)), Work: Work(write("fine", "x"), write(name, "x"))})
		require.ErrorIs(t, err, ErrPath)
		require.Equal(t, txn.No, vote)
	}
	content, err := os.ReadFile(filepath.Join(outside, "secret"))
	require.NoError(t, err)
	require.Equal(t, "secret", string(content))
	require.Empty(t, r.locks)
	require.Empty(t, r.below)
}

// What leads out of the directory only when it is committed is refused by then: nothing outside is touched.
func TestALinkThatComesLate(t *testing.T) {
	r, dir := openTest(t, nil)
	outside := t.TempDir()
	require.NoError(t, begin(t, r, 1).WriteFile("d/f", []byte("x")))
	vote, err := prepare(t, r, 1)
	require.NoError(t, err)
	require.Equal(t, txn.Yes, vote)
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "d")))
	require.Error(t, r.Commit(t.Context(), testID(1)))
	names, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Empty(t, names)
	require.NoError(t, os.Remove(filepath.Join(dir, "d")))
	require.NoError(t, r.Commit(t.Context(), testID(1)), "it is called again")
	content, err := os.ReadFile(filepath.Join(dir, "d/f"))
	require.NoError(t, err)
	require.Equal(t, "x", string(content))
}

// Two transactions have nothing to do with one file at a time, nor one with a file and another with what is below it.
func TestLocks(t *testing.T) {
	r, _ := openTest(t, nil)
	require.NoError(t, begin(t, r, 1).WriteFile("a/b", []byte("1")))
	for i, name := range []string{"a/b", "a", "a/b/c"} {
		counter := uint64(i + 2)
		tx := begin(t, r, counter)
		require.ErrorIs(t, tx.WriteFile(name, nil), ErrLocked)
		require.NoError(t, tx.WriteFile(fmt.Sprint("other", i), nil))
		vote, err := prepare(t, r, counter)
		require.ErrorIs(t, err, ErrLocked)
		require.Equal(t, txn.No, vote, "what went wrong once is voted No")
	}
	_, err := begin(t, r, 5).ReadFile("a/b")
	require.ErrorIs(t, err, ErrLocked, "it could change what is read")
	require.NoError(t, begin(t, r, 6).WriteFile("a/c", nil), "a file beside it")
	require.NoError(t, begin(t, r, 6).Remove("x"))
	require.ErrorIs(t, begin(t, r, 6).WriteFile("x/y", nil), ErrLocked, "not even the same")
	for counter := uint64(1); counter <= 6; counter++ {
		require.NoError(t, r.Abort(t.Context(), testID(counter)))
	}
	require.Empty(t, r.locks)
	require.Empty(t, r.below)
}

func TestReadYourWrites(t *testing.T) {
	r, dir := openTest(t, nil)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte("old"), 0o600))
	tx := begin(t, r, 1)
	read := func(want string) {
		content, err := tx.ReadFile("f")
		require.NoError(t, err)
		require.Equal(t, want, string(content))
	}
	read("old")
	require.NoError(t, tx.WriteFile("f", []byte("new")))
	read("new")
	require.NoError(t, tx.Remove("f"))
	_, err := tx.ReadFile("f")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, tx.WriteFile("f", []byte("newest")))
	read("newest")
	vote, err := prepare(t, r, 1)
	require.NoError(t, err)
	require.Equal(t, txn.Yes, vote)
	require.ErrorIs(t, tx.WriteFile("f", nil), ErrEnded)
	_, err = r.Begin(t.Context(), testID(1))
	require.NoError(t, err)
	require.NoError(t, r.Commit(t.Context(), testID(1)))
	content, err := os.ReadFile(filepath.Join(dir, "f"))
	require.NoError(t, err)
	require.Equal(t, "newest", string(content))
	_, err = r.Begin(t.Context(), testID(1))
	require.ErrorIs(t, err, ErrEnded)
	names, err := os.ReadDir(filepath.Join(dir, staged))
	require.NoError(t, err)
	require.Empty(t, names)
}

func TestLimits(t *testing.T) {
	r, _ := openTest(t, func(c *Config) { c.MaxOpen, c.MaxChanges, c.MaxBytes = 2, 3, 10 })
	tx := begin(t, r, 1)
	begin(t, r, 2)
	_, err := r.Begin(t.Context(), testID(3))
	require.ErrorIs(t, err, synod.ErrOverloaded)
	require.NoError(t, tx.WriteFile("a", make([]byte, 10)))
	require.NoError(t, tx.WriteFile("b", nil))
	require.ErrorIs(t, tx.WriteFile("b", make([]byte, 1)), ErrLimit)
	vote, err := prepare(t, r, 1)
	require.ErrorIs(t, err, ErrLimit)
	require.Equal(t, txn.No, vote)
	tx = begin(t, r, 4)
	for i := range 3 {
		require.NoError(t, tx.Remove(fmt.Sprint(i)))
	}
	require.ErrorIs(t, tx.Remove("4"), ErrLimit)
	require.NoError(t, r.Abort(t.Context(), testID(4)))
	vote, err = r.Prepare(t.Context(), txn.PrepareRequest{ID: testID(5), Work: Work(remove("1"), remove("2"), remove("3"), remove("4"))})
	require.ErrorIs(t, err, ErrLimit)
	require.Equal(t, txn.No, vote)
}

func TestFilesThatAreNotClosed(t *testing.T) {
	r, _ := openTest(t, nil)
	w, err := begin(t, r, 1).Create("f")
	require.NoError(t, err)
	_, err = w.Write([]byte("half"))
	require.NoError(t, err)
	vote, err := prepare(t, r, 1)
	require.ErrorContains(t, err, "not closed")
	require.Equal(t, txn.No, vote)
	_, err = w.Write([]byte("of it"))
	require.ErrorIs(t, err, ErrEnded)
	require.ErrorIs(t, w.Close(), ErrEnded)
	_, err = w.Write(nil)
	require.ErrorIs(t, err, fs.ErrClosed)
	require.Empty(t, r.locks)
}

// What nobody prepares is given up.
func TestOpenTimeout(t *testing.T) {
	r, _ := openTest(t, func(c *Config) { c.OpenTimeout = time.Second })
	require.NoError(t, begin(t, r, 1).WriteFile("f", nil))
	require.Eventually(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.branches) == 0 && len(r.locks) == 0
	}, time.Minute, 10*time.Millisecond)
	vote, err := prepare(t, r, 1)
	require.Error(t, err)
	require.Equal(t, txn.No, vote)
}

// What was never prepared is not committed: that is said loudly, and so is a decision that comes too late.
func TestCommitWithoutPrepare(t *testing.T) {
	r, _ := openTest(t, nil)
	var h *txn.HeuristicError
	err := r.Commit(t.Context(), testID(1))
	require.ErrorIs(t, err, ErrNotPrepared)
	require.ErrorAs(t, err, &h)
	require.Equal(t, txn.Aborted, h.Outcome)
	require.NoError(t, begin(t, r, 2).WriteFile("f", nil))
	require.ErrorIs(t, r.Commit(t.Context(), testID(2)), ErrNotPrepared)
	require.NoError(t, begin(t, r, 3).WriteFile("f", nil))
	_, err = prepare(t, r, 3)
	require.NoError(t, err)
	require.NoError(t, r.Commit(t.Context(), testID(3)))
	err = r.Abort(t.Context(), testID(3))
	require.ErrorAs(t, err, &h)
	require.Equal(t, txn.Committed, h.Outcome)
}

// The markers of a run, and those of earlier ones, are bounded, and the oldest go first.
func TestMarkersAreBounded(t *testing.T) {
	dir := t.TempDir()
	counter := uint64(0)
	for range 3 {
		r, err := Open(t.Context(), Config{Dir: dir, MaxMarkers: 16})
		require.NoError(t, err)
		for range 40 {
			counter++
			_, err := r.Prepare(t.Context(), txn.PrepareRequest{ID: testID(counter), Work: Work(write("f", "x"))})
			require.NoError(t, err)
			require.NoError(t, r.Commit(t.Context(), testID(counter)))
			names, err := os.ReadDir(filepath.Join(dir, committed))
			require.NoError(t, err)
			require.LessOrEqual(t, len(names), 2*16+2)
		}
		require.NoError(t, r.Commit(t.Context(), testID(counter-10)))
		require.ErrorIs(t, r.Commit(t.Context(), testID(counter-30)), ErrNotPrepared)
		require.NoError(t, r.Close())
	}
}

// What is prepared and cannot be believed stops the resource: nothing is lost silently.
func TestDamageIsFound(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"a manifest": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, prepared, testID(1).String()), []byte("nonsense"), 0o600)
		},
		"content that is gone": func(dir string) error { return os.Remove(filepath.Join(dir, staged, testID(1).String(), "0")) },
		"content that is cut": func(dir string) error {
			return os.Truncate(filepath.Join(dir, staged, testID(1).String(), "0"), 3)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, dir := openTest(t, nil)
			require.NoError(t, begin(t, r, 1).WriteFile("f", []byte("content")))
			_, err := prepare(t, r, 1)
			require.NoError(t, err)
			require.NoError(t, r.Close())
			require.NoError(t, spoil(dir))
			_, err = Open(t.Context(), Config{Dir: dir})
			var corrupt *storage.CorruptError
			require.ErrorAs(t, err, &corrupt)
		})
	}
	t.Run("content that is altered", func(t *testing.T) {
		r, dir := openTest(t, nil)
		require.NoError(t, begin(t, r, 1).WriteFile("f", []byte("content")))
		_, err := prepare(t, r, 1)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.NoError(t, os.WriteFile(filepath.Join(dir, staged, testID(1).String(), "0"), []byte("CONTENT"), 0o600))
		r, err = Open(t.Context(), Config{Dir: dir})
		require.NoError(t, err)
		defer r.Close()
		var corrupt *storage.CorruptError
		require.ErrorAs(t, r.Commit(t.Context(), testID(1)), &corrupt)
		_, err = os.Stat(filepath.Join(dir, "f"))
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
}

// A sync that failed is not tried again: what it says the second time is no proof.
func TestAFailedSyncStopsTheResource(t *testing.T) {
	for _, place := range []string{staged, prepared, committed, "."} {
		t.Run(place, func(t *testing.T) {
			m := newMemoryFiles()
			cfg := Config{Dir: "memory"}
			require.NoError(t, cfg.setDefaults())
			r, err := open(t.Context(), cfg, m)
			require.NoError(t, err)
			broken := errors.New("broken disk")
			m.failing = func(call, name string) error {
				if call == "sync directory" && name == place {
					return broken
				}
				return nil
			}
			require.NoError(t, begin(t, r, 1).WriteFile("f", []byte("x")))
			vote, err := prepare(t, r, 1)
			promised := place == committed || place == "."
			if promised {
				require.NoError(t, err)
				err = r.Commit(t.Context(), testID(1))
			} else {
				require.Equal(t, txn.No, vote)
			}
			require.ErrorIs(t, err, broken)
			require.ErrorIs(t, err, ErrFailed)
			m.failing = nil
			require.ErrorIs(t, r.Commit(t.Context(), testID(1)), ErrFailed)
			require.ErrorIs(t, r.Abort(t.Context(), testID(1)), ErrFailed)
			_, err = r.InDoubt(t.Context())
			require.ErrorIs(t, err, ErrFailed)

			// What is on the disk counts.
			r, err = open(t.Context(), cfg, m.crash(keepAll))
			require.NoError(t, err)
			list, err := r.InDoubt(t.Context())
			require.NoError(t, err)
			switch place {
			case committed:
				require.Empty(t, list, "the marker got through")
				require.NoError(t, r.Commit(t.Context(), testID(1)))
			case staged:
				require.Empty(t, list)
			default:
				require.Equal(t, []txn.ID{testID(1)}, list)
				require.NoError(t, r.Commit(t.Context(), testID(1)))
			}
		})
	}
}

func TestADiskThatIsFull(t *testing.T) {
	m := newMemoryFiles()
	cfg := Config{Dir: "memory"}
	require.NoError(t, cfg.setDefaults())
	r, err := open(t.Context(), cfg, m)
	require.NoError(t, err)
	full := errors.New("no space left on device")
	for i, call := range []string{"write", "create", "mkdir"} {
		counter := uint64(i + 1)
		m.failing = func(c, _ string) error {
			if c == call {
				return full
			}
			return nil
		}
		vote, err := r.Prepare(t.Context(), txn.PrepareRequest{ID: testID(counter), Work: Work(write("d/"+call, "x"))})
		require.ErrorIs(t, err, full)
		require.Equal(t, txn.No, vote)
		m.failing = nil
	}
	for i, call := range []string{"link", "create", "mkdir", "rename", "remove"} {
		counter := uint64(i + 10)
		vote, err := r.Prepare(t.Context(), txn.PrepareRequest{ID: testID(counter), Work: Work(write("new-"+call+"/f", "x"))})
		require.NoError(t, err)
		require.Equal(t, txn.Yes, vote)
		m.failing = func(c, _ string) error {
			if c == call || call == "link" && c == "create" {
				return full
			}
			return nil
		}
		require.ErrorIs(t, r.Commit(t.Context(), testID(counter)), full, call)
		m.failing = nil
		require.NoError(t, r.Commit(t.Context(), testID(counter)), "when there is room")
		require.Equal(t, "x", m.files()["new-"+call+"/f"])
	}
	require.Empty(t, r.locks)
}

func FuzzWork(f *testing.F) {
	f.Add(Work(write("a", "b"), remove("c")))
	f.Add(Work())
	f.Fuzz(func(t *testing.T, b []byte) {
		changes, err := parseWork(b, 100)
		if err != nil {
			require.True(t, errors.Is(err, ErrWork) || errors.Is(err, ErrLimit))
			return
		}
		again, err := parseWork(Work(changes...), 100)
		require.NoError(t, err)
		require.True(t, slices.EqualFunc(changes, again, func(a, b Change) bool {
			return a.Path == b.Path && a.Remove == b.Remove && bytes.Equal(a.Data, b.Data)
		}))
	})
}

func FuzzManifest(f *testing.F) {
	good := encodeManifest(testID(1), true, []change{{path: "a/b", number: 3, size: 4, sum: 5}, {path: "c", remove: true}})
	f.Add(good[storage.RecordOverhead:])
	f.Fuzz(func(t *testing.T, b []byte) {
		sealed := storage.AppendRecord(nil, []byte(testID(1).String()), b)
		one, changes, err := decodeManifest(testID(1), sealed)
		if err != nil {
			return
		}
		again, list, err := decodeManifest(testID(1), encodeManifest(testID(1), one, changes))
		require.NoError(t, err)
		require.Equal(t, one, again)
		require.Equal(t, changes, list)
	})
}
