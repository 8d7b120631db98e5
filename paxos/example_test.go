package paxos_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/paxos"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/transport/inproc"
)

// words is a state machine: it counts words.
type words struct {
	mu     sync.Mutex
	counts map[string]int
}

func newWords() *words { return &words{counts: make(map[string]int)} }

// Apply counts a word and answers how often it has come.
func (w *words) Apply(_ uint64, command []byte) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	word := string(command)
	w.counts[word]++
	return fmt.Append(nil, w.counts[word])
}

// Snapshot captures the counts: a copy, so that it may be written while Apply goes on.
func (w *words) Snapshot() (io.WriterTo, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return image(maps.Clone(w.counts)), nil
}

// Restore replaces the counts.
func (w *words) Restore(r io.Reader) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts = make(map[string]int)
	return json.NewDecoder(r).Decode(&w.counts)
}

func (w *words) count(word string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts[word]
}

type image map[string]int

// WriteTo writes the same bytes for the same counts: JSON sorts the keys of a map.
func (i image) WriteTo(w io.Writer) (int64, error) {
	b, err := json.Marshal(i)
	if err != nil {
		return 0, err
	}
	n, err := w.Write(b)
	return int64(n), err
}

// openNode starts a node of a cluster that lives in this process.
func openNode(ctx context.Context, network *inproc.Network, id uint64) (*paxos.Node, func(), error) {
	transport, err := network.Open(id) // between machines: tcp.Listen
	if err != nil {
		return nil, nil, err
	}
	store := memory.Open(memory.Config{}) // on disk: pebble.Open
	node, err := paxos.Start(ctx, paxos.Config{Cluster: "words", Node: id, Transport: transport, Store: store})
	if err != nil {
		return nil, nil, err
	}
	return node, func() { node.Close(); store.Close(); transport.Close() }, nil
}

// A cluster of three: a command that one node takes is applied by all.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	network, err := inproc.New(ctx, inproc.Config{})
	if err != nil {
		panic(err)
	}
	groups, machines := make(map[uint64]*paxos.Group), make(map[uint64]*words)
	for id := uint64(1); id <= 3; id++ {
		node, stop, err := openNode(ctx, network, id)
		if err != nil {
			panic(err)
		}
		defer stop()
		// Once in the group's life, with the same members on each of them.
		if err := node.Bootstrap(ctx, 1, []uint64{1, 2, 3}); err != nil {
			panic(err)
		}
		machines[id] = newWords()
		groups[id], err = node.StartGroup(ctx, paxos.GroupConfig{ID: 1, StateMachine: machines[id]})
		if err != nil {
			panic(err)
		}
	}
	// Any node takes barriers. The first one waits for the first leader.
	if err := groups[1].Barrier(ctx); err != nil {
		panic(err)
	}
	// The leader takes proposals; the others say who it is, if they know.
	propose := func(word string) string {
		for at := uint64(1); ; {
			result, err := groups[at].Propose(ctx, []byte(word))
			var elsewhere *synod.NotLeaderError
			switch {
			case err == nil:
				return string(result)
			case !errors.As(err, &elsewhere):
				panic(err)
			case elsewhere.Leader != 0:
				at = elsewhere.Leader
			default:
				_ = groups[at].Barrier(ctx) // until there is a leader
			}
		}
	}
	for _, word := range strings.Fields("to be or not to be") {
		fmt.Println(word, propose(word))
	}
	for id := uint64(1); id <= 3; id++ {
		if err := groups[id].Barrier(ctx); err != nil { // what was acknowledged is here now
			panic(err)
		}
		fmt.Println("node", id, "counts", machines[id].count("be"))
	}
	// Output:
	// to 1
	// be 1
	// or 1
	// not 1
	// to 2
	// be 2
	// node 1 counts 2
	// node 2 counts 2
	// node 3 counts 2
}

// single starts a node that is a cluster by itself.
func single(ctx context.Context) (*paxos.Node, func()) {
	network, err := inproc.New(ctx, inproc.Config{})
	if err != nil {
		panic(err)
	}
	node, stop, err := openNode(ctx, network, 1)
	if err != nil {
		panic(err)
	}
	return node, stop
}

// A node hosts many groups, and tells what happens to them.
func ExampleNode() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	node, stop := single(ctx)
	defer stop()
	for id := uint64(1); id <= 2; id++ {
		events := node.Events(ctx) // from now on
		if err := node.Bootstrap(ctx, id, []uint64{1}); err != nil {
			panic(err)
		}
		if _, err := node.StartGroup(ctx, paxos.GroupConfig{ID: id, StateMachine: newWords()}); err != nil {
			panic(err)
		}
		for e := range events {
			if e.Kind == synod.EventLeaderChanged && e.Leader != 0 {
				fmt.Printf("group %d: %v: node %d\n", e.Group, e.Kind, e.Leader)
				break
			}
		}
	}
	err := node.Bootstrap(ctx, 1, []uint64{1})
	fmt.Println("again:", errors.Is(err, paxos.ErrBootstrapped))
	for _, g := range node.Status().Groups {
		fmt.Printf("group %d: members %v, error %v\n", g.Group, g.Members, g.Err)
	}
	// Output:
	// group 1: leader changed: node 1
	// group 2: leader changed: node 1
	// again: true
	// group 1: members [1], error <nil>
	// group 2: members [1], error <nil>
}

