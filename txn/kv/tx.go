package kv

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/paxoscommit"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/txn/hlc"
)

// Pair is a key and its value.
type Pair struct{ Key, Value []byte }

// Tx is a transaction, as the function sees it that Update, View or ViewAt has called. It is valid until that function returns, and
// must be used by one task at a time. After an error of a method that is neither ErrNotFound, ErrInvalid nor synod.ErrTooLarge the function should
// return, with whatever error: the transaction is tried again, or ends.
type Tx struct {
	db       *DB
	ctx      context.Context
	mode     mode
	fresh    bool      // replicas are made current before they are read
	at       uint64    // of ViewAt
	parts    []*txPart // ascending by group
	writes   []write   // ascending by key
	err      error     // why it can't go on
	lost     string    // a key for which it can't
	chain    chain     // all attempts
	kept     *[]*group // that keep keys for it, or for an attempt before it
	eager    bool      // it need not wait for what this DB is about to change: it will be run again, if it meets that
	behind   bool      // it has met that, and has read what there was before
	over     bool
	snapshot *group // of a View: the first group, whose replica was current when it was read
}

type mode uint8

const (
	updating mode = iota
	viewing
	viewingAt
)

// txPart is what a transaction has to do with a group.
type txPart struct {
	group  *group
	readAt uint64
	ready  bool // it has a readAt
	reads  map[string]struct{}
	all    []string    // what was read, when the rest of it is merged with what is written
	ahead  []*prepared // by exact: whose version it is
	prepare
}

// Update runs fn, and commits what it has read and written as if it had happened at one moment between call and return: strict
// serializability. Commands go to the groups when fn has returned nil: one to each, at a time, so that the answer takes one round of
// consensus. When nil returns all is durable in a majority of each group.
//
// fn is run again when others have changed what it has read, or are about to, so it must not do what may not be repeated; and may see, in
// a run that will be repeated, one group as it was before and another as it was after somebody's commit. Transactions of one DB that write the same
// keys commit in turns: that keeps them from losing against each other, and makes nothing unsafe where it does not. An Update that fn calls for the keys of its own transaction waits
// for itself, for Config.RecoverAfter. When fn returns an error,
// nothing is written, and the error is returned once it is certain that what fn has read was true.
//
// Errors: what fn returned; ErrConflict; *MismatchError; synod.ErrTooLarge; synod.ErrOverloaded; synod.ErrClosed; hlc.ErrOffset where this node's clock
// is not to be trusted; ctx's: with all of them nothing was committed, and never will be. With synod.ErrUnknownOutcome it may have
// been, or may be yet: after ctx has ended, or where a group has been unreachable for longer than Config.SessionTTL.
func (db *DB) Update(ctx context.Context, fn func(*Tx) error) error {
	return db.run(ctx, updating, fn)
}

// View runs fn, which must only read. What it has read was there at one moment between call and return. In one group it
// costs a barrier, and always succeeds; over several it is tried again if something has changed meanwhile, and after three times
// locks what it reads for a round of consensus. Errors are Update's.
func (db *DB) View(ctx context.Context, fn func(*Tx) error) error {
	return db.run(ctx, viewing, fn)
}

// ViewAt runs fn, which must only read, on all groups as they were at a timestamp: one that Now returned, or hlc.FromTime. It locks nothing, and
// runs once. What it sees has all commits up to the timestamp, and none above; that is all that this DB has answered
// before, and all that others have, as far as clocks agree. The error is ErrTooOld where Config.Retention has passed, ErrInvalid
// where the time is to come by more than clocks may be apart, and else as View's.
func (db *DB) ViewAt(ctx context.Context, at hlc.Timestamp, fn func(*Tx) error) error {
	if err := db.usable(); err != nil {
		return err
	}
	if at > db.Now() && db.clock.Update(at) != nil {
		return fmt.Errorf("%w: %v is yet to come", ErrInvalid, at)
	}
	tx := &Tx{db: db, ctx: ctx, mode: viewingAt, at: uint64(at)}
	err := fn(tx)
	tx.over = true
	if tx.err != nil {
		return tx.err
	}
	return err
}

// Attempts after which a transaction gets more than the same again.
const (
	lockAfter    = 3 // of a View over several groups
	barrierAfter = 2 // of an Update: it reads what is current, and not only what has refused it
	reserveAfter = 4 // of an Update: what it has used is kept for it
	claimAfter   = 3 // that were in its way, one after the other: the same
)

