package script

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

// node is what a runtime keeps for one replica.
type node struct {
	runner   *Runner
	id       uint64
	protocol replica.Protocol
	store    *memory.Store
	core     replica.Core // nil: it is down
	batches  []batch      // not durable, in order
	queue    []replica.Entry
	term     uint64
	said     string            // by State
	mine     map[string]uint64 // values that this run has proposed, with the term
	wanted   bool              // a snapshot

	// The state machine and its snapshots.
	state    state
	taken    *state // offered by snapshot
	incoming *state // received and not installed
	durable  *state // survives a crash
}

// state is a state machine: all that was applied.
type state struct {
	replica.SnapshotMeta
	values []string
}

func (s *state) clone() *state {
	c := *s
	c.values = slices.Clone(s.values)
	return &c
}

type batch struct {
	batch   storage.Batch
	token   uint64
	restore *state
	visible bool
}

// attempt calls a core. By a panic it says what its protocol excludes; the runtime stops the
// group then.
func (n *node) attempt(fn func()) {
	defer func() {
		if v := recover(); v != nil {
			switch v.(type) {
			case malformed, idle:
				panic(v)
			}
			n.runner.quiet = false
			n.runner.printf("the group stops: %v", v)
			if !n.runner.engine.Manual {
				n.core = nil
			}
		}
	}()
	fn()
}

// input gives a core something, and carries out what it wants done then, unless the script says when.
func (n *node) input(fn func()) {
	n.attempt(func() {
		fn()
		if !n.runner.engine.Manual {
			n.ready()
		}
	})
}

// open does what the runtime does when it opens a group whose state machine lives in memory.
func (n *node) open(held bool) error {
	o := n.runner.options
	o.Node, o.Keys, o.Store, o.Held = n.id, replica.GroupKeys(Group), n.store, held
	start, config, err := n.protocol.Start(o.Keys, n.store)
	if err != nil {
		return err
	}
	n.state = state{SnapshotMeta: replica.SnapshotMeta{Position: start, Config: config}}
	switch {
	case n.durable != nil:
		n.state = *n.durable.clone()
	case start.Commands > 0:
		return fmt.Errorf("the log begins after %d commands, but there is no snapshot", start.Commands)
	}
	if n.state.Index < start.Index {
		return fmt.Errorf("the snapshot ends at index %d, but the log begins after %d", n.state.Index, start.Index)
	}
	o.Start, o.Config = n.state.Position, n.state.Config
	if n.core, err = n.protocol.Open(o); err != nil {
		n.core = nil
		return err
	}
	n.mine = map[string]uint64{}
	if n.taken = n.durable; n.taken != nil {
		n.core.SnapshotAvailable(n.taken.SnapshotMeta)
	}
	return nil
}

// settleState takes what a core says first for what is known.
func (n *node) settleState() {
	if n.runner.engine.Manual {
		return
	}
	quiet := n.runner.quiet
	n.runner.quiet = true
	n.attempt(func() { n.ready() })
	n.runner.quiet = quiet
}

func (n *node) crash() {
	n.core = nil
	n.store = n.store.Crash()
	n.batches, n.queue, n.incoming, n.taken = nil, nil, nil, nil
	n.term, n.said, n.wanted = 0, "", false
}

func (n *node) start(held bool) {
	r := n.runner
	if err := n.open(held); err != nil {
		r.printf("can't be opened: %v", err)
		return
	}
	n.status()
	if !r.engine.Manual {
		n.attempt(func() { n.ready() })
	}
}

// rewrite changes the records of a replica that does not run.
func (n *node) rewrite(fn func(*storage.Batch) error) {
	var b storage.Batch
	n.crash()
	n.durable = nil
	err := fn(&b)
	if err == nil {
		n.describe(&b)
		err = n.store.Commit(&b)
	}
	if err != nil {
		n.runner.printf("refused: %v", err)
	}
}

// ready does with the core's output what the runtime does; false: there was none.
func (n *node) ready() bool {
	some := false
	for {
		var out replica.Output
		var batch storage.Batch
		out.Batch = &batch
		if !n.core.Ready(&out) {
			return some
		}
		some = true
		n.carryOut(&out)
	}
}

