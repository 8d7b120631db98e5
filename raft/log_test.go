package raft

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	etcd "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

// logPair is a log in a store, written as the core writes it, beside a model that
// is a slice.
type logPair struct {
	t      *testing.T
	rand   *rand.Rand
	limit  uint64
	keys   replica.Keys
	store  *memory.Store
	log    *logStore
	writer *core

	// The model: what was acknowledged to the log.
	start  replica.Position
	model  []*raftpb.Entry // after start
	commit uint64

	flying []flight             // in the store, but not acknowledged
	given  [][2][]*raftpb.Entry // slices that were handed out, and what stood in them
	term   uint64               // the newest of any entry
	counts [8]uint64            // what was done, by kind
}

// flight is one batch.
type flight struct {
	parts [][]*raftpb.Entry
	first uint64
}

func newLogPair(t *testing.T, seed, limit uint64) *logPair {
	p := &logPair{t: t, rand: rand.New(rand.NewPCG(seed, limit)), limit: limit, keys: replica.GroupKeys(7),
		store: memory.Open(memory.Config{}), start: bootPosition, commit: bootPosition.Index, term: bootPosition.Term}
	var b storage.Batch
	require.NoError(t, protocol{}.Bootstrap(p.keys, bootConfig([]uint64{1, 2, 3}), &b))
	require.NoError(t, p.store.Commit(&b))
	p.open()
	return p
}

func (p *logPair) open() {
	log, err := openLog(p.keys, p.store, p.limit)
	require.NoError(p.t, err)
	p.log = log
	p.writer = &core{group: p.keys.Group(), keys: p.keys, log: log}
	p.writer.written, err = log.end()
	require.NoError(p.t, err)
}

func (p *logPair) last() uint64 { return p.start.Index + uint64(len(p.model)) }

// written is the last index that was handed to the store.
func (p *logPair) written() uint64 { return p.writer.written.Index }

func (p *logPair) termAt(index uint64) uint64 {
	// The newest flight that reaches down to the index tells.
	for i := len(p.flying) - 1; i >= 0; i-- {
		for _, part := range p.flying[i].parts {
			for _, e := range part {
				if e.GetIndex() == index {
					return e.GetTerm()
				}
			}
		}
	}
	if index == p.start.Index {
		return p.start.Term
	}
	return p.model[index-p.start.Index-1].GetTerm()
}

// append writes some entries, which may replace a suffix that is not committed.
func (p *logPair) append() {
	first := p.written() + 1
	if p.rand.IntN(4) == 0 {
		first = p.commit + 1 + p.rand.Uint64N(p.written()-p.commit+1)
	}
	if first <= p.written() || p.rand.IntN(4) == 0 {
		p.term++
	}
	// The term of an entry is at least that of the one before, and need not be the
	// newest: a leader passes older ones on.
	term := p.termAt(first-1) + p.rand.Uint64N(p.term-p.termAt(first-1)+1)
	var entries []*raftpb.Entry
	for i := range 1 + p.rand.Uint64N(8) {
		if p.rand.IntN(5) == 0 {
			term += p.rand.Uint64N(p.term - term + 1)
		}
		e := &raftpb.Entry{Index: new(first + i), Term: new(term)}
		if size := p.rand.IntN(60); size > 10 {
			e.Data = make([]byte, size)
			for j := range e.Data {
				e.Data[j] = byte(p.rand.Uint32())
			}
		}
		entries = append(entries, e)
	}
	// Some arrived in runs, which are written as they are. What they hold is what
	// Step makes of them: entries that alias the run.
	p.writer.runs = nil
	for i := 0; i < len(entries); {
		n := 1 + p.rand.IntN(len(entries)-i)
		before := p.termAt(first - 1)
		if i > 0 {
			before = entries[i-1].GetTerm()
		}
		if p.rand.IntN(3) > 0 {
			run := appendRun(nil, p.keys.Group(), before, entries[i:i+n])
			opened, got, err := openRun(p.keys.Group(), run)
			require.NoError(p.t, err)
			require.Equal(p.t, before, got)
			copy(entries[i:], opened)
			p.writer.runs = append(p.writer.runs, receivedRun{opened, run})
			if n > 1 && p.rand.IntN(4) == 0 {
				// In the same round, others took the place of its last ones.
				for j := i + 1 + p.rand.IntN(n-1); j < i+n; j++ {
					entries[j] = &raftpb.Entry{Index: new(entries[j].GetIndex()), Term: new(entries[j].GetTerm()), Data: []byte("another")}
				}
			}
		}
		i += n
	}
	var b storage.Batch
	parts := p.writer.writeEntries(&b, entries)
	require.Equal(p.t, entries, slices.Concat(parts...))
	p.writer.appends = append(p.writer.appends, pendingAppend{entries: parts})
	p.writeHard(&b)
	require.NoError(p.t, p.store.Commit(&b))
	p.flying = append(p.flying, flight{parts, first})
	if first <= p.last() {
		p.counts[1]++
	}
}

