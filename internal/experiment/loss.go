package main

import (
	"fmt"
	"time"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/sim"
)

// clock takes the times from the proposal of a slot, by the leader, until it is chosen and until it is
// decided with all before it.
type clock struct {
	now      func() time.Duration
	proposed map[uint64]time.Duration
	chosen   map[uint64]bool
	decided  uint64
	toChosen []float64
	toApply  []float64
}

func (k *clock) observe(_ uint64, what any) {
	if k.now == nil {
		return
	}
	switch o := what.(type) {
	case probe.RaftEntries:
		if o.Leading {
			k.propose(o.First, len(o.Entries))
		}
	case probe.RaftState:
		if o.Leading { // an entry is chosen when it is committed, and that happens in order
			for slot := k.decided + 1; slot <= o.Commit; slot++ {
				k.choose(slot)
			}
			k.decide(o.Commit)
		}
	case probe.PaxosProposed:
		k.propose(o.First, len(o.Hashes))
	case probe.PaxosChosen:
		k.choose(o.Slot)
	case probe.PaxosDecided:
		k.decide(o.Last)
	}
}

func (k *clock) propose(first uint64, n int) {
	for i := range uint64(n) {
		if _, ok := k.proposed[first+i]; !ok {
			k.proposed[first+i] = k.now()
		}
	}
}

func (k *clock) choose(slot uint64) {
	if at, ok := k.proposed[slot]; ok && !k.chosen[slot] {
		k.chosen[slot] = true
		k.toChosen = append(k.toChosen, float64(k.now()-at)/float64(time.Millisecond))
	}
}

func (k *clock) decide(to uint64) {
	for ; k.decided < to; k.decided++ {
		if at, ok := k.proposed[k.decided+1]; ok {
			k.toApply = append(k.toApply, float64(k.now()-at)/float64(time.Millisecond))
		}
	}
}

// loss lets each link lose some messages.
func loss(seeds int, p *printer) error {
	p.title("each link of five members loses messages; 32 clients, who write every 20 ms on average: milliseconds from the proposal of an entry until it is chosen, and until it is decided with all before it",
		"lost", "engine", "chosen, mean", "99 %", "decided, mean", "99 %", "entries")
	for _, percent := range []int{0, 1, 2, 5} {
		for _, e := range engines() {
			type figures struct{ chosen, decided []float64 }
			list, err := each(seeds, func(seed uint64) (f figures, err error) {
				k := &clock{proposed: make(map[uint64]time.Duration), chosen: make(map[uint64]bool)}
				err = run(e, seed, 5, 0, 0, k.observe, func(c *cluster) {
					c.leader()
					c.cut(false, func(a, b uint64) bool {
						c.w.Link(a, b).Loss = float64(percent) / 100
						c.w.Link(a, b).Slow = 5 * time.Millisecond
						return false
					})
					c.think = 20 * time.Millisecond
					c.clients(32)
					_ = sim.Sleep(c.w.Context(), election)
					k.now = c.w.Now
					_ = sim.Sleep(c.w.Context(), 10*election)
					k.now = nil
				})
				return figures{k.toChosen, k.toApply}, err
			})
			if err != nil {
				return err
			}
			var chosen, decided []float64
			for _, f := range list {
				chosen, decided = append(chosen, f.chosen...), append(decided, f.decided...)
			}
			p.row(mean(decided), fmt.Sprintf("%d %%", percent), e.name, number(mean(chosen)), number(percentile(chosen, 99)),
				number(mean(decided)), number(percentile(decided, 99)), fmt.Sprint(len(decided)))
		}
	}
	return nil
}
