package kv_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/sim"
	"github.com/synod-go/synod/txn/kv"
)

// TestNobodyStarves: eight clients on each of three nodes write the same keys, which one of the nodes leads: its own would have them for
// themselves. Each gets its share, and waits for seconds at most, of simulated time.
func TestNobodyStarves(t *testing.T) {
	for _, keys := range [][]string{{"ax"}, {"ax", "bx"}, {"ax", "bx", "cx"}} {
		t.Run(fmt.Sprint(keys), func(t *testing.T) {
			commits, worst := crowd(t, keys)
			t.Log(commits, worst)
			total := 0
			for _, n := range commits {
				total += n
			}
			for id, n := range commits {
				require.Greater(t, n, total/20, "node %d: %v", id, commits)
			}
			require.Less(t, worst, 2*time.Second)
		})
	}
	commits, _ := crowd(t, []string{"ax", "bx"}, "kv: nothing is kept for who waits")
	require.Less(t, commits[2]+commits[3], commits[1]/20, "nothing needs to be kept: %v", commits)
}

func crowd(t *testing.T, keys []string, bugs ...string) (commits map[uint64]int, worst time.Duration) {
	commits = make(map[uint64]int)
	result := sim.Execute(sim.Config{Seed: 1, Delay: time.Millisecond, Jitter: 100 * time.Microsecond, Sync: 1, Calm: true, Bugs: bugs}, func(w *sim.World) {
		dbs, _ := openThree(w, "raft")
		ctx := w.Context()
		end := w.Now() + 5*time.Second
		clients := 24
		for c := range clients {
			id := uint64(c%3 + 1)
			sim.Go(ctx, func() {
				defer func() { clients-- }()
				for w.Now() < end {
					before := w.Now()
					if err := dbs[id].Update(ctx, func(tx *kv.Tx) error {
						for _, k := range keys {
							if _, err := tx.Get([]byte(k)); err != nil && err != kv.ErrNotFound {
								return err
							}
							if err := tx.Put([]byte(k), []byte{byte(id)}); err != nil {
								return err
							}
						}
						return nil
					}); err != nil {
						w.Failf("update", "node %d: %v", id, err)
					}
					worst = max(worst, w.Now()-before)
					commits[id]++
				}
			})
		}
		for clients > 0 {
			_ = sim.Sleep(ctx, 100*time.Millisecond)
		}
	})
	require.NoError(t, result.Err)
	return commits, worst
}