// acknowledge tells the log of the oldest batch.
func (p *logPair) acknowledge() {
	if len(p.flying) == 0 {
		return
	}
	f := p.flying[0]
	p.flying = p.flying[1:]
	p.writer.appends = p.writer.appends[1:]
	for _, part := range f.parts {
		p.log.appended(part)
		p.model = append(slices.Clone(p.model[:part[0].GetIndex()-p.start.Index-1]), part...)
	}
	p.counts[2]++
}

// stable is the last index that raft reads from its storage: what lies above is
// in memory until it is acknowledged.
func (p *logPair) stable() uint64 {
	stable := p.last()
	for _, f := range p.flying {
		stable = min(stable, f.first-1)
	}
	return stable
}

func (p *logPair) decide() {
	p.commit += p.rand.Uint64N(p.stable() - p.commit + 1)
	var b storage.Batch
	p.writeHard(&b)
	require.NoError(p.t, p.store.Commit(&b))
}

func (p *logPair) writeHard(b *storage.Batch) {
	key := p.keys.Protocol(tagHard)
	state := &raftpb.HardState{Term: new(p.term), Commit: new(p.commit)}
	b.Set(key, storage.AppendRecord(nil, key, encodeHard(state, p.writer.written)))
}

func (p *logPair) compact() {
	if p.commit == p.start.Index {
		return
	}
	index := p.start.Index + 1 + p.rand.Uint64N(p.commit-p.start.Index)
	to := replica.Position{Index: index, Term: p.termAt(index), Commands: index}
	var b storage.Batch
	p.log.compact(to, encodeConf(&raftpb.ConfState{Voters: []uint64{1, 2, 3}}), &b)
	require.NoError(p.t, p.store.Commit(&b))
	p.model = slices.Clone(p.model[index-p.start.Index:])
	p.start = to
	p.counts[3]++
}

func (p *logPair) reopen() {
	for len(p.flying) > 0 {
		p.acknowledge()
	}
	p.store = p.store.Crash()
	p.open()
	require.Equal(p.t, p.commit, p.log.hard.GetCommit())
	p.counts[4]++
}

// read compares one range, with a random limit.
func (p *logPair) read() {
	first, err := p.log.FirstIndex()
	require.NoError(p.t, err)
	require.Equal(p.t, p.start.Index+1, first)
	last, err := p.log.LastIndex()
	require.NoError(p.t, err)
	require.Equal(p.t, p.last(), last)

	stable := p.stable()
	_, err = p.log.Entries(p.start.Index-p.rand.Uint64N(2), stable+1, 1000)
	require.ErrorIs(p.t, err, etcd.ErrCompacted)
	_, err = p.log.Entries(p.start.Index+1, p.last()+2, 1000)
	require.ErrorIs(p.t, err, etcd.ErrUnavailable)
	if stable == p.start.Index {
		return
	}
	lo := p.start.Index + 1 + p.rand.Uint64N(stable-p.start.Index)
	hi := lo + 1 + p.rand.Uint64N(stable-lo+1)
	maxSize := []uint64{0, 1, 70, 150, 400, 1 << 40}[p.rand.IntN(6)]
	got, err := p.log.Entries(lo, hi, maxSize)
	require.NoError(p.t, err)
	require.NotEmpty(p.t, got)
	require.LessOrEqual(p.t, uint64(len(got)), hi-lo)
	var size uint64
	for i, e := range got {
		requireSameEntry(p.t, p.model[lo+uint64(i)-p.start.Index-1], e)
		size += entrySize(e)
	}
	require.True(p.t, size <= maxSize || len(got) == 1, "%d bytes, at most %d", size, maxSize)
	if next := lo + uint64(len(got)); next < hi && next != p.log.cacheFirst() {
		// It may end early where the cache begins, else only for size.
		require.Greater(p.t, size+entrySize(p.model[next-p.start.Index-1]), maxSize)
	}
	if lo < p.log.cacheFirst() {
		p.counts[5]++
	} else {
		p.counts[6]++
	}
	if len(p.given) == 16 {
		p.given = p.given[1:]
	}
	p.given = append(p.given, [2][]*raftpb.Entry{got, slices.Clone(got)})
	_ = append(got, &raftpb.Entry{Index: new(uint64(0))}) // must not touch the log
}

func requireSameEntry(t *testing.T, want, got *raftpb.Entry) {
	t.Helper()
	if want.GetIndex() != got.GetIndex() || want.GetTerm() != got.GetTerm() || want.GetType() != got.GetType() ||
		string(want.GetData()) != string(got.GetData()) {
		require.Fail(t, "entries differ", "want %v, got %v", want, got)
	}
}

