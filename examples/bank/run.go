package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/transport/tcp"
	"github.com/synod-go/synod/txn/check"
	"github.com/synod-go/synod/txn/hlc"
	"github.com/synod-go/synod/txn/kv"
)

const (
	members = 3
	// patience is how long the demonstration tries until it calls something broken.
	patience = 20 * time.Second
	// limit is how long a client waits for one transfer, or for a reading of all accounts.
	limit = 3 * time.Second
)

// record is what the demonstration has done and seen.
type record struct {
	OK       bool    `json:"ok"`
	Engine   string  `json:"engine"`
	Nodes    int     `json:"nodes"`
	Groups   int     `json:"groups"`
	Accounts int     `json:"accounts"`
	Clients  int     `json:"clients"`
	Seconds  float64 `json:"seconds"` // for which the clients worked

	Transfers int `json:"transfers"` // confirmed
	Aborted   int `json:"aborted"`   // certainly without effect, Refused among them
	Refused   int `json:"refused"`   // for want of money
	Unknown   int `json:"unknown"`   // of which the client was not told: Happened and Vanished are what became of them
	Happened  int `json:"happened"`
	Vanished  int `json:"vanished"`

	PerSecond float64 `json:"per_second"`
	P50Millis float64 `json:"p50_ms"` // of confirmed transfers
	P99Millis float64 `json:"p99_ms"`
	Conflicts uint64  `json:"conflicts"` // attempts that were repeated
	Recovered uint64  `json:"recovered"` // transactions that dead clients had left behind

	Views    int `json:"views"`    // readings of all accounts, as they were at the moment
	ViewsAt  int `json:"views_at"` // and as they had been
	Readings int `json:"readings"` // of confirmed transfers, from another node
	Stops    int `json:"stops"`    // of nodes
	Cuts     int `json:"cuts"`     // of the network, in part or in one direction
	GaveUp   int `json:"gave_up"`  // clients that were interrupted in a transfer
	Deaths   int `json:"deaths"`   // clients that ended in one, with their database
	Checked  int `json:"checked"`  // transactions in the history that was checked
	Total    int `json:"total"`    // of all accounts in the end
	Expected int `json:"expected"` // what it should be

	Violations []string `json:"violations"` // the first ones
	violations int      // all
}

func (r *record) violation(format string, args ...any) {
	r.violations++
	if len(r.Violations) < 20 {
		r.Violations = append(r.Violations, fmt.Sprintf(format, args...))
	}
}

// fate is what a client knows of a transfer.
type fate int

const (
	aborted fate = iota
	confirmed
	unknown
)

type bank struct {
	settings
	dir     string
	out     io.Writer
	began   time.Time
	network *network
	history check.Recorder

	mu        sync.Mutex
	record    record
	slots     [members]slot
	transfers []transfer
	fates     []fate // what is known of them
	latencies []time.Duration
}

// slot is the place of a node, which may be running.
type slot struct {
	*node
	tcp    *tcp.Transport
	ctx    context.Context // ends when the node does
	cancel context.CancelFunc
}

func run(ctx context.Context, out io.Writer, s settings) (record, error) {
	b := &bank{settings: s, out: out, began: time.Now(), network: newNetwork()}
	b.record = record{Engine: s.engine, Nodes: members, Groups: s.groups, Accounts: s.accounts, Clients: s.clients, Expected: opening * s.accounts, Violations: []string{}}
	if err := s.validate(); err != nil {
		return b.record, err
	}
	var err error
	if b.dir, err = os.MkdirTemp("", "synod-bank-"); err != nil {
		return b.record, err
	}
	defer os.RemoveAll(b.dir)
	err = b.all(ctx)
	for id := range uint64(members) {
		err = errors.Join(err, b.stop(id+1))
	}
	return b.record, err
}

