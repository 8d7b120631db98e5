// Command bench runs this library and its peers on the same work, in turns, and
// writes the figures, tables and a chart. README.md says how to read them.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/synod-go/synod/bench/work"
)

// systems says which module's program measures which system.
var systems = []struct{ name, module string }{
	{ours, "synod"},
	{oursToo, "synod"},
	{"hashicorp", "hashicorp"},
	{"hashicorp-tuned", "hashicorp"},
	{"dragonboat-pebble", "dragonboat"},
	{"dragonboat-tan", "dragonboat"},
	{"etcd", "etcd"},
}

// report is everything that a run of this program found.
type report struct {
	Date     string        `json:"date"`
	Command  string        `json:"command"`
	Revision string        `json:"revision"` // of this tree
	Go       string        `json:"go"`
	Cores    int           `json:"cores"`
	Rounds   int           `json:"rounds"`
	Results  []work.Result `json:"results"`            // of every run, in order
	Failures []string      `json:"failures,omitempty"` // runs without a result, and why
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, build)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// plan is what the command line asks for.
type plan struct {
	systems  []string
	jobs     []work.Job // without a system
	rounds   int
	dir, out string
}

// parse reads the command line.
func parse(args []string) (*plan, error) {
	var names []string
	for _, s := range systems {
		names = append(names, s.name)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	chosen := flags.String("systems", strings.Join(names, ","), "which to measure")
	clients := flags.String("clients", "1,64,512", "clients that write in closed loops; empty: no writes")
	sizes := flags.String("sizes", "128,1024", "bytes of a command")
	reads := flags.String("reads", "64", "clients of linearizable reads; empty: no reads")
	seconds := flags.Float64("seconds", 5, "of each measurement")
	warmup := flags.Float64("warmup", 1, "seconds before each measurement, not counted")
	rounds := flags.Int("rounds", 3, "the medians are taken over so many")
	dir := flags.String("dir", "", "directory for data, on a real disk (default: below -out)")
	out := flags.String("out", "out", "directory for the results")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *seconds <= 0 || *warmup < 0 || *rounds < 1 {
		return nil, errors.New("-seconds is above 0, -warmup not below 0, -rounds at least 1")
	}
	p := &plan{rounds: *rounds, dir: *dir, out: *out}
	if p.dir == "" {
		p.dir = p.out
	}
	for _, name := range split(*chosen) {
		if module(name) == "" {
			return nil, fmt.Errorf("no system %q: choose among %s", name, strings.Join(names, ", "))
		}
		p.systems = append(p.systems, name)
	}
	add := func(kind, list string, size int) error {
		for _, s := range split(list) {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 {
				return fmt.Errorf("%q is not a number of clients", s)
			}
			p.jobs = append(p.jobs, work.Job{Work: kind, Clients: n, Size: size, Warmup: duration(*warmup), Time: duration(*seconds)})
		}
		return nil
	}
	for _, s := range split(*sizes) {
		size, err := strconv.Atoi(s)
		if err != nil || size < 8 {
			return nil, fmt.Errorf("%q is not a size of at least 8 bytes", s)
		}
		if err := add("write", *clients, size); err != nil {
			return nil, err
		}
	}
	if err := add("read", *reads, 128); err != nil {
		return nil, err
	}
	if len(p.systems) == 0 || len(p.jobs) == 0 {
		return nil, errors.New("nothing to do: give -systems, and -clients or -reads")
	}
	return p, nil
}

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// order returns every run of a round: the systems one after the other within each
// kind of work. Another one begins each time, so that nobody always follows the same
// pause, or always comes first.
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

// run does everything. build returns the path of each system's program, and a
// function that removes them.
func run(ctx context.Context, args []string, stdout io.Writer, build builder) error {
	p, err := parse(args)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.out, 0o755); err != nil {
		return err
	}
	if err := work.OnDisk(p.dir); err != nil {
		return err
	}
	programs, remove, err := build(ctx, p.systems, stdout)
	if err != nil {
		return err
	}
	defer remove()
	r := report{
		Date:     time.Now().UTC().Format(time.DateOnly),
		Command:  command(args),
		Revision: revision(ctx),
		Go:       runtime.Version(),
		Cores:    runtime.NumCPU(),
	}
	for round := range p.rounds {
		for _, job := range p.order(round) {
			result, err := measure(ctx, programs[job.System], job, p.dir)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				// The other runs are worth having all the same.
				err = fmt.Errorf("round %d: %s: %s: %w", round+1, job.System, cell{job.Work, job.Clients, job.Size}, err)
				fmt.Fprintln(stdout, err)
				r.Failures = append(r.Failures, err.Error())
				continue
			}
			fmt.Fprintf(stdout, "round %d  %-18s %-5s %4d clients %5d B %9.0f/s  p50 %7.0f µs  p99 %7.0f µs  %6.1f µs CPU  %6.1f allocs  %d errors  %.1f cores busy elsewhere\n", round+1, job.System,
				job.Work, job.Clients, job.Size, result.PerSecond, result.P50Micros, result.P99Micros, result.CPUMicros, result.Allocs, result.Errors, result.OtherCores)
			r.Results = append(r.Results, result)
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

// command is the command line that repeats this run.
func command(args []string) string {
	c := "go run ."
	for _, arg := range args {
		if arg == "" || strings.ContainsAny(arg, " \"'$\\") {
			arg = strconv.Quote(arg)
		}
		c += " " + arg
	}
	return c
}

// write writes the three files.
func (r report) write(dir string) error {
	figures, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "results.json"), append(figures, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "results.md"), []byte(markdown(r)), 0o644),
		os.WriteFile(filepath.Join(dir, "results.svg"), chart(r), 0o644),
	)
}

