package check

import (
	"fmt"
	"slices"
)

// maxOperations bounds a history, so that what is counted fits in 32 bits.
const maxOperations = 1 << 26

// checker is one check of a history.
type checker struct {
	config    Config
	isolation isolation
	level     level
	history   []Transaction
	report    *Report

	keys     []key
	keyIDs   map[string]int32
	versions []version
	written  map[written]int32 // version

	// in says which transactions count: those that have committed, and those of unknown
	// outcome that one of these has read from. If they have not committed, then that
	// reader has read what was aborted, which is what such a conclusion then shows
	// instead; only read uncommitted allows it.
	in []bool
	// seenBy is, for a transaction of unknown outcome that counts, a transaction that has
	// read from it.
	seenBy map[int32]int32

	reads []read
	scans []scan
	graph *graph
}

// key is a list or a register.
type key struct {
	name     string
	kind     OperationKind // Append or Write; "": only read
	first    int32         // its first write: a version
	initial  int32         // the version that nobody wrote
	versions []int32       // that were written, by whoever, as they stand in the history
	reads    []int32       // of transactions that count

	// Lists.
	order  []int32 // versions that count, as reads have them; what is not in it came after
	reader int32   // the transaction that has read all of it; -1: none
	rest   []int32 // versions that count and are not in the order, one a transaction

	// Registers.
	orders orders

	// Who may have made the first version that is not initial: for scans that found
	// nothing.
	next []target
}

// version is a value of a key.
type version struct {
	key      int32
	value    int64
	writer   int32 // transaction; -1: nobody, of initial versions
	op       int32 // where in the transaction
	turn     int32 // how often the transaction had written the key before
	final    bool  // it does not write it again
	position int32 // lists: elements up to here, in the order; 0: initial, or not in it
	local    int32 // registers: among the versions that are ordered
}

type written struct {
	key   int32
	value int64
}

// read is what a transaction saw of a key that it had not made itself.
type read struct {
	txn, op, key int32
	raw          []int64 // as it was read, without what the transaction itself had appended
	ids          []int32 // the versions that it shows; -1: nobody wrote it
	shown        []int32 // those that count
	version      int32   // the last one of these, or the initial one
	phantom      bool    // a scan that did not find the key
	late         bool    // it missed its own transaction's write, and says nothing of the order
	twice        bool    // it shows an element twice, and says nothing of the order
}

// scan is what a scan did not find, but for the keys that its transaction has to do with
// otherwise: each of those has a read.
type scan struct {
	txn, op  int32
	from, to string
	except   []int32 // keys
}

func (c *checker) fail(txn, op int, format string, args ...any) error {
	return &HistoryError{Transaction: txn, Operation: op, Reason: fmt.Sprintf(format, args...)}
}

// index takes the history in: keys, versions, and which transactions count. It refuses
// what can't be.
func (c *checker) index() error {
	operations := 0
	for t := range c.history {
		if operations += 1 + len(c.history[t].Operations); operations > maxOperations {
			return c.fail(t, -1, "more than %d transactions and operations: divide the history", maxOperations)
		}
	}
	c.keyIDs = make(map[string]int32)
	c.written = make(map[written]int32)
	if err := c.checkTimes(); err != nil {
		return err
	}
	turns := make(map[int32]int32) // by key: the last version that the transaction wrote
	for t := range c.history {
		clear(turns)
		for o, op := range c.history[t].Operations {
			switch op.Kind {
			case Append, Write:
				if err := c.addVersion(t, o, op, turns); err != nil {
					return err
				}
			case Read:
				c.keyID(op.Key)
			case Scan:
				if op.To != "" && op.To <= op.Key {
					return c.fail(t, o, "the range of the scan is empty: it ends at %q", op.To)
				}
				for _, name := range sortedKeys(op.Found) {
					c.keyID(name)
				}
			default:
				return c.fail(t, o, "%q is no kind of operation", string(op.Kind))
			}
		}
	}
	c.include()
	return nil
}

