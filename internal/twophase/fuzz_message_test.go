package twophase_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	. "github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/internal/twophase/commitmenttest"
)

func sampleMessage() Message {
	return Message{Kind: KindPrepare, ID: ID{1, 2, 3}, Resource: "orders", Floor: 2, Vote: VoteYes, Outcome: OutcomeAborted, Knowledge: Lost, Damage: Forgotten,
		Peer: "stock", Branches: []Branch{{Node: 4, Resource: "a"}, {Node: 5, Resource: "b", LastAgent: true}}, Work: []byte("work"), MayLeave: true, Fixed: true, Only: true, Reason: "no"}
}

func TestMessagesAreWhatTheyWere(t *testing.T) {
	commitmenttest.RequireWhole(t, sampleMessage(), AppendMessage, DecodeMessage, ErrMalformed)
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
		w.Open()
		c := w.Nodes[1].Core
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
