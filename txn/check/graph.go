package check

import (
	"cmp"
	"slices"
)

// edgeKind is what an edge stands for, a bit of a set.
type edgeKind uint8

const (
	ww   edgeKind = 1 << iota // its end overwrote what its beginning wrote
	wr                        // its end read what its beginning wrote
	rw                        // its end overwrote what its beginning read
	so                        // its beginning had ended before its end began, in a process or in real time
	free                      // leaves a junction: it counts as a part of the edge before
)

// edge is a dependency between transactions, or leads to a junction or from one. A
// junction is a node that stands for many edges: of m readers and n writers, each before
// each, it makes m + n.
type edge struct {
	to      int32
	key     int32 // that it is about; -1: none, or a scan that does not say
	a, b    int32 // the version at its beginning and the one at its end; -1: the last edge of the dependency has it
	kind    edgeKind
	level   level
	phantom bool // the read is a scan that did not find the key
	scan    bool // a is not a version but the operation, a scan
	partial bool // ww: its beginning wrote the key once more, later
	update  bool // it is so unless an update was lost, which would be a cycle with one anti-dependency
}

// graph is transactions and their dependencies. Transactions are the first nodes, then
// come junctions. Each cycle goes through two transactions at least.
type graph struct {
	nodes        int32
	transactions int32
	from         []int32 // by edge, until it is sealed
	edges        []edge  // sorted by where they begin, once it is sealed
	first        []int32 // by node: its first edge; one more for the end
}

func newGraph(transactions int) *graph {
	return &graph{nodes: int32(transactions), transactions: int32(transactions)}
}

// junction makes a node that is no transaction.
func (g *graph) junction() int32 {
	g.nodes++
	return g.nodes - 1
}

func (g *graph) add(from int32, e edge) {
	if from == e.to {
		return // nothing comes before itself
	}
	g.from = append(g.from, from)
	g.edges = append(g.edges, e)
}

// seal sorts the edges by where they begin. Among those of one node their order stays.
func (g *graph) seal() {
	g.first = make([]int32, g.nodes+1)
	for _, n := range g.from {
		g.first[n+1]++
	}
	for n := range g.nodes {
		g.first[n+1] += g.first[n]
	}
	next := slices.Clone(g.first)
	sorted := make([]edge, len(g.edges))
	for i, n := range g.from {
		sorted[next[n]] = g.edges[i]
		next[n]++
	}
	g.edges, g.from = sorted, nil
}

// target is where an edge may lead: to a node, as the version of a key that it wrote.
type target struct {
	node, key, version int32
}

// fan leads to any range of a list of targets in logarithmically many edges: a tree of
// junctions, node i over nodes 2i and 2i+1, and over the targets in the end.
type fan struct {
	g       *graph
	base    int32 // the junction of tree node 1; tree node i is base+i-1
	targets []target
}

// newFan makes the tree. The edges in it belong to a level.
func newFan(g *graph, l level, targets []target) *fan {
	f := &fan{g: g, base: g.nodes, targets: targets}
	n := len(targets)
	for range n - 1 {
		g.junction()
	}
	for i := 1; i < n; i++ {
		for _, child := range []int{2 * i, 2*i + 1} {
			e := edge{kind: free, level: l, key: -1, a: -1, b: -1}
			f.point(&e, child)
			g.add(f.base+int32(i)-1, e)
		}
	}
	return f
}

// point lets an edge end in a tree node.
func (f *fan) point(e *edge, node int) {
	if n := len(f.targets); node >= n {
		t := f.targets[node-n]
		e.to, e.key, e.b = t.node, t.key, t.version
	} else {
		e.to = f.base + int32(node) - 1
	}
}

// reach adds edges from a node to all targets from lo on and before hi, without some,
// which are in ascending order.
func (f *fan) reach(from int32, e edge, lo, hi int, without ...int) {
	for _, w := range without {
		if w >= lo && w < hi {
			f.span(from, e, lo, w)
			lo = w + 1
		}
	}
	f.span(from, e, lo, hi)
}

func (f *fan) span(from int32, e edge, lo, hi int) {
	n := len(f.targets)
	for lo, hi = lo+n, hi+n; lo < hi; lo, hi = lo/2, hi/2 {
		if lo%2 == 1 {
			to := e
			f.point(&to, lo)
			f.g.add(from, to)
			lo++
		}
		if hi%2 == 1 {
			hi--
			to := e
			f.point(&to, hi)
			f.g.add(from, to)
		}
	}
}

// source is where an edge begins: with a transaction that has read or written a version.
type source struct {
	node    int32
	edge    edge // without its end
	without int  // a target that is not meant, beside those of the same node; -1: none
}

