package multipaxos

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

// damagedLog is a log as it is after some life: with a run that others overlap, one that the log begins in, one
// that was fetched, and an end that is not decided.
func damagedLog(t *testing.T) (*logBuilder, [][]byte, [][]byte) {
	b := newLogBuilder(t)
	b.accept(Ballot{Round: 2, Node: 1}, 2, 6)
	b.accept(Ballot{Round: 3, Node: 2}, 5, 8)
	b.accept(chosen(), 9, 10)
	b.accept(Ballot{Round: 4, Node: 2}, 13, 14)
	b.decide(10)
	var batch storage.Batch
	b.log.compact(replica.Position{Index: 3, Term: 1, Commands: 2}, members(1, 2, 3).Append(nil), &batch)
	b.write(&batch)
	require.NoError(t, openWhole(b.store, 7))
	it, err := b.store.Scan(nil, nil)
	require.NoError(t, err)
	keys, values, err := storage.Collect(it)
	require.NoError(t, err)
	require.Len(t, keys, 6, "what was promised, four runs, the log's start")
	return b, keys, values
}

// openWhole opens a group as the runtime does.
func openWhole(store storage.Store, group uint64) error {
	p, keys := Protocol{Whole: true}, replica.GroupKeys(group)
	start, config, err := p.Start(keys, store)
	if err != nil {
		return err
	}
	_, err = p.Open(replica.OpenOptions{Node: 1, Keys: keys, Store: store, Start: start, Config: config})
	return err
}

func requireCorrupt(t *testing.T, group uint64, store storage.Store, what string, args ...any) *storage.CorruptError {
	t.Helper()
	what = fmt.Sprintf(what, args...)
	err := openWhole(store, group)
	require.ErrorIs(t, err, storage.ErrCorrupt, what)
	require.NotErrorIs(t, err, storage.ErrNotFound, what)
	var c *storage.CorruptError
	require.ErrorAs(t, err, &c, what)
	require.Equal(t, group, c.Group, "%s: %v", what, err)
	require.True(t, c.Index != 0 || len(c.Key) != 0, "%s: %v", what, err)
	require.NotEmpty(t, c.Reason, what)
	return c
}

// changed returns a store that differs by a few operations.
func changed(t *testing.T, keys, values [][]byte, ops func(*storage.Batch)) *memory.Store {
	store := memory.Open(memory.Config{})
	var b storage.Batch
	for i := range keys {
		b.Set(keys[i], values[i])
	}
	ops(&b)
	require.NoError(t, store.Commit(&b))
	return store
}

// Each bit of each record counts.
func TestCorruptBits(t *testing.T) {
	_, keys, values := damagedLog(t)
	for i, key := range keys {
		for bit := range 8 * len(values[i]) {
			flipped := bytes.Clone(values[i])
			flipped[bit/8] ^= 1 << (bit % 8)
			c := requireCorrupt(t, 7, changed(t, keys, values, func(b *storage.Batch) { b.Set(key, flipped) }), "record %q, bit %d", key, bit)
			require.Equal(t, key, c.Key)
		}
		for n := range len(values[i]) {
			requireCorrupt(t, 7, changed(t, keys, values, func(b *storage.Batch) { b.Set(key, values[i][:n]) }), "record %q, cut to %d bytes", key, n)
		}
		longer := append(bytes.Clone(values[i]), 0)
		requireCorrupt(t, 7, changed(t, keys, values, func(b *storage.Batch) { b.Set(key, longer) }), "record %q, a byte more", key)
	}
}

