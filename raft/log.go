package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	etcd "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// Tags of raft's own records:
//
//	h           hard state: term, vote, commit; index and term of the last entry
//	s           where the log begins, and the configuration there
//	l <first>   a run of entries. Its entries from the next run's first on are void.
//	v           term and vote of a replica that has left the group
const (
	tagHard  = 'h'
	tagStart = 's'
	tagLog   = 'l'
	tagLeft  = 'v'
)

// logStore is the durable log of one group, as etcd's raft wants to see it. It
// keeps in memory where runs and terms begin, and the newest entries; older ones
// are read from the store when a follower that lags needs them.
type logStore struct {
	keys  replica.Keys
	store storage.Store

	hard   *raftpb.HardState
	conf   *raftpb.ConfState
	start  replica.Position // the log begins after this
	last   uint64
	runs   []uint64 // first index of each run in the store, ascending
	terms  []termStart
	cache  []*raftpb.Entry // the newest entries, without a gap, up to last
	bytes  uint64          // of the cache
	limit  uint64
	snap   *raftpb.Snapshot // offered to followers that are too far behind
	wanted bool             // one was asked for and there is none
	since  uint64           // an older snapshot does not know all members and is of no use to the new ones
}

// termStart says that entries from first on have this term.
type termStart struct{ first, term uint64 }

var _ etcd.Storage = (*logStore)(nil)

// encodeStart encodes where the log begins.
func encodeStart(p replica.Position, config []byte) []byte {
	b := binary.AppendUvarint(nil, p.Index)
	b = binary.AppendUvarint(b, p.Term)
	b = binary.AppendUvarint(b, p.Commands)
	return replica.AppendBytes(b, config)
}

func readStart(keys replica.Keys, store storage.Store) (p replica.Position, config []byte, err error) {
	key := keys.Protocol(tagStart)
	payload, err := replica.GetRecord(store, key, keys.Group())
	if err != nil {
		return p, nil, err
	}
	r := replica.NewReader(payload)
	p.Index, p.Term, p.Commands = r.Uvarint(), r.Uvarint(), r.Uvarint()
	config = slices.Clone(r.Bytes())
	if r.Err() != nil || p.Index == 0 && p.Term != 0 {
		return p, nil, &storage.CorruptError{Group: keys.Group(), Key: key, Reason: "the record of where the log begins is missing or malformed"}
	}
	return p, config, nil
}

// encodeHard encodes the hard state and where the log ends, which would else not be
// known if the record of its last entries were lost.
func encodeHard(h *raftpb.HardState, last replica.Position) []byte {
	b := binary.AppendUvarint(nil, h.GetTerm())
	b = binary.AppendUvarint(b, h.GetVote())
	b = binary.AppendUvarint(b, h.GetCommit())
	b = binary.AppendUvarint(b, last.Index)
	return binary.AppendUvarint(b, last.Term)
}

func readHard(keys replica.Keys, store storage.Store) (h *raftpb.HardState, last replica.Position, err error) {
	key := keys.Protocol(tagHard)
	payload, err := replica.GetRecord(store, key, keys.Group())
	if err != nil {
		return nil, last, err
	}
	r := replica.NewReader(payload)
	h = &raftpb.HardState{Term: new(r.Uvarint()), Vote: new(r.Uvarint()), Commit: new(r.Uvarint())}
	last = replica.Position{Index: r.Uvarint(), Term: r.Uvarint()}
	if r.Err() != nil || h.GetTerm() == 0 {
		return nil, last, &storage.CorruptError{Group: keys.Group(), Key: key, Reason: "the record of term and vote is missing or malformed"}
	}
	return h, last, nil
}

