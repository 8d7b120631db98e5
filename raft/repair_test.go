package raft

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

// source is a core that has the same entries as damagedLog, and one more, in runs of its own.
func source(t *testing.T, before uint64, each int, cache uint64) *core {
	keys := replica.GroupKeys(7)
	store := memory.Open(memory.Config{})
	var b storage.Batch
	begin(keys, replica.Position{Index: before, Term: 1}, bootConfig([]uint64{1, 2, 3}), &raftpb.HardState{Term: new(uint64(1)), Commit: new(before)}, &b)
	require.NoError(t, store.Commit(&b))
	log, err := openLog(keys, store, cache)
	require.NoError(t, err)
	c := &core{group: 7, keys: keys, log: log, written: replica.Position{Index: before, Term: 1}}
	terms := []uint64{0, 1, 1, 1, 2, 2, 3, 3, 3, 3}
	var entries []*raftpb.Entry
	for i := before + 1; i < uint64(len(terms)); i++ {
		entries = append(entries, &raftpb.Entry{Index: new(i), Term: new(terms[i]), Data: fmt.Appendf(nil, "%d in %d", i, terms[i])})
	}
	for len(entries) > 0 {
		n := min(each, len(entries))
		var b storage.Batch
		for _, part := range c.writeEntries(&b, entries[:n]) {
			log.appended(part)
		}
		require.NoError(t, store.Commit(&b))
		entries = entries[n:]
	}
	return c
}

const whole = "7: 2/1 3/1 4/2 5/2 6/3 7/3 8/3, 3 2 4"

func open(t *testing.T, store storage.Store) *repairedLog {
	t.Helper()
	r, err := protocol{}.Repair(replica.GroupKeys(7), store)
	require.NoError(t, err)
	return r.(*repairedLog)
}

// mend takes pieces from another core until nothing is missing. Between any two, it begins anew.
func mend(t *testing.T, store *memory.Store, from *core, limit int, anew bool) (pieces int) {
	r := open(t, store)
	for {
		gap, missing := r.Gap()
		if !missing {
			break
		}
		require.LessOrEqual(t, gap.First, gap.Last)
		piece, err := from.Entries(gap, limit)
		require.NoError(t, err)
		require.NotEmpty(t, piece, "%+v", gap)
		var b storage.Batch
		first, err := r.Fill(piece, &b)
		require.NoError(t, err)
		require.GreaterOrEqual(t, first, gap.First)
		require.NoError(t, store.Commit(&b))
		pieces++
		require.Less(t, pieces, 20)
		if next, missing := r.Gap(); missing && anew {
			_, err := openLog(replica.GroupKeys(7), store, 1)
			require.ErrorIs(t, err, storage.ErrCorrupt, "a log that is mended in part")
			r = open(t, store)
			again, _ := r.Gap()
			require.Equal(t, next, again)
		}
	}
	var b storage.Batch
	r.Finish(&b)
	require.NoError(t, store.Commit(&b))
	return pieces
}

// Whatever runs are damaged, cut or missing, the log is as it was.
func TestRepair(t *testing.T) {
	store := damagedLog(t)
	keys, values := records(t, store)
	from, _ := replica.GroupKeys(7).ProtocolRange(tagLog)
	var runs []int
	for i, key := range keys {
		if bytes.HasPrefix(key, from) {
			runs = append(runs, i)
		}
	}
	require.Len(t, runs, 4)
	sources := []*core{source(t, 1, 1, 1<<20), source(t, 2, 3, 0), source(t, 1, 100, 100), source(t, 1, 2, 0)}
	for set := 1; set < 81; set++ { // of each run: as it is, damaged, missing
		damaged := change(t, store, func(b *storage.Batch) {
			for i, what := 0, set; i < len(runs); i, what = i+1, what/3 {
				switch key, value := keys[runs[i]], values[runs[i]]; what % 3 {
				case 1:
					flipped := bytes.Clone(value)
					flipped[len(flipped)/2] ^= 1
					b.Set(key, flipped)
				case 2:
					b.Delete(key)
				}
			}
		})
		for _, c := range sources {
			for _, limit := range []int{1, 100, 1 << 20} {
				copied := change(t, damaged, func(*storage.Batch) {})
				require.NotZero(t, mend(t, copied, c, limit, limit == 1))
				require.Equal(t, whole, contents(t, 7, copied), "set %d, limit %d", set, limit)
			}
		}
	}
	// What is whole stays as it is.
	copied := change(t, store, func(*storage.Batch) {})
	require.Zero(t, mend(t, copied, sources[0], 1, false))
	require.Equal(t, whole, contents(t, 7, copied))
}

