package replica

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/storage"
)

func FuzzFrame(f *testing.F) {
	address := frameAddress{cluster: clusterHash("test", "pigeons"), from: 2, to: 1, incarnation: 99}
	frame := appendFrameHeader(nil, frameCore, address)
	f.Add(sealFrame(bytes.Clone(frame)))
	frame = appendFrameMessage(frame, 1, []byte("head"), []byte("tail"))
	frame = appendFrameMessage(frame, 1<<40, make([]byte, 300), nil)
	f.Add(sealFrame(bytes.Clone(frame)))
	f.Add(sealFrame(appendFrameMessage(appendFrameHeader(nil, frameChunkAck, address), 7, []byte("acknowledgement"), nil)))
	f.Add(sealFrame(append(frame, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, _, err := openFrame(b); err != nil {
			require.ErrorIs(t, err, errFrame)
		}
		if len(b) >= frameTrailer {
			b = sealFrame(bytes.Clone(b[:len(b)-frameTrailer]))
		}
		before := bytes.Clone(b)
		kind, a, rest, err := openFrame(b)
		if err != nil {
			require.ErrorIs(t, err, errFrame)
			return
		}
		again := appendFrameHeader(nil, kind, a)
		size := 0
		for len(rest) > 0 {
			var m frameMessage
			left := len(rest)
			m, rest, err = nextFrameMessage(rest)
			if err != nil {
				require.ErrorIs(t, err, errFrame)
				return
			}
			require.Less(t, len(rest), left, "it must come to an end")
			size += len(m.body)
			again = appendFrameMessage(again, m.group, m.body, nil)
		}
		require.LessOrEqual(t, size, len(b))
		require.Equal(t, before, b)
		// The same frame, but for numbers that were not written in the shortest way.
		again = sealFrame(again)
		require.LessOrEqual(t, len(again), len(b))
		if len(again) == len(b) {
			require.Equal(t, b, again)
		}
	})
}

func FuzzBatch(f *testing.F) {
	batch := appendBatchHeader(nil, 1<<63, 1000, 3)
	for _, c := range []string{"", "a", "command"} {
		batch = AppendBytes(batch, []byte(c))
	}
	f.Add(batch)
	f.Add(appendBatchHeader(nil, 0, 0, 0))
	f.Add(append([]byte{batchVersion, 1, 2, 3, 4, 5, 6, 7, 8, 0}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		h, err := readBatchHeader(r)
		if err != nil {
			require.ErrorIs(t, err, errRecord)
			return
		}
		require.LessOrEqual(t, h.count, r.Len(), "each command takes a byte")
		again := appendBatchHeader(nil, h.boot, h.first, h.count)
		for range h.count {
			again = AppendBytes(again, r.Bytes())
		}
		if r.Err() != nil {
			require.ErrorIs(t, r.Err(), errRecord)
			return
		}
		require.LessOrEqual(t, len(again), len(b))
		if len(again) == len(b) {
			require.Equal(t, b, again)
		}
	})
}

func FuzzSessionBatch(f *testing.F) {
	batch := appendSessionBatchHeader(nil, 1<<63, 1000, 4, 1<<40)
	for _, i := range []sessionItem{
		{command: []byte("plain")},
		{item: item{kind: itemOpen, request: synod.Request{Session: 1 << 63}, millis: 1000}, sessions: 10, resultBytes: 1 << 20},
		{item: item{kind: itemOnce, request: synod.Request{Session: 7, Sequence: 1000, Floor: 1}}, command: []byte("once")},
		{item: item{kind: itemClose, request: synod.Request{Session: 7}}},
	} {
		batch = i.append(batch)
	}
	f.Add(batch)
	f.Add(appendSessionBatchHeader(nil, 0, 0, 0, 0))
	f.Add(append(appendSessionBatchHeader(nil, 0, 0, 1, 0), byte(itemClose)+1, 0))
	f.Add(append([]byte{sessionBatchVersion, 1, 2, 3, 4, 5, 6, 7, 8, 0}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		h, clock, err := readSessionBatchHeader(r)
		if err != nil {
			require.ErrorIs(t, err, errRecord)
			return
		}
		require.LessOrEqual(t, 2*h.count, len(b), "each item takes two bytes")
		again := appendSessionBatchHeader(nil, h.boot, h.first, h.count, clock)
		table := newSessionTable()
		table.advance(h.boot, clock)
		for range h.count {
			i := readSessionItem(r)
			if r.err != nil {
				break
			}
			again = i.append(again)
			// Whatever it says, it does no harm.
			switch i.kind {
			case itemOpen:
				table.open(i.request.Session, i.millis, i.sessions, i.resultBytes)
			case itemClose:
				table.close(i.request.Session)
			case itemOnce:
				table.apply(i.request, string(i.command))
			}
		}
		table.check(t)
		if r.Err() != nil {
			require.ErrorIs(t, r.Err(), errRecord)
			return
		}
		require.LessOrEqual(t, len(again), len(b))
		if len(again) == len(b) {
			require.Equal(t, b, again)
		}
	})
}

// usedTable is a table with something of everything.
func usedTable() *sessionTable {
	table := newSessionTable()
	table.advance(1<<63, 5)
	for id := range uint64(3) {
		table.open(1<<63+id, 1000, 3, 1<<20)
		for _, n := range []uint64{1, 2, 5, 64, 1000, 1023} {
			table.apply(request(1<<63+id, n, 1), "result")
		}
	}
	table.apply(request(1<<63, 1500, 1000), "")
	table.advance(1<<63, 500)
	return table
}

func FuzzSessionTable(f *testing.F) {
	table := usedTable()
	f.Add(table.append(nil, true))
	f.Add(table.append(nil, false))
	f.Add([]byte{})
	f.Add([]byte{tableVersion, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := decodeSessionTable(b)
		if err != nil {
			require.ErrorIs(t, err, errRecord)
			return
		}
		again := table.append(nil, true)
		require.LessOrEqual(t, len(again), len(b))
		if len(again) == len(b) {
			require.Equal(t, string(b), string(again))
		}
		// It can be gone on with.
		table.limit = max(table.limit, table.bytes)
		table.advance(table.boot, table.clock+1)
		table.check(t)
	})
}

func FuzzCheckpoint(f *testing.F) {
	record := func(t testing.TB, c *checkpoint) []byte {
		var b storage.Batch
		c.store(GroupKeys(1), &b)
		for _, op := range b.Ops() {
			payload, err := storage.OpenRecord(op.Key, op.Value)
			require.NoError(t, err)
			return payload
		}
		return nil
	}
	f.Add(record(f, &checkpoint{Position: Position{Index: 10, Term: 2, Commands: 77}, config: []byte("members"), table: usedTable().append(nil, false)}))
	f.Add(record(f, &checkpoint{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, table, err := decodeCheckpoint(b)
		if err != nil {
			require.ErrorIs(t, err, errRecord)
			return
		}
		again, _, err := decodeCheckpoint(record(t, c))
		require.NoError(t, err)
		require.Equal(t, c.Position, again.Position)
		require.Equal(t, string(c.config), string(again.config))
		require.Equal(t, string(c.table), string(again.table))
		require.LessOrEqual(t, len(table.append(nil, true)), len(b))
	})
}

func FuzzSnapshotMeta(f *testing.F) {
	meta := SnapshotMeta{Position: Position{Index: 10, Term: 2, Commands: 77}, Held: 78, Config: []byte("members"), ID: 1 << 63, Size: 1 << 33, Chunks: 1 << 15, Sum: 1 << 31}
	f.Add(meta.Append(nil))
	f.Add(SnapshotMeta{}.Append(nil))
	f.Add([]byte{1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m, again SnapshotMeta
		r := NewReader(b)
		m.Read(r)
		if r.Err() != nil {
			require.ErrorIs(t, r.Err(), errRecord)
			return
		}
		r = NewReader(m.Append(nil))
		again.Read(r)
		require.NoError(t, r.Err())
		require.Equal(t, m, again)
	})
}

func FuzzIdentity(f *testing.F) {
	f.Add(identity{cluster: "test", node: 1, incarnation: 1 << 63}.encode())
	f.Add(identity{}.encode())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := decodeIdentity(b)
		if err != nil {
			require.ErrorIs(t, err, errRecord)
			return
		}
		again, err := decodeIdentity(id.encode())
		require.NoError(t, err)
		require.Equal(t, id, again)
	})
}

