package pebble_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/pebble"
)

// BenchmarkCommitAsync commits small batches, as a raft log does, with so many
// of them under way at once. An operation is one batch.
func BenchmarkCommitAsync(b *testing.B) {
	for _, size := range []int{128, 4 << 10, 64 << 10} {
		for _, depth := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("size=%d/depth=%d", size, depth), func(b *testing.B) {
				s, err := pebble.Open(pebble.Config{Dir: b.TempDir()})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				type slot struct {
					batch storage.Batch
					key   []byte
					done  func(error)
				}
				free := make(chan *slot, depth)
				value := make([]byte, size)
				for range depth {
					sl := &slot{}
					sl.done = func(err error) {
						if err != nil {
							b.Error(err)
						}
						free <- sl
					}
					free <- sl
				}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					sl := <-free
					sl.batch.Reset()
					sl.key = binary.BigEndian.AppendUint64(append(sl.key[:0], "log/"...), uint64(i))
					sl.batch.Set(sl.key, value)
					sl.batch.Set([]byte("state"), sl.key)
					if i%1000 == 999 {
						sl.batch.DeleteRange([]byte("log/"), sl.key)
					}
					s.CommitAsync(&sl.batch, sl.done)
				}
				for range depth {
					<-free
				}
			})
		}
	}
}

// BenchmarkFill compares syncs of logs with and without zeros written ahead.
func BenchmarkFill(b *testing.B) {
	for _, dont := range []bool{false, true} {
		b.Run(fmt.Sprintf("fill=%t", !dont), func(b *testing.B) {
			s, err := pebble.Open(pebble.Config{Dir: b.TempDir(), DontFillLogs: dont})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			var batch storage.Batch
			batch.Set([]byte("key"), make([]byte, 300))
			for b.Loop() {
				if err := s.Commit(&batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
