package check

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// largeHistory has processes run transactions side by side, each of which takes effect at
// one moment. Of all keys ten are in use; a key is given up after a hundred writes.
func largeHistory(transactions, processes int, registers bool, scans int, rng *rand.Rand) History {
	const active, writes = 10, 100
	var r Recorder
	state := map[string][]int64{}
	var keys [active]string
	var left [active]int
	made := 0
	recordings := make([]*Recording, processes)
	for n := 0; n < transactions; {
		p := rng.IntN(processes)
		if recordings[p] == nil {
			recordings[p] = r.Begin(p + 1)
			continue
		}
		n++
		rec := recordings[p]
		for range 1 + rng.IntN(4) {
			k := rng.IntN(active)
			if left[k] == 0 {
				made++
				keys[k], left[k] = fmt.Sprintf("key%06d", made), writes
			}
			key := keys[k]
			switch {
			case scans > 0 && rng.IntN(scans) == 0:
				found := map[string][]int64{}
				for _, key := range keys {
					if key >= keys[0] && len(state[key]) > 0 {
						found[key] = state[key]
					}
				}
				for i := 1; i <= made; i++ { // those that were given up are still there
					if key := fmt.Sprintf("key%06d", i); key >= keys[0] && len(state[key]) > 0 {
						found[key] = state[key]
					}
				}
				rec.Scan(keys[0], "", found)
			case rng.IntN(2) == 0:
				rec.Read(key, state[key]...)
			case registers:
				left[k]--
				state[key] = []int64{r.Unique()}
				rec.Write(key, state[key][0])
			default:
				left[k]--
				state[key] = append(state[key], r.Unique())
				rec.Append(key, state[key][len(state[key])-1])
			}
		}
		rec.Commit()
		recordings[p] = nil
	}
	return r.History()
}

func BenchmarkCheck(b *testing.B) {
	for _, c := range []struct {
		name      string
		n         int
		processes int
		registers bool
		scans     int
	}{
		{"lists/20000", 20_000, 20, false, 0},
		{"lists/200000", 200_000, 20, false, 0},
		{"lists/20000/1000 processes", 20_000, 1000, false, 0},
		{"registers/20000", 20_000, 20, true, 0},
		{"registers/200000", 200_000, 20, true, 0},
		{"scans/20000", 20_000, 20, false, 20},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := largeHistory(c.n, c.processes, c.registers, c.scans, rand.New(rand.NewPCG(1, 2)))
			b.ReportAllocs()
			for b.Loop() {
				report, err := h.Check(Config{})
				require.NoError(b, err)
				require.True(b, report.OK())
			}
			b.ReportMetric(float64(c.n)*float64(b.N)/b.Elapsed().Seconds(), "transactions/s")
		})
	}
	// Much is wrong: all transactions depend on each other.
	for _, level := range []engineLevel{freshShots, committed, uncommitted} {
		b.Run("broken/20000/"+string(level), func(b *testing.B) {
			h := makeHistory(level, options{transactions: 20_000, clients: 10, operations: 4, keys: 4, registers: true}, rand.New(rand.NewPCG(1, 2)))
			b.ReportAllocs()
			for b.Loop() {
				report, err := h.Check(Config{})
				require.NoError(b, err)
				require.False(b, report.OK())
			}
			b.ReportMetric(20_000*float64(b.N)/b.Elapsed().Seconds(), "transactions/s")
		})
	}
}
