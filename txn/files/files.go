package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/txn"
)

// The resource's own directory, and what is there:
//
//	staged/ID/NUMBER         the new content of a file
//	prepared/ID              the manifest: what the transaction does. Its name is the promise
//	prepared/ID.new          one that is being written
//	committed/SEQUENCE-ID    an empty file: the transaction is committed, and all it did is durable
//	lock                     the process that has the directory
const (
	home      = ".synod"
	staged    = home + "/staged"
	prepared  = home + "/prepared"
	committed = home + "/committed"
	temporary = ".synod-" // in the directory of a file, while it is replaced
	unnamed   = ".new"
)

// Resource is the files below a directory. All methods may be called concurrently.
type Resource struct {
	cfg    Config
	ex     executor.Executor
	fs     fileSystem
	locked io.Closer

	mu       sync.Mutex
	closed   bool
	failed   error
	branches map[txn.ID]*branch
	locks    map[string]txn.ID // who has to do with a path
	below    map[string]int    // how many of locks are below a directory
	markers  map[txn.ID]uint64 // sequence
	recent   []txn.ID          // those of this run, oldest first
	sequence uint64            // of the next marker
	trimming bool
}

var _ txn.OnePhaseCommitter = (*Resource)(nil)

// state is how far a branch is.
type state uint8

const (
	stateOpen state = iota
	statePrepared
	stateDecided // it commits in one phase, and has its manifest
	stateReading // it has voted read-only, and keeps its locks
	stateOver
)

// branch is what a transaction does here.
type branch struct {
	id txn.ID

	mu      sync.Mutex // held while files are worked on
	state   state
	paths   []string // locked by it
	changes []change
	next    uint64 // number
	bytes   int64
	writing int   // files that are not closed
	failed  error // the first thing that went wrong: a no
	made    bool  // its staging place
	check   bool  // its content was found at Open, and is read before it is believed
	timer   executor.Timer
}

// Open opens a directory, with what earlier runs have prepared: that is in doubt, and locked, until Commit or Abort. ctx
// carries the executor. What an earlier run had not prepared is removed.
//
// A *synod.ConfigError says what is wrong with cfg; ErrInUse, that somebody else has the directory; a *storage.CorruptError, that
// something that is prepared cannot be believed: the promise can't be kept, and somebody has to look.
func Open(ctx context.Context, cfg Config) (*Resource, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	r, err := open(ctx, cfg, &osFiles{root, cfg.FileMode, cfg.DirMode})
	if err != nil {
		root.Close()
		return nil, err
	}
	return r, nil
}

func open(ctx context.Context, cfg Config, system fileSystem) (*Resource, error) {
	r := &Resource{cfg: cfg, ex: executor.From(ctx, executor.Real()), fs: system, branches: make(map[txn.ID]*branch), locks: make(map[string]txn.ID),
		below: make(map[string]int), markers: make(map[txn.ID]uint64), sequence: 1}
	for _, dir := range []string{home, staged, prepared, committed} {
		if err := system.mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("files: %w", err)
		}
	}
	locked, err := system.lock(home + "/lock")
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("%w: %s", ErrInUse, cfg.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	r.locked = locked
	// An earlier run may have been killed before it had synced what it named, or while it cleared up.
	for _, dir := range []string{".", home, committed, prepared} {
		err = errors.Join(err, system.syncDir(dir))
	}
	for _, load := range []func() error{r.loadMarkers, r.loadPrepared, r.clear} {
		if err == nil {
			err = load()
		}
	}
	if err != nil {
		locked.Close()
		return nil, fmt.Errorf("files: %s: %w", cfg.Dir, err)
	}
	return r, nil
}

func (r *Resource) loadMarkers() error {
	names, err := r.fs.list(committed)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for i, name := range names {
		number, rest, _ := strings.Cut(name, "-")
		sequence, err := strconv.ParseUint(number, 16, 64)
		id, err2 := txn.ParseID(rest)
		if err := errors.Join(err, err2); err != nil {
			return fmt.Errorf("%s/%s is not the resource's: %w", committed, name, err)
		}
		r.sequence = max(r.sequence, sequence+1)
		if i < len(names)-r.cfg.MaxMarkers {
			// The removal of its manifest is durable since the directory was synced above.
			if err := r.fs.remove(committed + "/" + name); err != nil {
				return err
			}
			continue
		}
		r.markers[id] = sequence
	}
	return nil
}

