package raft

//synod:core

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"

	etcd "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// core runs one group on etcd's raft with asynchronous storage writes: what raft
// addresses to its append thread becomes records of an Output, what it addresses
// to its apply thread becomes committed entries, and the answers that it attaches
// to both are stepped, or sent, when the runtime acknowledges.
type core struct {
	node  uint64
	group uint64
	keys  replica.Keys
	raft  *etcd.RawNode
	log   *logStore

	lastToken uint64
	appends   []pendingAppend
	applies   []*raftpb.Message // answers to handed out entries, by index
	released  []*raftpb.Message // may leave since what they promise is durable

	hard    *raftpb.HardState // the newest, in a record or not yet
	hardNew bool              // it is in no record yet
	stored  *raftpb.HardState // the newest that is in a record, durable or on its way
	written replica.Position  // the last entry that was put into a batch
	runs    []receivedRun     // what was stepped since the last Ready
	reads   []*raftpb.Message // to be taken up: the newest of each node
	head    []byte
	config  []byte // the configuration in effect
	leading bool
	member  bool // has a configuration
	votes   votes

	observed probe.RaftState
}

// pendingAppend is a batch of records that is not durable yet.
type pendingAppend struct {
	token    uint64
	entries  [][]*raftpb.Entry
	snapshot *raftpb.Snapshot
	hard     *raftpb.HardState
	answers  []*raftpb.Message
}

// receivedRun is entries together with their encoding.
type receivedRun struct {
	entries []*raftpb.Entry
	bytes   []byte
}

var _ replica.Core = (*core)(nil)

func newCore(o replica.OpenOptions, logger etcd.Logger) (*core, error) {
	log, err := openLog(o.Keys, o.Store, o.CacheBytes)
	if err != nil {
		return nil, err
	}
	if log.conf, err = decodeConf(o.Config); err != nil {
		return nil, &storage.CorruptError{Group: o.Keys.Group(), Index: o.Start.Index, Reason: err.Error()}
	}
	if o.Start.Index > log.last {
		return nil, &storage.CorruptError{Group: o.Keys.Group(), Index: log.last + 1, Key: o.Keys.Protocol(tagLog),
			Reason: fmt.Sprintf("the log ends at index %d, but the snapshot at %d", log.last, o.Start.Index)}
	}
	log.hard.Commit = new(max(log.hard.GetCommit(), o.Start.Index))
	c := &core{node: o.Node, group: o.Keys.Group(), keys: o.Keys, log: log, config: o.Config, member: len(log.conf.GetVoters()) > 0, hard: log.hard, stored: log.hard}
	c.votes.init(o)
	if c.written, err = log.end(); err != nil {
		return nil, err
	}
	reads := etcd.ReadOnlySafe
	if probe.Bug("a leader answers reads without asking") {
		reads = etcd.ReadOnlyLeaseBased
	}
	c.raft, err = etcd.NewRawNode(&etcd.Config{
		ID:                        o.Node,
		ElectionTick:              o.ElectionTicks,
		HeartbeatTick:             o.HeartbeatTicks,
		Storage:                   log,
		Applied:                   o.Start.Index,
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             o.MessageBytes,
		MaxCommittedSizePerReady:  o.ApplyBytes,
		MaxUncommittedEntriesSize: o.PendingBytes,
		MaxInflightMsgs:           maxInflightMessages,
		MaxInflightBytes:          o.InflightBytes,
		CheckQuorum:               true,
		PreVote:                   true,
		ReadOnlyOption:            reads,
		DisableProposalForwarding: true,
		StepDownOnRemoval:         true,
		Logger:                    logger,
	})
	if err == nil && probe.Active() {
		probe.Observe(probe.RaftOpened{Group: c.group, Term: log.hard.GetTerm(), Vote: log.hard.GetVote(), Commit: log.hard.GetCommit(),
			First: log.start.Index + 1, Last: log.last, TermAt: func(index uint64) uint64 {
				term, err := log.Term(index)
				if err != nil {
					return 0 // it stands there and can't be read
				}
				return term
			}})
	}
	return c, err
}

