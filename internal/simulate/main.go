// Command simulate runs a system of this library through seeds, each twice, and checks
// that it keeps its promises, and that the same seed gives the same trace.
//
//	go run ./internal/simulate -system raft -seeds 200 -json
//
// A seed that fails is printed, with the end of its trace and the few faults that it
// needs. To see it again, every line of its trace:
//
//	go run ./internal/simulate -system raft -start SEED -seeds 1 -keep 3,9 -trace
//
// Whether the checks find anything is shown by mistakes that are put back into the code:
//
//	go run ./internal/simulate -system raft -bugs -seeds 200
//
// prints for each how many seeds it took, and which check found it.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/synod-go/synod/sim"
)

// run is one run of a system, made anew for each.
type run interface {
	// main is the simulation.
	main(w *sim.World)
	// observe is shown what protocol cores do.
	observe(node uint64, what any)
	// checked returns how many histories of clients were checked, and the calls in them.
	checked() (histories, calls int)
}

// system is what can be simulated.
type system struct {
	new  func() run
	bugs []bug
	// sites are the places that a sweep must reach.
	sites []string
}

// bug is a mistake that can be put back into the code.
type bug struct {
	name string // in internal/probe
	what string
}

var systems = map[string]system{
	"raft": {newRaftRun, raftBugs, raftSites},
}

func main() {
	if err := command(os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "simulate:", err)
		os.Exit(1)
	}
}

func command(args []string, in io.Reader, out, progress io.Writer) error {
	flags := flag.NewFlagSet("simulate", flag.ContinueOnError)
	flags.SetOutput(progress)
	name := flags.String("system", "raft", "what to simulate: "+strings.Join(slices.Sorted(maps.Keys(systems)), ", "))
	seeds := flags.Uint64("seeds", 10, "how many seeds; with -bugs: at most, for each bug")
	start := flags.Uint64("start", 1, "the first seed")
	once := flags.Bool("once", false, "run each seed once, without comparing traces")
	workers := flags.Int("workers", runtime.NumCPU(), "how many processes")
	asJSON := flags.Bool("json", false, "end with a summary in JSON")
	hunt := flags.Bool("bugs", false, "put each known mistake back in turn, and see how many seeds it takes to find it")
	planted := flags.String("bug", "", "put this mistake back")
	keep := flags.String("keep", "", "inject only the faults with these numbers: 3,9; none: no fault at all")
	trace := flags.Bool("trace", false, "print all lines of the trace")
	worker := flags.Bool("worker", false, "take jobs from the standard input (used by this command itself)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s, ok := systems[*name]
	switch {
	case !ok:
		return fmt.Errorf("no system %q", *name)
	case *worker:
		return work(s, in, out)
	case *seeds == 0 || *workers <= 0:
		return errors.New("-seeds and -workers are above 0")
	}
	if *planted != "" && !slices.ContainsFunc(s.bugs, func(b bug) bool { return b.name == *planted }) {
		return fmt.Errorf("no bug %q: -bugs lists them", *planted)
	}
	if *keep != "" || *trace {
		c := sim.Config{Bugs: bugs(*planted)}
		if *keep != "" {
			c.Keep = []int{}
		}
		for number := range strings.SplitSeq(strings.Replace(*keep, "none", "", 1), ",") {
			if number == "" {
				continue
			}
			k, err := strconv.Atoi(number)
			if err != nil {
				return fmt.Errorf("-keep: %w", err)
			}
			c.Keep = append(c.Keep, k)
		}
		if *trace {
			c.Log = out
		}
		for c.Seed = *start; c.Seed < *start+*seeds; c.Seed++ {
			r, _ := s.execute(c)
			if r.Err != nil {
				return errors.New(r.Report())
			}
		}
		fmt.Fprintln(out, "no violation")
		return nil
	}
	pool, err := startPool(*name, *workers)
	if err != nil {
		return err
	}
	defer pool.close()
	if *hunt {
		return table(out, progress, pool, s, *start, *seeds)
	}
	sum, err := pool.sweep(out, progress, *name, s, job{Bug: *planted, Twice: !*once}, *start, *seeds)
	if err != nil {
		return err
	}
	if *asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		if err := e.Encode(sum); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(out, "%s: %d seeds from %d on, %.2f simulated hours in %.2f CPU minutes (%.1f a minute), %d kinds of faults, %d histories checked, "+
			"%d of %d sites reached, %d violations, %d traces that differ\n", sum.System, sum.Seeds, sum.Start, sum.Hours, sum.CPUMinutes, sum.Speed, len(sum.Faults),
			sum.Histories, len(sum.Reached), len(sum.Reached)+len(sum.Missed), len(sum.Violations), sum.Mismatches)
	}
	return sum.verdict()
}

