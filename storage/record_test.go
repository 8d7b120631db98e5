package storage_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
)

func TestRecord(t *testing.T) {
	key, payload := []byte("key"), []byte("payload")
	record := storage.AppendRecord([]byte("before"), key, payload)
	require.Equal(t, "before", string(record[:6]))
	record = record[6:]
	require.Len(t, record, len(payload)+storage.RecordOverhead)

	got, err := storage.OpenRecord(key, record)
	require.NoError(t, err)
	require.Equal(t, payload, got)

	inPlace := append(storage.BeginRecord(nil), payload...)
	storage.SealRecord(inPlace, key)
	require.Equal(t, record, inPlace)

	empty := storage.AppendRecord(nil, key, nil)
	got, err = storage.OpenRecord(key, empty)
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestRecordCorrupt(t *testing.T) {
	key := []byte("key")
	record := storage.AppendRecord(nil, key, []byte("payload"))
	refused := func(key, record []byte, what string) {
		t.Helper()
		_, err := storage.OpenRecord(key, record)
		require.ErrorIs(t, err, storage.ErrCorrupt, what)
		require.NotErrorIs(t, err, storage.ErrNotFound, what)
		var corrupt *storage.CorruptError
		require.ErrorAs(t, err, &corrupt)
		require.Equal(t, key, corrupt.Key, what)
	}
	for bit := range len(record) * 8 {
		flipped := bytes.Clone(record)
		flipped[bit/8] ^= 1 << (bit % 8)
		refused(key, flipped, fmt.Sprintf("bit %d", bit))
	}
	for n := range len(record) {
		refused(key, record[:n], fmt.Sprintf("cut to %d", n))
	}
	refused(key, append(bytes.Clone(record), 0), "a byte too many")
	refused([]byte("kez"), record, "under another key")
	refused([]byte("ke"), record, "under a shorter key")
	refused([]byte("keyy"), record, "under a longer key")

	// A record whose seal is good and whose version is of the future.
	future := bytes.Clone(record)
	future[4] = 2
	storage.SealRecord(future, key)
	refused(key, future, "version 2")
	_, err := storage.OpenRecord(key, future)
	require.ErrorContains(t, err, "version 2")
}

// Bytes that move from the key to the payload must not go unnoticed, even where
// they look like the record's head.
func TestRecordBoundary(t *testing.T) {
	record := storage.AppendRecord(nil, []byte("a\x01b"), []byte("c"))
	moved := append(bytes.Clone(record[:storage.RecordOverhead]), "b\x01c"...)
	_, err := storage.OpenRecord([]byte("a"), moved)
	require.ErrorIs(t, err, storage.ErrCorrupt)
}

func FuzzOpenRecord(f *testing.F) {
	f.Add([]byte("key"), []byte("payload"), []byte{})
	f.Add([]byte("key"), []byte{}, []byte{1, 2, 3, 4, 1, 9})
	f.Fuzz(func(t *testing.T, key, payload, garbage []byte) {
		got, err := storage.OpenRecord(key, storage.AppendRecord(nil, key, payload))
		require.NoError(t, err)
		require.True(t, bytes.Equal(payload, got))

		if got, err := storage.OpenRecord(key, garbage); err == nil {
			require.Equal(t, garbage, storage.AppendRecord(nil, key, got))
		} else {
			var corrupt *storage.CorruptError
			require.True(t, errors.As(err, &corrupt))
		}
	})
}

func ExampleOpenRecord() {
	record := storage.AppendRecord(nil, []byte("log/7"), []byte("hello"))

	payload, err := storage.OpenRecord([]byte("log/7"), record)
	fmt.Printf("%s %v\n", payload, err)

	_, err = storage.OpenRecord([]byte("log/8"), record)
	fmt.Println(errors.Is(err, storage.ErrCorrupt))
	// Output:
	// hello <nil>
	// true
}
