package raft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

// victim is one core over a store, with peers that say anything.
type victim struct {
	t       *testing.T
	store   *memory.Store
	core    *core
	decided []replica.Entry
	reads   []replica.ReadResult
	sent    []replica.Message
	state   scriptHard
	stopped any // the panic that stops the group
	leases  bool
}

type scriptHard struct{ term, vote, commit uint64 }

// bootVictim returns node 1 of a new group.
func bootVictim(t *testing.T, voters ...uint64) *victim {
	v := &victim{t: t, store: memory.Open(memory.Config{})}
	var b storage.Batch
	require.NoError(t, protocol{}.Bootstrap(replica.GroupKeys(7), bootConfig(voters), &b))
	require.NoError(t, v.store.Commit(&b))
	v.open(voters...)
	return v
}

// open makes the core from the records, as a restart does.
func (v *victim) open(voters ...uint64) {
	c, err := protocol{}.Open(replica.OpenOptions{
		Node: 1, Keys: replica.GroupKeys(7), Store: v.store, Start: bootPosition, Config: encodeConf(&raftpb.ConfState{Voters: voters}),
		Logger: slog.New(slog.DiscardHandler), ElectionTicks: 10, HeartbeatTicks: 1, MessageBytes: 1 << 20, InflightBytes: 1 << 20,
		PendingBytes: 1 << 20, ApplyBytes: 1 << 20, CacheBytes: 100, Leases: v.leases,
	})
	require.NoError(v.t, err)
	v.core, v.decided = c.(*core), nil
}

// newVictim returns node 1 of three, in term 3, with entries 2 to 6 in its log, of
// which those up to 4 are decided. It follows node 2, or leads.
func newVictim(t *testing.T, leads bool) *victim {
	v := bootVictim(t, 1, 2, 3)
	var entries []*raftpb.Entry
	for i := uint64(2); i <= 6; i++ {
		entries = append(entries, &raftpb.Entry{Index: new(i), Term: new(2 + i/5), Data: fmt.Appendf(nil, "value %d", i)})
	}
	m := &raftpb.Message{Type: raftpb.MsgApp.Enum(), Term: new(uint64(3)), Index: new(uint64(1)), LogTerm: new(uint64(1)), Commit: new(uint64(4)), Entries: entries}
	require.NoError(t, v.step(2, encodeMessage(m)))
	if leads {
		v.core.Campaign()
		v.work()
		require.NoError(t, v.step(3, encodeMessage(&raftpb.Message{Type: raftpb.MsgPreVoteResp.Enum(), Term: new(uint64(4))})))
		require.NoError(t, v.step(3, encodeMessage(&raftpb.Message{Type: raftpb.MsgVoteResp.Enum(), Term: new(uint64(4))})))
		require.True(t, v.core.leading)
	}
	require.Len(t, v.decided, 3)
	require.Nil(t, v.stopped)
	return v
}

// step gives the core a message and does all that follows, as the runtime would.
func (v *victim) step(from uint64, message []byte) (err error) {
	v.guard(func() {
		err = v.core.Step(from, message, len(message))
	})
	if v.stopped == nil {
		v.work()
	}
	return err
}

// guard turns a panic of the core into its end, as the runtime does. One of Go itself
// is a defect, though the runtime would catch it as well.
func (v *victim) guard(fn func()) {
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(runtime.Error); ok {
				require.NoError(v.t, err)
			}
			v.stopped = p
		}
	}()
	fn()
}

func (v *victim) work() {
	for v.stopped == nil {
		var out replica.Output
		var b storage.Batch
		out.Batch = &b
		busy := false
		v.guard(func() { busy = v.core.Ready(&out) })
		if !busy || v.stopped != nil {
			break
		}
		if out.Restore != nil {
			// No snapshot was received: here the runtime stops the group.
			v.stopped = "a snapshot that was not received"
			break
		}
		require.NoError(v.t, v.store.Commit(&b))
		v.reads = append(v.reads, out.Reads...)
		for _, m := range out.Messages {
			v.sent = append(v.sent, replica.Message{To: m.To, Head: bytes.Clone(m.Head), Tail: m.Tail})
		}
		for _, e := range out.Committed {
			next := bootPosition.Index + 1 + uint64(len(v.decided))
			require.Equal(v.t, next, e.Index, "entries are decided in their order, and once")
			v.decided = append(v.decided, e)
		}
		v.guard(func() {
			if out.Token != 0 {
				v.core.Persisted(out.Token)
			}
			if len(out.Committed) > 0 {
				v.core.Applied(out.Committed[len(out.Committed)-1].Index)
			}
		})
	}
	v.check()
}

