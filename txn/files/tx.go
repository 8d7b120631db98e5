package files

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"path"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/txn"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Tx is what a transaction does to files, until it is prepared or aborted. It locks each file that it has to do with, until the
// transaction is over; whoever meets a lock does not wait, but gets ErrLocked. After any error the transaction is voted No.
// Methods may be called concurrently.
type Tx struct {
	r *Resource
	b *branch
}

// Begin has a transaction work here, under an ID that its Begin gave. Begin of one that is open returns it again. Too many are
// synod.ErrOverloaded; one that is prepared or committed is ErrEnded.
func (r *Resource) Begin(_ context.Context, id txn.ID) (*Tx, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.alive(); err != nil {
		return nil, err
	}
	if _, over := r.markers[id]; over {
		return nil, fmt.Errorf("%w: %v is committed", ErrEnded, id)
	}
	if b := r.branches[id]; b != nil {
		return &Tx{r, b}, nil
	}
	if len(r.branches) >= r.cfg.MaxOpen {
		return nil, fmt.Errorf("files: %w: %d transactions are open or prepared, which is Config.MaxOpen", synod.ErrOverloaded, len(r.branches))
	}
	b := &branch{id: id}
	b.timer = r.ex.AfterFunc(r.cfg.OpenTimeout, func() { r.ex.Go(func() { r.expire(b) }) })
	r.branches[id] = b
	return &Tx{r, b}, nil
}

// expire gives up what nobody has prepared.
func (r *Resource) expire(b *branch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == stateOpen {
		r.cfg.Logger.Warn("a transaction was open for too long, and is given up", "dir", r.cfg.Dir, "transaction", b.id.String())
		_ = r.discard(b)
	}
}

// enter begins to work on a file. The caller holds b.mu.
func (t *Tx) enter(name string) error {
	if t.b.state != stateOpen {
		return fmt.Errorf("%w: %v", ErrEnded, t.b.id)
	}
	if err := checkPath(name); err != nil {
		return t.spoil(err)
	}
	t.r.mu.Lock()
	err := t.r.alive()
	if err == nil {
		err = t.r.take(t.b, name)
	}
	if err == nil && len(t.b.paths) > t.r.cfg.MaxChanges {
		err = fmt.Errorf("%w: more than %d files, which is Config.MaxChanges", ErrLimit, t.r.cfg.MaxChanges)
	}
	t.r.mu.Unlock()
	if err != nil {
		return t.spoil(err)
	}
	// What the path leads through must be directories, and itself a file, or nothing: Commit must not meet anything else.
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		k, _, err := t.r.fs.stat(dir)
		if err != nil {
			return t.spoil(err)
		}
		if k != kindDirectory && k != kindNothing {
			return t.spoil(fmt.Errorf("%w: %q: %q is no directory", ErrPath, name, dir))
		}
	}
	k, _, err := t.r.fs.stat(name)
	if err != nil {
		return t.spoil(err)
	}
	if k != kindFile && k != kindNothing {
		return t.spoil(fmt.Errorf("%w: %q is a directory, a link, or some other thing that is no file", ErrPath, name))
	}
	return nil
}

// spoil makes it a no.
func (t *Tx) spoil(err error) error {
	if t.b.failed == nil {
		t.b.failed = err
	}
	return err
}

// current returns the change of a path, if there is one.
func (b *branch) current(name string) *change {
	for i := range b.changes {
		if b.changes[i].path == name {
			return &b.changes[i]
		}
	}
	return nil
}

// set makes a change the one of its path, in the place that it had in the order.
func (b *branch) set(c change) {
	if old := b.current(c.path); old != nil {
		b.bytes -= old.size
		*old = c
		return
	}
	b.changes = append(b.changes, c)
}

// ReadFile returns the content that a file has for this transaction: what it wrote, or what is there. A file that is not
// there is fs.ErrNotExist, which does not spoil the transaction.
func (t *Tx) ReadFile(name string) ([]byte, error) {
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	if err := t.enter(name); err != nil {
		return nil, err
	}
	from := name
	if c := t.b.current(name); c != nil {
		if c.remove {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		from = t.r.content(t.b.id, *c)
	}
	content, err := t.r.readAll(from, t.r.cfg.MaxBytes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, t.spoil(err)
	}
	return content, err
}

// WriteFile gives a file a content. Directories on its way are made with Commit. data may be used again afterwards.
func (t *Tx) WriteFile(name string, data []byte) error {
	w, err := t.Create(name)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return errors.Join(err, w.Close())
}

// Remove removes a file. One that is not there is no error. Directories stay.
func (t *Tx) Remove(name string) error {
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	if err := t.enter(name); err != nil {
		return err
	}
	t.b.set(change{path: name, remove: true})
	return nil
}

// Create gives a file the content that is written until Close, which is durable then. A transaction with files that are not
// closed is voted No.
func (t *Tx) Create(name string) (io.WriteCloser, error) {
	b := t.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := t.enter(name); err != nil {
		return nil, err
	}
	if !b.made {
		if err := t.r.fs.mkdir(fmt.Sprintf("%s/%v", staged, b.id)); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, t.spoil(err)
		}
		b.made = true
	}
	c := change{path: name, number: b.next}
	f, err := t.r.fs.create(t.r.content(b.id, c))
	if err != nil {
		return nil, t.spoil(err)
	}
	b.next++
	b.writing++
	return &writer{t: t, f: f, c: c, hash: crc32.New(castagnoli)}, nil
}

// writer writes the content of a file.
type writer struct {
	t      *Tx
	f      file
	c      change
	hash   hash.Hash32
	closed bool
}

func (w *writer) Write(p []byte) (int, error) {
	b := w.t.b
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case w.closed:
		return 0, fs.ErrClosed
	case b.state != stateOpen:
		return 0, fmt.Errorf("%w: %v", ErrEnded, b.id)
	case b.bytes+int64(len(p)) > w.t.r.cfg.MaxBytes:
		return 0, w.t.spoil(fmt.Errorf("%w: more than %d bytes, which is Config.MaxBytes", ErrLimit, w.t.r.cfg.MaxBytes))
	}
	n, err := w.f.Write(p)
	w.c.size += int64(n)
	b.bytes += int64(n)
	_, _ = w.hash.Write(p[:n]) // it never fails
	if err != nil {
		return n, w.t.spoil(err)
	}
	return n, nil
}

func (w *writer) Close() error {
	b := w.t.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	b.writing--
	if b.state != stateOpen {
		return errors.Join(fmt.Errorf("%w: %v", ErrEnded, b.id), w.f.Close())
	}
	if !probe.Bug("files: content is not synced") {
		if err := w.f.Sync(); err != nil {
			w.f.Close()
			return w.t.spoil(err) // a no: this content is never believed
		}
	}
	if err := w.f.Close(); err != nil {
		return w.t.spoil(err)
	}
	w.c.sum = w.hash.Sum32()
	b.set(w.c)
	return nil
}
