// Command hashring measures package hashring and the consistent-hashing packages for
// Go, on the same nodes and the same keys, in one run, and prints a table in Markdown.
package main

import (
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// subject is a ring of some package. get may be called concurrently, with other gets
// and with changes: where a package does not provide for that, its adapter locks.
type subject interface {
	get(key string) string
	add(node string)
	remove(node string)
}

// system is a package, or an algorithm of one.
type system struct {
	name    string
	module  string // whose version the table shows
	setting string
	build   func(nodes []string) (subject, error)
}

// result is what was measured of a system at one size. What is not there is NaN.
type result struct {
	system, note    string
	nodes           int
	get             float64 // ns
	allocs          float64 // a get
	memory          float64 // bytes
	build, add      float64 // ms
	most, deviation float64 // of the mean
	removal         float64 // moved/needed when one leaves
	addition        float64 // moved/needed when one joins
	reading         float64 // ns while others change the ring, over that without
	changes         float64 // a second, of which reading was measured
}

type settings struct {
	nodes   []int
	systems string
	keys    int
	slice   time.Duration
}

func main() {
	sizes := flag.String("nodes", "10,100,1000", "numbers of nodes")
	s := settings{}
	flag.StringVar(&s.systems, "systems", "", "only systems whose name contains one of these, separated by commas")
	flag.IntVar(&s.keys, "keys", 200_000, "keys for balance and movement")
	flag.DurationVar(&s.slice, "slice", 100*time.Millisecond, "how long each measurement of time takes; five are made, and the median counts")
	flag.Parse()
	for _, f := range strings.Split(*sizes, ",") {
		n := 0
		if _, err := fmt.Sscan(f, &n); err != nil || n < 2 {
			fmt.Fprintf(os.Stderr, "hashring: -nodes %s: numbers from 2 on, separated by commas\n", *sizes)
			os.Exit(2)
		}
		s.nodes = append(s.nodes, n)
	}
	if err := run(s, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "hashring:", err)
		os.Exit(1)
	}
}

func run(s settings, out, progress io.Writer) error {
	var chosen []system
	for _, y := range systems {
		if s.systems == "" || slices.ContainsFunc(strings.Split(s.systems, ","), func(part string) bool { return strings.Contains(y.name, part) }) {
			chosen = append(chosen, y)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("-systems %s: there is none", s.systems)
	}
	var results []result
	for _, n := range s.nodes {
		for _, y := range chosen {
			fmt.Fprintf(progress, "%s, %d nodes\n", y.name, n)
			results = append(results, measure(y, n, s))
		}
	}
	report(out, s, chosen, results)
	return nil
}

func nodeNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("node-%04d", i)
	}
	return names
}

func keyNames(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("user:%011d", uint64(i)*0x9e3779b97f4a7c15>>28)
	}
	return keys
}

