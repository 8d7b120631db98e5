package kv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/paxoscommit"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/txn/hlc"
)

// attempt is a transaction that asks its groups for their votes.
type attempt struct {
	db      *DB
	chain   chain
	session *session
	id      paxoscommit.ID
	groups  []*group
	numbers []uint32
	cancel  context.CancelFunc

	mu      sync.Mutex
	c       *paxoscommit.Coordinator
	running int
	refused answer // why a group has voted no
	maybe   []bool // by group: it may have voted without our knowing
	expired bool
	kept    []*group // that were asked to keep keys for it
	errs    []error  // by group: why it was not asked any more
	over    bool     // it does not count any more among the transactions of the DB
	done    *executor.Event
}

// verdict is what became of an attempt.
type verdict struct {
	committed bool
	timestamp uint64
	refused   answer // why not
	expired   bool
	kept      []*group // that may keep keys for it
	err       error    // or it is this: the attempt had no effect, or the error wraps synod.ErrUnknownOutcome
}

// commit asks for the votes of the groups that have a part, ascending, and returns as soon as the outcome is certain.
func (db *DB) commit(tx *Tx, parts []*prepare, groups []*group) verdict {
	ctx := tx.ctx
	numbers := make([]uint32, len(groups))
	for i, g := range groups {
		numbers[i] = g.number
	}
	s, id, floor, err := db.begin(numbers)
	if err != nil {
		return verdict{err: err}
	}
	for i, p := range parts {
		p.id, p.floor, p.age, p.now, p.groups = id, floor, tx.chain.age, db.now(), numbers
		if n := max(len(p.reads), len(p.exact), len(p.ranges), len(p.expected), len(p.writes)); n > maxItems {
			db.end(s, id)
			return verdict{err: fmt.Errorf("kv: %w: the transaction reads or writes %d times in group %d, at most %d", synod.ErrTooLarge, n, numbers[i], maxItems)}
		}
		if p.size() <= db.cfg.MaxCommandBytes {
			continue // which is at least what it has
		}
		n := len(appendPrepare(nil, p))
		if len(p.exact)+len(p.told) > 0 && n > db.cfg.MaxCommandBytes {
			// What was read ahead of the group does not fit in: it is run again when the group knows it.
			db.end(s, id)
			for _, x := range p.told {
				if err := db.waitFor(ctx, groups[i], answer{by: x.id, byGroups: x.groups}); err != nil {
					return verdict{err: fmt.Errorf("kv: nothing was committed: %w", err)}
				}
			}
			return verdict{err: errRetry}
		}
		if n > db.cfg.MaxCommandBytes {
			db.end(s, id)
			return verdict{err: fmt.Errorf("kv: %w: the transaction's part in group %d has %d bytes, Config.MaxCommandBytes is %d", synod.ErrTooLarge, numbers[i], n, db.cfg.MaxCommandBytes)}
		}
	}
	if len(groups) > 1 {
		db.underway.begin(id)
	}
	a := &attempt{db: db, chain: tx.chain, session: s, id: id, groups: groups, numbers: numbers, c: paxoscommit.NewCoordinator(id, numbers), maybe: make([]bool, len(groups)), errs: make([]error, len(groups)), done: executor.NewEvent()}
	if len(groups) == 1 {
		a.cancel, a.running = func() {}, 1
		a.ask(ctx, 0, *parts[0])
		return a.verdict()
	}
	var voting context.Context
	voting, a.cancel = context.WithCancel(executor.With(ctx, executor.From(ctx, db.ex)))
	defer a.cancel()
	a.running = len(groups)
	for i := range len(groups) - 1 {
		p := *parts[i] // whoever goes on before all have answered may read as of later
		db.ex.Go(func() { a.ask(voting, i, p) })
	}
	last := len(groups) - 1
	a.ask(voting, last, *parts[last])
	_ = db.ex.Wait(context.WithoutCancel(ctx), a.done)
	return a.verdict()
}

