package system

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/sim"
	"github.com/synod-go/synod/txn/check"
	"github.com/synod-go/synod/txn/hlc"
	"github.com/synod-go/synod/txn/kv"
)

// What clients do, on keys of its own each.
const (
	workChecked = iota // lists and registers, of which package check knows the rules
	workBank           // transfers keep the total
	workSkew           // of two keys that are read and one that is written, the sum stays above zero
	workAlone          // at most one key in a range, which all scan before they put one there
	workCount          // counters, which only grow
	workToken          // a key that moves: it is in one place
	kindsOfWork
)

// Sizes of what clients work on.
const (
	bankAccounts = 6
	bankInitial  = 100
	tokenPlaces  = 4
)

// workloads is what clients do, and what they know of it.
type workloads struct {
	s        *txnRun
	sum      int // of the mix
	counters []counter
	token    bool             // it was put somewhere, for certain
	values   map[string]int64 // of registers, as somebody has last seen them
	alones   map[string]bool  // ranges in which somebody has put the only key, for certain
}

// counter is what is known of one.
type counter struct {
	most    int64          // that anybody has seen
	counted map[int64]bool // what increments were told
	unknown int64          // increments that may have happened
}

func (k *workloads) start(s *txnRun) {
	*k = workloads{s: s, counters: make([]counter, 3), values: make(map[string]int64), alones: make(map[string]bool)}
	for i := range k.counters {
		k.counters[i].counted = make(map[int64]bool)
	}
	for _, m := range s.options.mix {
		k.sum += m
	}
}

// reading is how something is only read.
type reading int

const (
	byView reading = iota
	byUpdate
	byViewAtNow
	byViewAtThen
	waysToRead
)

// read runs fn in some way.
func (k *workloads) read(ctx context.Context, d *database, how reading, fn func(tx *kv.Tx) error) error {
	var err error
	db := d.DB
	switch how {
	case byView:
		err = db.View(ctx, fn)
	case byUpdate:
		err = db.Update(ctx, fn)
	case byViewAtNow:
		err = db.ViewAt(ctx, db.Now(), fn)
	case byViewAtThen:
		ago := time.Duration(k.s.w.Rand().Int64N(int64(2 * k.s.options.retention)))
		err = db.ViewAt(ctx, hlc.FromTime(db.Now().Time().Add(-ago)), fn)
	}
	k.note([...]string{"view", "view", "view at", "view at"}[how], err)
	return err
}

// write runs fn and commits what it writes. It returns false if nobody knows whether it has.
func (k *workloads) write(ctx context.Context, d *database, fn func(tx *kv.Tx) error) (committed, known bool) {
	r := k.s.w.Rand()
	err := d.Update(ctx, func(tx *kv.Tx) error {
		err := fn(tx)
		if err == nil && r.IntN(30) == 0 { // it has other things to do
			_ = sim.Sleep(ctx, time.Duration(r.Int64N(int64(min(2*k.s.options.retention, election)))))
		}
		return err
	})
	k.note("update", err)
	return err == nil, err == nil || !errors.Is(err, synod.ErrUnknownOutcome)
}

// errNothing is what a function returns that finds nothing to do.
var errNothing = errors.New("there is nothing to do")

func (k *workloads) note(what string, err error) {
	outcome := "ok"
	for _, e := range []struct {
		err error
		is  string
	}{
		{synod.ErrUnknownOutcome, "unknown"}, {errNothing, "nothing to do"}, {kv.ErrConflict, "conflicts"}, {kv.ErrMismatch, "mismatch"}, {kv.ErrTooOld, "too old"},
		{kv.ErrInvalid, "yet to come"}, {hlc.ErrOffset, "fenced"}, {synod.ErrOverloaded, "overloaded"}, {synod.ErrClosed, "closed"},
		{context.DeadlineExceeded, "timed out"},
	} {
		if errors.Is(err, e.err) {
			outcome = e.is
			break
		}
		if err != nil {
			outcome = "refused"
		}
	}
	if outcome == "refused" {
		k.s.w.Logf("an error of another kind: %v", err)
	}
	k.s.outcomes[what+": "+outcome]++
}