func (n *node) carryOut(out *replica.Output) {
	r := n.runner
	n.term = out.Term
	if said := r.engine.State(n.core, out); said != n.said {
		r.printf("%s", said)
		n.said = said
	}
	if out.Leading {
		r.highest = max(r.highest, out.Decided)
	}
	b := batch{batch: *out.Batch, token: out.Token}
	if out.Restore != nil {
		if n.incoming == nil || n.incoming.Index != out.Restore.Index {
			panic("a snapshot is installed that was not received")
		}
		r.printf("restore %d/%d", out.Restore.Index, out.Restore.Term)
		b.restore, n.incoming = n.incoming, nil
	}
	if len(out.Committed) > 0 {
		var decided []string
		for _, e := range out.Committed {
			n.decided(e)
			decided = append(decided, fmt.Sprintf("%d/%d:%s", e.Index, e.Term, r.decided[e.Index].value))
		}
		r.printf("decided %s", strings.Join(decided, " "))
		n.queue = append(n.queue, out.Committed...)
	}
	for _, m := range out.Messages {
		message := Message{From: n.id, To: m.To, Body: slices.Concat(m.Head, m.Tail)}
		r.printf("send %s", r.describe(message))
		if r.engine.Sent != nil {
			r.engine.Sent(r, message)
		}
		r.net = append(r.net, message)
	}
	n.describe(&b.batch)
	if b.token != 0 {
		r.printf("token %d", b.token)
	}
	if b.batch.Len() > 0 || b.token != 0 {
		n.batches = append(n.batches, b)
	}
	for _, a := range out.Reads {
		r.printf("read %d.%d at index %d", a.ID.Boot, a.ID.Attempt, a.Index)
		if least, asked := r.reads[a.ID]; asked && a.Index < least {
			r.Violation("the read misses what was decided before it, up to index %d", least)
		}
	}
	for _, s := range out.Snapshots {
		if n.taken == nil || n.taken.Index != s.Index {
			n.core.SnapshotSent(s.To, false)
			r.printf("snapshot at %d is not there any more", s.Index)
			continue
		}
		message := Message{From: n.id, To: s.To, Body: s.Message, state: n.taken}
		r.printf("send %s", r.describe(message))
		r.net = append(r.net, message)
	}
	if out.WantSnapshot {
		r.printf("wants a snapshot")
		n.wanted = true
	}
	if len(out.Committed) > 0 && !r.engine.Manual {
		n.applied(1 << 62)
	}
}

// decided holds an entry that a core hands out against what is known.
func (n *node) decided(e replica.Entry) {
	r := n.runner
	before, ok := r.decided[e.Index-1]
	if !ok {
		before = r.boot
	}
	d := entry{at: e.Position(before.at.Commands), kind: e.Kind, value: string(e.Data), config: before.config}
	switch e.Kind {
	case replica.EntryCommand:
		d.at.Commands++
	case replica.EntryConfig:
		conf, err := replica.DecodeConfiguration(e.Data)
		if err != nil {
			r.Violation("index %d: %v", e.Index, err)
		}
		d.value, d.config = conf.String(), slices.Clone(e.Data)
	default:
		d.value = "-"
	}
	if old, ok := r.decided[e.Index]; !ok {
		r.decided[e.Index] = d
	} else if old.value != d.value || old.kind != d.kind {
		r.Violation("index %d was decided as %s, and now as %s", e.Index, old.value, d.value)
	} else if old.at != d.at {
		r.Violation("index %d was decided in term %d, and now in term %d", e.Index, old.at.Term, d.at.Term)
	}
	r.highest = max(r.highest, e.Index)
	if e.Kind == replica.EntryCommand {
		if by, ok := r.lost[d.value]; ok {
			r.Violation("%s was said to be lost at index %d, and is decided at index %d", d.value, by, e.Index)
		}
		delete(n.mine, d.value)
	}
	for _, value := range slices.Sorted(maps.Keys(n.mine)) {
		if n.mine[value] < e.Fence {
			r.lost[value] = e.Index
			delete(n.mine, value)
			r.printf("lost: %s, as index %d says", value, e.Index)
		}
	}
}

