package kv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/paxoscommit"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/txn/hlc"
)

// DB is a client of groups: it runs transactions over them. There may be one on each node, and several on one; none of them
// matters to the others. All methods may be called concurrently.
type DB struct {
	cfg    Config
	ex     executor.Executor
	ctx    context.Context
	cancel context.CancelFunc
	clock  *hlc.Clock
	own    bool // the clock is
	groups []*group
	random *lockedRandom
	turns  turns
	client uint64 // the random half of all its sessions: a transaction that is tried again stays what it is

	mu         sync.Mutex
	sessions   [sessionsOfDB]*session // by the groups that take part
	open       int                    // transactions whose outcome some group does not know
	tasks      int
	closed     bool
	drained    *executor.Event // Close waits for open to be 0
	idle       *executor.Event // and then for tasks to be
	recoveries map[paxoscommit.ID]bool

	underway underway

	commits, conflicts, aborts, recovered atomic.Uint64
	answered                              atomic.Uint64 // the highest timestamp of a commit
}

// group is a group as the DB sees it.
type group struct {
	number  uint32
	log     synod.Log
	machine *Machine
	seen    atomic.Uint64 // a time of the group's clock that whoever reads here next waits for: of a vote for a transaction of this DB, or of why one was refused

	collecting atomic.Bool // a command that collects is under way

	mu       sync.Mutex
	queue    []told // that the group is to be told
	spare    []told // an empty one, or nil
	tellers  int
	due      time.Time      // when the queue is to be told, if no command takes it along before
	timed    time.Time      // for when teller is set; zero: it is not
	teller   executor.Timer // or nil
	attached []*attachment  // about in the order in which they are due
	late     executor.Timer // set while there are some; or nil
	stopped  bool           // the timers are, for good
}

// session numbers the transactions of a DB.
type session struct {
	id    paxoscommit.Session
	next  uint64
	floor uint64
	over  map[uint64]bool // at or above floor
	left  map[uint64]bool // what others are to end
}

// maxAboveFloor is how many transactions of a session may be over, or left to others, above one that is not over. Then the DB opens another
// session: the floor of that one may never move.
const maxAboveFloor = 1 << 16

// lockedRandom is a random source that may be used concurrently.
type lockedRandom struct {
	mu sync.Mutex
	r  *rand.Rand
}

// upTo returns a duration below d.
func (l *lockedRandom) upTo(d time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Duration(l.r.Int64N(int64(d) + 1))
}

// Open returns a DB. ctx carries the executor; it does not bound the DB's life. It waits for nobody: groups may be without a leader.
// The error is a *synod.ConfigError.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	ex := executor.From(ctx, executor.Real())
	db := &DB{cfg: cfg, ex: ex, clock: cfg.Clock, recoveries: make(map[paxoscommit.ID]bool), turns: turns{limit: cfg.RecoverAfter}, client: ex.Uint64()}
	db.random = &lockedRandom{r: rand.New(rand.NewPCG(ex.Uint64(), ex.Uint64()))}
	for i, g := range cfg.Groups {
		db.groups = append(db.groups, &group{number: uint32(i), log: g.Log, machine: g.Machine})
	}
	db.ctx, db.cancel = context.WithCancel(executor.With(context.WithoutCancel(ctx), ex))
	if db.clock == nil {
		clock, err := hlc.New(db.ctx, hlc.Config{Node: 1, Logger: cfg.Logger})
		if err != nil {
			db.cancel()
			return nil, err
		}
		db.clock, db.own = clock, true
	}
	db.task(db.sweep)
	return db, nil
}

// sessionsOfDB is how many sessions a DB has at most. What is known of a transaction may be forgotten when all before it in its session are
// over. So those over other groups have another session: else one that has no outcome, as its group has lost its majority, would have the
// groups that are there remember all others.
const sessionsOfDB = 64

// sessionOf returns where the session is for transactions over some groups. Few of them share it with others.
func sessionOf(groups []uint32) int {
	h := uint64(14695981039346656037) // FNV-1a
	for _, g := range groups {
		h = (h ^ uint64(g)) * 1099511628211
	}
	return int((h ^ h>>32) % sessionsOfDB)
}

func (db *DB) newSession() *session {
	return &session{id: paxoscommit.Session{Opened: db.now(), Random: db.client}, next: 1, floor: 1, over: make(map[uint64]bool), left: make(map[uint64]bool)}
}

func (db *DB) now() uint64 { return uint64(db.clock.Now()) }

