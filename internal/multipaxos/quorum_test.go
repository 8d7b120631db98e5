package multipaxos

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

// configError checks that an error names the field at fault.
func configError(t *testing.T, err error, contains string) {
	t.Helper()
	var wrong *synod.ConfigError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "Quorums", wrong.Field)
	require.Equal(t, "paxos", wrong.Package)
	require.Contains(t, wrong.Reason, contains)
}

func TestQuorumsAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		quorums Quorums
		want    string
	}{
		"below 0":        {Quorums{Phase1: -1}, "above 0"},
		"one phase":      {Quorums{Sets1: [][]uint64{{1}}}, "one phase only"},
		"both":           {Quorums{Phase1: 2, Sets1: [][]uint64{{1}}, Sets2: [][]uint64{{1}}}, "one of them decides"},
		"an empty set":   {Quorums{Sets1: [][]uint64{{}}, Sets2: [][]uint64{{1}}}, "at least one voter"},
		"node 0":         {Quorums{Sets1: [][]uint64{{0}}, Sets2: [][]uint64{{0}}}, "node 0"},
		"a node twice":   {Quorums{Sets1: [][]uint64{{1, 1}}, Sets2: [][]uint64{{1}}}, "a node twice"},
		"nothing common": {Quorums{Sets1: [][]uint64{{1, 2}, {3, 4}}, Sets2: [][]uint64{{2, 3}, {1, 2}}}, "no node in common"},
	} {
		t.Run(name, func(t *testing.T) { configError(t, c.quorums.Check("paxos"), c.want) })
	}
	require.NoError(t, Quorums{}.Check("paxos"))
	require.NoError(t, Quorums{Sets1: [][]uint64{{1, 2}, {3, 4}}, Sets2: [][]uint64{{1, 3}, {2, 4}}}.Check("paxos"), "a grid")
}

// quorumsOf returns how many nodes, the lowest first, a majority of the phases needs.
func quorumsOf(e electorate) (phase1, phase2 int) {
	for mask := uint64(0); !e.phase1(mask); mask = mask<<1 | 1 {
		phase1++
	}
	for mask := uint64(0); !e.phase2(mask); mask = mask<<1 | 1 {
		phase2++
	}
	return phase1, phase2
}

func TestQuorumsOfElectorates(t *testing.T) {
	for _, c := range []struct {
		quorums        Quorums
		voters         []uint64
		phase1, phase2 int
	}{
		{Quorums{}, []uint64{1}, 1, 1},
		{Quorums{}, []uint64{1, 2, 3, 4}, 3, 3},
		{Quorums{Phase2: 2}, []uint64{1, 2, 3, 4, 5}, 4, 2},
		{Quorums{Phase2: 2}, []uint64{1, 2}, 1, 2},
		{Quorums{Phase2: 2}, []uint64{1}, 1, 1}, // all there are
		{Quorums{Phase1: 2}, []uint64{1, 2, 3, 4, 5}, 2, 4},
		{Quorums{Phase1: 4, Phase2: 2}, []uint64{1, 2, 3}, 3, 2},
		{Quorums{Phase1: 4, Phase2: 4}, []uint64{1, 2, 3, 4, 5}, 4, 4},
		{Quorums{Sets1: [][]uint64{{1, 2}, {8, 9}}, Sets2: [][]uint64{{2, 8}, {1, 9}, {2, 9, 1}}}, []uint64{1, 2, 9}, 2, 3},
	} {
		require.NoError(t, c.quorums.Check("paxos"))
		e, err := newElectorate(c.quorums, members(c.voters...))
		require.NoError(t, err)
		phase1, phase2 := quorumsOf(e)
		require.Equal(t, []int{c.phase1, c.phase2}, []int{phase1, phase2}, "%+v of %v", c.quorums, c.voters)
	}
	_, err := newElectorate(Quorums{Phase1: 4, Phase2: 2}, members(1, 2, 3, 4, 5, 6))
	configError(t, err, "may have none in common")
	_, err = newElectorate(Quorums{Sets1: [][]uint64{{1, 2}}, Sets2: [][]uint64{{2, 3}}}, members(1, 2))
	configError(t, err, "no set of phase 2 consists of voters")
	var many []uint64
	for i := range uint64(MaxVoters + 1) {
		many = append(many, i+1)
	}
	_, err = newElectorate(Quorums{}, members(many...))
	configError(t, err, "at most 64")
}

