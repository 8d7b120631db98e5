package multipaxos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

// logBuilder writes a log as an acceptor would, and damages it.
type logBuilder struct {
	t     testing.TB
	keys  replica.Keys
	store storage.Store
	log   *valueLog
	hard  hardRecord
}

func newLogBuilder(t testing.TB) *logBuilder {
	b := &logBuilder{t: t, keys: replica.GroupKeys(7), store: memory.Open(memory.Config{})}
	var batch storage.Batch
	require.NoError(t, Protocol{}.Bootstrap(b.keys, members(1, 2, 3).Append(nil), &batch))
	require.NoError(t, b.store.Commit(&batch))
	b.open()
	return b
}

func (b *logBuilder) open() (lost bool) {
	var err error
	b.log, b.hard, lost, err = openLog(b.keys, b.store, 1<<20)
	require.NoError(b.t, err)
	return lost
}

// accept puts values into slots, in a ballot, as one record.
func (b *logBuilder) accept(ballot Ballot, first, last uint64) *run {
	var values []value
	for slot := first; slot <= last; slot++ {
		values = append(values, value{origin: ballot, kind: valueCommand, data: fmt.Appendf(nil, "%d in %v", slot, ballot)})
	}
	if ballot.isChosen() {
		for i := range values {
			values[i].origin = Ballot{Round: 1, Node: 1}
		}
	}
	r := encodeRun(7, ballot, first, values)
	var batch storage.Batch
	b.log.put(r, 0, &batch)
	b.hard.promised = maxBallot(b.hard.promised, r.values[0].origin)
	b.hard.last, b.hard.runs, b.hard.digest = max(b.hard.last, last), b.log.runs, b.log.digest
	b.write(&batch)
	return r
}

func (b *logBuilder) decide(slot uint64) {
	b.hard.decided = slot
	b.write(&storage.Batch{})
}

func (b *logBuilder) write(batch *storage.Batch) {
	key := b.keys.Protocol(tagHard)
	batch.Set(key, storage.AppendRecord(nil, key, b.hard.encode()))
	require.NoError(b.t, b.store.Commit(batch))
}

func (b *logBuilder) records() [][]byte {
	from, to := b.keys.ProtocolRange(tagRun)
	it, err := b.store.Scan(from, to)
	require.NoError(b.t, err)
	keys, _, err := storage.Collect(it)
	require.NoError(b.t, err)
	return keys
}

func (b *logBuilder) remove(keys ...[]byte) {
	var batch storage.Batch
	for _, k := range keys {
		batch.Delete(k)
	}
	require.NoError(b.t, b.store.Commit(&batch))
}

func (b *logBuilder) flip(key []byte) {
	value, err := b.store.Get(key)
	require.NoError(b.t, err)
	value = slices.Clone(value)
	value[len(value)/2] ^= 1
	var batch storage.Batch
	batch.Set(key, value)
	require.NoError(b.t, b.store.Commit(&batch))
}

// random writes runs of rising ballots, over what undecided slots hold.
func (b *logBuilder) random(r *rand.Rand) {
	ballot := Ballot{Round: 2, Node: 1}
	next, decided := uint64(2), uint64(1)
	for range 10 + r.IntN(20) {
		if r.IntN(4) == 0 { // a new leader, which begins above what is decided
			ballot = Ballot{Round: ballot.Round + 1 + uint64(r.IntN(2)), Node: 1 + r.Uint64N(3)}
			next = decided + 1
		}
		last := next + r.Uint64N(3)
		b.accept(ballot, next, last)
		if next = last + 1; r.IntN(3) > 0 {
			decided = max(decided, next-1-r.Uint64N(3))
		}
	}
	b.decide(decided)
}

