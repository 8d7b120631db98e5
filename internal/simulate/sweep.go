package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"
)

// summary is what a sweep found.
type summary struct {
	System     string         `json:"system"`
	Start      uint64         `json:"start"`
	Seeds      uint64         `json:"seeds"`
	Hours      float64        `json:"simulated_hours"`
	CPUMinutes float64        `json:"cpu_minutes"`
	Speed      float64        `json:"simulated_hours_a_cpu_minute"`
	Events     uint64         `json:"events"`
	Kinds      int            `json:"kinds_of_faults"`
	Faults     map[string]int `json:"faults"`
	Effects    map[string]int `json:"effects"`
	Reached    map[string]int `json:"sites_reached"`
	Missed     []string       `json:"sites_not_reached"`
	Forced     map[string]int `json:"rare_branches_taken"`
	Histories  int            `json:"histories_checked"`
	Calls      int            `json:"calls_checked"`
	Mismatches uint64         `json:"hash_mismatches"`
	Violations []string       `json:"violations"`
}

// enough is how many seeds must reach every site.
const enough = 100

// verdict is the error of a sweep that found something, or did not look everywhere.
func (s *summary) verdict() error {
	switch {
	case len(s.Violations) > 0:
		return fmt.Errorf("%d violations", len(s.Violations))
	case s.Mismatches > 0:
		return fmt.Errorf("%d seeds gave another trace the second time", s.Mismatches)
	case s.Seeds >= enough && len(s.Missed) > 0:
		return fmt.Errorf("sites that were not reached: %q", s.Missed)
	}
	return nil
}

func newSummary(name string, start uint64) *summary {
	return &summary{System: name, Start: start, Faults: make(map[string]int), Effects: make(map[string]int), Reached: make(map[string]int),
		Forced: make(map[string]int), Missed: []string{}, Violations: []string{}}
}

func (s *summary) add(o outcome) {
	s.Seeds++
	s.Hours += o.Hours
	s.CPUMinutes += o.CPU.Minutes()
	s.Events += o.Events
	s.Histories += o.Histories
	s.Calls += o.Calls
	for _, m := range []struct{ from, to map[string]int }{{o.Faults, s.Faults}, {o.Effects, s.Effects}, {o.Sites, s.Reached}, {o.Forced, s.Forced}} {
		for k, n := range m.from {
			m.to[k] += n
		}
	}
	if o.Differs {
		s.Mismatches++
	}
	if o.Failure != "" {
		s.Violations = append(s.Violations, fmt.Sprintf("seed %d: %s", o.Seed, o.Failure))
	}
}

func (s *summary) end(sites []string) {
	s.Speed = s.Hours / s.CPUMinutes
	s.Kinds = len(s.Faults)
	for _, site := range sites {
		if s.Reached[site] == 0 {
			s.Missed = append(s.Missed, site)
		}
	}
	maps.DeleteFunc(s.Reached, func(site string, n int) bool {
		if n == 0 && !slices.Contains(s.Missed, site) {
			s.Missed = append(s.Missed, site) // one that nobody has listed
		}
		return n == 0
	})
	slices.Sort(s.Missed)
	slices.Sort(s.Violations)
}

// work does the jobs that come from in.
func work(s system, in io.Reader, out io.Writer) error {
	debug.SetGCPercent(800) // runs are short, and what they leave is much
	jobs, outcomes := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var j job
		if err := jobs.Decode(&j); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := outcomes.Encode(s.do(j)); err != nil {
			return err
		}
	}
}

// pool is worker processes: one simulation runs in a process at a time.
type pool struct {
	workers []*process
	idle    chan *process
}

type process struct {
	cmd  *exec.Cmd
	jobs io.WriteCloser
	out  *json.Decoder
}

func startPool(system string, workers int) (*pool, error) {
	p := &pool{idle: make(chan *process, workers)}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for range workers {
		w := &process{cmd: exec.Command(self, "-worker", "-system", system)}
		w.cmd.Stderr = os.Stderr
		if w.jobs, err = w.cmd.StdinPipe(); err != nil {
			return nil, err
		}
		out, err := w.cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		w.out = json.NewDecoder(bufio.NewReader(out))
		if err := w.cmd.Start(); err != nil {
			p.close()
			return nil, err
		}
		p.workers = append(p.workers, w)
		p.idle <- w
	}
	return p, nil
}

func (p *pool) close() {
	for _, w := range p.workers {
		_ = w.jobs.Close()
		_ = w.cmd.Wait()
	}
}

func (w *process) do(j job) (o outcome, err error) {
	if err = json.NewEncoder(w.jobs).Encode(j); err == nil {
		err = w.out.Decode(&o)
	}
	if err != nil {
		return o, fmt.Errorf("the process that ran seed %d has ended: %w", j.Seed, err)
	}
	return o, nil
}

// all does jobs on all workers, and calls done with each outcome, one at a time, until it
// returns an error.
func (p *pool) all(jobs []job, done func(job, outcome) error) error {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	for _, j := range jobs {
		w := <-p.idle
		mu.Lock()
		over := failed != nil
		mu.Unlock()
		if over {
			p.idle <- w
			break
		}
		wg.Go(func() {
			o, err := w.do(j)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				err = done(j, o)
			}
			failed = errors.Join(failed, err)
			p.idle <- w
		})
	}
	wg.Wait()
	return failed
}

// sweep runs seeds, reports failures as they come, and says from time to time how far it
// is.
func (p *pool) sweep(out, progress io.Writer, name string, s system, j job, start, seeds uint64) (*summary, error) {
	sum := newSummary(name, start)
	jobs := make([]job, seeds)
	for i := range jobs {
		jobs[i] = j
		jobs[i].Seed = start + uint64(i)
	}
	said := time.Now()
	err := p.all(jobs, func(_ job, o outcome) error {
		sum.add(o)
		if o.Report != "" {
			fmt.Fprintln(out, o.Report)
		}
		if o.Differs {
			fmt.Fprintf(out, "seed %d gives another trace the second time\n", o.Seed)
		}
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			fmt.Fprintf(progress, "%d of %d seeds, %.1f simulated hours, %d violations\n", sum.Seeds, seeds, sum.Hours, len(sum.Violations))
		}
		return nil
	})
	sum.end(s.sites)
	return sum, err
}

// table puts every bug back in turn, and prints how many seeds it took to find it.
func table(out, progress io.Writer, p *pool, s system, start, seeds uint64) error {
	jobs := make([]job, len(s.bugs))
	for i, b := range s.bugs {
		jobs[i] = job{Bug: b.name, Seed: start, Until: start + seeds - 1}
	}
	found := make(map[string]outcome)
	missed := 0
	err := p.all(jobs, func(j job, o outcome) error {
		found[j.Bug] = o
		if o.Failure == "" {
			missed++
		}
		fmt.Fprintf(progress, "%d of %d bugs: %s: seed %d: %s\n", len(found), len(jobs), j.Bug, o.Seed, o.Failure)
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "| mistake | seeds | found by |")
	fmt.Fprintln(out, "|---|---|---|")
	for _, b := range s.bugs {
		o := found[b.name]
		by := o.Check
		if by == "" {
			by = o.Failure
		}
		if o.Failure == "" {
			by = "**not found**"
		}
		fmt.Fprintf(out, "| %s: %s | %d | %s |\n", b.name, b.what, o.Seed-start+1, by)
	}
	if missed > 0 {
		return fmt.Errorf("%d of %d bugs were not found within %d seeds", missed, len(s.bugs), seeds)
	}
	return nil
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails with these arguments
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
