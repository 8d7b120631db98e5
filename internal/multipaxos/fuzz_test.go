package multipaxos

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

// FuzzDecodeMessage: whatever arrives is refused or understood, and what is understood is
// encoded to what is understood in the same way.
func FuzzDecodeMessage(f *testing.F) {
	c := newCluster(f, Protocol{}, 3, 0)
	c.start()
	for range 30 {
		c.tick()
		for _, p := range c.network {
			f.Add(p.from, p.body)
		}
		if l := c.leader(); l != nil {
			_ = l.propose("a command")
			l.read()
		}
		c.settle()
	}
	f.Fuzz(func(t *testing.T, from uint64, b []byte) {
		m, err := decodeMessage(7, from, b)
		if err != nil {
			require.ErrorIs(t, err, errMessage)
			return
		}
		again := m.append(nil)
		if m.kind.fields()&hasRun != 0 {
			for _, r := range m.runs {
				again = append(again, r.bytes...)
			}
		}
		o, err := decodeMessage(7, from, again)
		require.NoError(t, err)
		require.Equal(t, m.String(), o.String())
	})
}

// FuzzOpenRun: a run that is taken is encoded to the same values.
func FuzzOpenRun(f *testing.F) {
	b := Ballot{3, 1, 2}
	f.Add(appendRun(nil, 7, b, 5, []value{{origin: b, kind: valueCommand, data: []byte("a")}, {origin: Ballot{2, 0, 1}, kind: valueFence}}))
	f.Add(appendRun(nil, 7, chosen(), 1, []value{{origin: b, kind: valueGap}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4 { // or nearly nothing gets past the checksum
			sum := replica.Checksum(b[4:])
			b[0], b[1], b[2], b[3] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		}
		r, err := openRun(7, b)
		if err != nil {
			require.ErrorIs(t, err, storage.ErrCorrupt)
			return
		}
		again := encodeRun(7, r.ballot, r.first, r.values)
		require.Equal(t, r.hashes(), again.hashes())
		require.LessOrEqual(t, len(r.values)*minValueBytes, len(b))
	})
}

// FuzzOpenLog: whatever stands in the records, a core opens or says what is corrupt.
func FuzzOpenLog(f *testing.F) {
	keys := replica.GroupKeys(7)
	var start, hard []byte
	{
		var b storage.Batch
		require.NoError(f, Protocol{}.Bootstrap(keys, members(1, 2, 3).Append(nil), &b))
		for _, op := range b.Ops() {
			payload, err := storage.OpenRecord(op.Key, op.Value)
			require.NoError(f, err)
			if string(op.Key) == string(keys.Protocol(tagStart)) {
				start = payload
			} else {
				hard = payload
			}
		}
	}
	rec := &record{first: 2, last: 2, ballot: Ballot{2, 0, 1}}
	f.Add(start, hard, rec.key(keys)[11:], appendRun(nil, 7, rec.ballot, 2, []value{{origin: rec.ballot, kind: valueFence}}))
	f.Fuzz(func(t *testing.T, start, hard, key, run []byte) {
		store := memory.Open(memory.Config{})
		var b storage.Batch
		startKey, hardKey := keys.Protocol(tagStart), keys.Protocol(tagHard)
		b.Set(startKey, storage.AppendRecord(nil, startKey, start))
		b.Set(hardKey, storage.AppendRecord(nil, hardKey, hard))
		b.Set(append(keys.Protocol(tagRun), key...), run)
		require.NoError(t, store.Commit(&b))
		at, config, err := Protocol{}.Start(keys, store)
		if err != nil {
			require.ErrorIs(t, err, storage.ErrCorrupt)
			return
		}
		core, err := Protocol{}.Open(replica.OpenOptions{Node: 1, Keys: keys, Store: store, Start: at, Config: config, ElectionTicks: 10,
			HeartbeatTicks: 1, MessageBytes: 1000, InflightBytes: 1000, PendingBytes: 1000, ApplyBytes: 1000})
		if err != nil {
			if !errors.As(err, new(*synod.ConfigError)) { // other quorums
				require.ErrorIs(t, err, storage.ErrCorrupt)
			}
			return
		}
		var out replica.Output
		out.Batch = &b
		core.Tick()
		core.Ready(&out)
	})
}