// maxInflightMessages is how many appends may be on their way to a follower. The
// byte limit is the one that counts; this one keeps a dead link from piling up
// empty messages.
const maxInflightMessages = 256

// Propose implements replica.Core.
func (c *core) Propose(value []byte) error {
	if !c.leading {
		return replica.ErrNotLeading
	}
	err := c.raft.Propose(value)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, etcd.ErrProposalDropped):
		return err
	}
	// Raft does not say why it dropped the proposal.
	if s := c.raft.BasicStatus(); s.RaftState != etcd.StateLeader || s.LeadTransferee != 0 {
		return replica.ErrNotLeading
	}
	return replica.ErrBudget
}

// Step implements replica.Core.
func (c *core) Step(from uint64, message []byte, frame int) error {
	if holdsRun(message) && 2*len(message) < frame {
		// Its entries stay in the cache of the log: the rest of the frame must not.
		message = bytes.Clone(message)
	}
	m, run, err := decodeMessage(c.group, from, c.node, message)
	if err != nil {
		return err
	}
	if c.ignores(m) {
		return nil
	}
	if len(run) > 0 {
		c.runs = append(c.runs, receivedRun{m.Entries, run})
	}
	if m.GetType() == raftpb.MsgHeartbeat && m.GetCommit() > c.written.Index && m.GetTerm() >= c.raft.BasicStatus().GetTerm() {
		// It says no more than this node has acknowledged.
		panic(fmt.Errorf("%w: the leader knows that this node had the log up to index %d, and it ends at %d", synod.ErrRolledBack, m.GetCommit(), c.written.Index))
	}
	if m.GetType() == raftpb.MsgReadIndex {
		m.Entries[0].Data = bytes.Clone(m.Entries[0].Data) // it may stay for long, the message need not
		c.read(m)
		return nil
	}
	if err := c.raft.Step(m); err != nil && !errors.Is(err, etcd.ErrStepPeerNotFound) && !errors.Is(err, etcd.ErrProposalDropped) {
		return err
	}
	return nil
}

// Tick implements replica.Core.
func (c *core) Tick() {
	if c.votes.tick(); c.takesPart() {
		c.raft.Tick()
	}
}

// Read implements replica.Core.
func (c *core) Read(id replica.ReadID) {
	c.read(&raftpb.Message{Type: raftpb.MsgReadIndex.Enum(), Entries: []*raftpb.Entry{{Data: encodeReadID(id)}}})
}

// read takes in a read of this node or of another one, for the next Ready to take up.
// Of each node it keeps the newest: an answer to an earlier one would not be believed.
func (c *core) read(m *raftpb.Message) {
	for i, h := range c.reads {
		if h.GetFrom() != m.GetFrom() {
			continue
		}
		old, _ := decodeReadID(h.Entries[0].Data)
		id, _ := decodeReadID(m.Entries[0].Data)
		if id.Boot != old.Boot || id.Attempt > old.Attempt {
			c.reads[i] = m
		}
		return
	}
	c.reads = append(c.reads, m)
}

// takeReads takes up the reads that came, unless it is too early.
//
// A new leader does not know what its predecessors decided until an entry of its own
// term is (Ongaro's thesis, section 6.4), and must not answer before. etcd's raft
// keeps all that asks until then, without a limit; and where the leader is the only
// voter it answers at once, with a commit index that may lag behind what it has
// acknowledged before a restart. So reads wait here.
func (c *core) takeReads() {
	if len(c.reads) == 0 {
		return
	}
	if s := c.raft.BasicStatus(); s.RaftState == etcd.StateLeader && c.termOf(s.GetCommit()) != s.GetTerm() && !probe.Bug("a new leader answers reads at once") {
		probe.Sometimes("raft: a read waits for a new leader's first decision", true)
		return
	}
	reads := c.reads
	c.reads = nil
	for _, m := range reads {
		_ = c.raft.Step(m) // while there is no leader it is lost, and asked again
	}
}

