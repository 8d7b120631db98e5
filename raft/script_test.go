package raft

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

// TestScripts plays the scripts of testdata: cores of one group over stores in
// memory, and by hand everything that the runtime does around them, one step at a
// time. Run with -rewrite to write what the cores do into the scripts, and read the
// difference.
//
//	bootstrap voters=3             creates nodes 1 to 3
//	  [pending=BYTES] [message=BYTES] [cache=BYTES] [apply=BYTES]
//	campaign NODE                  starts an election
//	tick NODE [n=COUNT]            lets time pass
//	propose NODE VALUE…            proposes values
//	ready NODE                     collects and prints what the core wants done
//	persist NODE [n=COUNT]         makes the oldest COUNT batches durable (default: all)
//	                               and acknowledges them
//	write NODE                     makes all batches visible in the store, but not durable
//	applied NODE [to=INDEX]        acknowledges decisions
//	net                            prints the messages on their way
//	deliver [from=N] [to=N] [type=WORD] [n=COUNT]   in their order
//	drop    [from=N] [to=N] [type=WORD] [n=COUNT]
//	duplicate [from=N] [to=N] [type=WORD]           puts them on their way once more
//	settle NODE… [loud]            works all of that off for these nodes, and loses
//	                               messages to and from others
//	crash NODE                     loses what is not durable and opens the node again
//	snapshot NODE                  offers the applied state to followers
//	compact NODE INDEX             drops the log up to there
//	read NODE ATTEMPT              asks for a read index
//	transfer NODE to=NODE          hands the leadership over
//	unreachable NODE peer=NODE     reports dropped messages
//	status NODE                    what the core says of itself
//	log NODE                       the entries as etcd's raft reads them
//	disk NODE                      the records in the store
//
// An entry is written index/term:value, with - for none. After each command, the
// invariants are checked: one leader a term, one value for each decided index, and
// the same value wherever index and term are the same.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.Contains(path, "fuzz") {
			return
		}
		s := &script{leaders: map[uint64]uint64{}, decided: map[uint64]string{}, entries: map[position]string{}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t, s.d = t, d
			s.out.Reset()
			s.run()
			s.check()
			return s.out.String()
		})
	})
}

type script struct {
	t     *testing.T
	d     *datadriven.TestData
	out   strings.Builder
	quiet bool

	options replica.OpenOptions
	nodes   map[uint64]*scriptNode
	net     []scriptMessage

	// What must hold.
	leaders map[uint64]uint64   // by term
	decided map[uint64]string   // by index
	entries map[position]string // that were ever in any log
}

type position struct{ index, term uint64 }

// scriptNode is what the runtime keeps for one replica.
type scriptNode struct {
	script  *script
	id      uint64
	store   *memory.Store
	core    *core
	batches []scriptBatch // not durable, in order
	queue   []replica.Entry

	leader  uint64
	term    uint64
	leading bool

	// The state machine and its snapshots.
	state    scriptState
	taken    *scriptState // offered by snapshot
	incoming *scriptState // received and not installed
	durable  *scriptState // survives a crash
}

// scriptState is a state machine: all that was applied.
type scriptState struct {
	replica.SnapshotMeta
	values []string
}

type scriptBatch struct {
	batch   storage.Batch
	token   uint64
	restore *scriptState
	visible bool
}

type scriptMessage struct {
	from, to uint64
	bytes    []byte
	state    *scriptState // of a snapshot
}

func (s *script) printf(format string, args ...any) {
	if !s.quiet {
		fmt.Fprintf(&s.out, format+"\n", args...)
	}
}

// number returns the n-th bare argument.
func (s *script) number(n int) uint64 {
	if n >= len(s.d.CmdArgs) {
		s.d.Fatalf(s.t, "an argument is missing")
	}
	v, err := strconv.ParseUint(s.d.CmdArgs[n].Key, 10, 64)
	if err != nil {
		s.d.Fatalf(s.t, "%v", err)
	}
	return v
}

// option returns the value of a named argument, or the default.
func (s *script) option(name string, value uint64) uint64 {
	s.d.MaybeScanArgs(s.t, name, &value)
	return value
}

