package twophase

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
)

func sampleMessage() Message {
	return Message{Kind: KindPrepare, ID: ID{1, 2, 3}, Resource: "orders", Floor: 2, Vote: VoteYes, Outcome: OutcomeAborted, Knowledge: Lost, Damage: Forgotten,
		Peer: "stock", Branches: []Branch{{Node: 4, Resource: "a"}, {Node: 5, Resource: "b", LastAgent: true}}, Work: []byte("work"), MayLeave: true, Fixed: true, Only: true, Reason: "no"}
}

func TestMessagesAreWhatTheyWere(t *testing.T) {
	m := sampleMessage()
	b := AppendMessage(nil, m)
	got, err := DecodeMessage(b)
	require.NoError(t, err)
	require.Equal(t, m, got)
	for i := range b {
		_, err := DecodeMessage(b[:i])
		require.ErrorIs(t, err, ErrMalformed, i)
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add(AppendMessage(nil, sampleMessage()))
	f.Add(AppendMessage(nil, Message{Kind: KindAck, ID: ID{1, 2, 3}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMessage(b)
		if err != nil {
			return
		}
		again, err := DecodeMessage(AppendMessage(nil, m))
		require.NoError(t, err)
		require.Equal(t, m, again)
		_ = m.String()

		// Whatever it says, it does no harm.
		w := newWorld(2, false, false)
		w.open()
		c := w.nodes[1].core
		for _, from := range []uint64{1, 2} {
			m.From, m.To = from, 1
			c.Step(m)
			c.Ready()
			c.Tick()
			c.Ready()
		}
	})
}

func FuzzDecodeDecision(f *testing.F) {
	f.Add(AppendDecision(nil, Decision{ID: ID{1, 2, 3}, Outcome: OutcomeCommitted, Branches: branchesOf(2, 3)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := DecodeDecision(b)
		if err != nil {
			return
		}
		again, err := DecodeDecision(AppendDecision(nil, d))
		require.NoError(t, err)
		require.Equal(t, d, again)
	})
}

// What a store has in it may be anything, behind a good checksum: a core does not start from what it can't read, and
// never panics.
func FuzzLoad(f *testing.F) {
	e := &entry{key: key{ID{1, 7, 9}, "a"}, stage: stagePrepared, since: 5, peers: branchesOf(2, 3)}
	f.Add(branchKey(TagBranch, e.key), encodeBranch(e))
	f.Add(branchKey(TagFinished, e.key), []byte{1, 0})
	f.Add(horizonKey(origin{2, 14}), []byte{1, 2, 3})
	f.Add(delegatedKey(ID{1, 7, 5}), AppendDecision(nil, Decision{ID: ID{1, 7, 5}, Outcome: OutcomeCommitted, Branches: []Branch{{Node: 2, Resource: "a", LastAgent: true}}}))
	f.Add(damageKey(Report{ID: ID{1, 2, 3}, Node: 4, Resource: "a"}), []byte{1})
	f.Fuzz(func(t *testing.T, k, payload []byte) {
		if len(k) == 0 {
			return
		}
		w := newWorld(1, false, false)
		cfg := w.cfg
		cfg.Node, cfg.OnePhase = 1, map[string]bool{"a": true}
		c := New(cfg)
		Delegated(1, 7, [][]byte{k})
		if err := c.Load([][]byte{k}, [][]byte{storage.AppendRecord(nil, k, payload)}, nil); err != nil {
			require.ErrorIs(t, err, storage.ErrCorrupt)
			return
		}
		for range 20 {
			c.Tick()
			r := c.Ready()
			if r.Batch != nil {
				DescribeBatch(r.Batch)
				c.Persisted(r.Token)
			}
		}
		c.InDoubt()
		c.Transactions()
	})
}
