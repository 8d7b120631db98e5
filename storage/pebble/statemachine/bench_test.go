package statemachine_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/storage/pebble/statemachine"
)

// BenchmarkApply applies commands that set one of a million keys, with and without
// reading it before, in batches as the runtime makes them under load. An operation is
// one command. What is flushed and compacted meanwhile counts.
func BenchmarkApply(b *testing.B) {
	for _, size := range []int{100, 1000} {
		for _, batch := range []int{1, 64, 1024} {
			for _, read := range []bool{false, true} {
				b.Run(fmt.Sprintf("size=%d/batch=%d/read=%t", size, batch, read), func(b *testing.B) {
					m, err := statemachine.Open(statemachine.Config{Dir: b.TempDir(), Apply: func(tx *statemachine.Tx, _ uint64, command []byte) []byte {
						if read {
							tx.Has(command[:8])
						}
						tx.Set(command[:8], command[8:])
						return nil
					}})
					if err != nil {
						b.Fatal(err)
					}
					defer m.Close()
					entries := make([]synod.Entry, batch)
					for i := range entries {
						entries[i].Command = make([]byte, size)
						copy(entries[i].Command, noise[i*500:])
					}
					b.SetBytes(int64(size))
					b.ReportAllocs()
					b.ResetTimer()
					for i := uint64(0); i < uint64(b.N); {
						n := min(uint64(batch), uint64(b.N)-i)
						for j := range entries[:n] {
							i++
							entries[j].Index = i
							binary.BigEndian.PutUint64(entries[j].Command, i*0x9e3779b97f4a7c15>>44)
						}
						m.ApplyBatch(entries[:n])
					}
				})
			}
		}
	}
}

// BenchmarkSnapshot captures a state of 64 MiB, and releases it.
func BenchmarkSnapshot(b *testing.B) {
	m, err := statemachine.Open(statemachine.Config{Dir: b.TempDir(), Apply: func(tx *statemachine.Tx, index uint64, _ []byte) []byte {
		tx.Set(binary.BigEndian.AppendUint64(nil, index), noise[index%1000*500:][:64<<10])
		return nil
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	index := uint64(0)
	for ; index < 1024; index++ {
		m.Apply(index+1, nil)
	}
	for b.Loop() {
		index++
		m.Apply(index, nil)
		s, err := m.Snapshot()
		if err != nil {
			b.Fatal(err)
		}
		if err := s.(interface{ Close() error }).Close(); err != nil {
			b.Fatal(err)
		}
	}
}
