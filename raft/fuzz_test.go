package raft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

// seal gives a run the checksum that it should have, so that the rest is reached.
func seal(run []byte) []byte {
	if len(run) >= 4 {
		run = bytes.Clone(run)
		binary.LittleEndian.PutUint32(run, replica.Checksum(run[4:]))
	}
	return run
}

// sealMessage seals the run in a message, wherever it begins.
func sealMessage(b []byte) []byte {
	r := replica.NewReader(b)
	r.Byte()
	r.Byte()
	for range 5 {
		r.Uvarint()
	}
	r.Bytes()
	if rest := r.Len(); rest >= 4 {
		b = append(bytes.Clone(b[:len(b)-rest]), seal(b[len(b)-rest:])...)
	}
	return b
}

func sampleRun(count int) []byte {
	entries := make([]*raftpb.Entry, count)
	for i := range entries {
		entries[i] = &raftpb.Entry{Index: new(uint64(i) + 2), Term: new(uint64(i)/2 + 1)}
		if i%3 > 0 {
			entries[i].Data = bytes.Repeat([]byte{byte(i)}, 20*i)
		}
	}
	return appendRun(nil, 7, 1, entries)
}

func FuzzRun(f *testing.F) {
	for _, n := range []int{1, 2, 5} {
		f.Add(sampleRun(n))
	}
	conf := &raftpb.Entry{Index: new(uint64(9)), Term: new(uint64(1)), Type: raftpb.EntryConfChangeV2.Enum()}
	f.Add(appendRun(nil, 7, 1, []*raftpb.Entry{conf}))
	f.Add(hostileRun(1 << 60))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := openRun(7, b); err != nil {
			require.ErrorIs(t, err, storage.ErrCorrupt)
		}
		b = seal(b)
		before := bytes.Clone(b)
		entries, term, err := openRun(7, b)
		require.Equal(t, before, b)
		if err != nil {
			require.ErrorIs(t, err, storage.ErrCorrupt)
			return
		}
		require.NotEmpty(t, entries)
		require.LessOrEqual(t, minEntryBytes*len(entries), len(b))
		for i, e := range entries {
			require.NotZero(t, e.GetIndex())
			require.Equal(t, entries[0].GetIndex()+uint64(i), e.GetIndex())
		}
		// What was read is written in the same way, and read again.
		again := appendRun(nil, 7, term, entries)
		require.LessOrEqual(t, len(again), runSize(entries))
		reread, reterm, err := openRun(7, again)
		require.NoError(t, err)
		require.Equal(t, term, reterm)
		require.Len(t, reread, len(entries))
		for i := range reread {
			requireSameEntry(t, entries[i], reread[i])
		}
	})
}

func FuzzMessage(f *testing.F) {
	for _, m := range sampleMessages() {
		f.Add(encodeMessage(m), false)
	}
	f.Add([]byte{}, false)
	f.Add(append(encodeMessage(&raftpb.Message{Type: raftpb.MsgApp.Enum(), Term: new(uint64(1))}), hostileRun(1<<60)...), true)
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		if sealed {
			b = sealMessage(b)
		}
		before := bytes.Clone(b)
		m, run, err := decodeMessage(7, 2, 1, b)
		require.Equal(t, before, b)
		if err != nil {
			require.ErrorIs(t, err, errMessage)
			return
		}
		require.Equal(t, uint64(2), m.GetFrom())
		require.Equal(t, uint64(1), m.GetTo())
		require.Equal(t, len(run) > 0, m.GetType() == raftpb.MsgApp && len(m.GetEntries()) > 0)
		// What is let through survives the way back, but for numbers that were not
		// written in the shortest way.
		again, rerun, err := decodeMessage(7, 2, 1, append(appendMessage(nil, m), run...))
		require.NoError(t, err)
		require.Equal(t, run, rerun)
		require.True(t, proto.Equal(m, again), "%v became %v", m, again)
	})
}

func FuzzConf(f *testing.F) {
	f.Add(encodeConf(&raftpb.ConfState{Voters: []uint64{1, 2, 3}}))
	f.Add(encodeConf(&raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{4, 5}, VotersOutgoing: []uint64{2}, LearnersNext: []uint64{2}}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeConf(b)
		if err != nil {
			return
		}
		require.NotEmpty(t, c.GetVoters())
		again, err := decodeConf(encodeConf(c))
		require.NoError(t, err)
		require.True(t, proto.Equal(c, again))
	})
}

