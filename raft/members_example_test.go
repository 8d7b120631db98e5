package raft_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/transport/inproc"
)

// endpoint is a node's transport.
func endpoint(n *inproc.Network, id uint64) *inproc.Node {
	e, err := n.Open(id)
	if err != nil {
		panic(err)
	}
	return e
}

// A group of one becomes a group of two others.
func ExampleGroup_SetMembers() {
	ctx := context.Background()
	network, err := inproc.New(ctx, inproc.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	groups := make(map[uint64]*raft.Group)
	for id := uint64(1); id <= 3; id++ {
		node, err := raft.Start(ctx, raft.Config{Cluster: "example", Node: id, Transport: endpoint(network, id), Store: memory.Open(memory.Config{})})
		if err != nil {
			fmt.Println(err)
			return
		}
		defer node.Close()
		if id == 1 {
			err = node.Bootstrap(ctx, 1, []uint64{1})
		} else {
			err = node.Join(ctx, 1) // it takes part once it is made a member
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		if groups[id], err = node.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: newWords()}); err != nil {
			fmt.Println(err)
			return
		}
	}
	if err := groups[1].Barrier(ctx); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(groups[1].SetMembers(ctx, []synod.Member{{Node: 2}, {Node: 3}}))
	fmt.Println(groups[2].Barrier(ctx), groups[2].Status().Members)
	// Output:
	// <nil>
	// <nil> [2 3]
}

// The state of a group moves into another cluster.
func ExampleNode_Import() {
	ctx := context.Background()
	start := func(cluster string) (*raft.Node, error) {
		network, err := inproc.New(ctx, inproc.Config{})
		if err != nil {
			return nil, err
		}
		return raft.Start(ctx, raft.Config{Cluster: cluster, Node: 1, Transport: endpoint(network, 1), Store: memory.Open(memory.Config{})})
	}
	old, err := start("old")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer old.Close()
	if err := old.Bootstrap(ctx, 1, []uint64{1}); err != nil {
		fmt.Println(err)
		return
	}
	group, err := old.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: newWords()})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := group.Barrier(ctx); err != nil {
		fmt.Println(err)
		return
	}
	if _, err := group.Propose(ctx, []byte("word")); err != nil {
		fmt.Println(err)
		return
	}
	var backup bytes.Buffer // a file, say
	if err := group.Export(ctx, &backup); err != nil {
		fmt.Println(err)
		return
	}

	fresh, err := start("new")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer fresh.Close()
	if err := fresh.Import(ctx, 7, []synod.Member{{Node: 1}}, &backup); err != nil {
		fmt.Println(err)
		return
	}
	state := newWords()
	if _, err := fresh.StartGroup(ctx, raft.GroupConfig{ID: 7, StateMachine: state}); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(state.count("word"))
	// Output: 1
}

// Two of three nodes are lost for good. The store of the third is looked at, and the group goes
// on with it alone.
func ExampleRecoverConfig() {
	ctx := context.Background()
	store := memory.Open(memory.Config{})
	network, err := inproc.New(ctx, inproc.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	transport := endpoint(network, 1)
	start := func() (*raft.Node, error) {
		return raft.Start(ctx, raft.Config{Cluster: "example", Node: 1, Transport: transport, Store: store})
	}
	node, err := start()
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := node.Bootstrap(ctx, 1, []uint64{1, 2, 3}); err != nil {
		fmt.Println(err)
		return
	}
	if err := node.Close(); err != nil {
		fmt.Println(err)
		return
	}

	remains, err := raft.Inspect(ctx, store)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range remains {
		fmt.Printf("group %d of %d members, up to index %d of term %d\n", r.Group, len(r.Members), r.Last, r.LastTerm)
	}
	cfg := raft.RecoverConfig{Cluster: "example", Node: 1, Group: 1, Store: store}
	var refused *synod.ConfigError
	if errors.As(raft.Recover(ctx, cfg), &refused) {
		fmt.Println("set", refused.Field)
	}
	cfg.AcceptLoss = true
	if err := raft.Recover(ctx, cfg); err != nil {
		fmt.Println(err)
		return
	}
	if node, err = start(); err != nil {
		fmt.Println(err)
		return
	}
	defer node.Close()
	group, err := node.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: newWords()})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(group.Barrier(ctx), group.Status().Members)
	// Output:
	// group 1 of 3 members, up to index 1 of term 1
	// set AcceptLoss
	// <nil> [1]
}
