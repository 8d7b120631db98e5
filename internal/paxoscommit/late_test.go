package paxoscommit

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAVoteThatComesLateDoesNotUndoWhatIsKnown: a group has taken in the outcome before the answer to an earlier request arrives.
func TestAVoteThatComesLateDoesNotUndoWhatIsKnown(t *testing.T) {
	c := NewCoordinator(ID{Counter: 1}, []uint32{0, 1, 2})
	c.Voted(0, Record{Vote: No, Outcome: Aborted}, Voted)
	require.Equal(t, Resolve, c.Step(1))
	c.Resolved(1)
	c.Voted(1, Record{Vote: Yes, Timestamp: 7}, Voted)
	require.Equal(t, Nothing, c.Step(1))
	c.Resolved(2)
	require.True(t, c.Done())
}

// TestWhatIsAbortedIsNotCommitted: a group has voted yes and has been told of an abort, by somebody who knew that another one would never
// vote. Whatever that one says later, the outcome stands.
func TestWhatIsAbortedIsNotCommitted(t *testing.T) {
	for _, groups := range [][2]uint32{{0, 1}, {1, 0}} {
		c := NewRecoverer(ID{Counter: 1}, []uint32{0, 1})
		c.Voted(groups[0], Record{Vote: Yes, Timestamp: 3, Outcome: Aborted}, Voted)
		c.Voted(groups[1], Record{Vote: Yes, Timestamp: 7}, Voted)
		outcome, _ := c.Outcome()
		require.Equal(t, Aborted, outcome)
		require.Equal(t, Resolve, c.Step(groups[1]))
	}
}

// TestWhoComesLateContradictsNobody: somebody comes across a transaction that is over, and finds it forgotten in one group. He takes it for
// aborted, and the other group, which remembers the commit, makes nothing of that. Nor does it of a commit that is repeated; but one of what was
// aborted is wrong.
func TestWhoComesLateContradictsNobody(t *testing.T) {
	id := func(n uint64) ID { return ID{Session{5, 1}, n} }
	groups := []uint32{0, 1}
	r := NewRegisters()
	r.Write(id(1), Record{Vote: Yes, Timestamp: 3, Groups: groups}, 1)
	r.Resolve(id(1), Committed, 7, groups, 1)
	r.Resolve(id(2), Aborted, 0, groups, 1)

	c := NewRecoverer(id(1), groups)
	c.Voted(0, Record{}, Over)
	require.Equal(t, Resolve, c.Step(1))
	outcome, _ := c.Outcome()
	_, isNew, wrong := r.Resolve(id(1), outcome, 0, groups, 1)
	require.False(t, isNew)
	require.False(t, wrong)
	_, isNew, wrong = r.Resolve(id(1), Committed, 7, groups, 1)
	require.False(t, isNew)
	require.False(t, wrong)
	_, isNew, wrong = r.Resolve(id(2), Committed, 7, groups, 1)
	require.False(t, isNew)
	require.True(t, wrong)
	record, _ := r.Look(id(1))
	require.Equal(t, Record{Vote: Yes, Timestamp: 7, Groups: groups, Outcome: Committed}, record)
}