// Transfer implements replica.Core.
func (c *core) Transfer(to uint64) {
	c.votes.handedOver = c.raft.BasicStatus().GetTerm()
	c.raft.TransferLeader(to)
}

// Campaign implements replica.Core.
func (c *core) Campaign() {
	if !c.mayCampaign() {
		return
	}
	// Raft refuses in a state in which there is no need.
	_ = c.raft.Campaign()
}

// Unreachable implements replica.Core.
func (c *core) Unreachable(peer uint64) { c.raft.ReportUnreachable(peer) }

// SnapshotSent implements replica.Core.
func (c *core) SnapshotSent(peer uint64, ok bool) {
	status := etcd.SnapshotFinish
	if !ok {
		status = etcd.SnapshotFailure
	}
	c.raft.ReportSnapshot(peer, status)
}

// SnapshotAvailable implements replica.Core.
func (c *core) SnapshotAvailable(meta replica.SnapshotMeta) {
	c.log.snap = makeSnapshot(meta.Position, meta.Config)
	c.log.wanted = false
}

// Compact implements replica.Core.
func (c *core) Compact(to replica.Position, config []byte, batch *storage.Batch) {
	if to.Index <= c.log.start.Index {
		return
	}
	c.log.compact(to, config, batch)
}

// Persisted implements replica.Core.
func (c *core) Persisted(token uint64) {
	for len(c.appends) > 0 && c.appends[0].token <= token {
		a := c.appends[0]
		c.appends = c.appends[1:]
		if a.snapshot != nil {
			c.log.reset(snapshotPosition(a.snapshot))
			c.log.conf = a.snapshot.GetMetadata().GetConfState()
		}
		for _, entries := range a.entries {
			c.log.appended(entries)
		}
		if a.hard != nil {
			c.log.hard = a.hard
		}
		c.release(a.answers)
	}
	if len(c.appends) == 0 {
		c.appends = nil
	}
}

// release lets answers go whose promises are durable.
func (c *core) release(answers []*raftpb.Message) {
	for _, m := range answers {
		if m.GetTo() == c.node {
			c.step(m)
		} else {
			c.released = append(c.released, m)
		}
	}
}

// Applied implements replica.Core.
func (c *core) Applied(index uint64) {
	n := 0
	for ; n < len(c.applies); n++ {
		entries := c.applies[n].GetEntries()
		if entries[len(entries)-1].GetIndex() > index {
			break
		}
		c.step(c.applies[n])
	}
	clear(c.applies[:n])
	if c.applies = c.applies[n:]; len(c.applies) == 0 {
		c.applies = nil
	}
}

// step gives raft an answer of its own.
func (c *core) step(m *raftpb.Message) {
	if err := c.raft.Step(m); err != nil {
		// A proposal that raft makes itself while it applies may be dropped, and is
		// made again. An answer to itself means nothing to a node that was removed since.
		if !errors.Is(err, etcd.ErrProposalDropped) && !errors.Is(err, etcd.ErrStepPeerNotFound) {
			panic(fmt.Errorf("raft: group %d: own %v: %w", c.group, m.GetType(), err))
		}
	}
}

// Ready implements replica.Core.
func (c *core) Ready(out *replica.Output) bool {
	c.head = c.head[:0]
	c.takeReads()
	if !c.raft.HasReady() && len(c.released) == 0 && !c.log.wanted {
		c.runs = nil
		return false
	}
	for i, m := range c.released {
		c.send(out, m)
		c.released[i] = nil
	}
	c.released = c.released[:0]
	if c.log.wanted {
		c.log.wanted, out.WantSnapshot = false, true
	}
	if c.raft.HasReady() {
		c.ready(out, c.raft.Ready())
	}
	c.runs = nil
	status := c.raft.BasicStatus()
	out.Leader, out.Term, out.Leading = status.Lead, status.GetTerm(), status.RaftState == etcd.StateLeader
	out.Decided, out.HandedOver = status.GetCommit(), c.votes.handedOver == out.Term
	c.leading = out.Leading
	if probe.Active() {
		c.observe(probe.RaftState{Group: c.group, Term: out.Term, Leader: out.Leader, Leading: out.Leading, Commit: status.GetCommit()})
	}
	return true
}