func number(b []byte) int64 {
	if len(b) < 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b))
}

func numberBytes(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// get is Tx.Get, where a key without a value has a standard one.
func get(tx *kv.Tx, key string, standard int64) (int64, error) {
	b, err := tx.Get([]byte(key))
	if errors.Is(err, kv.ErrNotFound) {
		return standard, nil
	}
	return number(b), err
}

func put(tx *kv.Tx, key string, n int64) error { return tx.Put([]byte(key), numberBytes(n)) }

// one does one transaction, and reports whether it has committed something.
func (k *workloads) one(ctx context.Context, d *database) bool {
	r := k.s.w.Rand()
	which, what := r.IntN(k.sum), 0
	for which -= k.s.options.mix[0]; which >= 0; which -= k.s.options.mix[what] {
		what++
	}
	only := r.IntN(3) == 0
	how := reading(r.IntN(int(waysToRead)))
	switch what {
	case workChecked:
		return k.generated(ctx, d)
	case workBank:
		if only {
			k.balance(ctx, d, how)
			return false
		}
		return k.transfer(ctx, d)
	case workSkew:
		return k.skew(ctx, d, only, how)
	case workAlone:
		return k.alone(ctx, d, only, how)
	case workCount:
		return k.count(ctx, d, only, how)
	default:
		return k.move(ctx, d, only, how)
	}
}

// epoch is a part of keys that changes with time.
func (k *workloads) epoch(d time.Duration) string { return fmt.Sprintf("%05d", k.s.w.Now()/d) }

func account(i int) string { return fmt.Sprintf("b%d", i) }

func (k *workloads) transfer(ctx context.Context, d *database) bool {
	r := k.s.w.Rand()
	from, to := r.IntN(bankAccounts), r.IntN(bankAccounts-1)
	if to >= from {
		to++
	}
	amount := 1 + r.Int64N(60)
	ok, _ := k.write(ctx, d, func(tx *kv.Tx) error {
		a, err := get(tx, account(from), bankInitial)
		if err != nil {
			return err
		}
		b, err := get(tx, account(to), bankInitial)
		if err != nil {
			return err
		}
		if a < amount {
			return errNothing
		}
		if err := put(tx, account(from), a-amount); err != nil {
			return err
		}
		return put(tx, account(to), b+amount)
	})
	return ok
}

func (k *workloads) balance(ctx context.Context, d *database, how reading) {
	scan, total, least := k.s.w.Rand().IntN(2) == 0, int64(0), int64(0)
	err := k.read(ctx, d, how, func(tx *kv.Tx) error {
		total, least = 0, 0
		if scan {
			pairs, err := tx.Scan([]byte("b"), []byte("c"), 0)
			for _, p := range pairs {
				total, least = total+number(p.Value), min(least, number(p.Value))
			}
			total += bankInitial * int64(bankAccounts-len(pairs))
			return err
		}
		for i := range bankAccounts {
			v, err := get(tx, account(i), bankInitial)
			if err != nil {
				return err
			}
			total, least = total+v, min(least, v)
		}
		return nil
	})
	if err == nil && (total != bankAccounts*bankInitial || least < 0) {
		k.s.w.Failf("transfers keep the total", "%s: the accounts have %d together, and not %d; the least has %d", ways[how], total, bankAccounts*bankInitial, least)
	}
}

var ways = [waysToRead]string{"View", "Update", "ViewAt of now", "ViewAt of earlier"}

// skew takes from one of two keys what both have together.
func (k *workloads) skew(ctx context.Context, d *database, only bool, how reading) bool {
	pair := "s" + k.epoch(500*time.Millisecond)
	take := k.s.w.Rand().IntN(2)
	sum, values := int64(0), [2]int64{}
	look := func(tx *kv.Tx) (err error) {
		sum = 0
		for i := range values {
			if values[i], err = get(tx, fmt.Sprint(pair, i), 1); err != nil {
				return err
			}
			sum += values[i]
		}
		return nil
	}
	ok := false
	if only {
		if k.read(ctx, d, how, look) != nil {
			return false
		}
	} else if ok, _ = k.write(ctx, d, func(tx *kv.Tx) error {
		if err := look(tx); err != nil {
			return err
		}
		if sum < 2 {
			return errNothing
		}
		sum -= 2
		return put(tx, fmt.Sprint(pair, take), values[take]-2)
	}); !ok {
		return false
	}
	if sum < 0 {
		k.s.w.Failf("no write skew", "%v, of which each wants to keep the sum at or above 0", values)
	}
	return ok
}

// alone puts a key where there is none.
func (k *workloads) alone(ctx context.Context, d *database, only bool, how reading) bool {
	from := "p" + k.epoch(400*time.Millisecond) + "/"
	me := []byte(from + numberText(k.s.strict.Unique()))
	limit := k.s.w.Rand().IntN(3)
	var found []kv.Pair
	look := func(tx *kv.Tx) (err error) {
		found, err = tx.Scan([]byte(from), []byte(from+"~"), limit)
		return err
	}
	if only {
		if k.read(ctx, d, how, look) == nil && len(found) > 1 {
			k.s.w.Failf("no phantoms", "%s: two keys where each wants to be the only one: %q and %q", ways[how], found[0].Key, found[1].Key)
		}
		return false
	}
	ok, _ := k.write(ctx, d, func(tx *kv.Tx) error {
		if err := look(tx); err != nil {
			return err
		}
		if len(found) > 0 {
			return errNothing
		}
		return tx.Put(me, []byte{1})
	})
	if ok {
		k.checkAlone(from)
	}
	return ok
}

func numberText(n int64) string { return fmt.Sprintf("%d.%d", n/10, n%10) }

// checkAlone counts those that were told that they are the only ones.
func (k *workloads) checkAlone(from string) {
	if k.alones[from] {
		k.s.w.Failf("no phantoms", "two clients were told to have the only key from %s on", from)
	}
	k.alones[from] = true
}

// count increments a counter, or reads it: it never goes back.
func (k *workloads) count(ctx context.Context, d *database, only bool, how reading) bool {
	i := k.s.w.Rand().IntN(len(k.counters))
	key, c, counts := fmt.Sprintf("n%d", i), &k.counters[i], d.counts
	least, value := c.most, int64(0)
	switch how {
	case byViewAtNow:
		least = counts[key] // what this database itself has answered
	case byViewAtThen:
		least = 0
	}
	look := func(tx *kv.Tx) (err error) {
		value, err = get(tx, key, 0)
		return err
	}
	if only {
		if k.read(ctx, d, how, look) != nil {
			return false
		}
		if value < least {
			k.s.w.Failf("monotonic reads", "%s: counter %d is %d, after it was %d", ways[how], i, value, least)
		}
		if how == byView || how == byUpdate {
			c.most = max(c.most, value)
		}
		return false
	}
	least = c.most
	ok, known := k.write(ctx, d, func(tx *kv.Tx) error {
		if err := look(tx); err != nil {
			return err
		}
		value++
		return put(tx, key, value)
	})
	switch {
	case ok && (c.counted[value] || value <= least):
		k.s.w.Failf("each increment counts", "counter %d was incremented to %d, after it was %d, and to %d before: %v", i, value, least, value, c.counted[value])
	case ok:
		c.counted[value], c.most = true, max(c.most, value)
		counts[key] = max(counts[key], value)
	case !known:
		c.unknown++
	}
	return ok
}

func tokenAt(i int) string { return fmt.Sprintf("t%d", i) }

// move takes the token from where it is to another place.
func (k *workloads) move(ctx context.Context, d *database, only bool, how reading) bool {
	r := k.s.w.Rand()
	to, scan, sure := r.IntN(tokenPlaces), r.IntN(2) == 0, k.token
	var at []int
	look := func(tx *kv.Tx) error {
		at = at[:0]
		if scan {
			pairs, err := tx.Scan([]byte("t"), []byte("u"), 0)
			for _, p := range pairs {
				at = append(at, int(p.Key[1]-'0'))
			}
			return err
		}
		for i := range tokenPlaces {
			switch _, err := tx.Get([]byte(tokenAt(i))); {
			case err == nil:
				at = append(at, i)
			case !errors.Is(err, kv.ErrNotFound):
				return err
			}
		}
		return nil
	}
	ok := false
	if only {
		if k.read(ctx, d, how, look) != nil {
			return false
		}
		sure = sure && (how == byView || how == byUpdate)
	} else if ok, _ = k.write(ctx, d, func(tx *kv.Tx) error {
		if err := look(tx); err != nil {
			return err
		}
		for _, i := range at {
			if i == to {
				to = (to + 1) % tokenPlaces
			}
			if err := tx.Delete([]byte(tokenAt(i))); err != nil {
				return err
			}
		}
		return put(tx, tokenAt(to), 1)
	}); !ok {
		return false
	} else {
		k.token = true
	}
	if len(at) > 1 || len(at) == 0 && sure {
		k.s.w.Failf("what moves is in one place", "it is at %v (%s)", at, map[bool]string{true: ways[how], false: "Update"}[only])
	}
	return ok
}

// step is an operation of a generated transaction.
type step struct {
	kind  check.OperationKind
	key   string
	swap  bool // of a write: only if the register has what it is taken to have
	limit int  // of a scan
}

// generated does a transaction of some steps on lists and registers.
func (k *workloads) generated(ctx context.Context, d *database) bool {
	r, o := k.s.w.Rand(), k.s.options
	epoch := k.epoch(o.epoch)
	var steps []step
	only := r.IntN(3) == 0
	for range 1 + r.IntN(4) {
		x := step{kind: check.Read, key: fmt.Sprintf("%c%s.%d", "lr"[r.IntN(2)], epoch, r.IntN(o.keys))}
		switch {
		case r.IntN(8) == 0:
			x.kind, x.limit = check.Scan, r.IntN(4)
		case only:
		case x.key[0] == 'l':
			if r.IntN(3) > 0 {
				x.kind = check.Append
			}
		case r.IntN(3) > 0:
			x.kind, x.swap = check.Write, r.IntN(3) == 0
		}
		steps = append(steps, x)
	}
	recorder, how := &k.s.strict, reading(r.IntN(int(waysToRead)))
	if only && (how == byViewAtNow || how == byViewAtThen) {
		recorder = &k.s.past
	}
	var t *check.Recording
	fn := func(tx *kv.Tx) error {
		if t != nil {
			t.Abort()
		}
		t = recorder.Begin(0)
		written := make(map[string]bool)
		for _, x := range steps {
			if err := k.step(tx, t, x, written); err != nil {
				return err
			}
		}
		return nil
	}
	ok, known := false, true
	if only {
		ok = k.read(ctx, d, how, fn) == nil
	} else {
		ok, known = k.write(ctx, d, fn)
	}
	switch {
	case t == nil:
	case ok:
		t.Commit()
	case known:
		t.Abort()
	default:
		t.Unknown()
	}
	return ok && !only
}

func (k *workloads) step(tx *kv.Tx, t *check.Recording, x step, written map[string]bool) error {
	if x.kind == check.Scan {
		return k.scan(tx, t, x)
	}
	if x.swap && !written[x.key] {
		// It reads nothing, and so is no read of what the transaction itself has written before.
		value := k.s.strict.Unique()
		old, known := k.values[x.key]
		expect := func() error { return tx.ExpectAbsent([]byte(x.key)) }
		var seen []int64
		if known {
			seen = append(seen, old)
			expect = func() error { return tx.Expect([]byte(x.key), numberBytes(old)) }
		}
		if err := expect(); err != nil {
			return err
		}
		t.Read(x.key, seen...)
		t.Write(x.key, value)
		written[x.key] = true
		return put(tx, x.key, value)
	}
	if x.kind == check.Write {
		value := k.s.strict.Unique()
		t.Write(x.key, value)
		written[x.key] = true
		return put(tx, x.key, value)
	}
	b, err := tx.Get([]byte(x.key))
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	seen := numbers(b)
	t.Read(x.key, seen...)
	if x.kind == check.Read {
		if x.key[0] == 'r' && !written[x.key] && len(seen) > 0 {
			k.values[x.key] = seen[0]
		}
		return nil
	}
	value := k.s.strict.Unique()
	t.Append(x.key, value)
	written[x.key] = true
	return tx.Put([]byte(x.key), append(b, numberBytes(value)...))
}

// scan reads all keys of a kind and an epoch, or the first ones.
func (k *workloads) scan(tx *kv.Tx, t *check.Recording, x step) error {
	from := x.key[:strings.IndexByte(x.key, '.')+1]
	to := from + "~"
	pairs, err := tx.Scan([]byte(from), []byte(to), x.limit)
	if err != nil {
		return err
	}
	found := make(map[string][]int64)
	var last []byte
	for _, p := range pairs {
		if bytes.Compare(p.Key, last) <= 0 {
			k.s.w.Failf("scans ascend", "%q follows %q", p.Key, last)
		}
		last = p.Key
		found[string(p.Key)] = numbers(p.Value)
	}
	if x.limit > 0 && len(pairs) == x.limit {
		to = string(last) + "\x00"
	}
	t.Scan(from, to, found)
	return nil
}

func numbers(b []byte) (list []int64) {
	for ; len(b) >= 8; b = b[8:] {
		list = append(list, number(b))
	}
	return list
}

// finish reads all once more, on each node.
func (k *workloads) finish(ctx context.Context) {
	for id := uint64(1); id <= k.s.options.nodes; id++ {
		n := k.s.nodes[id]
		d := n.databases[0]
		limit, cancel := sim.WithTimeout(ctx, progress*election)
		k.last(limit, d)
		cancel()
	}
}

// last sees that nothing of what was committed is missing.
func (k *workloads) last(ctx context.Context, d *database) {
	must := func(err error) {
		if err != nil {
			k.s.w.Failf("progress", "nothing can be read: %w", err)
		}
	}
	k.balance(ctx, d, byView)
	var values [len("nnn")]int64
	places := 0
	must(d.View(ctx, func(tx *kv.Tx) (err error) {
		for i := range values {
			if values[i], err = get(tx, fmt.Sprintf("n%d", i), 0); err != nil {
				return err
			}
		}
		pairs, err := tx.Scan([]byte("t"), []byte("u"), 0)
		places = len(pairs)
		return err
	}))
	for i, v := range values {
		c := &k.counters[i]
		if v < c.most || v < int64(len(c.counted)) {
			k.s.w.Failf("nothing acknowledged is lost", "counter %d is %d, after it was %d, and %d increments were acknowledged", i, v, c.most, len(c.counted))
		}
	}
	if places > 1 || k.token && places == 0 {
		k.s.w.Failf("what moves is in one place", "it is at %d", places)
	}
	for _, prefix := range []string{"l", "r"} {
		t := k.s.strict.Begin(0)
		var found map[string][]int64
		must(d.View(ctx, func(tx *kv.Tx) error {
			found = make(map[string][]int64)
			pairs, err := tx.Scan([]byte(prefix), []byte(prefix+"~"), 0)
			for _, p := range pairs {
				found[string(p.Key)] = numbers(p.Value)
			}
			return err
		}))
		t.Scan(prefix, prefix+"~", found)
		t.Commit()
	}
}
