package paxos_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/paxos"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/transport/inproc"
)

// site is some nodes of one process, each with group 1.
type site struct {
	*testing.T
	ctx      context.Context
	network  *inproc.Network
	quorums  paxos.Quorums
	members  []uint64
	stores   map[uint64]storage.Store
	nodes    map[uint64]*paxos.Node
	closers  map[uint64]func()
	groups   map[uint64]*paxos.Group
	machines map[uint64]*words
}

func newSite(t *testing.T, quorums paxos.Quorums, members ...uint64) *site {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	network, err := inproc.New(ctx, inproc.Config{})
	require.NoError(t, err)
	s := &site{T: t, ctx: ctx, network: network, quorums: quorums, members: members, stores: make(map[uint64]storage.Store), nodes: make(map[uint64]*paxos.Node),
		closers: make(map[uint64]func()), groups: make(map[uint64]*paxos.Group), machines: make(map[uint64]*words)}
	t.Cleanup(func() {
		for id := range s.nodes {
			s.stop(id)
		}
		cancel()
	})
	for _, id := range members {
		s.open(id)
		require.NoError(t, s.nodes[id].Bootstrap(ctx, 1, members))
		require.NoError(t, s.start(id))
	}
	return s
}

// open starts a node.
func (s *site) open(id uint64) {
	s.Helper()
	if s.stores[id] == nil {
		s.stores[id] = memory.Open(memory.Config{})
	}
	endpoint, err := s.network.Open(id)
	require.NoError(s, err)
	node, err := paxos.Start(s.ctx, paxos.Config{Cluster: "site", Node: id, Transport: endpoint, Store: s.stores[id], Quorums: s.quorums,
		HeartbeatInterval: 20 * time.Millisecond, ElectionTimeout: 600 * time.Millisecond})
	require.NoError(s, err)
	s.nodes[id] = node
	s.closers[id] = func() { _ = node.Close(); _ = endpoint.Close() }
}

// start starts a node's replica.
func (s *site) start(id uint64) (err error) {
	s.machines[id] = newWords()
	s.groups[id], err = s.nodes[id].StartGroup(s.ctx, paxos.GroupConfig{ID: 1, StateMachine: s.machines[id]})
	return err
}

func (s *site) stop(id uint64) {
	s.closers[id]()
	delete(s.nodes, id)
	delete(s.groups, id)
}

// cut separates nodes from the others; heal brings them together again.
func (s *site) cut(nodes ...uint64) {
	for _, a := range nodes {
		for _, b := range s.members {
			if !slices.Contains(nodes, b) {
				s.network.Cut(a, b)
				s.network.Cut(b, a)
			}
		}
	}
}

func (s *site) heal() {
	for _, a := range s.members {
		for _, b := range s.members {
			if a != b {
				s.network.Heal(a, b)
			}
		}
	}
}

// propose proposes at any of some nodes, until it is acknowledged, and returns where.
func (s *site) propose(word string, at ...uint64) (leader uint64) {
	s.Helper()
	for s.ctx.Err() == nil {
		for _, id := range at {
			ctx, cancel := context.WithTimeout(s.ctx, time.Second)
			_, err := s.groups[id].Propose(ctx, []byte(word))
			cancel()
			if err == nil {
				return id
			}
		}
		_ = s.groups[at[0]].Barrier(s.ctx) // no more often than that answers
	}
	require.FailNow(s, "nothing is acknowledged")
	return 0
}

// Of five voters, two decide. With three of them gone the leader and one other go on; the new leader that four
// elect has all that the two had acknowledged.
func TestSmallPhase2(t *testing.T) {
	s := newSite(t, paxos.Quorums{Phase2: 2}, 1, 2, 3, 4, 5)
	leader := s.propose("begin", s.members...)
	var rest []uint64
	for _, id := range s.members {
		if id != leader {
			rest = append(rest, id)
		}
	}
	near, far := rest[0], rest[1:]
	s.cut(far...)
	for i := range 100 {
		require.Equal(t, leader, s.propose(fmt.Sprint("word", i), leader), "it is the same leader: all is acknowledged by two")
	}
	require.NoError(t, s.groups[near].Barrier(s.ctx))
	require.Equal(t, 1, s.machines[near].count("word99"))
	require.NoError(t, s.groups[leader].Barrier(s.ctx), "two confirm a leader")
	for _, id := range far { // three are no quorum for anything
		short, cancel := context.WithTimeout(s.ctx, 500*time.Millisecond)
		_, err := s.groups[id].Propose(short, []byte("lost"))
		require.Error(t, err)
		require.ErrorIs(t, s.groups[id].Barrier(short), context.DeadlineExceeded)
		cancel()
	}
	// The leader dies, with what only one other has.
	s.stop(leader)
	s.heal()
	next := s.propose("end", rest...)
	for _, id := range rest {
		require.NoError(t, s.groups[id].Barrier(s.ctx))
		for i := range 100 {
			require.Equal(t, 1, s.machines[id].count(fmt.Sprint("word", i)), "node %d", id)
		}
		require.Zero(t, s.machines[id].count("lost"))
	}
	// Three do not elect another one: the fourth may be the only one that knows.
	s.stop(next)
	for _, id := range rest {
		if id != next {
			short, cancel := context.WithTimeout(s.ctx, 2*time.Second)
			for short.Err() == nil {
				_, err := s.groups[id].Propose(short, []byte("lost"))
				require.Error(t, err)
				_ = s.groups[id].Barrier(short)
			}
			cancel()
		}
	}
	s.open(leader)
	require.NoError(t, s.start(leader))
	s.propose("again", slices.Sorted(maps.Keys(s.groups))...)
	require.NoError(t, s.groups[leader].Barrier(s.ctx))
	require.Equal(t, 1, s.machines[leader].count("end"))
}

