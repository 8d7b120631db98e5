package multipaxos

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/replica"
)

// take delivers the first message of a kind from one node to another.
func (c *cluster) take(from, to uint64, kind messageKind) {
	i := slices.IndexFunc(c.network, func(p packet) bool {
		return p.from == from && p.to == to && messageKind(p.body[0]) == kind
	})
	require.GreaterOrEqual(c.t, i, 0, "no %v from %d to %d", kind, from, to)
	c.deliver(i, false)
}

func (n *node) persistAll() {
	for n.persist() {
	}
}

// A state machine that keeps its state on disk may be ahead of the log after a crash. What the log has in the
// slots that only the state machine knows may never have been chosen, and is not taken for it, also not after
// the next crash.
func TestStateMachineAheadOfLog(t *testing.T) {
	c := newCluster(t, Protocol{}, 3, 0)
	c.start()
	one, two, three := c.nodes[1], c.nodes[2], c.nodes[3]
	two.core.Campaign()
	two.ready()
	c.settle()

	// Node 2 proposes x in slot 3. Nobody gets it. Nodes 1 and 3 decide something else there.
	require.NoError(t, two.propose("x"))
	two.persistAll()
	c.network = nil
	three.core.Campaign()
	three.ready()
	three.persistAll()
	c.take(3, 1, kindPrepare)
	one.persistAll()
	c.take(1, 3, kindPromise)
	three.persistAll()
	c.take(3, 1, kindAccept)
	one.persistAll()
	c.take(1, 3, kindAccepted)

	// Node 2 learns that, applies it, and crashes before it has stored it.
	c.take(3, 2, kindAccept)
	c.take(3, 2, kindHeartbeat)
	c.take(3, 2, kindHeartbeat)
	require.EqualValues(t, 3, two.applied.Index)
	for range 2 {
		two.kept = replica.SnapshotMeta{Position: two.applied, Config: two.config, Held: two.applied.Commands}
		two.crash()
		two.open()
		two.persistAll()
		require.EqualValues(t, 3, two.core.held)
		two.core.Campaign()
		two.ready()
		two.persistAll()
		c.network = c.network[:0]
	}

	// It leads, and brings node 1, which does not know slot 3 to be decided, what it has.
	two.crash()
	two.open()
	two.core.Campaign()
	two.ready()
	two.persistAll()
	c.take(2, 3, kindPrepare)
	three.persistAll()
	c.take(3, 2, kindPromise)
	c.cut[[2]uint64{2, 3}], c.cut[[2]uint64{3, 2}] = true, true
	c.settle()
	c.tick(2)
	c.settle()
	require.Equal(t, "0:", c.chosen[3])
}
