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

	"github.com/synod-go/synod/internal/simulate/system"
	"github.com/synod-go/synod/sim"
)

func main() {
	if err := command(os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "simulate:", err)
		os.Exit(1)
	}
}

func command(args []string, in io.Reader, out, progress io.Writer) error {
	flags := flag.NewFlagSet("simulate", flag.ContinueOnError)
	flags.SetOutput(progress)
	name := flags.String("system", "raft", "what to simulate: "+strings.Join(slices.Sorted(maps.Keys(system.All())), ", "))
	seeds := flags.Uint64("seeds", 10, "how many seeds; with -bugs: at most, for each bug")
	start := flags.Uint64("start", 1, "the first seed")
	once := flags.Bool("once", false, "run each seed once, without comparing traces")
	workers := flags.Int("workers", runtime.NumCPU(), "how many processes")
	asJSON := flags.Bool("json", false, "end with a summary in JSON")
	hunt := flags.Bool("bugs", false, "put each known mistake back in turn, and see how many seeds it takes to find it")
	planted := flags.String("bug", "", "put this mistake back; with -bugs: no other one")
	keep := flags.String("keep", "", "inject only the faults with these numbers: 3,9; none: no fault at all")
	trace := flags.Bool("trace", false, "print all lines of the trace")
	worker := flags.Bool("worker", false, "take jobs from the standard input (used by this command itself)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s, ok := system.All()[*name]
	switch {
	case !ok:
		return fmt.Errorf("no system %q", *name)
	case *worker:
		return work(s, in, out)
	case *seeds == 0 || *workers <= 0:
		return errors.New("-seeds and -workers are above 0")
	}
	if *planted != "" && !slices.ContainsFunc(s.Bugs, func(b system.Bug) bool { return b.Name == *planted }) {
		return fmt.Errorf("no bug %q: -bugs lists them", *planted)
	}
	if *keep != "" || *trace {
		c := sim.Config{Bugs: system.Planted(*planted)}
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
			r, _ := s.Execute(c)
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
		if *planted != "" {
			s.Bugs = slices.DeleteFunc(slices.Clone(s.Bugs), func(b system.Bug) bool { return b.Name != *planted })
		}
		return table(out, progress, pool, s, *start, *seeds)
	}
	sum, err := pool.sweep(out, progress, *name, s, system.Job{Bug: *planted, Twice: !*once}, *start, *seeds)
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
	return sum.Verdict()
}
