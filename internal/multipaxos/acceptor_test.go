package multipaxos

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A replica that has joined a group and was told nothing of it yet is no voter there. If it was one before it
// lost its disk, somebody may count on what it has promised then, and take its answer for that.
func TestJoinedReplicaPromisesNothing(t *testing.T) {
	c := newCluster(t, Protocol{}, 3, 1)
	c.start()
	n, b := c.nodes[4], Ballot{5, 0, 1}
	m := message{kind: kindPrepare, ballot: b, from: 1}
	require.NoError(t, n.core.Step(1, m.append(nil), 0))
	n.ready()
	for n.persist() {
	}
	require.Empty(t, c.network)
	require.True(t, n.core.promised.Less(b))
}