// The same with majorities, to show what makes the difference.
func TestMajorities(t *testing.T) {
	s := newSite(t, paxos.Quorums{}, 1, 2, 3, 4, 5)
	leader := s.propose("begin", s.members...)
	var far []uint64
	for _, id := range s.members {
		if id != leader && len(far) < 3 {
			far = append(far, id)
		}
	}
	s.cut(far...)
	short, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	defer cancel()
	_, err := s.groups[leader].Propose(short, []byte("word"))
	require.Error(t, err, "two of five are not enough")
	s.propose("word", far...) // three are
}

// Quorums by name: two rooms of three, where one of each room decides, and one whole room elects.
func TestNamedQuorums(t *testing.T) {
	quorums := paxos.Quorums{Sets1: [][]uint64{{1, 2, 3}, {4, 5, 6}}}
	for a := uint64(1); a <= 3; a++ {
		for b := uint64(4); b <= 6; b++ {
			quorums.Sets2 = append(quorums.Sets2, []uint64{a, b})
		}
	}
	s := newSite(t, quorums, 1, 2, 3, 4, 5, 6)
	s.propose("begin", s.members...)
	s.cut(2, 3, 5, 6) // one of each room is left
	// If one of those leads it goes on; or nobody can decide.
	if leader := s.groups[1].Status().Leader; leader == 1 || leader == 4 {
		require.Equal(t, leader, s.propose("between", leader))
	}
	s.heal()
	s.propose("word", s.members...)
	s.cut(4, 5, 6) // a whole room elects, but decides nothing
	short, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	defer cancel()
	for short.Err() == nil {
		for id := uint64(1); id <= 3; id++ {
			_, err := s.groups[id].Propose(short, []byte("lost"))
			require.Error(t, err)
		}
		_ = s.groups[1].Barrier(short)
	}
	s.heal()
	s.propose("end", s.members...)
	for _, id := range s.members {
		require.NoError(t, s.groups[id].Barrier(s.ctx))
		require.Equal(t, 1, s.machines[id].count("word"))
	}
}

// Quorums that can't be are refused, naming the field: at the start, with the members of a new group, with a
// change of them, and where a group was begun with others.
func TestQuorumsAreRefused(t *testing.T) {
	refused := func(err error, contains string) {
		t.Helper()
		var wrong *synod.ConfigError
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, "paxos", wrong.Package)
		require.Equal(t, "Quorums", wrong.Field)
		require.Contains(t, wrong.Reason, contains)
	}
	network, err := inproc.New(t.Context(), inproc.Config{})
	require.NoError(t, err)
	endpoint, err := network.Open(1)
	require.NoError(t, err)
	defer endpoint.Close()
	store := memory.Open(memory.Config{})
	start := func(q paxos.Quorums) (*paxos.Node, error) {
		return paxos.Start(t.Context(), paxos.Config{Cluster: "site", Node: 1, Transport: endpoint, Store: store, Quorums: q, HeartbeatInterval: 10 * time.Millisecond})
	}
	_, err = start(paxos.Quorums{Phase1: -1})
	refused(err, "above 0")
	_, err = start(paxos.Quorums{Sets1: [][]uint64{{1, 2}}, Sets2: [][]uint64{{3, 4}}})
	refused(err, "no node in common")
	fixed := paxos.Quorums{Phase1: 2, Phase2: 2}
	node, err := start(fixed)
	require.NoError(t, err)
	refused(node.Bootstrap(t.Context(), 1, []uint64{1, 2, 3, 4}), "none in common")
	require.NoError(t, node.Bootstrap(t.Context(), 1, []uint64{1}))
	group, err := node.StartGroup(t.Context(), paxos.GroupConfig{ID: 1, StateMachine: newWords()})
	require.NoError(t, err)
	require.NoError(t, group.Barrier(t.Context()))

	other, err := network.Open(2)
	require.NoError(t, err)
	defer other.Close()
	joiner, err := paxos.Start(t.Context(), paxos.Config{Cluster: "site", Node: 2, Transport: other, Store: memory.Open(memory.Config{}), HeartbeatInterval: 10 * time.Millisecond})
	require.NoError(t, err)
	defer joiner.Close()
	var list []synod.Member
	for id := uint64(1); id <= 4; id++ {
		list = append(list, synod.Member{Node: id, Incarnation: joiner.Status().Incarnation})
	}
	list[0].Incarnation = 0
	refused(group.SetMembers(t.Context(), list), "none in common")
	require.Nil(t, group.Status().Target)

	// A node with others is told so, and does not take part.
	events := joiner.Events(t.Context())
	require.NoError(t, joiner.Join(t.Context(), 1))
	_, err = joiner.StartGroup(t.Context(), paxos.GroupConfig{ID: 1, StateMachine: newWords()})
	require.NoError(t, err)
	changed := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { changed <- group.SetMembers(ctx, []synod.Member{{Node: 1}, {Node: 2}}) }()
	for e := range events {
		if e.Kind == synod.EventPeerRefused && errors.Is(e.Err, paxos.ErrQuorums) {
			break
		}
	}
	cancel()
	require.ErrorIs(t, <-changed, synod.ErrUnknownOutcome)
	require.NoError(t, node.Close())

	node, err = start(paxos.Quorums{})
	require.NoError(t, err)
	_, err = node.StartGroup(t.Context(), paxos.GroupConfig{ID: 1, StateMachine: newWords()})
	refused(err, "has decided by others")
	require.NoError(t, node.Close())
	node, err = start(fixed)
	require.NoError(t, err)
	defer node.Close()
	_, err = node.StartGroup(t.Context(), paxos.GroupConfig{ID: 1, StateMachine: newWords()})
	require.NoError(t, err)
}