// openLog reads a group's log from the store, all of it, so that a corrupt record
// is found now and not when it is needed.
func openLog(keys replica.Keys, store storage.Store, limit uint64) (*logStore, error) {
	l := &logStore{keys: keys, store: store, limit: limit}
	var config []byte
	var err error
	if l.start, config, err = readStart(keys, store); err != nil {
		return nil, err
	}
	if l.conf, err = decodeConf(config); err != nil {
		return nil, &storage.CorruptError{Group: keys.Group(), Key: keys.Protocol(tagStart), Reason: err.Error()}
	}
	if len(l.conf.GetVoters()) == 0 && l.start.Index > 0 {
		return nil, &storage.CorruptError{Group: keys.Group(), Key: keys.Protocol(tagStart), Reason: "the configuration has no voters"}
	}
	var end replica.Position
	if l.hard, end, err = readHard(keys, store); err != nil {
		return nil, err
	}
	l.reset(l.start)
	from, to := keys.ProtocolRange(tagLog)
	it, err := store.Scan(from, to)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for {
		key, value, err := it.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		first, err := runIndex(from, key)
		if err != nil {
			return nil, replica.Corrupt(err, keys.Group(), 0)
		}
		entries, before, err := openRun(keys.Group(), slices.Clone(value))
		if err != nil && probe.Bug("a bad record ends the log") {
			break
		}
		if err == nil && entries[0].GetIndex() != first {
			err = &storage.CorruptError{Reason: fmt.Sprintf("run of log entries: it begins at index %d", entries[0].GetIndex())}
		}
		if err != nil {
			var c *storage.CorruptError
			errors.As(err, &c)
			c.Group, c.Index, c.Key = keys.Group(), first, slices.Clone(key)
			return nil, c
		}
		if first > l.last+1 {
			return nil, &storage.CorruptError{Group: keys.Group(), Index: l.last + 1, Key: slices.Clone(key),
				Reason: fmt.Sprintf("entries up to %d are missing from the log", first-1)}
		}
		if !l.follows(entries, before) {
			return nil, &storage.CorruptError{Group: keys.Group(), Index: max(first-1, l.start.Index), Key: slices.Clone(key),
				Reason: "run of log entries: the entry that it follows has another term, so that a record before it is missing"}
		}
		l.appended(entries)
	}
	if last, err := l.end(); (err != nil || last != end) && !probe.Bug("a bad record ends the log") {
		return nil, &storage.CorruptError{Group: keys.Group(), Index: min(l.last, end.Index) + 1, Key: from,
			Reason: fmt.Sprintf("the log ends at index %d in term %d, but entries up to index %d in term %d were written",
				last.Index, last.Term, end.Index, end.Term)}
	}
	if commit := l.hard.GetCommit(); commit > l.last && probe.Bug("a bad record ends the log") {
		l.hard.Commit = new(l.last)
	} else if commit > l.last {
		return nil, &storage.CorruptError{Group: keys.Group(), Index: l.last + 1, Key: from,
			Reason: fmt.Sprintf("the log ends at index %d, but %d was committed", l.last, commit)}
	}
	if commit := l.hard.GetCommit(); commit < l.start.Index {
		l.hard.Commit = new(l.start.Index) // a log begins after committed entries only
	}
	return l, nil
}

// end returns the position of the last entry.
func (l *logStore) end() (replica.Position, error) {
	term, err := l.Term(l.last)
	return replica.Position{Index: l.last, Term: term}, err
}

// follows reports whether a run goes on where the log has the entry that it follows.
func (l *logStore) follows(run []*raftpb.Entry, before uint64) bool {
	first := run[0].GetIndex()
	if first > l.start.Index {
		term, err := l.Term(first - 1)
		return err == nil && term == before
	}
	// The log begins inside it.
	at := l.start.Index - first
	return at >= uint64(len(run)) || run[at].GetTerm() == l.start.Term
}

func runIndex(prefix, key []byte) (uint64, error) {
	if len(key) != len(prefix)+8 {
		return 0, &storage.CorruptError{Key: slices.Clone(key), Reason: "not the key of log entries"}
	}
	return binary.BigEndian.Uint64(key[len(prefix):]), nil
}

// reset empties the log, which then begins after p.
func (l *logStore) reset(p replica.Position) {
	l.start, l.last = p, p.Index
	l.runs, l.cache, l.bytes = nil, nil, 0
	l.terms = []termStart{{p.Index, p.Term}}
}

// appended takes in entries that are durable, in the place of those from their
// first index on.
func (l *logStore) appended(entries []*raftpb.Entry) {
	first := entries[0].GetIndex()
	if first <= l.last {
		l.truncate(first)
	}
	l.runs = append(l.runs, first)
	for _, e := range entries {
		if e.GetIndex() <= l.start.Index {
			probe.Sometimes("raft: the log begins inside a run", true)
			continue // compacted, but in a run with others that are not
		}
		if term := e.GetTerm(); term != l.terms[len(l.terms)-1].term {
			l.terms = append(l.terms, termStart{e.GetIndex(), term})
		}
		l.cache = append(l.cache, e)
		l.bytes += entrySize(e)
		l.last = e.GetIndex()
	}
	n, limit := 0, l.limit
	if probe.Buggify("raft: no entry is cached") {
		limit = 0
	}
	for l.bytes > limit && n < len(l.cache) {
		l.bytes -= entrySize(l.cache[n])
		n++
	}
	l.cache = l.cache[n:]
}

// truncate removes the entries from an index on.
func (l *logStore) truncate(from uint64) {
	for len(l.runs) > 0 && l.runs[len(l.runs)-1] >= from {
		l.runs = l.runs[:len(l.runs)-1]
	}
	for len(l.terms) > 1 && l.terms[len(l.terms)-1].first >= from {
		l.terms = l.terms[:len(l.terms)-1]
	}
	keep := 0
	if cached := l.cacheFirst(); from > cached {
		keep = int(from - cached)
	}
	for _, e := range l.cache[keep:] {
		l.bytes -= entrySize(e)
	}
	// Slices of the cache have been handed out: what follows must not overwrite them.
	l.cache = slices.Clone(l.cache[:keep])
	l.last = max(from-1, l.start.Index)
}

// entrySize is what an entry counts for in the limits.
func entrySize(e *raftpb.Entry) uint64 { return uint64(len(e.GetData())) + 32 }

