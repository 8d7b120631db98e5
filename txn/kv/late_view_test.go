package kv

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/paxoscommit"
)

// TestAViewSeesACommitAboveItsTimestamp: a transaction had been committed when the view began, by votes that no group had heard the outcome of; its
// timestamp is above what the view reads as of, and the outcome comes in the middle.
func TestAViewSeesACommitAboveItsTimestamp(t *testing.T) {
	withAndWithout(t, "kv: a view misses a commit above its timestamp", func() bool {
		db, logs := openSolo(t, 2, 0, nil)
		id := paxoscommit.ID{Session: paxoscommit.Session{Opened: db.now(), Random: 1}, Counter: 1}
		var highest uint64
		for g, key := range []string{"x0", "y1"} {
			p := prepare{id: id, floor: 1, age: 1, now: db.now() + uint64(g)<<40, groups: []uint32{0, 1}, writes: []write{{key: key, value: []byte("new")}}}
			a := logs[g].machine.state.apply(appendPrepare(nil, &p))
			require.Equal(t, paxoscommit.Yes, a.record.Vote)
			highest = max(highest, a.record.Timestamp)
		}
		x := ""
		require.NoError(t, db.View(t.Context(), func(tx *Tx) error {
			get(t, tx, "z0")
			for g := range logs {
				_, err := logs[g].Propose(t.Context(), appendResolve(nil, paxoscommit.Session{}, 0, 0, []resolution{{id, paxoscommit.Committed, highest, []uint32{0, 1}}}))
				require.NoError(t, err)
			}
			x = get(t, tx, "x0")
			return nil
		}))
		return x == "new"
	})
}

// TestATombstoneThatIsCollectedChangesNoAnswer: replicas may have collected a key that was deleted, or not yet; deleting it again is nothing for
// both.
func TestATombstoneThatIsCollectedChangesNoAnswer(t *testing.T) {
	id := func(n uint64) paxoscommit.ID {
		return paxoscommit.ID{Session: paxoscommit.Session{Opened: 1, Random: n}, Counter: 1}
	}
	var answers []answer
	for _, collected := range []bool{false, true} {
		s := newState()
		s.prepare(&prepare{id: id(1), floor: 1, now: 10, groups: []uint32{0}, writes: []write{{key: "x", value: []byte("1")}}})
		s.prepare(&prepare{id: id(2), floor: 1, now: 20, groups: []uint32{0}, writes: []write{{key: "x", deleted: true}}})
		if collected {
			s.collect(20)
		}
		s.prepare(&prepare{id: id(3), floor: 1, now: 40, groups: []uint32{0}, writes: []write{{key: "x", deleted: true}}})
		answers = append(answers, s.prepare(&prepare{id: id(4), floor: 1, now: 50, readAt: 30, groups: []uint32{0}, reads: []string{"x"}, writes: []write{{key: "y"}}}))
	}
	require.Equal(t, answers[0], answers[1])
}
