// Command simulate runs a system of this library through seeds, each twice, and
// checks that it keeps its promises and that the same seed gives the same trace.
//
//	go run ./internal/simulate -system raft -seeds 200 -json
//
// A seed that fails is printed with the end of its trace; to see it again:
//
//	go run ./internal/simulate -system raft -start SEED -seeds 1
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/synod-go/synod/sim"
)

// systems are what can be simulated.
var systems = map[string]func(w *sim.World){
	"raft": runRaft,
}

// summary is what a sweep found.
type summary struct {
	System     string         `json:"system"`
	Start      uint64         `json:"start"`
	Seeds      uint64         `json:"seeds"`
	Hours      float64        `json:"simulated_hours"`
	CPUMinutes float64        `json:"cpu_minutes"`
	Events     uint64         `json:"events"`
	Faults     map[string]int `json:"faults"`
	Mismatches uint64         `json:"hash_mismatches"`
	Violations []string       `json:"violations"`
}

func main() {
	system := flag.String("system", "raft", "what to simulate: "+strings.Join(slices.Sorted(maps.Keys(systems)), ", "))
	seeds := flag.Uint64("seeds", 10, "how many seeds")
	start := flag.Uint64("start", 1, "the first seed")
	once := flag.Bool("once", false, "run each seed once, without comparing traces")
	stop := flag.Bool("stop", false, "stop at the first failure")
	asJSON := flag.Bool("json", false, "end with a summary in JSON")
	flag.Parse()
	fn := systems[*system]
	if fn == nil {
		fmt.Fprintf(os.Stderr, "simulate: no system %q\n", *system)
		os.Exit(2)
	}
	s := sweep(*system, fn, *start, *seeds, *once, *stop)
	if *asJSON {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		_ = out.Encode(s)
	} else {
		fmt.Printf("%s: %d seeds from %d on, %.2f simulated hours in %.2f CPU minutes, %d kinds of faults, %d violations, %d traces that differ\n",
			s.System, s.Seeds, s.Start, s.Hours, s.CPUMinutes, len(s.Faults), len(s.Violations), s.Mismatches)
	}
	if len(s.Violations) > 0 || s.Mismatches > 0 {
		os.Exit(1)
	}
}

// sweep runs seeds and reports failures as they come.
func sweep(name string, fn func(*sim.World), start, seeds uint64, once, stop bool) summary {
	s := summary{System: name, Start: start, Faults: make(map[string]int), Violations: []string{}}
	began := cpu()
	for seed := start; seed < start+seeds; seed++ {
		r := sim.Execute(seed, sim.Options{}, fn)
		s.Seeds++
		s.Hours += r.Time.Hours()
		s.Events += r.Events
		for k, n := range r.Faults {
			s.Faults[k] += n
		}
		if r.Err != nil {
			fmt.Println(r.Report())
			s.Violations = append(s.Violations, fmt.Sprintf("seed %d: %v", seed, r.Err))
		}
		if !once {
			again := sim.Execute(seed, sim.Options{}, fn)
			s.Hours += again.Time.Hours()
			s.Events += again.Events
			if again.Hash != r.Hash {
				fmt.Printf("seed %d gives another trace the second time\n", seed)
				s.Mismatches++
			}
		}
		if stop && len(s.Violations) > 0 {
			break
		}
	}
	s.CPUMinutes = (cpu() - began).Minutes()
	return s
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails with these arguments
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