// Now returns a timestamp above that of every commit that this DB has answered, for ViewAt.
func (db *DB) Now() hlc.Timestamp {
	if probe.Bug("kv: now is what the clock says") {
		return db.clock.Now()
	}
	return max(db.clock.Now(), hlc.Timestamp(db.answered.Load()).Next())
}

// usable returns synod.ErrClosed after Close.
func (db *DB) usable() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return fmt.Errorf("kv: %w", synod.ErrClosed)
	}
	return nil
}

// begin gives a transaction its ID, and says below which ones all are over.
func (db *DB) begin(groups []uint32) (s *session, id paxoscommit.ID, floor uint64, err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	switch {
	case db.closed:
		return nil, id, 0, fmt.Errorf("kv: %w", synod.ErrClosed)
	case db.open >= db.cfg.MaxTransactions:
		return nil, id, 0, fmt.Errorf("kv: %w: %d transactions are open, Config.MaxTransactions", synod.ErrOverloaded, db.open)
	}
	db.open++
	at := sessionOf(groups)
	if s = db.sessions[at]; s == nil || len(s.over)+len(s.left) >= maxAboveFloor {
		s = db.newSession()
		db.sessions[at] = s
	}
	id = paxoscommit.ID{Session: s.id, Counter: s.next}
	s.next++
	return s, id, s.floor, nil
}

// leave notes that a transaction is left to whoever meets it: a group can't be reached from here any more.
func (db *DB) leave(s *session, id paxoscommit.ID) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.open--
	s.left[id.Counter] = true
	db.wakeClose()
}

// end notes that all groups know a transaction's outcome.
func (db *DB) end(s *session, id paxoscommit.ID) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.open--
	s.over[id.Counter] = true
	for s.over[s.floor] {
		delete(s.over, s.floor)
		s.floor++
	}
	if probe.Bug("kv: the floor passes what is open") {
		s.floor = s.next
	}
	db.wakeClose()
}

func (db *DB) wakeClose() {
	if db.drained != nil && db.open == 0 {
		db.drained.Set()
	}
	if db.idle != nil && db.tasks == 0 {
		db.idle.Set()
	}
}

// expired replaces a session that a group has forgotten.
func (db *DB) expired(s *session) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if at := slices.Index(db.sessions[:], s); at >= 0 {
		probe.Sometimes("kv: a client's session has expired", true)
		db.sessions[at] = nil // the next transaction makes one
	}
}

// floorOf returns below which counter all of a session's transactions are over.
func (db *DB) floorOf(s *session) uint64 {
	db.mu.Lock()
	defer db.mu.Unlock()
	return s.floor
}

// task runs fn beside, until Close waits for it.
func (db *DB) task(fn func()) {
	db.mu.Lock()
	db.tasks++
	db.mu.Unlock()
	db.ex.Go(func() {
		defer func() {
			db.mu.Lock()
			db.tasks--
			db.wakeClose()
			db.mu.Unlock()
		}()
		fn()
	})
}

// Close ends the DB: what it has committed is told to the groups before it returns, if they answer within Config.RecoverAfter; what
// remains is ended by whoever meets it. Calls that are under way end when their contexts do. Calls after the first return nil.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return nil
	}
	db.closed, db.drained = true, executor.NewEvent()
	drained := db.drained
	db.wakeClose()
	db.mu.Unlock()
	for _, g := range db.groups {
		db.flush(g)
	}
	timer := db.ex.AfterFunc(db.cfg.RecoverAfter, drained.Set)
	_ = db.ex.Wait(context.WithoutCancel(db.ctx), drained)
	timer.Stop()
	db.cancel()
	db.mu.Lock()
	db.idle = executor.NewEvent()
	idle := db.idle
	db.wakeClose()
	db.mu.Unlock()
	_ = db.ex.Wait(context.WithoutCancel(db.ctx), idle)
	for _, g := range db.groups {
		g.stop()
	}
	if db.own {
		return db.clock.Close()
	}
	return nil
}

// pause waits for d, or until ctx ends.
func (db *DB) pause(ctx context.Context, d time.Duration) error {
	e := executor.NewEvent()
	timer := db.ex.AfterFunc(d, e.Set)
	defer timer.Stop()
	return executor.From(ctx, db.ex).Wait(ctx, e)
}

// Pauses between attempts to reach a group.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = 200 * time.Millisecond
)

