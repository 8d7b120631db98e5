package kv

import (
	"context"
	"slices"
	"time"

	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/probe"
)

// told is an outcome that a group is to be told, and whose it is.
type told struct {
	resolution
	attempt *attempt
}

// Limits of what tells a group outcomes.
const (
	maxTellers = 2 // commands at a time
	// tellAfter is how long an outcome waits for a command that goes to the group anyway, so that both share a record on each
	// replica: well below what a caller notices of a lock.
	tellAfter = time.Millisecond
	maxTold   = 256 // outcomes in one
)

// insistTelling has a group asked for its vote, and told the outcomes that wait for a command. Whatever it answers, it has been told; if no answer comes for
// long they are told by another command, too: whoever asks may have all the time there is.
func (db *DB) insistTelling(ctx context.Context, g *group, p *prepare) (reply answer, maybe bool, err error) {
	g.mu.Lock()
	list := g.take(db.cfg.MaxCommandBytes-p.size(), 0)
	g.mu.Unlock()
	if len(list) == 0 {
		return db.insist(ctx, g, appendPrepare(make([]byte, 0, p.size()), p))
	}
	a := db.attached(g, list)
	reply, maybe, err = db.insist(ctx, g, appendPrepare(make([]byte, 0, p.size()+sizeOf(list)), p, list...))
	if err == nil {
		for _, o := range list {
			o.attempt.told(g)
		}
	}
	if waiting := g.answered(a, err == nil); waiting && err != nil {
		db.untold(g, list)
	}
	return reply, maybe, err
}

// attachment is outcomes that are told with a command that has no answer yet.
type attachment struct {
	list []told
	due  time.Time // when they are told by another command
	over bool
}

// attached has outcomes told by another command if the one they go with has no answer for long.
func (db *DB) attached(g *group, list []told) *attachment {
	after := db.cfg.RecoverAfter / 4
	a := &attachment{list: list, due: db.ex.Now().Add(after)}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.attached = append(g.attached, a)
	if len(g.attached) == 1 {
		// There is one timer for all, as nearly all are answered long before.
		g.set(db.ex, &g.late, after, func() { db.overdue(g) })
	}
	return a
}

// answered reports whether what is attached is not told by another command yet. It never will be. done: the list is not used any more.
func (g *group) answered(a *attachment, done bool) (waiting bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if done && g.spare == nil && cap(a.list) <= 2*maxTold { // one that has been longer is not kept for good
		clear(a.list)
		g.spare = a.list[:0]
	}
	waiting = !a.over
	a.over, a.list = true, nil
	n := 0
	for n < len(g.attached)-1 && g.attached[n].over { // the last is for the timer to find, which is not set for each
		n++
	}
	g.attached = slices.Delete(g.attached, 0, n)
	return waiting
}

// overdue has told by another command what has had no answer for long.
func (db *DB) overdue(g *group) {
	g.mu.Lock()
	now := db.ex.Now()
	var list []told
	n := 0
	for ; n < len(g.attached) && (g.attached[n].over || !g.attached[n].due.After(now)); n++ {
		list = append(list, g.attached[n].list...)
		g.attached[n].over = true
	}
	g.attached = slices.Delete(g.attached, 0, n)
	if len(g.attached) > 0 {
		g.set(db.ex, &g.late, g.attached[0].due.Sub(now), nil)
	}
	g.mu.Unlock()
	db.untold(g, list)
}

// stop stops the timers, for good.
func (g *group) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = true
	for _, t := range []executor.Timer{g.teller, g.late} {
		if t != nil {
			t.Stop()
		}
	}
}

// set sets a timer, and makes it first if there is none. g.mu is held.
func (g *group) set(ex executor.Executor, timer *executor.Timer, after time.Duration, fn func()) {
	switch {
	case g.stopped:
	case *timer == nil:
		*timer = ex.AfterFunc(after, fn)
	default:
		(*timer).Reset(after)
	}
}

// take takes the first outcomes of the queue: as many as have room, and not fewer than least, if there are as many.
func (g *group) take(room, least int) []told {
	n, size := 0, 0
	for n < min(len(g.queue), maxTold) && (n < least || size+g.queue[n].size() <= room) {
		size += g.queue[n].size()
		n++
	}
	if n == 0 {
		return nil
	}
	if probe.Buggify("kv: outcomes are told one by one") {
		n = 1
	}
	probe.Sometimes("kv: many outcomes are told at once", n > 1)
	if n == len(g.queue) {
		list := g.queue
		g.queue, g.spare = g.spare, nil
		return list
	}
	list := slices.Clone(g.queue[:n])
	g.queue = slices.Delete(g.queue, 0, n)
	return list
}

// untold has a group told by another command what this one may not have told it.
func (db *DB) untold(g *group, list []told) {
	for _, o := range list {
		db.enqueue(g, o)
	}
}

func sizeOf(list []told) (n int) {
	for i := range list {
		n += list[i].size()
	}
	return n
}

// enqueue has a group told an outcome, with others, and with the next command that it gets, if that comes soon.
func (db *DB) enqueue(g *group, o told) {
	g.mu.Lock()
	g.queue = append(g.queue, o)
	now := len(g.queue) >= maxTold || db.ctx.Err() != nil
	if len(g.queue) == 1 && !now {
		after := tellAfter
		if probe.Buggify("kv: a group is told late") {
			after = db.cfg.RecoverAfter
		}
		g.due = db.ex.Now().Add(after)
		if g.timed.IsZero() || g.due.Before(g.timed) {
			g.timed = g.due
			g.set(db.ex, &g.teller, after, func() { db.due(g) })
		}
	}
	g.mu.Unlock()
	if now {
		db.flush(g)
	}
}

// due has a group told what has waited for a command long enough. Under load the queue is another one than when the timer was set.
func (db *DB) due(g *group) {
	g.mu.Lock()
	left := g.due.Sub(db.ex.Now())
	g.timed = time.Time{}
	if len(g.queue) > 0 && left > 0 {
		g.timed = g.due
		g.set(db.ex, &g.teller, left, nil)
	}
	g.mu.Unlock()
	if left <= 0 {
		db.flush(g)
	}
}

// flush has a group told what waits for that.
func (db *DB) flush(g *group) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.queue) > 0 && g.tellers < maxTellers {
		g.tellers++
		db.task(func() { db.tellAll(g) })
	}
}

func (db *DB) tellAll(g *group) {
	for {
		g.mu.Lock()
		var list []told
		if db.ctx.Err() == nil {
			list = g.take(db.cfg.MaxCommandBytes/2, 1)
		}
		if len(list) == 0 {
			g.tellers--
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		outcomes := make([]resolution, len(list))
		for i, o := range list {
			outcomes[i] = o.resolution
		}
		s := list[0].attempt.session
		command := appendResolve(nil, s.id, db.floorOf(s), db.now(), outcomes)
		if _, _, err := db.insist(db.ctx, g, command); err != nil {
			for _, o := range list {
				o.attempt.end(db.leave) // the DB is closed, or the group is
			}
			continue
		}
		for _, o := range list {
			o.attempt.told(g)
		}
	}
}