// observe shows what the core is to a simulation.
func (c *core) observe(s probe.RaftState) {
	if s != c.observed {
		c.observed = s
		probe.Observe(s)
	}
}

// promise shows to a simulation what a message promises that leaves.
func (c *core) promise(m *raftpb.Message) {
	switch {
	case m.GetType() == raftpb.MsgVote:
		probe.Observe(probe.RaftVoted{Group: c.group, Term: m.GetTerm(), For: c.node})
	case m.GetType() == raftpb.MsgVoteResp && !m.GetReject():
		probe.Observe(probe.RaftVoted{Group: c.group, Term: m.GetTerm(), For: m.GetTo()})
	case m.GetType() == raftpb.MsgAppResp && !m.GetReject():
		probe.Observe(probe.RaftAccepted{Group: c.group, Term: m.GetTerm(), Index: m.GetIndex()})
	}
}

func (c *core) ready(out *replica.Output, rd etcd.Ready) {
	var votes []*raftpb.Message
	var store *raftpb.Message
	for _, m := range rd.Messages {
		switch {
		case m.GetTo() == etcd.LocalAppendThread:
			store = m
		case m.GetTo() == etcd.LocalApplyThread:
			c.commit(out, m)
		case m.GetType() == raftpb.MsgVote && !probe.Bug("votes are asked for before the term is durable"):
			votes = append(votes, m)
		default:
			c.send(out, m)
		}
	}
	probe.Sometimes("raft: vote requests wait for the term", len(votes) > 0)
	if store == nil && len(votes) > 0 {
		panic("raft: a vote is asked for in a term that was not to be stored")
	}
	if store != nil {
		c.store(out, store, votes)
	}
	for _, r := range rd.ReadStates {
		if id, ok := decodeReadID(r.RequestCtx); ok {
			out.Reads = append(out.Reads, replica.ReadResult{ID: id, Index: r.Index})
		}
	}
}

// commit hands committed entries to the state machine.
func (c *core) commit(out *replica.Output, m *raftpb.Message) {
	if c.applies = append(c.applies, m.GetResponses()...); out.Committed == nil {
		out.Committed = make([]replica.Entry, 0, len(m.GetEntries()))
	}
	for _, e := range m.GetEntries() {
		entry := replica.Entry{Index: e.GetIndex(), Term: e.GetTerm(), Fence: e.GetTerm(), Data: e.GetData()}
		switch {
		case e.GetType() != raftpb.EntryNormal:
			entry.Kind, entry.Data = replica.EntryConfig, c.reconfigured(e)
		case len(e.GetData()) > 0:
			entry.Kind = replica.EntryCommand
		}
		out.Committed = append(out.Committed, entry)
	}
}

