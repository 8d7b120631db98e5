// Command ring draws what consistent hashing does, as SVG files: a ring and who owns
// what of it, the shares of the nodes, what moves when one of them leaves, and how
// evenly keys are spread by how many points a node has, beside the figures that
// Lamping and Veach published. It shows how to ask a ring of package hashring for
// exact shares and differences.
//
//	go run ./examples/ring -out pictures
//
// It prints a line for each file, and a summary. Nodes, points and the one that leaves
// are flags; see -help.
package main

import (
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/synod-go/synod/hashring"
)

func main() {
	var s settings
	flag.StringVar(&s.out, "out", "", "directory for the pictures; made if it is not there (required)")
	flag.IntVar(&s.nodes, "nodes", 6, "nodes of the ring, 2 to 12")
	flag.IntVar(&s.points, "points", 16, "points of each node, 1 to 1000")
	flag.IntVar(&s.leaves, "leaves", 2, "number of the node that leaves, from 0 on")
	flag.Parse()
	if err := run(s, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "ring:", err)
		os.Exit(1)
	}
}

type settings struct {
	out                   string
	nodes, points, leaves int
}

// picture is a file to be written.
type picture struct{ name, what, svg string }

func run(s settings, w io.Writer) error {
	switch {
	case s.out == "":
		return fmt.Errorf("-out is required: say which directory the pictures go to")
	case s.nodes < 2 || s.nodes > len(colours):
		return fmt.Errorf("-nodes %d: 2 to %d", s.nodes, len(colours))
	case s.points < 1 || s.points > 1000:
		return fmt.Errorf("-points %d: 1 to 1000", s.points)
	case s.leaves < 0 || s.leaves >= s.nodes:
		return fmt.Errorf("-leaves %d: 0 to %d", s.leaves, s.nodes-1)
	}
	ring, err := hashring.New(hashring.Config{Algorithm: hashring.Points{PerNode: s.points}}, members(s.nodes)...)
	if err != nil {
		return err
	}
	next, err := ring.Remove(s.leaves)
	if err != nil {
		return err
	}
	diff, err := hashring.Diff(ring, next)
	if err != nil {
		return err
	}
	measured, err := measure()
	if err != nil {
		return err
	}
	allocated, err := hashring.New(hashring.Config{Algorithm: hashring.Allocated{}}, members(s.nodes)...)
	if err != nil {
		return err
	}
	arcs, err := owned(ring)
	if err != nil {
		return err
	}
	shares, _ := ring.Shares()
	even, _ := allocated.Shares()
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return err
	}
	for _, p := range []picture{
		{"ring.svg", "who owns what", drawRing(fmt.Sprintf("%d nodes, %d points each", s.nodes, s.points), arcs)},
		{"shares.svg", "the share of each node", drawShares(shares, even)},
		{"leave.svg", fmt.Sprintf("what moves when node %d leaves", s.leaves), drawMoves(s.leaves, diff)},
		{"balance.svg", "balance by points a node", drawBalance(measured)},
	} {
		path := filepath.Join(s.out, p.name)
		if err := os.WriteFile(path, []byte(p.svg), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(w, "%s: %s, %d bytes\n", path, p.what, len(p.svg))
	}
	fmt.Fprintf(w, "node %d owned %v and leaves: %v of all keys move in %d ranges, needed are %v; ring %016x becomes %016x\n",
		s.leaves, shares[s.leaves].Share, diff.Moved, len(diff.Moves), diff.Bound, ring.Fingerprint(), next.Fingerprint())
	return nil
}

func members(n int) []hashring.Node[int] {
	ids := make([]int, n)
	for i := range ids {
		ids[i] = i
	}
	return hashring.Nodes(ids...)
}

// owned returns a whole ring as ranges: all that moves to its nodes from a ring of
// somebody else.
func owned(ring *hashring.Ring[int]) ([]hashring.Move[int], error) {
	nobody, err := hashring.New(hashring.Config{}, hashring.Nodes(-1)...)
	if err != nil {
		return nil, err
	}
	diff, err := hashring.Diff(nobody, ring)
	if err != nil {
		return nil, err
	}
	return diff.Moves, nil
}

