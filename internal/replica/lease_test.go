package replica

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/executor"
)

// stoppedClock is an executor whose clock the test moves.
type stoppedClock struct {
	executor.Executor
	now time.Time
}

func (c *stoppedClock) Now() time.Time { return c.now }

func (c *stoppedClock) pass(d time.Duration) { c.now = c.now.Add(d) }

// leaseGroup returns a group that leads in term 3, with ten ticks of 10 ms to an election
// timeout, and a drift of 5 ms: a lease is 85 ms long.
func leaseGroup() (*loop, *Group, *stoppedClock) {
	clock := &stoppedClock{Executor: executor.Real(), now: time.Unix(1000, 0)}
	cfg := Config{Settings: Settings{HeartbeatInterval: 10 * time.Millisecond, ElectionTimeout: 109 * time.Millisecond, MaxClockDrift: 5 * time.Millisecond}}
	n := &Node{cfg: cfg, ex: clock}
	g := &Group{id: 1, node: n, term: 3, leading: true}
	g.reads.init(g)
	g.leases.length = cfg.leaseLength()
	return &loop{node: n}, g, clock
}

func TestLeaseLength(t *testing.T) {
	_, g, clock := leaseGroup()
	require.Equal(t, 85*time.Millisecond, g.leases.length, "of the election timeout, whole heartbeats count")
	_, ok := g.leases.leased(g)
	require.False(t, ok, "nobody has confirmed anything")

	g.leases.begin(g)
	clock.pass(60 * time.Millisecond) // the answer is long under way
	g.leases.confirmed(g)
	clock.pass(25*time.Millisecond - 1)
	_, ok = g.leases.leased(g)
	require.True(t, ok)
	clock.pass(1)
	_, ok = g.leases.leased(g)
	require.False(t, ok, "it counts from the beginning of the attempt")
}

func TestLeaseEnds(t *testing.T) {
	leads := Output{Leading: true, Term: 3}
	for name, end := range map[string]func(l *loop, g *Group){
		"the leader steps down":             func(l *loop, g *Group) { l.keepLease(g, &Output{Term: 3}) },
		"it hands over":                     func(l *loop, g *Group) { l.keepLease(g, &Output{Leading: true, Term: 3, HandedOver: true}) },
		"the configuration changes":         func(_ *loop, g *Group) { revokeLease(g) },
		"the group ends":                    func(l *loop, g *Group) { l.endReads(g, nil) },
		"the leader steps down for a while": func(l *loop, g *Group) { l.keepLease(g, &Output{Term: 3}); l.keepLease(g, &leads) },
	} {
		t.Run(name, func(t *testing.T) {
			l, g, _ := leaseGroup()
			l.keepLease(g, &leads)
			g.leases.begin(g)
			g.leases.confirmed(g)
			_, ok := g.leases.leased(g)
			require.True(t, ok)
			g.leases.begin(g) // another attempt is under way
			end(l, g)
			_, ok = g.leases.leased(g)
			require.False(t, ok)
			g.leases.confirmed(g)
			_, ok = g.leases.leased(g)
			require.False(t, ok, "an attempt that was begun before brings no lease")
		})
	}
}

func TestNoLease(t *testing.T) {
	for name, attempt := range map[string]func(l *loop, g *Group){
		"begun as a follower": func(_ *loop, g *Group) {
			g.leading = false
			g.leases.begin(g)
			g.leading = true
		},
		"confirmed as a follower": func(_ *loop, g *Group) {
			g.leases.begin(g)
			g.leading = false
		},
		"confirmed in another term": func(_ *loop, g *Group) {
			g.leases.begin(g)
			g.term = 5
		},
		"begun after a transfer": func(l *loop, g *Group) {
			l.keepLease(g, &Output{Leading: true, Term: 3, HandedOver: true})
			g.leases.begin(g)
		},
		"leases are off": func(_ *loop, g *Group) {
			g.leases.length = 0
			g.leases.begin(g)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, g, _ := leaseGroup()
			attempt(l, g)
			g.leases.confirmed(g)
			_, ok := g.leases.leased(g)
			require.False(t, ok)
			require.False(t, g.readLeased())
		})
	}
	// In the next term there may be one again.
	l, g, _ := leaseGroup()
	l.keepLease(g, &Output{Leading: true, Term: 3, HandedOver: true})
	g.term = 4
	l.keepLease(g, &Output{Leading: true, Term: 4})
	g.leases.begin(g)
	g.leases.confirmed(g)
	_, ok := g.leases.leased(g)
	require.True(t, ok)
}

func TestLeaseKnowsWhatIsDecided(t *testing.T) {
	l, g, _ := leaseGroup()
	l.keepLease(g, &Output{Leading: true, Term: 3, Decided: 7})
	g.leases.begin(g)
	g.leases.confirmed(g)
	g.applied.Store(6)
	index, ok := g.leases.leased(g)
	require.True(t, ok)
	require.EqualValues(t, 7, index)
	require.False(t, g.readLeased(), "the state machine is behind")
	g.applied.Store(7)
	require.True(t, g.readLeased())
	l.keepLease(g, &Output{Leading: true, Term: 3, Decided: 8})
	require.False(t, g.readLeased())
}

func TestLeaseIsRenewedWhereItIsUsed(t *testing.T) {
	l, g, clock := leaseGroup()
	g.leases.begin(g)
	g.leases.confirmed(g)
	asks := func() bool {
		l.renewLease(g)
		defer func() { g.reads.renew = false }()
		return g.reads.renew
	}
	require.False(t, asks())
	require.True(t, g.readLeased())
	require.False(t, asks(), "most of it is left")
	clock.pass(50 * time.Millisecond)
	require.False(t, asks(), "nobody uses it")
	require.True(t, g.readLeased())
	require.True(t, asks())
	require.False(t, asks(), "once")
	require.True(t, g.readLeased())
	revokeLease(g)
	require.False(t, asks(), "it is gone")
}