func (db *DB) run(ctx context.Context, mode mode, fn func(*Tx) error) error {
	if err := db.usable(); err != nil {
		return err
	}
	me := chain{db.now(), db.client}
	var kept []*group // that keep keys for it
	defer func() {
		for _, g := range kept { // nobody need wait for it
			db.task(func() { _, _ = db.propose(db.ctx, g, appendReserve(nil, me, db.now(), 0, nil)) }) // or it expires
		}
	}()
	var mine *turn
	leave := func() {
		if mine != nil {
			mine.leave()
			mine = nil
		}
	}
	defer leave()
	lost := "" // the key for which the last attempt has lost
	eager := mode == updating
	for n := 0; n < db.cfg.MaxAttempts; {
		if err := db.clock.Check(); err != nil {
			return fmt.Errorf("kv: this node's clock is not to be trusted: %w", err)
		}
		tx := &Tx{db: db, ctx: ctx, mode: mode, fresh: n >= barrierAfter || mode == viewing, eager: eager, chain: me, kept: &kept}
		err := fn(tx)
		tx.over = true
		eager = false
		again := tx.behind
		if err == nil && tx.err == nil && tx.competes() && mine == nil && len(kept) == 0 && !probe.Buggify("kv: nobody takes turns") {
			var waited bool
			var e error
			if mine, waited, e = db.turns.take(ctx, db.ex, tx.contended(lost)); e != nil {
				return fmt.Errorf("kv: nothing was committed: %w", e)
			}
			again = again || waited
		}
		if again {
			probe.Sometimes("kv: a transaction is run again when it is its turn", true)
			continue // what it has read may have changed meanwhile: now it reads what it will commit on
		}
		n++
		var v verdict
		switch {
		case tx.err != nil:
			v.err = tx.err
		case err == nil && (len(tx.writes) > 0 || tx.expects()):
			v = tx.commit()
			if v.committed {
				db.commits.Add(1)
				kept = slices.DeleteFunc(kept, tx.has) // given up with the vote
				return nil
			}
		case mode == viewing && (n > lockAfter || probe.Buggify("kv: a view locks at once")) && len(tx.parts) > 1:
			probe.Sometimes("kv: a view locks what it reads", true)
			if v = tx.commit(); v.committed {
				return err
			}
		default:
			if v.err = tx.validate(); v.err == nil {
				return err
			}
		}
		mismatch := v.err == nil && v.refused.refused == refusedMismatch
		if mismatch && len(tx.parts) > 1 {
			// What was expected may follow from what was read in another group, of which only that one knows whether it was true.
			v.err = tx.validate()
		}
		switch {
		case v.err != nil && !errors.Is(v.err, errRetry):
			if mode == updating {
				db.aborts.Add(1)
			}
			return v.err
		case v.err == nil && mismatch:
			db.aborts.Add(1)
			return &MismatchError{Key: []byte(v.refused.key)}
		}
		db.conflicts.Add(1)
		if lost = cmp.Or(v.refused.key, tx.lost); mine != nil && !mine.covers(tx.contended(lost)) {
			leave()
		}
		if e := tx.comeAgain(v, n); e != nil {
			return fmt.Errorf("kv: nothing was committed: %w", e)
		}
		if (n >= reserveAfter || probe.Buggify("kv: keys are kept at once")) && (mode == updating || len(tx.parts) > 1) {
			probe.Sometimes("kv: keys are kept for a transaction that has lost", true)
			for _, p := range tx.parts {
				if err := tx.reserve(p); err != nil {
					return certainly(ctx, err)
				}
			}
		}
	}
	db.aborts.Add(1)
	return fmt.Errorf("%w: after %d attempts, Config.MaxAttempts", ErrConflict, db.cfg.MaxAttempts)
}

// certainly is an error of what a transaction had done beside its commit, which was not asked for: it must not say that the outcome is
// unknown.
func certainly(ctx context.Context, err error) error {
	if !errors.Is(err, synod.ErrUnknownOutcome) {
		return fmt.Errorf("kv: nothing was committed: %w", err)
	}
	if end := ctx.Err(); end != nil {
		return fmt.Errorf("kv: nothing was committed: %w: its keys were to be kept: %v", end, err)
	}
	return fmt.Errorf("kv: nothing was committed: its keys were to be kept: %v", err)
}