// sample is how much the shares of 1,000 nodes deviate, and the published figure.
type sample struct {
	points              int
	deviation, most     float64
	published, interval float64 // 0: none published; the upper end of 99 % of the shares
}

// measure counts out the shares of rings of 1,000 nodes.
func measure() ([]sample, error) {
	list := []sample{
		{points: 1, published: 0.9979060, interval: 5.25}, {points: 3}, {points: 10, published: 0.3151810, interval: 1.98},
		{points: 30}, {points: 100, published: 0.0996996, interval: 1.28}, {points: 300}, {points: 1000, published: 0.0315723, interval: 1.09},
	}
	for i := range list {
		ring, err := hashring.New(hashring.Config{Algorithm: hashring.Points{PerNode: list[i].points}}, members(1000)...)
		if err != nil {
			return nil, err
		}
		shares, _ := ring.Shares()
		sum := 0.0
		for _, s := range shares {
			x := s.Share.Float64() / s.Fair
			sum += (x - 1) * (x - 1)
			list[i].most = max(list[i].most, x)
		}
		list[i].deviation = math.Sqrt(sum / float64(len(shares)))
	}
	return list, nil
}

// colours are those of the nodes, chosen to differ for colour-blind eyes, too.
var colours = []string{"#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#332288"}

// drawing is an SVG that is being written.
type drawing struct {
	strings.Builder
	height int
}

func begin(width, height int, title string) *drawing {
	d := &drawing{height: height}
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="13">`+"\n",
		width, height, width, height)
	fmt.Fprintf(d, "<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n", title)
	d.text(20, 26, "start", "%s", title)
	return d
}

func (d *drawing) text(x, y float64, anchor, format string, args ...any) {
	fmt.Fprintf(d, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, fmt.Sprintf(format, args...))
}

func (d *drawing) line(x1, y1, x2, y2 float64, style string) {
	fmt.Fprintf(d, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>`+"\n", x1, y1, x2, y2, style)
}

func (d *drawing) end() string {
	d.WriteString("</svg>\n")
	return d.String()
}

// arc draws the hashes from first to last as a part of a circle, hash 0 on top.
func (d *drawing) arc(first, last uint64, radius, width float64, colour string) {
	const x, y = 220, 240
	from, to := float64(first)/(1<<64), float64(last)/(1<<64)
	if to-from > 0.5 {
		// A path can't say which way round it goes beyond half a circle.
		middle := first + (last-first)/2
		d.arc(first, middle, radius, width, colour)
		d.arc(middle, last, radius, width, colour)
		return
	}
	at := func(part float64) (float64, float64) {
		a := 2 * math.Pi * part
		return x + radius*math.Sin(a), y - radius*math.Cos(a)
	}
	x1, y1 := at(from)
	x2, y2 := at(to)
	fmt.Fprintf(d, `<path d="M%.2f %.2fA%.0f %.0f 0 0 1 %.2f %.2f" fill="none" stroke="%s" stroke-width="%.0f"/>`+"\n", x1, y1, radius, radius, x2, y2, colour, width)
}

func (d *drawing) legend(nodes []int) {
	for i, n := range nodes {
		y := float64(80 + 24*i)
		fmt.Fprintf(d, `<rect x="430" y="%.0f" width="14" height="14" fill="%s"/>`+"\n", y-12, colours[n])
		d.text(452, y, "start", "node %d", n)
	}
}

func drawRing(title string, arcs []hashring.Move[int]) string {
	d := begin(540, 460, title)
	var nodes []int
	seen := make(map[int]bool)
	for _, a := range arcs {
		d.arc(a.First, a.Last, 160, 36, colours[a.To])
		seen[a.To] = true
	}
	for n := range colours {
		if seen[n] {
			nodes = append(nodes, n)
		}
	}
	d.text(220, 244, "middle", "%d ranges", len(arcs))
	d.legend(nodes)
	return d.end()
}

