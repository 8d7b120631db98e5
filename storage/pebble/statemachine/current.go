package statemachine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/pebble"
)

// Below Config.Dir are LOCK, a directory "state-…" with a Pebble in it, and CURRENT,
// which says which one. While they are needed, there are more states, that which a
// snapshot is restored into or those that somebody still reads after they were
// replaced, and directories "snapshot-…", each a checkpoint. All but what CURRENT
// names is removed at the next start.
const (
	currentFile    = "CURRENT"
	currentNew     = "CURRENT.new"
	statePrefix    = "state-"
	snapshotPrefix = "snapshot-"
)

// current is what the file CURRENT says.
type current struct {
	number uint64 // of the state
	empty  bool   // it is still being created, and nothing was ever applied
}

const maxCurrent = 256

func (c current) encode() []byte {
	word := "state"
	if c.empty {
		word = "empty"
	}
	return storage.AppendRecord(nil, []byte(currentFile), fmt.Appendf(nil, "%s %d\n", word, c.number))
}

func decodeCurrent(b []byte) (c current, err error) {
	payload, err := storage.OpenRecord([]byte(currentFile), b)
	if err != nil {
		return c, err
	}
	word, number, _ := strings.Cut(strings.TrimSuffix(string(payload), "\n"), " ")
	c.empty = word == "empty"
	c.number, err = strconv.ParseUint(number, 10, 64)
	if err != nil || c.number == 0 || string(c.encode()) != string(b) {
		return c, corrupt(currentFile, "says %q, which is not what this library writes", payload)
	}
	return c, nil
}

// readCurrent reads CURRENT, if there is one.
func readCurrent(fsys vfs.FS, dir string) (c current, found bool, err error) {
	path := fsys.PathJoin(dir, currentFile)
	f, err := fsys.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, false, nil
	}
	if err != nil {
		return c, false, unusable(dir, "CURRENT can't be read", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCurrent))
	if err != nil {
		return c, false, unusable(dir, "CURRENT can't be read", err)
	}
	c, err = decodeCurrent(b)
	var bad *storage.CorruptError
	if errors.As(err, &bad) {
		bad.File = path
	}
	return c, true, err
}

// writeCurrent replaces CURRENT. On return the new one is durable. After an error the
// old one still counts, or, if unsure, either may.
func writeCurrent(fsys vfs.FS, dir string, c current) (unsure bool, err error) {
	path := fsys.PathJoin(dir, currentNew)
	f, err := fsys.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return false, err
	}
	_, err = f.Write(c.encode())
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return false, err
	}
	if err := fsys.Rename(path, fsys.PathJoin(dir, currentFile)); err != nil {
		return true, err
	}
	return true, syncDir(fsys, dir)
}

// syncDir makes the names in a directory durable.
func syncDir(fsys vfs.FS, dir string) error {
	f, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// numbered returns the number in a name such as "state-7".
func numbered(name, prefix string) (number uint64, ok bool) {
	digits, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	number, err := strconv.ParseUint(digits, 10, 64)
	return number, err == nil
}

// start finds the state in the directory, or creates an empty one where there never
// was one, and removes what is left over.
func (m *Machine) start() error {
	fsys, dir := m.cfg.FS, m.cfg.Dir
	names, err := fsys.List(dir)
	if err != nil {
		return unusable(dir, "it can't be read", err)
	}
	cur, found, err := readCurrent(fsys, dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if number, ok := numbered(n, statePrefix); ok {
			m.states = max(m.states, number)
			if !found {
				return corrupt(fsys.PathJoin(dir, currentFile), "is missing, but there is %s: what was in it is not to be guessed", n)
			}
		}
		if strings.HasPrefix(n, "marker.") {
			return &pebble.DirError{Dir: dir, Problem: "it holds a store: name a directory of its own", Err: fs.ErrExist}
		}
	}
	switch {
	case !found, cur.empty:
		m.states = 1
		if !found {
			if _, err := writeCurrent(fsys, dir, current{number: 1, empty: true}); err != nil {
				return unusable(dir, "it can't be written", err)
			}
		}
		path := m.statePath(1)
		err := fsys.RemoveAll(path)
		if err == nil {
			err = fsys.MkdirAll(path, 0o755)
		}
		if err == nil {
			err = syncDir(fsys, dir)
		}
		if err != nil {
			return unusable(dir, "it can't be written", err)
		}
		if m.current, err = openState(&m.cfg, path, true); err != nil {
			return err
		}
		cur = current{number: 1}
		if _, err := writeCurrent(fsys, dir, cur); err != nil {
			_ = m.current.release()
			return unusable(dir, "it can't be written", err)
		}
	default:
		m.states = max(m.states, cur.number)
		if m.current, err = openState(&m.cfg, m.statePath(cur.number), false); err != nil {
			return err
		}
	}
	m.applied.Store(m.current.applied)
	for _, n := range names {
		number, state := numbered(n, statePrefix)
		_, snapshot := numbered(n, snapshotPrefix)
		if state && number != cur.number || snapshot || n == currentNew {
			if err := fsys.RemoveAll(fsys.PathJoin(dir, n)); err != nil {
				m.cfg.Logger.Warn("what a crash left over can't be removed; the next start tries again", "file", n, "error", err)
			}
		}
	}
	return nil
}

func (m *Machine) statePath(number uint64) string {
	return m.cfg.FS.PathJoin(m.cfg.Dir, fmt.Sprintf("%s%d", statePrefix, number))
}