// comeAgain waits until another attempt makes sense.
func (tx *Tx) comeAgain(v verdict, n int) error {
	if v.refused.refused == refusedBlocked {
		for _, p := range tx.parts {
			switch {
			case v.refused.by == (paxoscommit.ID{}) && int(p.group.number) == tx.db.cfg.Route([]byte(v.refused.key)): // kept for an older one
				if err := tx.db.waitForKey(tx.ctx, p.group, v.refused); err != nil {
					return err
				}
			case v.refused.by != (paxoscommit.ID{}) && slices.Contains(v.refused.byGroups, p.group.number):
				if err := tx.db.waitFor(tx.ctx, p.group, answer{by: v.refused.by, byGroups: v.refused.byGroups}); err != nil {
					return err
				}
			}
		}
	}
	if n == 1 || n < 5 && cmp.Or(v.refused.key, tx.lost) != "" { // whose turn it is goes on
		return tx.ctx.Err()
	}
	return tx.db.pause(tx.ctx, tx.db.random.upTo(min(time.Millisecond<<min(n, 10), 50*time.Millisecond)))
}

// competes reports whether the transaction writes, and can lose against others that do: one that has read nothing, in one group, is only put behind them.
func (tx *Tx) competes() bool {
	if len(tx.writes) == 0 {
		return false
	}
	if slices.ContainsFunc(tx.parts, func(p *txPart) bool { return p.ready }) {
		return true
	}
	number := tx.db.cfg.Route([]byte(tx.writes[0].key))
	return tx.expects() && slices.ContainsFunc(tx.parts, func(p *txPart) bool { return int(p.group.number) != number }) ||
		slices.ContainsFunc(tx.writes[1:], func(w write) bool { return tx.db.cfg.Route([]byte(w.key)) != number })
}

// contended returns the keys for which the transaction queues: those that it writes, and the one for which it has lost.
func (tx *Tx) contended(lost string) []string {
	keys := make([]string, 0, len(tx.writes)+1)
	for i := range tx.writes {
		keys = append(keys, tx.writes[i].key)
	}
	if lost != "" && !slices.Contains(keys, lost) {
		keys = append(keys, lost)
	}
	return keys
}

// maxReservedAtATime limits the keys of one group that are kept for a transaction.
const maxReservedAtATime = 1024

// reserveFor is how long keys are kept for a transaction that has lost too often.
const reserveFor = 2 * time.Second

// keeps notes that a group may keep keys for the transaction.
func (tx *Tx) keeps(groups ...*group) {
	for _, g := range groups {
		if !slices.Contains(*tx.kept, g) {
			*tx.kept = append(*tx.kept, g)
		}
	}
}

// reserve has what the transaction has used in a group kept for it.
func (tx *Tx) reserve(p *txPart) error {
	tx.keeps(p.group)
	keys := tx.db.used(p)
	for {
		a, err := tx.db.reserve(tx.ctx, tx.chain, p.group, keys)
		if err != nil || a.kind != answerBlocked {
			return err
		}
		if err := tx.db.waitForKey(tx.ctx, p.group, a); err != nil {
			return err
		}
	}
}

// used returns what a transaction has used in a group, and other keys, as far as they fit in a command.
func (db *DB) used(p *txPart, more ...string) (keys []string) {
	room := db.cfg.MaxCommandBytes - 100
	add := func(k string) bool {
		if room -= len(k) + 5; room < 0 || len(keys) == maxReservedAtATime {
			return false
		}
		keys = append(keys, k)
		return true
	}
	for _, k := range more {
		add(k)
	}
	p.eachKey(add)
	p.group.machine.read(func(s *state) { // of a range what is there now: what comes into it is rarer than what changes
		for _, r := range p.ranges {
			s.items.Ascend(r.from, func(k string, _ *item) bool {
				return r.has(k) && add(k)
			})
		}
	})
	return keys
}

// reserve has a group keep keys for a chain, once.
func (db *DB) reserve(ctx context.Context, c chain, g *group, keys []string) (answer, error) {
	if len(keys) == 0 {
		return answer{}, nil // it would give up what is kept
	}
	now := db.now()
	expires := uint64(hlc.FromTime(hlc.Timestamp(now).Time().Add(reserveFor)))
	a, _, err := db.insist(ctx, g, appendReserve(nil, c, now, expires, keys))
	return a, err
}

