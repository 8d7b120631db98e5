package storage_test

import (
	"errors"
	"fmt"
	"io"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

// Two commits are under way at once, and become durable in their order.
func ExampleCommitAsync() {
	store := memory.Open(memory.Config{})
	results := make(chan error, 2)
	var first, second storage.Batch
	first.Set([]byte("log/1"), []byte("a"))
	second.Set([]byte("log/2"), []byte("b"))
	storage.CommitAsync(store, &first, func(err error) { results <- err })
	storage.CommitAsync(store, &second, func(err error) { results <- err })
	// … other work …
	fmt.Println(<-results, <-results)
	// Output:
	// <nil> <nil>
}

// An iterator is read to io.EOF, and closed.
func ExampleIterator() {
	store := memory.Open(memory.Config{})
	var b storage.Batch
	b.Set([]byte("log/1"), []byte("a"))
	b.Set([]byte("log/2"), []byte("b"))
	b.Set([]byte("vote"), []byte("3"))
	if err := store.Commit(&b); err != nil {
		fmt.Println(err)
		return
	}

	it, err := store.Scan([]byte("log/"), []byte("log0"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer it.Close()
	for {
		key, value, err := it.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s=%s\n", key, value)
	}
	// Output:
	// log/1=a
	// log/2=b
}

// A view does not change.
func ExampleSnapshotter() {
	var store storage.Store = memory.Open(memory.Config{})
	var b storage.Batch
	b.Set([]byte("k"), []byte("old"))
	if err := store.Commit(&b); err != nil {
		fmt.Println(err)
		return
	}
	snapshotter, ok := store.(storage.Snapshotter)
	if !ok {
		fmt.Println("this store takes no snapshots")
		return
	}
	view, err := snapshotter.Snapshot()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer view.Close()

	b.Reset()
	b.Set([]byte("k"), []byte("new"))
	fmt.Println(store.Commit(&b))
	value, err := view.Get([]byte("k"))
	fmt.Printf("%s %v\n", value, err)
	// Output:
	// <nil>
	// old <nil>
}

// A corrupt record is not a missing one, and says where it is.
func ExampleCorruptError() {
	err := error(&storage.CorruptError{Group: 7, Index: 42, File: "data/000012.sst", Reason: "checksum mismatch"})
	var corrupt *storage.CorruptError
	fmt.Println(errors.Is(err, storage.ErrCorrupt), errors.Is(err, storage.ErrNotFound))
	fmt.Println(errors.As(err, &corrupt), corrupt.Group, corrupt.Index)
	fmt.Println(err)
	// Output:
	// true false
	// true 7 42
	// storage: corrupt record, group 7, index 42, in data/000012.sst: checksum mismatch
}