// check looks for what no message may do.
func (v *victim) check() {
	keys := replica.GroupKeys(7)
	log, err := openLog(keys, v.store, 1<<20)
	require.NoError(v.t, err, "the records must be readable")
	now := scriptHard{log.hard.GetTerm(), log.hard.GetVote(), log.hard.GetCommit()}
	require.GreaterOrEqual(v.t, now.term, v.state.term, "the term went back")
	require.GreaterOrEqual(v.t, now.commit, v.state.commit, "the commit index went back")
	if now.term == v.state.term && v.state.vote != 0 {
		require.Equal(v.t, v.state.vote, now.vote, "a second vote in one term")
	}
	require.LessOrEqual(v.t, now.commit, log.last)
	v.state = now
	for _, e := range v.decided {
		entries, err := log.Entries(e.Index, e.Index+1, 1<<20)
		require.NoError(v.t, err)
		require.Equal(v.t, e.Term, entries[0].GetTerm(), "decided entry %d has changed", e.Index)
		require.Equal(v.t, string(e.Data), string(entries[0].GetData()), "decided entry %d has changed", e.Index)
	}
}

// What a peer may not say is refused, and has no effect.
func TestRefusedMessages(t *testing.T) {
	at := func(kind raftpb.MessageType) *raftpb.Message {
		return &raftpb.Message{Type: &kind, Term: new(uint64(3)), LogTerm: new(uint64(3)), Index: new(uint64(6)), Commit: new(uint64(4))}
	}
	entry := func(index, term uint64) *raftpb.Entry { return &raftpb.Entry{Index: &index, Term: &term} }
	app := func(change func(*raftpb.Message), entries ...*raftpb.Entry) []byte {
		m := at(raftpb.MsgApp)
		m.Entries = entries
		if change != nil {
			change(m)
		}
		return encodeMessage(m)
	}
	snap := func(p replica.Position, voters ...uint64) []byte {
		m := at(raftpb.MsgSnap)
		var c replica.Configuration // which may be malformed
		for _, node := range voters {
			c.Members = append(c.Members, replica.Participant{Member: synod.Member{Node: node}, Voter: true})
		}
		m.Snapshot = &raftpb.Snapshot{Data: c.Append(binary.AppendUvarint(nil, p.Commands)),
			Metadata: &raftpb.SnapshotMetadata{Index: new(p.Index), Term: new(p.Term)}}
		return encodeMessage(m)
	}
	run := func(group uint64, first uint64, entries ...*raftpb.Entry) []byte {
		m := at(raftpb.MsgApp)
		b := appendRun(appendMessage(nil, m), group, 3, entries)
		return b
	}
	context := func(kind raftpb.MessageType, n int) []byte {
		m := at(kind)
		m.Context = make([]byte, n)
		return encodeMessage(m)
	}
	identity := func(kind raftpb.MessageType, n int) []byte {
		m := at(kind)
		m.Entries = []*raftpb.Entry{{Data: make([]byte, n)}}
		return encodeMessage(m)
	}
	flags := encodeMessage(at(raftpb.MsgAppResp))
	flags[1] = 2
	hole := app(nil, entry(7, 3), entry(8, 3))
	hole[len(appendMessage(nil, at(raftpb.MsgApp)))+5]++ // the group
	cases := map[string][]byte{
		"nothing":                       {},
		"one byte":                      {byte(raftpb.MsgApp)},
		"unknown flags":                 flags,
		"a run with a wrong checksum":   hole,
		"a run of another group":        run(8, 7, entry(7, 3)),
		"entries after a gap":           run(7, 8, entry(8, 3)),
		"entries before their place":    run(7, 6, entry(6, 3)),
		"entries of a later term":       app(nil, entry(7, 4)),
		"entries of falling terms":      app(func(m *raftpb.Message) { m.Term = new(uint64(9)) }, entry(7, 5), entry(8, 4)),
		"entries below the term before": app(nil, entry(7, 2)),
		"an entry at index 0":           app(func(m *raftpb.Message) { m.Index = new(^uint64(0)) }, entry(0, 3)),
		"a run that wraps around": app(func(m *raftpb.Message) { m.Index = new(^uint64(0) - 1) },
			entry(^uint64(0), 3), entry(0, 3)),
		"a run after another term":       append(appendMessage(nil, at(raftpb.MsgApp)), appendRun(nil, 7, 2, []*raftpb.Entry{entry(7, 3)})...),
		"a snapshot at index 0":          snap(replica.Position{Term: 1}, 1, 2, 3),
		"a snapshot of no term":          snap(replica.Position{Index: 9}, 1, 2, 3),
		"a snapshot of a later term":     snap(replica.Position{Index: 9, Term: 4}, 1, 2, 3),
		"a snapshot without members":     snap(replica.Position{Index: 9, Term: 3}),
		"a snapshot with node 0":         snap(replica.Position{Index: 9, Term: 3}, 0, 1, 2),
		"a snapshot with a node twice":   snap(replica.Position{Index: 9, Term: 3}, 1, 1, 2),
		"a heartbeat with a strange tag": context(raftpb.MsgHeartbeat, 7),
		"a read without identity":        identity(raftpb.MsgReadIndex, 0),
		"a read with half an identity":   identity(raftpb.MsgReadIndex, 8),
		"an answer without identity":     identity(raftpb.MsgReadIndexResp, 0),
		"bytes behind a vote":            append(encodeMessage(at(raftpb.MsgVote)), 0),
	}
	for _, m := range sampleMessages() {
		if m.GetType() != raftpb.MsgReadIndex {
			m.Term = nil
			cases[fmt.Sprint(m.GetType(), " without a term")] = encodeMessage(m)
		}
	}
	peers := " MsgApp MsgAppResp MsgVote MsgVoteResp MsgPreVote MsgPreVoteResp MsgHeartbeat MsgHeartbeatResp MsgSnap MsgTimeoutNow MsgReadIndex MsgReadIndexResp "
	for kind := range 256 {
		m := at(raftpb.MessageType(kind))
		if name := m.GetType().String(); !strings.Contains(peers, " "+name+" ") {
			cases["type "+name] = encodeMessage(m)
		}
	}
	require.Contains(t, cases, "type MsgHup")
	require.Contains(t, cases, "type MsgProp")
	require.Contains(t, cases, "type MsgStorageAppendResp")
	require.Contains(t, cases, "type 255")
	for _, leads := range []bool{false, true} {
		v := newVictim(t, leads)
		status, state := v.core.Status(), v.state
		for what, message := range cases {
			err := v.step(2, bytes.Clone(message))
			require.ErrorIs(t, err, errMessage, what)
			require.Nil(t, v.stopped, what)
			require.Equal(t, status, v.core.Status(), what)
			require.Equal(t, state, v.state, what)
		}
	}
}