// has reports whether the transaction has something to do with a group.
func (tx *Tx) has(g *group) bool {
	return slices.ContainsFunc(tx.parts, func(p *txPart) bool { return p.group == g })
}

// fail remembers why the transaction can't go on.
func (tx *Tx) fail(err error) error {
	if tx.err == nil {
		tx.err = err
	}
	return tx.err
}

// usable checks that the transaction may be used, with a key.
func (tx *Tx) usable(key []byte, writing bool) error {
	switch {
	case tx.over:
		return fmt.Errorf("%w: the transaction is over: its function has returned", ErrInvalid)
	case tx.err != nil:
		return tx.err
	case writing && tx.mode != updating:
		return fmt.Errorf("%w: a view does not write", ErrInvalid)
	case len(key) > tx.db.cfg.MaxKeyBytes:
		return fmt.Errorf("kv: %w: a key of %d bytes, Config.MaxKeyBytes is %d", synod.ErrTooLarge, len(key), tx.db.cfg.MaxKeyBytes)
	case len(key) == 0:
		return fmt.Errorf("%w: an empty key", ErrInvalid)
	}
	return nil
}

// part returns the transaction's part in a group.
func (tx *Tx) part(number int) (*txPart, error) {
	if number < 0 || number >= len(tx.db.groups) {
		return nil, fmt.Errorf("%w: Config.Route, or RouteRange, names group %d, and Config.Groups has %d", ErrInvalid, number, len(tx.db.groups))
	}
	i, found := slices.BinarySearchFunc(tx.parts, number, func(p *txPart, n int) int { return cmp.Compare(int(p.group.number), n) })
	if !found {
		tx.parts = slices.Insert(tx.parts, i, &txPart{group: tx.db.groups[number]})
	}
	return tx.parts[i], nil
}

// ready makes a part one that can be read.
func (tx *Tx) ready(p *txPart) error {
	if p.ready {
		return nil
	}
	db, g := tx.db, p.group
	switch {
	case tx.mode == viewingAt:
		if err := db.reach(tx.ctx, g, tx.at); err != nil {
			return tx.fail(err)
		}
		p.readAt, p.ready = tx.at, true
		return nil
	case tx.fresh && (tx.mode == updating || tx.snapshot == nil):
		if err := db.barrier(tx.ctx, g); err != nil {
			return tx.fail(fmt.Errorf("kv: group %d can't be read: %w", g.number, err))
		}
		if tx.mode == viewing {
			tx.snapshot = g
		}
	default:
		// What this DB has committed is there, or will be in a moment; whatever else is missing shows when the group votes.
		seen := g.seen.Load()
		if _, err := g.machine.await(tx.ctx, db.ex, lastPause, func(s *state) bool { return s.clock >= seen }); err != nil {
			return tx.fail(err)
		}
	}
	g.machine.read(func(s *state) { p.readAt = s.clock })
	p.ready = true
	return nil
}

// reach makes a group one in which nothing is committed at or below a timestamp any more, and this node's replica current up to it.
func (db *DB) reach(ctx context.Context, g *group, timestamp uint64) error {
	reached := func(s *state) bool {
		return s.clock >= timestamp || probe.Bug("kv: a read as of a timestamp does not wait for it")
	}
	for {
		ok := false
		g.machine.read(func(s *state) { ok = reached(s) })
		if ok {
			return nil
		}
		if _, _, err := db.insist(ctx, g, appendAdvance(nil, timestamp)); err != nil {
			return fmt.Errorf("kv: group %d can't be read: %w", g.number, err)
		}
		if _, err := g.machine.await(ctx, db.ex, db.cfg.RecoverAfter, reached); err != nil {
			return fmt.Errorf("kv: group %d can't be read: %w", g.number, err)
		}
	}
}