// before adds an edge from each source to each target, but from none to itself.
func before(g *graph, l level, sources []source, targets []target) {
	if len(sources) == 0 || len(targets) == 0 {
		return
	}
	if len(sources)*len(targets) <= 4*(len(sources)+len(targets)) {
		for _, s := range sources {
			for i, t := range targets {
				if i != s.without {
					e := s.edge
					e.to, e.key, e.b = t.node, t.key, t.version
					g.add(s.node, e)
				}
			}
		}
		return
	}
	f := newFan(g, l, targets)
	at := f.places()
	for _, s := range sources {
		f.reach(s.node, s.edge, 0, len(targets), f.skip(at, s)...)
	}
}

// places returns the targets in the order of their nodes.
func (f *fan) places() []int {
	at := make([]int, len(f.targets))
	for i := range at {
		at[i] = i
	}
	slices.SortStableFunc(at, func(i, j int) int { return cmp.Compare(f.targets[i].node, f.targets[j].node) })
	return at
}

// skip returns which targets a source does not lead to.
func (f *fan) skip(at []int, s source) []int {
	i, _ := slices.BinarySearchFunc(at, s.node, func(i int, node int32) int { return cmp.Compare(f.targets[i].node, node) })
	var without []int
	for ; i < len(at) && f.targets[at[i]].node == s.node; i++ {
		without = append(without, at[i])
	}
	if s.without >= 0 && !slices.Contains(without, s.without) {
		without = append(without, s.without)
	}
	slices.Sort(without)
	return without
}

// filter is which edges are followed.
type filter struct {
	kinds     edgeKind
	level     level
	phantom   bool // edges of phantoms are
	update    bool // edges that hold unless an update was lost are
	alternate bool // no anti-dependency right after another
}

// A search moves from state to state: the node, twice, and one more if it was come to by
// an anti-dependency, and another one may not follow.

// step returns the state that an edge leads to from a state, if it may be followed.
func (f *filter) step(state int32, e *edge) (next int32, ok bool) {
	switch {
	case e.level > f.level, e.phantom && !f.phantom, e.update && !f.update:
		return 0, false
	case e.kind == free:
		return e.to<<1 | state&1, true
	case e.kind&f.kinds == 0:
		return 0, false
	case e.kind == rw && f.alternate:
		return e.to<<1 | 1, state&1 == 0
	}
	return e.to << 1, true
}

// search finds cycles in a graph.
type search struct {
	*graph
	group []int32 // by node: edges between different groups are not followed
	steps int     // edges that were looked at, while a shortest cycle was looked for

	// Tarjan's algorithm, by state.
	index, low []int32
	rank       []int32 // of the state's component: an edge leads to the same or to a lower one
	onStack    []bool

	// Breadth-first search, by state.
	member   []int32 // the component that the state belongs to
	members  int32
	distance []int32 // valid where seen is the number of the search
	seen     []int32
	searches int32
	edge     []int32 // by which the state was come to
	before   []int32 // from which state
}

func newSearch(g *graph) *search {
	n := 2 * g.nodes
	return &search{graph: g, group: make([]int32, g.nodes), index: make([]int32, n), low: make([]int32, n), rank: make([]int32, n), onStack: make([]bool, n)}
}

// components returns the strongly connected components of more than one state among
// nodes, and of each the states, in ascending order. It is Tarjan's algorithm with a
// stack of its own: paths are as long as histories.
func (s *search) components(f filter, nodes []int32) (components [][]int32) {
	for _, n := range nodes {
		s.index[2*n], s.index[2*n+1] = 0, 0
	}
	type frame struct{ state, next int32 }
	var frames []frame
	var stack []int32
	var count, rank int32
	visit := func(state int32) {
		count++
		s.index[state], s.low[state], s.onStack[state] = count, count, true
		stack = append(stack, state)
		frames = append(frames, frame{state, s.first[state>>1]})
	}
	for _, root := range nodes {
		if s.index[2*root] != 0 {
			continue
		}
		for visit(2 * root); len(frames) > 0; {
			top := &frames[len(frames)-1]
			state := top.state
			if top.next < s.first[state>>1+1] {
				e := &s.edges[top.next]
				top.next++
				to, ok := f.step(state, e)
				if !ok || s.group[to>>1] != s.group[state>>1] {
					continue
				}
				if s.index[to] == 0 {
					visit(to)
				} else if s.onStack[to] {
					s.low[state] = min(s.low[state], s.index[to])
				}
				continue
			}
			frames = frames[:len(frames)-1]
			if len(frames) > 0 {
				below := frames[len(frames)-1].state
				s.low[below] = min(s.low[below], s.low[state])
			}
			if s.low[state] != s.index[state] {
				continue
			}
			at := len(stack)
			for at--; stack[at] != state; at-- {
			}
			for _, m := range stack[at:] {
				s.onStack[m], s.rank[m] = false, rank
			}
			rank++
			if len(stack)-at > 1 {
				component := slices.Clone(stack[at:])
				slices.Sort(component)
				components = append(components, component)
			}
			stack = stack[:at]
		}
	}
	slices.SortFunc(components, func(a, b []int32) int { return cmp.Compare(a[0], b[0]) })
	return components
}