func (b *bank) all(ctx context.Context) error {
	for id := range uint64(members) {
		if err := b.start(ctx, id+1); err != nil {
			return err
		}
	}
	opened, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := b.open(opened); err != nil {
		return err
	}
	b.say("%d nodes are up; %d accounts with %d each, in %d groups; %d clients begin", members, b.accounts, opening, b.groups, b.clients)

	working, stop := context.WithTimeout(ctx, b.duration)
	defer stop()
	began := time.Now()
	var beside, clients sync.WaitGroup
	for c := range b.clients {
		clients.Go(func() { b.client(ctx, working, c) })
	}
	beside.Go(func() { b.watch(working) })
	if b.faults {
		beside.Go(func() { b.killClients(ctx, working) })
		if err := b.disturb(ctx, working); err != nil {
			stop()
			beside.Wait()
			clients.Wait()
			return err
		}
	}
	clients.Wait()
	beside.Wait()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	b.record.Seconds = time.Since(began).Seconds()
	b.record.PerSecond = float64(b.record.Transfers) / b.record.Seconds
	slices.Sort(b.latencies)
	if n := len(b.latencies); n > 0 {
		b.record.P50Millis = b.latencies[n/2].Seconds() * 1000
		b.record.P99Millis = b.latencies[n*99/100].Seconds() * 1000
	}
	return b.audit(ctx)
}