// look reads from a part until nothing is in the way: see returns a prepared transaction that is.
func (tx *Tx) look(p *txPart, keys []string, see func(*state) *prepared) error {
	for waits := 1; ; waits++ {
		tooOld, by := false, answer{}
		p.group.machine.read(func(s *state) {
			if tooOld = p.readAt < s.collected; tooOld {
				return
			}
			if t := see(s); t != nil {
				by = answer{by: t.id, byGroups: t.groups}
			}
		})
		switch {
		case tooOld && tx.mode == viewingAt:
			return tx.fail(fmt.Errorf("%w: %v", ErrTooOld, hlc.Timestamp(p.readAt)))
		case tooOld:
			return tx.fail(errRetry)
		case by.by == (paxoscommit.ID{}):
			return nil
		}
		if waits%claimAfter == 0 && tx.mode == updating && !probe.Bug("kv: nothing is kept for who waits") {
			// Those of another DB go on one after the other there, and never let this one in.
			tx.keeps(p.group)
			tx.db.claim(tx.ctx, tx.chain, p, keys...)
		}
		if err := tx.db.waitFor(tx.ctx, p.group, by); err != nil {
			return tx.fail(err)
		}
		if tx.mode != viewingAt {
			p.group.machine.read(func(s *state) { p.refresh(s) })
		}
	}
}

// holds reports whether a transaction may still change what is read at a timestamp.
func (t *prepared) holds(readAt uint64) bool {
	return t != nil && t.timestamp <= readAt && !probe.Bug("kv: read past a prepared write")
}

// Get returns the value of a key, which belongs to the caller, or ErrNotFound.
func (tx *Tx) Get(key []byte) ([]byte, error) {
	if err := tx.usable(key, false); err != nil {
		return nil, err
	}
	k := string(key)
	if i, found := tx.written(k); found {
		if tx.writes[i].deleted {
			return nil, ErrNotFound
		}
		return bytes.Clone(tx.writes[i].value), nil
	}
	p, err := tx.part(tx.db.cfg.Route(key))
	if err != nil {
		return nil, err
	}
	if err := tx.ready(p); err != nil {
		return nil, err
	}
	var value []byte
	found, late, ahead := false, false, false
	if err := tx.look(p, []string{k}, func(s *state) *prepared {
		if tx.mode == updating {
			var by *prepared
			value, found, ahead, late, by = tx.see(p, s, k)
			return by
		}
		if l := s.locks[k]; l.writer.holds(p.readAt) {
			return l.writer
		}
		versions := s.find(k)
		value, found = valueAt(versions, p.readAt)
		late = tx.late(versions, p)
		return nil
	}); err != nil {
		return nil, err
	}
	if late {
		tx.lost = k
		return nil, tx.fail(errRetry)
	}
	if !ahead && p.readsMap(k) {
		p.prepare.reads = append(p.prepare.reads, k)
	}
	if !found {
		return nil, ErrNotFound
	}
	return append([]byte{}, value...), nil
}

// late reports whether a View that is not looked at a second time would miss what may have been committed before it began.
func (tx *Tx) late(versions []version, p *txPart) bool {
	return tx.mode == viewing && overtaken(versions, p.readAt) && !probe.Bug("kv: a view misses a commit above its timestamp")
}

// readsMap notes that a key was read, and reports whether this is new.
func (p *txPart) readsMap(k string) bool {
	const few = 16 // of which a map costs more than looking through them
	if p.reads == nil {
		if slices.Contains(p.prepare.reads, k) {
			return false
		}
		if len(p.prepare.reads) < few {
			return true
		}
		p.reads = make(map[string]struct{}, 2*few)
		for _, have := range p.prepare.reads {
			p.reads[have] = struct{}{}
		}
	}
	if _, there := p.reads[k]; there {
		return false
	}
	p.reads[k] = struct{}{}
	return true
}

// written returns where a key is, or belongs, among what is written.
func (tx *Tx) written(key string) (int, bool) {
	return slices.BinarySearchFunc(tx.writes, key, func(w write, k string) int { return cmp.Compare(w.key, k) })
}

// Put gives a key a value, when the transaction commits. Both are copied.
func (tx *Tx) Put(key, value []byte) error {
	if len(value) > tx.db.cfg.MaxValueBytes {
		return fmt.Errorf("kv: %w: a value of %d bytes, Config.MaxValueBytes is %d", synod.ErrTooLarge, len(value), tx.db.cfg.MaxValueBytes)
	}
	return tx.write(key, write{value: bytes.Clone(value)})
}

// Delete removes a key, when the transaction commits. It is no error if it is not there.
func (tx *Tx) Delete(key []byte) error { return tx.write(key, write{deleted: true}) }

