package kv_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/paxos"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/sim"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/txn"
	"github.com/synod-go/synod/txn/kv"
)

// counted counts what is sent and what is written, between two looks.
type counted struct{ messages, commits int }

type countedTransport struct {
	transport.Transport
	n *counted
}

func (t countedTransport) Send(to uint64, payload []byte) error {
	t.n.messages++
	return t.Transport.Send(to, payload)
}

type countedStore struct {
	storage.Store
	n *counted
}

func (s countedStore) Commit(b *storage.Batch) error {
	s.n.commits++
	return s.Store.Commit(b)
}

// member is a group of one of the engines.
type member interface {
	synod.Log
	TransferLeader(ctx context.Context, to uint64) error
}

// heartbeat is long, so that what is counted is the transactions' messages alone.
const heartbeat = 5 * time.Second

// startMembers starts one node's replicas of groups 1 to n.
func startMembers(ctx context.Context, engine string, id uint64, tr transport.Transport, store storage.Store, machines []*kv.Machine) (members []member, stop func(), err error) {
	nodes := []uint64{1, 2, 3}
	switch engine {
	case "raft":
		node, err := raft.Start(ctx, raft.Config{Cluster: "kv", Node: id, Transport: tr, Store: store, HeartbeatInterval: heartbeat})
		if err != nil {
			return nil, nil, err
		}
		for i, m := range machines {
			if err := node.Bootstrap(ctx, uint64(i+1), nodes); err != nil {
				return nil, nil, err
			}
			g, err := node.StartGroup(ctx, raft.GroupConfig{ID: uint64(i + 1), StateMachine: m})
			if err != nil {
				return nil, nil, err
			}
			members = append(members, g)
		}
		return members, func() { node.Close() }, nil
	default:
		node, err := paxos.Start(ctx, paxos.Config{Cluster: "kv", Node: id, Transport: tr, Store: store, HeartbeatInterval: heartbeat})
		if err != nil {
			return nil, nil, err
		}
		for i, m := range machines {
			if err := node.Bootstrap(ctx, uint64(i+1), nodes); err != nil {
				return nil, nil, err
			}
			g, err := node.StartGroup(ctx, paxos.GroupConfig{ID: uint64(i + 1), StateMachine: m})
			if err != nil {
				return nil, nil, err
			}
			members = append(members, g)
		}
		return members, func() { node.Close() }, nil
	}
}

// openThree opens a DB on each of three nodes, over three groups that node 1 leads.
func openThree(w *sim.World, engine string) (map[uint64]*kv.DB, *counted) {
	const groups = 3
	dbs, forwarders := map[uint64]*kv.DB{}, map[uint64][]member{}
	n := &counted{}
	for id := uint64(1); id <= 3; id++ {
		w.AddNode(id, func(ctx context.Context, env *sim.Env) (func(), error) {
			mux := transport.NewMux(countedTransport{env.Transport, n})
			cfg := kv.Config{Retention: time.Hour, Route: func(key []byte) int { return int(key[0] - 'a') }}
			machines := make([]*kv.Machine, groups)
			for i := range machines {
				machines[i] = kv.NewMachine()
			}
			members, stop, err := startMembers(ctx, engine, id, mux.Channel(1), countedStore{env.Store, n}, machines)
			if err != nil {
				return nil, err
			}
			for i, m := range members {
				f, err := txn.NewForwarder(ctx, txn.ForwarderConfig{Log: m, Node: id, Transport: mux.Channel(uint32(2 + i))})
				if err != nil {
					return nil, err
				}
				cfg.Groups = append(cfg.Groups, kv.Group{Log: f, Machine: machines[i]})
			}
			db, err := kv.Open(ctx, cfg)
			dbs[id], forwarders[id] = db, members
			return stop, err
		})
	}
	ctx := w.Context()
	_ = sim.Sleep(ctx, 10*heartbeat)
	for g := range groups {
		lead(ctx, w, forwarders, g)
	}
	return dbs, n
}

