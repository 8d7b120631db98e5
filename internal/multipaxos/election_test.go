package multipaxos

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Where the quorums of phase 1 are small, many a node can become the leader that does not reach enough others
// to decide anything. It leaves the office to one that does.
func TestWhoCouldNotDecideDoesNotLead(t *testing.T) {
	c := newCluster(t, Protocol{Quorums: Quorums{Phase1: 2, Phase2: 4}}, 5, 0)
	c.start()
	c.elect()
	const hub = 4
	for _, a := range c.order {
		for _, b := range c.order {
			c.cut[[2]uint64{a, b}] = a != hub && b != hub
		}
	}
	before := make(map[uint64]Ballot)
	for _, id := range c.order {
		before[id] = c.nodes[id].core.ballot
	}
	for range 100 {
		c.settle()
		c.tick()
	}
	for _, id := range c.order {
		if id != hub {
			require.Equal(t, before[id], c.nodes[id].core.ballot, "node %d has stood for election", id)
		}
	}
	require.True(t, c.nodes[hub].leading)
	require.NoError(t, c.nodes[hub].propose("a"))
	c.settle()
	require.Contains(t, mapValues(c.chosen), "1:a")
}
