package system

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/synod-go/synod/sim"
)

// Run is one run of a system, made anew for each.
type Run interface {
	// Main is the simulation.
	Main(w *sim.World)
	// Observe is shown what protocol cores do.
	Observe(node uint64, what any)
	// Checked returns how many histories of clients were checked, and the calls in them.
	Checked() (histories, calls int)
}

// System is what can be simulated.
type System struct {
	New  func() Run
	Bugs []Bug
	// Sites are the places that a sweep must reach.
	Sites []string

	// BareBugs and BareSites are those that whole nodes do not show, or in too few seeds: tests and scripts of the
	// core do, and rules of internal/replica/grouptest.
	BareBugs  []Bug
	BareSites []string

	// Below are prefixes of the sites of what the system runs on, which other systems' sweeps must reach.
	Below []string
}

// Bug is a mistake that can be put back into the code.
type Bug struct {
	Name string // in internal/probe
	What string
}

// All returns the systems by name.
func All() map[string]System {
	return map[string]System{
		"raft":  {New: func() Run { return &run{engine: raftEngine{}} }, Bugs: raftBugs, Sites: raftSites, BareSites: runtimeRareSites},
		"txn":   {New: func() Run { return &txnRun{} }, Bugs: txnBugs, Sites: txnSites, BareBugs: txnBareBugs, BareSites: txnBareSites, Below: []string{"hlc:", "replica:", "raft:", "paxos:", "storage:"}},
		"paxos": {New: func() Run { return &run{engine: &paxosEngine{}} }, Bugs: paxosBugs, Sites: paxosSites, BareBugs: paxosBareBugs, BareSites: slices.Concat(paxosBareSites, runtimeRareSites)},
	}
}

// Planted is what sim.Config.Bugs is for one bug; "": for none.
func Planted(name string) []string {
	if name == "" {
		return nil
	}
	return []string{name}
}

// Execute runs one seed.
func (s System) Execute(c sim.Config) (sim.Result, Run) {
	var current Run
	c.Observer = func(node uint64, what any) { current.Observe(node, what) }
	r := sim.Execute(c, func(w *sim.World) {
		current = s.New()
		current.Main(w)
	})
	return r, current
}

// shrink looks for the few faults that a failure needs.
func (s System) shrink(failed sim.Result, runs int) sim.Result {
	var current Run
	failed.Config.Observer = func(node uint64, what any) { current.Observe(node, what) }
	smallest, _ := sim.Shrink(failed, runs, func(w *sim.World) {
		current = s.New()
		current.Main(w)
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

// Outcome is what a job gave.
type Outcome struct {
	Seed    uint64         `json:"seed"`
	Hours   float64        `json:"hours"`
	CPU     time.Duration  `json:"cpu"`
	Events  uint64         `json:"events"`
	Faults  map[string]int `json:"faults"`
	Effects map[string]int `json:"effects"`
	Sites   map[string]int `json:"sites"`
	Forced  map[string]int `json:"forced"`
	// Transactions counts them by how they ended.
	Transactions map[string]int `json:"transactions,omitempty"`
	Histories    int            `json:"histories"`
	Calls        int            `json:"calls"`
	Differs      bool           `json:"differs"`
	Failure      string         `json:"failure"`
	Check        string         `json:"check"`
	Report       string         `json:"report"`
}

// Job is one seed, or, for a hunt, as many as it takes.
type Job struct {
	Seed  uint64 `json:"seed"`
	Until uint64 `json:"until"` // hunt from Seed up to here for a failure
	Twice bool   `json:"twice"`
	Bug   string `json:"bug"`
}

// Do runs a job.
func (s System) Do(j Job) Outcome {
	began := cpu()
	c := sim.Config{Seed: j.Seed, Bugs: Planted(j.Bug)}
	r, current := s.Execute(c)
	for r.Err == nil && c.Seed < j.Until {
		c.Seed++
		r, current = s.Execute(c)
	}
	o := Outcome{Seed: c.Seed, Hours: r.Time.Hours(), Events: r.Events, Faults: r.Faults, Effects: r.Effects, Sites: r.Library, Forced: r.Forced, Check: r.Check}
	if current != nil {
		o.Histories, o.Calls = current.Checked()
		if t, ok := current.(interface{ Transactions() map[string]int }); ok {
			o.Transactions = t.Transactions()
		}
	}
	maps.DeleteFunc(o.Sites, func(site string, n int) bool {
		return n == 0 && slices.ContainsFunc(s.Below, func(prefix string) bool { return strings.HasPrefix(site, prefix) })
	})
	if j.Twice {
		again, _ := s.Execute(c)
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

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails with these arguments
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
