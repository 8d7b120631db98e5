package main

import (
	"context"
	"fmt"

	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/pebble"
	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/txn"
	"github.com/synod-go/synod/txn/kv"
)

// node is one of three replicas of the keys.
type node struct {
	db    *kv.DB
	store storage.Store // what is left of it is for the manager
	mux   *transport.Mux
	stop  []func()
}

func (n *node) close() {
	for i := len(n.stop) - 1; i >= 0; i-- {
		n.stop[i]()
	}
}

func startNode(ctx context.Context, network *inproc.Network, id uint64, dir string) (_ *node, err error) {
	n := &node{}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	store, err := pebble.Open(pebble.Config{Dir: fmt.Sprintf("%s/node-%d", dir, id)})
	if err != nil {
		return nil, err
	}
	n.stop = append(n.stop, func() { store.Close() })
	tr, err := network.Open(id) // between machines: tcp.Listen
	if err != nil {
		return nil, err
	}
	n.stop = append(n.stop, func() { tr.Close() })
	n.store, n.mux = storage.Prefix(store, []byte("t/")), transport.NewMux(tr)
	replica, err := raft.Start(ctx, raft.Config{Cluster: "bank", Node: id, Transport: n.mux.Channel(1), Store: storage.Prefix(store, []byte("r/"))})
	if err != nil {
		return nil, err
	}
	n.stop = append(n.stop, func() { replica.Close() })
	if err := replica.Bootstrap(ctx, 1, []uint64{1, 2, 3}); err != nil {
		return nil, err
	}
	machine := kv.NewMachine()
	group, err := replica.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: machine})
	if err != nil {
		return nil, err
	}
	forwarder, err := txn.NewForwarder(ctx, txn.ForwarderConfig{Log: group, Node: id, Transport: n.mux.Channel(2)})
	if err != nil {
		return nil, err
	}
	n.stop = append(n.stop, func() { forwarder.Close() })
	if n.db, err = kv.Open(ctx, kv.Config{Groups: []kv.Group{{Log: forwarder, Machine: machine}}}); err != nil {
		return nil, err
	}
	n.stop = append(n.stop, func() { n.db.Close() })
	return n, nil
}