// snapshot takes one of what is applied, and offers it.
func (n *node) snapshot() {
	n.wanted = false
	n.taken = n.state.clone()
	n.durable = n.taken
	n.input(func() { n.core.SnapshotAvailable(n.taken.SnapshotMeta) })
	n.runner.printf("snapshot at %d/%d: %s", n.taken.Index, n.taken.Term, strings.Join(n.taken.values, " "))
}

// persist makes batches durable and acknowledges them.
func (n *node) persist(count int) {
	r := n.runner
	count = min(count, len(n.batches))
	if count == 0 {
		r.printf("nothing")
		return
	}
	token := uint64(0)
	done := n.batches[:count]
	n.batches = slices.Clone(n.batches[count:])
	for _, b := range done {
		if b.visible {
			n.store.ReleaseSync()
		} else if err := n.store.Commit(&b.batch); err != nil {
			panic(err)
		}
		if b.restore != nil {
			n.durable, n.taken = b.restore, b.restore
			n.state = *b.restore.clone()
			n.queue = nil
			r.printf("state: %s", strings.Join(n.state.values, " "))
		}
		if b.token != 0 {
			token = b.token
			n.core.Persisted(token)
		}
	}
	if token != 0 {
		r.printf("durable up to token %d", token)
	}
	if !r.engine.Manual {
		n.ready()
	}
}

func (n *node) applied(to uint64) {
	for len(n.queue) > 0 && n.queue[0].Index <= to {
		e := n.queue[0]
		n.queue = n.queue[1:]
		if e.Index != n.state.Index+1 {
			panic(fmt.Sprintf("entry %d follows entry %d", e.Index, n.state.Index))
		}
		switch e.Kind {
		case replica.EntryCommand:
			n.state.Commands++
			n.state.values = append(n.state.values, string(e.Data))
		case replica.EntryConfig:
			n.state.Config = slices.Clone(e.Data)
		}
		n.state.Position = e.Position(n.state.Commands)
	}
	n.state.Held = n.state.Commands
	if n.runner.onDisk {
		n.durable = n.state.clone()
	}
	n.core.Applied(n.state.Index)
}

func (n *node) status() {
	r := n.runner
	if n.core == nil {
		r.printf("node %d: down", n.id)
		return
	}
	r.printf("node %d: %s", n.id, r.engine.Status(n.core, n.state.Index))
}

// describe prints a batch in words.
func (n *node) describe(b *storage.Batch) {
	r := n.runner
	for _, op := range b.Ops() {
		switch op.Kind {
		case storage.KindSet:
			r.printf("write %s", r.engine.Record(op.Key, op.Value))
		case storage.KindDelete:
			r.printf("remove %s", r.engine.Key(op.Key))
		case storage.KindDeleteRange:
			r.printf("remove from %s to before %s", r.engine.Key(op.Key), r.engine.Key(op.End))
		}
	}
}

// records returns what the store holds.
func (n *node) records() (keys, values [][]byte) {
	it, err := n.store.Scan(nil, nil)
	if err != nil {
		panic(err)
	}
	defer it.Close()
	if keys, values, err = storage.Collect(it); err != nil {
		panic(err)
	}
	return keys, values
}

func (n *node) disk() {
	keys, values := n.records()
	for i := range keys {
		n.runner.printf("%s", n.runner.engine.Record(keys[i], values[i]))
	}
}

// damage alters records in the store, or removes them.
func (n *node) damage() {
	r := n.runner
	c := &r.command
	var b storage.Batch
	keys, values := n.records()
	for i, key := range keys {
		record := r.engine.Record(key, values[i])
		words := strings.Fields(record)
		if slot := c.List("slot"); slot != nil && !slices.ContainsFunc(words, func(w string) bool { return holds(w, slot[0]) }) {
			continue
		}
		if word := c.List("record"); word != nil && words[0] != word[0] {
			continue
		}
		if c.Has("missing") {
			r.printf("missing: %s", record)
			b.Delete(key)
			continue
		}
		r.printf("damaged: %s", record)
		value := slices.Clone(values[i])
		value[len(value)-1] ^= 1
		b.Set(key, value)
	}
	if b.Len() == 0 {
		c.fail("node %d has no such record", n.id)
	}
	if err := n.store.Commit(&b); err != nil {
		panic(err)
	}
}