func (tx *Tx) write(key []byte, w write) error {
	if err := tx.usable(key, true); err != nil {
		return err
	}
	w.key = string(key)
	i, found := tx.written(w.key)
	if found {
		tx.writes[i] = w
	} else {
		tx.writes = slices.Insert(tx.writes, i, w)
	}
	return nil
}

// Expect makes the transaction one that commits only if the key then has that value: what was written in it before does not count. It
// reads nothing, so that a compare-and-set costs one command; Update returns a *MismatchError if the key has another one. Both are copied.
func (tx *Tx) Expect(key, value []byte) error {
	return tx.expect(key, expectation{value: bytes.Clone(value)})
}

// ExpectAbsent is Expect of a key that has no value.
func (tx *Tx) ExpectAbsent(key []byte) error { return tx.expect(key, expectation{absent: true}) }

func (tx *Tx) expect(key []byte, e expectation) error {
	if err := tx.usable(key, true); err != nil {
		return err
	}
	if len(e.value) > tx.db.cfg.MaxValueBytes {
		return fmt.Errorf("kv: %w: a value of %d bytes is expected, Config.MaxValueBytes is %d", synod.ErrTooLarge, len(e.value), tx.db.cfg.MaxValueBytes)
	}
	p, err := tx.part(tx.db.cfg.Route(key))
	if err != nil {
		return err
	}
	e.key = string(key)
	p.expected = append(p.expected, e)
	return nil
}

func (tx *Tx) expects() bool {
	return slices.ContainsFunc(tx.parts, func(p *txPart) bool { return len(p.expected) > 0 })
}

// Scan returns at most limit keys from from on, below to, ascending, with their values, which belong to the caller; 0: all. to nil: to
// the end. A key that another transaction puts into what was scanned is a conflict, as if it had been read.
func (tx *Tx) Scan(from, to []byte, limit int) ([]Pair, error) {
	if err := tx.usable([]byte{0}, false); err != nil {
		return nil, err
	}
	if len(from) > tx.db.cfg.MaxKeyBytes || len(to) > tx.db.cfg.MaxKeyBytes {
		return nil, fmt.Errorf("kv: %w: a bound of more than Config.MaxKeyBytes, which is %d", synod.ErrTooLarge, tx.db.cfg.MaxKeyBytes)
	}
	r := keyRange{string(from), string(to)}
	if limit < 0 || to != nil && (r.to == "" || r.to <= r.from) {
		if limit < 0 {
			return nil, fmt.Errorf("%w: limit %d", ErrInvalid, limit)
		}
		return nil, nil
	}
	var numbers []int
	if tx.db.cfg.RouteRange != nil {
		numbers = tx.db.cfg.RouteRange(from, to)
	} else {
		for i := range tx.db.groups {
			numbers = append(numbers, i)
		}
	}
	var parts []*txPart
	for _, n := range numbers {
		p, err := tx.part(n)
		if err != nil {
			return nil, err
		}
		if slices.Contains(parts, p) {
			continue
		}
		if err := tx.ready(p); err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	var pairs []Pair
	own := tx.writes[sortedFrom(tx.writes, r.from):]
	deleted := 0
	for i := range own {
		if r.has(own[i].key) && own[i].deleted {
			deleted++
		}
	}
	for _, p := range parts {
		list, err := tx.scan(p, r, limit+deleted, limit)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, list...)
	}
	for _, w := range own {
		if !r.has(w.key) {
			break
		}
		pairs = slices.DeleteFunc(pairs, func(q Pair) bool { return string(q.Key) == w.key })
		if !w.deleted {
			pairs = append(pairs, Pair{[]byte(w.key), bytes.Clone(w.value)})
		}
	}
	slices.SortFunc(pairs, func(a, b Pair) int { return bytes.Compare(a.Key, b.Key) })
	if limit > 0 && len(pairs) >= limit {
		pairs = pairs[:limit:limit]
		r.to = string(pairs[limit-1].Key) + "\x00"
	}
	for _, p := range parts {
		p.ranges = append(p.ranges, r)
	}
	return pairs, nil
}

func sortedFrom(writes []write, from string) int {
	i, _ := slices.BinarySearchFunc(writes, from, func(w write, k string) int { return cmp.Compare(w.key, k) })
	return i
}

