package txn

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/twophase"
)

func FuzzOpenFrame(f *testing.F) {
	b := beginFrame(address{TwoPhase, 1, 2, 3, 4})
	b = appendBody(b, twophase.AppendMessage(nil, twophase.Message{Kind: twophase.KindVote, ID: twophase.ID{Node: 1, Incarnation: 2, Counter: 3}, Resource: "a"}))
	f.Add(sealFrame(appendBody(b, twophase.AppendMessage(nil, twophase.Message{Kind: twophase.KindAck}))))
	f.Add(sealFrame(beginFrame(address{EnhancedThreePhase, 1, 2, 3, 4})))
	f.Fuzz(func(t *testing.T, b []byte) {
		for range 2 {
			a, messages, err := openFrame(b)
			if err == nil {
				again := beginFrame(a)
				for _, m := range messages {
					again = appendBody(again, m)
				}
				_, list, err := openFrame(sealFrame(again))
				require.NoError(t, err)
				require.Equal(t, messages, list)
			}
			if len(b) < 4 {
				return
			}
			b = sealFrame(append([]byte(nil), b...)) // past the checksum
		}
	})
}

func FuzzProgress(f *testing.F) {
	f.Add(appendProgress(nil, Progress{Node: 1, Incarnation: 2, Upcoming: 9, Open: []uint64{3, 5}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodeProgress(b)
		if err != nil {
			return
		}
		again, err := decodeProgress(appendProgress(nil, p))
		require.NoError(t, err)
		require.Equal(t, p, again)
	})
}

func FuzzDecisionMachine(f *testing.F) {
	f.Add([]byte("d"), []byte{0, 0})
	f.Add(append([]byte("d"), appendDecision(nil, Decision{ID: ID{1, 2, 3}, Outcome: Committed})...), []byte{0, 0})
	f.Add(append([]byte("r"), appendProgress(nil, Progress{Node: 1, Incarnation: 2, Upcoming: 9, Open: []uint64{3, 5}})...), []byte{1})
	f.Fuzz(func(t *testing.T, command, snapshot []byte) {
		m := new(DecisionMachine)
		if m.Restore(strings.NewReader(string(snapshot))) != nil {
			m = new(DecisionMachine)
		}
		m.Apply(1, command)
		image, err := m.Snapshot()
		require.NoError(t, err)
		var text strings.Builder
		_, err = image.WriteTo(&text)
		require.NoError(t, err)
		require.NoError(t, new(DecisionMachine).Restore(strings.NewReader(text.String())))
	})
}

func FuzzParseID(f *testing.F) {
	f.Add("1.2a.3")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil {
			require.Equal(t, s, id.String())
		}
	})
}
