package raft

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// A run is some consecutive entries of one group's log, encoded once: the same
// bytes are a record in the store and the end of an append message.
//
//	checksum  4 bytes: CRC32C of all that follows
//	version   1 byte
//	group     8 bytes
//	first     index of the first entry
//	before    term of the entry before that
//	count
//	entries   each: term, type (1 byte), length, data
//	padding   zeros, if the entries are shorter than minEntryBytes each
//
// Group and index stand in it so that a run that turns up in the wrong place is
// recognised, and the term before so that one that is missing is: where the term
// of an entry is right, so are all entries up to it (the paper's log matching).
const (
	runVersion = 1
	runHeader  = 4 + 1 + 8
)

// minEntryBytes is what an entry takes in a run at least, on average: an entry in
// memory takes 112 bytes beside its data, and whoever opens a run must not have to
// allocate many times what was received. Only runs of empty or tiny entries are padded.
const minEntryBytes = 32

func appendRun(dst []byte, group, before uint64, entries []*raftpb.Entry) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, runVersion)
	dst = binary.LittleEndian.AppendUint64(dst, group)
	dst = binary.AppendUvarint(dst, entries[0].GetIndex())
	dst = binary.AppendUvarint(dst, before)
	dst = binary.AppendUvarint(dst, uint64(len(entries)))
	body := len(dst)
	for _, e := range entries {
		dst = binary.AppendUvarint(dst, e.GetTerm())
		dst = append(dst, byte(e.GetType()))
		dst = replica.AppendBytes(dst, e.GetData())
	}
	for len(dst) < body+minEntryBytes*len(entries) {
		dst = append(dst, 0)
	}
	binary.LittleEndian.PutUint32(dst[start:], replica.Checksum(dst[start+4:]))
	return dst
}

func runSize(entries []*raftpb.Entry) int {
	n := runHeader + 3*binary.MaxVarintLen64
	for _, e := range entries {
		n += max(binary.MaxVarintLen64+1+5+len(e.GetData()), minEntryBytes)
	}
	return n
}

// openRun decodes a run, and the term of the entry before it. The entries' data
// alias it.
func openRun(group uint64, run []byte) (entries []*raftpb.Entry, before uint64, err error) {
	bad := func(format string, args ...any) ([]*raftpb.Entry, uint64, error) {
		return nil, 0, &storage.CorruptError{Group: group, Reason: "run of log entries: " + fmt.Sprintf(format, args...)}
	}
	if len(run) < runHeader {
		return bad("%d bytes", len(run))
	}
	if replica.Checksum(run[4:]) != binary.LittleEndian.Uint32(run) && !probe.Bug("records are not checked") {
		probe.Sometimes("raft: altered entries are refused", true)
		return bad("wrong checksum")
	}
	if run[4] != runVersion {
		return bad("version %d, this release knows %d", run[4], runVersion)
	}
	if g := binary.LittleEndian.Uint64(run[5:]); g != group {
		return bad("it belongs to group %d", g)
	}
	r := replica.NewReader(run[runHeader:])
	first := r.Uvarint()
	before = r.Uvarint()
	count := r.Count(minEntryBytes)
	body := r.Len()
	// One allocation for each kind of thing, not for each entry.
	values := make([]raftpb.Entry, count)
	entries = make([]*raftpb.Entry, count)
	numbers := make([]uint64, 2*count)
	for i := range count {
		e, term, index := &values[i], &numbers[2*i], &numbers[2*i+1]
		*term, *index = r.Uvarint(), first+uint64(i)
		e.Term, e.Index = term, index
		switch t := raftpb.EntryType(r.Byte()); t {
		case raftpb.EntryNormal: // the default, which needs no allocation
		case raftpb.EntryConfChange, raftpb.EntryConfChangeV2:
			e.Type = t.Enum()
		default:
			return bad("entry %d: type %d", *index, t)
		}
		if data := r.Bytes(); len(data) > 0 {
			e.Data = data
		}
		entries[i] = e
	}
	padding := r.Rest()
	if err := r.Err(); err != nil {
		return bad("%v", err)
	}
	if len(padding) > 0 && (body != count*minEntryBytes || !allZero(padding)) {
		return bad("%d bytes too many", len(padding))
	}
	if count == 0 || first == 0 || first+uint64(count) < first {
		return bad("%d entries from index %d on", count, first)
	}
	return entries, before, nil
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
