package replica

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/storage"
)

// An exported group is a stream:
//
//	magic     8 bytes
//	header    a length and as many bytes: protocol, group, and the description of the
//	          snapshot, in which size, chunks and checksum are 0; 4 bytes of checksum
//	pieces    each a length, as many bytes of state (sessions first, as in any snapshot), and
//	          4 bytes of checksum
//	end       a length of 0; size of all pieces, 8 bytes; their checksum, 4 bytes
const exportMagic = "synod\x00x\x01"

// maxExportHeader bounds what is believed of a stream's first length.
const maxExportHeader = 1 << 20

// exporting is a call of Export that waits for the state machine.
type exporting struct {
	done *executor.Event

	mu     sync.Mutex
	gone   bool // nobody waits any more
	meta   SnapshotMeta
	writer io.WriterTo
	err    error
}

func (x *exporting) finish(meta SnapshotMeta, w io.WriterTo, err error) {
	x.mu.Lock()
	gone := x.gone
	x.meta, x.writer, x.err = meta, w, err
	x.mu.Unlock()
	if gone && w != nil {
		closeSnapshot(w)
	}
	x.done.Set()
}

// captureExports takes the state for the calls of Export that wait. The applier calls it. Where a
// state machine that keeps its state itself is ahead of the log that it replays, they wait on: the
// group that is made of it has no such log, and would take its first commands for those.
func (g *Group) captureExports() {
	s := &g.apply
	if len(s.exports) == 0 || s.position.Commands < s.skip {
		return
	}
	waiting := s.exports
	s.exports = nil
	for _, x := range waiting {
		x.mu.Lock()
		gone := x.gone
		x.mu.Unlock()
		if gone {
			continue
		}
		if s.position.Index == 0 {
			x.finish(SnapshotMeta{}, nil, fmt.Errorf("%w: this replica was joined, and has received nothing yet: export from another member", ErrNotBootstrapped))
			continue
		}
		w, err := g.captureState()
		if err != nil {
			err = fmt.Errorf("state machine: %w", err)
		}
		x.finish(SnapshotMeta{Position: s.position, Held: s.held(), Config: s.config}, w, err)
	}
}

// Export writes the group's state, as it is on this node, to w.
func (g *Group) Export(ctx context.Context, w io.Writer) error {
	fail := func(err error) error { return fmt.Errorf("group %d: export: %w", g.id, err) }
	if !g.tasks.enter() { // Close waits for the captured state to be done with
		return fail(g.closedError())
	}
	defer g.tasks.leave()
	x := &exporting{done: executor.NewEvent()}
	if !g.pushApply(applyItem{export: x}) {
		return fail(g.closedError())
	}
	if err := executor.From(ctx, g.node.ex).Wait(ctx, x.done); err != nil {
		x.mu.Lock()
		x.gone = true
		captured := x.writer
		x.mu.Unlock()
		if captured != nil {
			closeSnapshot(captured)
		}
		return fail(err)
	}
	if x.err != nil {
		return fail(x.err)
	}
	defer closeSnapshot(x.writer)
	header := AppendBytes(nil, []byte(g.node.cfg.Protocol.Name()))
	header = binary.AppendUvarint(header, g.id)
	header = x.meta.Append(header)
	out := bufio.NewWriter(w)
	_, _ = out.WriteString(exportMagic) // errors stay with out
	_, _ = out.Write(AppendBytes(nil, header))
	_, _ = out.Write(binary.LittleEndian.AppendUint32(nil, Checksum(header)))
	cw := chunkWriter{limit: chunkBytes, put: func(_ uint64, data []byte, _ bool) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := g.Err(); err != nil {
			return err
		}
		if len(data) == 0 {
			return nil
		}
		_, _ = out.Write(AppendBytes(nil, data))
		_, err := out.Write(binary.LittleEndian.AppendUint32(nil, Checksum(data)))
		return err
	}}
	if _, err := x.writer.WriteTo(&cw); err != nil {
		return fail(err)
	}
	if err := cw.finish(); err != nil {
		return fail(err)
	}
	end := binary.LittleEndian.AppendUint64([]byte{0}, cw.size)
	_, _ = out.Write(binary.LittleEndian.AppendUint32(end, cw.sum))
	if err := out.Flush(); err != nil {
		return fail(err)
	}
	return nil
}

// importReader reads a stream that Export wrote. What it can't read is an error that
// matches storage.ErrCorrupt; what the reader beneath it fails with stays that.
type importReader struct {
	r    *bufio.Reader
	size uint64
	sum  uint32
}

func (i *importReader) corrupt(group uint64, format string, args ...any) error {
	return &storage.CorruptError{Group: group, Reason: "exported group: " + fmt.Sprintf(format, args...)}
}

func (i *importReader) ended(group uint64, err error, where string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return i.corrupt(group, "it ends in %s", where)
	}
	return err
}

// length reads the length of what follows, and no more bytes than one has.
func (i *importReader) length(group uint64, limit uint64, where string) (uint64, error) {
	n, err := binary.ReadUvarint(i.r)
	switch {
	case err != nil && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
		return 0, i.corrupt(group, "it ends in %s", where)
	case err != nil:
		return 0, i.corrupt(group, "%s: %v", where, err)
	case n > limit:
		return 0, i.corrupt(group, "%s of %d bytes", where, n)
	}
	return n, nil
}

