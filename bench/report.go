package main

import (
	"bytes"
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
	if c.work == "read" {
		return fmt.Sprintf("%d clients, reads", c.clients)
	}
	size := fmt.Sprintf("%d B", c.size)
	if c.size%1024 == 0 {
		size = fmt.Sprintf("%d KiB", c.size/1024)
	}
	if c.clients == 1 {
		return "1 client, " + size
	}
	return fmt.Sprintf("%d clients, %s", c.clients, size)
}

// summary is the medians of one system's runs of one cell.
type summary struct {
	perSecond, p50, p99, cpu, bytes, allocs float64
	low, high                               float64 // the range of perSecond
	runs                                    int
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
			}
		}
	}
	return cells, names, all
}

const ours = "synod"

// best returns the fastest peer of a cell.
func best(systems map[string]summary) (name string, s summary) {
	for n, v := range systems {
		if n != ours && v.perSecond > s.perSecond {
			name, s = n, v
		}
	}
	return name, s
}

// markdown writes the tables.
func markdown(r report) string {
	cells, names, all := summarize(r)
	var b strings.Builder
	fmt.Fprintf(&b, "`%s`, %s, %s, %d cores; medians of %d rounds, in which the systems take turns.\n\n", strings.TrimSpace(r.Command), r.Date, r.Go, r.Cores, r.Rounds)
	fmt.Fprintf(&b, "Operations a second:\n\n| work |")
	for _, n := range names {
		fmt.Fprintf(&b, " %s |", n)
	}
	fmt.Fprintf(&b, " %s / best peer |\n|---|%s---:|\n", ours, strings.Repeat("---:|", len(names)))
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
			fmt.Fprintf(&b, " %.2f |\n", all[c][ours].perSecond/peer.perSecond)
		} else {
			fmt.Fprint(&b, " – |\n")
		}
	}
	fmt.Fprintf(&b, "\nLatency in milliseconds (p50 / p99), and a process's CPU in µs, bytes and allocations an operation (three replicas and all clients):\n\n| work | system | p50 | p99 | CPU | bytes | allocations |\n|---|---|---:|---:|---:|---:|---:|\n")
	for _, c := range cells {
		for _, n := range names {
			if s, ok := all[c][n]; ok {
				fmt.Fprintf(&b, "| %s | %s | %.2f | %.2f | %.1f | %s | %.1f |\n", c, n, s.p50/1e3, s.p99/1e3, s.cpu, thousands(s.bytes), s.allocs)
			}
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

var colours = []string{"#1f5fbf", "#9a9a9a", "#c4c4c4", "#d98a3d", "#e9bd8c", "#7fae6e", "#b07fb8", "#6cb5b5"}

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
		r.Rounds, r.Go, r.Cores, r.Date)
	y := top
	for _, c := range cells {
		scale := 0.0
		for _, s := range all[c] {
			scale = max(scale, s.high)
		}
		fmt.Fprintf(&b, `<text x="20" y="%d" font-weight="bold">%s</text>`+"\n", y+bar-1, c)
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
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" font-weight="%s">%s</text>`, left-8, y+bar-2, weight, n)
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
