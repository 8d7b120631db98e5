package grouptest

import (
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
)

func testLearner(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{spare: 1})
	c.writes(1, 1, 3)
	m := c.join(4)
	c.setMembers(append(voters(1, 2, 3), synod.Member{Node: 4, Learner: true}))
	require.Equal(t, []uint64{4}, c.leader(1).group(1).Status().Learners)
	index := c.write(1)
	require.NoError(t, m.group(1).Barrier(c.ctx))
	require.NoError(t, m.machine(1).await(c.ctx, index))
	_, err := m.group(1).Propose(c.ctx, []byte("x"))
	require.ErrorAs(t, err, new(*synod.NotLeaderError))
	require.ErrorIs(t, c.leader(1).group(1).TransferLeader(c.ctx, 4), replica.ErrTransfer)
	c.check(1)
	// With two of the three voters gone, the learner makes no majority.
	l := c.leader(1)
	for _, m := range c.others(l) {
		if m.id != 4 {
			c.crash(m.id)
		}
	}
	_, err = c.proposeOnce(l)
	require.Error(t, err)
	for id := range uint64(3) {
		if c.member(id+1) == nil {
			c.restart(id + 1)
		}
	}
	// A voter may become a learner, also the leader.
	l = c.leader(1)
	var members []synod.Member
	for id := uint64(1); id <= 4; id++ {
		members = append(members, synod.Member{Node: id, Learner: id == l.id})
	}
	c.setMembers(members)
	c.eventually("the leader has become a learner", func() bool {
		s := c.leader(1).group(1).Status()
		return slices.Equal(s.Learners, []uint64{l.id}) && len(s.Members) == 3
	})
	require.NoError(t, l.group(1).Barrier(c.ctx))
	c.check(1)
}

func testAddresses(t *testing.T, engine Engine) {
	var mu sync.Mutex
	told := make(map[uint64]map[uint64]string)
	c := newCluster(t, engine, options{spare: 1, stopped: true})
	for id := uint64(1); id <= 4; id++ {
		told[id] = make(map[uint64]string)
	}
	c.options.config = func(cfg *replica.Settings) {
		mine := told[cfg.Node]
		cfg.SetAddress = func(node uint64, address string) {
			mu.Lock()
			defer mu.Unlock()
			mine[node] = address
		}
	}
	for id := uint64(1); id <= 3; id++ {
		c.start(id)
	}
	c.writes(1, 1, 3)
	c.join(4)
	members := []synod.Member{{Node: 1, Address: "one:1"}, {Node: 2}, {Node: 3, Address: "three:3"}, {Node: 4, Address: "four:4", Learner: true}}
	c.setMembers(members)
	want := func(node uint64) map[uint64]string {
		all := map[uint64]string{1: "one:1", 3: "three:3", 4: "four:4"}
		delete(all, node)
		return all
	}
	for id := uint64(1); id <= 4; id++ {
		c.eventually("addresses are known", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(told[id]) == len(want(id))
		})
		mu.Lock()
		require.Equal(t, want(id), told[id])
		mu.Unlock()
	}
	members[2].Address = "elsewhere:3"
	c.setMembers(members)
	c.eventually("a new address is known", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return told[1][3] == "elsewhere:3" && told[4][3] == "elsewhere:3"
	})
	s := c.leader(1).group(1).Status()
	require.Equal(t, "elsewhere:3", s.Configuration[2].Address)
	// They are known again after a start, before anybody has said anything.
	c.stop(1)
	mu.Lock()
	clear(told[1])
	mu.Unlock()
	c.restart(1)
	c.check(1)
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, "elsewhere:3", told[1][3])
}

func testUnknownAddresses(t *testing.T, engine Engine) {
	// Node 4 sends nothing to a node whose address it was not told, as a transport of machines would.
	var mu sync.Mutex
	told := make(map[uint64]bool)
	c := newCluster(t, engine, options{spare: 1, group: compacting})
	c.network.setRule(func(p packet) fate {
		mu.Lock()
		defer mu.Unlock()
		if p.from == 4 && !told[p.to] {
			return fate{drop: true}
		}
		return fate{}
	})
	c.setMembers([]synod.Member{{Node: 1, Address: "one:1"}, {Node: 2, Address: "two:2"}, {Node: 3, Address: "three:3"}})
	c.writes(1, 2, 20)
	c.options.config = func(cfg *replica.Settings) {
		cfg.SetAddress = func(node uint64, _ string) {
			mu.Lock()
			defer mu.Unlock()
			told[node] = true
		}
	}
	m := c.join(4)
	members := c.leader(1).group(1).Status().Configuration
	c.setMembers(append(members, synod.Member{Node: 4, Address: "four:4"}))
	m.awaitMembers(1, 2, 3, 4)
	c.check(1)
}