// What claims to be long does not make a decoder allocate: what it allocates is no
// more than four times what it was given, and a constant.
func TestDecodersAllocateLittle(t *testing.T) {
	const constant = 2 << 10
	claim := func(prefix ...byte) []byte {
		b := binary.AppendUvarint(prefix, 1<<60)
		return append(b, make([]byte, 4<<10)...)
	}
	frame := sealFrame(append(appendFrameHeader(nil, frameCore, frameAddress{}), claim(1)...))
	for name, decode := range map[string]func(){
		"frame": func() {
			_, _, rest, err := openFrame(frame)
			for err == nil && len(rest) > 0 {
				_, rest, err = nextFrameMessage(rest)
			}
		},
		"batch": func() { _, _ = readBatchHeader(NewReader(claim(batchVersion, 0, 0, 0, 0, 0, 0, 0, 0, 0))) },
		"session batch": func() {
			_, _, _ = readSessionBatchHeader(NewReader(claim(sessionBatchVersion, 0, 0, 0, 0, 0, 0, 0, 0, 0)))
		},
		"session table":   func() { _, _ = decodeSessionTable(claim(tableVersion, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)) },
		"session results": func() { _, _ = decodeSessionTable(claim(tableVersion, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)) },
		"checkpoint":      func() { _, _, _ = decodeCheckpoint(claim(1, 1, 1)) },
		"snapshot":        func() { new(SnapshotMeta).Read(NewReader(claim(0, 0, 0, 0))) },
		"identity":        func() { _, _ = decodeIdentity(claim()) },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		decode()
		runtime.ReadMemStats(&after)
		require.LessOrEqual(t, after.TotalAlloc-before.TotalAlloc, uint64(4*(4<<10)+constant), name)
	}
}