// ask asks one group until it has voted, or the outcome is certain.
func (a *attempt) ask(ctx context.Context, i int, p prepare) {
	g := a.groups[i]
	var failed error
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.errs[i] = failed
		a.running--
		if a.running == 0 {
			a.done.Set()
		}
	}()
	for waits := 1; ; waits++ {
		a.mu.Lock()
		step := a.c.Step(g.number)
		a.mu.Unlock()
		if step != paxoscommit.Prepare {
			return
		}
		reply, maybe, err := a.db.insistTelling(ctx, g, &p)
		a.mu.Lock()
		a.maybe[i] = a.maybe[i] || maybe
		maybe = a.maybe[i]
		a.mu.Unlock()
		switch {
		case err != nil:
			failed = err
			return
		case reply.kind == answerVote:
			a.voted(i, reply, paxoscommit.Voted)
			return
		case reply.kind == answerBlocked:
			if waits%claimAfter == 0 {
				a.mu.Lock()
				a.kept = append(a.kept, g)
				a.mu.Unlock()
				a.db.claim(ctx, a.chain, &txPart{group: g, prepare: p})
			}
			if err := a.db.waitFor(ctx, g, reply); err != nil {
				failed = err
				return
			}
			if reply.by == (paxoscommit.ID{}) { // reserved, until a time: that is to pass
				p.now = a.db.now()
			}
		case reply.kind == answerExpired && (!maybe || probe.Bug("kv: a session that was forgotten has not voted")):
			a.voted(i, reply, paxoscommit.Expired)
			return
		default:
			// What an earlier attempt has done is not known any more.
			failed = fmt.Errorf("kv: %w: group %d has forgotten the session", synod.ErrUnknownOutcome, g.number)
			a.mu.Lock()
			a.maybe[i] = true
			a.mu.Unlock()
			return
		}
	}
}

// claim has a group keep a transaction's keys for it, which has met one after the other that has come after it. If that does not succeed, or they are kept for an
// older one, it goes on as it was.
func (db *DB) claim(ctx context.Context, c chain, p *txPart, more ...string) {
	probe.Sometimes("kv: keys are kept for a transaction that has waited", true)
	_, _ = db.reserve(ctx, c, p.group, db.used(p, more...))
}

func (a *attempt) voted(i int, reply answer, standing paxoscommit.Standing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.maybe[i] = false
	if reply.record.Vote == paxoscommit.Yes {
		// Whoever reads here next waits for this vote, and so for its locks, but not for the outcome, unless he needs what is locked.
		raise(&a.groups[i].seen, reply.record.Timestamp)
	}
	a.c.Voted(a.numbers[i], reply.record, standing)
	a.expired = a.expired || standing == paxoscommit.Expired
	if reply.refused != refusedNot {
		raise(&a.groups[i].seen, reply.clock) // or the next attempt might not see why
	}
	if reply.refused != refusedNot && (a.refused.refused == refusedNot || reply.refused == refusedMismatch) {
		a.refused = reply
	}
	if outcome, _ := a.c.Outcome(); outcome != paxoscommit.Unknown {
		a.cancel() // whoever still asks need not
		a.done.Set()
	}
}

// verdict says what became of the attempt, and sees to it that all groups learn that.
func (a *attempt) verdict() verdict {
	a.mu.Lock()
	outcome, timestamp := a.c.Outcome()
	v := verdict{committed: outcome == paxoscommit.Committed, timestamp: timestamp, refused: a.refused, expired: a.expired, kept: slices.Clone(a.kept)}
	if outcome == paxoscommit.Unknown {
		// A group that certainly has not voted will not be asked again: then it is aborted, though no group has said so yet.
		voted := func(g *group) bool { return a.c.Step(g.number) == paxoscommit.Nothing }
		var never *group
		for i, g := range a.groups {
			switch {
			case voted(g):
			case !a.maybe[i]:
				v.err = fmt.Errorf("kv: nothing was committed: %w", a.errs[i])
				never = g
			case v.err == nil:
				v.err = fmt.Errorf("kv: %w: %w", synod.ErrUnknownOutcome, a.errs[i])
			}
		}
		if errors.Is(v.err, synod.ErrUnknownOutcome) {
			probe.Sometimes("kv: the outcome of a commit is not known to its caller", true)
			if probe.Bug("kv: an unknown outcome is taken for none") {
				v.err = errors.New("kv: nothing was committed")
			}
		}
		if never != nil {
			a.c.Voted(never.number, paxoscommit.Record{Vote: paxoscommit.No}, paxoscommit.Voted)
			outcome = paxoscommit.Aborted
		} else {
			a.c.GiveUp()
		}
	}
	alone := len(a.groups) == 1
	a.mu.Unlock()
	if !alone && outcome != paxoscommit.Unknown {
		a.db.underway.decide(resolution{a.id, outcome, timestamp, a.numbers})
	}
	switch {
	case outcome == paxoscommit.Committed:
		raise(&a.db.answered, timestamp)
		if alone {
			a.end(a.db.end)
			return v
		}
	case outcome == paxoscommit.Aborted && alone:
		a.end(a.db.end)
		if v.expired {
			a.db.expired(a.session)
		}
		return v
	case outcome == paxoscommit.Unknown:
		a.db.task(func() { a.db.giveUp(a) })
		return v
	}
	if v.expired {
		a.db.expired(a.session)
	}
	a.tell(outcome, timestamp)
	return v
}

