package replica

import (
	"errors"
	"fmt"
	"io"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/storage"
)

// chunkBytes is the size of a snapshot's pieces, in the store and on the wire.
const chunkBytes = 256 << 10

func (g *Group) readSnapshotMeta() (SnapshotMeta, bool, error) {
	key := g.keys.key(tagSnapshot)
	payload, found, err := getRecord(g.node.cfg.Store, key, g.id)
	if err != nil || !found {
		return SnapshotMeta{}, false, err
	}
	var m SnapshotMeta
	r := NewReader(payload)
	m.Read(r)
	if err := r.Err(); err != nil {
		return m, false, &storage.CorruptError{Group: g.id, Key: key, Reason: err.Error()}
	}
	return m, true, nil
}

func (g *Group) chunkKey(id, number uint64) []byte { return g.keys.key(tagChunk, id, number) }

// deleteChunks removes all chunks of a snapshot.
func (g *Group) deleteChunks(b *storage.Batch, id uint64) {
	b.DeleteRange(g.chunkKey(id, 0), g.chunkKey(id, ^uint64(0)))
}

// dropStrayChunks removes what was left behind by snapshots that were not finished.
func (g *Group) dropStrayChunks() error {
	store := g.node.cfg.Store
	end := g.keys.key(tagChunk + 1)
	var b storage.Batch
	for from := g.keys.key(tagChunk); ; {
		it, err := store.Scan(from, end)
		if err != nil {
			return err
		}
		key, _, err := it.Next()
		if err != nil {
			it.Close()
			if errors.Is(err, io.EOF) {
				break
			}
			return err
		}
		if len(key) != len(end)+16 {
			it.Close()
			return &storage.CorruptError{Group: g.id, Key: append([]byte(nil), key...), Reason: "not the key of a chunk"}
		}
		id := beUint64(key[len(end):])
		it.Close()
		partial := g.incomer != nil && g.incomer.id == id
		if !partial && (id != g.snapshot.ID || g.snapshot.Chunks == 0) {
			g.deleteChunks(&b, id)
		}
		from = g.chunkKey(id, ^uint64(0))
	}
	probe.Sometimes("replica: a start removes the chunks of an unfinished snapshot", b.Len() > 0)
	if b.Len() == 0 {
		return nil
	}
	return store.Commit(&b)
}

func beUint64(b []byte) uint64 {
	var v uint64
	for _, x := range b[:8] {
		v = v<<8 | uint64(x)
	}
	return v
}

// chunkReader reads a stored snapshot and checks it.
type chunkReader struct {
	group *Group
	meta  SnapshotMeta
	next  uint64
	rest  []byte
	sum   uint32
	size  uint64
	err   error
}

func (r *chunkReader) chunk(number uint64) ([]byte, error) {
	g := r.group
	key := g.chunkKey(r.meta.ID, number)
	value, err := g.node.cfg.Store.Get(key)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, &storage.CorruptError{Group: g.id, Index: r.meta.Index, Key: key, Reason: "a chunk of the snapshot is missing"}
	}
	if err != nil {
		return nil, err
	}
	data, err := storage.OpenRecord(key, value)
	return data, Corrupt(err, g.id, r.meta.Index)
}