func (b *bank) say(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintf(b.out, "%6.2fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

func (b *bank) violation(format string, args ...any) {
	b.say("VIOLATION: "+format, args...)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.record.violation(format, args...)
}

// count changes the record.
func (b *bank) count(change func(r *record)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.record)
}

// start starts a node, and tells the others where it is now.
func (b *bank) start(ctx context.Context, id uint64) error {
	t, err := tcp.Listen(tcp.Config{Cluster: "bank", Node: id, Address: "127.0.0.1:0", Insecure: true})
	if err != nil {
		return err
	}
	b.mu.Lock()
	for i := range b.slots {
		if s := &b.slots[i]; s.node != nil {
			err = errors.Join(err, s.tcp.SetPeer(id, t.Addr().String()), t.SetPeer(uint64(i+1), s.tcp.Addr().String()))
		}
	}
	b.mu.Unlock()
	if err != nil {
		return errors.Join(err, t.Close())
	}
	n, err := startNode(ctx, b.engine, id, []uint64{1, 2, 3}, b.groups, &link{t, b.network, id}, filepath.Join(b.dir, fmt.Sprintf("node-%d", id)))
	if err != nil {
		return err
	}
	s := slot{node: n, tcp: t}
	s.ctx, s.cancel = context.WithCancel(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slots[id-1] = s
	return nil
}

// stop ends a node, if it runs. Nobody hears from it any more, as if it had been killed: what its clients had under way has an outcome
// that they do not learn.
func (b *bank) stop(id uint64) error {
	b.mu.Lock()
	s := b.slots[id-1]
	b.slots[id-1] = slot{}
	b.mu.Unlock()
	if s.node == nil {
		return nil
	}
	b.network.around(id, 1)
	defer b.network.around(id, 0)
	s.cancel()
	status := s.db.Status()
	b.count(func(r *record) { r.Conflicts += status.Conflicts; r.Recovered += status.Recovered })
	return s.close()
}

// at returns a node, or an empty slot if it does not run.
func (b *bank) at(id uint64) slot {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.slots[id-1]
}

// on bounds a call by the node on which it is made.
func on(ctx context.Context, s slot, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// open gives each account what is in it at first.
func (b *bank) open(ctx context.Context) error {
	var seen *check.Recording
	err := b.at(1).db.Update(ctx, func(tx *kv.Tx) error {
		if seen != nil {
			seen.Abort()
		}
		seen = b.history.Begin(0)
		for n := range b.accounts {
			a := account{opening, b.history.Unique()}
			seen.Write(string(accountKey(n)), a.version)
			if err := tx.Put(accountKey(n), a.bytes()); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		seen.Commit()
	}
	return err
}

// client makes transfers on one node until the work is over, and notes what it is told.
func (b *bank) client(ctx, working context.Context, c int) {
	id := uint64(c%members + 1)
	for n := 0; working.Err() == nil; n++ {
		s := b.at(id)
		if s.node == nil {
			pause(working, 10*time.Millisecond)
			continue
		}
		t := b.order(fmt.Sprintf("c%03d-%06d", c, n))
		call, cancel := on(ctx, s, limit)
		if b.faults && rand.IntN(40) == 0 {
			b.count(func(r *record) { r.GaveUp++ })
			cancel()
			call, cancel = on(ctx, s, rand.N(8*time.Millisecond))
		}
		began := time.Now()
		fate := b.try(call, s.db, t)
		cancel()
		if fate == confirmed {
			b.mu.Lock()
			b.latencies = append(b.latencies, time.Since(began))
			b.mu.Unlock()
			if rand.IntN(20) == 0 {
				b.look(ctx, t, id%members+1)
			}
		}
		pause(working, rand.N(4*time.Millisecond))
	}
}

// order makes a transfer up.
func (b *bank) order(id string) transfer {
	t := transfer{id: id, from: rand.IntN(b.accounts), to: rand.IntN(b.accounts - 1), amount: 1 + rand.Int64N(200)}
	if t.to >= t.from {
		t.to++
	}
	return t
}

// try makes a transfer, and notes what is known of it.
func (b *bank) try(ctx context.Context, db *kv.DB, t transfer) fate {
	var seen *check.Recording
	err := db.Update(ctx, func(tx *kv.Tx) error {
		if seen != nil {
			seen.Abort() // it is only tried again where it had no effect
		}
		seen = b.history.Begin(0)
		version := b.history.Unique()
		from, to, err := t.move(tx, version)
		if from.version != 0 {
			seen.Read(string(accountKey(t.from)), from.version)
		}
		if to.version != 0 {
			seen.Read(string(accountKey(t.to)), to.version)
		}
		if err == nil {
			seen.Write(string(accountKey(t.from)), version)
			seen.Write(string(accountKey(t.to)), version)
		}
		return err
	})
	var mismatch *kv.MismatchError
	f := aborted
	switch {
	case err == nil:
		f = confirmed
	case errors.Is(err, synod.ErrUnknownOutcome):
		f = unknown
	}
	if seen != nil {
		switch f {
		case confirmed:
			seen.Commit()
		case unknown:
			seen.Unknown()
		case aborted:
			seen.Abort()
		}
	}
	if errors.As(err, &mismatch) {
		b.violation("transfer %s had happened before it was made: %v", t.id, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.transfers, b.fates = append(b.transfers, t), append(b.fates, f)
	switch f {
	case confirmed:
		b.record.Transfers++
	case unknown:
		b.record.Unknown++
	case aborted:
		b.record.Aborted++
		if errors.Is(err, errFunds) {
			b.record.Refused++
		}
	}
	return f
}

// look looks for a transfer that was confirmed, from another node.
func (b *bank) look(ctx context.Context, t transfer, id uint64) {
	s := b.at(id)
	if s.node == nil {
		return
	}
	call, cancel := on(ctx, s, time.Second)
	defer cancel()
	var missing error
	err := s.db.View(call, func(tx *kv.Tx) error {
		_, missing = tx.Get(entryKey(t.from, t.id))
		if errors.Is(missing, kv.ErrNotFound) {
			return nil
		}
		err := missing
		missing = nil
		return err
	})
	switch {
	case err != nil:
		return // no answer is no wrong one
	case missing != nil:
		b.violation("transfer %s was confirmed, and node %d did not see it afterwards", t.id, id)
	}
	b.count(func(r *record) { r.Readings++ })
}

// watch reads all accounts on one node, as they are, and on another, as they were a moment ago.
func (b *bank) watch(ctx context.Context) {
	for i := uint64(0); pause(ctx, b.interval()); i++ {
		now, then := b.view(ctx, i%members+1), b.viewAt(ctx, (i+1)%members+1)
		if ctx.Err() != nil {
			return // the last ones may have been interrupted
		}
		b.mu.Lock()
		r := b.record
		b.mu.Unlock()
		b.say("%s, %s; %d transfers, %d aborted, %d unknown", now, then, r.Transfers, r.Aborted, r.Unknown)
	}
}

// interval is how often the accounts are read.
func (b *bank) interval() time.Duration { return max(b.duration/16, 50*time.Millisecond) }

func (b *bank) view(ctx context.Context, id uint64) string {
	s := b.at(id)
	if s.node == nil {
		return fmt.Sprintf("node %d is down", id)
	}
	call, cancel := on(ctx, s, limit)
	defer cancel()
	var accounts map[string]account
	var seen *check.Recording
	err := s.db.View(call, func(tx *kv.Tx) (err error) {
		if seen != nil {
			seen.Abort()
		}
		seen = b.history.Begin(0)
		accounts, err = readAccounts(tx)
		return err
	})
	if err != nil {
		if seen != nil {
			seen.Abort()
		}
		return fmt.Sprintf("node %d gives no answer", id)
	}
	found := make(map[string][]int64, len(accounts))
	for key, a := range accounts {
		found[key] = []int64{a.version}
	}
	seen.Scan("account/", "account0", found)
	seen.Commit()
	sum := total(accounts)
	if sum != int64(b.record.Expected) {
		b.violation("node %d has seen a total of %d in %d accounts", id, sum, len(accounts))
	}
	b.count(func(r *record) { r.Views++ })
	return fmt.Sprintf("node %d sees %d", id, sum)
}

func (b *bank) viewAt(ctx context.Context, id uint64) string {
	s := b.at(id)
	if s.node == nil {
		return fmt.Sprintf("node %d is down", id)
	}
	call, cancel := on(ctx, s, time.Second)
	defer cancel()
	var accounts map[string]account
	ago := b.interval() / 2
	err := s.db.ViewAt(call, hlc.FromTime(time.Now().Add(-ago)), func(tx *kv.Tx) (err error) {
		accounts, err = readAccounts(tx)
		return err
	})
	if err != nil {
		return fmt.Sprintf("node %d gives no answer", id)
	}
	sum := total(accounts)
	if sum != int64(b.record.Expected) {
		b.violation("node %d has seen a total of %d in %d accounts, as of %v ago", id, sum, len(accounts), ago)
	}
	b.count(func(r *record) { r.ViewsAt++ })
	return fmt.Sprintf("node %d saw %d %v ago", id, sum, ago)
}

// pause reports whether the context goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// killClients has clients begin to work, each with a database of its own, and die in the middle of it.
func (b *bank) killClients(ctx, working context.Context) {
	for n := 0; pause(working, b.duration/40); n++ {
		s := b.at(uint64(n%members + 1))
		if s.node == nil {
			continue
		}
		m := new(mortal)
		m.left.Store(1 + rand.Int64N(12))
		db, err := openDatabase(ctx, m.groups(s.groups), s.clock)
		if err != nil {
			b.violation("open a database: %v", err)
			return
		}
		call, cancel := on(ctx, s, limit)
		for i := 0; !m.dead() && call.Err() == nil; i++ {
			b.try(call, db, b.order(fmt.Sprintf("m%03d-%06d", n, i)))
		}
		cancel()
		_ = db.Close()
		b.count(func(r *record) { r.Deaths++ })
	}
}

// disturb stops nodes and cuts the network, one thing after the other, until the work is over, and mends it.
func (b *bank) disturb(ctx, working context.Context) error {
	var plan []int
	for pause(working, b.duration/32+rand.N(b.duration/32)) {
		if len(plan) == 0 {
			plan = rand.Perm(4)
		}
		id := 1 + rand.Uint64N(members)
		other := id%members + 1
		lasts := b.duration/16 + rand.N(b.duration/16)
		mend := func() error { return nil }
		switch plan[0] {
		case 0:
			id = b.leader()
			b.say("node %d stops", id)
			if err := b.stop(id); err != nil {
				return err
			}
			mend = func() error {
				b.say("node %d starts again", id)
				return b.start(ctx, id)
			}
			b.count(func(r *record) { r.Stops++ })
		case 1:
			b.say("node %d is cut off", id)
			b.network.around(id, 1)
			mend = func() error {
				b.say("node %d is connected again", id)
				b.network.around(id, 0)
				return nil
			}
			b.count(func(r *record) { r.Cuts++ })
		case 2:
			b.say("node %d does not hear node %d any more", other, id)
			b.network.lose(id, other, 1)
			mend = func() error {
				b.say("node %d hears node %d again", other, id)
				b.network.lose(id, other, 0)
				return nil
			}
			b.count(func(r *record) { r.Cuts++ })
		case 3:
			b.say("node %d loses a fifth of its messages", id)
			b.network.around(id, 0.2)
			mend = func() error {
				b.say("node %d loses nothing any more", id)
				b.network.around(id, 0)
				return nil
			}
			b.count(func(r *record) { r.Cuts++ })
		}
		plan = plan[1:]
		pause(working, lasts)
		if err := mend(); err != nil {
			return err
		}
	}
	return nil
}

// leader returns a node that leads one of the groups, or any.
func (b *bank) leader() uint64 {
	if l := b.at(1).replicas[rand.IntN(b.groups)].Status().Leader; l >= 1 && l <= members {
		return l
	}
	return 1
}
