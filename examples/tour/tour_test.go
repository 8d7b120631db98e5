package tour

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/transport/inproc"
)

// Counter is a state machine: it adds up numbers.
type Counter struct{ sum atomic.Uint64 }

// Apply executes one command. Every replica sees the same ones in the same order.
func (c *Counter) Apply(index uint64, command []byte) []byte {
	n, _ := binary.Uvarint(command)
	return fmt.Append(nil, c.sum.Add(n))
}

// Snapshot captures the state; it is written out while commands go on.
func (c *Counter) Snapshot() (io.WriterTo, error) { return Sum(c.sum.Load()), nil }

// Restore replaces the state by a snapshot.
func (c *Counter) Restore(r io.Reader) error {
	var sum uint64
	err := binary.Read(r, binary.LittleEndian, &sum)
	c.sum.Store(sum)
	return err
}

type Sum uint64

func (s Sum) WriteTo(w io.Writer) (int64, error) {
	return 8, binary.Write(w, binary.LittleEndian, uint64(s))
}

// member opens one node of the cluster and its replica of the group.
func member(ctx context.Context, network *inproc.Network, id uint64, sm synod.StateMachine) (*raft.Group, func(), error) {
	transport, err := network.Open(id) // between machines: tcp.Listen
	if err != nil {
		return nil, nil, err
	}
	store := memory.Open(memory.Config{}) // on disk: pebble.Open
	node, err := raft.Start(ctx, raft.Config{Cluster: "tour", Node: id, Transport: transport, Store: store})
	if err != nil {
		return nil, nil, err
	}
	// Once in a group's life, on each of its first members.
	if err := node.Bootstrap(ctx, 1, []uint64{1, 2, 3}); err != nil {
		return nil, nil, err
	}
	group, err := node.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: sm})
	stop := func() { node.Close(); store.Close(); transport.Close() }
	return group, stop, err
}

// add proposes a command, and says what became of it.
func add(ctx context.Context, group synod.Log, n uint64) (string, error) {
	result, err := group.Propose(ctx, binary.AppendUvarint(nil, n))
	var elsewhere *synod.NotLeaderError
	switch {
	case err == nil:
		return string(result), nil // applied
	case errors.Is(err, synod.ErrUnknownOutcome):
		return "", err // applied, or not: don't repeat it blindly
	case errors.As(err, &elsewhere):
		return "", fmt.Errorf("ask node %d: %w", elsewhere.Leader, err) // certainly not applied
	default:
		return "", err // certainly not applied
	}
}

// read returns the sum, no older than any add that has returned, on any node.
func read(ctx context.Context, group synod.Log, c *Counter) (uint64, error) {
	if err := group.Barrier(ctx); err != nil {
		return 0, err
	}
	return c.sum.Load(), nil
}

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	network, err := inproc.New(ctx, inproc.Config{})
	if err != nil {
		panic(err)
	}
	var groups []*raft.Group
	var counters []*Counter
	for id := uint64(1); id <= 3; id++ {
		c := &Counter{}
		g, stop, err := member(ctx, network, id, c)
		if err != nil {
			panic(err)
		}
		defer stop()
		groups, counters = append(groups, g), append(counters, c)
	}
	// A barrier waits for the first election.
	if err := groups[0].Barrier(ctx); err != nil {
		panic(err)
	}
	leader := groups[groups[0].Status().Leader-1]
	for _, n := range []uint64{20, 20, 2} {
		sum, err := add(ctx, leader, n)
		fmt.Println(sum, err)
	}
	for i, g := range groups {
		sum, err := read(ctx, g, counters[i])
		fmt.Println("node", i+1, "has", sum, err)
	}
	// Output:
	// 20 <nil>
	// 40 <nil>
	// 42 <nil>
	// node 1 has 42 <nil>
	// node 2 has 42 <nil>
	// node 3 has 42 <nil>
}
