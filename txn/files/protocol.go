package files

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"slices"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/txn"
)

// Prepare implements txn.Resource. request.Work, if there is any, is what Work returns; it is done in addition to what was done
// under the ID with Begin. What is prepared is durable, and nobody sees it before Commit.
func (r *Resource) Prepare(ctx context.Context, request txn.PrepareRequest) (txn.Vote, error) {
	b, over, err := r.find(request.ID)
	switch {
	case err != nil:
		return txn.No, err
	case over:
		return txn.No, fmt.Errorf("%w: %v is committed", ErrEnded, request.ID)
	}
	b, err = r.work(ctx, b, request.ID, request.Work)
	if err != nil {
		return txn.No, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.state == statePrepared:
		return txn.Yes, nil // it was asked before
	case b.state == stateReading:
		return txn.ReadOnly, nil
	case b.state != stateOpen:
		return txn.No, fmt.Errorf("%w: %v", ErrEnded, b.id)
	}
	if err := b.ready(ctx); err != nil {
		return txn.No, errors.Join(err, r.discard(b))
	}
	if len(b.changes) == 0 {
		if request.MayLeave {
			return txn.ReadOnly, r.discard(b)
		}
		b.state = stateReading
		return txn.ReadOnly, nil
	}
	if err := r.promise(b, false); err != nil {
		if b.state == stateOpen && !errors.Is(err, ErrFailed) {
			err = errors.Join(err, r.discard(b))
		}
		return txn.No, err // after a failure the manifest may be there: the next Open knows
	}
	return txn.Yes, nil
}

// work has a branch do what is handed over. Without that, it must have been told before.
func (r *Resource) work(ctx context.Context, b *branch, id txn.ID, work []byte) (*branch, error) {
	if work == nil {
		if b == nil {
			return nil, fmt.Errorf("files: nothing is known of transaction %v", id)
		}
		return b, nil
	}
	if b != nil {
		b.mu.Lock()
		told := b.state != stateOpen
		b.mu.Unlock()
		if told {
			return b, nil
		}
	}
	changes, err := parseWork(work, r.cfg.MaxChanges)
	if err != nil {
		if b != nil {
			err = errors.Join(err, r.Abort(ctx, id))
		}
		return nil, err
	}
	tx := &Tx{r, b}
	if b == nil {
		if tx, err = r.Begin(ctx, id); err != nil {
			return nil, err
		}
	}
	for _, c := range changes {
		if c.Remove {
			err = tx.Remove(c.Path)
		} else {
			err = tx.WriteFile(c.Path, c.Data)
		}
		if err != nil {
			return nil, errors.Join(err, r.Abort(ctx, id))
		}
	}
	return tx.b, nil
}

// ready says why a branch cannot be prepared. Whoever holds b.mu calls it.
func (b *branch) ready(ctx context.Context) error {
	switch {
	case b.failed != nil:
		return b.failed
	case b.writing > 0:
		return fmt.Errorf("files: transaction %v: %d files are not closed", b.id, b.writing)
	}
	return ctx.Err()
}

// promise makes the changes of a branch durable, and the branch prepared, or decided. If it stays open, nothing was promised.
func (r *Resource) promise(b *branch, one bool) error {
	// The files' contents are synced as they are closed. Their names, where there is one that is written:
	if b.made && !probe.Bug("files: the staging place is not synced") {
		if err := r.syncDir(fmt.Sprintf("%s/%v", staged, b.id)); err != nil {
			return err
		}
	}
	if b.made && !probe.Bug("files: the directory of staging places is not synced") {
		if err := r.syncDir(staged); err != nil {
			return err
		}
	}
	manifest := fmt.Sprintf("%s/%v", prepared, b.id)
	name := manifest + unnamed
	if probe.Bug("files: the manifest is named before it is written") {
		name = manifest
	}
	if err := r.write(name, encodeManifest(b.id, one, b.changes)); err != nil {
		if left := r.fs.remove(name); left != nil && !errors.Is(left, fs.ErrNotExist) {
			r.cfg.Logger.Warn("a manifest that was not completed was not removed", "dir", r.cfg.Dir, "transaction", b.id.String(), "error", left)
		}
		return err
	}
	if name != manifest {
		if err := r.fs.rename(name, manifest); err != nil {
			return r.fail(err) // whether it is there nobody knows
		}
	}
	b.state = statePrepared
	if one {
		b.state = stateDecided
	}
	if b.timer != nil {
		b.timer.Stop()
	}
	if probe.Bug("files: the directory of manifests is not synced") {
		return nil
	}
	return r.syncDir(prepared)
}