// Records that are missing are named by the digest of all keys, and never wrongly.
func TestMissingRecordsAreNamed(t *testing.T) {
	named := 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 7))
		b := newLogBuilder(t)
		b.random(r)
		before := b.log
		keys := b.records()
		count := 1 + r.IntN(2)
		r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		gone := keys[:count]
		b.remove(gone...)
		if b.open() {
			continue
		}
		named++
		require.Equal(t, before.runs, b.log.runs)
		require.Equal(t, before.digest, b.log.digest)
		require.Len(t, b.log.spans, len(before.spans), "seed %d", seed)
		for i, s := range b.log.spans {
			was := before.spans[i]
			require.Equal(t, []any{was.first, was.last, was.rec.first, was.rec.last, was.rec.ballot}, []any{s.first, s.last, s.rec.first, s.rec.last, s.rec.ballot})
			key := string(s.rec.key(b.keys))
			require.Equal(t, s.rec.bad, slices.ContainsFunc(gone, func(k []byte) bool { return string(k) == key }))
		}
	}
	t.Logf("%d of 400", named)
	require.Greater(t, named, 150)
}

// What is missing comes back from whoever knows it to be chosen, or has accepted it in the same ballot.
func TestRepair(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 8))
		b := newLogBuilder(t)
		b.random(r)
		want, hard := b.log, b.hard
		peer := peerOf(t, b)
		peer.held = want.last() // all of it is decided by now
		if r.IntN(3) == 0 {
			peer.held = hard.decided // or not yet
		}
		keys := b.records()
		for _, k := range keys {
			switch r.IntN(4) {
			case 0:
				b.flip(k)
			case 1:
				if peer.held == want.last() {
					b.remove(k)
				}
			}
		}
		d, err := Protocol{}.Repair(b.keys, b.store)
		require.NoError(t, err)
		_, damaged := d.Gap()
		for {
			gap, missing := d.Gap()
			if !missing {
				break
			}
			piece, err := peer.Entries(gap, 1+r.IntN(300))
			require.NoError(t, err)
			require.NotEmpty(t, piece, "seed %d: %+v", seed, gap)
			var batch storage.Batch
			first, err := d.Fill(piece, &batch)
			require.NoError(t, err)
			require.GreaterOrEqual(t, first, gap.First)
			require.NoError(t, b.store.Commit(&batch))
			if r.IntN(4) == 0 { // it is gone on with after a restart
				d, err = Protocol{}.Repair(b.keys, b.store)
				require.NoError(t, err)
			}
		}
		var batch storage.Batch
		d.Finish(&batch)
		require.NoError(t, b.store.Commit(&batch))
		_, err = Protocol{Whole: true}.Open(replica.OpenOptions{Node: 1, Keys: b.keys, Store: b.store, Start: want.start.Position, Config: want.start.config})
		require.NoError(t, err, "seed %d", seed)
		require.False(t, b.open())
		require.Equal(t, hard.promised, b.hard.promised)
		require.GreaterOrEqual(t, b.hard.last, hard.last)
		for slot := want.start.Index + 1; slot <= want.last(); slot++ {
			v, ballot := want.at(slot)
			have, now := b.log.at(slot)
			if v == nil {
				continue
			}
			require.NotNil(t, have, "slot %d", slot)
			require.Equal(t, v.data, have.data, "slot %d", slot)
			require.True(t, now == ballot || now.isChosen() && slot <= peer.held)
		}
		if !damaged {
			require.Equal(t, want.digest, b.log.digest)
		}
	}
}

// peerOf returns a core that has the same log.
func peerOf(t testing.TB, b *logBuilder) *Core {
	store := memory.Open(memory.Config{})
	from, _ := b.keys.ProtocolRange(0)
	_, to := b.keys.ProtocolRange(^byte(0) - 1)
	it, err := b.store.Scan(from, to)
	require.NoError(t, err)
	keys, values, err := storage.Collect(it)
	require.NoError(t, err)
	var batch storage.Batch
	for i := range keys {
		batch.Set(keys[i], values[i])
	}
	require.NoError(t, store.Commit(&batch))
	c, err := Protocol{Whole: true}.Open(replica.OpenOptions{Node: 2, Keys: b.keys, Store: store, Start: b.log.start.Position, Config: b.log.start.config})
	require.NoError(t, err)
	return c.(*Core)
}