// No record may be missing, nor any two of them.
func TestCorruptMissing(t *testing.T) {
	_, keys, values := damagedLog(t)
	for set := 1; set < 1<<len(keys); set++ {
		requireCorrupt(t, 7, changed(t, keys, values, func(b *storage.Batch) {
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
	b, keys, values := damagedLog(t)
	places := slices.Clone(keys)
	for slot := range uint64(16) {
		places = append(places, (&record{first: slot + 1, last: slot + 2, ballot: Ballot{Round: 3, Node: 2}}).key(b.keys))
	}
	places = append(places, b.keys.Protocol(tagRun), b.keys.Protocol(tagRun, 5), append((&record{first: 5, last: 8, ballot: Ballot{Round: 3, Node: 2}}).key(b.keys), 0),
		(&record{first: 8, last: 5, ballot: Ballot{Round: 3, Node: 2}}).key(b.keys), (&record{first: 5, last: 8}).key(b.keys))
	for i, value := range values {
		for _, place := range places {
			if bytes.Equal(place, keys[i]) {
				continue
			}
			requireCorrupt(t, 7, changed(t, keys, values, func(b *storage.Batch) { b.Set(place, value) }), "copy of %q at %q", keys[i], place)
			requireCorrupt(t, 7, changed(t, keys, values, func(b *storage.Batch) { b.Delete(keys[i]); b.Set(place, value) }), "%q moved to %q", keys[i], place)
		}
	}
	other := func(key []byte) []byte {
		moved := bytes.Clone(key)
		moved[8]++
		return moved
	}
	requireCorrupt(t, 8, changed(t, keys, values, func(b *storage.Batch) {
		for i, key := range keys {
			b.Set(other(key), values[i])
		}
	}), "all records moved to group 8")
}

// What is right by its checksum, and can't be: written by a release with an error.
func TestCorruptContents(t *testing.T) {
	b, keys, values := damagedLog(t)
	hard, start := b.keys.Protocol(tagHard), b.keys.Protocol(tagStart)
	sealed := func(key, payload []byte) *memory.Store {
		return changed(t, keys, values, func(b *storage.Batch) { b.Set(key, storage.AppendRecord(nil, key, payload)) })
	}
	good := b.hard
	for what, change := range map[string]func(*hardRecord){
		"a round beyond all":             func(h *hardRecord) { h.promised.Round = maxRound + 1 },
		"nothing accepted but decided":   func(h *hardRecord) { h.last = h.decided - 1 },
		"more runs than there are":       func(h *hardRecord) { h.runs++ },
		"fewer runs than there are":      func(h *hardRecord) { h.runs-- },
		"another digest of their keys":   func(h *hardRecord) { h.digest++ },
		"a promise below what it has":    func(h *hardRecord) { h.promised = Ballot{Round: 2, Node: 1} },
		"accepted less than what it has": func(h *hardRecord) { h.last = 13 },
	} {
		h := good
		change(&h)
		requireCorrupt(t, 7, sealed(hard, h.encode()), "%s", what)
	}
	for what, payload := range map[string][]byte{"empty": nil, "cut": good.encode()[:3], "longer": append(good.encode(), 0)} {
		requireCorrupt(t, 7, sealed(hard, payload), "hard, %s", what)
		requireCorrupt(t, 7, sealed(start, payload), "start, %s", what)
	}
	config := members(1, 2, 3).Append(nil)
	for what, s := range map[string]startRecord{
		"no configuration":        {replica.Position{Index: 3, Term: 1}, nil},
		"a term without an index": {replica.Position{Term: 1}, config},
		"a term beyond all":       {replica.Position{Index: 3, Term: maxRound + 1}, config},
		"decided less than that":  {replica.Position{Index: 12, Term: 1}, config},
	} {
		requireCorrupt(t, 7, sealed(start, s.encode()), "start: %s", what)
	}
}

// A log that begins after what the state machine has is of no use.
func TestOpenAgainstSnapshot(t *testing.T) {
	b, _, _ := damagedLog(t)
	p := Protocol{Whole: true}
	config := members(1, 2, 3).Append(nil)
	open := func(at replica.Position) (*Core, error) {
		c, err := p.Open(replica.OpenOptions{Node: 1, Keys: b.keys, Store: b.store, Start: at, Config: config})
		if err != nil {
			return nil, err
		}
		return c.(*Core), nil
	}
	_, err := open(replica.Position{Index: 2, Term: 1})
	require.ErrorIs(t, err, storage.ErrCorrupt)
	c, err := open(replica.Position{Index: 7, Term: 3, Leader: 2, Commands: 6})
	require.NoError(t, err)
	require.EqualValues(t, 10, c.held)
	var out replica.Output
	var batch storage.Batch
	out.Batch = &batch
	c.applyLimit = 1 << 20
	c.Ready(&out)
	require.Len(t, out.Committed, 3)
	require.EqualValues(t, 8, out.Committed[0].Index)
	// What the state machine has beyond the log was decided: it goes on from there.
	c, err = open(replica.Position{Index: 20, Term: 5, Leader: 3, Priority: 1, Commands: 19})
	require.NoError(t, err)
	require.EqualValues(t, 20, c.held)
	require.Equal(t, Ballot{Round: 5, Node: 3, Priority: 1}, c.log.fence(20))
	require.EqualValues(t, 20, c.log.start.Index, "it can't serve what it may lack")
}

// A store that can't be read is no reason to believe that nothing is there.
func TestStoreFails(t *testing.T) {
	b, keys, values := damagedLog(t)
	failure := errors.New("the disk says no")
	for i := range keys {
		s := &failing{changed(t, keys, values, func(*storage.Batch) {}), keys[i], failure}
		require.ErrorIs(t, openWhole(s, 7), failure)
	}
	// While it runs: a value that was in memory before.
	s := &failing{Store: b.store, err: failure}
	start, config, err := Protocol{}.Start(b.keys, s)
	require.NoError(t, err)
	opened, err := Protocol{}.Open(replica.OpenOptions{Node: 1, Keys: b.keys, Store: s, Start: start, Config: config})
	require.NoError(t, err)
	c := opened.(*Core)
	s.key = c.log.spans[0].rec.key(b.keys)
	c.log.evict(^uint64(0), ^uint64(0))
	c.applyLimit = 1 << 20
	require.PanicsWithError(t, "paxos: group 7: read values of slots 2 to 6: the disk says no", func() {
		var out replica.Output
		var batch storage.Batch
		out.Batch = &batch
		c.Ready(&out)
	})
	var wrong *synod.ConfigError
	require.False(t, errors.As(err, &wrong))
}

// failing is a store one of whose keys can't be read.
type failing struct {
	storage.Store
	key []byte
	err error
}

func (f *failing) Get(key []byte) ([]byte, error) {
	if bytes.Equal(key, f.key) {
		return nil, f.err
	}
	return f.Store.Get(key)
}

func (f *failing) Scan(from, to []byte) (storage.Iterator, error) {
	it, err := f.Store.Scan(from, to)
	return &failingIterator{it, f}, err
}

type failingIterator struct {
	storage.Iterator
	f *failing
}

func (i *failingIterator) Next() (key, value []byte, err error) {
	if key, value, err = i.Iterator.Next(); err == nil && bytes.Equal(key, i.f.key) {
		return nil, nil, i.f.err
	}
	return key, value, err
}