// raise makes a timestamp at least as high as another.
func raise(what *atomic.Uint64, timestamp uint64) {
	for {
		seen := what.Load()
		if seen >= timestamp || what.CompareAndSwap(seen, timestamp) {
			return
		}
	}
}

// tell has all groups told that do not know the outcome.
func (a *attempt) tell(outcome paxoscommit.Outcome, timestamp uint64) {
	a.mu.Lock()
	var list []*group
	for _, g := range a.groups {
		if a.c.Step(g.number) == paxoscommit.Resolve {
			list = append(list, g)
		}
	}
	a.mu.Unlock()
	if len(list) == 0 {
		a.end(a.db.end)
	}
	for _, g := range list {
		a.db.enqueue(g, told{resolution{a.id, outcome, timestamp, a.numbers}, a})
	}
}

// end has the DB count the attempt no more, once.
func (a *attempt) end(how func(*session, paxoscommit.ID)) {
	a.mu.Lock()
	first := !a.over
	a.over = true
	a.mu.Unlock()
	if first {
		if len(a.groups) > 1 {
			a.db.underway.end(a.id)
		}
		how(a.session, a.id)
	}
}

// told notes that a group knows the outcome.
func (a *attempt) told(g *group) {
	a.mu.Lock()
	a.c.Resolved(g.number)
	over := a.c.Done()
	a.mu.Unlock()
	if over {
		a.end(a.db.end)
	}
}

// giveUp ends an attempt whose caller has not waited: whatever was proposed may still come.
func (db *DB) giveUp(a *attempt) {
	db.together(len(a.groups), func(i int) {
		g := a.groups[i]
		a.mu.Lock()
		step := a.c.Step(g.number)
		a.mu.Unlock()
		if step != paxoscommit.Close {
			return
		}
		reply, _, err := db.insist(db.ctx, g, appendClose(nil, a.id, a.numbers, db.now()))
		if err != nil {
			return
		}
		a.mu.Lock()
		a.c.Voted(g.number, reply.record, standingOf(reply))
		a.mu.Unlock()
	})
	a.mu.Lock()
	for i, g := range a.groups {
		if a.c.Step(g.number) == paxoscommit.Close && !a.maybe[i] {
			a.c.Voted(g.number, paxoscommit.Record{}, paxoscommit.Expired) // it can't be closed, and will not be asked either
		}
	}
	outcome, timestamp := a.c.Outcome()
	a.mu.Unlock()
	switch {
	case outcome == paxoscommit.Unknown: // a group is closed, or the DB
		a.end(db.leave)
	case len(a.groups) == 1:
		a.end(db.end)
	default:
		a.tell(outcome, timestamp)
	}
}

func standingOf(a answer) paxoscommit.Standing {
	switch a.kind {
	case answerVote:
		return paxoscommit.Voted
	case answerOver:
		return paxoscommit.Over
	}
	return paxoscommit.Expired
}

// waitFor waits until what blocks a transaction in a group is out of the way; if that takes too long it is ended.
func (db *DB) waitFor(ctx context.Context, g *group, by answer) error {
	probe.Sometimes("kv: a transaction waits for another", true)
	db.flush(g)                      // it may be this DB's
	if by.by == (paxoscommit.ID{}) { // only reserved
		return db.waitForKey(ctx, g, by)
	}
	patience := db.cfg.RecoverAfter
	if probe.Buggify("kv: what is in the way is ended at once") {
		patience = 0
	}
	ok, err := g.machine.await(ctx, db.ex, patience, func(s *state) bool { return s.clock >= by.clock && s.prepared[by.by] == nil })
	if err == nil && !ok {
		db.recover(by.by, by.byGroups)
		err = db.pause(ctx, firstPause)
	}
	return err
}

// waitForKey waits until a key is not kept any more for whoever was in the way, but not for long: he may have gone, and what is kept
// ends at a time that only commands bring about.
func (db *DB) waitForKey(ctx context.Context, g *group, by answer) error {
	_, err := g.machine.await(ctx, db.ex, firstPause+db.random.upTo(firstPause), func(s *state) bool {
		_, kept := s.reserved[by.key]
		return s.clock >= by.clock && !kept
	})
	return err
}

// recover ends a transaction that somebody has left behind. It returns at once.
func (db *DB) recover(id paxoscommit.ID, groups []uint32) {
	for _, n := range groups {
		if int(n) >= len(db.groups) {
			db.cfg.Logger.Error("kv: a transaction over groups that Config.Groups does not have is in the way", "id", id, "group", n)
			return
		}
	}
	db.mu.Lock()
	if db.closed || db.recoveries[id] || probe.Bug("kv: nobody ends what is left behind") {
		db.mu.Unlock()
		return
	}
	db.recoveries[id] = true
	db.mu.Unlock()
	db.cfg.Logger.Info("kv: ending a transaction that was left behind", "id", id)
	db.task(func() {
		defer func() {
			db.mu.Lock()
			delete(db.recoveries, id)
			db.mu.Unlock()
		}()
		if db.drive(id, groups) {
			db.recovered.Add(1)
			probe.Sometimes("kv: a transaction is ended by another client", true)
		}
	})
}

