package sim

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
)

// TestWhatHasHealedRuns: also a node that was paused before its n-th operation, and gets there as it goes on; or has got there at that very moment.
func TestWhatHasHealedRuns(t *testing.T) {
	for _, paused := range []bool{false, true} {
		r := Execute(Config{Seed: 1}, func(w *World) {
			n := w.AddNode(1, func(ctx context.Context, env *Env) (func(), error) {
				Go(ctx, func() {
					for Sleep(ctx, 100*time.Millisecond) == nil {
						var b storage.Batch
						b.Set([]byte("key"), []byte("value"))
						_ = env.Store.Commit(&b)
					}
				})
				return nil, nil
			})
			_ = Sleep(w.Context(), 10*time.Millisecond)
			n.crashAt = 1
			if paused {
				n.Pause()
				_ = Sleep(w.Context(), time.Second)
			} else {
				n.operation()
			}
			w.Heal()
			_ = Sleep(w.Context(), time.Second)
			if !n.Running() {
				w.Failf("healed", "node %d does not run", n.ID)
			}
		})
		require.NoError(t, r.Err, "paused: %v", paused)
	}
}
