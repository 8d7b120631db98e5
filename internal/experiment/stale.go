package main

import (
	"fmt"
	"time"

	"github.com/synod-go/synod/sim"
)

// stale lets only a member that lacks the newest entries reach a majority.
func stale(seeds int, p *printer) error {
	p.title("only a member that lacks entries reaches a majority: time to the next commit, in election timeouts of 1 s; median and worst of the seeds",
		"it lacks", "engine", "next commit", "worst", "longest gap", "no commit in 30")
	for _, lag := range []uint64{1, 100, 1000, 3 * retain} {
		s := scenario{name: fmt.Sprintf("%d commands", lag), nodes: 5,
			away: func(c *cluster, leader, hub uint64) {
				only := func(a, b uint64) bool { return a == hub || b == hub }
				c.cut(true, only)
				c.think = 0
				had := c.groups[hub].Status().Commands
				for c.groups[leader].Status().Commands < had+lag {
					_ = sim.Sleep(c.w.Context(), heartbeat/10)
				}
				c.think = 40 * time.Millisecond
				c.cut(false, only)
			},
			through: func(leader, hub, a, b uint64) bool {
				return a != hub && b != hub || a == leader || b == leader
			}}
		if lag > retain {
			s.name += ", which the others have only in a snapshot"
		}
		if err := outages(s, seeds, p); err != nil {
			return err
		}
	}
	return nil
}
