package main

import (
	"fmt"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/sim"
)

// replace replaces three of five members, the leader among them, while clients write.
func replace(seeds int, p *printer) error {
	p.title("three of five members are replaced, the leader too; 8 clients, each of which writes 10 ms after its last answer: milliseconds; median and worst of the seeds",
		"", "engine", "the change took", "worst", "longest gap", "worst", "failed calls")
	for _, e := range engines() {
		type figures struct {
			took, gap time.Duration
			errors    int
		}
		list, err := each(seeds, func(seed uint64) (f figures, err error) {
			err = run(e, seed, 5, 3, 0, nil, func(c *cluster) {
				leader := c.leader()
				c.think = 10 * time.Millisecond
				c.clients(8)
				_ = sim.Sleep(c.w.Context(), 5*election)
				var members []synod.Member
				for i := uint64(3); i < 5; i++ {
					members = append(members, synod.Member{Node: (leader-1+i)%5 + 1})
				}
				for id := uint64(6); id <= 8; id++ {
					members = append(members, synod.Member{Node: id})
				}
				from, failed := c.w.Now(), c.errors
				short, cancel := sim.WithTimeout(c.w.Context(), 2*window)
				if err := c.groups[leader].SetMembers(short, members); err != nil {
					c.w.Fail(fmt.Errorf("SetMembers: %w", err))
				}
				cancel()
				f.took = c.w.Now() - from
				_ = sim.Sleep(c.w.Context(), 5*election)
				_, f.gap, _ = c.since(from)
				f.errors = c.errors - failed
			})
			return f, err
		})
		if err != nil {
			return err
		}
		var took, gaps, failed []float64
		for _, f := range list {
			took, gaps, failed = append(took, float64(f.took.Milliseconds())), append(gaps, float64(f.gap.Milliseconds())), append(failed, float64(f.errors))
		}
		p.row(median(gaps), "", e.name, number(median(took)), number(worst(took)), number(median(gaps)), number(worst(gaps)), number(median(failed)))
	}
	return nil
}