// The three outcomes of a proposal.
func ExampleGroup() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	node, stop := single(ctx)
	defer stop()
	if err := node.Bootstrap(ctx, 1, []uint64{1}); err != nil {
		panic(err)
	}
	group, err := node.StartGroup(ctx, paxos.GroupConfig{ID: 1, StateMachine: newWords()})
	if err != nil {
		panic(err)
	}
	if err := group.Barrier(ctx); err != nil { // there is a leader now
		panic(err)
	}
	propose := func(ctx context.Context, command string) {
		result, err := group.Propose(ctx, []byte(command))
		switch {
		case err == nil:
			fmt.Println("applied, with the result", string(result))
		case errors.Is(err, synod.ErrUnknownOutcome):
			fmt.Println("applied or not:", err)
		default:
			fmt.Println("certainly not applied:", err)
		}
	}
	propose(ctx, "hello")
	over, end := context.WithCancel(ctx)
	end()
	propose(over, "hello")
	group.Close()
	propose(ctx, "hello")
	// Output:
	// applied, with the result 1
	// certainly not applied: group 1: not executed: context canceled
	// certainly not applied: group 1: synod: closed
}

// What is left zero gets a default; what is missing or wrong is named.
func ExampleConfig() {
	ctx := context.Background()
	network, err := inproc.New(ctx, inproc.Config{})
	if err != nil {
		panic(err)
	}
	transport, err := network.Open(1)
	if err != nil {
		panic(err)
	}
	cfg := paxos.Config{
		Cluster:           "words",
		Node:              1,
		Transport:         transport,
		HeartbeatInterval: 100 * time.Millisecond, // between distant sites
		ElectionTimeout:   2 * time.Second,
	}
	_, err = paxos.Start(ctx, cfg)
	var wrong *synod.ConfigError
	fmt.Println(errors.As(err, &wrong), wrong.Field)
	fmt.Println(err)
	cfg.Store = memory.Open(memory.Config{})
	node, err := paxos.Start(ctx, cfg)
	if err != nil {
		panic(err)
	}
	fmt.Println(node.Status().Cluster, node.Close())
	// Output:
	// true Store
	// paxos: Config.Store: missing: use storage/pebble, or an implementation of your own
	// words <nil>
}

// A group whose log stays short: it takes a snapshot every hundred entries and keeps
// the last ten beside it.
func ExampleGroupConfig() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	node, stop := single(ctx)
	defer stop()
	if err := node.Bootstrap(ctx, 1, []uint64{1}); err != nil {
		panic(err)
	}
	events := node.Events(ctx)
	group, err := node.StartGroup(ctx, paxos.GroupConfig{
		ID:              1,
		StateMachine:    newWords(),
		SnapshotEntries: 100,
		RetainEntries:   10,
	})
	if err != nil {
		panic(err)
	}
	if err := group.Barrier(ctx); err != nil {
		panic(err)
	}
	for range 150 {
		if _, err := group.Propose(ctx, []byte("again")); err != nil {
			panic(err)
		}
	}
	for e := range events {
		if e.Kind == synod.EventSnapshotTaken {
			fmt.Println(e.Kind)
			break
		}
	}
	// Opened anew, the state comes from the snapshot and the rest of the log.
	if err := group.Close(); err != nil {
		panic(err)
	}
	machine := newWords()
	group, err = node.StartGroup(ctx, paxos.GroupConfig{ID: 1, StateMachine: machine})
	if err != nil {
		panic(err)
	}
	if err := group.Barrier(ctx); err != nil {
		panic(err)
	}
	fmt.Println("again:", machine.count("again"))
	// Output:
	// snapshot taken
	// again: 150
}

// A command that is sent again, since nobody knows what became of it, is applied once.
func ExampleSession() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	node, stop := single(ctx)
	defer stop()
	if err := node.Bootstrap(ctx, 1, []uint64{1}); err != nil {
		panic(err)
	}
	machine := newWords()
	group, err := node.StartGroup(ctx, paxos.GroupConfig{ID: 1, StateMachine: machine})
	if err != nil {
		panic(err)
	}
	if err := group.Barrier(ctx); err != nil { // there is a leader now
		panic(err)
	}
	id, err := group.OpenSession(ctx, time.Hour)
	if err != nil {
		panic(err)
	}
	session := paxos.NewSession(id, 0)
	// The answer to the first attempt is lost, as when the leader dies at the wrong moment.
	attempts := 0
	result, err := session.Do(ctx, func(ctx context.Context, r synod.Request) ([]byte, error) {
		result, err := group.ProposeOnce(ctx, r, []byte("hello")) // in a cluster: on the node that leads
		if attempts++; attempts == 1 && err == nil {
			return nil, fmt.Errorf("the connection broke: %w", synod.ErrUnknownOutcome)
		}
		return result, err
	})
	fmt.Printf("%d attempts: %s, %v\n", attempts, result, err)
	fmt.Println("counted:", machine.count("hello"))

	// Where there is but one node to ask, or a log that finds the leader by itself:
	result, err = session.Propose(ctx, group, []byte("hello"))
	fmt.Printf("another one: %s, %v\n", result, err)

	if err := group.CloseSession(ctx, session.ID()); err != nil {
		panic(err)
	}
	_, err = session.Propose(ctx, group, []byte("hello"))
	fmt.Println("closed:", errors.Is(err, synod.ErrSessionExpired), errors.Is(err, synod.ErrUnknownOutcome))
	// Output:
	// 2 attempts: 1, <nil>
	// counted: 1
	// another one: 2, <nil>
	// closed: true false
}