// split splits a list at its commas.
func split(list string) []string {
	var parts []string
	for s := range strings.SplitSeq(list, ",") {
		if s = strings.TrimSpace(s); s != "" {
			parts = append(parts, s)
		}
	}
	return parts
}

func module(system string) string {
	for _, s := range systems {
		if s.name == system {
			return s.module
		}
	}
	return ""
}

// revision names the commit that is measured, as far as git knows it.
func revision(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// A builder returns the path of each system's program, and a function that removes
// them all.
type builder func(ctx context.Context, names []string, stdout io.Writer) (map[string]string, func(), error)

// build builds the programs from their modules, one after the other.
func build(ctx context.Context, names []string, stdout io.Writer) (_ map[string]string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "synod-bench-")
	if err != nil {
		return nil, nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	defer func() {
		if err != nil {
			remove()
		}
	}()
	paths := make(map[string]string)
	for _, name := range names {
		module := module(name)
		path := filepath.Join(dir, module)
		if _, err := os.Stat(path); err != nil {
			fmt.Fprintln(stdout, "building", module)
			if out, err := exec.CommandContext(ctx, "go", "build", "-C", module, "-o", path, ".").CombinedOutput(); err != nil {
				return nil, nil, fmt.Errorf("build %s: %w\n%s", module, err, out)
			}
		}
		paths[name] = path
	}
	return paths, remove, nil
}

// measure runs one job in a process of its own, on an empty directory.
func measure(ctx context.Context, program string, job work.Job, dir string) (work.Result, error) {
	data, err := os.MkdirTemp(dir, "data-")
	if err != nil {
		return work.Result{}, err
	}
	defer os.RemoveAll(data)
	ctx, cancel := context.WithTimeout(ctx, job.Warmup+job.Time+3*time.Minute) // a system that hangs must not hang the rest
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-system", job.System, "-work", job.Work, "-clients", strconv.Itoa(job.Clients),
		"-size", strconv.Itoa(job.Size), "-warmup", seconds(job.Warmup), "-seconds", seconds(job.Time), "-dir", data)
	var stderr tail
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return work.Result{}, fmt.Errorf("%w: %s", err, stderr)
	}
	// A peer may log to standard output: the result is the last line.
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var result work.Result
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &result); err != nil {
		return result, fmt.Errorf("read its result: %w", err)
	}
	return result, nil
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// tail keeps the end of what is written to it: a peer may log without end.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	const limit = 4096
	*t = append(*t, p...)
	if n := len(*t); n > limit {
		*t = append((*t)[:0], (*t)[n-limit:]...)
	}
	return len(p), nil
}

func (t tail) String() string { return strings.TrimSpace(string(t)) }