func (s *script) node(n int) *scriptNode {
	id := s.number(n)
	if s.nodes[id] == nil {
		s.d.Fatalf(s.t, "there is no node %d", id)
	}
	return s.nodes[id]
}

func (s *script) ids() []uint64 { return slices.Sorted(maps.Keys(s.nodes)) }

func (s *script) run() {
	// A core says by a panic what its protocol excludes; the runtime stops the group then.
	defer func() {
		if v := recover(); v != nil {
			s.quiet = false
			s.printf("the group stops: %v", v)
		}
	}()
	s.quiet = false
	switch s.d.Cmd {
	case "bootstrap":
		s.bootstrap()
	case "campaign":
		s.node(0).core.Campaign()
	case "tick":
		for range s.option("n", 1) {
			s.node(0).core.Tick()
		}
	case "propose":
		n := s.node(0)
		for _, a := range s.d.CmdArgs[1:] {
			if err := n.core.Propose([]byte(a.Key)); err != nil {
				s.printf("%s: %v", a.Key, err)
			}
		}
	case "ready":
		if !s.node(0).ready() {
			s.printf("nothing")
		}
	case "persist":
		s.node(0).persist(int(s.option("n", 1<<20)))
	case "write":
		n := s.node(0)
		n.store.HoldSync()
		for i := range n.batches {
			if b := &n.batches[i]; !b.visible {
				n.store.CommitAsync(&b.batch, func(error) {})
				b.visible = true
			}
		}
	case "applied":
		s.node(0).applied(s.option("to", 1<<62))
	case "net":
		for _, m := range s.net {
			s.printf("%v", m)
		}
		if len(s.net) == 0 {
			s.printf("nothing")
		}
	case "deliver":
		s.each(func(m scriptMessage) {
			s.printf("%v", m)
			s.deliver(m)
		})
	case "drop":
		s.each(func(m scriptMessage) {
			s.printf("%v", m)
			if m.state != nil {
				s.nodes[m.from].core.SnapshotSent(m.to, false)
			}
		})
	case "duplicate":
		var again []scriptMessage
		s.each(func(m scriptMessage) { again = append(again, m, m) })
		s.net = append(s.net, again...)
	case "settle":
		s.settle()
	case "crash":
		s.node(0).crash()
	case "snapshot":
		n := s.node(0)
		n.state.Config = n.core.config
		taken := n.state
		taken.values = slices.Clone(taken.values)
		n.taken, n.durable = &taken, &taken
		n.core.SnapshotAvailable(taken.SnapshotMeta)
		s.printf("snapshot at %d/%d: %s", taken.Index, taken.Term, strings.Join(taken.values, " "))
	case "compact":
		n, index := s.node(0), s.number(1)
		term, err := n.core.log.Term(index)
		if err != nil || index > n.state.Index {
			s.d.Fatalf(s.t, "index %d can't be compacted: %v", index, err)
		}
		p := replica.Position{Index: index, Term: term, Commands: n.commands(index)}
		var b storage.Batch
		n.core.Compact(p, n.core.config, &b)
		n.describe(&b)
		n.batches = append(n.batches, scriptBatch{batch: b})
	case "read":
		s.node(0).core.Read(replica.ReadID{Boot: s.number(0), Attempt: s.number(1)})
	case "transfer":
		s.node(0).core.Transfer(s.option("to", 0))
	case "unreachable":
		s.node(0).core.Unreachable(s.option("peer", 0))
	case "status":
		s.node(0).status()
	case "log":
		n := s.node(0)
		first, _ := n.core.log.FirstIndex()
		last, _ := n.core.log.LastIndex()
		s.printf("after %d/%d", n.core.log.start.Index, n.core.log.start.Term)
		if entries := n.entries(first, last); len(entries) > 0 {
			s.printf("%s", words(entries))
		}
	case "disk":
		s.node(0).disk()
	default:
		s.d.Fatalf(s.t, "unknown command")
	}
}

