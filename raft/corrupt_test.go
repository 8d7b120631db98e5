package raft

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

// A log as it is after some life: compacted in the middle of a run, with a run that
// others overlap, and an end that is not committed.
//
//	run 2..5 in term 1, of which 4 and 5 are void, and which the log begins in
//	run 4..6 in term 2, of which 6 is void
//	run 6..6 in term 3
//	run 7..8 in term 3
func damagedLog(t *testing.T) *memory.Store {
	keys := replica.GroupKeys(7)
	store := memory.Open(memory.Config{})
	var b storage.Batch
	require.NoError(t, protocol{}.Bootstrap(keys, bootConfig([]uint64{1, 2, 3}), &b))
	require.NoError(t, store.Commit(&b))
	log, err := openLog(keys, store, 1<<20)
	require.NoError(t, err)
	c := &core{group: 7, keys: keys, log: log, written: bootPosition}
	for _, run := range []struct{ first, last, term uint64 }{{2, 5, 1}, {4, 6, 2}, {6, 6, 3}, {7, 8, 3}} {
		var entries []*raftpb.Entry
		for i := run.first; i <= run.last; i++ {
			entries = append(entries, &raftpb.Entry{Index: new(i), Term: new(run.term), Data: fmt.Appendf(nil, "%d in %d", i, run.term)})
		}
		var b storage.Batch
		for _, part := range c.writeEntries(&b, entries) {
			log.appended(part)
		}
		key := keys.Protocol(tagHard)
		state := &raftpb.HardState{Term: new(uint64(3)), Vote: new(uint64(2)), Commit: new(uint64(4))}
		b.Set(key, storage.AppendRecord(nil, key, encodeHard(state, c.written)))
		require.NoError(t, store.Commit(&b))
	}
	var cut storage.Batch
	log.compact(replica.Position{Index: 2, Term: 1, Commands: 2}, encodeConf(&raftpb.ConfState{Voters: []uint64{1, 2, 3}}), &cut)
	require.NoError(t, store.Commit(&cut))
	require.Equal(t, "7: 2/1 3/1 4/2 5/2 6/3 7/3 8/3, 3 2 4", contents(t, 7, store))
	return store
}

// contents opens a log and says what stands in it.
func contents(t *testing.T, group uint64, store storage.Store) string {
	log, err := openLog(replica.GroupKeys(group), store, 1<<20)
	require.NoError(t, err)
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d:", group)
	for i := log.start.Index; i <= log.last; i++ {
		term, err := log.Term(i)
		require.NoError(t, err)
		fmt.Fprintf(&b, " %d/%d", i, term)
		if i > log.start.Index {
			entries, err := log.Entries(i, i+1, 1<<20)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("%d in %d", i, term), string(entries[0].GetData()))
		}
	}
	fmt.Fprintf(&b, ", %d %d %d", log.hard.GetTerm(), log.hard.GetVote(), log.hard.GetCommit())
	return b.String()
}

// requireCorrupt opens a log that must not be believed.
func requireCorrupt(t *testing.T, group uint64, store storage.Store, what string, args ...any) *storage.CorruptError {
	t.Helper()
	what = fmt.Sprintf(what, args...)
	_, err := openLog(replica.GroupKeys(group), store, 1<<20)
	require.Error(t, err, what)
	require.ErrorIs(t, err, storage.ErrCorrupt, what)
	require.NotErrorIs(t, err, storage.ErrNotFound, what)
	var c *storage.CorruptError
	require.True(t, errors.As(err, &c), what)
	require.Equal(t, group, c.Group, "%s: %v", what, err)
	require.True(t, c.Index != 0 || len(c.Key) != 0, "%s: %v", what, err)
	require.NotEmpty(t, c.Reason, what)
	return c
}

// change returns a store that differs by a few operations.
func change(t *testing.T, store *memory.Store, ops func(*storage.Batch)) *memory.Store {
	changed := memory.Open(memory.Config{})
	it, err := store.Scan(nil, nil)
	require.NoError(t, err)
	keys, values, err := storage.Collect(it)
	require.NoError(t, err)
	var b storage.Batch
	for i := range keys {
		b.Set(keys[i], values[i])
	}
	ops(&b)
	require.NoError(t, changed.Commit(&b))
	return changed
}

func records(t *testing.T, store *memory.Store) (keys, values [][]byte) {
	it, err := store.Scan(nil, nil)
	require.NoError(t, err)
	keys, values, err = storage.Collect(it)
	require.NoError(t, err)
	require.Len(t, keys, 6, "term and vote, four runs, the log's start")
	return keys, values
}