// enter makes the states of a component the ones that cycle moves in.
func (s *search) enter(component []int32) {
	if s.member == nil {
		n := 2 * s.nodes
		s.member, s.distance, s.seen = make([]int32, n), make([]int32, n), make([]int32, n)
		s.edge, s.before = make([]int32, n), make([]int32, n)
	}
	s.members++
	for _, state := range component {
		s.member[state] = s.members
	}
}

// cycle returns the edges of a shortest cycle from a transaction back to itself, of at
// most so many dependencies, whose first one is of some kinds; nil: there is none. With
// ranked, the ranks of a search without anti-dependencies tell which nodes do not lead
// back.
func (s *search) cycle(start int32, kinds edgeKind, f filter, limit int32, ranked bool) []int32 {
	s.searches++
	goal := 2 * start
	found := int32(-1) // the last edge, and the state before it
	var last int32
	var now, next []int32
	look := func(state int32, f *filter, distance int32) bool {
		for i := s.first[state>>1]; i < s.first[state>>1+1]; i++ {
			s.steps++
			e := &s.edges[i]
			to, ok := f.step(state, e)
			if !ok || s.member[to] != s.members || ranked && s.rank[to&^1] < s.rank[goal] {
				continue
			}
			d := distance
			if e.kind != free {
				d++
			}
			if d > limit {
				continue
			}
			if to == goal {
				if found < 0 || d == distance {
					found, last = i, state
				}
				if d == distance {
					return true
				}
				continue
			}
			if s.seen[to] == s.searches && s.distance[to] <= d {
				continue
			}
			s.seen[to], s.distance[to], s.edge[to], s.before[to] = s.searches, d, i, state
			if d == distance {
				now = append(now, to)
			} else {
				next = append(next, to)
			}
		}
		return false
	}
	begin := f
	begin.kinds = kinds
	look(goal, &begin, 0)
	for d := int32(1); found < 0 && len(next) > 0; d++ {
		now, next = next, now[:0]
		for i := 0; i < len(now); i++ {
			if state := now[i]; s.distance[state] == d && look(state, &f, d) {
				break
			}
		}
	}
	if found < 0 {
		return nil
	}
	path := []int32{found}
	for state := last; state != goal; state = s.before[state] {
		path = append(path, s.edge[state])
	}
	slices.Reverse(path)
	return path
}

// maxSteps bounds how long a component is searched for a shorter cycle than the one that
// is known: less than a second.
const maxSteps = 20_000_000

// shortest returns a shortest cycle in a component whose first dependency is of some
// kinds, or of the cycles of that kind that could be found in the time; exact says that
// there is no shorter one.
func (s *search) shortest(component []int32, kinds edgeKind, f filter, ranked bool) (cycle []int32, exact bool) {
	s.enter(component)
	s.steps = 0
	limit := int32(len(component))
	for _, state := range component {
		if state&1 == 1 || state>>1 >= s.transactions {
			continue
		}
		if s.steps > maxSteps && (cycle != nil || f.alternate) {
			return cycle, false
		}
		if path := s.cycle(state>>1, kinds, f, limit, ranked); path != nil && s.simple(path) {
			cycle = path
			if limit = s.length(path) - 1; limit < 2 {
				break
			}
		}
	}
	return cycle, true
}

func (s *search) length(path []int32) (n int32) {
	for _, i := range path {
		if s.edges[i].kind != free {
			n++
		}
	}
	return n
}

// simple reports whether a cycle visits no transaction twice.
func (s *search) simple(path []int32) bool {
	seen := make(map[int32]bool)
	for _, i := range path {
		if n := s.edges[i].to; n < s.transactions {
			if seen[n] {
				return false
			}
			seen[n] = true
		}
	}
	return true
}

// hop is a dependency on a cycle: one edge, or one to a junction and what follows.
type hop struct {
	from, to   int32 // transactions
	edge, last *edge // the first edge, and the last one, which may be the same
}

// hops returns the dependencies of a cycle, beginning with the lowest transaction.
func (s *search) hops(path []int32) []hop {
	var hops []hop
	for _, i := range path {
		e := &s.edges[i]
		if e.kind != free {
			hops = append(hops, hop{edge: e})
		}
		h := &hops[len(hops)-1]
		h.to, h.last = e.to, e
	}
	lowest := 0
	for i := range hops {
		hops[(i+1)%len(hops)].from = hops[i].to
	}
	for i := range hops {
		if hops[i].from < hops[lowest].from {
			lowest = i
		}
	}
	return append(hops[lowest:len(hops):len(hops)], hops[:lowest]...)
}
