package main

import (
	"fmt"
	"time"

	"github.com/synod-go/synod/sim"
)

// slow lets some of five members be slow.
func slow(seeds int, p *printer) error {
	p.title("some of five members are slow, 10 to 20 ms more a way and a sync; 16 clients, each of which writes 10 ms, on average, after its last answer: milliseconds from call to answer, and writes a second",
		"slow members", "engine", "median", "99 %", "a second")
	for count := range 4 {
		for _, e := range engines() {
			for _, quorum := range e.quorums() {
				type figures struct{ p50, p99, rate float64 }
				list, err := each(seeds, func(seed uint64) (f figures, err error) {
					err = run(e, seed, 5, 0, quorum, nil, func(c *cluster) {
						leader := c.leader()
						for i := range count {
							id := (leader+uint64(i))%5 + 1
							c.w.Node(id).Disk.Slow = 10 * time.Millisecond
							for other := uint64(1); other <= 5; other++ {
								c.w.Link(id, other).Slow, c.w.Link(other, id).Slow = 10*time.Millisecond, 10*time.Millisecond
							}
						}
						c.think = 10 * time.Millisecond
						c.clients(16)
						_ = sim.Sleep(c.w.Context(), election)
						from := c.w.Now()
						_ = sim.Sleep(c.w.Context(), 3*election)
						var took []float64
						for _, a := range c.acks {
							if a.began >= from {
								took = append(took, float64(a.ended-a.began)/float64(time.Millisecond))
							}
						}
						f = figures{median(took), percentile(took, 99), float64(len(took)) / (c.w.Now() - from).Seconds()}
					})
					return f, err
				})
				if err != nil {
					return err
				}
				of := func(pick func(figures) float64) float64 {
					var values []float64
					for _, f := range list {
						values = append(values, pick(f))
					}
					return median(values)
				}
				name := e.name
				if quorum != 0 {
					name = fmt.Sprintf("%s, %d for phase 2", name, quorum)
				}
				p50 := of(func(f figures) float64 { return f.p50 })
				p.row(p50, fmt.Sprint(count), name, number(p50), number(of(func(f figures) float64 { return f.p99 })), fmt.Sprintf("%.0f", of(func(f figures) float64 { return f.rate })))
			}
		}
	}
	return nil
}
