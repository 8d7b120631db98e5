package check

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// orders is what is known of the order of a register's versions. Versions that their own
// writers overwrote have no part in it.
type orders struct {
	versions []int32 // the initial one first, then as they stand in the history
	read     []pair  // the second one's writer had read the first one
	first    int32   // the only one whose writer had found nothing, and so the first one; 0: none, or not known
	process  []pair  // one process has met one after the other
	times    []times // by version; nil: nothing follows from real time
	sorted   []int32 // versions but the initial one, by latest
}

// pair is two versions in order, and the transactions that show it.
type pair struct {
	a, b          int32 // in orders.versions
	first, second int32 // transactions
}

// times is when a version was there. A register that is linearizable takes each of its
// values once, for a while. One was there at some time up to earliest, the other one at
// some time from latest on: if earliest is below latest, then one came before the other.
// (Gibbons and Korach, "Testing Shared Memories", 1997, speak of zones.)
type times struct {
	earliest, latest int64 // ends of what met it, the first one; beginnings, the last one
	first, last      int32 // the transactions
}

// touch is a transaction that has met a version: it wrote it, or read it.
type touch struct {
	txn, version int32 // version: in orders.versions
	op           int32
	write        bool
}

// orderRegisters finds what is known of the order of each register's versions.
func (c *checker) orderRegisters() {
	processes := make(map[int]touch) // by process: what it met last
	for id := range c.keys {
		k := &c.keys[id]
		if k.kind != Write {
			continue
		}
		clear(processes)
		c.orderRegister(k, processes)
		c.linkRegister(k)
	}
}

func (c *checker) orderRegister(k *key, processes map[int]touch) {
	o := &k.orders
	o.versions = append(o.versions, k.initial)
	for _, v := range k.versions {
		if ver := &c.versions[v]; ver.final && c.in[ver.writer] {
			ver.local = int32(len(o.versions))
			o.versions = append(o.versions, v)
		}
	}
	touches := c.touches(k)

	// What was read before it was overwritten.
	for i := 0; i < len(touches); {
		j := i
		for j < len(touches) && touches[j].txn == touches[i].txn {
			j++
		}
		if last := touches[j-1]; last.write {
			for _, t := range touches[i : j-1] {
				o.read = append(o.read, pair{t.version, last.version, t.txn, t.txn})
			}
		}
		i = j
	}
	if c.config.LinearizableKeys {
		c.zones(k, touches, false)
	}
	if !c.consistent(k, fromData) && o.times != nil {
		c.zones(k, touches, true)
		if c.cycleOf(k) != nil {
			o.times = nil
		}
	}
	if c.cycleOf(k) != nil {
		o.read = nil
	}

	if c.level >= fromProcess {
		// What a process has met comes before what it meets next.
		for i := range touches {
			t := &touches[i]
			process := c.history[t.txn].Process
			if process == 0 {
				continue
			}
			before, met := processes[process]
			if met && before.txn != t.txn && before.version != t.version && before.version != 0 && t.version != 0 && (i == 0 || touches[i-1].txn != t.txn) {
				// If the writers ran in the other order, this is a stale read, and real time
				// will show it as one.
				if p := (pair{before.version, t.version, before.txn, t.txn}); c.level < fromRealtime || !c.inTurn(k, p.b, p.a) {
					o.process = append(o.process, p)
				}
			}
			if c.certain(t.txn) {
				processes[process] = *t
			}
		}
		if !c.consistent(k, fromProcess) {
			o.process = nil
		}
	}
	if c.level >= fromRealtime && o.times == nil && !c.config.LinearizableKeys {
		c.zones(k, touches, false)
		if !c.consistent(k, fromRealtime) {
			c.zones(k, touches, true)
			if c.cycleOf(k) != nil {
				o.times = nil
			}
		}
	}
}

// touches returns who met which version, in the order of the history and of the
// operations. Of what a transaction reads after it has written, nothing is told.
func (c *checker) touches(k *key) []touch {
	var touches []touch
	for _, v := range k.orders.versions[1:] {
		touches = append(touches, touch{c.versions[v].writer, c.versions[v].local, c.versions[v].op, true})
	}
	for _, i := range k.reads {
		r := &c.reads[i]
		ver := &c.versions[r.version]
		if c.sound(r) && ver.final && ver.writer != r.txn {
			touches = append(touches, touch{r.txn, ver.local, r.op, false})
		}
	}
	slices.SortStableFunc(touches, func(a, b touch) int { return cmp.Or(cmp.Compare(a.txn, b.txn), cmp.Compare(a.op, b.op)) })
	return touches
}

// zones finds when each version was there: by all that met it, or by its writer alone.
func (c *checker) zones(k *key, touches []touch, writers bool) {
	o := &k.orders
	o.times = make([]times, len(o.versions))
	for i := range o.times {
		o.times[i] = times{earliest: math.MaxInt64, first: -1, last: -1}
	}
	for _, t := range touches {
		if writers && !t.write {
			continue
		}
		txn, z := &c.history[t.txn], &o.times[t.version]
		if c.certain(t.txn) && txn.End != 0 && txn.End < z.earliest {
			z.earliest, z.first = txn.End, t.txn
		}
		if txn.Begin > z.latest {
			z.latest, z.last = txn.Begin, t.txn
		}
	}
	o.sorted = o.sorted[:0]
	for v := range o.versions[1:] {
		o.sorted = append(o.sorted, int32(v+1))
	}
	slices.SortStableFunc(o.sorted, func(a, b int32) int { return cmp.Compare(o.times[a].latest, o.times[b].latest) })
}