func (s *script) bootstrap() {
	s.options = replica.OpenOptions{
		Logger:         slog.New(slog.DiscardHandler),
		ElectionTicks:  10,
		HeartbeatTicks: 1,
		MessageBytes:   s.option("message", 1<<20),
		InflightBytes:  1 << 24,
		PendingBytes:   s.option("pending", 1<<20),
		ApplyBytes:     s.option("apply", 1<<20),
		CacheBytes:     s.option("cache", 1<<20),
	}
	s.nodes = map[uint64]*scriptNode{}
	var voters []uint64
	for id := range s.option("voters", 3) {
		voters = append(voters, id+1)
	}
	for _, id := range voters {
		n := &scriptNode{script: s, id: id, store: memory.Open(memory.Config{})}
		var b storage.Batch
		err := protocol{}.Bootstrap(replica.GroupKeys(1), bootConfig(voters), &b)
		if err == nil {
			err = n.store.Commit(&b)
		}
		if err == nil {
			err = n.open()
		}
		if err != nil {
			s.d.Fatalf(s.t, "%v", err)
		}
		s.nodes[id] = n
	}
}

// open does what the runtime does when it opens a group whose state machine lives
// in memory.
func (n *scriptNode) open() error {
	o := n.script.options
	o.Node, o.Keys, o.Store = n.id, replica.GroupKeys(1), n.store
	start, config, err := protocol{}.Start(o.Keys, n.store)
	if err != nil {
		return err
	}
	n.state = scriptState{SnapshotMeta: replica.SnapshotMeta{Position: start, Config: config}}
	switch {
	case n.durable != nil:
		n.state = *n.durable
		n.state.values = slices.Clone(n.state.values)
	case start.Commands > 0:
		return fmt.Errorf("the log begins after %d commands, but there is no snapshot", start.Commands)
	}
	if n.state.Index < start.Index {
		return fmt.Errorf("the snapshot ends at index %d, but the log begins after %d", n.state.Index, start.Index)
	}
	o.Start, o.Config = n.state.Position, n.state.Config
	c, err := protocol{}.Open(o)
	if err != nil {
		return err
	}
	n.core = c.(*core)
	if n.taken = n.durable; n.taken != nil {
		n.core.SnapshotAvailable(n.taken.SnapshotMeta)
	}
	return nil
}

func (n *scriptNode) crash() {
	n.store = n.store.Crash()
	n.batches, n.queue, n.incoming, n.taken = nil, nil, nil, nil
	n.leader, n.term, n.leading = 0, 0, false
	if err := n.open(); err != nil {
		n.script.printf("can't be opened: %v", err)
		return
	}
	n.status()
}

// commands counts the commands up to an index.
func (n *scriptNode) commands(index uint64) uint64 {
	var count uint64
	for i, v := range n.script.decided {
		if i <= index && v != "-" {
			count++
		}
	}
	return count
}

// ready does with the core's output what the runtime does; false: there was none.
func (n *scriptNode) ready() bool {
	any := false
	for {
		var out replica.Output
		var batch storage.Batch
		out.Batch = &batch
		if !n.core.Ready(&out) {
			return any
		}
		any = true
		n.carryOut(&out)
	}
}