func (r *chunkReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 && r.err == nil {
		if r.next == r.meta.Chunks {
			r.err = io.EOF
			if r.size != r.meta.Size || r.sum != r.meta.Sum {
				r.err = &storage.CorruptError{Group: r.group.id, Index: r.meta.Index, Key: r.group.keys.key(tagSnapshot),
					Reason: "the snapshot's chunks do not add up to its checksum"}
			}
			break
		}
		r.rest, r.err = r.chunk(r.next)
		r.next++
		r.sum = ChecksumUpdate(r.sum, r.rest)
		r.size += uint64(len(r.rest))
	}
	if len(r.rest) == 0 {
		return 0, r.err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// restoreStateMachine replaces the state, and the sessions, by a stored snapshot, and returns how many
// commands are in it: those up to the snapshot's position, or more.
func (g *Group) restoreStateMachine(meta SnapshotMeta) (held uint64, err error) {
	r := &chunkReader{group: g, meta: meta}
	if err := g.restoreSessions(r); err != nil {
		return 0, err
	}
	if err := g.cfg.StateMachine.Restore(r); err != nil {
		return 0, fmt.Errorf("restore the state machine from the snapshot at index %d: %w", meta.Index, err)
	}
	// A state machine may stop reading early, and may not pass on what it read into.
	if r.err != nil && !errors.Is(r.err, io.EOF) {
		return 0, r.err
	}
	durable, ok := g.cfg.StateMachine.(synod.DurableIndex)
	if !ok {
		return meta.Held, nil
	}
	if held, err = durable.DurableIndex(); err != nil {
		return 0, fmt.Errorf("state machine's durable index: %w", err)
	}
	if held < meta.Held {
		return 0, fmt.Errorf("state machine's durable index is %d after it was restored to %d", held, meta.Held)
	}
	return held, nil
}

// chunkWriter cuts what is written into chunks.
type chunkWriter struct {
	put    func(number uint64, data []byte, last bool) error
	limit  int // bytes of a chunk, but for the last: the same whenever a snapshot is written
	buf    []byte
	number uint64
	sum    uint32
	size   uint64
}

func (w *chunkWriter) Write(p []byte) (int, error) {
	total, limit := len(p), w.limit
	for len(p) > 0 {
		// A full buffer is put when more follows, so that finish knows the last one.
		if len(w.buf) >= limit {
			if err := w.flush(false); err != nil {
				return 0, err
			}
		}
		n := min(len(p), limit-len(w.buf))
		w.buf = append(w.buf, p[:n]...)
		p = p[n:]
	}
	return total, nil
}

func (w *chunkWriter) flush(last bool) error {
	w.sum = ChecksumUpdate(w.sum, w.buf)
	w.size += uint64(len(w.buf))
	err := w.put(w.number, w.buf, last)
	w.number++
	w.buf = nil // put may have kept it
	return err
}

func (w *chunkWriter) finish() error { return w.flush(true) }

// chunkLimit is the limit of a new snapshot's chunks.
func chunkLimit() int {
	for range 10 { // snapshots are few
		if probe.Buggify("replica: chunks are short") {
			return 16
		}
	}
	return chunkBytes
}

func closeSnapshot(w io.WriterTo) {
	if c, ok := w.(io.Closer); ok {
		_ = c.Close()
	}
}

// takeSnapshot captures the state and stores it in the background. The applier
// calls it.
func (g *Group) takeSnapshot() {
	s := &g.apply
	if g.snapshotting.Swap(true) {
		return
	}
	g.wantSnapshot.Store(false)
	s.lastSnapshot, s.bytes = s.position, 0
	w, err := g.captureState()
	if err != nil {
		g.snapshotting.Store(false)
		g.node.cfg.Logger.Error("state machine gave no snapshot: the log grows until the next try", "group", g.id, "error", err)
		return
	}
	meta := SnapshotMeta{Position: s.position, Held: s.held(), Config: s.config, ID: g.node.ex.Uint64()}
	if probe.Bug("a snapshot forgets how many commands it holds") {
		meta.Commands, meta.Held = 0, 0
	}
	cut, _ := s.cut(g.mayCut)
	if cut.Index > 0 && probe.Bug("the log is cut before the snapshot is stored") {
		g.loop.do(func() { g.loop.compact(g, cut) })
	}
	if !g.spawn(func() {
		err := g.storeSnapshot(w, &meta)
		closeSnapshot(w)
		g.loop.do(func() { g.loop.snapshotStored(g, meta, cut, err) })
	}) {
		closeSnapshot(w)
	}
}

func (g *Group) storeSnapshot(w io.WriterTo, meta *SnapshotMeta) error {
	cw := chunkWriter{limit: chunkLimit(), put: func(number uint64, data []byte, _ bool) error {
		if err := g.Err(); err != nil {
			return err
		}
		var b storage.Batch
		key := g.chunkKey(meta.ID, number)
		b.Set(key, storage.AppendRecord(nil, key, data))
		return g.node.cfg.Store.Commit(&b)
	}}
	if _, err := w.WriteTo(&cw); err != nil {
		return err
	}
	if err := cw.finish(); err != nil {
		return err
	}
	meta.Size, meta.Chunks, meta.Sum = cw.size, cw.number, cw.sum
	return nil
}

// snapshotStored makes a snapshot whose chunks are durable the group's newest.
func (l *loop) snapshotStored(g *Group, meta SnapshotMeta, cut mark, err error) {
	g.snapshotting.Store(false)
	if !l.live(g) {
		return // what was written is removed at the next start
	}
	if err != nil {
		l.node.cfg.Logger.Error("snapshot not stored", "group", g.id, "index", meta.Index, "error", err)
	}
	if err != nil || meta.Index < g.snapshot.Index {
		g.deleteChunks(&l.pending.batch, meta.ID)
		return
	}
	l.replaceSnapshot(g, meta, &l.pending.batch)
	l.pending.urgent = true
	l.pending.after = append(l.pending.after, func() {
		l.node.observe(metricSnapshotBytes, g.id, int64(meta.Size))
		l.node.emit(synod.Event{Kind: synod.EventSnapshotTaken, Group: g.id, Index: meta.Index, Term: meta.Term})
	})
	defer l.recover(g)
	g.core.SnapshotAvailable(meta)
	l.mark(g)
	if cut.Index > 0 {
		l.compact(g, cut)
	}
}

// replaceSnapshot writes the record of a new snapshot and removes the old one,
// unless it is being sent.
func (l *loop) replaceSnapshot(g *Group, meta SnapshotMeta, b *storage.Batch) {
	key := g.keys.key(tagSnapshot)
	b.Set(key, storage.AppendRecord(nil, key, meta.Append(nil)))
	probe.Sometimes("replica: a snapshot has many chunks", meta.Chunks > 1)
	g.snapMu.Lock()
	old := g.snapshot
	g.snapshot = meta
	pinned := g.pins[old.ID] > 0
	g.snapMu.Unlock()
	if old.Chunks > 0 && old.ID != meta.ID && !pinned {
		g.deleteChunks(b, old.ID)
	}
}

// install puts the snapshot that was received in the place of the log.
func (l *loop) install(g *Group, at Position, b *storage.Batch) *SnapshotMeta {
	in := g.incomer
	if in == nil || !in.complete || in.meta.Position != at {
		panic(fmt.Errorf("the core installs a snapshot at index %d that was not received: this is a bug in the protocol's core", at.Index))
	}
	meta := in.meta
	g.incomer = nil
	b.Delete(g.keys.key(tagPartial))
	g.restoring.Store(true)
	g.compacted = meta.Index
	g.compactBelow.Store(meta.Index)
	l.replaceSnapshot(g, meta, b)
	return &meta
}

// dropSnapshot removes a snapshot that the state machine has made durable itself, and
// leaves the checkpoint of its sessions.
func (l *loop) dropSnapshot(g *Group, id uint64, c *checkpoint) {
	if !l.live(g) || g.snapshot.ID != id {
		return
	}
	l.pending.batch.Delete(g.keys.key(tagSnapshot))
	c.store(g.keys, &l.pending.batch)
	g.deleteChunks(&l.pending.batch, id)
	g.snapMu.Lock()
	g.snapshot = SnapshotMeta{}
	g.snapMu.Unlock()
}
