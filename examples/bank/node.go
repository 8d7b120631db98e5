package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/synod-go/synod/storage/pebble"
	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/txn"
	"github.com/synod-go/synod/txn/hlc"
	"github.com/synod-go/synod/txn/kv"
)

// The channels of a node's transport: the same numbers on all nodes.
const (
	engineChannel  = 1
	clockChannel   = 2
	forwardChannel = 16 // and from there on, one for each group
)

// node is one member of the cluster: a replica of each group, and a database over them.
type node struct {
	db       *kv.DB
	clock    *hlc.Clock
	replicas []replica  // by group
	groups   []kv.Group // the same, as a database sees them
	closers  []func() error
}

// startNode starts a node on a directory. The transport reaches the other members, and belongs to the node from now on.
func startNode(ctx context.Context, engine string, id uint64, members []uint64, groups int, t transport.Transport, dir string) (_ *node, err error) {
	n, mux := new(node), transport.NewMux(t)
	n.closers = append(n.closers, mux.Close)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	disk, err := pebble.Open(pebble.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	n.closers = append(n.closers, disk.Close)

	// All groups share the transport, and the store with its syncs.
	member, err := engines[engine](ctx, id, mux.Channel(engineChannel), disk, nil)
	if err != nil {
		return nil, err
	}
	n.closers = append(n.closers, member.Close)
	for g := range groups {
		// An empty directory is that of a member of a new cluster: this program's own choice.
		if err := member.Bootstrap(ctx, uint64(g+1), members); err != nil && !errors.Is(err, errBootstrapped) {
			return nil, err
		}
		machine := kv.NewMachine()
		r, err := member.startGroup(ctx, uint64(g+1), machine)
		if err != nil {
			return nil, err
		}
		// Whoever asks this node need not know who leads.
		forwarder, err := txn.NewForwarder(ctx, txn.ForwarderConfig{Log: r, Node: id, Transport: mux.Channel(uint32(forwardChannel + g)), RequestTimeout: 2 * time.Second})
		if err != nil {
			return nil, err
		}
		n.closers = append(n.closers, forwarder.Close)
		n.replicas = append(n.replicas, r)
		n.groups = append(n.groups, kv.Group{Log: forwarder, Machine: machine})
	}

	// The clocks watch each other: a node whose clock is wrong refuses transactions.
	n.clock, err = hlc.New(ctx, hlc.Config{Node: id, Peers: slices.Clone(members), Transport: mux.Channel(clockChannel)})
	if err != nil {
		return nil, err
	}
	n.closers = append(n.closers, n.clock.Close)
	n.db, err = openDatabase(ctx, n.groups, n.clock)
	if err != nil {
		return nil, err
	}
	n.closers = append(n.closers, n.db.Close)
	return n, nil
}

// openDatabase returns a database over a node's groups.
func openDatabase(ctx context.Context, groups []kv.Group, clock *hlc.Clock) (*kv.DB, error) {
	return kv.Open(ctx, kv.Config{
		Groups:     groups,
		Route:      route(len(groups)),
		RouteRange: routeRange(len(groups)),
		Clock:      clock,
		// For how long a client may be silent in the middle of a commit before others end it. Far above what a round of consensus takes here.
		RecoverAfter: 500 * time.Millisecond,
	})
}

// close ends everything, the latest first.
func (n *node) close() error {
	var errs []error
	for _, c := range slices.Backward(n.closers) {
		errs = append(errs, c())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close a node: %w", err)
	}
	return nil
}
