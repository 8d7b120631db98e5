package multipaxos

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

// A state machine that stands still does not let what is decided meanwhile pile up in memory. It gets all of it
// when it goes on.
func TestStalledStateMachine(t *testing.T) {
	keys, store := replica.GroupKeys(7), memory.Open(memory.Config{})
	var batch storage.Batch
	require.NoError(t, Protocol{}.Bootstrap(keys, members(1, 2, 3).Append(nil), &batch))
	require.NoError(t, store.Commit(&batch))
	const cache, size, slots = 50_000, 1000, 2000
	opened, err := Protocol{}.Open(replica.OpenOptions{Node: 2, Keys: keys, Store: store, Start: bootPosition, Config: members(1, 2, 3).Append(nil),
		ElectionTicks: 10, HeartbeatTicks: 1, MessageBytes: 10_000, InflightBytes: 100_000, PendingBytes: 100_000, ApplyBytes: 10_000, CacheBytes: cache})
	require.NoError(t, err)
	c := opened.(*Core)
	next := uint64(2)
	ready := func() {
		for {
			var out replica.Output
			var b storage.Batch
			out.Batch = &b
			if !c.Ready(&out) {
				return
			}
			for _, e := range out.Committed {
				require.Equal(t, next, e.Index)
				require.Equal(t, byte(next), e.Data[0])
				next++
			}
			require.NoError(t, store.Commit(&b))
			if out.Token != 0 {
				c.Persisted(out.Token)
			}
		}
	}
	ballot := Ballot{Round: 2, Node: 1}
	for slot := uint64(2); slot < 2+slots; slot++ {
		r := encodeRun(7, ballot, slot, []value{{origin: ballot, kind: valueCommand, data: bytes.Repeat([]byte{byte(slot)}, size)}})
		m := message{kind: kindAccept, ballot: ballot, number: 1, decided: slot - 1}
		require.NoError(t, c.Step(1, append(m.append(nil), r.bytes...), 0))
		ready()
		require.Less(t, c.log.bytes, 2*cache, "slot %d, and %d are handed out", slot, next-2)
	}
	require.Less(t, next, uint64(20))
	for before := uint64(0); next > before; {
		before = next
		c.Applied(next - 1)
		ready()
	}
	require.EqualValues(t, 1+slots, next)
}
