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
