package main

import (
	"time"

	"github.com/synod-go/synod/sim"
)

// window is how long an outage is watched.
const window = 30 * election

// scenario cuts links. It begins with a leader, and a hub that does not lead.
type scenario struct {
	name    string
	nodes   int
	away    func(c *cluster, leader, hub uint64) // before the cut: who lacks what
	through func(leader, hub, a, b uint64) bool  // which links are cut
}

var scenarios = []scenario{
	{name: "quorum loss: all reach one follower alone", nodes: 5,
		through: func(_, hub, a, b uint64) bool { return a != hub && b != hub }},
	{name: "constrained election: the same, it lacks the last second, and the leader is gone", nodes: 5,
		away: func(c *cluster, _, hub uint64) { c.isolate(hub, election) },
		through: func(leader, hub, a, b uint64) bool {
			return a != hub && b != hub || a == leader || b == leader
		}},
	{name: "chained: two of three do not reach each other, one of them leads", nodes: 3,
		through: func(leader, hub, a, b uint64) bool { return a == leader && b != hub || b == leader && a != hub }},
	{name: "chain of five, its end leads", nodes: 5,
		through: func(leader, hub, a, b uint64) bool {
			d := place(leader, hub, a) - place(leader, hub, b)
			return d > 1 || d < -1
		}},
	{name: "leader cut off", nodes: 5,
		through: func(leader, _, a, b uint64) bool { return a == leader || b == leader }},
}

// place is where a node stands in a chain that begins with the leader and goes on with the hub.
func place(leader, hub, n uint64) int {
	switch {
	case n == leader:
		return 0
	case n == hub:
		return 1
	}
	at := 1 + int(n)
	if n > leader {
		at--
	}
	if n > hub {
		at--
	}
	return at
}

// isolate cuts a node off for a while.
func (c *cluster) isolate(id uint64, d time.Duration) {
	only := func(a, b uint64) bool { return a == id || b == id }
	c.cut(true, only)
	_ = sim.Sleep(c.w.Context(), d)
	c.cut(false, only)
}

// outage runs a scenario, and returns how long nothing was acknowledged.
func (s scenario) outage(e engine, seed uint64) (o outage, err error) {
	err = run(e, seed, s.nodes, 0, 0, nil, func(c *cluster) {
		leader := c.leader()
		hub := leader%uint64(s.nodes) + 1
		c.clients(8)
		c.think = 40 * time.Millisecond
		_ = sim.Sleep(c.w.Context(), 2*election)
		if s.away != nil {
			s.away(c, leader, hub)
		}
		moment := c.w.Now()
		c.cut(true, func(a, b uint64) bool { return s.through(leader, hub, a, b) })
		_ = sim.Sleep(c.w.Context(), window)
		first, gap, ok := c.since(moment)
		o = outage{first: first, gap: gap, ok: ok}
	})
	return o, err
}

type outage struct {
	first, gap time.Duration
	ok         bool
}

func partial(seeds int, p *printer) error {
	p.title("partial connectivity: time to the next commit, in election timeouts of 1 s; median and worst of the seeds",
		"scenario", "engine", "next commit", "worst", "longest gap", "no commit in 30")
	for _, s := range scenarios {
		if err := outages(s, seeds, p); err != nil {
			return err
		}
	}
	return nil
}

func outages(s scenario, seeds int, p *printer) error {
	for _, e := range engines() {
		list, err := each(seeds, func(seed uint64) (outage, error) { return s.outage(e, seed) })
		if err != nil {
			return err
		}
		var first, gaps []float64
		never := 0
		for _, o := range list {
			if !o.ok {
				never++
				o.first = window
			}
			first, gaps = append(first, o.first.Seconds()/election.Seconds()), append(gaps, o.gap.Seconds()/election.Seconds())
		}
		p.row(median(first), s.name, e.name, number(median(first)), number(worst(first)), number(worst(gaps)), share(never, len(list)))
	}
	return nil
}