// later returns from where on in sorted the versions came after one, but for itself.
func (o *orders) later(v int32) int {
	at, _ := slices.BinarySearchFunc(o.sorted, o.times[v].earliest, func(w int32, earliest int64) int {
		if o.times[w].latest > earliest {
			return 1
		}
		return -1
	})
	return at
}

// consistent reports whether the versions of a register can be in the order that is
// known so far. If they can't, it puts that into the report, unless a cycle of
// transactions will show it.
func (c *checker) consistent(k *key, l level) bool {
	cycle := c.cycleOf(k)
	if cycle == nil {
		return true
	}
	if l != fromData && len(cycle) == 2 && (c.settled(k, cycle[0], l) || c.settled(k, cycle[1], l)) {
		return false
	}
	broken := fromReadCommitted
	if l != fromData {
		broken = fromSnapshot
	}
	a := Anomaly{Kind: CyclicVersions.at(l), Key: k.name}
	for _, p := range cycle {
		from, to := c.versions[k.orders.versions[p.a]].value, c.versions[k.orders.versions[p.b]].value
		a.Reason += fmt.Sprintf("%d came before %d in %s: %s\n", from, to, word(k.name), c.whyOrdered(k, p.a, p.b, l))
		for _, txn := range []int32{p.first, p.second} {
			if txn >= 0 && !slices.Contains(a.Transactions, int(txn)) {
				a.Transactions = append(a.Transactions, int(txn))
			}
		}
	}
	c.report.add(c, a, broken, l)
	return false
}

// settled reports whether a version came before another one by what remains known when
// this level's knowledge is given up: that is a data dependency, or the writers ran one after
// the other. Then, whoever met them the other way round read what he knew to be overwritten, and
// that is a cycle.
func (c *checker) settled(k *key, p pair, l level) bool {
	o := &k.orders
	same := func(q pair) bool { return q.a == p.a && q.b == p.b }
	if slices.ContainsFunc(o.read, same) || l == fromRealtime && slices.ContainsFunc(o.process, same) {
		return true
	}
	return l == fromRealtime && c.inTurn(k, p.a, p.b)
}

// inTurn reports whether the writer of a version had ended before that of another one
// began.
func (c *checker) inTurn(k *key, a, b int32) bool {
	first, second := c.versions[k.orders.versions[a]].writer, c.versions[k.orders.versions[b]].writer
	return c.certain(first) && c.history[first].End != 0 && c.history[first].End < c.history[second].Begin
}

// cycleOf returns versions of a register of which each would come before the next one;
// nil: there are none.
func (c *checker) cycleOf(k *key) []pair {
	o := &k.orders
	if len(o.versions) < 3 {
		return nil
	}
	g := newGraph(len(o.versions))
	for _, pairs := range [][]pair{o.read, o.process} {
		for _, p := range pairs {
			g.add(p.a, edge{to: p.b, kind: ww, key: -1, a: p.a, b: p.b})
		}
	}
	if o.times != nil {
		targets := make([]target, len(o.sorted))
		place := make([]int, len(o.versions))
		for i, v := range o.sorted {
			targets[i] = target{v, -1, v}
			place[v] = i
		}
		f := newFan(g, fromData, targets)
		for _, v := range o.sorted {
			f.reach(v, edge{kind: ww, key: -1, a: v, b: -1}, o.later(v), len(o.sorted), place[v])
		}
	}
	g.seal()
	s := newSearch(g)
	nodes := make([]int32, g.nodes)
	for i := range nodes {
		nodes[i] = int32(i)
	}
	f := filter{kinds: ww}
	components := s.components(f, nodes)
	if len(components) == 0 {
		return nil
	}
	path, _ := s.shortest(components[0], ww, f, false)
	var cycle []pair
	for _, h := range s.hops(path) {
		cycle = append(cycle, o.witness(h.from, h.to))
	}
	return cycle
}

// witness returns two versions with the transactions that show their order.
func (o *orders) witness(a, b int32) pair {
	for _, pairs := range [][]pair{o.read, o.process} {
		for _, p := range pairs {
			if p.a == a && p.b == b {
				return p
			}
		}
	}
	if o.times != nil {
		return pair{a, b, o.times[a].first, o.times[b].last}
	}
	return pair{a, b, -1, -1}
}

