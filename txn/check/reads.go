package check

import (
	"fmt"
	"maps"
	"slices"
)

// sight is what a transaction knows of a key.
type sight struct {
	base    []int64 // what others had made, when it was last read
	read    bool    // base is known
	phantom bool    // base is known by a scan that did not find the key
	own     []int64 // what it has appended since, or the one value that it wrote last
	write   bool    // it writes the key, sooner or later
}

// reader goes through one transaction.
type reader struct {
	*checker
	txn    int32
	keys   map[int32]*sight
	spare  []sight
	scans  []missed
	writes []int32 // keys, in the order in which they are first written
}

// missed is a scan, and what it did find.
type missed struct {
	op       int32
	from, to string
	found    map[string][]int64
}

func (m *missed) misses(name string) bool {
	_, found := m.found[name]
	return !found && m.covers(name)
}

func (m *missed) covers(name string) bool { return name >= m.from && (m.to == "" || name < m.to) }

// observe finds out what each transaction saw of others, and what it should have seen
// of itself.
func (c *checker) observe() {
	r := &reader{checker: c, keys: make(map[int32]*sight)}
	for _, t := range c.transactions() {
		r.run(t)
	}
}

func (r *reader) sight(key int32) *sight {
	s := r.keys[key]
	if s == nil {
		if len(r.spare) == 0 {
			r.spare = make([]sight, 64)
		}
		s, r.spare = &r.spare[0], r.spare[1:]
		r.keys[key] = s
	}
	return s
}

func (r *reader) run(txn int32) {
	r.txn, r.scans, r.writes = txn, r.scans[:0], r.writes[:0]
	clear(r.keys)
	operations := r.history[txn].Operations
	for _, op := range operations {
		if op.Kind == Append || op.Kind == Write {
			id := r.keyIDs[op.Key]
			if s := r.sight(id); !s.write {
				s.write = true
				r.writes = append(r.writes, id)
			}
		}
	}
	for i, op := range operations {
		o := int32(i)
		switch op.Kind {
		case Append:
			s := r.sight(r.keyIDs[op.Key])
			s.own = append(s.own, op.Value)
		case Write:
			r.sight(r.keyIDs[op.Key]).own = []int64{op.Value}
		case Read:
			r.see(o, r.keyIDs[op.Key], op.Seen, false)
		case Scan:
			r.scan(o, op)
		}
	}
}

// scan takes a scan for a read of each key that there is in its range.
func (r *reader) scan(o int32, op Operation) {
	m := missed{op: o, from: op.Key, to: op.To, found: op.Found}
	var except []int32
	for _, name := range sortedKeys(op.Found) {
		id := r.keyIDs[name]
		if !m.covers(name) {
			r.report.add(r.checker, Anomaly{Kind: Garbage, Key: name, Transactions: []int{int(r.txn)},
				Reason: fmt.Sprintf("T%d scanned %s, and found %s, which is outside", r.txn, span(op.Key, op.To), word(name))}, fromReadUncommitted, fromData)
		}
		except = append(except, id)
		r.see(o, id, op.Found[name], false)
	}
	// What it did not find held nothing. Of keys that the transaction has to do with
	// otherwise, this is said one by one.
	var touched []int32
	for id := range r.keys {
		if m.misses(r.checker.keys[id].name) {
			touched = append(touched, id)
		}
	}
	slices.Sort(touched)
	for _, id := range touched {
		except = append(except, id)
		r.see(o, id, nil, true)
	}
	slices.Sort(except)
	r.scans = append(r.scans, m)
	r.checker.scans = append(r.checker.scans, scan{txn: r.txn, op: o, from: op.Key, to: op.To, except: except})
}

