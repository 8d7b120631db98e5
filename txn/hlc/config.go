package hlc

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/transport"
)

// Config says how a clock runs. Node is required; what is left zero gets the default that stands beside it.
type Config struct {
	// Node is this node's ID, above 0.
	Node uint64

	// MaxOffset is how far the clocks of two nodes may be apart. All nodes should have the same. Well above what keeps the machines'
	// clocks together lets happen: NTP in a data centre keeps within some milliseconds. 1 ms to an hour, and with Peers
	// at least four times what MaxDrift is in an Interval. Default: 500 ms.
	MaxOffset time.Duration

	// Last is the highest timestamp that an earlier run of this node has given out or taken in, as far as its user has stored it: Now is
	// above it, whatever the clock shows. If it is ahead of the clock by more than MaxOffset, the clock has gone backwards in
	// between, and the node is fenced until it has caught up. Default: 0, none.
	Last Timestamp

	// Peers are the nodes whose clocks this one is compared with, at most 256; this node itself among them is passed over. Without
	// peers the machine's clock is believed whatever it does, and only what Update refuses says that clocks are apart. The slice is
	// copied.
	Peers []uint64

	// Transport reaches the peers, whose clocks use it, too. The clock sets its handler, and uses it until Close: hand in a channel
	// of a transport.Mux. Required with Peers; without them it answers those who ask.
	Transport transport.Transport

	// Interval is how often each peer is asked for its time; one that has not answered for five of them is not counted any more. It is
	// also for how long a peer's clock that is set may go unnoticed. 1 ms to a minute. Default: 1 s.
	Interval time.Duration

	// MaxDrift is by how much this node's monotonic clock may run faster or slower than it should: what is known of a peer gets
	// older by as much. 0 to 0.1. Default: 0.001, twice of what Linux corrects a clock by.
	MaxDrift float64

	// Logger receives what happens. Default: nothing is logged.
	Logger *slog.Logger

	// Metrics receives figures. Default: none are taken.
	Metrics synod.Metrics
}

// maxPeers bounds what is asked in an interval, and what Check looks at.
const maxPeers = 256

func (c *Config) setDefaults() error {
	bad := func(field, format string, args ...any) error {
		return &synod.ConfigError{Package: "hlc", Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	for _, f := range []struct {
		name                string
		value               *time.Duration
		standard, low, high time.Duration
	}{
		{"MaxOffset", &c.MaxOffset, 500 * time.Millisecond, time.Millisecond, time.Hour},
		{"Interval", &c.Interval, time.Second, time.Millisecond, time.Minute},
	} {
		if *f.value == 0 {
			*f.value = f.standard
		}
		if *f.value < f.low || *f.value > f.high {
			return bad(f.name, "%v: %v to %v", *f.value, f.low, f.high)
		}
	}
	if c.MaxDrift == 0 {
		c.MaxDrift = 0.001
	}
	c.Peers = slices.DeleteFunc(slices.Clone(c.Peers), func(p uint64) bool { return p == c.Node })
	slices.Sort(c.Peers)
	c.Peers = slices.Compact(c.Peers)
	switch {
	case c.Node == 0:
		return bad("Node", "missing: give every node an ID of its own, above 0")
	case !(c.MaxDrift > 0 && c.MaxDrift <= 0.1):
		return bad("MaxDrift", "%v: above 0, and at most 0.1", c.MaxDrift)
	case c.Last > maxTime:
		return bad("Last", "%v: no clock has given that out: what was stored is damaged", c.Last)
	case len(c.Peers) > maxPeers:
		return bad("Peers", "%d of them: at most %d; name some of the nodes, which compare each other's clocks, too", len(c.Peers), maxPeers)
	case len(c.Peers) > 0 && c.Peers[0] == 0:
		return bad("Peers", "0 is no node's ID")
	case len(c.Peers) > 0 && c.Transport == nil:
		return bad("Transport", "missing: a channel of a transport.Mux, or no Peers")
	}
	if old := time.Duration(4 * c.MaxDrift * float64(c.Interval)); len(c.Peers) > 0 && c.MaxOffset < old {
		return bad("MaxOffset", "%v: at least %v, four times MaxDrift in an Interval, or what a peer has said is worth nothing before it is asked again", c.MaxOffset, old)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func (c *Config) limits() limits {
	return limits{offset: int64(c.MaxOffset), drift: c.MaxDrift, fresh: 5*int64(c.Interval) + c.patience()}
}

// patience is for how long an answer is waited for: one that takes longer says nothing.
func (c *Config) patience() int64 { return 2 * int64(c.MaxOffset) }