// FuzzRecords opens a log with any payload in the two records that are sealed.
func FuzzRecords(f *testing.F) {
	conf := encodeConf(&raftpb.ConfState{Voters: []uint64{1, 2, 3}})
	f.Add(encodeStart(bootPosition, conf), encodeHard(&raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(1))}, bootPosition))
	f.Add(encodeStart(replica.Position{Index: 9, Term: 3, Commands: 100}, conf), encodeHard(&raftpb.HardState{Term: new(uint64(4)), Vote: new(uint64(2)),
		Commit: new(uint64(9))}, replica.Position{Index: 9, Term: 3}))
	f.Add(encodeStart(replica.Position{Index: 9, Term: 3}, conf), encodeHard(&raftpb.HardState{Term: new(uint64(4)),
		Commit: new(uint64(5))}, replica.Position{Index: 9, Term: 3})) // the commit index goes to the disk lazily
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, start, hard []byte) {
		keys := replica.GroupKeys(7)
		store := memory.Open(memory.Config{})
		var b storage.Batch
		startKey, hardKey := keys.Protocol(tagStart), keys.Protocol(tagHard)
		b.Set(startKey, storage.AppendRecord(nil, startKey, start))
		b.Set(hardKey, storage.AppendRecord(nil, hardKey, hard))
		require.NoError(t, store.Commit(&b))

		p, config, err := readStart(keys, store)
		if err == nil {
			require.NotZero(t, p.Index)
			var again storage.Batch
			again.Set(startKey, storage.AppendRecord(nil, startKey, encodeStart(p, config)))
			require.NoError(t, store.Commit(&again))
			p2, config2, err := readStart(keys, store)
			require.NoError(t, err)
			require.Equal(t, p, p2)
			require.Equal(t, config, config2)
		} else {
			require.ErrorIs(t, err, storage.ErrCorrupt)
		}
		h, end, err := readHard(keys, store)
		if err == nil {
			require.NotZero(t, h.GetTerm())
			var again storage.Batch
			again.Set(hardKey, storage.AppendRecord(nil, hardKey, encodeHard(h, end)))
			require.NoError(t, store.Commit(&again))
			h2, end2, err := readHard(keys, store)
			require.NoError(t, err)
			require.True(t, proto.Equal(h, h2))
			require.Equal(t, end, end2)
		} else {
			require.ErrorIs(t, err, storage.ErrCorrupt)
		}
		l, err := openLog(keys, store, 1)
		if err != nil {
			require.ErrorIs(t, err, storage.ErrCorrupt)
			return
		}
		require.Equal(t, p.Index, l.last)
		require.Equal(t, p.Index, l.hard.GetCommit())
	})
}

// hostileRun claims to hold many entries.
func hostileRun(count uint64) []byte {
	b := []byte{0, 0, 0, 0, runVersion}
	b = binary.LittleEndian.AppendUint64(b, 7)
	b = binary.AppendUvarint(b, 2)
	b = binary.AppendUvarint(b, 1)
	b = binary.AppendUvarint(b, count)
	return seal(append(b, make([]byte, 1000)...))
}

// allocated returns how many bytes fn allocates.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestDecodersAllocateLittle decodes what claims to be more than it is, and what is as
// small as it can be: no more than four bytes are allocated for one that was received,
// and a constant.
func TestDecodersAllocateLittle(t *testing.T) {
	const constant = 4 << 10
	empty := make([]*raftpb.Entry, 20_000)
	for i := range empty {
		empty[i] = &raftpb.Entry{Index: new(uint64(i) + 2), Term: new(uint64(1))}
	}
	dense := appendRun(nil, 7, 1, empty)
	inputs := [][]byte{dense, sampleRun(50), hostileRun(1 << 60), hostileRun(^uint64(0)), hostileRun(334), hostileRun(1000), hostileRun(31)}
	// As many entries as fit, each of three bytes, without the padding.
	short := []byte{0, 0, 0, 0, runVersion}
	short = binary.LittleEndian.AppendUint64(short, 7)
	short = binary.AppendUvarint(short, 2)
	short = binary.AppendUvarint(short, 1)
	short = binary.AppendUvarint(short, 20_000)
	short = seal(append(short, bytes.Repeat([]byte{1, 0, 0}, 20_000)...))
	inputs = append(inputs, short)
	decoders := map[string]func([]byte){
		"run": func(b []byte) { _, _, _ = openRun(7, b) },
		"message": func(b []byte) {
			m := &raftpb.Message{Type: raftpb.MsgApp.Enum(), Term: new(uint64(9)), Index: new(uint64(1)), LogTerm: new(uint64(1))}
			_, _, _ = decodeMessage(7, 2, 1, append(encodeMessage(m), b...))
		},
	}
	for _, b := range inputs {
		for name, decode := range decoders {
			got := allocated(func() { decode(b) })
			limit := 4*uint64(len(b)) + constant
			if name == "message" {
				limit += 2 * uint64(len(b)) // the test's own append
			}
			require.LessOrEqual(t, got, limit, "%s of %d bytes", name, len(b))
		}
	}
	_, _, err := openRun(7, dense)
	require.NoError(t, err, "dense runs are valid")
	padded := bytes.Clone(dense)
	padded[len(padded)-1] = 1
	_, _, err = openRun(7, seal(padded))
	require.ErrorIs(t, err, storage.ErrCorrupt, "nothing hides in the padding")
	_, _, err = openRun(7, seal(append(bytes.Clone(dense), 0)))
	require.ErrorIs(t, err, storage.ErrCorrupt, "nor behind it")
	_, _, err = openRun(7, seal(append(appendRun(nil, 7, 1, []*raftpb.Entry{{Index: new(uint64(2)), Term: new(uint64(1)), Data: make([]byte, 99)}}), 0)))
	require.ErrorIs(t, err, storage.ErrCorrupt, "and what is long enough has none")
	_, _, err = openRun(7, short)
	require.ErrorIs(t, err, storage.ErrCorrupt, "runs without the padding are not")

	for _, claim := range []uint64{3, 1 << 10, 1 << 40, 1 << 60, ^uint64(0)} {
		conf := append(binary.AppendUvarint(nil, claim), make([]byte, 8<<10)...)
		got := allocated(func() { _, _ = decodeConf(conf) })
		require.LessOrEqual(t, got, 4*uint64(len(conf))+constant)
	}
}