// see takes in what an operation saw of a key.
func (r *reader) see(o, id int32, seen []int64, phantom bool) {
	s := r.sight(id)
	k := &r.checker.keys[id]
	if !s.read {
		// An earlier scan may have been the first to look.
		for i := range r.scans {
			if r.scans[i].misses(k.name) {
				s.read, s.phantom, s.base = true, true, nil
			}
		}
	}
	now := read{txn: r.txn, op: o, key: id, raw: seen, phantom: phantom}
	if len(s.own) > 0 {
		switch rest, ok := cutSuffix(seen, s.own); {
		case k.kind == Write && slices.Equal(seen, s.own):
			return // its own value says nothing of others
		case ok && k.kind == Append:
			now.raw = rest
			for _, v := range s.own {
				if slices.Contains(rest, v) {
					r.report.add(r.checker, Anomaly{Kind: Duplicate, Key: k.name, Transactions: []int{int(r.txn)},
						Reason: fmt.Sprintf("T%d read %s %s, and the %d is there twice, which it had appended once", r.txn, word(k.name), list(seen), v)},
						fromReadUncommitted, fromData)
					break
				}
			}
		case k.kind == Append && within(s.own, seen):
			// Others have appended after it, or in between: that is a read of what they did.
			r.internal(id, seen, nil, fmt.Sprintf("it had appended %s itself", list(s.own)), phantom)
			s.base, s.read, s.phantom, s.own = seen, true, phantom, nil
			r.reads = append(r.reads, now)
			return
		default:
			verb := "appended"
			if k.kind == Write {
				verb = "written"
			}
			r.report.add(r.checker, Anomaly{Kind: OwnWriteUnseen, Key: k.name, Transactions: []int{int(r.txn)},
				Reason: fmt.Sprintf("T%d read %s %s, after it had %s %s itself", r.txn, word(k.name), list(seen), verb, list(s.own))}, fromReadUncommitted, fromData)
			now.late = true
			r.reads = append(r.reads, now)
			return
		}
	}
	if s.read {
		if slices.Equal(s.base, now.raw) {
			return
		}
		r.internal(id, now.raw, s.own, fmt.Sprintf("it had seen %s", list(s.base)), phantom || s.phantom)
	}
	s.base, s.read, s.phantom = now.raw, true, phantom
	r.reads = append(r.reads, now)
}

// internal reports what others have done between two reads of a transaction.
func (r *reader) internal(id int32, seen, own []int64, before string, phantom bool) {
	broken := fromRepeatableAll
	and := ""
	if len(own) > 0 {
		and = fmt.Sprintf(" beside its own %s", list(own))
	}
	if phantom {
		broken = fromSnapshot
	}
	r.report.add(r.checker, Anomaly{Kind: Internal, Key: r.checker.keys[id].name, Transactions: []int{int(r.txn)},
		Reason: fmt.Sprintf("T%d saw %s in %s%s; before, %s", r.txn, list(seen), word(r.checker.keys[id].name), and, before)}, broken, fromData)
}

// cutSuffix returns what stands before own at the end of seen.
func cutSuffix(seen, own []int64) (rest []int64, ok bool) {
	n := len(seen) - len(own)
	if n < 0 || !slices.Equal(seen[n:], own) {
		return nil, false
	}
	return seen[:n], true
}

// within reports whether all of own stands in seen, in its order.
func within(own, seen []int64) bool {
	for _, v := range seen {
		if len(own) > 0 && own[0] == v {
			own = own[1:]
		}
	}
	return len(own) == 0
}

func sortedKeys(found map[string][]int64) []string {
	if len(found) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(found))
}

// resolved is a list of values with their versions, and where in it something is wrong:
// its length, if nothing is.
type resolved struct {
	raw                     []int64
	ids                     []int32
	garbage, aborted, twice int
}

func (c *checker) resolve(id int32, raw []int64) resolved {
	r := resolved{raw: raw, ids: make([]int32, len(raw)), garbage: len(raw), aborted: len(raw), twice: len(raw)}
	var seen map[int64]bool
	if len(raw) > 1 {
		seen = make(map[int64]bool, len(raw))
	}
	for i, value := range raw {
		v, ok := c.written[written{id, value}]
		switch {
		case !ok:
			v = -1
			r.garbage = min(r.garbage, i)
		case c.aborted(v):
			r.aborted = min(r.aborted, i)
		}
		if seen[value] {
			r.twice = min(r.twice, i)
		} else if seen != nil {
			seen[value] = true
		}
		r.ids[i] = v
	}
	return r
}

// understand finds the versions that were read, and what is wrong with each read.
func (c *checker) understand() {
	for i := range c.reads {
		k := &c.keys[c.reads[i].key]
		k.reads = append(k.reads, int32(i))
	}
	for id := range c.keys {
		k := &c.keys[id]
		if len(k.reads) == 0 {
			continue
		}
		// Most reads of a list are the beginning of the longest one.
		longest := k.reads[0]
		for _, i := range k.reads {
			if len(c.reads[i].raw) > len(c.reads[longest].raw) {
				longest = i
			}
		}
		all := c.resolve(int32(id), c.reads[longest].raw)
		for _, i := range k.reads {
			r := &c.reads[i]
			n := len(r.raw)
			if found := all; slices.Equal(r.raw, found.raw[:n]) {
				found.ids = found.ids[:n:n]
				c.judge(r, &found)
			} else {
				found = c.resolve(int32(id), r.raw)
				c.judge(r, &found)
			}
		}
		if k.kind == Append {
			c.dirtyUpdate(k, &all)
		}
	}
}

