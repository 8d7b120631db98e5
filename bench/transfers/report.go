package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/synod-go/synod/bench/work"
)

// cell is one kind of work.
type cell struct {
	draw    string
	clients int
}

func cellOf(job work.Job) cell { return cell{job.Work, job.Clients} }

func (c cell) String() string {
	if c.clients == 1 {
		return c.draw + ", 1 client"
	}
	return fmt.Sprintf("%s, %d clients", c.draw, c.clients)
}

// summary is the medians of one system's runs of one cell.
type summary struct {
	perSecond, p50, p99, cpu, allocs, retries float64
	low, high                                 float64 // the range of perSecond
	errors                                    uint64  // of all runs
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// summarize returns the cells in the order in which they were first measured, the systems in that of the table, and the medians.
func summarize(r report) (cells []cell, names []string, all map[cell]map[string]summary) {
	runs := make(map[cell]map[string][]result)
	for _, x := range r.Results {
		c := cellOf(x.Job)
		if runs[c] == nil {
			runs[c] = make(map[string][]result)
			cells = append(cells, c)
		}
		runs[c][x.System] = append(runs[c][x.System], x)
	}
	for _, s := range systems {
		if slices.ContainsFunc(r.Results, func(x result) bool { return x.System == s.name }) {
			names = append(names, s.name)
		}
	}
	all = make(map[cell]map[string]summary)
	for c, systems := range runs {
		all[c] = make(map[string]summary)
		for name, list := range systems {
			of := func(f func(result) float64) []float64 {
				var v []float64
				for _, x := range list {
					v = append(v, f(x))
				}
				return v
			}
			speed := of(func(x result) float64 { return x.PerSecond })
			s := summary{
				perSecond: median(speed), low: slices.Min(speed), high: slices.Max(speed),
				p50:     median(of(func(x result) float64 { return x.P50Micros })),
				p99:     median(of(func(x result) float64 { return x.P99Micros })),
				cpu:     median(of(func(x result) float64 { return x.CPUMicros })),
				allocs:  median(of(func(x result) float64 { return x.Allocs })),
				retries: median(of(func(x result) float64 { return x.Retries })),
			}
			for _, x := range list {
				s.errors += x.Errors
			}
			all[c][name] = s
		}
	}
	return cells, names, all
}

// ratios are the columns beside the rates: one system's rate over another one's.
var ratios = []struct{ above, below string }{{ours, replicated}, {oursTwo, ours}, {"synod-paxos", replicated}, {"synod-paxos-two", "synod-paxos"}}

// markdown writes the tables.
func markdown(r report) string {
	cells, names, all := summarize(r)
	var b strings.Builder
	fmt.Fprintf(&b, "`%s`, %s, revision %s, %s, %d cores; medians of %d rounds, in which the systems take turns.\n\n", r.Command, r.Date, r.Revision, r.Go, r.Cores, r.Rounds)
	fmt.Fprintf(&b, "Transfers a second:\n\n| work |")
	for _, n := range names {
		fmt.Fprintf(&b, " %s |", n)
	}
	columns := len(names)
	for _, q := range ratios {
		if slices.Contains(names, q.above) && slices.Contains(names, q.below) {
			fmt.Fprintf(&b, " %s / %s |", q.above, q.below)
			columns++
		}
	}
	fmt.Fprintf(&b, "\n|---|%s\n", strings.Repeat("---:|", columns))
	for _, c := range cells {
		fmt.Fprintf(&b, "| %s |", c)
		for _, n := range names {
			if s, ok := all[c][n]; ok {
				fmt.Fprintf(&b, " %s |", thousands(s.perSecond))
			} else {
				fmt.Fprint(&b, " – |")
			}
		}
		for _, q := range ratios {
			if !slices.Contains(names, q.above) || !slices.Contains(names, q.below) {
				continue
			}
			above, ok := all[c][q.above]
			below, ok2 := all[c][q.below]
			if ok && ok2 {
				fmt.Fprintf(&b, " %.2f |", above.perSecond/below.perSecond)
			} else {
				fmt.Fprint(&b, " – |")
			}
		}
		fmt.Fprintln(&b)
	}
	fmt.Fprintf(&b, "\nRates with the least and the most of the rounds; retries are executions of the transaction beyond the one that counted, for each transfer; latencies in milliseconds; "+
		"CPU in µs and allocations are those of the whole process, all replicas and all clients, for each transfer; errors are those of all rounds.\n\n"+
		"| work | system | rate | least – most | retries | p50 | p99 | CPU | allocations | errors |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, c := range cells {
		for _, n := range names {
			if s, ok := all[c][n]; ok {
				fmt.Fprintf(&b, "| %s | %s | %s | %s – %s | %.3f | %.2f | %.2f | %.1f | %.1f | %s |\n", c, n, thousands(s.perSecond), thousands(s.low), thousands(s.high),
					s.retries, s.p50/1e3, s.p99/1e3, s.cpu, s.allocs, thousands(float64(s.errors)))
			}
		}
	}
	if len(r.Results) > 0 {
		worst := slices.MaxFunc(r.Results, func(x, y result) int { return cmp.Compare(x.OtherCores, y.OtherCores) })
		fmt.Fprintf(&b, "\nEverything else on the machine kept at most %.1f of its %d cores busy during a run (%s: %s). Above a few tenths, the figures tell little.\n",
			worst.OtherCores, r.Cores, worst.System, cellOf(worst.Job))
	}
	fmt.Fprint(&b, "\n| system | version | settings |\n|---|---|---|\n")
	for _, n := range names {
		i := slices.IndexFunc(r.Results, func(x result) bool { return x.System == n })
		fmt.Fprintf(&b, "| %s | %s | %s |\n", n, r.Results[i].Version, r.Results[i].Settings)
	}
	if len(r.Failures) > 0 {
		fmt.Fprint(&b, "\nRuns without a result, which the medians leave out:\n\n")
		for _, f := range r.Failures {
			fmt.Fprintf(&b, "- %s\n", strings.Join(strings.Fields(f), " "))
		}
	}
	return b.String()
}

func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
