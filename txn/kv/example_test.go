package kv_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/txn/kv"
)

// example runs two groups of one replica each, and a DB over them: what starts with a letter below n is in the first.
func example(ctx context.Context) (*kv.DB, func(), error) {
	network, err := inproc.New(ctx, inproc.Config{})
	if err != nil {
		return nil, nil, err
	}
	tr, err := network.Open(1)
	if err != nil {
		return nil, nil, err
	}
	node, err := raft.Start(ctx, raft.Config{Cluster: "example", Node: 1, Transport: tr, Store: memory.Open(memory.Config{})})
	if err != nil {
		return nil, nil, err
	}
	cfg := kv.Config{Route: func(key []byte) int {
		if key[0] < 'n' {
			return 0
		}
		return 1
	}}
	for id := uint64(1); id <= 2; id++ {
		machine := kv.NewMachine()
		if err := node.Bootstrap(ctx, id, []uint64{1}); err != nil {
			return nil, nil, err
		}
		group, err := node.StartGroup(ctx, raft.GroupConfig{ID: id, StateMachine: machine})
		if err != nil {
			return nil, nil, err
		}
		// With more than one node: txn.NewForwarder over the group.
		cfg.Groups = append(cfg.Groups, kv.Group{Log: group, Machine: machine})
	}
	db, err := kv.Open(ctx, cfg)
	return db, func() { db.Close(); node.Close() }, err
}

func Example() {
	ctx := context.Background()
	db, stop, err := example(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	err = db.Update(ctx, func(tx *kv.Tx) error {
		if err := tx.Put([]byte("alice"), []byte("10")); err != nil {
			return err
		}
		return tx.Put([]byte("zoe"), []byte("20"))
	})
	fmt.Println("two groups, one round:", err)

	before := db.Now()
	err = db.Update(ctx, func(tx *kv.Tx) error {
		if err := tx.Expect([]byte("alice"), []byte("10")); err != nil {
			return err
		}
		return tx.Delete([]byte("alice"))
	})
	fmt.Println("compare and delete:", err)

	_ = db.View(ctx, func(tx *kv.Tx) error {
		_, err := tx.Get([]byte("alice"))
		fmt.Println("alice:", err)
		pairs, err := tx.Scan(nil, nil, 0)
		for _, p := range pairs {
			fmt.Printf("%s: %s\n", p.Key, p.Value)
		}
		return err
	})
	_ = db.ViewAt(ctx, before, func(tx *kv.Tx) error {
		value, err := tx.Get([]byte("alice"))
		fmt.Printf("alice, before: %s\n", value)
		return err
	})
	// Output:
	// two groups, one round: <nil>
	// compare and delete: <nil>
	// alice: kv: not found
	// zoe: 20
	// alice, before: 10
}

func ExampleMismatchError() {
	ctx := context.Background()
	db, stop, err := example(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()
	err = db.Update(ctx, func(tx *kv.Tx) error {
		return tx.Expect([]byte("lock"), []byte("mine"))
	})
	var mismatch *kv.MismatchError
	fmt.Println(errors.As(err, &mismatch), errors.Is(err, kv.ErrMismatch))
	fmt.Printf("%s\n", mismatch.Key)
	// Output:
	// true true
	// lock
}