// cacheFirst returns the index of the first cached entry, last+1 if there is none.
func (l *logStore) cacheFirst() uint64 { return l.last + 1 - uint64(len(l.cache)) }

// compact drops the entries up to p and writes the records of it.
func (l *logStore) compact(p replica.Position, config []byte, b *storage.Batch) {
	// The run that holds the entry after p stays.
	n := sort.Search(len(l.runs), func(i int) bool { return l.runs[i] > p.Index+1 })
	if n > 0 {
		n--
	}
	if n > 0 {
		from, _ := l.keys.ProtocolRange(tagLog)
		b.DeleteRange(from, l.keys.Protocol(tagLog, l.runs[n]))
		l.runs = slices.Clone(l.runs[n:])
	}
	key := l.keys.Protocol(tagStart)
	b.Set(key, storage.AppendRecord(nil, key, encodeStart(p, config)))
	t := sort.Search(len(l.terms), func(i int) bool { return l.terms[i].first > p.Index }) - 1
	l.terms = slices.Clone(l.terms[t:])
	if cached := l.cacheFirst(); p.Index >= cached {
		n := min(p.Index+1-cached, uint64(len(l.cache)))
		for _, e := range l.cache[:n] {
			l.bytes -= entrySize(e)
		}
		l.cache = l.cache[n:]
	}
	l.start = p
	l.last = max(l.last, p.Index)
}

// read returns entries [lo, hi) from the store, at least one.
func (l *logStore) read(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	probe.Sometimes("raft: entries are read from the store", true)
	var result []*raftpb.Entry
	var size uint64
	next := lo
	for i := sort.Search(len(l.runs), func(i int) bool { return l.runs[i] > lo }) - 1; next < hi; i++ {
		if i < 0 || i >= len(l.runs) {
			return nil, etcd.ErrUnavailable
		}
		end := hi
		if i+1 < len(l.runs) {
			end = min(hi, l.runs[i+1])
		}
		key := l.keys.Protocol(tagLog, l.runs[i])
		value, err := l.store.Get(key)
		if errors.Is(err, storage.ErrNotFound) {
			return nil, &storage.CorruptError{Group: l.keys.Group(), Index: next, Key: key, Reason: "run of log entries: it is missing"}
		}
		if err != nil {
			return nil, fmt.Errorf("raft: group %d: read log at index %d: %w", l.keys.Group(), next, err)
		}
		entries, _, err := openRun(l.keys.Group(), value)
		if err != nil {
			return nil, replica.Corrupt(err, l.keys.Group(), l.runs[i])
		}
		for _, e := range entries {
			if e.GetIndex() < next || e.GetIndex() >= end {
				continue
			}
			if size += entrySize(e); size > maxSize && len(result) > 0 {
				return result, nil
			}
			result = append(result, e)
			next++
		}
		if next != end {
			return nil, &storage.CorruptError{Group: l.keys.Group(), Index: next, Key: key, Reason: "run of log entries: it ends too early"}
		}
	}
	return result, nil
}

// InitialState implements etcd's Storage.
func (l *logStore) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return l.hard, l.conf, nil
}

// Entries implements etcd's Storage.
func (l *logStore) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	if lo <= l.start.Index {
		return nil, etcd.ErrCompacted
	}
	if hi > l.last+1 {
		return nil, etcd.ErrUnavailable
	}
	cached := l.cacheFirst()
	if lo < cached {
		return l.read(lo, min(hi, cached), maxSize)
	}
	entries := l.cache[lo-cached : hi-cached]
	var size uint64
	for i, e := range entries {
		if size += entrySize(e); size > maxSize && i > 0 {
			entries = entries[:i]
			break
		}
	}
	return entries[:len(entries):len(entries)], nil
}

// Term implements etcd's Storage.
func (l *logStore) Term(index uint64) (uint64, error) {
	if index < l.start.Index {
		return 0, etcd.ErrCompacted
	}
	if index > l.last {
		return 0, etcd.ErrUnavailable
	}
	if index == l.start.Index {
		return l.start.Term, nil
	}
	if n := len(l.terms) - 1; index >= l.terms[n].first {
		return l.terms[n].term, nil
	}
	i := sort.Search(len(l.terms), func(i int) bool { return l.terms[i].first > index }) - 1
	return l.terms[i].term, nil
}

// LastIndex implements etcd's Storage.
func (l *logStore) LastIndex() (uint64, error) { return l.last, nil }

// FirstIndex implements etcd's Storage.
func (l *logStore) FirstIndex() (uint64, error) { return l.start.Index + 1, nil }

// Snapshot implements etcd's Storage. It runs inside the core's step, and so only
// offers what was built before.
func (l *logStore) Snapshot() (*raftpb.Snapshot, error) {
	if l.snap == nil || l.snap.GetMetadata().GetIndex() < max(l.start.Index, l.since) {
		l.wanted = true
		return nil, etcd.ErrSnapshotTemporarilyUnavailable
	}
	return l.snap, nil
}
