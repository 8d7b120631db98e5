package txn_test

import (
	"context"
	"fmt"
	"time"

	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/txn"
)

// Decisions in a group: of one member here, of three or five where a coordinator that is gone must block nobody. All share
// one transport and one store.
func ExampleNewReplicatedLog() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	network, err := inproc.New(ctx, inproc.Config{})
	if err != nil {
		panic(err)
	}
	node, err := network.Open(1)
	if err != nil {
		panic(err)
	}
	mux, store := transport.NewMux(node), memory.Open(memory.Config{})
	defer mux.Close()

	replicas, err := raft.Start(ctx, raft.Config{Cluster: "shop", Node: 1, Transport: mux.Channel(1), Store: storage.Prefix(store, []byte("r"))})
	if err != nil {
		panic(err)
	}
	defer replicas.Close()
	if err := replicas.Bootstrap(ctx, 1, []uint64{1}); err != nil { // once in the group's life
		panic(err)
	}
	group, err := replicas.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: new(txn.DecisionMachine)})
	if err != nil {
		panic(err)
	}
	forwarder, err := txn.NewForwarder(ctx, txn.ForwarderConfig{Log: group, Node: 1, Transport: mux.Channel(2)})
	if err != nil {
		panic(err)
	}
	defer forwarder.Close()
	manager, err := txn.Start(ctx, txn.Config{Cluster: "shop", Node: 1, Transport: mux.Channel(3), Store: storage.Prefix(store, []byte("t")),
		Resources: map[string]txn.Resource{
			"left":  &purse{amount: 100, prepared: make(map[txn.ID]int)},
			"right": &purse{amount: 100, prepared: make(map[txn.ID]int)},
		},
		Decisions: txn.NewReplicatedLog(forwarder), TakeOver: 30 * time.Second})
	if err != nil {
		panic(err)
	}
	defer manager.Close()
	tx, err := manager.Begin(ctx)
	if err != nil {
		panic(err)
	}
	err = tx.Commit(ctx, txn.Participant{Node: 1, Resource: "left", Work: []byte("-5")}, txn.Participant{Node: 1, Resource: "right", Work: []byte("5")})
	fmt.Println(err)
	// Output: <nil>
}