// measure does all the work of a system at one size. A package that panics has that
// said in the place of its figures.
func measure(y system, n int, s settings) (r result) {
	nan := math.NaN()
	r = result{system: y.name, nodes: n, get: nan, allocs: nan, memory: nan, build: nan, add: nan, most: nan, deviation: nan,
		removal: nan, addition: nan, reading: nan, changes: nan}
	defer func() {
		if p := recover(); p != nil {
			r.note = strings.TrimSpace(fmt.Sprintf("panics: %.60v", p))
		}
	}()
	names, keys := nodeNames(n), keyNames(s.keys)

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	ring, err := y.build(names)
	r.build = time.Since(began).Seconds() * 1000
	if err != nil {
		r.note = err.Error()
		return r
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	r.memory = max(0, float64(after.HeapAlloc)-float64(before.HeapAlloc))
	for range 2 { // the first may have paid for warming up
		began = time.Now()
		if _, err = y.build(names); err == nil {
			r.build = min(r.build, time.Since(began).Seconds()*1000)
		}
	}

	r.get = quiet(ring, keys, s.slice)
	debug.SetGCPercent(-1)
	runtime.ReadMemStats(&before)
	for _, k := range keys[:1000] {
		ring.get(k)
	}
	runtime.ReadMemStats(&after)
	debug.SetGCPercent(100)
	r.allocs = math.Floor(float64(after.Mallocs-before.Mallocs)/100) / 10

	owners := make([]string, len(keys))
	counts := make(map[string]float64)
	for i, k := range keys {
		owners[i] = ring.get(k)
		counts[owners[i]]++
	}
	sum := 0.0
	for _, name := range names {
		x := counts[name] * float64(n) / float64(len(keys))
		sum += (x - 1) * (x - 1)
		r.most = max(x, orZero(r.most))
	}
	r.deviation = math.Sqrt(sum / float64(n))

	// One in the middle leaves, and another one joins.
	r.removal, r.addition = nan, nan
	leaving, joining := names[n/2], "joining"
	moved, needed := 0.0, 0.0
	ring.remove(leaving)
	for i, k := range keys {
		to := ring.get(k)
		if owners[i] == leaving {
			needed++
		}
		if to != owners[i] {
			moved++
		}
		owners[i] = to
	}
	r.removal = moved / needed
	began = time.Now()
	ring.add(joining)
	r.add = time.Since(began).Seconds() * 1000
	moved, needed = 0, 0
	for i, k := range keys {
		to := ring.get(k)
		if to == joining {
			needed++
		}
		if to != owners[i] {
			moved++
		}
	}
	r.addition = moved / needed

	r.reading, r.changes = busy(ring, keys, joining, s.slice)
	return r
}

func orZero(x float64) float64 {
	if math.IsNaN(x) {
		return 0
	}
	return x
}

// loop returns how long a get takes, over a slice of time.
func loop(ring subject, keys []string, slice time.Duration) float64 {
	keys = keys[:min(len(keys), 1<<13)]
	began := time.Now()
	gets, length := 0, 0
	for time.Since(began) < slice {
		for _, k := range keys {
			length += len(ring.get(k))
		}
		gets += len(keys)
	}
	runtime.KeepAlive(length)
	return float64(time.Since(began).Nanoseconds()) / float64(gets)
}

// quiet returns the median of five.
func quiet(ring subject, keys []string, slice time.Duration) float64 {
	var times []float64
	for range 5 {
		times = append(times, loop(ring, keys, slice))
	}
	slices.Sort(times)
	return times[2]
}

// busy returns how much longer a get takes while another goroutine makes 1,000
// changes a second, or as many as it can: both are measured in turns, and the median
// of the ratios counts.
func busy(ring subject, keys []string, node string, slice time.Duration) (ratio, rate float64) {
	var ratios []float64
	changes, took := 0, time.Duration(0)
	present := true
	for range 5 {
		without := loop(ring, keys, slice)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			began := time.Now()
			ticks := time.NewTicker(time.Millisecond)
			defer ticks.Stop()
			for {
				select {
				case <-stop:
					took += time.Since(began)
					return
				case <-ticks.C:
				}
				if present {
					ring.remove(node)
				} else {
					ring.add(node)
				}
				present = !present
				changes++
			}
		})
		with := loop(ring, keys, slice)
		close(stop)
		wg.Wait()
		ratios = append(ratios, with/without)
	}
	slices.Sort(ratios)
	return ratios[2], float64(changes) / took.Seconds()
}

func report(w io.Writer, s settings, chosen []system, results []result) {
	fmt.Fprintf(w, "%s, %d cores; %d keys of 16 bytes; medians of five times %v.\n", runtime.Version(), runtime.NumCPU(), s.keys, s.slice)
	versions := make(map[string]string)
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			versions[d.Path] = d.Version
		}
	}
	fmt.Fprintf(w, "\n| system | version | setting |\n|---|---|---|\n")
	for _, y := range chosen {
		version := versions[y.module]
		if y.module == ours {
			version = "this tree"
		}
		fmt.Fprintf(w, "| %s | %s | %s |\n", y.name, version, y.setting)
	}
	for _, n := range s.nodes {
		fmt.Fprintf(w, "\n### %d nodes\n\n", n)
		fmt.Fprintln(w, "| system | get | allocs | memory | build | add | max/mean | σ | moved/needed, one leaves | one joins | get during changes | changes/s |")
		fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|---|---|")
		for _, r := range results {
			if r.nodes != n {
				continue
			}
			fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |", r.system, figure(r.get, "%.1f ns"), figure(r.allocs, "%.1f"),
				figure(r.memory/1024, "%.0f KiB"), figure(r.build, "%.2f ms"), figure(r.add, "%.3f ms"), figure(r.most, "%.3f"), figure(100*r.deviation, "%.1f %%"),
				figure(r.removal, "%.3f"), figure(r.addition, "%.3f"), figure(r.reading, "× %.2f"), figure(r.changes, "%.0f"))
			if r.note != "" {
				fmt.Fprintf(w, " %s |", r.note)
			}
			fmt.Fprintln(w)
		}
	}
}

func figure(x float64, format string) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return "–"
	}
	return fmt.Sprintf(format, x)
}