// linkFirst adds that one who has found nothing, and then written, came before all others
// that have written. Had another one written between, an update would be lost.
func (c *checker) linkFirst(k *key, readers [][]source, next []target) {
	if c.isolation < repeatableRead {
		return
	}
	o := &k.orders
	wrote := make(map[int32]int32) // by transaction
	for v, id := range o.versions[1:] {
		wrote[c.versions[id].writer] = int32(v + 1)
	}
	first, phantom := int32(0), false
	for _, s := range readers[0] {
		switch v := wrote[s.node]; {
		case v == 0:
		case first != 0 && first != v:
			return // of two, one is lost: that is an anomaly of its own
		default:
			first, phantom = v, phantom || s.edge.phantom
		}
	}
	if first == 0 || slices.ContainsFunc(o.read, func(p pair) bool { return p.a != 0 && p.b == first }) {
		return
	}
	o.first = first
	v := o.versions[first]
	sources := []source{{c.versions[v].writer, edge{kind: ww, key: c.versions[v].key, a: v, b: -1}, -1}}
	sources = append(sources, readers[first]...)
	for i := range sources {
		e := &sources[i].edge
		e.update, e.phantom = true, e.phantom || phantom
		sources[i].without = slices.IndexFunc(next, func(t target) bool { return t.version == v })
	}
	before(c.graph, fromData, sources, next)
}

// whyOrdered says why one version of a register came before another one, as far as a
// level knows.
func (c *checker) whyOrdered(k *key, a, b int32, l level) string {
	o := &k.orders
	from, to := c.versions[o.versions[a]].value, c.versions[o.versions[b]].value
	if a == 0 {
		return fmt.Sprintf("%s held nothing at first", word(k.name))
	}
	for _, p := range o.read {
		if p.a == a && p.b == b {
			return fmt.Sprintf("T%d had read the %d when it wrote the %d", p.first, from, to)
		}
	}
	if a == o.first {
		return fmt.Sprintf("T%d had found nothing when it wrote the %d, so it was the first, or an update is lost", c.versions[o.versions[a]].writer, from)
	}
	if l >= fromProcess {
		for _, p := range o.process {
			if p.a == a && p.b == b {
				return fmt.Sprintf("process %d met the %d in T%d and then the %d in T%d", c.history[p.first].Process, from, p.first, to, p.second)
			}
		}
	}
	if o.times != nil && o.times[a].earliest < o.times[b].latest {
		first, last := o.times[a].first, o.times[b].last
		return fmt.Sprintf("T%d, which met the %d, ended at %d; T%d, which met the %d, began at %d",
			first, from, c.history[first].End, last, to, c.history[last].Begin)
	}
	return "it follows"
}

// linkRegister adds what follows from the order of a register.
func (c *checker) linkRegister(k *key) {
	o := &k.orders
	id := c.versions[k.initial].key
	n := len(o.versions)

	writer := func(local int32) target {
		v := o.versions[local]
		return target{c.versions[v].writer, id, v}
	}
	readers := make([][]source, n) // by version
	for _, i := range k.reads {
		r := &c.reads[i]
		c.linkRead(r)
		if ver := &c.versions[r.version]; c.sound(r) && ver.final && ver.writer != r.txn {
			e := edge{kind: rw, key: id, a: r.version, b: -1, phantom: r.phantom}
			readers[ver.local] = append(readers[ver.local], source{r.txn, e, -1})
		}
	}

	// What was read and overwritten. That the writers are in this order needs no edge of
	// its own: one has read from the other.
	next := make([][]target, n)
	preceded := make([]bool, n)
	for _, p := range o.read {
		preceded[p.b] = preceded[p.b] || p.a != 0
		if p.a != 0 {
			next[p.a] = append(next[p.a], writer(p.b))
		}
	}
	for v := 1; v < n; v++ {
		if !preceded[v] {
			next[0] = append(next[0], writer(int32(v)))
		}
	}
	for v := range n {
		before(c.graph, fromData, readers[v], next[v])
	}
	k.next = next[0]
	c.linkFirst(k, readers, next[0])

	at := func(sources []source, l level) []source {
		sources = slices.Clone(sources)
		for i := range sources {
			sources[i].edge.level = l
		}
		return sources
	}
	wrote := func(v int32, l level) source {
		return source{writer(v).node, edge{kind: ww, level: l, key: id, a: o.versions[v], b: -1}, -1}
	}

	if len(o.process) > 0 {
		after := make([][]target, n)
		for _, p := range o.process {
			if t := writer(p.b); !slices.Contains(after[p.a], t) {
				after[p.a] = append(after[p.a], t)
			}
		}
		for v := 1; v < n; v++ {
			if len(after[v]) > 0 {
				before(c.graph, fromProcess, append(at(readers[v], fromProcess), wrote(int32(v), fromProcess)), after[v])
			}
		}
	}

	if o.times != nil {
		l := fromRealtime
		if c.config.LinearizableKeys {
			l = fromData
		}
		targets := make([]target, len(o.sorted))
		place := make([]int, n)
		for i, v := range o.sorted {
			targets[i] = writer(v)
			place[v] = i
		}
		f := newFan(c.graph, l, targets)
		places := f.places()
		for v := int32(1); v < int32(n); v++ {
			later := o.later(v)
			if later == len(targets) {
				continue
			}
			for _, s := range append(at(readers[v], l), wrote(v, l)) {
				s.without = place[v]
				f.reach(s.node, s.edge, later, len(targets), f.skip(places, s)...)
			}
		}
	}
}
