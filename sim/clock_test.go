package sim

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestATimerMayBeFarAway(t *testing.T) {
	c := clock{drift: -0.25}
	require.Greater(t, c.takes(time.Hour, 1<<63-1), 100*24*time.Hour)
}

// TestATimerIsNotEarly: when it strikes, the clock of its node has gone on by as much as was asked for, and would not have a moment before. Whoever sets it
// again for the rest would set it again and again.
func TestATimerIsNotEarly(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		var c clock
		now := time.Duration(r.Int64N(int64(time.Hour)))
		c.setDrift(now, []float64{0, 0.25, -0.25, 1e-4, -1e-4, 3e-9, -3e-9, r.Float64() - 0.5}[r.IntN(8)])
		now += time.Duration(r.Int64N(int64(time.Hour)))
		d := time.Duration(r.Int64N(1 << r.IntN(50)))
		takes := c.takes(now, d)
		require.GreaterOrEqual(t, c.at(now+takes), c.at(now)+d, "%v of %+v at %v", d, c, now)
		if takes > 0 {
			require.Less(t, c.at(now+takes-1), c.at(now)+d, "%v of %+v at %v", d, c, now)
		}
	}
}
