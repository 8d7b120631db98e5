package kv

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/sim"
)

// TestOutcomesAreToldThoughTheClockDrifts: timers are set again for what is left of a time, by a clock that is faster or slower than the world.
func TestOutcomesAreToldThoughTheClockDrifts(t *testing.T) {
	for _, drift := range []float64{0.01, -0.01, 0.3, -0.3} {
		result := sim.Execute(sim.Config{Seed: 1, Calm: true, MaxEvents: 100_000}, func(w *sim.World) {
			var db *DB
			w.AddNode(1, func(ctx context.Context, _ *sim.Env) (func(), error) {
				cfg := Config{Route: routeByLast(2)}
				for range 2 {
					l := &soloLog{machine: NewMachine()}
					cfg.Groups = append(cfg.Groups, Group{l, l.machine})
				}
				var err error
				db, err = Open(ctx, cfg)
				return nil, err
			})
			ctx := w.Context()
			_ = sim.Sleep(ctx, time.Millisecond)
			w.Node(1).SetDrift(drift)
			for range 50 {
				if err := db.Update(ctx, func(tx *Tx) error {
					_ = tx.Put([]byte("x0"), []byte("1"))
					return tx.Put([]byte("x1"), []byte("1"))
				}); err != nil {
					w.Fail(err)
				}
				_ = sim.Sleep(ctx, 10*time.Millisecond)
			}
			if open := db.Status().Open; open > 0 {
				w.Failf("told", "%d transactions are not over", open)
			}
		})
		require.NoError(t, result.Err)
	}
}
