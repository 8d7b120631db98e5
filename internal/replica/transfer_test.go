package replica

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/executor"
)

func TestPace(t *testing.T) {
	const rate = 1 << 20
	clock := &stoppedClock{Executor: executor.Real(), now: time.Unix(1000, 0)}
	n := &Node{cfg: Config{Settings: Settings{SnapshotBytesPerSecond: rate}}, ex: clock}
	// What is sent in a while never exceeds the rate by more than the burst and one piece.
	const piece = 256 << 10
	sent, began := 0, clock.now
	for range 100 {
		if wait := n.pace(piece); wait > 0 {
			clock.pass(wait)
		}
		allowed := rate*(clock.now.Sub(began)+paceBurst).Seconds() + piece
		sent += piece
		require.LessOrEqual(t, float64(sent), allowed+1)
	}
	require.InDelta(t, 100*piece/rate, clock.now.Sub(began).Seconds(), 1, "and is not far below it")
	// Two transfers share it.
	first, second := n.pace(piece), n.pace(piece)
	require.Equal(t, 250*time.Millisecond, second-first)
	// Time that passed unused counts for a burst only.
	clock.pass(time.Hour)
	require.LessOrEqual(t, n.pace(rate), time.Duration(0))
	require.Equal(t, time.Second-paceBurst, n.pace(1))
}