// judge holds one read against what was written.
func (c *checker) judge(r *read, found *resolved) {
	k := &c.keys[r.key]
	n := len(r.raw)
	r.ids, r.shown = found.ids, found.ids
	say := func(kind Kind, broken isolation, others []int, format string, args ...any) {
		c.report.add(c, Anomaly{Kind: kind, Key: k.name, Transactions: append([]int{int(r.txn)}, others...),
			Reason: fmt.Sprintf("T%d read %s %s, and ", r.txn, word(k.name), list(r.raw)) + fmt.Sprintf(format, args...)}, broken, fromData)
	}
	if found.garbage < n {
		say(Garbage, fromReadUncommitted, nil, "nobody wrote the %d", r.raw[found.garbage])
	} else if k.kind == Write && n > 1 {
		say(Garbage, fromReadUncommitted, nil, "a register holds one value")
	}
	if found.twice < n {
		r.twice = true
		say(Duplicate, fromReadUncommitted, nil, "the %d is there twice, and was appended once", r.raw[found.twice])
	}
	if found.aborted < n {
		w := c.versions[found.ids[found.aborted]].writer
		say(G1a, fromReadCommitted, []int{int(w)}, "T%d, which wrote the %d, has aborted", w, r.raw[found.aborted])
	}
	if found.garbage < n || found.aborted < n {
		r.shown = nil
		for _, v := range found.ids {
			if v >= 0 && c.counts(v) {
				r.shown = append(r.shown, v)
			}
		}
	}
	r.version = k.initial
	if len(r.shown) > 0 {
		r.version = r.shown[len(r.shown)-1]
	}
	last := &c.versions[r.version]
	if !last.final && last.writer != r.txn {
		say(G1b, fromReadCommitted, []int{int(last.writer)}, "T%d, which wrote the %d, wrote %s once more", last.writer, last.value, word(k.name))
	}
	for _, v := range r.shown {
		if c.versions[v].writer == r.txn && c.versions[v].op > r.op {
			say(FutureRead, fromReadCommitted, nil, "wrote the %d itself only after that", c.versions[v].value)
			break
		}
	}
}

// dirtyUpdate finds something that has committed after something that was aborted.
func (c *checker) dirtyUpdate(k *key, all *resolved) {
	if all.aborted == len(all.ids) {
		return
	}
	aborted := &c.versions[all.ids[all.aborted]]
	for i, v := range all.ids[all.aborted:] {
		if v < 0 || !c.counts(v) || !c.certain(c.versions[v].writer) {
			continue
		}
		w := c.versions[v].writer
		c.report.add(c, Anomaly{Kind: DirtyUpdate, Key: k.name, Transactions: []int{int(aborted.writer), int(w)},
			Reason: fmt.Sprintf("%s was read as %s: T%d, which has committed, appended the %d after the %d of T%d, which has aborted",
				word(k.name), list(all.raw[:all.aborted+i+1]), w, c.versions[v].value, aborted.value, aborted.writer)}, fromReadCommitted, fromData)
		return
	}
}

// lostUpdates finds transactions that have read one version of a key, and all write it.
func (c *checker) lostUpdates() {
	type update struct {
		version, txn int32
		phantom      bool
	}
	type write struct{ txn, key int32 }
	writes := make(map[write]bool)
	for _, v := range c.versions {
		if v.writer >= 0 && v.turn == 0 && c.in[v.writer] {
			writes[write{v.writer, v.key}] = true
		}
	}
	for id := range c.keys {
		k := &c.keys[id]
		var updates []update
		for _, i := range k.reads {
			r := &c.reads[i]
			if c.sound(r) && c.versions[r.version].writer != r.txn && writes[write{r.txn, int32(id)}] {
				updates = append(updates, update{r.version, r.txn, r.phantom})
			}
		}
		slices.SortStableFunc(updates, func(a, b update) int { return int(a.version) - int(b.version) })
		for len(updates) > 0 {
			same := updates
			for i, u := range updates {
				if u.version != updates[0].version {
					same = updates[:i]
					break
				}
			}
			updates = updates[len(same):]
			var txns []int
			broken := fromRepeatableAll
			for _, u := range same {
				if !slices.Contains(txns[max(0, len(txns)-1):], int(u.txn)) {
					txns = append(txns, int(u.txn))
					if u.phantom {
						broken = fromSnapshot
					}
				}
			}
			if len(txns) < 2 {
				continue
			}
			what := "nothing there"
			if v := &c.versions[same[0].version]; v.writer >= 0 {
				what = fmt.Sprintf("the %d of T%d last", v.value, v.writer)
			}
			more := ""
			if n := len(txns) - maxListed; n > 0 {
				txns, more = txns[:maxListed], fmt.Sprintf(" and %d others", n)
			}
			c.report.add(c, Anomaly{Kind: LostUpdate, Key: k.name, Transactions: txns,
				Reason: fmt.Sprintf("%s%s each read %s, found %s, and wrote it", names(txns), more, word(k.name), what)}, broken, fromData)
		}
	}
}