// A record of term and vote, or of where the log begins, says what is missing: without it nothing
// can be known.
func TestRepairNeeds(t *testing.T) {
	store := damagedLog(t)
	group := replica.GroupKeys(7)
	for _, key := range [][]byte{group.Protocol(tagHard), group.Protocol(tagStart)} {
		damaged := change(t, store, func(b *storage.Batch) { b.Delete(key) })
		_, err := protocol{}.Repair(group, damaged)
		require.ErrorIs(t, err, storage.ErrCorrupt)
	}
	beyond := change(t, store, func(b *storage.Batch) { b.Set(group.Protocol(tagLog, 9), []byte("void")) })
	_, err := protocol{}.Repair(group, beyond)
	require.ErrorIs(t, err, storage.ErrCorrupt, "what lies beyond the end is nobody's")
}

// Only what ends in the very entry that is missing, and fits below, is taken.
func TestRepairUnfit(t *testing.T) {
	store := damagedLog(t)
	group := replica.GroupKeys(7)
	damaged := change(t, store, func(b *storage.Batch) {
		b.Delete(group.Protocol(tagLog, 2))
		b.Delete(group.Protocol(tagLog, 4))
		b.Delete(group.Protocol(tagLog, 6))
	})
	r := open(t, damaged)
	gap, missing := r.Gap()
	require.True(t, missing)
	require.Equal(t, replica.Gap{First: 3, Last: 6, Term: 3}, gap)
	run := func(before, first uint64, terms ...uint64) []byte {
		var entries []*raftpb.Entry
		for i, term := range terms {
			entries = append(entries, &raftpb.Entry{Index: new(first + uint64(i)), Term: new(term), Data: fmt.Appendf(nil, "%d in %d", first+uint64(i), term)})
		}
		return appendRun(nil, 7, before, entries)
	}
	altered := run(2, 5, 2, 3)
	altered[len(altered)-1] ^= 1
	other := appendRun(nil, 8, 2, []*raftpb.Entry{{Index: new(uint64(6)), Term: new(uint64(3))}})
	for what, piece := range map[string][]byte{
		"nothing":             nil,
		"altered":             altered,
		"of another group":    other,
		"an earlier term":     run(2, 5, 2, 2),
		"a later term":        run(2, 5, 2, 4),
		"it ends before":      run(2, 4, 2, 2),
		"it ends behind":      run(2, 5, 2, 3, 3),
		"below the gap":       run(1, 2, 1, 1, 2, 2, 3),
		"terms that sink":     run(1, 4, 3, 2, 3),
		"a term before it":    run(4, 5, 2, 3),
		"another entry below": run(2, 3, 2, 2, 2, 3),
	} {
		var b storage.Batch
		_, err := r.Fill(piece, &b)
		require.Error(t, err, what)
		require.Zero(t, b.Len(), what)
		again, _ := r.Gap()
		require.Equal(t, gap, again, what)
	}
	var b storage.Batch
	_, err := r.Fill(run(1, 3, 1, 2, 2, 3), &b)
	require.NoError(t, err)
	require.NoError(t, damaged.Commit(&b))
	require.Equal(t, whole, contents(t, 7, damaged))
	_, err = r.Fill(run(1, 3, 1, 2, 2, 3), &b)
	require.Error(t, err, "nothing is missing any more")
}