// What was not there is not taken.
func TestRepairRefuses(t *testing.T) {
	b := newLogBuilder(t)
	first := b.accept(Ballot{Round: 2, Node: 1}, 2, 4)
	b.accept(Ballot{Round: 3, Node: 2}, 5, 9)
	b.decide(4)
	right := b.accept(Ballot{Round: 3, Node: 2}, 10, 12)
	b.flip((&record{first: 10, last: 12, ballot: Ballot{Round: 3, Node: 2}}).key(b.keys))
	d, err := Protocol{}.Repair(b.keys, b.store)
	require.NoError(t, err)
	gap, missing := d.Gap()
	require.True(t, missing)
	require.Equal(t, replica.Gap{First: 10, Last: 12, Term: 3}, gap)
	require.True(t, d.Unread())
	run := func(ballot Ballot, first, last uint64) []byte {
		return newLogBuilder(t).accept(ballot, first, last).bytes
	}
	var batch storage.Batch
	for name, piece := range map[string][]byte{
		"nothing":             nil,
		"altered":             append(slices.Clone(right.bytes[:len(right.bytes)-1]), 0xff),
		"another ballot":      run(Ballot{Round: 3, Node: 1}, 10, 12),
		"a higher ballot":     run(Ballot{Round: 4, Node: 1}, 10, 12),
		"not up to the end":   run(chosen(), 10, 11),
		"beyond the end":      run(chosen(), 10, 13),
		"more than is wanted": run(chosen(), 9, 12),
		"elsewhere":           first.bytes,
	} {
		_, err := d.Fill(piece, &batch)
		require.Error(t, err, name)
		require.Zero(t, batch.Len(), name)
	}
	// A part of it is taken, in the same ballot, or as chosen.
	part := encodeRun(7, right.ballot, 11, slices.Clone(right.values[1:]))
	at, err := d.Fill(part.bytes, &batch)
	require.NoError(t, err)
	require.EqualValues(t, 11, at)
	gap, missing = d.Gap()
	require.True(t, missing)
	require.Equal(t, replica.Gap{First: 10, Last: 10, Term: 3}, gap)
	at, err = d.Fill(run(chosen(), 10, 10), &batch)
	require.NoError(t, err)
	require.EqualValues(t, 10, at)
	_, missing = d.Gap()
	require.False(t, missing)
	require.False(t, d.Unread(), "the record is in effect nowhere, and goes")
	_, err = d.Fill(run(chosen(), 10, 10), &batch)
	require.Error(t, err, "nothing is missing")
	require.NoError(t, b.store.Commit(&batch))
	require.False(t, b.open())
	require.NoError(t, b.log.damage(false))
}

// A snapshot takes the place of what nobody has any more, if it covers that; what follows stays.
func TestRepairBySnapshot(t *testing.T) {
	b := newLogBuilder(t)
	for slot := uint64(2); slot <= 20; slot++ {
		b.accept(Ballot{Round: 2, Node: 1}, slot, slot)
	}
	b.decide(15)
	b.flip((&record{first: 8, last: 8, ballot: Ballot{Round: 2, Node: 1}}).key(b.keys))
	d, err := Protocol{}.Repair(b.keys, b.store)
	require.NoError(t, err)
	at := replica.Position{Index: 7, Term: 2, Leader: 1, Commands: 5}
	config := members(1, 2, 3).Append(nil)
	require.False(t, d.Fits(at))
	var batch storage.Batch
	require.Error(t, d.Begin(at, config, &batch))
	at.Index = 10
	require.True(t, d.Fits(at))
	require.Error(t, d.Begin(at, nil, &batch))
	require.Error(t, d.Begin(at, replica.Configuration{}.Append(nil), &batch))
	require.Zero(t, batch.Len())
	require.NoError(t, d.Begin(at, config, &batch))
	d.Finish(&batch)
	require.NoError(t, b.store.Commit(&batch))
	_, missing := d.Gap()
	require.False(t, missing)
	require.EqualValues(t, 10, d.Start())
	require.False(t, b.open())
	require.NoError(t, b.log.damage(false))
	require.Equal(t, at, b.log.start.Position)
	require.EqualValues(t, 11, b.log.spans[0].first)
	require.EqualValues(t, 20, b.log.last())
	require.EqualValues(t, 20, b.hard.last)
	require.EqualValues(t, 15, b.hard.decided)
}