// store turns raft's order to its append thread into records.
//
// etcd's raft lets a candidate ask for votes before its own term is durable. Then
// the others' votes may elect it; it may append entries, crash, come back in the
// old term, be elected in the same term again, since they voted for it, and give
// other entries the same index and term. So the requests wait here for the record,
// as figure 2 of the Raft paper has it ("updated on stable storage before
// responding", and a candidate's vote for itself is one).
func (c *core) store(out *replica.Output, m *raftpb.Message, votes []*raftpb.Message) {
	if m.Term != nil {
		c.hard, c.hardNew = &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}, true
	}
	answers := append(m.GetResponses(), votes...)
	if len(answers) == 0 && len(m.GetEntries()) == 0 && m.GetSnapshot() == nil {
		// A new commit index alone need not be durable: it goes with the next record.
		return
	}
	if len(m.GetEntries()) == 0 && m.GetSnapshot() == nil && c.hard.GetTerm() == c.stored.GetTerm() && c.hard.GetVote() == c.stored.GetVote() {
		// The answers promise nothing beyond what is stored, or on its way there: the
		// notice of a new commit index, say, costs no write.
		probe.Sometimes("raft: an answer waits for an earlier record", len(c.appends) > 0)
		probe.Sometimes("raft: an answer leaves without a write", len(c.appends) == 0)
		if n := len(c.appends); n > 0 {
			c.appends[n-1].answers = append(c.appends[n-1].answers, answers...)
		} else {
			c.release(answers)
		}
		return
	}
	a := pendingAppend{answers: answers}
	if probe.Bug("promises leave before they are durable") {
		for _, m := range answers {
			if m.GetTo() != c.node {
				c.send(out, m)
			}
		}
	}
	if snap := m.GetSnapshot(); snap != nil {
		a.snapshot = snap
		from, to := c.keys.ProtocolRange(tagLog)
		out.Batch.DeleteRange(from, to)
		at := snapshotPosition(snap)
		probe.Observe(probe.RaftSnapshot{Group: c.group, Index: at.Index, Term: at.Term})
		out.Restore = &at
		c.written = at
		c.config, c.member = snapshotConfig(snap), true
		key := c.keys.Protocol(tagStart)
		out.Batch.Set(key, storage.AppendRecord(nil, key, encodeStart(at, c.config)))
	}
	if entries := m.GetEntries(); len(entries) > 0 {
		a.entries = c.writeEntries(out.Batch, entries)
	}
	if c.hardNew || len(a.entries) > 0 || a.snapshot != nil {
		key, hard := c.keys.Protocol(tagHard), c.hard
		if probe.Bug("the vote is not stored") {
			hard = &raftpb.HardState{Term: hard.Term, Commit: hard.Commit}
		}
		out.Batch.Set(key, storage.AppendRecord(nil, key, encodeHard(hard, c.written)))
		a.hard, c.stored, c.hardNew = c.hard, c.hard, false
	}
	c.lastToken++
	a.token = c.lastToken
	out.Token = a.token
	c.appends = append(c.appends, a)
	if probe.Bug("a leader counts its entries before they are durable") {
		c.Persisted(a.token)
	}
}

// writeEntries writes entries as runs, in the encoding in which they came or left
// where there is one.
func (c *core) writeEntries(b *storage.Batch, entries []*raftpb.Entry) [][]*raftpb.Entry {
	first := entries[0].GetIndex()
	before := c.termOf(first - 1)
	if probe.Active() {
		c.observeEntries(first, entries)
	}
	probe.Sometimes("raft: entries are overwritten", first <= c.written.Index)
	if first <= c.written.Index && !probe.Bug("overwritten entries stay on the disk") {
		_, to := c.keys.ProtocolRange(tagLog)
		b.DeleteRange(c.keys.Protocol(tagLog, first), to)
	}
	last := entries[len(entries)-1]
	c.written = replica.Position{Index: last.GetIndex(), Term: last.GetTerm()}
	var written [][]*raftpb.Entry
	for len(entries) > 0 {
		n, run := c.findRun(entries)
		probe.Sometimes("raft: entries are stored as they came or left", run != nil)
		if run == nil {
			n = len(entries)
			run = appendRun(make([]byte, 0, runSize(entries)), c.group, before, entries)
		}
		b.Set(c.keys.Protocol(tagLog, entries[0].GetIndex()), run)
		written = append(written, entries[:n:n])
		before, entries = entries[n-1].GetTerm(), entries[n:]
	}
	return written
}

