package storagetest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/storagetest"
)

// fileStore is a store of one's own, in about a page: a map, and a file to which
// every batch is appended as one sealed record.
type fileStore struct {
	mu     sync.Mutex
	values map[string][]byte // nil after Close
	file   *os.File
	failed error
}

var recordKey = []byte("batch")

func openFileStore(dir string) (*fileStore, error) {
	file, err := os.OpenFile(filepath.Join(dir, "log"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	s := &fileStore{values: map[string][]byte{}, file: file}
	log, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	end := 0
	for len(log)-end >= 4 {
		n := int(binary.LittleEndian.Uint32(log[end:]))
		if n > len(log)-end-4 {
			break // the crash cut the last record
		}
		record, err := storage.OpenRecord(recordKey, log[end+4:end+4+n])
		if err != nil {
			return nil, err
		}
		for len(record) > 0 {
			var op storage.Op
			op.Kind, record = storage.Kind(record[0]), record[1:]
			for _, field := range []*[]byte{&op.Key, &op.Value, &op.End} {
				n, w := binary.Uvarint(record)
				*field, record = record[w:w+int(n)], record[w+int(n):]
			}
			s.apply(op)
		}
		end += 4 + n
	}
	if err := errors.Join(file.Truncate(int64(end)), file.Sync()); err != nil {
		return nil, err
	}
	_, err = file.Seek(int64(end), io.SeekStart)
	return s, err
}

func inRange(key string, from, to []byte) bool {
	return key >= string(from) && (len(to) == 0 || key < string(to))
}

func (s *fileStore) apply(op storage.Op) {
	switch op.Kind {
	case storage.KindSet:
		s.values[string(op.Key)] = bytes.Clone(op.Value)
	case storage.KindDelete:
		delete(s.values, string(op.Key))
	case storage.KindDeleteRange:
		for k := range s.values {
			if inRange(k, op.Key, op.End) {
				delete(s.values, k)
			}
		}
	}
}

func (s *fileStore) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		return nil, storage.ErrClosed
	}
	v, ok := s.values[string(key)]
	if !ok {
		return nil, storage.ErrNotFound
	}
	return bytes.Clone(v), nil
}

func (s *fileStore) Scan(from, to []byte) (storage.Iterator, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		return nil, storage.ErrClosed
	}
	it := &fileIterator{store: s}
	for k, v := range s.values {
		if inRange(k, from, to) {
			it.pairs = append(it.pairs, [2][]byte{[]byte(k), v})
		}
	}
	slices.SortFunc(it.pairs, func(a, b [2][]byte) int { return bytes.Compare(a[0], b[0]) })
	return it, nil
}

func (s *fileStore) Commit(b *storage.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		return storage.ErrClosed
	}
	if err := storage.Validate(b); err != nil || s.failed != nil {
		return errors.Join(err, s.failed)
	}
	buf := storage.BeginRecord(make([]byte, 4))
	for _, op := range b.Ops() {
		buf = append(buf, byte(op.Kind))
		for _, field := range [][]byte{op.Key, op.Value, op.End} {
			buf = append(binary.AppendUvarint(buf, uint64(len(field))), field...)
		}
	}
	storage.SealRecord(buf[4:], recordKey)
	binary.LittleEndian.PutUint32(buf, uint32(len(buf)-4))
	_, err := s.file.Write(buf)
	if err := errors.Join(err, s.file.Sync()); err != nil {
		s.failed = fmt.Errorf("%w: %w", storage.ErrFailed, err)
		return s.failed
	}
	for _, op := range b.Ops() {
		s.apply(op)
	}
	return nil
}

func (s *fileStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		return nil
	}
	s.values = nil
	return s.file.Close()
}

type fileIterator struct {
	store *fileStore
	pairs [][2][]byte
}

func (i *fileIterator) Next() (key, value []byte, err error) {
	i.store.mu.Lock()
	defer i.store.mu.Unlock()
	if i.store.values == nil {
		return nil, nil, storage.ErrClosed
	}
	if len(i.pairs) == 0 {
		return nil, nil, io.EOF
	}
	p := i.pairs[0]
	i.pairs = i.pairs[1:]
	return p[0], p[1], nil
}

func (i *fileIterator) Close() error { return nil }

// TestFileStore is the whole test of a store of one's own.
func TestFileStore(t *testing.T) {
	storagetest.Run(t, func(t *testing.T, dir string) storage.Store {
		s, err := openFileStore(dir)
		require.NoError(t, err)
		return s
	})
}

// The store of this example is a map and a file, a page of code. TestFileStore
// proves it.
func Example() {
	dir, err := os.MkdirTemp("", "storagetest")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	store, err := openFileStore(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	var b storage.Batch
	b.Set([]byte("color"), []byte("green"))
	b.Set([]byte("shape"), []byte("round"))
	fmt.Println(store.Commit(&b), store.Close())

	store, err = openFileStore(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	value, err := store.Get([]byte("color"))
	fmt.Printf("%s %v\n", value, err)
	// Output:
	// <nil> <nil>
	// green <nil>
}
