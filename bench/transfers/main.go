package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/synod-go/synod/bench/work"
)

// result is what was measured of one system, at one kind of work.
type result struct {
	work.Result
	Retries float64 `json:"retries_per_transfer"` // the warm-up's among them
}

// report is everything that a run found.
type report struct {
	Date     string   `json:"date"`
	Command  string   `json:"command"`
	Revision string   `json:"revision"`
	Go       string   `json:"go"`
	Cores    int      `json:"cores"`
	Rounds   int      `json:"rounds"`
	Results  []result `json:"results"`
	Failures []string `json:"failures,omitempty"`
}

// plan is what the command line asks for.
type plan struct {
	systems  []string
	jobs     []work.Job // without a system
	rounds   int
	dir, out string

	measured string // a system, which this process measures
	profiles
}

// profiles are files to write profiles of a measurement to.
type profiles struct{ cpu, memory string }

// start begins them, and returns what ends them.
func (p profiles) start() (stop func() error, err error) {
	var c *os.File
	if p.cpu != "" {
		if c, err = os.Create(p.cpu); err != nil {
			return nil, err
		}
		if err := pprof.StartCPUProfile(c); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return func() error {
		var errs []error
		if c != nil {
			pprof.StopCPUProfile()
			errs = append(errs, c.Close())
		}
		if p.memory != "" {
			m, err := os.Create(p.memory)
			if err != nil {
				return errors.Join(append(errs, err)...)
			}
			errs = append(errs, pprof.Lookup("allocs").WriteTo(m, 0), m.Close())
		}
		return errors.Join(errs...)
	}, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "transfers:", err)
		os.Exit(1)
	}
}

// distributions are how accounts are drawn.
var distributions = map[string]func() func(*rand.Rand) int{
	"uniform": func() func(*rand.Rand) int { return func(r *rand.Rand) int { return r.IntN(accounts) } },
	"zipf":    func() func(*rand.Rand) int { return zipf(accounts, 0.99) },
}

// parse reads the command line.
func parse(args []string) (*plan, error) {
	var names []string
	for _, s := range systems {
		names = append(names, s.name)
	}
	flags := flag.NewFlagSet("transfers", flag.ContinueOnError)
	chosen := flags.String("systems", strings.Join(names, ","), "which to measure")
	clients := flags.String("clients", "1,16,128", "clients in closed loops")
	draws := flags.String("distributions", "uniform,zipf", "how accounts are drawn: uniform, and zipf with exponent 0.99")
	seconds := flags.Float64("seconds", 5, "of each measurement")
	warmup := flags.Float64("warmup", 1, "seconds before each measurement, not counted")
	rounds := flags.Int("rounds", 3, "the medians are taken over so many")
	dir := flags.String("dir", "", "directory for data, on a real disk (default: below -out)")
	p := &plan{}
	flags.StringVar(&p.out, "out", filepath.Join("..", "out", "transfers"), "directory for the results")
	flags.StringVar(&p.measured, "measure", "", "measure this system alone, once, in this process, and print the result")
	flags.StringVar(&p.cpu, "cpuprofile", "", "with -measure: write a profile of the time to this file")
	flags.StringVar(&p.memory, "memprofile", "", "with -measure: write a profile of what was allocated, from the start on, to this file")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *seconds <= 0 || *warmup < 0 || *rounds < 1 {
		return nil, errors.New("-seconds is above 0, -warmup not below 0, -rounds at least 1")
	}
	p.rounds, p.dir = *rounds, *dir
	if p.dir == "" {
		p.dir = p.out
	}
	p.systems = split(*chosen)
	for _, name := range p.systems {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("no system %q: choose among %s", name, strings.Join(names, ", "))
		}
	}
	for _, draw := range split(*draws) {
		if distributions[draw] == nil {
			return nil, fmt.Errorf("no distribution %q: choose among uniform, zipf", draw)
		}
		for _, s := range split(*clients) {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 {
				return nil, fmt.Errorf("%q is not a number of clients", s)
			}
			p.jobs = append(p.jobs, work.Job{Work: draw, Clients: n, Size: 8, Groups: 1, Warmup: duration(*warmup), Time: duration(*seconds)})
		}
	}
	switch {
	case len(p.systems) == 0 || len(p.jobs) == 0:
		return nil, errors.New("nothing to do: give -systems, -clients and -distributions")
	case p.measured != "" && !slices.Contains(names, p.measured):
		return nil, fmt.Errorf("no system %q: choose among %s", p.measured, strings.Join(names, ", "))
	case p.measured != "" && len(p.jobs) != 1:
		return nil, errors.New("-measure takes one number of -clients, and one of -distributions")
	case p.measured == "" && p.profiles != (profiles{}):
		return nil, errors.New("-cpuprofile and -memprofile go with -measure")
	}
	return p, nil
}

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// split splits a list at its commas.
func split(list string) []string {
	return slices.DeleteFunc(strings.Split(strings.ReplaceAll(list, " ", ""), ","), func(s string) bool { return s == "" })
}

// order returns every run of a round: the systems one after the other within each kind of work, beginning with another one each time.
func (p *plan) order(round int) []work.Job {
	var all []work.Job
	for j, job := range p.jobs {
		for i := range p.systems {
			job.System = p.systems[(i+round+j)%len(p.systems)]
			all = append(all, job)
		}
	}
	return all
}

