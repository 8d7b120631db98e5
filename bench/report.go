package main

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/synod-go/synod/bench/work"
)

// cell is one kind of work.
type cell struct {
	work          string
	clients, size int
}

func (c cell) String() string {
	what := fmt.Sprintf("%d B", c.size)
	if c.size%1024 == 0 {
		what = fmt.Sprintf("%d KiB", c.size/1024)
	}
	if c.work == "read" {
		what = "reads"
	}
	if c.clients == 1 {
		return "1 client, " + what
	}
	return fmt.Sprintf("%d clients, %s", c.clients, what)
}

// summary is the medians of one system's runs of one cell.
type summary struct {
	perSecond, p50, p99, cpu, bytes, allocs float64
	low, high                               float64 // the range of perSecond
	runs                                    int
	errors                                  uint64 // of all runs
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

// summarize returns the cells and the systems in the order in which they were first
// measured, and the medians.
func summarize(r report) (cells []cell, names []string, all map[cell]map[string]summary) {
	all = make(map[cell]map[string]summary)
	runs := make(map[cell]map[string][]work.Result)
	for _, result := range r.Results {
		c := cell{result.Work, result.Clients, result.Size}
		if runs[c] == nil {
			runs[c] = make(map[string][]work.Result)
			cells = append(cells, c)
		}
		if !slices.Contains(names, result.System) {
			names = append(names, result.System)
		}
		runs[c][result.System] = append(runs[c][result.System], result)
	}
	for c, systems := range runs {
		all[c] = make(map[string]summary)
		for name, list := range systems {
			of := func(f func(work.Result) float64) []float64 {
				var v []float64
				for _, r := range list {
					v = append(v, f(r))
				}
				return v
			}
			var failed uint64
			for _, r := range list {
				failed += r.Errors
			}
			speed := of(func(r work.Result) float64 { return r.PerSecond })
			all[c][name] = summary{
				perSecond: median(speed),
				p50:       median(of(func(r work.Result) float64 { return r.P50Micros })),
				p99:       median(of(func(r work.Result) float64 { return r.P99Micros })),
				cpu:       median(of(func(r work.Result) float64 { return r.CPUMicros })),
				bytes:     median(of(func(r work.Result) float64 { return r.Bytes })),
				allocs:    median(of(func(r work.Result) float64 { return r.Allocs })),
				low:       slices.Min(speed),
				high:      slices.Max(speed),
				runs:      len(list),
				errors:    failed,
			}
		}
	}
	return cells, names, all
}

// What is ours: raft, and the other engine beside it.
const (
	ours    = "synod"
	oursToo = "synod-paxos"
)

// best returns the fastest peer of a cell.
func best(systems map[string]summary) (name string, s summary) {
	for n, v := range systems {
		if n != ours && n != oursToo && v.perSecond > s.perSecond {
			name, s = n, v
		}
	}
	return name, s
}

// markdown writes the tables.
func markdown(r report) string {
	cells, names, all := summarize(r)
	var b strings.Builder
	fmt.Fprintf(&b, "`%s`, %s, revision %s, %s, %d cores; medians of %d rounds, in which the systems take turns.\n\n", r.Command, r.Date, r.Revision, r.Go, r.Cores, r.Rounds)
	fmt.Fprintf(&b, "Operations a second:\n\n| work |")
	for _, n := range names {
		fmt.Fprintf(&b, " %s |", n)
	}
	fmt.Fprintf(&b, " %s / best peer |", ours)
	both := slices.Contains(names, ours) && slices.Contains(names, oursToo)
	if both {
		fmt.Fprintf(&b, " %s / %s |", oursToo, ours)
	}
	fmt.Fprintf(&b, "\n|---|%s---:|", strings.Repeat("---:|", len(names)))
	if both {
		fmt.Fprint(&b, "---:|")
	}
	fmt.Fprintln(&b)
	for _, c := range cells {
		fmt.Fprintf(&b, "| %s |", c)
		_, peer := best(all[c])
		for _, n := range names {
			s, ok := all[c][n]
			switch {
			case !ok:
				fmt.Fprint(&b, " – |")
			case n == ours:
				fmt.Fprintf(&b, " **%s** |", thousands(s.perSecond))
			default:
				fmt.Fprintf(&b, " %s |", thousands(s.perSecond))
			}
		}
		if peer.perSecond > 0 && all[c][ours].runs > 0 {
			fmt.Fprintf(&b, " %.2f |", all[c][ours].perSecond/peer.perSecond)
		} else {
			fmt.Fprint(&b, " – |")
		}
		if both && all[c][ours].runs > 0 && all[c][oursToo].runs > 0 {
			fmt.Fprintf(&b, " %.2f |", all[c][oursToo].perSecond/all[c][ours].perSecond)
		} else if both {
			fmt.Fprint(&b, " – |")
		}
		fmt.Fprintln(&b)
	}
	fmt.Fprintf(&b, "\nRates are in operations a second, with the least and the most of the rounds; latencies in milliseconds; CPU in µs, bytes and allocations an operation are of the whole process, which is three replicas and all clients; errors are those of all rounds.\n\n"+
		"| work | system | rate | least – most | p50 | p99 | CPU | bytes | allocations | errors |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, c := range cells {
		for _, n := range names {
			if s, ok := all[c][n]; ok {
				fmt.Fprintf(&b, "| %s | %s | %s | %s – %s | %.2f | %.2f | %.1f | %s | %.1f | %s |\n", c, n, thousands(s.perSecond), thousands(s.low), thousands(s.high),
					s.p50/1e3, s.p99/1e3, s.cpu, thousands(s.bytes), s.allocs, thousands(float64(s.errors)))
			}
		}
	}
	if len(r.Results) > 0 {
		worst := slices.MaxFunc(r.Results, func(x, y work.Result) int { return cmp.Compare(x.OtherCores, y.OtherCores) })
		fmt.Fprintf(&b, "\nEverything else on the machine kept at most %.1f of its %d cores busy during a run (%s: %s). Above a few tenths, the figures tell little.\n",
			worst.OtherCores, r.Cores, worst.System, cell{worst.Work, worst.Clients, worst.Size})
	}
	fmt.Fprint(&b, "\n| system | version | settings |\n|---|---|---|\n")
	for _, n := range names {
		i := slices.IndexFunc(r.Results, func(result work.Result) bool { return result.System == n })
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

// escape makes text fit for XML.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder never fails
	return b.String()
}

var colours = []string{"#1f5fbf", "#6f9fdf", "#9a9a9a", "#c4c4c4", "#d98a3d", "#e9bd8c", "#7fae6e", "#b07fb8", "#6cb5b5"}

// chart draws a group of bars for each cell, each group on a scale of its own, since
// the cells lie orders of magnitude apart. The thin line is the range of the rounds.
func chart(r report) []byte {
	cells, names, all := summarize(r)
	const (
		left, top, row, bar = 250, 70, 17, 12
		width, labels       = 560, 110
	)
	height := top + len(cells)*(len(names)*row+26) + 20
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		left+width+labels, height, left+width+labels, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	fmt.Fprintf(&b, `<text x="20" y="26" font-size="16" font-weight="bold">Operations a second, three replicas, every write synced</text>`+"\n")
	fmt.Fprintf(&b, `<text x="20" y="46" fill="#555">longer is better; each group has its own scale; medians of %d rounds, thin line: their range; %s, %d cores, %s</text>`+"\n",
		r.Rounds, escape(r.Go), r.Cores, escape(r.Date))
	y := top
	for _, c := range cells {
		scale := 0.0
		for _, s := range all[c] {
			scale = max(scale, s.high)
		}
		fmt.Fprintf(&b, `<text x="20" y="%d" font-weight="bold">%s</text>`+"\n", y+bar-1, escape(c.String()))
		for i, n := range names {
			s, ok := all[c][n]
			if !ok {
				continue
			}
			x := func(v float64) float64 { return left + v/scale*width }
			weight := "normal"
			if n == ours {
				weight = "bold"
			}
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" font-weight="%s">%s</text>`, left-8, y+bar-2, weight, escape(n))
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, left, y, x(s.perSecond)-left, bar, colours[i%len(colours)])
			fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#222"/>`, x(s.low), x(s.high), y+bar/2, y+bar/2)
			fmt.Fprintf(&b, `<text x="%.1f" y="%d" font-weight="%s">%s</text>`+"\n", x(s.high)+6, y+bar-2, weight, thousands(s.perSecond))
			y += row
		}
		y += 26
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