// check compares what does not need the store.
func (p *logPair) check() {
	for i := p.start.Index; i <= p.last(); i++ {
		term, err := p.log.Term(i)
		require.NoError(p.t, err)
		want := p.start.Term
		if i > p.start.Index {
			want = p.model[i-p.start.Index-1].GetTerm()
		}
		require.Equal(p.t, want, term, "term of %d", i)
	}
	_, err := p.log.Term(p.start.Index - 1)
	require.ErrorIs(p.t, err, etcd.ErrCompacted)
	_, err = p.log.Term(p.last() + 1)
	require.ErrorIs(p.t, err, etcd.ErrUnavailable)

	var bytes uint64
	for i, e := range p.log.cache {
		requireSameEntry(p.t, p.model[p.log.cacheFirst()+uint64(i)-p.start.Index-1], e)
		bytes += entrySize(e)
	}
	require.Equal(p.t, bytes, p.log.bytes)
	require.LessOrEqual(p.t, bytes, p.limit)
	require.True(p.t, slices.IsSorted(p.log.runs))
	for _, g := range p.given {
		require.True(p.t, slices.Equal(g[1], g[0]), "what was handed out has changed")
	}
}

// TestLog does what a core and a runtime may do to a log, at random, and compares it
// with a slice.
func TestLog(t *testing.T) {
	var total [8]uint64
	for _, limit := range []uint64{1, 100, 700, 1 << 20} {
		for seed := range uint64(25) {
			t.Run(fmt.Sprintf("cache=%d/seed=%d", limit, seed), func(t *testing.T) {
				p := newLogPair(t, seed, limit)
				for range 250 {
					switch r := p.rand.IntN(20); {
					case r < 6 && len(p.flying) < 4:
						p.append()
					case r < 11:
						p.acknowledge()
					case r < 13:
						p.decide()
					case r < 14:
						p.compact()
					case r < 15:
						p.reopen()
					default:
						p.read()
					}
					p.check()
				}
				for i := range total {
					total[i] += p.counts[i]
				}
			})
		}
	}
	for i, what := range []string{1: "truncated", 2: "acknowledged", 3: "compacted", 4: "reopened", 5: "read from the store", 6: "read from the cache"} {
		if what != "" {
			require.Greater(t, total[i], uint64(400), "too rarely %s: the test tests nothing", what)
		}
	}
}

// A size limit counts entries as entrySize does, and yields at least one.
func TestLogMaxSize(t *testing.T) {
	for _, limit := range []uint64{1, 1 << 20} { // from the store, and from the cache
		p := newLogPair(t, 1, limit)
		entries := make([]*raftpb.Entry, 5)
		for i := range entries {
			entries[i] = &raftpb.Entry{Index: new(uint64(i) + 2), Term: new(uint64(1)), Data: make([]byte, 68)} // 100 each
		}
		var b storage.Batch
		parts := p.writer.writeEntries(&b, entries)
		require.NoError(t, p.store.Commit(&b))
		for _, part := range parts {
			p.log.appended(part)
		}
		for _, c := range []struct{ lo, hi, max, want uint64 }{
			{2, 7, 0, 1}, {2, 7, 99, 1}, {2, 7, 100, 1}, {2, 7, 199, 1}, {2, 7, 200, 2}, {2, 7, 499, 4},
			{2, 7, 500, 5}, {2, 7, 1 << 62, 5}, {4, 6, 1 << 62, 2}, {6, 7, 0, 1}, {3, 4, 1000, 1},
		} {
			got, err := p.log.Entries(c.lo, c.hi, c.max)
			require.NoError(t, err)
			require.Len(t, got, int(c.want), "cache of %d: %v", limit, c)
			require.Equal(t, c.lo, got[0].GetIndex())
		}
	}
}

// A snapshot takes the place of the log.
func TestLogReset(t *testing.T) {
	p := newLogPair(t, 1, 1<<20)
	for range 20 {
		p.append()
		p.acknowledge()
	}
	p.log.reset(replica.Position{Index: 1000, Term: 9})
	p.start, p.model = replica.Position{Index: 1000, Term: 9}, nil
	p.check()
	_, err := p.log.Entries(1000, 1001, 1)
	require.ErrorIs(t, err, etcd.ErrCompacted)
	_, err = p.log.Entries(1001, 1002, 1)
	require.ErrorIs(t, err, etcd.ErrUnavailable)
}

// Storage.Snapshot offers what there is, if it reaches the log, and asks for one
// otherwise.
func TestLogSnapshot(t *testing.T) {
	l := &logStore{}
	l.reset(replica.Position{Index: 10, Term: 2})
	conf := bootConfig([]uint64{1})
	_, err := l.Snapshot()
	require.ErrorIs(t, err, etcd.ErrSnapshotTemporarilyUnavailable)
	require.True(t, l.wanted)
	l.wanted, l.snap = false, makeSnapshot(replica.Position{Index: 9, Term: 2}, conf)
	_, err = l.Snapshot()
	require.ErrorIs(t, err, etcd.ErrSnapshotTemporarilyUnavailable)
	require.True(t, l.wanted, "entry 10 is neither in the snapshot nor in the log")
	l.wanted, l.snap = false, makeSnapshot(replica.Position{Index: 10, Term: 2, Commands: 70}, conf)
	s, err := l.Snapshot()
	require.NoError(t, err)
	require.False(t, l.wanted)
	require.Equal(t, replica.Position{Index: 10, Term: 2, Commands: 70}, snapshotPosition(s))
}

// bootConfig is the configuration of a new group.
func bootConfig(voters []uint64) []byte { return encodeConf(&raftpb.ConfState{Voters: voters}) }
