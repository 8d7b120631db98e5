package txn_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/paxos"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/txn"
)

// startEngine starts a member of the group that decides.
type startEngine func(ctx context.Context, id uint64, tr transport.Transport, store storage.Store) (log synod.Log, stop func(), err error)

func startRaft(ctx context.Context, id uint64, tr transport.Transport, store storage.Store) (synod.Log, func(), error) {
	node, err := raft.Start(ctx, raft.Config{Cluster: "decisions", Node: id, Transport: tr, Store: store, HeartbeatInterval: 10 * time.Millisecond})
	if err != nil {
		return nil, nil, err
	}
	if err := node.Bootstrap(ctx, 1, []uint64{1, 2, 3}); err != nil {
		return nil, nil, err
	}
	g, err := node.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: new(txn.DecisionMachine)})
	return g, func() { node.Close() }, err
}

func startPaxos(ctx context.Context, id uint64, tr transport.Transport, store storage.Store) (synod.Log, func(), error) {
	node, err := paxos.Start(ctx, paxos.Config{Cluster: "decisions", Node: id, Transport: tr, Store: store, HeartbeatInterval: 10 * time.Millisecond})
	if err != nil {
		return nil, nil, err
	}
	if err := node.Bootstrap(ctx, 1, []uint64{1, 2, 3}); err != nil {
		return nil, nil, err
	}
	g, err := node.StartGroup(ctx, paxos.GroupConfig{ID: 1, StateMachine: new(txn.DecisionMachine)})
	return g, func() { node.Close() }, err
}

// A replicated coordinator: three nodes, whose decisions are in a group of their own; each coordinates, wherever the leader is; and
// when one is lost for good in the middle of its transaction, the others go on.
func TestReplicatedDecisions(t *testing.T) {
	for name, start := range map[string]startEngine{"raft": startRaft, "paxos": startPaxos} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			network, err := inproc.New(ctx, inproc.Config{})
			require.NoError(t, err)
			c := &cluster{T: t, ctx: ctx, network: network, nodes: map[uint64]*machine{}}
			stops, starting := map[uint64]func(){}, map[uint64]chan *txn.Manager{}
			for id := uint64(1); id <= 3; id++ {
				tr, err := network.Open(id)
				require.NoError(t, err)
				mux := transport.NewMux(tr)
				store := memory.Open(memory.Config{})
				log, stop, err := start(ctx, id, mux.Channel(1), storage.Prefix(store, []byte("g")))
				require.NoError(t, err)
				forwarder, err := txn.NewForwarder(ctx, txn.ForwarderConfig{Log: log, Node: id, Transport: mux.Channel(2)})
				require.NoError(t, err)
				a, err := openAccounts(storage.Prefix(store, []byte("r")))
				require.NoError(t, err)
				started := make(chan *txn.Manager, 1)
				go func() { // the first waits for a leader
					m, err := txn.Start(ctx, txn.Config{Cluster: "test", Node: id, Transport: mux.Channel(3), Store: storage.Prefix(store, []byte("t")),
						Resources: map[string]txn.Resource{"accounts": a}, Decisions: txn.NewReplicatedLog(forwarder), TakeOver: 200 * time.Millisecond,
						TickInterval: 2 * time.Millisecond, ResendInterval: 50 * time.Millisecond, InquireInterval: 30 * time.Millisecond, PeerTimeout: time.Hour})
					if err != nil {
						t.Error(err)
					}
					started <- m
				}()
				n := &machine{id: id, store: store, accounts: a}
				c.nodes[id], starting[id] = n, started
				stops[id] = func() {
					require.NoError(t, n.Close())
					require.NoError(t, forwarder.Close())
					stop()
					require.NoError(t, mux.Close())
				}
			}
			for id := uint64(1); id <= 3; id++ {
				c.nodes[id].Manager = <-starting[id]
				require.NotNil(t, c.nodes[id].Manager)
				defer func() {
					if stops[id] != nil {
						stops[id]()
					}
				}()
			}
			for id := uint64(1); id <= 3; id++ {
				require.NoError(t, c.begin(id).Commit(ctx, on(1, change{"a", 1}), on(2, change{"b", 1}), on(3, change{"c", 1})))
				c.idle()
			}
			require.Equal(t, 3, c.nodes[2].accounts.balance("b"))

			// Node 1 asks for votes, node 2 gives its own, and node 1 is gone: it never heard of that of node 3.
			network.Cut(1, 3)
			network.Cut(3, 1)
			network.Cut(2, 1)
			tx := c.begin(1)
			result := make(chan error, 1)
			go func() { result <- tx.Commit(ctx, on(2, change{"b", 1}), on(3, change{"c", 1})) }()
			c.eventually("node 2 is in doubt", func() bool {
				s, err := c.nodes[2].Status(ctx)
				require.NoError(t, err)
				return len(s.InDoubt) == 1
			})
			network.Cut(1, 2)
			stops[1]()
			stops[1] = nil
			require.ErrorIs(t, <-result, synod.ErrUnknownOutcome)
			delete(c.nodes, 1)
			c.idle()
			require.Equal(t, 3, c.nodes[2].accounts.balance("b"), "it is aborted")
			require.NoError(t, c.begin(2).Commit(ctx, on(2, change{"b", 1}), on(3, change{"c", 1})), "and holds nothing")
			c.idle()
		})
	}
}

