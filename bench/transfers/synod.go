package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/paxos"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/storage/pebble"
	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/tcp"
	"github.com/synod-go/synod/txn"
	"github.com/synod-go/synod/txn/hlc"
	"github.com/synod-go/synod/txn/kv"
)

// replica is what both engines' groups are.
type replica interface {
	TransferLeader(ctx context.Context, to uint64) error
	synod.Log
	Status() synod.GroupStatus
}

// engine is what both engines' nodes are.
type engine struct {
	io.Closer
	bootstrap func(ctx context.Context, group uint64, members []uint64) error
	start     func(ctx context.Context, group uint64, machine synod.StateMachine) (replica, error)
}

func startRaft(ctx context.Context, id uint64, t transport.Transport, store *pebble.Store) (engine, error) {
	node, err := raft.Start(ctx, raft.Config{Cluster: "bench", Node: id, Transport: t, Store: store})
	if err != nil {
		return engine{}, err
	}
	return engine{node, node.Bootstrap, func(ctx context.Context, group uint64, machine synod.StateMachine) (replica, error) {
		return node.StartGroup(ctx, raft.GroupConfig{ID: group, StateMachine: machine})
	}}, nil
}

func startPaxos(ctx context.Context, id uint64, t transport.Transport, store *pebble.Store) (engine, error) {
	node, err := paxos.Start(ctx, paxos.Config{Cluster: "bench", Node: id, Transport: t, Store: store})
	if err != nil {
		return engine{}, err
	}
	return engine{node, node.Bootstrap, func(ctx context.Context, group uint64, machine synod.StateMachine) (replica, error) {
		return node.StartGroup(ctx, paxos.GroupConfig{ID: group, StateMachine: machine})
	}}, nil
}

// cluster is three nodes; the clients are on the one that leads the first group.
type cluster struct {
	dbs     []*kv.DB // by node
	groups  [][]replica
	db      *kv.DB
	closers []func() error
}

type startEngine func(ctx context.Context, id uint64, t transport.Transport, store *pebble.Store) (engine, error)

// openSynod returns a function that opens three nodes with so many groups.
func openSynod(start startEngine, groups int, apart bool) func(ctx context.Context, dir string) (bank, error) {
	return func(ctx context.Context, dir string) (bank, error) {
		c := &cluster{}
		var transports []*tcp.Transport
		for id := uint64(1); id <= 3; id++ {
			t, err := tcp.Listen(tcp.Config{Cluster: "bench", Node: id, Address: "127.0.0.1:0", Insecure: true})
			if err != nil {
				return nil, err
			}
			transports = append(transports, t)
		}
		for i, t := range transports {
			for j, peer := range transports {
				if i != j {
					if err := t.SetPeer(uint64(j+1), peer.Addr().String()); err != nil {
						return nil, err
					}
				}
			}
			if err := c.open(ctx, uint64(i+1), t, filepath.Join(dir, fmt.Sprint(i+1)), start, groups); err != nil {
				return nil, errors.Join(err, c.close())
			}
		}
		leader, err := c.elected(ctx)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		if err := c.place(ctx, leader, apart); err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.db = c.dbs[leader]
		return c, nil
	}
}

// open starts a node.
func (c *cluster) open(ctx context.Context, id uint64, t transport.Transport, dir string, start startEngine, groups int) error {
	members, mux := []uint64{1, 2, 3}, transport.NewMux(t)
	c.closers = append(c.closers, mux.Close)
	store, err := pebble.Open(pebble.Config{Dir: dir})
	if err != nil {
		return err
	}
	c.closers = append(c.closers, store.Close)
	node, err := start(ctx, id, mux.Channel(1), store)
	if err != nil {
		return err
	}
	c.closers = append(c.closers, node.Close)
	var list []kv.Group
	var replicas []replica
	for g := range groups {
		if err := node.bootstrap(ctx, uint64(g+1), members); err != nil {
			return err
		}
		machine := kv.NewMachine()
		r, err := node.start(ctx, uint64(g+1), machine)
		if err != nil {
			return err
		}
		forwarder, err := txn.NewForwarder(ctx, txn.ForwarderConfig{Log: r, Node: id, Transport: mux.Channel(uint32(16 + g))})
		if err != nil {
			return err
		}
		c.closers = append(c.closers, forwarder.Close)
		list, replicas = append(list, kv.Group{Log: forwarder, Machine: machine}), append(replicas, r)
	}
	clock, err := hlc.New(ctx, hlc.Config{Node: id, Peers: members, Transport: mux.Channel(2)})
	if err != nil {
		return err
	}
	c.closers = append(c.closers, clock.Close)
	db, err := kv.Open(ctx, kv.Config{Groups: list, Clock: clock, Route: func(key []byte) int { return int(key[len(key)-1]-'0') % groups }})
	if err != nil {
		return err
	}
	c.closers = append(c.closers, db.Close)
	c.dbs, c.groups = append(c.dbs, db), append(c.groups, replicas)
	return nil
}

// place has the node that leads the first group lead the others, too; or, apart, the next node.
func (c *cluster) place(ctx context.Context, leader int, apart bool) error {
	to := leader
	if apart {
		to = (leader + 1) % len(c.groups)
	}
	for g := 1; g < len(c.groups[0]); g++ {
		for c.groups[to][g].Status().Leader != uint64(to+1) {
			for i := range c.groups {
				if c.groups[i][g].Status().Leader == uint64(i+1) {
					_ = c.groups[i][g].TransferLeader(ctx, uint64(to+1)) // or again
				}
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// elected waits until all groups are led, and returns the node that leads the first one.
func (c *cluster) elected(ctx context.Context) (int, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		led := 0
		for g := range c.groups[0] {
			for i := range c.groups {
				if c.groups[i][g].Status().Leader == uint64(i+1) {
					led++
				}
			}
		}
		if led == len(c.groups[0]) {
			for i := range c.groups {
				if c.groups[i][0].Status().Leader == uint64(i+1) {
					return i, nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
	}
}

func (c *cluster) load(ctx context.Context) error {
	const some = 500
	for first := 0; first < accounts; first += some {
		if err := c.db.Update(ctx, func(tx *kv.Tx) error {
			for n := first; n < first+some; n++ {
				if err := tx.Put(key(n), value(opening)); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) transfer(ctx context.Context, from, to int) (attempts int, err error) {
	source, target := key(from), key(to)
	err = c.db.Update(ctx, func(tx *kv.Tx) error {
		attempts++
		a, err := tx.Get(source)
		if err != nil {
			return err
		}
		b, err := tx.Get(target)
		if err != nil {
			return err
		}
		if a, b, err = moved(a, b); err != nil {
			return err
		}
		if err := tx.Put(source, a); err != nil {
			return err
		}
		return tx.Put(target, b)
	})
	return attempts, err
}

func (c *cluster) total(ctx context.Context) (sum int64, err error) {
	err = c.db.View(ctx, func(tx *kv.Tx) error {
		rows, err := tx.Scan([]byte("account/"), []byte("account0"), 0)
		if err != nil {
			return err
		}
		sum = 0
		for _, row := range rows {
			b, err := balance(row.Value)
			if err != nil {
				return err
			}
			sum += b
		}
		return nil
	})
	return sum, err
}

func (c *cluster) close() error {
	var errs []error
	for _, f := range slices.Backward(c.closers) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}