// write makes a file, and its content durable.
func (r *Resource) write(name string, content []byte) error {
	f, err := r.fs.create(name)
	if err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		f.Close()
		return err
	}
	if !probe.Bug("files: the manifest is not synced") {
		if err := f.Sync(); err != nil {
			f.Close()
			return r.fail(err)
		}
	}
	return f.Close()
}

// Commit implements txn.Resource. Files appear one after the other, in the order of the transaction. If it was committed
// before, nothing is done. A transaction that is neither prepared nor committed is ErrNotPrepared, with a txn.HeuristicError.
func (r *Resource) Commit(ctx context.Context, id txn.ID) error {
	b, over, err := r.find(id)
	switch {
	case err != nil:
		return err
	case over:
		return nil
	case b == nil:
		return r.notPrepared(id)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.state {
	case stateReading:
		return r.discard(b)
	case stateOpen:
		return errors.Join(r.discard(b), r.notPrepared(id))
	case stateOver:
		if _, over, err := r.find(id); over || err != nil {
			return err
		}
		return r.notPrepared(id)
	}
	return r.apply(ctx, b)
}

func (r *Resource) notPrepared(id txn.ID) error {
	return fmt.Errorf("%w: %v: %w", ErrNotPrepared, id, &txn.HeuristicError{Outcome: txn.Aborted})
}

// apply does what is prepared, and marks that it is done. It may have been done before, wholly or in part. Whoever holds
// b.mu calls it.
func (r *Resource) apply(ctx context.Context, b *branch) error {
	if b.check {
		if err := r.verify(ctx, b); err != nil {
			return err
		}
		b.check = false
	}
	if probe.Bug("files: the marker comes before the files") {
		if err := r.mark(b.id); err != nil {
			return err
		}
	}
	var dirs []string // whose names have changed
	for _, c := range b.changes {
		if err := ctx.Err(); err != nil {
			return err
		}
		changed, err := r.replace(b, c)
		if err != nil {
			return fmt.Errorf("files: transaction %v: %w", b.id, err)
		}
		dirs = append(dirs, changed...)
	}
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) {
		if probe.Bug("files: changed directories are not synced") {
			break
		}
		if err := r.syncDir(dir); err != nil {
			return err
		}
	}
	if probe.Bug("files: the manifest goes before the marker is durable") {
		_ = r.fs.remove(fmt.Sprintf("%s/%v", prepared, b.id))
		_ = r.fs.syncDir(prepared)
	}
	if err := r.mark(b.id); err != nil {
		return err
	}
	// It is done. That its manifest is gone is not synced: should it come back, there is the marker.
	if len(b.changes) > 0 {
		if err := r.fs.remove(fmt.Sprintf("%s/%v", prepared, b.id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.cfg.Logger.Warn("the manifest of a transaction that is over was not removed", "dir", r.cfg.Dir, "transaction", b.id.String(), "error", err)
		}
	}
	err := r.discard(b)
	r.trim()
	return err
}

// verify reads content that an earlier run has written.
func (r *Resource) verify(ctx context.Context, b *branch) error {
	for _, c := range b.changes {
		if c.remove {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := r.fs.open(r.content(b.id, c))
		if err != nil {
			return err
		}
		h := crc32.New(castagnoli)
		n, err := io.Copy(h, f)
		f.Close()
		if err != nil {
			return err
		}
		if n != c.size || h.Sum32() != c.sum {
			return &storage.CorruptError{Key: []byte(r.content(b.id, c)), Reason: "it is prepared, and its content was altered: the file is " + c.path}
		}
	}
	return nil
}

// replace does one change, and returns the directories whose names changed.
//
// The content keeps its staged name until all is durable: a rename from one directory to another is two changes of
// names, and after a crash there may be one of them. Within a directory it is one.
func (r *Resource) replace(b *branch, c change) (dirs []string, err error) {
	if c.remove {
		dir := path.Dir(c.path)
		k, _, err := r.fs.stat(c.path)
		if err != nil || k == kindNothing {
			if k, _, there := r.fs.stat(dir); there != nil || k != kindDirectory {
				return nil, err // not even its directory
			}
			return []string{dir}, err
		}
		if err := r.fs.remove(c.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return []string{dir}, nil
	}
	if dirs, err = r.parents(path.Dir(c.path)); err != nil {
		return nil, err
	}
	dirs = append(dirs, path.Dir(c.path))
	content := r.content(b.id, c)
	if probe.Bug("files: content is renamed from the staging place") {
		if k, _, _ := r.fs.stat(content); k == kindNothing {
			return dirs, nil
		}
		return dirs, r.fs.rename(content, c.path)
	}
	second := path.Join(path.Dir(c.path), fmt.Sprintf("%s%v-%d", temporary, b.id, c.number))
	if err := r.fs.remove(second); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := r.fs.link(content, second); err != nil {
		probe.Sometimes("files: content is copied where there are no links", true)
		if err := r.copy(content, second); err != nil {
			return nil, err
		}
	}
	if err := r.fs.rename(second, c.path); err != nil {
		return nil, err
	}
	// Two names of one file stay both: the rename was done by an earlier run.
	if probe.Bug("files: a second name is left behind") {
		return dirs, nil
	}
	if err := r.fs.remove(second); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return dirs, nil
}

// copy is for file systems that have no links, and for what is mounted below the directory.
func (r *Resource) copy(from, to string) error {
	in, err := r.fs.open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := r.fs.create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil && !probe.Bug("files: a copy is not synced") {
		if err := out.Sync(); err != nil {
			out.Close()
			return r.fail(err)
		}
	}
	return errors.Join(err, out.Close())
}

// parents makes a directory, and those above it, and returns where names were added. Those that are there may have been added
// by a run that had not synced them.
func (r *Resource) parents(dir string) (changed []string, err error) {
	if dir == "." {
		return nil, nil
	}
	if changed, err = r.parents(path.Dir(dir)); err != nil {
		return nil, err
	}
	if err := r.fs.mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if probe.Bug("files: the place of a new directory is not synced") {
		return nil, nil
	}
	return append(changed, path.Dir(dir)), nil
}

// mark makes it durable that a transaction is committed.
func (r *Resource) mark(id txn.ID) error {
	r.mu.Lock()
	if _, marked := r.markers[id]; marked {
		r.mu.Unlock()
		return nil
	}
	sequence := r.sequence
	r.sequence++
	r.mu.Unlock()
	f, err := r.fs.create(marker(sequence, id))
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return err
	}
	if !probe.Bug("files: the marker is not synced") {
		if err := r.syncDir(committed); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.markers[id] = sequence
	r.recent = append(r.recent, id)
	return nil
}

func marker(sequence uint64, id txn.ID) string {
	return fmt.Sprintf("%s/%016x-%v", committed, sequence, id)
}

// trim removes the oldest markers of this run when there are too many.
func (r *Resource) trim() {
	r.mu.Lock()
	over := len(r.recent) - r.cfg.MaxMarkers
	if over <= r.cfg.MaxMarkers/16 || r.trimming || r.alive() != nil {
		r.mu.Unlock()
		return
	}
	r.trimming = true
	ids := slices.Clone(r.recent[:over])
	sequences := make([]uint64, over)
	for i, id := range ids {
		sequences[i] = r.markers[id]
	}
	r.mu.Unlock()
	// Their manifests must not come back afterwards.
	err := r.syncDir(prepared)
	n := 0
	for ; n < over && err == nil; n++ {
		if err = r.fs.remove(marker(sequences[n], ids[n])); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		n = max(n-1, 0)
		r.cfg.Logger.Warn("old markers were not removed, and will be", "dir", r.cfg.Dir, "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids[:n] {
		delete(r.markers, id)
	}
	r.recent = slices.Delete(r.recent, 0, n)
	r.trimming = false
}

// Abort implements txn.Resource. A transaction that was committed is a txn.HeuristicError.
func (r *Resource) Abort(_ context.Context, id txn.ID) error {
	b, over, err := r.find(id)
	switch {
	case err != nil:
		return err
	case over:
		return fmt.Errorf("files: transaction %v: %w", id, &txn.HeuristicError{Outcome: txn.Committed})
	case b == nil:
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.state {
	case stateOver:
		if _, over, err := r.find(id); over {
			return fmt.Errorf("files: transaction %v: %w", id, &txn.HeuristicError{Outcome: txn.Committed})
		} else if err != nil {
			return err
		}
		return nil
	case stateDecided:
		return fmt.Errorf("files: transaction %v: %w", id, &txn.HeuristicError{Outcome: txn.Committed})
	case statePrepared:
		if err := r.fs.remove(fmt.Sprintf("%s/%v", prepared, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !probe.Bug("files: an abort is not synced") {
			if err := r.syncDir(prepared); err != nil {
				return err
			}
		}
	}
	return r.discard(b)
}

// InDoubt implements txn.Resource: what is prepared, ascending.
func (r *Resource) InDoubt(context.Context) ([]txn.ID, error) {
	r.mu.Lock()
	if err := r.alive(); err != nil {
		r.mu.Unlock()
		return nil, err
	}
	var all []*branch
	for _, b := range r.branches {
		all = append(all, b)
	}
	r.mu.Unlock()
	var list []txn.ID
	for _, b := range all {
		b.mu.Lock()
		if b.state == statePrepared {
			list = append(list, b.id)
		}
		b.mu.Unlock()
	}
	slices.SortFunc(list, txn.ID.Compare)
	return list, nil
}

// CommitOnePhase implements txn.OnePhaseCommitter. It writes a manifest as Prepare does, since several files don't change
// at once, and this manifest is the commit.
func (r *Resource) CommitOnePhase(ctx context.Context, id txn.ID, work []byte) (txn.Outcome, error) {
	b, over, err := r.find(id)
	switch {
	case err != nil:
		return txn.Aborted, err
	case over:
		return txn.Committed, nil
	}
	b, err = r.work(ctx, b, id, work)
	if err != nil {
		return txn.Aborted, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state != stateOpen {
		return txn.Unknown, fmt.Errorf("%w: %v", ErrEnded, id)
	}
	if err := b.ready(ctx); err != nil {
		return txn.Aborted, errors.Join(err, r.discard(b))
	}
	if len(b.changes) > 0 {
		if err := r.promise(b, true); err != nil {
			if b.state != stateOpen || errors.Is(err, ErrFailed) {
				return txn.Unknown, err
			}
			return txn.Aborted, errors.Join(err, r.discard(b))
		}
	}
	if err := r.apply(ctx, b); err != nil {
		return txn.Unknown, err
	}
	return txn.Committed, nil
}

// Outcome implements txn.OnePhaseCommitter. What has its manifest is committed, and is completed here.
func (r *Resource) Outcome(ctx context.Context, id txn.ID) (txn.Outcome, error) {
	b, over, err := r.find(id)
	switch {
	case err != nil:
		return txn.Unknown, err
	case over:
		return txn.Committed, nil
	case b == nil:
		return txn.Aborted, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.state {
	case stateDecided:
		probe.Sometimes("files: a commit in one phase is completed", true)
		if err := r.apply(ctx, b); err != nil {
			return txn.Unknown, err
		}
		return txn.Committed, nil
	case statePrepared:
		return txn.Unknown, fmt.Errorf("files: transaction %v is prepared, and in doubt", id)
	case stateOver:
		if _, over, err := r.find(id); over || err != nil {
			return txn.Committed, err
		}
		return txn.Aborted, nil
	}
	return txn.Aborted, r.discard(b)
}