// A change is refused as a whole where the quorums do not go with what it goes through.
func TestQuorumsOfChanges(t *testing.T) {
	target := func(c replica.Configuration, list ...synod.Member) replica.Configuration {
		c.Target = list
		return c
	}
	voter := func(node, incarnation uint64) synod.Member {
		return synod.Member{Node: node, Incarnation: incarnation}
	}
	fixed := Quorums{Phase1: 3, Phase2: 3}
	require.NoError(t, fixed.checkTarget(members(1, 2, 3)))
	require.NoError(t, fixed.checkTarget(target(members(1, 2, 3), voter(4, 1), voter(5, 1), voter(6, 1))))
	configError(t, fixed.checkTarget(target(members(1, 2, 3), voter(1, 1), voter(2, 1), voter(3, 1), voter(4, 1), voter(5, 1), voter(6, 1))), "none in common")
	sets := Quorums{Sets1: [][]uint64{{1, 2}, {1, 3}}, Sets2: [][]uint64{{1, 2}, {1, 3}}}
	require.NoError(t, sets.checkTarget(target(members(1, 2, 3), voter(1, 0), voter(2, 0))))
	configError(t, sets.checkTarget(target(members(1, 2, 3), voter(2, 0), voter(3, 0))), "no set of phase 1")
	// Node 1 is in every set: it can't leave to come back.
	configError(t, sets.checkTarget(target(members(1, 2, 3), voter(1, 7), voter(2, 0), voter(3, 0))), "no set of phase 1")
	require.NoError(t, sets.checkTarget(target(members(1, 2, 3), voter(1, 0), voter(2, 7), voter(3, 0))))
	// Together, two sets of voters may be too many.
	var old, next []uint64
	var list []synod.Member
	for i := range uint64(40) {
		old, next = append(old, i+1), append(next, i+100)
		list = append(list, voter(i+100, 1))
	}
	require.Len(t, next, 40)
	configError(t, Quorums{}.checkTarget(target(members(old...), list...)), "80 voters")

	c := newCluster(t, Protocol{Quorums: fixed}, 3, 1)
	c.start()
	l := c.elect()
	change := l.core.conf.Clone()
	change.Target = []synod.Member{{Node: 1}, {Node: 2}, {Node: 3}, {Node: 4}, {Node: 5}, {Node: 6}}
	configError(t, l.core.Reconfigure(change.Append(nil)), "none in common")
	change.Target = []synod.Member{{Node: 1}, {Node: 2}, {Node: 4}}
	require.NoError(t, l.core.Reconfigure(change.Append(nil)))
}

// A group keeps the quorums that it began with: with others, a new leader could miss what was acknowledged.
func TestQuorumsAreKept(t *testing.T) {
	store, keys := memory.Open(memory.Config{}), replica.GroupKeys(7)
	conf := members(1, 2, 3, 4, 5).Append(nil)
	small := Protocol{Quorums: Quorums{Phase2: 2}}
	var b storage.Batch
	require.NoError(t, small.Bootstrap(keys, conf, &b))
	require.NoError(t, store.Commit(&b))
	open := func(p Protocol) error {
		start, config, err := p.Start(keys, store)
		require.NoError(t, err)
		core, err := p.Open(replica.OpenOptions{Node: 1, Keys: keys, Store: store, Start: start, Config: config})
		if err != nil {
			return err
		}
		var out replica.Output
		b.Reset()
		out.Batch = &b
		core.Ready(&out)
		return store.Commit(&b)
	}
	require.NoError(t, open(small))
	configError(t, open(Protocol{}), "has decided by others")
	// A node that is on its own, or knows nothing yet, begins anew.
	b.Reset()
	require.NoError(t, Protocol{}.Recover(keys, store, members(1).Append(nil), &b))
	require.NoError(t, store.Commit(&b))
	require.NoError(t, open(Protocol{}))
	configError(t, open(small), "has decided by others")
	b.Reset()
	require.NoError(t, Protocol{}.Leave(keys, store, &b))
	require.NoError(t, store.Commit(&b))
	b.Reset()
	require.NoError(t, small.Join(keys, store, &b))
	require.NoError(t, store.Commit(&b))
	require.NoError(t, open(small))
	configError(t, open(Protocol{}), "has decided by others")

	sets := Quorums{Sets1: [][]uint64{{1, 2}, {4, 3}}, Sets2: [][]uint64{{1, 3}, {2, 4}}}
	same := Quorums{Sets1: [][]uint64{{3, 4}, {2, 1}}, Sets2: [][]uint64{{4, 2}, {3, 1}}}
	require.Equal(t, sets.clone().hash(), same.clone().hash(), "order does not matter")
	require.NotEqual(t, sets.clone().hash(), Quorums{}.hash())
}