// What is well formed and can't be is ignored, or stops the one group; it never
// changes what was decided or promised.
func TestHostileMessages(t *testing.T) {
	type change = func(*raftpb.Message)
	far := func(m *raftpb.Message) { m.Index = new(uint64(1000)) }
	for _, c := range []struct {
		what  string
		leads bool
		kind  raftpb.MessageType
		term  uint64
		set   change
		stops string
	}{
		{what: "commit beyond the log", kind: raftpb.MsgHeartbeat, term: 3, set: func(m *raftpb.Message) { m.Commit = new(uint64(100)) }, stops: "the log up to index 100"},
		{what: "commit beyond the log, with an append", kind: raftpb.MsgApp, term: 3, set: func(m *raftpb.Message) {
			m.Index, m.LogTerm, m.Commit = new(uint64(6)), new(uint64(3)), new(^uint64(0))
		}},
		{what: "append in the place of a decided entry", kind: raftpb.MsgApp, term: 5, set: func(m *raftpb.Message) {
			m.Index, m.LogTerm = new(uint64(3)), new(uint64(2))
			m.Entries = []*raftpb.Entry{{Index: new(uint64(4)), Term: new(uint64(5))}}
		}},
		{what: "append that contradicts a decided entry", kind: raftpb.MsgApp, term: 5, set: func(m *raftpb.Message) {
			m.Index, m.LogTerm = new(uint64(4)), new(uint64(1))
			m.Entries = []*raftpb.Entry{{Index: new(uint64(5)), Term: new(uint64(5))}}
		}},
		{what: "append at the end of the numbers", kind: raftpb.MsgApp, term: 3, set: func(m *raftpb.Message) {
			m.Index, m.LogTerm = new(^uint64(0)), new(uint64(3))
		}},
		{what: "snapshot that does not know this node", kind: raftpb.MsgSnap, term: 3, set: func(m *raftpb.Message) {
			m.Snapshot = makeSnapshot(replica.Position{Index: 50, Term: 3}, bootConfig([]uint64{8, 9}))
		}},
		{what: "snapshot that did not come", kind: raftpb.MsgSnap, term: 3, set: func(m *raftpb.Message) {
			m.Snapshot = makeSnapshot(replica.Position{Index: 50, Term: 3}, bootConfig([]uint64{1, 2, 3}))
		}, stops: "not received"},
		{what: "acknowledgement beyond the log", leads: true, kind: raftpb.MsgAppResp, term: 4, set: far},
		{what: "acknowledgement at the end of the numbers", leads: true, kind: raftpb.MsgAppResp, term: 4, set: func(m *raftpb.Message) { m.Index = new(^uint64(0)) }},
		{what: "refusal beyond the log", leads: true, kind: raftpb.MsgAppResp, term: 4, set: func(m *raftpb.Message) {
			m.Reject, m.Index, m.RejectHint, m.LogTerm = new(true), new(uint64(1000)), new(uint64(999)), new(uint64(90))
		}},
		{what: "confirmation of a read that nobody asked", leads: true, kind: raftpb.MsgHeartbeatResp, term: 4, set: func(m *raftpb.Message) {
			m.Context = binary.LittleEndian.AppendUint64(nil, 1<<60)
		}},
		{what: "append of a second leader in one term", leads: true, kind: raftpb.MsgApp, term: 4, set: func(m *raftpb.Message) {
			m.Index, m.LogTerm, m.Commit = new(uint64(6)), new(uint64(3)), new(uint64(7))
			m.Entries = []*raftpb.Entry{{Index: new(uint64(7)), Term: new(uint64(4)), Data: []byte("other")}}
		}},
		{what: "vote that nobody asked for", kind: raftpb.MsgVoteResp, term: 3},
		{what: "vote request with an old log", kind: raftpb.MsgVote, term: 9, set: func(m *raftpb.Message) { m.Index, m.LogTerm = new(uint64(2)), new(uint64(2)) }},
	} {
		t.Run(c.what, func(t *testing.T) {
			v := newVictim(t, c.leads)
			m := &raftpb.Message{Type: &c.kind, Term: &c.term}
			if c.set != nil {
				c.set(m)
			}
			for range 3 {
				if v.stopped != nil {
					break
				}
				require.NoError(t, v.step(2, encodeMessage(m)))
				for range 3 {
					v.core.Tick()
				}
				v.work()
			}
			if c.stops == "" {
				require.Nil(t, v.stopped)
			} else {
				require.Contains(t, fmt.Sprint(v.stopped), c.stops)
			}
			v.check()
		})
	}
}