// sealed reads bytes and their checksum.
func (i *importReader) sealed(group, n uint64, where string) ([]byte, error) {
	b := make([]byte, n+4)
	if _, err := io.ReadFull(i.r, b); err != nil {
		return nil, i.ended(group, err, where)
	}
	data := b[:n:n]
	if Checksum(data) != binary.LittleEndian.Uint32(b[n:]) {
		return nil, i.corrupt(group, "wrong checksum of %s", where)
	}
	return data, nil
}

func (i *importReader) header() (protocol string, group uint64, meta SnapshotMeta, err error) {
	magic := make([]byte, len(exportMagic))
	if _, err := io.ReadFull(i.r, magic); err != nil {
		return "", 0, meta, i.ended(0, err, "its first bytes")
	}
	if string(magic) != exportMagic {
		return "", 0, meta, i.corrupt(0, "it does not begin as one that this release wrote")
	}
	n, err := i.length(0, maxExportHeader, "the header")
	if err != nil {
		return "", 0, meta, err
	}
	b, err := i.sealed(0, n, "the header")
	if err != nil {
		return "", 0, meta, err
	}
	r := NewReader(b)
	protocol, group = string(r.Bytes()), r.Uvarint()
	meta.Read(r)
	if r.Err() != nil || meta.Index == 0 || meta.Term == 0 || meta.Chunks != 0 {
		return "", 0, meta, i.corrupt(group, "malformed header")
	}
	return protocol, group, meta, nil
}

// piece reads the next piece of state; nil: there was the last, and the sums are right.
func (i *importReader) piece(group uint64) ([]byte, error) {
	n, err := i.length(group, chunkBytes, "a piece")
	if err != nil {
		return nil, err
	}
	if n > 0 {
		data, err := i.sealed(group, n, "a piece")
		i.size += uint64(len(data))
		i.sum = ChecksumUpdate(i.sum, data)
		return data, err
	}
	var end [12]byte
	if _, err := io.ReadFull(i.r, end[:]); err != nil {
		return nil, i.ended(group, err, "its last bytes")
	}
	if binary.LittleEndian.Uint64(end[:]) != i.size || binary.LittleEndian.Uint32(end[8:]) != i.sum {
		return nil, i.corrupt(group, "its pieces do not add up")
	}
	return nil, nil
}

// Import creates a group in this node's store, with the state that Export wrote.
func (n *Node) Import(ctx context.Context, group uint64, members []synod.Member, r io.Reader) error {
	what := fmt.Sprintf("import group %d", group)
	fail := func(err error) error { return fmt.Errorf("%s: %s: %w", n.cfg.Package, what, err) }
	members, err := n.checkFounders(members)
	if err != nil {
		return fail(err)
	}
	in := &importReader{r: bufio.NewReader(r)}
	protocol, from, meta, err := in.header()
	switch {
	case err != nil:
		return fail(err)
	case protocol != n.cfg.Protocol.Name():
		return fail(fmt.Errorf("%w: it was exported by %s, not by %s", ErrForeignStore, protocol, n.cfg.Protocol.Name()))
	}
	return n.create(ctx, group, what, func(keys Keys, b *storage.Batch) error {
		if err := n.neverLeft(keys); err != nil {
			return err
		}
		// What an import that does not come to its end leaves behind is known for what it is.
		mark := keys.key(tagImport)
		var first storage.Batch
		first.Set(mark, storage.AppendRecord(nil, mark, nil))
		if err := n.cfg.Store.Commit(&first); err != nil {
			return err
		}
		meta.ID = n.ex.Uint64()
		put := func(data []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			key := keys.key(tagChunk, meta.ID, meta.Chunks)
			var one storage.Batch
			one.Set(key, storage.AppendRecord(nil, key, data))
			meta.Chunks++
			return n.cfg.Store.Commit(&one)
		}
		for {
			data, err := in.piece(from)
			if err == nil && data != nil {
				err = put(data)
			}
			if err == nil && data == nil && meta.Chunks == 0 {
				err = put(nil)
			}
			if err != nil {
				var drop storage.Batch
				dropImport(keys, &drop)
				return errors.Join(err, n.cfg.Store.Commit(&drop))
			}
			if data == nil {
				break
			}
		}
		meta.Size, meta.Sum = in.size, in.sum
		meta.Config = NewConfiguration(members).Append(nil)
		key := keys.key(tagSnapshot)
		b.Set(key, storage.AppendRecord(nil, key, meta.Append(nil)))
		b.Delete(mark)
		return n.cfg.Protocol.Begin(keys, meta.Position, meta.Config, b)
	})
}

// dropImport removes what an import has left behind that did not come to its end.
func dropImport(keys Keys, b *storage.Batch) {
	b.DeleteRange(keys.key(tagChunk), keys.key(tagChunk+1))
	b.Delete(keys.key(tagImport))
}

// checkFounders checks the first members of a group that is made on this node.
func (n *Node) checkFounders(members []synod.Member) ([]synod.Member, error) {
	bad := func(format string, args ...any) ([]synod.Member, error) {
		return nil, &synod.ConfigError{Package: n.cfg.Package, Field: "Members", Reason: fmt.Sprintf(format, args...)}
	}
	members, err := checkMembers(n.cfg.Package, members)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(members, func(m synod.Member) bool { return m.Node == n.cfg.Node }) {
		return bad("node %d is not among them", n.cfg.Node)
	}
	if i := slices.IndexFunc(members, func(m synod.Member) bool { return m.Learner || m.Incarnation != 0 }); i >= 0 {
		return bad("node %d is a learner, or has an incarnation: a new group begins with voters, as they are", members[i].Node)
	}
	return members, nil
}