func (n *scriptNode) carryOut(out *replica.Output) {
	s := n.script
	if out.Leader != n.leader || out.Term != n.term || out.Leading != n.leading {
		s.printf("term %d, leader %d", out.Term, out.Leader)
		n.leader, n.term, n.leading = out.Leader, out.Term, out.Leading
	}
	if out.Leading {
		if other := s.leaders[out.Term]; other != 0 && other != n.id {
			s.printf("VIOLATION: nodes %d and %d both lead in term %d", other, n.id, out.Term)
		}
		s.leaders[out.Term] = n.id
	}
	b := scriptBatch{batch: *out.Batch, token: out.Token}
	if out.Restore != nil {
		if n.incoming == nil || n.incoming.Index != out.Restore.Index {
			panic("a snapshot is installed that was not received")
		}
		s.printf("restore %d/%d", out.Restore.Index, out.Restore.Term)
		b.restore, n.incoming = n.incoming, nil
	}
	if len(out.Committed) > 0 {
		var decided []string
		for _, e := range out.Committed {
			decided = append(decided, fmt.Sprintf("%d/%d:%s", e.Index, e.Term, value(e.Data)))
			if old, ok := s.decided[e.Index]; ok && old != value(e.Data) {
				s.printf("VIOLATION: index %d was decided as %s, and now as %s", e.Index, old, value(e.Data))
			}
			s.decided[e.Index] = value(e.Data)
		}
		s.printf("decided %s", strings.Join(decided, " "))
		n.queue = append(n.queue, out.Committed...)
	}
	for _, m := range out.Messages {
		message := scriptMessage{from: n.id, to: m.To, bytes: slices.Concat(m.Head, m.Tail)}
		s.printf("send %v", message)
		s.net = append(s.net, message)
	}
	n.describe(&b.batch)
	if b.token != 0 {
		s.printf("token %d", b.token)
	}
	if b.batch.Len() > 0 || b.token != 0 {
		n.batches = append(n.batches, b)
	}
	for _, r := range out.Reads {
		s.printf("read %d.%d at index %d", r.ID.Boot, r.ID.Attempt, r.Index)
	}
	for _, r := range out.Snapshots {
		if n.taken == nil || n.taken.Index != r.Index {
			n.core.SnapshotSent(r.To, false)
			s.printf("snapshot at %d is not there any more", r.Index)
			continue
		}
		message := scriptMessage{from: n.id, to: r.To, bytes: r.Message, state: n.taken}
		s.printf("send %v", message)
		s.net = append(s.net, message)
	}
	if out.WantSnapshot {
		s.printf("wants a snapshot")
	}
}

// persist makes batches durable and acknowledges them.
func (n *scriptNode) persist(count int) {
	s := n.script
	count = min(count, len(n.batches))
	if count == 0 {
		s.printf("nothing")
	}
	token := uint64(0)
	for _, b := range n.batches[:count] {
		if b.visible {
			n.store.ReleaseSync()
		} else if err := n.store.Commit(&b.batch); err != nil {
			panic(err)
		}
		if b.restore != nil {
			n.durable, n.taken = b.restore, b.restore
			n.state = *b.restore
			n.state.values = slices.Clone(n.state.values)
			n.queue = nil
			s.printf("state: %s", strings.Join(n.state.values, " "))
		}
		if b.token != 0 {
			token = b.token
			n.core.Persisted(token)
		}
	}
	n.batches = slices.Clone(n.batches[count:])
	if token != 0 {
		s.printf("durable up to token %d", token)
	}
}

func (n *scriptNode) applied(to uint64) {
	for len(n.queue) > 0 && n.queue[0].Index <= to {
		e := n.queue[0]
		n.queue = n.queue[1:]
		if e.Index != n.state.Index+1 {
			panic(fmt.Sprintf("entry %d follows entry %d", e.Index, n.state.Index))
		}
		n.state.Index, n.state.Term = e.Index, e.Term
		if e.Kind == replica.EntryCommand {
			n.state.Commands++
			n.state.values = append(n.state.values, string(e.Data))
		}
	}
	n.core.Applied(n.state.Index)
}

// each takes the messages that the command names off the network, in order.
func (s *script) each(fn func(scriptMessage)) {
	from, to, count := s.option("from", 0), s.option("to", 0), s.option("n", 1<<20)
	var kind string
	s.d.MaybeScanArgs(s.t, "type", &kind)
	var chosen, rest []scriptMessage
	for _, m := range s.net {
		if (from == 0 || from == m.from) && (to == 0 || to == m.to) && count > uint64(len(chosen)) &&
			(kind == "" || strings.Fields(m.String())[3] == kind) {
			chosen = append(chosen, m)
		} else {
			rest = append(rest, m)
		}
	}
	s.net = rest
	for _, m := range chosen {
		fn(m)
	}
	if len(chosen) == 0 {
		s.printf("nothing")
	}
}

func (s *script) deliver(m scriptMessage) {
	to := s.nodes[m.to]
	if m.state != nil {
		state := *m.state
		to.incoming = &state
		s.nodes[m.from].core.SnapshotSent(m.to, true)
	}
	if err := to.core.Step(m.from, m.bytes, len(m.bytes)); err != nil {
		s.printf("refused: %v", err)
	}
}

