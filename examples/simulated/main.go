// Command simulated shows how an application is tested in a simulation: a program to copy.
//
//	go run ./examples/simulated
//
// An application, [Office], is replicated on three nodes. It has a twin, [Forgetful], with a
// mistake that looks harmless. The command runs both through the same seeds, with
// crashes, partitions and slow disks, until the mistake is found, says what went wrong and
// which few faults it takes, and how to see it again:
//
//	go run ./examples/simulated -seed 2 -trace
//
// The files are office.go, the application; simulate.go, the cluster, its customers and what
// they check; simulated_test.go, the test that an application would have.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/sim"
)

func main() {
	seed := flag.Uint64("seed", 0, "run the application with the mistake from this seed alone")
	seeds := flag.Uint64("seeds", 25, "how many seeds, at most, until the mistake is found")
	trace := flag.Bool("trace", false, "with -seed: print all lines of the trace")
	flag.Parse()
	err := run(os.Stdout, *seed, *seeds, *trace)
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func correct(w *sim.World)   { simulate(w, func() synod.StateMachine { return new(Office) }) }
func forgetful(w *sim.World) { simulate(w, func() synod.StateMachine { return new(Forgetful) }) }

func run(out io.Writer, seed, seeds uint64, trace bool) error {
	if seed != 0 {
		c := sim.Config{Seed: seed}
		if trace {
			c.Log = out
		}
		r := sim.Execute(c, forgetful)
		if r.Err == nil {
			return fmt.Errorf("seed %d finds nothing", seed)
		}
		fmt.Fprintf(out, "seed %d, trace %016x: %v\n", seed, r.Hash, r.Err)
		return nil
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		found := sim.Execute(sim.Config{Seed: seed}, forgetful)
		if found.Err == nil {
			fmt.Fprintf(out, "seed %d: %v of virtual time, %d events, nothing found\n", seed, found.Time.Round(1e9), found.Events)
			continue
		}
		fmt.Fprintf(out, "seed %d: %v\n", seed, found.Err)
		small, runs := sim.Shrink(found, 40, forgetful)
		fmt.Fprintf(out, "%d of %d planned faults are enough, as %d runs with fewer show; the end of that one:\n", len(small.Config.Keep), found.Plan, runs)
		lines := slices.DeleteFunc(small.Trace, func(line string) bool { return strings.Contains(line, "·") }) // but for single messages
		for _, line := range lines[max(0, len(lines)-12):] {
			fmt.Fprintln(out, " ", line)
		}
		if again := sim.Execute(found.Config, forgetful); again.Hash != found.Hash {
			return errors.New("the same seed gave another trace")
		}
		fmt.Fprintf(out, "the same seed gives the same trace: go run ./examples/simulated -seed %d -trace\n", seed)
		for s := uint64(1); s <= seed+9; s++ {
			if r := sim.Execute(sim.Config{Seed: s}, correct); r.Err != nil {
				return errors.New(r.Report())
			}
		}
		fmt.Fprintf(out, "ok: found=%d mended=%d\n", seed, seed+9)
		return nil
	}
	return fmt.Errorf("the mistake was not found in %d seeds", seeds)
}
