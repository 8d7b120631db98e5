// Command bench runs this library and its peers on the same work, alternately, and
// writes a table, the figures and a chart. README.md says how to read them.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
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
	{"synod", "synod"},
	{"hashicorp", "hashicorp"},
	{"hashicorp-tuned", "hashicorp"},
	{"dragonboat-pebble", "dragonboat"},
	{"dragonboat-tan", "dragonboat"},
	{"etcd", "etcd"},
}

// report is everything that a run of this program found.
type report struct {
	Date    string        `json:"date"`
	Command string        `json:"command"`
	Go      string        `json:"go"`
	Cores   int           `json:"cores"`
	Rounds  int           `json:"rounds"`
	Results []work.Result `json:"results"` // of every run, in order
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	var names []string
	for _, s := range systems {
		names = append(names, s.name)
	}
	chosen := flag.String("systems", strings.Join(names, ","), "which to measure")
	clients := flag.String("clients", "1,64,512", "clients in a closed loop")
	sizes := flag.String("sizes", "128,1024", "bytes of a command")
	reads := flag.String("reads", "64", "clients of linearizable reads; empty: none")
	seconds := flag.Int("seconds", 5, "of each measurement, after one second of warming up")
	rounds := flag.Int("rounds", 3, "the medians are taken over so many")
	dir := flag.String("dir", "", "where data are written: a real disk; default: below -out")
	out := flag.String("out", "out", "directory for the results")
	flag.Parse()
	if *seconds < 1 || *rounds < 1 {
		return errors.New("-seconds and -rounds are at least 1")
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	if *dir == "" {
		*dir = *out
	}
	if err := onDisk(*dir); err != nil {
		return err
	}
	var jobs []work.Job
	add := func(kind, list string, size int) error {
		for _, s := range split(list) {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 {
				return fmt.Errorf("%q is not a number of clients", s)
			}
			jobs = append(jobs, work.Job{Work: kind, Clients: n, Size: size, Warmup: time.Second, Time: time.Duration(*seconds) * time.Second})
		}
		return nil
	}
	for _, s := range split(*sizes) {
		size, err := strconv.Atoi(s)
		if err != nil || size < 8 {
			return fmt.Errorf("%q is not a size of at least 8 bytes", s)
		}
		if err := add("write", *clients, size); err != nil {
			return err
		}
	}
	if err := add("read", *reads, 128); err != nil {
		return err
	}
	programs, err := build(split(*chosen))
	if err != nil {
		return err
	}
	defer os.RemoveAll(programs.dir)
	r := report{
		Date:    time.Now().UTC().Format("2006-01-02"),
		Command: "go run . " + strings.Join(os.Args[1:], " "),
		Go:      runtime.Version(),
		Cores:   runtime.NumCPU(),
		Rounds:  *rounds,
	}
	for round := range *rounds {
		for _, job := range jobs {
			for i := range programs.names {
				// Another one begins each time: nobody always follows the same neighbour.
				job.System = programs.names[(i+round)%len(programs.names)]
				result, err := measure(programs, job, *dir)
				if err != nil {
					return err
				}
				fmt.Printf("round %d  %-18s %-5s %4d clients %5d B %9.0f/s  p50 %7.0f µs  p99 %7.0f µs  %6.1f µs CPU  %6.1f allocs  %d errors\n", round+1, job.System,
					job.Work, job.Clients, job.Size, result.PerSecond, result.P50Micros, result.P99Micros, result.CPUMicros, result.Allocs, result.Errors)
				r.Results = append(r.Results, result)
			}
		}
	}
	figures, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	table := markdown(r)
	fmt.Print("\n", table)
	for name, content := range map[string][]byte{
		"results.json": append(figures, '\n'),
		"results.md":   []byte(table),
		"results.svg":  chart(r),
	} {
		if err := os.WriteFile(filepath.Join(*out, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// onDisk refuses a directory that is in memory: a sync would cost nothing there.
func onDisk(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return err
	}
	const tmpfs, ramfs = 0x01021994, 0x858458f6
	if s.Type == tmpfs || s.Type == ramfs {
		return fmt.Errorf("%s is in memory: give a directory on a disk with -dir", dir)
	}
	return nil
}

type programs struct {
	dir   string
	names []string
	paths map[string]string
}

// build builds the programs of the chosen systems.
func build(chosen []string) (*programs, error) {
	dir, err := os.MkdirTemp("", "synod-bench-")
	if err != nil {
		return nil, err
	}
	p := &programs{dir: dir, paths: make(map[string]string)}
	for _, name := range chosen {
		module := ""
		for _, s := range systems {
			if s.name == name {
				module = s.module
			}
		}
		if module == "" {
			return nil, fmt.Errorf("no system %q", name)
		}
		path := filepath.Join(dir, module)
		if _, err := os.Stat(path); err != nil {
			fmt.Println("building", module)
			cmd := exec.Command("go", "build", "-C", module, "-o", path, ".")
			if out, err := cmd.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("build %s: %w\n%s", module, err, out)
			}
		}
		p.names = append(p.names, name)
		p.paths[name] = path
	}
	return p, nil
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// measure runs one job in a process of its own.
func measure(p *programs, job work.Job, dir string) (work.Result, error) {
	data, err := os.MkdirTemp(dir, "data-")
	if err != nil {
		return work.Result{}, err
	}
	defer os.RemoveAll(data)
	cmd := exec.Command(p.paths[job.System], "-system", job.System, "-work", job.Work, "-clients", strconv.Itoa(job.Clients),
		"-size", strconv.Itoa(job.Size), "-warmup", seconds(job.Warmup), "-seconds", seconds(job.Time), "-dir", data)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return work.Result{}, fmt.Errorf("%s: %w\n%s", cmd, err, stderr.String())
	}
	// A peer may log to standard output: the result is the last line.
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var result work.Result
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &result); err != nil {
		return result, fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return result, nil
}
