package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"sync"
	"time"

	"github.com/synod-go/synod/internal/simulate/system"
)

// work does the jobs that come from in.
func work(s system.System, in io.Reader, out io.Writer) error {
	debug.SetGCPercent(800) // runs are short, and what they leave is much
	jobs, outcomes := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var j system.Job
		if err := jobs.Decode(&j); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := outcomes.Encode(s.Do(j)); err != nil {
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

func startPool(name string, workers int) (*pool, error) {
	p := &pool{idle: make(chan *process, workers)}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for range workers {
		w := &process{cmd: exec.Command(self, "-worker", "-system", name)}
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

func (w *process) do(j system.Job) (o system.Outcome, err error) {
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
func (p *pool) all(jobs []system.Job, done func(system.Job, system.Outcome) error) error {
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
func (p *pool) sweep(out, progress io.Writer, name string, s system.System, j system.Job, start, seeds uint64) (*system.Summary, error) {
	sum := system.NewSummary(name, start)
	jobs := make([]system.Job, seeds)
	for i := range jobs {
		jobs[i] = j
		jobs[i].Seed = start + uint64(i)
	}
	said := time.Now()
	err := p.all(jobs, func(_ system.Job, o system.Outcome) error {
		sum.Add(o)
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
	sum.End(s.Sites)
	return sum, err
}

// table puts every bug back in turn, and prints how many seeds it took to find it.
func table(out, progress io.Writer, p *pool, s system.System, start, seeds uint64) error {
	jobs := make([]system.Job, len(s.Bugs))
	for i, b := range s.Bugs {
		jobs[i] = system.Job{Bug: b.Name, Seed: start, Until: start + seeds - 1}
	}
	found := make(map[string]system.Outcome)
	missed := 0
	err := p.all(jobs, func(j system.Job, o system.Outcome) error {
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
	for _, b := range s.Bugs {
		o := found[b.Name]
		by := o.Check
		if by == "" {
			by = o.Failure
		}
		if o.Failure == "" {
			by = "**not found**"
		}
		fmt.Fprintf(out, "| %s: %s | %d | %s |\n", b.Name, b.What, o.Seed-start+1, by)
	}
	if missed > 0 {
		return fmt.Errorf("%d of %d bugs were not found within %d seeds", missed, len(s.Bugs), seeds)
	}
	return nil
}
