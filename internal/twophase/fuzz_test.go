package twophase

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
)

// What a store has in it may be anything, behind a good checksum: a core does not start from what it can't read, and
// never panics.
func FuzzLoad(f *testing.F) {
	e := &entry{key: key{ID{1, 7, 9}, "a"}, stage: stagePrepared, since: 5, peers: []Branch{{Node: 2, Resource: "a"}, {Node: 3, Resource: "a"}}}
	f.Add(branchKey(TagBranch, e.key), encodeBranch(e))
	f.Add(branchKey(TagFinished, e.key), []byte{1, 0})
	f.Add(horizonKey(origin{2, 14}), []byte{1, 2, 3})
	f.Add(delegatedKey(ID{1, 7, 5}), AppendDecision(nil, Decision{ID: ID{1, 7, 5}, Outcome: OutcomeCommitted, Branches: []Branch{{Node: 2, Resource: "a", LastAgent: true}}}))
	f.Add(damageKey(Report{ID: ID{1, 2, 3}, Node: 4, Resource: "a"}), []byte{1})
	f.Fuzz(func(t *testing.T, k, payload []byte) {
		if len(k) == 0 {
			return
		}
		c := New(Config{Node: 1, Incarnation: 7, Base: 100, OnePhase: map[string]bool{"a": true}, PrepareTicks: 12, ResendTicks: 3, InquireTicks: 4, PeerTicks: 8,
			MaxTransactions: 50, MaxBranches: 50, MaxParticipants: 10, MaxFinished: 1000})
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