// stub is a log that does not lead, or fails.
type stub struct {
	leader atomic.Uint64
	err    error
}

func (s *stub) Propose(_ context.Context, command []byte) ([]byte, error) {
	if l := s.leader.Load(); l != 7 {
		return nil, &synod.NotLeaderError{Group: 1, Leader: l}
	}
	return append([]byte("done "), command...), s.err
}

func (s *stub) Barrier(context.Context) error { return nil }

func TestForwarder(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	network, err := inproc.New(ctx, inproc.Config{})
	require.NoError(t, err)
	open := func(id uint64, s *stub) *txn.Forwarder {
		tr, err := network.Open(id)
		require.NoError(t, err)
		f, err := txn.NewForwarder(ctx, txn.ForwarderConfig{Log: s, Node: id, Transport: tr, RequestTimeout: 100 * time.Millisecond, RetryInterval: time.Millisecond, MaxCommandBytes: 10})
		require.NoError(t, err)
		t.Cleanup(func() { f.Close(); tr.Close() })
		return f
	}
	here, leads := new(stub), new(stub)
	leads.leader.Store(7)
	f := open(1, here)
	open(2, leads)
	time.AfterFunc(10*time.Millisecond, func() { here.leader.Store(2) }) // first there is none
	result, err := f.Propose(ctx, []byte("x"))
	require.NoError(t, err)
	require.Equal(t, "done x", string(result))
	_, err = f.Propose(ctx, make([]byte, 11))
	require.ErrorIs(t, err, synod.ErrTooLarge)
	require.NoError(t, f.Barrier(ctx))

	leads.err = synod.ErrUnknownOutcome
	_, err = f.Propose(ctx, []byte("x"))
	require.ErrorIs(t, err, synod.ErrUnknownOutcome)
	leads.err = errors.New("no room")
	_, err = f.Propose(ctx, []byte("x"))
	require.ErrorContains(t, err, "no room")
	require.NotErrorIs(t, err, synod.ErrUnknownOutcome)
	leads.err = nil
	network.Cut(2, 1)
	_, err = f.Propose(ctx, []byte("x"))
	require.ErrorIs(t, err, synod.ErrUnknownOutcome, "the answer is lost")
	network.Heal(2, 1)
	leads.leader.Store(0)
	short, stop := context.WithTimeout(ctx, 20*time.Millisecond)
	defer stop()
	_, err = f.Propose(short, []byte("x"))
	require.ErrorIs(t, err, context.DeadlineExceeded)

	for field, cfg := range map[string]txn.ForwarderConfig{"Log": {}, "Node": {Log: here}, "Transport": {Log: here, Node: 1}} {
		_, err := txn.NewForwarder(ctx, cfg)
		var bad *synod.ConfigError
		require.ErrorAs(t, err, &bad)
		require.Equal(t, field, bad.Field)
	}
}