// scan reads a range of a group: at most most pairs, if limit is above 0.
func (tx *Tx) scan(p *txPart, r keyRange, most, limit int) (list []Pair, err error) {
	late := false
	err = tx.look(p, nil, func(s *state) *prepared {
		list, late = list[:0], false
		bound := r
		if tx.mode == updating {
			var by *prepared
			if late, by = p.seeRange(s, r); late || by != nil {
				return by
			}
		}
		s.items.Ascend(r.from, func(k string, it *item) bool {
			if !r.has(k) || limit > 0 && len(list) >= most {
				return false
			}
			if value, found := valueAt(it.versions, p.readAt); found {
				list = append(list, Pair{[]byte(k), append([]byte{}, value...)})
			}
			late = late || tx.late(it.versions, p)
			return true
		})
		if limit > 0 && len(list) >= most {
			bound.to = string(list[len(list)-1].Key) + "\x00"
		}
		return s.holderIn(bound, p.readAt)
	})
	if err == nil && late {
		err = tx.fail(errRetry)
	}
	return list, err
}

// holderIn returns a transaction that may still change what is read in a range at a timestamp: that of the first key.
func (s *state) holderIn(r keyRange, readAt uint64) (by *prepared) {
	first := ""
	for k, l := range s.locks { //synod:ordered the first key is the same in any order
		if r.has(k) && l.writer.holds(readAt) && (by == nil || k < first) {
			first, by = k, l.writer
		}
	}
	return by
}

// commit sends each group its part.
func (tx *Tx) commit() verdict {
	for _, w := range tx.writes {
		p, err := tx.part(tx.db.cfg.Route([]byte(w.key)))
		if err != nil {
			return verdict{err: err}
		}
		p.writes = append(p.writes, w)
	}
	parts, groups := make([]*prepare, len(tx.parts)), make([]*group, len(tx.parts))
	for i, p := range tx.parts {
		p.prepare.readAt = p.readAt
		p.all = p.prepare.reads
		p.mergeReads()
		parts[i], groups[i] = &p.prepare, p.group
		if len(p.exact) > 0 && probe.Buggify("kv: what was read ahead is written over meanwhile") {
			if err := tx.db.pause(tx.ctx, lastPause); err != nil {
				return verdict{err: fmt.Errorf("kv: nothing was committed: %w", err)}
			}
		}
	}
	v := tx.db.commit(tx, parts, groups)
	tx.keeps(v.kept...)
	return v
}

// mergeReads says of keys that were read and are written, too, only once which they are.
func (p *txPart) mergeReads() {
	rest := p.prepare.reads[:0:0]
	for _, k := range p.prepare.reads {
		if i := sortedFrom(p.writes, k); i < len(p.writes) && p.writes[i].key == k {
			p.writes[i].read = true
		} else {
			rest = append(rest, k)
		}
	}
	p.prepare.reads = rest
}

// validate makes sure that all that was read was true at one moment: after it, replicas have all that was committed before, and
// nothing that was read has changed. errRetry: something has.
func (tx *Tx) validate() error {
	var parts []*txPart // in which something was read
	for _, p := range tx.parts {
		if p.ready {
			parts = append(parts, p)
		}
	}
	switch {
	case len(parts) == 1 && tx.snapshot == parts[0].group:
		return nil // it was current before it was read, and all of it is of one timestamp
	case probe.Bug("kv: views are not validated"):
		return nil
	}
	// What was read ahead of its group is there then.
	for _, p := range parts {
		for _, x := range p.told {
			if err := tx.db.waitFor(tx.ctx, p.group, answer{by: x.id, byGroups: x.groups}); err != nil {
				return err
			}
		}
	}
	errs := make([]error, len(parts))
	tx.db.together(len(parts), func(i int) {
		if err := tx.db.barrier(tx.ctx, parts[i].group); err != nil {
			errs[i] = fmt.Errorf("kv: group %d can't be read: %w", parts[i].group.number, err)
		}
	})
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, p := range parts {
		all := p.prepare.reads
		if p.all != nil {
			all = p.all // a group has refused the commit
		}
		read, changed := prepare{readAt: p.readAt, reads: all, exact: p.exact, ranges: p.ranges}, false
		if err := tx.look(p, nil, func(s *state) *prepared {
			if _, changed = s.changed(&read); changed {
				return nil
			}
			_, by := s.blocker(&read)
			return by
		}); err != nil {
			return err
		}
		if changed {
			return errRetry
		}
	}
	return nil
}