// Whoever does not have the very entry gives nothing.
func TestRepairSource(t *testing.T) {
	c := source(t, 3, 2, 100)
	for _, gap := range []replica.Gap{
		{First: 3, Last: 6, Term: 2}, {First: 3, Last: 6, Term: 4}, {First: 1, Last: 3, Term: 1}, {First: 1, Last: 2, Term: 1},
		{First: 9, Last: 10, Term: 3}, {First: 1, Last: ^uint64(0), Term: 3}, {First: 8, Last: 7, Term: 3}, {},
	} {
		piece, err := c.Entries(gap, 1000)
		require.NoError(t, err)
		require.Empty(t, piece, "%+v", gap)
	}
	for _, limit := range []int{0, 1, 90, 1000} {
		piece, err := c.Entries(replica.Gap{First: 1, Last: 8, Term: 3}, limit)
		require.NoError(t, err)
		entries, before, err := openRun(7, piece)
		require.NoError(t, err)
		require.Equal(t, uint64(8), entries[len(entries)-1].GetIndex())
		want := map[int]int{0: 1, 1: 1, 90: 2, 1000: 5}[limit]
		require.Len(t, entries, want, "%d", limit)
		require.Equal(t, []uint64{0, 3, 3, 2, 2, 1}[want], before)
	}
}

// A snapshot may take the place of what is missing where it covers it, and what follows fits.
func TestRepairSnapshot(t *testing.T) {
	store := damagedLog(t)
	group := replica.GroupKeys(7)
	config := bootConfig([]uint64{1, 2, 3})
	damaged := change(t, store, func(b *storage.Batch) { b.Delete(group.Protocol(tagLog, 4)) })
	for _, c := range []struct {
		at   replica.Position
		want string // "": it does not fit
	}{
		{replica.Position{Index: 1, Term: 1}, ""},
		{replica.Position{Index: 2, Term: 1}, ""},
		{replica.Position{Index: 4, Term: 2}, ""},
		{replica.Position{Index: 5, Term: 1}, ""},
		{replica.Position{Index: 5, Term: 2}, "7: 5/2 6/3 7/3 8/3, 3 2 5"},
		{replica.Position{Index: 6, Term: 3}, "7: 6/3 7/3 8/3, 3 2 6"},
		{replica.Position{Index: 7, Term: 3}, "7: 7/3 8/3, 3 2 7"},
		{replica.Position{Index: 7, Term: 2}, ""},
		{replica.Position{Index: 8, Term: 4}, ""},
		{replica.Position{Index: 8, Term: 3}, "7: 8/3, 3 2 8"},
		{replica.Position{Index: 9, Term: 3}, "7: 9/3, 3 2 9"},
		{replica.Position{Index: 9, Term: 5}, "7: 9/5, 5 0 9"},
	} {
		copied := change(t, damaged, func(*storage.Batch) {})
		r := open(t, copied)
		require.Equal(t, c.want != "", r.Fits(c.at), "%+v", c.at)
		var b storage.Batch
		err := r.Begin(c.at, config, &b)
		if c.want == "" {
			require.Error(t, err)
			require.Zero(t, b.Len())
			continue
		}
		require.NoError(t, err)
		r.Finish(&b)
		require.NoError(t, copied.Commit(&b))
		require.Equal(t, c.want, contents(t, 7, copied), "%+v", c.at)
		_, missing := open(t, copied).Gap()
		require.False(t, missing)
	}
	// Of a log that lacks nothing, too.
	r := open(t, change(t, store, func(*storage.Batch) {}))
	require.True(t, r.Fits(replica.Position{Index: 4, Term: 2}))
	require.True(t, r.Fits(replica.Position{Index: 2, Term: 1}))
	require.False(t, r.Fits(replica.Position{Index: 4, Term: 1}))
	require.False(t, r.Fits(replica.Position{Index: 1, Term: 1}))
}