func (r *Resource) loadPrepared() error {
	names, err := r.fs.list(prepared)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		manifest := prepared + "/" + name
		id, err := txn.ParseID(strings.TrimSuffix(name, unnamed))
		if err != nil {
			return fmt.Errorf("%s is not the resource's: %w", manifest, err)
		}
		if _, over := r.markers[id]; over || strings.HasSuffix(name, unnamed) {
			probe.Sometimes("files: a manifest outlives its transaction", over)
			if err := r.fs.remove(manifest); err != nil {
				return err
			}
			continue
		}
		content, err := r.readAll(manifest, maxManifestBytes)
		if err != nil {
			return err
		}
		b := &branch{id: id, state: statePrepared, made: true, check: true}
		var one bool
		if one, b.changes, err = decodeManifest(id, content); err != nil {
			return fmt.Errorf("%s: %w", manifest, err)
		}
		if one {
			b.state = stateDecided
		}
		for _, c := range b.changes {
			if !c.remove {
				k, size, err := r.fs.stat(r.content(id, c))
				if err != nil {
					return err
				}
				if k != kindFile || size != c.size {
					return &storage.CorruptError{Key: []byte(r.content(id, c)), Reason: "it is prepared, and its content is missing or cut"}
				}
			}
			if probe.Bug("files: what is prepared is not locked again") {
				continue
			}
			if err := r.take(b, c.path); err != nil {
				return fmt.Errorf("%s: %w", manifest, err)
			}
		}
		r.branches[id] = b
	}
	// What follows may be about the same files: let nothing of what was removed here come back.
	return r.fs.syncDir(prepared)
}

// clear removes the content of what was not prepared, or is over.
func (r *Resource) clear() error {
	names, err := r.fs.list(staged)
	if err != nil {
		return err
	}
	for _, name := range names {
		id, err := txn.ParseID(name)
		if err == nil && r.branches[id] != nil {
			continue
		}
		if err := r.removeAll(staged + "/" + name); err != nil {
			return err
		}
	}
	return nil
}

func (r *Resource) removeAll(dir string) error {
	names, err := r.fs.list(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := r.fs.remove(dir + "/" + name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := r.fs.remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (r *Resource) content(id txn.ID, c change) string {
	return fmt.Sprintf("%s/%v/%d", staged, id, c.number)
}

func (r *Resource) readAll(name string, most int64) ([]byte, error) {
	f, err := r.fs.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%w: %s has more than %d bytes", ErrLimit, name, most)
	}
	return b, err
}

// take locks a path for a branch. Whoever holds mu calls it, or Open.
func (r *Resource) take(b *branch, name string) error {
	if slices.Contains(b.paths, name) {
		return nil
	}
	if holder, taken := r.locks[name]; taken {
		return fmt.Errorf("%w: %q, by transaction %v", ErrLocked, name, holder)
	}
	if r.below[name] > 0 {
		return fmt.Errorf("%w: %q is the directory of others", ErrLocked, name)
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if holder, taken := r.locks[dir]; taken {
			return fmt.Errorf("%w: %q, by transaction %v, and it is a directory of %q", ErrLocked, dir, holder, name)
		}
	}
	r.locks[name] = b.id
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		r.below[dir]++
	}
	b.paths = append(b.paths, name)
	return nil
}

// release ends a branch: it holds nothing any more.
func (r *Resource) release(b *branch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range b.paths {
		delete(r.locks, name)
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if r.below[dir]--; r.below[dir] == 0 {
				delete(r.below, dir)
			}
		}
	}
	b.paths, b.state = nil, stateOver
	if b.timer != nil {
		b.timer.Stop()
	}
	if r.branches[b.id] == b {
		delete(r.branches, b.id)
	}
}

// alive says why nothing is done any more. Whoever holds mu calls it.
func (r *Resource) alive() error {
	if r.failed != nil {
		return r.failed
	}
	if r.closed {
		return fmt.Errorf("files: %s: %w", r.cfg.Dir, synod.ErrClosed)
	}
	return nil
}

// fail ends it all: a sync that failed once tells nothing the second time.
func (r *Resource) fail(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = fmt.Errorf("%w: %s: %w", ErrFailed, r.cfg.Dir, err)
		r.cfg.Logger.Error("a sync failed, and nothing is done any more until the directory is opened again", "dir", r.cfg.Dir, "error", err)
	}
	return r.failed
}

func (r *Resource) syncDir(name string) error {
	if err := r.fs.syncDir(name); err != nil {
		return r.fail(err)
	}
	return nil
}

// find returns a branch, and whether the transaction is committed.
func (r *Resource) find(id txn.ID) (b *branch, over bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, over = r.markers[id]
	return r.branches[id], over, r.alive()
}

// Close ends the resource. What is open is given up; what is prepared stays so. Calls after the first return nil.
func (r *Resource) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	var open []*branch
	for _, b := range r.branches {
		open = append(open, b)
	}
	r.closed = true
	r.mu.Unlock()
	var err error
	for _, b := range open {
		b.mu.Lock() // whatever is under way comes to its end
		if b.state == stateOpen {
			err = errors.Join(err, r.discard(b))
		}
		if b.timer != nil {
			b.timer.Stop()
		}
		b.mu.Unlock()
	}
	return errors.Join(err, r.locked.Close(), r.fs.close())
}

// discard removes the content of a branch, and ends it. Whoever holds b.mu calls it.
func (r *Resource) discard(b *branch) error {
	var err error
	if b.made {
		err = r.removeAll(fmt.Sprintf("%s/%v", staged, b.id))
	}
	r.release(b)
	if err != nil {
		// It is removed with the next Open, at the latest.
		r.cfg.Logger.Warn("the content of a transaction that is over was not removed", "dir", r.cfg.Dir, "transaction", b.id.String(), "error", err)
	}
	return nil
}