// What nobody but the store's owner knows is not repaired.
func TestRepairNeedsItsOwnRecords(t *testing.T) {
	for _, tag := range []byte{tagHard, tagStart} {
		b := newLogBuilder(t)
		b.accept(Ballot{Round: 2, Node: 1}, 2, 4)
		b.flip(b.keys.Protocol(tag))
		_, err := Protocol{}.Repair(b.keys, b.store)
		require.ErrorIs(t, err, storage.ErrCorrupt)
		b.remove(b.keys.Protocol(tag))
		_, err = Protocol{}.Repair(b.keys, b.store)
		require.ErrorIs(t, err, storage.ErrCorrupt)
	}
}

// rejoin lets the replica leave, join again, and be told what is decided up to a slot.
func (b *logBuilder) rejoin(upTo uint64) {
	for _, step := range []func(replica.Keys, storage.Store, *storage.Batch) error{Protocol{}.Leave, Protocol{}.Join} {
		var batch storage.Batch
		require.NoError(b.t, step(b.keys, b.store, &batch))
		require.NoError(b.t, b.store.Commit(&batch))
	}
	b.open()
	var batch storage.Batch
	b.log.begin(startRecord{replica.Position{Index: upTo, Term: 2, Leader: 1}, members(1, 2, 3).Append(nil)}, &batch)
	b.hard.decided = upTo
	b.hard.last, b.hard.runs, b.hard.digest = max(b.hard.last, upTo), b.log.runs, b.log.digest
	b.write(&batch)
}

// What a replica has accepted since it joined again, in slots in which it has accepted something before that,
// may be missing like any other record. What it has forgotten does not stand for it.
func TestRepairBehindWhatWasForgotten(t *testing.T) {
	b := newLogBuilder(t)
	b.accept(Ballot{Round: 2, Node: 1}, 2, 20)
	b.rejoin(10)
	b.accept(Ballot{Round: 3, Node: 2}, 15, 15)
	b.remove((&record{first: 15, last: 15, ballot: Ballot{Round: 3, Node: 2}}).key(b.keys))
	open := func() (*Core, error) {
		c, err := Protocol{Whole: true}.Open(replica.OpenOptions{Node: 1, Keys: b.keys, Store: b.store,
			Start: replica.Position{Index: 10, Term: 2, Leader: 1}, Config: members(1, 2, 3).Append(nil)})
		if err != nil {
			return nil, err
		}
		return c.(*Core), nil
	}
	_, err := open()
	require.ErrorIs(t, err, storage.ErrCorrupt)

	d, err := Protocol{}.Repair(b.keys, b.store)
	require.NoError(t, err)
	gap, missing := d.Gap()
	if !missing { // as the runtime does it
		var batch storage.Batch
		d.Finish(&batch)
		require.NoError(t, b.store.Commit(&batch))
		c, err := open()
		require.NoError(t, err)
		piece := c.piece(Ballot{Round: 4, Node: 3}, 11)
		t.Fatalf("it has accepted something in ballot 3.2, and promises: %v", piece)
	}
	require.Equal(t, replica.Gap{First: 11, Last: 20}, replica.Gap{First: gap.First, Last: gap.Last})
	var batch storage.Batch
	_, err = d.Fill(newLogBuilder(t).accept(chosen(), 11, 20).bytes, &batch)
	require.NoError(t, err)
	require.NoError(t, b.store.Commit(&batch))
	_, err = open()
	require.NoError(t, err)
}