func (s *script) settle() {
	var nodes []*scriptNode
	loud := false
	for i, a := range s.d.CmdArgs {
		if a.Key == "loud" {
			loud = true
		} else {
			nodes = append(nodes, s.node(i))
		}
	}
	s.quiet = !loud
	for range 1000 {
		busy := false
		for _, n := range nodes {
			if n.ready() {
				busy = true
			}
			if len(n.batches) > 0 {
				busy = true
				n.persist(len(n.batches))
			}
			if len(n.queue) > 0 {
				busy = true
				n.applied(1 << 62)
			}
		}
		net := s.net
		s.net = nil
		for _, m := range net {
			busy = true
			if slices.Contains(nodes, s.nodes[m.from]) && slices.Contains(nodes, s.nodes[m.to]) {
				s.deliver(m)
			} else if m.state != nil {
				s.nodes[m.from].core.SnapshotSent(m.to, false)
			}
		}
		if !busy {
			s.quiet = false
			for _, n := range nodes {
				n.status()
			}
			return
		}
	}
	s.quiet = false
	s.printf("it does not settle")
}

func (n *scriptNode) status() {
	s := n.core.Status()
	role := n.core.raft.BasicStatus()
	var peers strings.Builder
	for _, p := range s.Peers {
		fmt.Fprintf(&peers, ", %d: %s match=%d", p.Node, p.State, p.Match)
	}
	n.script.printf("node %d: %s, term=%d vote=%d leader=%d first=%d last=%d commit=%d applied=%d%s", n.id,
		strings.ToLower(strings.TrimPrefix(role.RaftState.String(), "State")), s.Term, role.GetVote(), s.Leader,
		s.First, s.Last, s.Commit, n.state.Index, &peers)
}

// entries reads the log as etcd's raft does.
func (n *scriptNode) entries(first, last uint64) []*raftpb.Entry {
	var entries []*raftpb.Entry
	for next := first; next <= last; {
		some, err := n.core.log.Entries(next, last+1, 1<<20)
		if err != nil {
			n.script.printf("can't be read: %v", err)
			break
		}
		entries = append(entries, some...)
		next += uint64(len(some))
	}
	return entries
}

// check looks for what must never be.
func (s *script) check() {
	s.quiet = false
	for _, id := range s.ids() {
		n := s.nodes[id]
		if n.core == nil {
			continue
		}
		log := n.core.log
		if len(n.batches) > 0 && n.batches[0].visible {
			continue // the store is ahead of the log
		}
		for _, e := range n.entries(log.start.Index+1, log.last) {
			p := position{e.GetIndex(), e.GetTerm()}
			if old, ok := s.entries[p]; ok && old != value(e.GetData()) {
				s.printf("VIOLATION: entry %d/%d is %s in one log, and %s in that of node %d", p.index, p.term, old, value(e.GetData()), id)
			}
			s.entries[p] = value(e.GetData())
		}
	}
}

// describe prints a batch in words.
func (n *scriptNode) describe(b *storage.Batch) {
	for _, op := range b.Ops() {
		switch op.Kind {
		case storage.KindSet:
			n.script.printf("write %s", record(op.Key, op.Value))
		case storage.KindDelete:
			n.script.printf("remove %s", keyName(op.Key))
		case storage.KindDeleteRange:
			n.script.printf("remove from %s to before %s", keyName(op.Key), keyName(op.End))
		}
	}
}

func (n *scriptNode) disk() {
	it, err := n.store.Scan(nil, nil)
	if err != nil {
		panic(err)
	}
	defer it.Close()
	for {
		key, value, err := it.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		n.script.printf("%s", record(key, value))
	}
}

// keyName names a key of the group's own records.
func keyName(key []byte) string {
	prefix := replica.GroupKeys(1).Protocol(tagLog)
	end := replica.GroupKeys(1).Protocol(tagLog + 1)
	switch {
	case bytes.Equal(key, prefix):
		return "the first entry"
	case bytes.Equal(key, end):
		return "the end"
	case bytes.HasPrefix(key, prefix) && len(key) == len(prefix)+8:
		return fmt.Sprintf("entry %d", binary.BigEndian.Uint64(key[len(prefix):]))
	}
	return fmt.Sprintf("%q", key)
}