// TestCommitTakesOneRound counts hops, on a simulated network with 10 ms a hop and disks that cost nothing: three replicas,
// node 1 leads all groups. What a group's consensus takes beside its leader is 20 ms; from elsewhere, 40.
func TestCommitTakesOneRound(t *testing.T) {
	const hop = 10 * time.Millisecond
	for _, engine := range []string{"raft", "paxos"} {
		t.Run(engine, func(t *testing.T) {
			var rows []string
			result := sim.Execute(sim.Config{Seed: 1, Delay: hop, Jitter: 1, Sync: 1, Calm: true}, func(w *sim.World) {
				dbs, n := openThree(w, engine)
				ctx := w.Context()
				for id := uint64(1); id <= 3; id++ { // forwarders greet the leader, once
					if err := dbs[id].Update(ctx, func(tx *kv.Tx) error {
						for _, k := range []string{"a", "b", "c"} {
							if err := tx.Put([]byte(k), nil); err != nil {
								return err
							}
						}
						return nil
					}); err != nil {
						w.Failf("update", "%v", err)
					}
				}
				update := func(node uint64, name string, hops int, keys ...string) {
					_ = sim.Sleep(ctx, heartbeat-w.Now()%heartbeat+time.Second)
					before := w.Now()
					*n = counted{}
					err := dbs[node].Update(ctx, func(tx *kv.Tx) error {
						for _, k := range keys {
							if _, err := tx.Get([]byte(k)); err != nil && err != kv.ErrNotFound {
								return err
							}
							if err := tx.Put([]byte(k), []byte(name)); err != nil {
								return err
							}
						}
						return nil
					})
					took := w.Now() - before
					messages, commits := n.messages, n.commits
					_ = sim.Sleep(ctx, 500*time.Millisecond)
					if err != nil {
						w.Failf("update", "%s: %v", name, err)
					}
					if took.Round(time.Millisecond) != time.Duration(hops)*hop {
						w.Failf("update", "%s at node %d: %v, want %d hops of %v", name, node, took, hops, hop)
					}
					// A group's entry: to two followers, back, and that it is committed; and the way to the leader and back. A record on each
					// replica. Groups share frames and writes, where their entries come together.
					groups := len(keys)
					if most := groups * (6 + 2*(hops-2)); messages > most || commits > 3*groups || commits < 3 {
						w.Failf("cost", "%s at node %d: %d messages, %d writes; at most %d and %d", name, node, messages, commits, most, 3*groups)
					}
					if groups == 1 && (messages != 6+2*(hops-2) || commits != 3 || n.messages > messages+2 || n.commits != 3) {
						w.Failf("cost", "%s at node %d: %d messages, %d writes; with what follows %d and %d", name, node, messages, commits, n.messages, n.commits)
					}
					rows = append(rows, fmt.Sprintf("%s at node %d: %v, %d messages, %d writes; with what follows %d and %d", name, node, took, messages, commits, n.messages, n.commits))
				}
				// One after another over the same keys: each reads what the one before has written, and does not wait until the groups know that it is
				// committed.
				inARow := func(node uint64, hops int, keys ...string) {
					_ = sim.Sleep(ctx, heartbeat-w.Now()%heartbeat+time.Second)
					before := w.Now()
					const n = 5
					for i := range n {
						if err := dbs[node].Update(ctx, func(tx *kv.Tx) error {
							for _, k := range keys {
								have, err := tx.Get([]byte(k))
								if err != nil && err != kv.ErrNotFound {
									return err
								}
								if i == 0 {
									have = nil
								}
								if len(have) != i {
									return fmt.Errorf("%q at %s, in transaction %d", have, k, i)
								}
								if err := tx.Put([]byte(k), append(have, '+')); err != nil {
									return err
								}
							}
							return nil
						}); err != nil {
							w.Failf("update", "%v at node %d: %v", keys, node, err)
						}
					}
					took := w.Now() - before
					if took.Round(5*time.Millisecond) != time.Duration(n*hops)*hop {
						w.Failf("update", "%d in a row over %v at node %d: %v, want %d hops of %v", n, keys, node, took, n*hops, hop)
					}
					rows = append(rows, fmt.Sprintf("%d in a row over %d groups at node %d: %v", n, len(keys), node, took))
				}
				for _, keys := range [][]string{{"ar"}, {"ar", "br"}, {"ar", "br", "cr"}} {
					inARow(1, 2, keys...)
					inARow(2, 4, keys...)
				}
				for round := range 3 {
					update(1, fmt.Sprint("one group ", round), 2, "ax")
					update(2, fmt.Sprint("one group ", round), 4, "ay")
					update(1, fmt.Sprint("two groups ", round), 2, "ax", "bx")
					update(3, fmt.Sprint("two groups ", round), 4, "ay", "by")
					update(2, fmt.Sprint("three groups ", round), 4, "az", "bz", "cz")
				}
			})
			if result.Err != nil {
				t.Fatal(result.Report())
			}
			t.Log(strings.Join(rows, "\n"))
		})
	}
}

// lead makes node 1 the leader of a group.
func lead(ctx context.Context, w *sim.World, members map[uint64][]member, g int) {
	for {
		limit, cancel := sim.WithTimeout(ctx, 4*heartbeat)
		for id := uint64(1); id <= 3; id++ {
			if len(members[id]) > g {
				_ = members[id][g].TransferLeader(limit, 1)
			}
		}
		_, err := members[1][g].Propose(limit, []byte{'a', 0})
		cancel()
		if err == nil {
			return
		}
		_ = sim.Sleep(ctx, 100*time.Millisecond)
	}
}