// drawMoves draws the ranges that move: outside who had them, inside who gets them.
func drawMoves(leaves int, diff *hashring.Difference[int]) string {
	d := begin(540, 460, fmt.Sprintf("node %d leaves: %v of all keys move", leaves, diff.Moved))
	d.arc(0, math.MaxUint64, 160, 36, "#eeeeee")
	nodes := []int{leaves}
	seen := make(map[int]bool)
	for _, m := range diff.Moves {
		d.arc(m.First, m.Last, 175, 14, colours[m.From])
		d.arc(m.First, m.Last, 155, 22, colours[m.To])
		seen[m.To] = true
	}
	for n := range colours {
		if seen[n] {
			nodes = append(nodes, n)
		}
	}
	d.text(220, 236, "middle", "outside: who had it")
	d.text(220, 256, "middle", "inside: who gets it")
	d.legend(nodes)
	return d.end()
}

// drawShares draws a bar for the share of each node, with random and with allocated
// points.
func drawShares(random, allocated []hashring.NodeShare[int]) string {
	d := begin(540, 80+44*len(random), "shares: random points filled, allocated outlined; line: fair share")
	most := 0.0
	for _, s := range random {
		most = max(most, s.Share.Float64())
	}
	scale := 360 / most
	for i, s := range random {
		y := float64(56 + 44*i)
		d.text(20, y+20, "start", "node %d", s.Node)
		fmt.Fprintf(d, `<rect x="80" y="%.1f" width="%.1f" height="16" fill="%s"/>`+"\n", y, scale*s.Share.Float64(), colours[s.Node])
		fmt.Fprintf(d, `<rect x="80" y="%.1f" width="%.1f" height="10" fill="white" stroke="%s"/>`+"\n", y+18, scale*allocated[i].Share.Float64(), colours[s.Node])
		d.text(530, y+16, "end", "%v", s.Share)
	}
	x := 80 + scale*random[0].Fair
	d.line(x, 46, x, float64(d.height-16), `stroke="black" stroke-dasharray="4 3"`)
	return d.end()
}

// drawBalance draws deviation and largest share against points, both axes logarithmic.
func drawBalance(list []sample) string {
	d := begin(640, 440, "1,000 nodes: how far shares are from the mean, by points a node")
	x := func(points float64) float64 { return 80 + 520*math.Log10(points)/3 }
	y := func(v float64) float64 { return 390 - 330*(math.Log10(v)+2)/3 } // 0.01 to 10
	for _, v := range []float64{0.01, 0.1, 1, 10} {
		d.line(80, y(v), 600, y(v), `stroke="#dddddd"`)
		d.text(72, y(v)+4, "end", "%g %%", 100*v)
	}
	for _, p := range []float64{1, 10, 100, 1000} {
		d.line(x(p), 60, x(p), 390, `stroke="#dddddd"`)
		d.text(x(p), 408, "middle", "%g", p)
	}
	d.text(340, 430, "middle", "points a node")
	curve := func(colour string, value func(sample) float64) {
		var path strings.Builder
		for i, s := range list {
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(i, 1)], x(float64(s.points)), y(value(s)))
			fmt.Fprintf(d, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", x(float64(s.points)), y(value(s)), colour)
		}
		fmt.Fprintf(d, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", path.String(), colour)
	}
	curve(colours[0], func(s sample) float64 { return s.deviation })
	curve(colours[1], func(s sample) float64 { return s.most - 1 })
	for _, s := range list {
		if s.published > 0 {
			fmt.Fprintf(d, `<circle cx="%.1f" cy="%.1f" r="8" fill="none" stroke="black"/>`+"\n", x(float64(s.points)), y(s.published))
			side, anchor := 12.0, "start"
			if s.points == 1000 {
				side, anchor = -12, "end"
			}
			d.text(x(float64(s.points))+side, y(s.published)-8, anchor, "%.3g %% published", 100*s.published)
			d.line(x(float64(s.points))-7, y(s.interval-1), x(float64(s.points))+7, y(s.interval-1), `stroke="black" stroke-width="2"`)
		}
	}
	d.text(600, 52, "end", "blue: deviation, circles as published; red: largest share, bars the published 99 %%")
	return d.end()
}
