package kv

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/tidwall/btree"

	"github.com/synod-go/synod/internal/paxoscommit"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/wire"
)

// ErrCorrupt says that a snapshot is none.
var ErrCorrupt = errors.New("kv: corrupt snapshot")

const (
	snapshotVersion = 1
	snapshotEnd     = 0x55
	maxHeadBytes    = 1 << 30
)

// image is the state as it was: its items are a copy on write, and the rest, which is as large as what is under way, is
// encoded.
type image struct {
	head  []byte
	items *btree.Map[string, *item]
}

// snapshot captures the state.
func (s *state) snapshot() *image {
	b := []byte{snapshotVersion}
	for _, v := range [...]uint64{s.clock, s.collected, s.wrong} {
		b = binary.AppendUvarint(b, v)
	}
	b = s.registers.Append(b)
	list := slices.SortedFunc(maps.Values(s.prepared), func(a, b *prepared) int { return cmp.Compare(a.timestamp, b.timestamp) })
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, t := range list {
		for i := range t.writes {
			t.writes[i].item = nil // it is the snapshot's from now on, and must not be kept for longer
		}
		b = wire.AppendBytes(b, appendPrepare(nil, t.part()))
		b = binary.AppendUvarint(b, t.timestamp)
	}
	chains := slices.SortedFunc(maps.Keys(s.chains), func(a, b chain) int {
		return cmp.Or(cmp.Compare(a.age, b.age), cmp.Compare(a.random, b.random))
	})
	b = binary.AppendUvarint(b, uint64(len(chains)))
	for _, c := range chains {
		kept := s.chains[c]
		for _, v := range [...]uint64{c.age, c.random, kept.expires, uint64(len(kept.keys))} {
			b = binary.AppendUvarint(b, v)
		}
		for _, k := range kept.keys {
			b = wire.AppendBytes(b, k)
		}
	}
	s.epoch++
	return &image{b, s.items.Copy()}
}

// WriteTo implements io.WriterTo.
func (i *image) WriteTo(w io.Writer) (int64, error) {
	counted := &counter{w: w}
	out := bufio.NewWriterSize(counted, 1<<16)
	b := binary.AppendUvarint(nil, uint64(len(i.head)))
	_, _ = out.Write(append(b, i.head...)) // the last Flush has its error
	_, _ = out.Write(binary.AppendUvarint(nil, uint64(i.items.Len())))
	var err error
	i.items.Scan(func(key string, it *item) bool {
		b = binary.AppendUvarint(wire.AppendBytes(b[:0], key), uint64(len(it.versions)))
		for _, v := range it.versions {
			b = binary.AppendUvarint(binary.AppendUvarint(b, v.timestamp), v.timestamp-v.voted)
			b = appendFlagged(b, v.deleted, v.value)
		}
		_, err = out.Write(b)
		return err == nil
	})
	if err == nil {
		err = out.WriteByte(snapshotEnd)
	}
	if err == nil {
		err = out.Flush()
	}
	return counted.n, err
}

type counter struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// readSnapshot makes a state of what WriteTo has written.
func readSnapshot(reader io.Reader) (*state, error) {
	in := &input{r: bufio.NewReaderSize(reader, 1<<16)}
	s, err := readHead(in.bytes(maxHeadBytes))
	if in.err != nil {
		return nil, in.err
	}
	if err != nil {
		return nil, err
	}
	last := ""
	for n := in.number(); n > 0 && in.err == nil; n-- {
		key := string(in.bytes(maxKeyBytes))
		if key <= last && last != "" {
			in.corrupt("keys do not ascend")
		}
		last = key
		var versions []version
		for count := in.number(); count > 0 && in.err == nil; count-- {
			v := version{timestamp: in.number()}
			v.voted = v.timestamp - in.number()
			if v.deleted = in.number() == 1; !v.deleted {
				v.value = in.bytes(maxValueBytes)
			}
			if v.voted > v.timestamp {
				in.corrupt("a commit below its vote")
			}
			if len(versions) > 0 && v.timestamp <= versions[len(versions)-1].timestamp {
				in.corrupt("versions do not ascend")
			}
			versions = append(versions, v)
		}
		if len(versions) == 0 {
			in.corrupt("a key without a version")
		}
		if in.err != nil {
			break
		}
		it := &item{key, versions, s.epoch}
		s.index[key] = it
		s.items.Load(key, it)
		for i, v := range versions {
			if i > 0 || v.deleted {
				s.discard(garbage{v.timestamp, key})
			}
		}
	}
	if in.number() != snapshotEnd || in.err != nil {
		in.corrupt("no end")
	}
	return s, in.err
}

func readHead(b []byte) (*state, error) {
	s := newState()
	r := wire.NewReader(b)
	if v := r.Byte(255); v != snapshotVersion && !r.Failed() {
		return nil, fmt.Errorf("%w: version %d, this one reads %d", ErrCorrupt, v, snapshotVersion)
	}
	s.clock, s.collected, s.wrong = r.Uvarint(), r.Uvarint(), r.Uvarint()
	if probe.Bug("kv: a snapshot forgets the time") {
		s.clock = 0
	}
	s.registers = paxoscommit.Read(&r)
	for range r.Count(2) {
		command := r.Bytes(maxHeadBytes)
		if len(command) == 0 || command[0] != opPrepare {
			r.Fail()
			break
		}
		part := wire.NewReader(command[1:])
		p, err := readPrepare(&part, nil)
		if err != nil {
			r.Fail()
			break
		}
		probe.Sometimes("kv: a snapshot brings what is prepared", true)
		if t := newPrepared(&p, r.Uvarint()); !probe.Bug("kv: a snapshot forgets what is prepared") {
			s.lock(t)
		}
	}
	for range r.Count(4) {
		c, kept := chain{r.Uvarint(), r.Uvarint()}, &reservation{expires: r.Uvarint()}
		for range r.Count(1) {
			k := string(r.Bytes(maxKeyBytes))
			kept.keys = append(kept.keys, k)
			s.reserved[k] = c
		}
		s.chains[c] = kept
	}
	if r.End() != nil {
		return nil, fmt.Errorf("%w: its head", ErrCorrupt)
	}
	return s, nil
}

// input reads fields from a stream. After the first error it returns zeros.
type input struct {
	r   *bufio.Reader
	err error
}

func (in *input) corrupt(why string) {
	if in.err == nil {
		in.err = fmt.Errorf("%w: %s", ErrCorrupt, why)
	}
}

func (in *input) number() uint64 {
	if in.err != nil {
		return 0
	}
	v, err := binary.ReadUvarint(in.r)
	if err != nil {
		in.fail(err)
		return 0
	}
	return v
}

func (in *input) fail(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: it is cut off", ErrCorrupt)
	}
	in.err = err
}

// bytes reads a byte string with its length in front. It takes memory as it comes, not as the length says.
func (in *input) bytes(limit uint64) []byte {
	n := in.number()
	if n > limit {
		in.corrupt("a length beyond its limit")
	}
	if in.err != nil || n == 0 {
		return nil
	}
	const piece = 1 << 20
	b := make([]byte, min(n, piece))
	for read := uint64(0); ; {
		if _, err := io.ReadFull(in.r, b[read:]); err != nil {
			in.fail(err)
			return nil
		}
		if read = uint64(len(b)); read == n {
			return b
		}
		b = append(b, make([]byte, min(n-read, uint64(len(b))))...)
	}
}