// What a core keeps of a message must not keep a frame that is much larger.
func TestStepKeepsNoFrame(t *testing.T) {
	app := encodeMessage(&raftpb.Message{Type: raftpb.MsgApp.Enum(), Term: new(uint64(3)), Index: new(uint64(6)), LogTerm: new(uint64(3)), Commit: new(uint64(4)),
		Entries: []*raftpb.Entry{{Index: new(uint64(7)), Term: new(uint64(3)), Data: []byte("small")}}})
	for _, test := range []struct {
		frame int
		keeps bool
	}{
		{len(app), true},
		{2 * len(app), true},
		{2*len(app) + 1, false},
		{1 << 20, false},
	} {
		v := newVictim(t, false)
		message := bytes.Clone(app)
		require.NoError(t, v.core.Step(2, message, test.frame))
		v.work()
		entries, err := v.core.log.Entries(7, 8, 1<<20)
		require.NoError(t, err)
		require.Equal(t, "small", string(entries[0].Data))
		at := bytes.Index(message, []byte("small"))
		message[at] = 'S'
		require.Equal(t, test.keeps, string(entries[0].Data) == "Small", "a frame of %d bytes, a message of %d", test.frame, len(app))
	}
}

// A change of members that can't be read stops the group before it would go on with wrong
// members.
func TestMalformedMembershipChangeStopsGroup(t *testing.T) {
	v := newVictim(t, false)
	m := &raftpb.Message{Type: raftpb.MsgApp.Enum(), Term: new(uint64(3)), Index: new(uint64(6)), LogTerm: new(uint64(3)), Commit: new(uint64(7)),
		Entries: []*raftpb.Entry{{Index: new(uint64(7)), Term: new(uint64(3)), Type: raftpb.EntryConfChangeV2.Enum()}}}
	require.NoError(t, v.step(2, encodeMessage(m)))
	require.ErrorIs(t, v.stopped.(error), errChange)
}

// FuzzStep gives a core any messages, and ticks between them.
func FuzzStep(f *testing.F) {
	var all []byte
	for _, m := range sampleMessages() {
		b := encodeMessage(m)
		f.Add(false, replica.AppendBytes(nil, b))
		f.Add(true, replica.AppendBytes(nil, b))
		all = replica.AppendBytes(all, b)
	}
	f.Add(false, all)
	f.Add(true, all)
	f.Fuzz(func(t *testing.T, leads bool, script []byte) {
		v := newVictim(t, leads)
		r := replica.NewReader(script)
		for n := 0; n < 20 && r.Len() > 0 && v.stopped == nil; n++ {
			message := sealMessage(bytes.Clone(r.Bytes()))
			v.core.Tick()
			_ = v.step(uint64(2+n%2), message)
		}
	})
}
