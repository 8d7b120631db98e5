package files_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/txn"
	"github.com/synod-go/synod/txn/files"
)

// A file moves from one node's directory to another's: it is in one of them, whatever crashes.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	network, err := inproc.New(ctx, inproc.Config{}) // between machines: tcp.Listen
	if err != nil {
		panic(err)
	}
	managers, documents, dirs := map[uint64]*txn.Manager{}, map[uint64]*files.Resource{}, map[uint64]string{}
	for id := uint64(1); id <= 2; id++ {
		if dirs[id], err = os.MkdirTemp("", "files"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(dirs[id])
		if documents[id], err = files.Open(ctx, files.Config{Dir: dirs[id]}); err != nil {
			panic(err)
		}
		defer documents[id].Close()
		transport, err := network.Open(id)
		if err != nil {
			panic(err)
		}
		defer transport.Close()
		managers[id], err = txn.Start(ctx, txn.Config{Cluster: "example", Node: id, Transport: transport,
			Store:     memory.Open(memory.Config{}), // on disk: pebble.Open
			Resources: map[string]txn.Resource{"documents": documents[id]}})
		if err != nil {
			panic(err)
		}
		defer managers[id].Close()
	}
	if err := os.WriteFile(filepath.Join(dirs[1], "letter"), []byte("Dear all"), 0o644); err != nil {
		panic(err)
	}

	tx, err := managers[1].Begin(ctx)
	if err != nil {
		panic(err)
	}
	here, err := documents[1].Begin(ctx, tx.ID())
	if err != nil {
		panic(err)
	}
	letter, err := here.ReadFile("letter")
	if err != nil {
		panic(err)
	}
	if err := here.Remove("letter"); err != nil {
		panic(err)
	}
	err = tx.Commit(ctx,
		txn.Participant{Node: 1, Resource: "documents"},
		txn.Participant{Node: 2, Resource: "documents", Work: files.Work(files.Change{Path: "archive/letter", Data: letter})})
	fmt.Println("committed:", err)
	if err != nil {
		return
	}

	// Commit returns when it is decided. Each file has its place a moment later.
	for content := []byte(nil); content == nil; {
		if content, err = os.ReadFile(filepath.Join(dirs[2], "archive", "letter")); err == nil {
			fmt.Printf("there: %s\n", content)
		} else if !errors.Is(err, os.ErrNotExist) {
			panic(err)
		}
	}
	// Output:
	// committed: <nil>
	// there: Dear all
}

func ExampleWork() {
	work := files.Work(
		files.Change{Path: "invoices/17.txt", Data: []byte("12 chairs")},
		files.Change{Path: "drafts/17.txt", Remove: true})
	fmt.Println(txn.Participant{Node: 2, Resource: "documents", Work: work}.Resource, len(work))
	// Output:
	// documents 44
}
