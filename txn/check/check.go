package check

import (
	"cmp"
	"slices"
)

// Check holds the history against a model. The report says what contradicts it; without
// an error, there is one. The errors are a [ConfigError], and a [HistoryError] for a
// history that no database could have made, such as one in which a value is written
// twice. The history must not change meanwhile; afterwards, the report shares memory with
// it.
//
// The time is nearly linear in the history, all values that were read counted, as long as
// little is wrong with it.
func (h History) Check(config Config) (*Report, error) {
	c, err := h.check(config)
	if err != nil {
		return nil, err
	}
	return c.report, nil
}

func (h History) check(config Config) (*checker, error) {
	config, err := config.filled()
	if err != nil {
		return nil, err
	}
	c := &checker{config: config, history: h.Transactions, report: newReport(config.Model)}
	c.isolation, c.level = config.promise()
	if err := c.index(); err != nil {
		return nil, err
	}
	c.graph = newGraph(len(c.history))
	c.observe()
	c.understand()
	c.orderLists()
	c.orderRegisters()
	c.lostUpdates()
	c.linkScans()
	if c.level >= fromProcess {
		c.linkProcesses()
	}
	if c.level >= fromRealtime {
		c.linkRealtime()
	}
	c.graph.seal()
	c.findCycles()
	c.report.finish(c)
	return c, nil
}

// linkProcesses adds the order of each process. What is of unknown outcome may take
// effect at any time after it began: it comes after others, and nothing comes after it. A
// junction stands for all that a process has done so far.
func (c *checker) linkProcesses() {
	now := make(map[int]int32) // by process
	leads := edge{kind: free, level: fromProcess, key: -1, a: -1, b: -1}
	for _, t := range c.transactions() {
		process := c.history[t].Process
		if process == 0 {
			continue
		}
		before, ok := now[process]
		if ok {
			leads.to = t
			c.graph.add(before, leads)
		}
		if c.certain(t) {
			next := c.graph.junction()
			c.graph.add(t, edge{to: next, kind: so, level: fromProcess, key: -1, a: -1, b: -1})
			if ok {
				leads.to = next
				c.graph.add(before, leads)
			}
			now[process] = next
		}
	}
}

// linkRealtime adds that what had ended comes before what began then. A junction stands
// for all that had ended at one time; it leads to the one for the next time, and to all
// that began between.
func (c *checker) linkRealtime() {
	type event struct {
		time int64
		txn  int32
	}
	var ends, begins []event
	for _, t := range c.transactions() {
		txn := &c.history[t]
		if c.certain(t) && txn.End != 0 {
			ends = append(ends, event{txn.End, t})
		}
		if txn.Begin != 0 {
			begins = append(begins, event{txn.Begin, t})
		}
	}
	byTime := func(a, b event) int { return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.txn, b.txn)) }
	slices.SortFunc(ends, byTime)
	slices.SortFunc(begins, byTime)
	leads := edge{kind: free, level: fromRealtime, key: -1, a: -1, b: -1}
	now := int32(-1)
	for _, b := range begins {
		n := 0
		for n < len(ends) && ends[n].time < b.time {
			n++
		}
		if n > 0 {
			next := c.graph.junction()
			if now >= 0 {
				leads.to = next
				c.graph.add(now, leads)
			}
			for _, e := range ends[:n] {
				c.graph.add(e.txn, edge{to: next, kind: so, level: fromRealtime, key: -1, a: -1, b: -1})
			}
			now, ends = next, ends[n:]
		}
		if now >= 0 {
			leads.to = b.txn
			c.graph.add(now, leads)
		}
	}
}

// What was found in a component: it is not looked for again in a larger one, nor what it
// implies.
const (
	foundWriteCycle = 1 << iota
	foundFlow
	foundSkew // G-single or G-nonadjacent
	foundSkews
)