// drive drives a recoverer to its end.
func (db *DB) drive(id paxoscommit.ID, groups []uint32) bool {
	c := paxoscommit.NewRecoverer(id, groups)
	var mu sync.Mutex
	for range 3 { // close, resolve, finish
		failed := false
		db.together(len(groups), func(i int) {
			g := db.groups[groups[i]]
			mu.Lock()
			step := c.Step(g.number)
			outcome, timestamp := c.Outcome()
			mu.Unlock()
			var command []byte
			switch step {
			case paxoscommit.Close:
				command = appendClose(nil, id, groups, db.now())
			case paxoscommit.Resolve:
				command = appendResolve(nil, paxoscommit.Session{}, 0, db.now(), []resolution{{id, outcome, timestamp, groups}})
			case paxoscommit.Finish:
				command = appendFinish(nil, id)
			default:
				return
			}
			reply, _, err := db.insist(db.ctx, g, command)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				failed = true
			case step == paxoscommit.Close:
				c.Voted(g.number, reply.record, standingOf(reply))
			case step == paxoscommit.Resolve:
				c.Resolved(g.number)
			case step == paxoscommit.Finish:
				c.Finished(g.number)
			}
		})
		if failed {
			return false
		}
	}
	return c.Done()
}

// mine reports whether a transaction is under way here.
func (db *DB) mine(id paxoscommit.ID) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	return slices.ContainsFunc(db.sessions[:], func(s *session) bool {
		return s != nil && id.Session == s.id && id.Counter >= s.floor && !s.over[id.Counter] && !s.left[id.Counter]
	})
}

// sweep ends what clients have left behind, and collects what nobody needs any more, until the DB is closed.
func (db *DB) sweep() {
	met := make(map[paxoscommit.ID]hlc.Timestamp)
	for db.pause(db.ctx, db.cfg.RecoverAfter/2+db.random.upTo(db.cfg.RecoverAfter)) == nil {
		now := db.clock.Now()
		still := make(map[paxoscommit.ID]hlc.Timestamp)
		for _, g := range db.groups {
			db.sweepGroup(g, now, met, still)
		}
		met = still
	}
}

// maxUnfinished is how many transactions of a group that hold nothing any more, and are only remembered, a sweep ends.
const maxUnfinished = 256

// collectsInARow limits the commands with which a DB collects a group's versions at a time: together more than is written meanwhile.
const collectsInARow = 256

func (db *DB) sweepGroup(g *group, now hlc.Timestamp, met, still map[paxoscommit.ID]hlc.Timestamp) {
	type found struct {
		id     paxoscommit.ID
		groups []uint32
	}
	var late []found
	versions, sessions := db.before(db.cfg.Retention), db.before(db.cfg.SessionTTL)
	collect := false
	g.machine.read(func(s *state) {
		collect = len(s.garbage) > 0 && s.garbage[0].timestamp <= versions || s.registers.Idle(sessions) || len(s.lateChains()) > 0
		for id, t := range s.prepared { //synod:ordered sorted below
			if db.mine(id) {
				continue
			}
			first, known := met[id]
			if !known {
				first = now
			}
			still[id] = first
			if age(uint64(now), uint64(first)) >= db.cfg.RecoverAfter {
				late = append(late, found{id, t.groups})
			}
		}
		unfinished := s.registers.Unfinished(sessions)
		for _, id := range unfinished[:min(len(unfinished), maxUnfinished)] {
			record, _ := s.registers.Look(id)
			late = append(late, found{id, record.Groups})
		}
	})
	slices.SortFunc(late, func(a, b found) int { return a.id.Compare(b.id) })
	for _, f := range late {
		db.recover(f.id, f.groups)
	}
	if (collect || probe.Buggify("kv: there is nothing to collect")) && g.collecting.CompareAndSwap(false, true) { // beside: a group that takes no commands must not stop the others
		db.task(func() {
			defer g.collecting.Store(false)
			for n := 0; collect && n < collectsInARow; n++ {
				if _, _, err := db.insist(db.ctx, g, appendCollect(nil, versions, sessions)); err != nil {
					return // or somebody else does
				}
				g.machine.read(func(s *state) { collect = len(s.garbage) > 0 && s.garbage[0].timestamp <= versions })
			}
		})
	}
}