func encodeMessage(m *raftpb.Message) []byte {
	b := appendMessage(nil, m)
	if len(m.GetEntries()) > 0 && m.GetType() == raftpb.MsgApp {
		b = appendRun(b, 7, m.GetLogTerm(), m.GetEntries())
	}
	return b
}

// sampleMessages holds one message of each kind that peers exchange.
func sampleMessages() []*raftpb.Message {
	id := encodeReadID(replica.ReadID{Boot: 5, Attempt: 9})
	read := []*raftpb.Entry{{Data: id}}
	entries := []*raftpb.Entry{
		{Index: new(uint64(11)), Term: new(uint64(3))},
		{Index: new(uint64(12)), Term: new(uint64(4)), Data: []byte("value")},
	}
	at := func(kind raftpb.MessageType) *raftpb.Message {
		return &raftpb.Message{Type: &kind, Term: new(uint64(4)), LogTerm: new(uint64(3)), Index: new(uint64(10)), Commit: new(uint64(8))}
	}
	app, refused, confirm, transfer, snap := at(raftpb.MsgApp), at(raftpb.MsgAppResp), at(raftpb.MsgHeartbeat), at(raftpb.MsgVote), at(raftpb.MsgSnap)
	app.Entries = entries
	refused.Reject, refused.RejectHint = new(true), new(uint64(6))
	confirm.Context = make([]byte, 8)
	transfer.Context = []byte("CampaignTransfer")
	snap.Snapshot = makeSnapshot(replica.Position{Index: 10, Term: 3, Commands: 55},
		bootConfig([]uint64{1, 2, 3}))
	ask, answer := at(raftpb.MsgReadIndex), at(raftpb.MsgReadIndexResp)
	ask.Entries, answer.Entries = read, read
	messages := []*raftpb.Message{app, refused, confirm, transfer, snap, ask, answer}
	for _, kind := range []raftpb.MessageType{raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote,
		raftpb.MsgPreVoteResp, raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, raftpb.MsgTimeoutNow} {
		messages = append(messages, at(kind))
	}
	return messages
}

// Each kind of message arrives as it was sent, whole or not at all.
func TestMessages(t *testing.T) {
	for _, m := range sampleMessages() {
		t.Run(fmt.Sprint(m.GetType(), len(m.GetContext()), m.GetReject()), func(t *testing.T) {
			b := encodeMessage(m)
			got, _, err := decodeMessage(7, 2, 1, b)
			require.NoError(t, err)
			m.From, m.To = new(uint64(2)), new(uint64(1))
			if m.GetType() == raftpb.MsgReadIndex {
				m.Term = nil
			}
			require.Equal(t, m.GetReject(), got.GetReject())
			require.True(t, proto.Equal(normal(m), normal(got)), "%v became %v", m, got)
			for n := range len(b) {
				if m.GetType() == raftpb.MsgApp && n == len(appendMessage(nil, m)) {
					continue // an append without entries
				}
				_, _, err := decodeMessage(7, 2, 1, b[:n])
				require.ErrorIs(t, err, errMessage, "cut to %d bytes", n)
			}
			_, _, err = decodeMessage(7, 2, 1, append(bytes.Clone(b), 0))
			require.ErrorIs(t, err, errMessage)
		})
	}
}

// normal sets what is absent and what is zero alike.
func normal(m *raftpb.Message) *raftpb.Message {
	return &raftpb.Message{Type: new(m.GetType()), From: new(m.GetFrom()), To: new(m.GetTo()), Term: new(m.GetTerm()), LogTerm: new(m.GetLogTerm()),
		Index: new(m.GetIndex()), Commit: new(m.GetCommit()), Reject: new(m.GetReject()), RejectHint: new(m.GetRejectHint()),
		Context: m.GetContext(), Entries: m.GetEntries(), Snapshot: m.GetSnapshot()}
}
