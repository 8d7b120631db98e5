package threephase

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/internal/twophase/commitmenttest"
	"github.com/synod-go/synod/storage"
)

func sampleMessage() Message {
	list := on(4, 5)
	list[1].Weight = 7
	return Message{Kind: KindState, ID: ID{Node: 1, Incarnation: 2, Counter: 3}, Resource: "orders", Floor: 7, Ballot: Ballot{3, 2}, Vote: twophase.VoteYes, Outcome: aborted, Early: true,
		Knowledge: twophase.Lost, State: StatePreAborted, Elected: Ballot{5, 1}, Attempt: Ballot{4, 0}, Recovered: true, Damage: twophase.Forgotten,
		Participants: list, Work: []byte("work"), MayLeave: true, Reason: "no"}
}

func TestMessagesAreWhatTheyWere(t *testing.T) {
	commitmenttest.RequireWhole(t, sampleMessage(), AppendMessage, DecodeMessage, ErrMalformed)
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add(AppendMessage(nil, sampleMessage()))
	f.Add(AppendMessage(nil, Message{Kind: KindElect, ID: ID{Node: 1, Incarnation: 7, Counter: 3}, Resource: "a", Ballot: Ballot{2, 2}, Participants: on(1, 2)}))
	f.Add(AppendMessage(nil, Message{Kind: KindOutcome, ID: ID{Node: 2, Incarnation: 14, Counter: 3}, Resource: "a", Outcome: aborted}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMessage(b)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		again, err := DecodeMessage(AppendMessage(nil, m))
		require.NoError(t, err)
		require.Equal(t, m, again)
		_ = m.String()

		// Whatever it says, it does no harm.
		w := newWorld(2, Enhanced)
		w.Open()
		w.Begin(1, on(1, 2)...)
		c := w.Nodes[1].Core
		for _, from := range []uint64{1, 2} {
			m.From, m.To = from, 1
			c.Step(m)
			c.Clone().Fingerprint(nil, false)
			for range 30 {
				c.Tick()
				if r := c.Ready(); r.Batch != nil {
					DescribeBatch(r.Batch)
					c.Persisted(r.Token)
				}
			}
		}
		c.InDoubt()
		c.Transactions()
		c.Unfinished()
	})
}

// What a store has in it may be anything, behind a good checksum: a core does not start from what it can't read, and
// never panics.
func FuzzLoad(f *testing.F) {
	id := ID{Node: 1, Incarnation: 7, Counter: 9}
	e := &entry{key: key{id, "a"}, state: StatePreCommitted, vote: twophase.VoteYes, elected: Ballot{2, 1}, attempt: base, since: 5, parts: on(1, 2)}
	f.Add(branchKey(TagBranch, e.key), encodeBranch(e))
	f.Add(branchKey(TagFinished, e.key), []byte{1, 0})
	f.Add(horizonKey(origin{2, 14}), []byte{1})
	f.Add(damageKey(Report{ID: id, Node: 4, Resource: "a"}), []byte{1})
	f.Fuzz(func(t *testing.T, k, payload []byte) {
		if len(k) == 0 {
			return
		}
		cfg := newWorld(1, Enhanced).cfg
		cfg.Node, cfg.Resources = 1, []string{"a"}
		c := New(cfg)
		if err := c.Load([][]byte{k}, [][]byte{storage.AppendRecord(nil, k, payload)}); err != nil {
			require.ErrorIs(t, err, storage.ErrCorrupt)
			return
		}
		for range 60 {
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