func (c *core) observeEntries(first uint64, entries []*raftpb.Entry) {
	status := c.raft.BasicStatus()
	shown := probe.RaftEntries{Group: c.group, Term: status.GetTerm(), Leading: status.RaftState == etcd.StateLeader, First: first}
	for _, e := range entries {
		h := fnv.New64a()
		_, _ = h.Write(e.GetData())
		shown.Entries = append(shown.Entries, probe.RaftEntry{Term: e.GetTerm(), Hash: h.Sum64()})
	}
	probe.Observe(shown)
}

// termOf returns the term of an entry that was put into a batch.
func (c *core) termOf(index uint64) uint64 {
	if index == c.written.Index {
		return c.written.Term
	}
	// What is not durable yet is not in the log; the newest of it counts.
	for _, a := range slices.Backward(c.appends) {
		for _, run := range slices.Backward(a.entries) {
			if first := run[0].GetIndex(); index >= first && index-first < uint64(len(run)) {
				return run[index-first].GetTerm()
			}
		}
		if a.snapshot != nil && a.snapshot.GetMetadata().GetIndex() == index {
			return a.snapshot.GetMetadata().GetTerm()
		}
	}
	term, err := c.log.Term(index)
	if err != nil {
		panic(fmt.Errorf("raft: group %d: entry %d is not in the log: %w", c.group, index, err))
	}
	return term
}

// findRun returns the encoding of a run that entries begin with, and its length.
func (c *core) findRun(entries []*raftpb.Entry) (int, []byte) {
	for _, r := range c.runs {
		// Raft passes entries on by pointer, so that the same pointer is the same entry.
		if n := len(r.entries); n <= len(entries) && r.entries[0] == entries[0] && r.entries[n-1] == entries[n-1] {
			return n, r.bytes
		}
	}
	return 0, nil
}

// send encodes a message to a peer.
func (c *core) send(out *replica.Output, m *raftpb.Message) {
	if probe.Active() {
		c.promise(m)
	}
	if m.GetType() == raftpb.MsgSnap {
		out.Snapshots = append(out.Snapshots, replica.SnapshotRequest{
			To:      m.GetTo(),
			Index:   m.GetSnapshot().GetMetadata().GetIndex(),
			Message: appendMessage(nil, m),
		})
		return
	}
	var tail []byte
	if entries := m.GetEntries(); m.GetType() == raftpb.MsgApp && len(entries) > 0 {
		n, run := c.findRun(entries)
		if n != len(entries) {
			run = appendRun(make([]byte, 0, runSize(entries)), c.group, m.GetLogTerm(), entries)
			c.runs = append(c.runs, receivedRun{entries, run})
		}
		tail = run
	}
	start := len(c.head)
	c.head = appendMessage(c.head, m)
	out.Messages = append(out.Messages, replica.Message{To: m.GetTo(), Head: c.head[start:len(c.head):len(c.head)], Tail: tail})
}

// Status implements replica.Core.
func (c *core) Status() synod.GroupStatus {
	s := c.raft.Status()
	status := synod.GroupStatus{
		Node:   c.node,
		Leader: s.Lead,
		Term:   s.GetTerm(),
		First:  c.log.start.Index + 1,
		Last:   c.written.Index,
		Commit: s.GetCommit(),
	}
	for id := range s.Config.Voters.IDs() { //synod:ordered sorted below
		status.Members = append(status.Members, id)
	}
	for id := range s.Config.Learners { //synod:ordered sorted below
		status.Learners = append(status.Learners, id)
	}
	slices.Sort(status.Members)
	slices.Sort(status.Learners)
	for _, id := range slices.Sorted(slices.Values(append(slices.Clone(status.Members), status.Learners...))) {
		p, ok := s.Progress[id]
		if !ok || id == c.node {
			continue
		}
		status.Peers = append(status.Peers, synod.PeerStatus{Node: id, Match: p.Match, Active: p.RecentActive, State: stateName(p.State)})
	}
	return status
}

func stateName(s tracker.StateType) string {
	switch s {
	case tracker.StateProbe:
		return "probe"
	case tracker.StateSnapshot:
		return "snapshot"
	}
	return "replicate"
}