// run does everything.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	p, err := parse(args)
	if err != nil {
		return err
	}
	if p.measured != "" {
		return measureHere(ctx, p, stdout)
	}
	if err := os.MkdirAll(p.out, 0o755); err != nil {
		return err
	}
	if err := work.OnDisk(p.dir); err != nil {
		return err
	}
	r := report{
		Date: time.Now().UTC().Format(time.DateOnly), Command: strings.TrimSpace("go run . " + strings.Join(args, " ")), Revision: revision(ctx),
		Go: runtime.Version(), Cores: runtime.NumCPU(),
	}
	for round := range p.rounds {
		for _, job := range p.order(round) {
			x, err := measureThere(ctx, job, p.dir)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				// The other runs are worth having all the same.
				err = fmt.Errorf("round %d: %s: %s: %w", round+1, job.System, cellOf(job), err)
				fmt.Fprintln(stdout, err)
				r.Failures = append(r.Failures, err.Error())
				continue
			}
			fmt.Fprintf(stdout, "round %d  %-14s %-22s %8.0f/s  p50 %7.0f µs  p99 %8.0f µs  %6.3f retries  %6.1f µs CPU  %6.1f allocs  %d errors  %.1f cores busy elsewhere\n", round+1, job.System,
				cellOf(job), x.PerSecond, x.P50Micros, x.P99Micros, x.Retries, x.CPUMicros, x.Allocs, x.Errors, x.OtherCores)
			r.Results = append(r.Results, x)
		}
		// After each round, so that what there is survives an interruption.
		r.Rounds = round + 1
		if err := r.write(p.out); err != nil {
			return err
		}
	}
	fmt.Fprint(stdout, "\n", markdown(r))
	if len(r.Failures) > 0 {
		return fmt.Errorf("%d runs failed", len(r.Failures))
	}
	return nil
}

// write writes the results.
func (r report) write(dir string) error {
	figures, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "results.json"), append(figures, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "results.md"), []byte(markdown(r)), 0o644),
	)
}

// revision names the commit that is measured, as far as git knows it.
func revision(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// measureThere runs one job in a process of its own, on an empty directory.
func measureThere(ctx context.Context, job work.Job, dir string) (x result, err error) {
	program, err := os.Executable()
	if err != nil {
		return x, err
	}
	data, err := os.MkdirTemp(dir, "data-")
	if err != nil {
		return x, err
	}
	defer os.RemoveAll(data)
	ctx, cancel := context.WithTimeout(ctx, job.Warmup+job.Time+3*time.Minute) // a system that hangs must not hang the rest
	defer cancel()
	seconds := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
	cmd := exec.CommandContext(ctx, program, "-measure", job.System, "-clients", strconv.Itoa(job.Clients), "-distributions", job.Work,
		"-warmup", seconds(job.Warmup), "-seconds", seconds(job.Time), "-dir", data)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr[max(0, len(exit.Stderr)-4096):])
		}
		return x, err
	}
	// A peer may log to standard output: the result is the last line.
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &x); err != nil {
		return x, fmt.Errorf("read its result: %w", err)
	}
	return x, nil
}

// measureHere runs one job, and prints its result.
func measureHere(ctx context.Context, p *plan, stdout io.Writer) error {
	job := p.jobs[0]
	job.System = p.measured
	if err := work.OnDisk(p.dir); err != nil {
		return err
	}
	var err error
	if job.Dir, err = os.MkdirTemp(p.dir, "run-"); err != nil {
		return err
	}
	defer os.RemoveAll(job.Dir)
	x, err := measure(ctx, job, p.profiles)
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(x)
}

// measure opens a system, drives it, and looks whether the money is still there.
func measure(ctx context.Context, job work.Job, profiles profiles) (x result, err error) {
	ctx, cancel := context.WithTimeout(ctx, job.Warmup+job.Time+2*time.Minute)
	defer cancel()
	kind := systems[slices.IndexFunc(systems, func(s system) bool { return s.name == job.System })]
	bank, err := kind.open(ctx, job.Dir)
	if err != nil {
		return x, fmt.Errorf("open %s: %w", job.System, err)
	}
	defer bank.close()
	if err := bank.load(ctx); err != nil {
		return x, fmt.Errorf("load %s: %w", job.System, err)
	}
	stop, err := profiles.start()
	if err != nil {
		return x, err
	}
	var attempts, done atomic.Int64
	draw := distributions[job.Work]()
	x.Result, err = work.Drive(ctx, job, func(c int) func() error {
		random := rand.New(rand.NewPCG(uint64(c), 1))
		return func() error {
			from, to := pair(random, draw, kind.across)
			n, err := bank.transfer(ctx, from, to)
			attempts.Add(int64(n))
			if err == nil {
				done.Add(1)
			}
			return err
		}
	})
	if err := errors.Join(err, stop()); err != nil {
		return x, err
	}
	x.Retries = float64(attempts.Load()-done.Load()) / float64(done.Load())
	x.Version, x.Settings = work.Versions(kind.modules), kind.settings
	total, err := bank.total(ctx)
	if err != nil {
		return x, fmt.Errorf("add up the accounts of %s: %w", job.System, err)
	}
	if total != accounts*opening {
		return x, fmt.Errorf("%s has lost or made money: %d instead of %d", job.System, total, accounts*opening)
	}
	return x, nil
}
