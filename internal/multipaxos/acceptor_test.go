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

// What is decided may be applied, and the log cut, before its records are durable. What was cut
// off is acknowledged when the cut is durable: a crash brings the log back as it was before.
func TestCutLogIsAcknowledgedWhenDurable(t *testing.T) {
	c := newCluster(t, Protocol{}, 3, 0)
	c.start()
	leader := c.elect()
	slow := c.nodes[leader.id%3+1]
	run := func() {
		for range 20 {
			for range len(c.network) {
				c.deliver(0, false)
			}
			for _, id := range c.order {
				if id != slow.id {
					c.nodes[id].persist()
				}
			}
		}
	}
	require.Empty(t, slow.queue) // nothing is stored there from here on
	durable := slow.applied.Index
	for _, v := range []string{"a", "b", "c"} {
		require.NoError(t, leader.propose(v))
		run()
	}
	require.Equal(t, durable+3, slow.applied.Index)
	q := queued{}
	slow.core.Compact(slow.applied, slow.config, &q.batch)
	slow.queue = append(slow.queue, q)
	slow.ready()
	for range 3 {
		c.tick(leader.id)
		run()
	}
	require.Equal(t, durable, leader.core.peer(slow.id).match)
	slow.crash()
	slow.open()
	for range 5 {
		c.tick()
		c.settle()
	}
	require.Equal(t, leader.applied, slow.applied)
	require.Equal(t, slow.applied.Index, leader.core.peer(slow.id).match)
}