// insist proposes a command, which may be applied more than once, until it has an answer. maybe: it may have been applied, or may
// yet, whatever the error.
func (db *DB) insist(ctx context.Context, g *group, command []byte) (a answer, maybe bool, err error) {
	for wait := firstPause; ; wait = min(2*wait, lastPause) {
		var result []byte
		result, err = db.propose(ctx, g, command)
		if err == nil && probe.Buggify("kv: an answer is lost") {
			err = fmt.Errorf("kv: %w: a simulation has lost it", synod.ErrUnknownOutcome)
		}
		if err == nil {
			a, err = readAnswer(result)
			if err != nil || a.kind == answerMalformed {
				return a, true, fmt.Errorf("kv: group %d does not understand a command: has another version made it, or is its state machine no kv.Machine? %w", g.number, ErrInvalid)
			}
			_ = db.clock.Update(hlc.Timestamp(a.clock)) // too far ahead: the clock says so itself, and goes on
			if a.kind != answerOverfull {
				return a, maybe, nil
			}
			err = fmt.Errorf("kv: group %d: %w: too many clients or transactions", g.number, synod.ErrOverloaded)
		}
		maybe = maybe || errors.Is(err, synod.ErrUnknownOutcome)
		var leader *synod.NotLeaderError
		switch {
		case final(err), errors.Is(err, synod.ErrTooLarge):
			return a, maybe, err
		case errors.As(err, &leader) && leader.Leader != 0 && !maybe:
			return a, false, fmt.Errorf("kv: group %d is led elsewhere: let Group.Log be a txn.Forwarder: %w", g.number, err)
		}
		if e := db.pause(ctx, wait/2+db.random.upTo(wait/2)); e != nil {
			return a, maybe, because(e, err)
		}
	}
}

// propose proposes a command once. What the DB does by itself has nobody who gives up waiting for a lost answer, so that it does.
func (db *DB) propose(ctx context.Context, g *group, command []byte) ([]byte, error) {
	if ctx != db.ctx {
		return g.log.Propose(ctx, command)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := db.ex.AfterFunc(db.cfg.RecoverAfter, cancel)
	defer timer.Stop()
	return g.log.Propose(ctx, command)
}

// final reports whether a group takes no command on this node any more.
func final(err error) bool {
	var failed *synod.FailedError
	return errors.Is(err, synod.ErrClosed) || errors.As(err, &failed)
}

// because returns the end of a context, with what was the matter until then.
func because(end, err error) error {
	if errors.Is(err, end) {
		return err
	}
	return fmt.Errorf("%w: %w", end, err)
}

// barrier makes this node's replica of a group current.
func (db *DB) barrier(ctx context.Context, g *group) error {
	if probe.Bug("kv: replicas are read without a barrier") {
		return nil
	}
	for wait := firstPause; ; wait = min(2*wait, lastPause) {
		err := g.log.Barrier(ctx)
		if err == nil || final(err) {
			return err
		}
		if e := db.pause(ctx, wait/2+db.random.upTo(wait/2)); e != nil {
			return because(e, err)
		}
	}
}

// together runs fn for 0 to n-1 at a time, and returns when all have.
func (db *DB) together(n int, fn func(i int)) {
	left, done := atomic.Int64{}, executor.NewEvent()
	left.Store(int64(n))
	one := func(i int) {
		fn(i)
		if left.Add(-1) == 0 {
			done.Set()
		}
	}
	for i := range n - 1 {
		db.ex.Go(func() { one(i) })
	}
	if n > 0 {
		one(n - 1)
		_ = db.ex.Wait(context.WithoutCancel(db.ctx), done)
	}
}

// age is how long a timestamp is behind another.
func age(now, timestamp uint64) time.Duration {
	if now <= timestamp {
		return 0
	}
	return hlc.Timestamp(now).Time().Sub(hlc.Timestamp(timestamp).Time())
}

// before is the timestamp that is d behind now.
func (db *DB) before(d time.Duration) uint64 {
	return uint64(hlc.FromTime(db.clock.Now().Time().Add(-d)))
}

// Status is what a DB has done, and what its groups hold.
type Status struct {
	Open      int    // transactions that commit, or whose outcome some group does not know
	Commits   uint64 // since Open, as the following
	Conflicts uint64 // attempts that were given up, and tried again
	Aborts    uint64 // transactions that ended without a commit, once they had asked for one
	Recovered uint64 // others' transactions that were ended here
	Groups    []MachineStatus
}

// Status returns what the DB has done, and what its groups hold on this node.
func (db *DB) Status() Status {
	db.mu.Lock()
	s := Status{Open: db.open}
	db.mu.Unlock()
	s.Commits, s.Conflicts, s.Aborts, s.Recovered = db.commits.Load(), db.conflicts.Load(), db.aborts.Load(), db.recovered.Load()
	for _, g := range db.groups {
		s.Groups = append(s.Groups, g.machine.Status())
	}
	return s
}
