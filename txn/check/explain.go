package check

import "fmt"

// explain puts a dependency into words.
func (c *checker) explain(h hop) Edge {
	e := Edge{From: int(h.from), To: int(h.to), Dependency: map[edgeKind]Dependency{ww: WriteWrite, wr: WriteRead, rw: ReadWrite}[h.edge.kind]}
	if h.edge.kind == so {
		c.explainTime(&e, h)
		return e
	}
	k := &c.keys[h.last.key]
	e.Key = k.name
	name := word(k.name)
	a, b := h.edge.a, h.last.b
	switch h.edge.kind {
	case wr:
		v := &c.versions[a]
		if k.kind == Append {
			e.Reason = fmt.Sprintf("T%d appended %d to %s, which T%d saw last", h.from, v.value, name, h.to)
		} else {
			e.Reason = fmt.Sprintf("T%d wrote %d to %s, which T%d read", h.from, v.value, name, h.to)
		}
	case ww:
		from, to := &c.versions[a], &c.versions[b]
		if k.kind == Append && h.edge.update {
			e.Reason = fmt.Sprintf("T%d appended %d to %s after it had seen the last that anybody has seen; so T%d appended %d after it, or an update is lost",
				h.from, from.value, name, h.to, to.value)
		} else if k.kind == Append {
			e.Reason = fmt.Sprintf("T%d appended %d to %s, and T%d the %d after it%s", h.from, from.value, name, h.to, to.value, c.shownBy(k, b))
		} else {
			e.Reason = fmt.Sprintf("T%d wrote %d to %s, and T%d the %d after it: %s", h.from, from.value, name, h.to, to.value,
				c.whyOrdered(k, from.local, to.local, h.edge.level))
		}
	case rw:
		to := &c.versions[b]
		saw := "saw nothing in " + name
		if h.edge.scan {
			op := c.history[h.from].Operations[h.edge.a]
			saw = fmt.Sprintf("scanned %s and found no %s", span(op.Key, op.To), name)
			if k.kind == Append {
				e.Reason = fmt.Sprintf("T%d %s, to which T%d appended %d%s", h.from, saw, h.to, to.value, c.shownBy(k, b))
				break
			}
		} else if v := &c.versions[a]; v.writer >= 0 {
			saw = fmt.Sprintf("read the %d of T%d in %s", v.value, v.writer, name)
			if k.kind == Append {
				saw = fmt.Sprintf("saw the %d of T%d last in %s", v.value, v.writer, name)
			}
		}
		if k.kind == Append {
			e.Reason = fmt.Sprintf("T%d %s, and not the %d that T%d appended%s", h.from, saw, to.value, h.to, c.shownBy(k, b))
			break
		}
		from := int32(0)
		if !h.edge.scan {
			from = c.versions[a].local
		}
		e.Reason = fmt.Sprintf("T%d %s, and T%d wrote %d after that: %s", h.from, saw, h.to, to.value, c.whyOrdered(k, from, to.local, h.edge.level))
	}
	return e
}

// shownBy says who has seen a version of a list.
func (c *checker) shownBy(k *key, v int32) string {
	if c.versions[v].position == 0 {
		return ", which nobody has seen"
	}
	return fmt.Sprintf(" (T%d read %s)", k.reader, list(c.values(k.order[:c.versions[v].position])))
}

func (c *checker) explainTime(e *Edge, h hop) {
	from, to := &c.history[h.from], &c.history[h.to]
	if h.edge.level == fromProcess {
		e.Dependency = Process
		e.Reason = fmt.Sprintf("process %d ran T%d, and then T%d", from.Process, h.from, h.to)
		return
	}
	e.Dependency = Realtime
	e.Reason = fmt.Sprintf("T%d had ended, at %d, when T%d began, at %d", h.from, from.End, h.to, to.Begin)
}
