package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"time"

	"github.com/synod-go/synod/internal/modelcheck/explore"
	"github.com/synod-go/synod/internal/modelcheck/paxos"
	"github.com/synod-go/synod/internal/multipaxos"
)

func main() {
	m := paxos.Model{Voters: 3}
	flag.IntVar(&m.Voters, "nodes", 3, "")
	flag.IntVar(&m.Slots, "slots", 2, "")
	flag.IntVar(&m.Ballots, "ballots", 3, "")
	flag.IntVar(&m.Values, "values", 2, "")
	flag.IntVar(&m.Crashes, "crashes", 0, "")
	flag.IntVar(&m.Ticks, "ticks", 0, "")
	d := flag.Duration("time", 2*time.Minute, "")
	gc := flag.Int("gc", 200, "")
	flag.IntVar(&m.Lags, "lags", 0, "")
	flag.BoolVar(&m.Pipelined, "pipelined", false, "")
	prof := flag.String("prof", "", "")
	flag.StringVar(&m.Lose, "lose", "", "")
	flag.Parse()
	if *prof != "" {
		f, _ := os.Create(*prof)
		pprof.StartCPUProfile(f)
		defer pprof.StopCPUProfile()
	}
	debug.SetGCPercent(*gc)
	m.MessageBytes = 1 << 20
	n, err := paxos.New(&m)
	if err != nil {
		panic(err)
	}
	last := time.Now()
	var r explore.Result
	r, err = explore.Run(n, explore.Options{MaxTime: *d, Progress: func(r explore.Result) {
		if time.Since(last) > 5*time.Second {
			last = time.Now()
			l, ms, o := n.Sizes()
			fmt.Printf("%v states %d transitions %d idle %d depth %d frontier %d locals %d messages %d observers %d heap %d MiB\n", r.Time, r.States, r.Transitions, r.Idle, r.Depth, r.Frontier, l, ms, o, r.HeapBytes>>20)
		}
	}})
	l, ms, o := n.Sizes()
	fmt.Printf("%+v %v locals %d messages %d obs %d\n", r, err, l, ms, o)
	if r.Violation != nil {
		states, _ := explore.Replay(n, r.Path)
		for i, s := range states {
			a, err := n.Action(s, r.Path[i])
			if err != nil {
				panic(err)
			}
			fmt.Println(i, a.Node+1, a.Input, a.Deliver, a.Late, multipaxos.Describe(1, uint64(a.From+1), a.Body))
		}
	}
}
