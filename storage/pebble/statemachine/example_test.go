package statemachine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/storage/pebble"
	"github.com/synod-go/synod/storage/pebble/statemachine"
	"github.com/synod-go/synod/transport/inproc"
)

// count is what a command does: it adds to a counter, and answers what it is then.
func count(tx *statemachine.Tx, _ uint64, command []byte) []byte {
	old, _ := tx.Get(command)
	n, _ := strconv.Atoi(string(old)) // 0, if there is none
	tx.Set(command, strconv.AppendInt(nil, int64(n+1), 10))
	return strconv.AppendInt(nil, int64(n+1), 10)
}

// A group of one node whose state is on disk, and there again after a restart.
func Example() {
	dir, err := os.MkdirTemp("", "state")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	network, err := inproc.New(ctx, inproc.Config{})
	if err != nil {
		panic(err)
	}
	log := memory.Open(memory.Config{}) // on disk: pebble.Open, in a directory of its own
	defer log.Close()
	for start := range 2 {
		machine, err := statemachine.Open(statemachine.Config{Dir: dir, Apply: count})
		if err != nil {
			panic(err)
		}
		fmt.Println("commands on disk:", machine.Index())
		transport, err := network.Open(1)
		if err != nil {
			panic(err)
		}
		node, err := raft.Start(ctx, raft.Config{Cluster: "words", Node: 1, Transport: transport, Store: log})
		if err != nil {
			panic(err)
		}
		if start == 0 {
			if err := node.Bootstrap(ctx, 1, []uint64{1}); err != nil {
				panic(err)
			}
		}
		group, err := node.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: machine})
		if err != nil {
			panic(err)
		}
		if err := group.Barrier(ctx); err != nil { // until it leads
			panic(err)
		}
		for _, word := range []string{"to", "be", "or", "not", "to", "be"} {
			if _, err := group.Propose(ctx, []byte(word)); err != nil {
				panic(err)
			}
		}
		if err := group.Barrier(ctx); err != nil {
			panic(err)
		}
		view, err := machine.View()
		if err != nil {
			panic(err)
		}
		n, err := view.Get([]byte("be"))
		fmt.Printf("be: %s %v\n", n, err)
		view.Close()
		node.Close()
		transport.Close()
		if err := machine.Close(); err != nil {
			panic(err)
		}
	}
	// Output:
	// commands on disk: 0
	// be: 2 <nil>
	// commands on disk: 6
	// be: 4 <nil>
}

// A machine can be used without a group, by whoever numbers the commands and calls
// Flush.
func ExampleMachine() {
	machine, err := statemachine.Open(statemachine.Config{Dir: "data", FS: vfs.NewMem(), Apply: count})
	if err != nil {
		panic(err)
	}
	defer machine.Close()
	machine.Apply(1, []byte("a"))
	fmt.Printf("%s\n", machine.Apply(2, []byte("a")))
	durable, err := machine.DurableIndex()
	fmt.Println("applied", machine.Index(), "durable", durable, err)
	fmt.Println(machine.Flush(context.Background()))
	durable, err = machine.DurableIndex()
	fmt.Println("applied", machine.Index(), "durable", durable, err)

	snapshot, err := machine.Snapshot()
	if err != nil {
		panic(err)
	}
	defer snapshot.(io.Closer).Close()
	var stream bytes.Buffer
	if _, err := snapshot.WriteTo(&stream); err != nil {
		panic(err)
	}
	machine.Apply(3, []byte("a"))
	fmt.Println(machine.Restore(&stream), machine.Index())
	// Output:
	// 2
	// applied 2 durable 0 <nil>
	// <nil>
	// applied 2 durable 2 <nil>
	// <nil> 2
}

// A command reads and writes ordered keys.
func ExampleTx() {
	machine, err := statemachine.Open(statemachine.Config{Dir: "data", FS: vfs.NewMem(), Apply: func(tx *statemachine.Tx, _ uint64, command []byte) []byte {
		switch verb, rest, _ := strings.Cut(string(command), " "); verb {
		case "set":
			key, value, _ := strings.Cut(rest, "=")
			tx.Set([]byte(key), []byte(value))
			return []byte("ok")
		case "list":
			var list []string
			for key, value := range tx.Scan([]byte(rest), append([]byte(rest), 0xff)) {
				list = append(list, fmt.Sprintf("%s=%s", key, value))
			}
			return []byte(strings.Join(list, " "))
		case "drop":
			tx.DeleteRange([]byte(rest), append([]byte(rest), 0xff))
			return []byte("ok")
		}
		return []byte("unknown verb") // an answer like others: every replica gives it
	}})
	if err != nil {
		panic(err)
	}
	defer machine.Close()
	for i, command := range []string{"set user/7=ann", "set user/3=bob", "set host=a", "list user/", "drop user/", "list ", "rename x"} {
		fmt.Printf("%s: %s\n", command, machine.Apply(uint64(i+1), []byte(command)))
	}
	// Output:
	// set user/7=ann: ok
	// set user/3=bob: ok
	// set host=a: ok
	// list user/: user/3=bob user/7=ann
	// drop user/: ok
	// list : host=a
	// rename x: unknown verb
}

// A view is the state of one moment.
func ExampleView() {
	machine, err := statemachine.Open(statemachine.Config{Dir: "data", FS: vfs.NewMem(), Apply: count})
	if err != nil {
		panic(err)
	}
	defer machine.Close()
	machine.Apply(1, []byte("a"))
	machine.Apply(2, []byte("b"))
	view, err := machine.View()
	if err != nil {
		panic(err)
	}
	defer view.Close()
	machine.Apply(3, []byte("a")) // later
	it, err := view.Scan(nil, nil)
	if err != nil {
		panic(err)
	}
	keys, values, err := storage.Collect(it)
	fmt.Printf("%s %s %v\n", keys, values, err)
	_, err = view.Get([]byte("c"))
	fmt.Println(view.Index(), errors.Is(err, storage.ErrNotFound))
	// Output:
	// [a b] [1 1] <nil>
	// 2 true
}

// A directory belongs to one open machine.
func ExampleConfig() {
	config := statemachine.Config{
		Dir:           "data",
		FS:            vfs.NewMem(), // nil: the operating system's
		Apply:         count,
		MemTableBytes: 1 << 20,
	}
	machine, err := statemachine.Open(config)
	if err != nil {
		panic(err)
	}
	defer machine.Close()
	_, err = statemachine.Open(config)
	var dir *pebble.DirError
	fmt.Println(errors.Is(err, storage.ErrLocked), errors.As(err, &dir))
	// Output:
	// true true
}
