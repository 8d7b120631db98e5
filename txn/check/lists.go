package check

import (
	"fmt"
	"slices"
	"strings"
)

// prefix returns how many elements two lists have in common at their beginning.
func prefix(a, b []int32) int {
	n := min(len(a), len(b))
	if n > 0 && &a[0] == &b[0] {
		return n // the same list, cut at different lengths
	}
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// orderLists finds the order of the elements of each list: the longest read has it, as
// far as all others agree.
func (c *checker) orderLists() {
	for id := range c.keys {
		k := &c.keys[id]
		if k.kind != Append {
			continue
		}
		for _, i := range k.reads {
			r := &c.reads[i]
			if !r.late && !r.twice && len(r.shown) > len(k.order) {
				k.order, k.reader = r.shown, r.txn
			}
		}
		c.agree(k)
		for i, v := range k.order {
			c.versions[v].position = int32(i + 1)
		}
		c.turns(k)
		// A version that is not in the order is in none of these reads, or behind what
		// they have in common. So it came after that.
		last := int32(-1)
		for _, v := range k.versions {
			if ver := &c.versions[v]; ver.position == 0 && c.in[ver.writer] && ver.writer != last {
				k.rest = append(k.rest, v)
				last = ver.writer
			}
		}
		c.linkList(k)
	}
}

// agree cuts the order to what all reads have in common, and says which two do not agree.
func (c *checker) agree(k *key) {
	common := len(k.order)
	var other *read
	for _, i := range k.reads {
		r := &c.reads[i]
		if r.late || r.twice {
			continue
		}
		if n := prefix(k.order, r.shown); n < len(r.shown) && n < common {
			common, other = n, r
		}
	}
	if other == nil {
		return
	}
	c.report.add(c, Anomaly{Kind: IncompatibleOrder, Key: k.name, Transactions: []int{int(k.reader), int(other.txn)},
		Reason: fmt.Sprintf("T%d read %s %s, and T%d read %s: they differ from element %d on, and neither can have become the other",
			k.reader, word(k.name), list(c.values(k.order)), other.txn, list(c.values(other.shown)), common+1)}, fromReadCommitted, fromData)
	k.order = k.order[:common]
}

// turns holds the order against that in which each transaction appended.
func (c *checker) turns(k *key) {
	var next map[int32]int32 // by transaction: how many of its elements came before
	for i, v := range k.order {
		ver := &c.versions[v]
		if ver.turn == 0 && ver.final {
			continue // it appended nothing else
		}
		if next == nil {
			next = make(map[int32]int32)
		}
		if ver.turn != next[ver.writer] {
			c.report.add(c, Anomaly{Kind: IncompatibleOrder, Key: k.name, Transactions: []int{int(k.reader), int(ver.writer)},
				Reason: fmt.Sprintf("T%d read %s %s: T%d had appended %s before the %d", k.reader, word(k.name), list(c.values(k.order[:i+1])),
					ver.writer, c.earlier(k, v), ver.value)}, fromReadCommitted, fromData)
			return
		}
		next[ver.writer]++
	}
}

// earlier names what the writer of a version appended before it and is not before it in
// the order.
func (c *checker) earlier(k *key, v int32) string {
	ver := &c.versions[v]
	for _, w := range k.versions {
		if o := &c.versions[w]; o.writer == ver.writer && o.turn < ver.turn && (o.position == 0 || o.position > ver.position) {
			return fmt.Sprintf("the %d", o.value)
		}
	}
	return "others"
}

func (c *checker) values(versions []int32) []int64 {
	values := make([]int64, len(versions))
	for i, v := range versions {
		values[i] = c.versions[v].value
	}
	return values
}

// sound reports whether a read says which version of its key it is of, and where that
// stands.
func (c *checker) sound(r *read) bool {
	if r.late || r.twice {
		return false
	}
	k := &c.keys[r.key]
	return k.kind != Append || len(r.shown) <= len(k.order) && prefix(k.order, r.shown) == len(r.shown)
}

// linkList adds what follows from the order of a list.
func (c *checker) linkList(k *key) {
	id := c.versions[k.initial].key
	base := edge{key: id, a: -1, b: -1}
	rest := make([]target, len(k.rest))
	for i, v := range k.rest {
		rest[i] = target{c.versions[v].writer, id, v}
	}

	chain := k.order
	if c.isolation == readUncommitted {
		// What was aborted may have been read, and what was written over: it orders nothing.
		doubtful := func(v int32) bool { return !c.versions[v].final || !c.certain(c.versions[v].writer) }
		chain = slices.DeleteFunc(slices.Clone(chain), doubtful)
	}
	for i, v := range chain {
		from := base
		from.kind, from.a, from.partial = ww, v, !c.versions[v].final
		if i+1 < len(chain) {
			e := from
			e.to, e.b = c.versions[chain[i+1]].writer, chain[i+1]
			c.graph.add(c.versions[v].writer, e)
			continue
		}
		before(c.graph, fromData, []source{{c.versions[v].writer, from, -1}}, rest)
	}

	var last []source
	for _, i := range k.reads {
		r := &c.reads[i]
		c.linkRead(r)
		if !c.sound(r) {
			continue
		}
		e := base
		e.kind, e.a, e.phantom = rw, r.version, r.phantom
		if n := len(r.shown); n == len(k.order) {
			last = append(last, source{r.txn, e, -1})
		} else {
			e.to, e.b = c.versions[k.order[n]].writer, k.order[n]
			c.graph.add(r.txn, e)
		}
	}
	before(c.graph, fromData, last, rest)
	c.linkUpdate(k, last, rest)

	if len(k.order) > 0 {
		k.next = []target{{c.versions[k.order[0]].writer, id, k.order[0]}}
	} else {
		k.next = rest
	}
}

// linkUpdate adds that one who has read the end of the order, and then appended, came
// before all others that are not in it. Had another one appended between, an update would be lost.
func (c *checker) linkUpdate(k *key, last []source, rest []target) {
	if c.isolation < repeatableRead {
		return
	}
	writes := make(map[int32]int32)
	for _, t := range rest {
		writes[t.node] = t.version
	}
	updater := source{node: -1}
	for _, s := range last {
		if v, ok := writes[s.node]; ok {
			if updater.node >= 0 && updater.node != s.node {
				return // of two, one is lost: that is an anomaly of its own
			}
			updater = s
			updater.edge.kind, updater.edge.update, updater.edge.a = ww, true, v
		}
	}
	if updater.node >= 0 {
		before(c.graph, fromData, []source{updater}, rest)
	}
}

// linkRead adds that a read came after the write that it saw.
func (c *checker) linkRead(r *read) {
	if v := &c.versions[r.version]; v.writer >= 0 && !r.late {
		c.graph.add(v.writer, edge{to: r.txn, kind: wr, key: r.key, a: r.version, b: r.version})
	}
}

// linkScans adds that what a scan did not find came after it.
func (c *checker) linkScans() {
	if len(c.scans) == 0 {
		return
	}
	// Keys with a first version, by name.
	var ids []int32
	for id := range c.keys {
		if len(c.keys[id].next) > 0 {
			ids = append(ids, int32(id))
		}
	}
	slices.SortFunc(ids, func(a, b int32) int { return strings.Compare(c.keys[a].name, c.keys[b].name) })
	targets := make([]target, len(ids))
	places := make(map[int32]int, len(ids))
	for i, id := range ids {
		k := &c.keys[id]
		places[id] = i
		if len(k.next) == 1 {
			targets[i] = k.next[0]
			continue
		}
		targets[i] = target{c.graph.junction(), id, -1}
		for _, t := range k.next {
			c.graph.add(targets[i].node, edge{to: t.node, kind: free, key: t.key, a: -1, b: t.version})
		}
	}
	f := newFan(c.graph, fromData, targets)
	for i := range c.scans {
		s := &c.scans[i]
		lo, _ := slices.BinarySearchFunc(ids, s.from, func(id int32, name string) int { return strings.Compare(c.keys[id].name, name) })
		hi := len(ids)
		if s.to != "" {
			hi, _ = slices.BinarySearchFunc(ids, s.to, func(id int32, name string) int { return strings.Compare(c.keys[id].name, name) })
		}
		var without []int
		for _, id := range s.except {
			if at, ok := places[id]; ok {
				without = append(without, at)
			}
		}
		slices.Sort(without)
		f.reach(s.txn, edge{kind: rw, phantom: true, scan: true, key: -1, a: s.op, b: -1}, lo, hi, without...)
	}
}