func FuzzRepair(f *testing.F) {
	f.Add(need{attempt: 1 << 63, what: needEntries, first: 3, last: 1 << 40, term: 7, limit: 1 << 20}.append(nil))
	f.Add(need{attempt: 1, what: needOffer, first: 3}.append(nil))
	f.Add(need{attempt: 1, what: needSnapshot, last: 9}.append(nil))
	f.Add(need{attempt: 1, what: needEntries, first: 4, last: 3}.append(nil))
	f.Add(give{attempt: 1 << 63}.append(nil))
	f.Add(give{attempt: 1, status: giveEntries, piece: []byte("piece")}.append(nil))
	f.Add(give{attempt: 1, status: giveOffer, at: Position{Index: 1, Term: 1 << 40, Commands: 3}}.append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		// The same again, but for numbers that were not written in the shortest way.
		same := func(again []byte) {
			require.LessOrEqual(t, len(again), len(b))
			if len(again) == len(b) {
				require.Equal(t, b, again)
			}
		}
		before := bytes.Clone(b)
		if q, err := decodeNeed(b); err != nil {
			require.ErrorIs(t, err, errFrame)
		} else {
			require.True(t, q.what != needEntries || q.first > 0 && q.first <= q.last)
			same(q.append(nil))
		}
		if a, err := decodeGive(b); err != nil {
			require.ErrorIs(t, err, errFrame)
		} else {
			require.Equal(t, a.status == giveEntries, len(a.piece) > 0)
			same(a.append(nil))
		}
		if c, err := decodeChunk(b); err != nil {
			require.ErrorIs(t, err, errFrame)
		} else {
			require.LessOrEqual(t, len(c.data)+len(c.message)+len(c.meta.Config), len(b))
		}
		require.Equal(t, before, b)
	})
}

// Each bit of a frame counts, and each byte.
func TestFrameBits(t *testing.T) {
	frame := appendFrameHeader(nil, frameCore, frameAddress{cluster: clusterHash("test", "pigeons"), from: 2, to: 1, incarnation: 99})
	frame = sealFrame(appendFrameMessage(frame, 1, []byte("head"), []byte("tail")))
	_, _, rest, err := openFrame(frame)
	require.NoError(t, err)
	m, rest, err := nextFrameMessage(rest)
	require.NoError(t, err)
	require.Empty(t, rest)
	require.Equal(t, "headtail", string(m.body))
	for bit := range 8 * len(frame) {
		flipped := bytes.Clone(frame)
		flipped[bit/8] ^= 1 << (bit % 8)
		_, _, _, err := openFrame(flipped)
		require.ErrorIs(t, err, errFrame, "bit %d", bit)
	}
	for n := range frame {
		_, _, _, err := openFrame(frame[:n])
		require.ErrorIs(t, err, errFrame, "cut to %d bytes", n)
	}
	_, _, _, err = openFrame(append(bytes.Clone(frame), 0))
	require.ErrorIs(t, err, errFrame)
	for _, kind := range []frameKind{0, frameGive + 1, 255} {
		_, _, _, err = openFrame(sealFrame(appendFrameHeader(nil, kind, frameAddress{})))
		require.ErrorIs(t, err, errFrame, "kind %d", kind)
	}
	other := appendFrameHeader(nil, frameCore, frameAddress{})
	other[0]++
	_, _, _, err = openFrame(sealFrame(other))
	require.ErrorIs(t, err, errFrame, "another version")
}