// findCycles finds, in each strongly connected component, a shortest cycle of each class
// that the model excludes.
//
// A class is a set of edges and the cycles in it: of write dependencies, G0; with read
// dependencies, G1c; with anti-dependencies of which none follows another one, G-single
// and G-nonadjacent; with all, G2-item and G2. They are gone through in this order, first
// with what the data says, then with the order of processes, then with real time. A larger set has
// larger components. In one that contains a component of a smaller set, something worse was found.
func (c *checker) findCycles() {
	s := newSearch(c.graph)
	all := make([]int32, c.graph.nodes)
	for i := range all {
		all[i] = int32(i)
	}
	f := filter{kinds: ww, level: c.level, phantom: c.isolation != repeatableRead, update: true}
	if c.isolation >= readCommitted {
		f.kinds |= wr
	}
	if c.isolation >= repeatableRead {
		f.kinds |= rw
	}
	f.kinds |= so
	components := s.components(f, all)
	if len(components) == 0 {
		return
	}
	// Cycles lie within these.
	var nodes []int32
	for i, component := range components {
		for _, state := range component {
			s.group[state>>1] = int32(i + 1)
			nodes = append(nodes, state>>1)
		}
	}
	slices.Sort(nodes)

	found := make([]uint8, c.graph.nodes)
	each := func(f filter, known uint8, search func(component []int32) (path []int32, exact bool, what uint8)) {
		for _, component := range s.components(f, nodes) {
			seen := uint8(0)
			for _, state := range component {
				seen |= found[state>>1]
			}
			if seen&known != 0 {
				continue
			}
			path, exact, what := search(component)
			if path == nil {
				continue
			}
			for _, state := range component {
				found[state>>1] |= what
			}
			c.reportCycle(s.hops(path), exact)
		}
	}
	for level := fromData; level <= c.level; level++ {
		f.level = level
		f.kinds, f.alternate, f.update = ww|so, false, false
		each(f, foundWriteCycle, func(component []int32) ([]int32, bool, uint8) {
			path, exact := s.shortest(component, f.kinds, f, false)
			return path, exact, foundWriteCycle
		})
		if c.isolation == readUncommitted {
			continue
		}
		f.kinds |= wr
		each(f, foundWriteCycle|foundFlow, func(component []int32) ([]int32, bool, uint8) {
			path, exact := s.shortest(component, f.kinds, f, false)
			return path, exact, foundFlow
		})
		if c.isolation == readCommitted {
			continue
		}
		f.kinds, f.alternate, f.update = f.kinds|rw, true, true
		each(f, foundSkew, func(component []int32) ([]int32, bool, uint8) {
			path, exact := c.single(s, component, f)
			if path == nil {
				path, exact = s.shortest(component, rw, f, false)
			}
			return path, exact, foundSkew
		})
		if c.isolation == snapshot {
			continue
		}
		f.alternate = false
		each(f, foundSkew|foundSkews, func(component []int32) ([]int32, bool, uint8) {
			path, exact := s.shortest(component, rw, f, false)
			return path, exact, foundSkews
		})
	}
}

// single finds a shortest cycle with exactly one anti-dependency.
func (c *checker) single(s *search, component []int32, f filter) (path []int32, exact bool) {
	f.kinds &^= rw
	var nodes []int32
	for _, state := range component {
		if n := state >> 1; len(nodes) == 0 || nodes[len(nodes)-1] != n {
			nodes = append(nodes, n)
		}
	}
	s.components(f, nodes) // for the ranks
	return s.shortest(component, rw, f, true)
}

// reportCycle says what kind of cycle it is, from the dependencies on it.
func (c *checker) reportCycle(hops []hop, exact bool) {
	kinds := edgeKind(0)
	known := fromData
	anti, adjacent, phantom, unsure := 0, false, false, false
	a := Anomaly{Shortest: exact}
	for i, h := range hops {
		kinds |= h.edge.kind
		known = max(known, h.edge.level)
		if h.edge.kind == rw {
			anti++
			adjacent = adjacent || hops[(i+1)%len(hops)].edge.kind == rw
		}
		phantom = phantom || h.edge.phantom
		unsure = unsure || h.edge.partial || !c.certain(h.from)
		a.Transactions = append(a.Transactions, int(h.from))
	}
	broken := fromReadCommitted
	switch {
	case anti > 1 && adjacent && phantom:
		a.Kind, broken = G2, fromSerializable
	case anti > 1 && adjacent:
		a.Kind, broken = G2Item, fromRepeatableRead
	case anti > 1:
		a.Kind, broken = GNonadjacent, fromRepeatableAll
	case anti == 1:
		a.Kind, broken = GSingle, fromRepeatableAll
	case kinds&wr != 0:
		a.Kind = G1c
	default:
		a.Kind = G0
		if !unsure {
			broken = fromReadUncommitted
		}
	}
	if phantom {
		broken &^= repeatableRead
	}
	a.Kind = a.Kind.at(known)
	c.report.cycle(c, a, hops, broken, known)
}