// checkTimes refuses times and processes that can't be.
func (c *checker) checkTimes() error {
	type latest struct {
		time int64
		txn  int
	}
	processes := make(map[int]latest)
	for i := range c.history {
		t := &c.history[i]
		switch {
		case t.Outcome < Unknown || t.Outcome > Aborted:
			return c.fail(i, -1, "%v is no outcome", t.Outcome)
		case t.Begin < 0 || t.End < 0:
			return c.fail(i, -1, "its time is negative: times are from 1 on, and 0 where they are not known")
		case t.End != 0 && t.Begin > t.End:
			return c.fail(i, -1, "it ends at %d, before it begins at %d", t.End, t.Begin)
		case t.Process < 0:
			return c.fail(i, -1, "process %d: processes are numbered from 1 on, and 0 is none", t.Process)
		}
		if t.Process == 0 {
			continue
		}
		l := processes[t.Process]
		end := t.End
		if t.Outcome == Unknown {
			end = 0 // it may go on while its process does, too
		}
		for _, time := range []int64{t.Begin, end} {
			if time != 0 && time < l.time {
				return c.fail(i, -1, "process %d was busy with T%d until %d: transactions of one process run one after the other, and stand in that order",
					t.Process, l.txn, l.time)
			}
			if time != 0 {
				l = latest{time, i}
			}
		}
		processes[t.Process] = l
	}
	return nil
}

// keyID returns the number of a key.
func (c *checker) keyID(name string) int32 {
	id, ok := c.keyIDs[name]
	if !ok {
		id = int32(len(c.keys))
		c.keyIDs[name] = id
		c.keys = append(c.keys, key{name: name, first: -1, initial: int32(len(c.versions)), reader: -1})
		c.versions = append(c.versions, version{key: id, writer: -1, op: -1, final: true})
	}
	return id
}

func (c *checker) addVersion(t, o int, op Operation, turns map[int32]int32) error {
	id := c.keyID(op.Key)
	k := &c.keys[id]
	if k.kind == "" {
		k.kind, k.first = op.Kind, int32(len(c.versions))
	}
	if k.kind != op.Kind {
		first := c.versions[k.first]
		return c.fail(t, o, "%v, and T%d has %v: a key is a list or a register", op, first.writer, c.history[first.writer].Operations[first.op])
	}
	w := written{id, op.Value}
	if other, ok := c.written[w]; ok {
		return c.fail(t, o, "%v, and so does T%d: values of one key differ, or nobody can say whom a read saw", op, c.versions[other].writer)
	}
	v := version{key: id, value: op.Value, writer: int32(t), op: int32(o), final: true}
	if before, ok := turns[id]; ok {
		c.versions[before].final = false
		v.turn = c.versions[before].turn + 1
	}
	number := int32(len(c.versions))
	turns[id], c.written[w] = number, number
	k.versions = append(k.versions, number)
	c.versions = append(c.versions, v)
	return nil
}

// include finds which transactions count.
func (c *checker) include() {
	c.in = make([]bool, len(c.history))
	c.seenBy = make(map[int32]int32)
	pending := make([]int, len(c.keys)) // by key: versions of transactions that may count
	for _, v := range c.versions {
		if v.writer >= 0 && c.history[v.writer].Outcome == Unknown {
			pending[v.key]++
		}
	}
	var work []int32
	for t := range c.history {
		if c.history[t].Outcome == Committed {
			c.in[t] = true
			work = append(work, int32(t))
		}
	}
	see := func(t, key int32, seen []int64) {
		if pending[key] == 0 {
			return
		}
		for _, value := range seen {
			v, ok := c.written[written{key, value}]
			if !ok {
				continue
			}
			if w := c.versions[v].writer; !c.in[w] && c.history[w].Outcome == Unknown {
				c.in[w], c.seenBy[w] = true, t
				work = append(work, w)
			}
		}
	}
	for i := 0; i < len(work); i++ {
		for _, op := range c.history[work[i]].Operations {
			switch op.Kind {
			case Read:
				see(work[i], c.keyIDs[op.Key], op.Seen)
			case Scan:
				for _, name := range sortedKeys(op.Found) {
					see(work[i], c.keyIDs[name], op.Found[name])
				}
			}
		}
	}
}

// counts reports whether the writer of a version counts.
func (c *checker) counts(v int32) bool {
	w := c.versions[v].writer
	return w >= 0 && c.in[w]
}

// aborted reports whether the writer of a version has aborted.
func (c *checker) aborted(v int32) bool {
	w := c.versions[v].writer
	return w >= 0 && c.history[w].Outcome == Aborted
}

// certain reports whether a transaction has committed for certain.
func (c *checker) certain(txn int32) bool { return c.history[txn].Outcome == Committed }

// sortedTransactions returns all that count.
func (c *checker) transactions() []int32 {
	var all []int32
	for t, in := range c.in {
		if in {
			all = append(all, int32(t))
		}
	}
	return slices.Clip(all)
}
