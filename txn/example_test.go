package txn_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/txn"
)

// purse is a resource that holds money, in memory: what it prepares is durable as long as the process lives.
type purse struct {
	mu       sync.Mutex
	amount   int
	prepared map[txn.ID]int
}

func (p *purse) Prepare(_ context.Context, r txn.PrepareRequest) (txn.Vote, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var n int
	if _, err := fmt.Sscan(string(r.Work), &n); err != nil {
		return txn.No, err
	}
	free := p.amount
	for _, reserved := range p.prepared {
		free += min(reserved, 0)
	}
	if free+n < 0 {
		return txn.No, fmt.Errorf("there are only %d", free)
	}
	p.prepared[r.ID] = n
	return txn.Yes, nil
}

func (p *purse) Commit(_ context.Context, id txn.ID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.amount += p.prepared[id] // 0 if it is done already
	delete(p.prepared, id)
	return nil
}

func (p *purse) Abort(_ context.Context, id txn.ID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.prepared, id)
	return nil
}

func (p *purse) InDoubt(context.Context) ([]txn.ID, error) { return nil, nil }

// Two nodes of a cluster that lives in this process, and a transfer between them.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	network, err := inproc.New(ctx, inproc.Config{}) // between machines: tcp.Listen
	if err != nil {
		panic(err)
	}
	managers := make(map[uint64]*txn.Manager)
	for id := uint64(1); id <= 2; id++ {
		transport, err := network.Open(id)
		if err != nil {
			panic(err)
		}
		defer transport.Close()
		store := memory.Open(memory.Config{}) // on disk: pebble.Open
		defer store.Close()
		managers[id], err = txn.Start(ctx, txn.Config{Cluster: "example", Node: id, Transport: transport, Store: store,
			Resources: map[string]txn.Resource{"purse": &purse{amount: 100, prepared: make(map[txn.ID]int)}}})
		if err != nil {
			panic(err)
		}
		defer managers[id].Close()
	}
	transfer := func(amount int) error {
		tx, err := managers[1].Begin(ctx)
		if err != nil {
			return err
		}
		return tx.Commit(ctx,
			txn.Participant{Node: 1, Resource: "purse", Work: fmt.Append(nil, -amount)},
			txn.Participant{Node: 2, Resource: "purse", Work: fmt.Append(nil, amount)})
	}
	fmt.Println("70:", transfer(70))
	err = transfer(70)
	var aborted *txn.AbortError
	if errors.As(err, &aborted) {
		fmt.Printf("70: aborted by node %d: %s\n", aborted.Node, aborted.Reason)
	}
	fmt.Println("is it certain?", errors.Is(err, txn.ErrAborted))
	// Output:
	// 70: <nil>
	// 70: aborted by node 1: there are only 30
	// is it certain? true
}

// A decision is written once: whoever comes second learns who was first.
func ExampleLocalLog() {
	ctx := context.Background()
	log, err := txn.OpenLocalLog(ctx, memory.Open(memory.Config{}))
	if err != nil {
		panic(err)
	}
	id := txn.ID{Node: 1, Incarnation: 0xabc, Counter: 1}
	for _, proposal := range []txn.Outcome{txn.Aborted, txn.Committed} {
		winner, err := log.Decide(ctx, txn.Decision{ID: id, Outcome: proposal})
		fmt.Println(proposal, "is proposed:", winner.Outcome, err)
	}
	err = log.Forget(ctx, txn.Progress{Node: 1, Incarnation: 0xabc, Upcoming: 2})
	fmt.Println("forgotten:", err)
	_, err = log.Decide(ctx, txn.Decision{ID: id, Outcome: txn.Committed})
	fmt.Println(err)
	// Output:
	// aborted is proposed: aborted <nil>
	// committed is proposed: aborted <nil>
	// forgotten: <nil>
	// txn: the transaction is over, and its decision forgotten: 1.abc.1
}

func ExampleParseID() {
	id, err := txn.ParseID("3.90d13ba3c3737fad.17")
	fmt.Println(id.Node, id.Counter, err)
	_, err = txn.ParseID("17")
	fmt.Println(err)
	// Output:
	// 3 17 <nil>
	// txn: invalid request: "17" is no transaction ID: it is NODE.INCARNATION.COUNTER
}

// What a manager waits for can be asked at any time.
func ExampleManager_Status() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	network, err := inproc.New(ctx, inproc.Config{})
	if err != nil {
		panic(err)
	}
	transport, err := network.Open(1)
	if err != nil {
		panic(err)
	}
	defer transport.Close()
	manager, err := txn.Start(ctx, txn.Config{Cluster: "example", Node: 1, Transport: transport, Store: memory.Open(memory.Config{})})
	if err != nil {
		panic(err)
	}
	defer manager.Close()
	tx, err := manager.Begin(ctx)
	if err != nil {
		panic(err)
	}
	status, err := manager.Status(ctx)
	fmt.Println(len(status.Transactions), status.Transactions[0].ID == tx.ID(), status.Transactions[0].Phase, err)
	err = tx.Abort(ctx)
	status, _ = manager.Status(ctx)
	fmt.Println(len(status.Transactions), err)
	// Output:
	// 1 true open <nil>
	// 0 <nil>
}

// Three nodes that need no coordinator to end a transaction: any two of them do.
func ExampleProtocol() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	network, err := inproc.New(ctx, inproc.Config{})
	if err != nil {
		panic(err)
	}
	managers := make(map[uint64]*txn.Manager)
	for id := uint64(1); id <= 3; id++ {
		transport, err := network.Open(id)
		if err != nil {
			panic(err)
		}
		defer transport.Close()
		store := memory.Open(memory.Config{})
		defer store.Close()
		managers[id], err = txn.Start(ctx, txn.Config{Cluster: "example", Node: id, Transport: transport, Store: store,
			Protocol:  txn.EnhancedThreePhase, // the same on all nodes
			Resources: map[string]txn.Resource{"purse": &purse{amount: 100, prepared: make(map[txn.ID]int)}}})
		if err != nil {
			panic(err)
		}
		defer managers[id].Close()
	}
	tx, err := managers[1].Begin(ctx)
	if err != nil {
		panic(err)
	}
	err = tx.Commit(ctx,
		txn.Participant{Node: 1, Resource: "purse", Work: []byte("-70")},
		txn.Participant{Node: 2, Resource: "purse", Work: []byte("40")},
		txn.Participant{Node: 3, Resource: "purse", Work: []byte("30")})
	fmt.Println(txn.EnhancedThreePhase, err)
	// Output:
	// enhanced three-phase commit <nil>
}