// Each bit of each record counts.
func TestCorruptBits(t *testing.T) {
	store := damagedLog(t)
	keys, values := records(t, store)
	for i, key := range keys {
		for bit := range 8 * len(values[i]) {
			flipped := bytes.Clone(values[i])
			flipped[bit/8] ^= 1 << (bit % 8)
			c := requireCorrupt(t, 7, change(t, store, func(b *storage.Batch) { b.Set(key, flipped) }), "record %q, bit %d", key, bit)
			require.Equal(t, key, c.Key)
		}
		for n := range len(values[i]) {
			requireCorrupt(t, 7, change(t, store, func(b *storage.Batch) { b.Set(key, values[i][:n]) }), "record %q, cut to %d bytes", key, n)
		}
		longer := append(bytes.Clone(values[i]), 0)
		requireCorrupt(t, 7, change(t, store, func(b *storage.Batch) { b.Set(key, longer) }), "record %q, a byte more", key)
	}
}

// No record may be missing: neither one in the middle, where others overlap it, nor
// the last one, nor any two of them.
func TestCorruptMissing(t *testing.T) {
	store := damagedLog(t)
	keys, _ := records(t, store)
	for set := 1; set < 1<<len(keys); set++ {
		requireCorrupt(t, 7, change(t, store, func(b *storage.Batch) {
			for i, key := range keys {
				if set&(1<<i) != 0 {
					b.Delete(key)
				}
			}
		}), "without the records %b", set)
	}
}

// A record under another key is not that key's: of the same group, or of another.
func TestCorruptMoved(t *testing.T) {
	store := damagedLog(t)
	keys, values := records(t, store)
	places := slices.Clone(keys)
	group := replica.GroupKeys(7)
	for i := range uint64(12) {
		places = append(places, group.Protocol(tagLog, i))
	}
	places = append(places, group.Protocol(tagLog, 1<<63), group.Protocol(tagLog, ^uint64(0)), group.Protocol(tagLog),
		append(group.Protocol(tagLog, 5), 0))
	for i, value := range values {
		for _, place := range places {
			if bytes.Equal(place, keys[i]) {
				continue
			}
			requireCorrupt(t, 7, change(t, store, func(b *storage.Batch) { b.Set(place, value) }), "copy of %q at %q", keys[i], place)
			requireCorrupt(t, 7, change(t, store, func(b *storage.Batch) { b.Delete(keys[i]); b.Set(place, value) }), "%q moved to %q", keys[i], place)
		}
	}
	// One by one, and all together, to another group.
	other := func(key []byte) []byte {
		moved := bytes.Clone(key)
		moved[8]++
		return moved
	}
	requireCorrupt(t, 8, change(t, store, func(b *storage.Batch) {
		for i, key := range keys {
			b.Set(other(key), values[i])
		}
	}), "all records moved to group 8")
	all := change(t, store, func(b *storage.Batch) {
		require.NoError(t, protocol{}.Bootstrap(replica.GroupKeys(8), bootConfig([]uint64{1, 2, 3}), b))
	})
	require.Equal(t, "8: 1/1, 1 0 1", contents(t, 8, all))
	for i, key := range keys {
		requireCorrupt(t, 8, change(t, all, func(b *storage.Batch) { b.Set(other(key), values[i]) }), "%q of group 7 in group 8", key)
	}
}