// record says what a record holds.
func record(key, value []byte) string {
	keys := replica.GroupKeys(1)
	if bytes.HasPrefix(key, keys.Protocol(tagLog)) {
		entries, _, err := openRun(1, value)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("run %s", words(entries))
	}
	payload, err := storage.OpenRecord(key, value)
	if err != nil {
		return err.Error()
	}
	r := replica.NewReader(payload)
	switch key[len(key)-1] {
	case tagHard:
		return fmt.Sprintf("state term=%d vote=%d commit=%d end=%d/%d", r.Uvarint(), r.Uvarint(), r.Uvarint(), r.Uvarint(), r.Uvarint())
	case tagStart:
		return fmt.Sprintf("start after %d/%d, %d commands", r.Uvarint(), r.Uvarint(), r.Uvarint())
	}
	return fmt.Sprintf("%q", key)
}

func value(data []byte) string { return cmp.Or(string(data), "-") }

func words(entries []*raftpb.Entry) string {
	var b []string
	for _, e := range entries {
		b = append(b, fmt.Sprintf("%d/%d:%s", e.GetIndex(), e.GetTerm(), value(e.GetData())))
	}
	return strings.Join(b, " ")
}

// String says in words what a message holds.
func (m scriptMessage) String() string {
	d, _, err := decodeMessage(1, m.from, m.to, m.bytes)
	if err != nil {
		return err.Error()
	}
	refused := ""
	if d.GetReject() {
		refused = " refused"
	}
	at := func(index, term uint64) string { return fmt.Sprintf("%d/%d", index, term) }
	var text string
	switch d.GetType() {
	case raftpb.MsgPreVote:
		text = fmt.Sprintf("pre-vote? term=%d last=%s", d.GetTerm(), at(d.GetIndex(), d.GetLogTerm()))
	case raftpb.MsgPreVoteResp:
		text = fmt.Sprintf("pre-vote%s term=%d", refused, d.GetTerm())
	case raftpb.MsgVote:
		text = fmt.Sprintf("vote? term=%d last=%s", d.GetTerm(), at(d.GetIndex(), d.GetLogTerm()))
	case raftpb.MsgVoteResp:
		text = fmt.Sprintf("vote%s term=%d", refused, d.GetTerm())
	case raftpb.MsgApp:
		text = fmt.Sprintf("append term=%d after=%s [%s] commit=%d", d.GetTerm(), at(d.GetIndex(), d.GetLogTerm()), words(d.GetEntries()), d.GetCommit())
	case raftpb.MsgAppResp:
		text = fmt.Sprintf("appended%s term=%d index=%d", refused, d.GetTerm(), d.GetIndex())
		if d.GetReject() {
			text += " hint=" + at(d.GetRejectHint(), d.GetLogTerm())
		}
	case raftpb.MsgHeartbeat:
		text = fmt.Sprintf("heartbeat? term=%d commit=%d", d.GetTerm(), d.GetCommit())
	case raftpb.MsgHeartbeatResp:
		text = fmt.Sprintf("heartbeat term=%d", d.GetTerm())
	case raftpb.MsgReadIndex:
		id, _ := decodeReadID(d.GetEntries()[0].GetData())
		text = fmt.Sprintf("read? %d.%d", id.Boot, id.Attempt)
	case raftpb.MsgReadIndexResp:
		id, _ := decodeReadID(d.GetEntries()[0].GetData())
		text = fmt.Sprintf("read %d.%d term=%d index=%d", id.Boot, id.Attempt, d.GetTerm(), d.GetIndex())
	case raftpb.MsgTimeoutNow:
		text = fmt.Sprintf("campaign! term=%d", d.GetTerm())
	case raftpb.MsgSnap:
		meta := d.GetSnapshot().GetMetadata()
		text = fmt.Sprintf("snapshot term=%d at=%s", d.GetTerm(), at(meta.GetIndex(), meta.GetTerm()))
	}
	if c := d.GetContext(); len(c) == 8 {
		text += fmt.Sprintf(" confirm=%d", binary.LittleEndian.Uint64(c))
	} else if len(c) > 0 {
		text += fmt.Sprintf(" %s", c)
	}
	return fmt.Sprintf("%d to %d: %s", m.from, m.to, text)
}