func bugs(name string) []string {
	if name == "" {
		return nil
	}
	return []string{name}
}

// execute runs one seed.
func (s system) execute(c sim.Config) (sim.Result, run) {
	var current run
	c.Observer = func(node uint64, what any) { current.observe(node, what) }
	r := sim.Execute(c, func(w *sim.World) {
		current = s.new()
		current.main(w)
	})
	return r, current
}

// shrink looks for the few faults that a failure needs.
func (s system) shrink(failed sim.Result, runs int) sim.Result {
	var current run
	failed.Config.Observer = func(node uint64, what any) { current.observe(node, what) }
	smallest, _ := sim.Shrink(failed, runs, func(w *sim.World) {
		current = s.new()
		current.main(w)
	})
	return smallest
}

// saved writes the picture of a failure into a file, and its name into the trace.
func saved(w *sim.World, write func(io.Writer) error) {
	name := fmt.Sprintf("%s/simulate-%d.html", os.TempDir(), w.Seed())
	f, err := os.Create(name)
	if err == nil {
		err = errors.Join(write(f), f.Close())
	}
	if err != nil {
		w.Logf("no picture: %v", err)
		return
	}
	w.Logf("a picture of the history is in %s", name)
}

// outcome is what a job gave.
type outcome struct {
	Seed      uint64         `json:"seed"`
	Hours     float64        `json:"hours"`
	CPU       time.Duration  `json:"cpu"`
	Events    uint64         `json:"events"`
	Faults    map[string]int `json:"faults"`
	Effects   map[string]int `json:"effects"`
	Sites     map[string]int `json:"sites"`
	Forced    map[string]int `json:"forced"`
	Histories int            `json:"histories"`
	Calls     int            `json:"calls"`
	Differs   bool           `json:"differs"`
	Failure   string         `json:"failure"`
	Check     string         `json:"check"`
	Report    string         `json:"report"`
}

// job is one seed, or, for a hunt, as many as it takes.
type job struct {
	Seed  uint64 `json:"seed"`
	Until uint64 `json:"until"` // hunt from Seed up to here for a failure
	Twice bool   `json:"twice"`
	Bug   string `json:"bug"`
}

// do runs a job.
func (s system) do(j job) outcome {
	began := cpu()
	c := sim.Config{Seed: j.Seed, Bugs: bugs(j.Bug)}
	r, current := s.execute(c)
	for r.Err == nil && c.Seed < j.Until {
		c.Seed++
		r, current = s.execute(c)
	}
	o := outcome{Seed: c.Seed, Hours: r.Time.Hours(), Events: r.Events, Faults: r.Faults, Effects: r.Effects, Sites: r.Sites, Forced: r.Forced, Check: r.Check}
	if current != nil {
		o.Histories, o.Calls = current.checked()
	}
	if j.Twice {
		again, _ := s.execute(c)
		o.Hours += again.Time.Hours()
		o.Events += again.Events
		o.Differs = again.Hash != r.Hash
	}
	if r.Err != nil {
		o.Failure, _, _ = strings.Cut(r.Err.Error(), "\n")
		if j.Until == 0 {
			small := s.shrink(r, 40)
			o.Report = small.Report()
			keep := strings.Trim(strings.ReplaceAll(fmt.Sprint(small.Config.Keep), " ", ","), "[]")
			if keep == "" {
				keep = "none"
			}
			o.Report += fmt.Sprintf("to see it again: -start %d -seeds 1 -keep %s -trace", c.Seed, keep)
			if j.Bug != "" {
				o.Report += fmt.Sprintf(" -bug %q", j.Bug)
			}
			o.Report += "\n"
		}
	}
	o.CPU = cpu() - began
	return o
}