// What is right by its checksum, and can't be: written by a release with an error.
func TestCorruptContents(t *testing.T) {
	store := damagedLog(t)
	group := replica.GroupKeys(7)
	sealed := func(key, payload []byte) func(*storage.Batch) {
		return func(b *storage.Batch) { b.Set(key, storage.AppendRecord(nil, key, payload)) }
	}
	hard, start := group.Protocol(tagHard), group.Protocol(tagStart)
	conf := encodeConf(&raftpb.ConfState{Voters: []uint64{1, 2, 3}})
	state := func(term, commit uint64) *raftpb.HardState {
		return &raftpb.HardState{Term: &term, Vote: new(uint64(1)), Commit: &commit}
	}
	end := replica.Position{Index: 8, Term: 3}
	run := func(first, before, term, count uint64) []byte {
		var entries []*raftpb.Entry
		for i := range count {
			entries = append(entries, &raftpb.Entry{Index: new(first + i), Term: &term})
		}
		return appendRun(nil, 7, before, entries)
	}
	for what, ops := range map[string]func(*storage.Batch){
		"term 0":                        sealed(hard, encodeHard(state(0, 4), end)),
		"commit beyond the log":         sealed(hard, encodeHard(state(3, 9), end)),
		"end beyond the log":            sealed(hard, encodeHard(state(3, 4), replica.Position{Index: 9, Term: 3})),
		"end before the log's":          sealed(hard, encodeHard(state(3, 4), replica.Position{Index: 7, Term: 3})),
		"end in another term":           sealed(hard, encodeHard(state(3, 4), replica.Position{Index: 8, Term: 2})),
		"state, a byte too many":        sealed(hard, append(encodeHard(state(3, 4), end), 0)),
		"state, empty":                  sealed(hard, nil),
		"start at index 0":              sealed(start, encodeStart(replica.Position{Term: 1}, conf)),
		"start in another term":         sealed(start, encodeStart(replica.Position{Index: 2, Term: 2}, conf)),
		"start beyond the log":          sealed(start, encodeStart(replica.Position{Index: 9, Term: 3}, conf)),
		"start, empty":                  sealed(start, nil),
		"start without members":         sealed(start, encodeStart(replica.Position{Index: 2, Term: 1}, encodeConf(&raftpb.ConfState{}))),
		"start, members cut":            sealed(start, encodeStart(replica.Position{Index: 2, Term: 1}, conf[:2])),
		"run after a gap":               func(b *storage.Batch) { b.Set(group.Protocol(tagLog, 10), run(10, 3, 3, 1)) },
		"run after an entry it has not": func(b *storage.Batch) { b.Set(group.Protocol(tagLog, 9), run(9, 2, 3, 1)) },
		"run that was not announced":    func(b *storage.Batch) { b.Set(group.Protocol(tagLog, 9), run(9, 3, 3, 1)) },
	} {
		requireCorrupt(t, 7, change(t, store, ops), "%s", what)
	}
}

// A record that goes bad, or goes, while the node runs is found when it is read.
func TestCorruptRead(t *testing.T) {
	for _, what := range []func(b *storage.Batch, key, value []byte){
		func(b *storage.Batch, key, _ []byte) { b.Delete(key) },
		func(b *storage.Batch, key, value []byte) { b.Set(key, value[:len(value)-1]) },
		func(b *storage.Batch, key, value []byte) {
			value[len(value)-1]++
			b.Set(key, value)
		},
	} {
		store := damagedLog(t)
		log, err := openLog(replica.GroupKeys(7), store, 1)
		require.NoError(t, err)
		key := replica.GroupKeys(7).Protocol(tagLog, 4)
		value, err := store.Get(key)
		require.NoError(t, err)
		var b storage.Batch
		what(&b, key, value)
		require.NoError(t, store.Commit(&b))
		_, err = log.Entries(3, 9, 1<<20)
		require.ErrorIs(t, err, storage.ErrCorrupt)
		var c *storage.CorruptError
		require.True(t, errors.As(err, &c))
		require.Equal(t, uint64(7), c.Group)
		require.Equal(t, uint64(4), c.Index)
	}
}

// A store that can't be read is an error, and not an empty log.
func TestStoreFails(t *testing.T) {
	store := damagedLog(t)
	require.NoError(t, store.Close())
	_, err := openLog(replica.GroupKeys(7), store, 1)
	require.ErrorIs(t, err, storage.ErrClosed)
	require.NotErrorIs(t, err, storage.ErrCorrupt)
}

// A snapshot that the log does not reach, or with a configuration that can't be read,
// does not open.
func TestOpenAgainstSnapshot(t *testing.T) {
	store := damagedLog(t)
	conf := encodeConf(&raftpb.ConfState{Voters: []uint64{1, 2, 3}})
	o := replica.OpenOptions{Node: 1, Keys: replica.GroupKeys(7), Store: store, Logger: slog.New(slog.DiscardHandler),
		ElectionTicks: 10, HeartbeatTicks: 1, MessageBytes: 1, InflightBytes: 1, PendingBytes: 1, ApplyBytes: 1, CacheBytes: 1}
	open := func(index uint64, config []byte) error {
		o.Start, o.Config = replica.Position{Index: index, Term: 3}, config
		_, err := protocol{}.Open(o)
		return err
	}
	require.NoError(t, open(7, conf))
	for _, err := range []error{open(9, conf), open(7, conf[:3]), open(7, nil)} {
		require.ErrorIs(t, err, storage.ErrCorrupt)
		var c *storage.CorruptError
		require.True(t, errors.As(err, &c))
		require.Equal(t, uint64(7), c.Group)
		require.NotZero(t, c.Index)
	}
}
