package multipaxos

//synod:core

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// Core is one group's Multi-Paxos: acceptor, learner, election and proposer on one log. It
// implements replica.Core.
type Core struct {
	node, group                                           uint64
	priority                                              uint8
	quorums                                               Quorums
	quorumsHash                                           uint32
	electionTicks, heartbeatTicks                         int
	leases                                                bool
	messageBytes, inflightBytes, pendingLimit, applyLimit int
	log                                                   *valueLog

	acceptor
	learner
	election
	proposer
	reads

	// What the next Ready puts out.
	queue     []outgoing
	batch     storage.Batch // records that are not handed out yet
	unwritten bool          // the hard record must be
	flushed   bool          // records of the next token went out with Compact
	writes    []write       // handed out, not durable
	lastToken uint64
	persisted uint64
	head      []byte
	shown     bool // as the leader, in the last Output
	observed  probe.PaxosState
}

// write is a batch of records that is not durable yet.
type write struct {
	token    uint64
	promised Ballot
	start    uint64 // where the log begins with it
}

// outgoing is a message on its way. Its bytes are the message followed by the tail.
type outgoing struct {
	to   uint64
	m    message
	tail []byte
}

// maxHead is how much is kept from one Ready to the next, to encode messages in.
const maxHead = 64 << 10

var _ replica.Core = (*Core)(nil)

// ErrQuorums says that another node of the group has other Quorums in its Config.
var ErrQuorums = errors.New("paxos: the sender has other quorums: give all nodes of a group the same Config.Quorums")

func newCore(p Protocol, o replica.OpenOptions) (*Core, error) {
	log, hard, lost, err := openLog(o.Keys, o.Store, o.CacheBytes)
	if err != nil {
		return nil, err
	}
	if p.Whole {
		if err := errors.Join(log.contradicted(hard), log.damage(false)); err != nil {
			return nil, err // before what the state machine has been told takes the place of a part of it
		}
	}
	c := &Core{
		node: o.Node, group: o.Keys.Group(), priority: p.Priority, quorums: p.Quorums.clone(), log: log,
		electionTicks: max(o.ElectionTicks, 1), heartbeatTicks: max(o.HeartbeatTicks, 1), leases: o.Leases,
		messageBytes: int(o.MessageBytes), inflightBytes: int(o.InflightBytes), pendingLimit: int(o.PendingBytes), applyLimit: int(o.ApplyBytes),
	}
	c.quorumsHash = c.quorums.hash()
	switch hard.quorums {
	case c.quorums.mark():
	case 0:
		c.unwritten = true
	default:
		return nil, &synod.ConfigError{Package: "paxos", Field: "Quorums", Reason: fmt.Sprintf("group %d has decided by others: "+
			"what was acknowledged by those could be missed by these. Export the group and import it as a new one", c.group)}
	}
	c.promised, c.durable, c.begun = hard.promised, hard.promised, log.start.Index
	c.round = hard.promised.Round
	if lost {
		// A vote for a value of any ballot up to the promised one may be missing.
		probe.Sometimes("paxos: a record is missing", true)
		c.lost, c.lostLast = hard.promised, hard.last
	}
	c.trusted = !o.Held
	if o.Leases && !probe.Bug("a restarted member promises at once") {
		c.quiet = c.electionTicks
	}
	if o.Start.Index < log.start.Index {
		return nil, &storage.CorruptError{Group: c.group, Index: o.Start.Index, Key: o.Keys.Protocol(tagStart),
			Reason: fmt.Sprintf("the log begins after slot %d, but the state machine has only those up to %d", log.start.Index, o.Start.Index)}
	}
	if probe.Active() {
		c.observeOpened(o.Start.Index, lost)
	}
	if err := c.openLearner(o, hard); err != nil {
		return nil, err
	}
	c.findLost()
	if p.Whole {
		if err := log.damage(!c.lost.IsZero()); err != nil {
			return nil, err
		}
	}
	c.timeout = c.randomTimeout()
	return c, nil
}

// send queues a message.
func (c *Core) send(to uint64, m message) {
	if to != c.node {
		c.queue = append(c.queue, outgoing{to: to, m: m})
	}
}

// sendRun queues a message that ends in a run.
func (c *Core) sendRun(to uint64, m message, r *run) {
	c.queue = append(c.queue, outgoing{to, m, r.bytes})
}

// token returns the one that the records of the next Output get.
func (c *Core) token() uint64 { return c.lastToken + 1 }

// Step implements replica.Core.
func (c *Core) Step(from uint64, b []byte, frame int) error {
	if holdsRun(b) && 2*len(b) < frame {
		b = bytes.Clone(b) // its values are kept: the rest of the frame must not be
	}
	m, err := decodeMessage(c.group, from, b)
	if err != nil {
		return err
	}
	switch m.kind {
	case kindCanvass, kindPrepare, kindAccept, kindHeartbeat:
		if m.quorums != c.quorumsHash {
			return ErrQuorums
		}
	}
	c.seen(m.ballot)
	switch m.kind {
	case kindCanvass:
		c.onCanvass(from, m)
	case kindCanvassed:
		c.onCanvassed(from, m)
	case kindPrepare:
		c.onPrepare(from, m)
	case kindPromise:
		c.onPromise(from, m)
	case kindAccept, kindHeartbeat:
		c.onAccept(from, m)
	case kindAccepted:
		c.onAccepted(from, m)
	case kindRefused:
		c.onRefused(m)
	case kindLearn:
		c.onLearn(from, m)
	case kindLearned:
		c.onLearned(from, m)
	case kindRead:
		c.onRead(from, m)
	case kindReadIndex:
		c.onReadIndex(from, m)
	case kindLook:
		c.onLook(from, m)
	case kindLooked:
		c.onLooked(from, m)
	case kindTakeOver:
		c.onTakeOver(m)
	case kindSnapshot:
		c.onSnapshot(m)
	}
	return nil
}

// Tick implements replica.Core.
func (c *Core) Tick() {
	c.mayLook = true
	c.tickElection()
	c.tickLearner()
	if c.role == leading {
		c.tickLeader()
	}
}

// Persisted implements replica.Core.
func (c *Core) Persisted(token uint64) {
	if token > c.persisted {
		c.persisted = token
	}
	for len(c.writes) > 0 && c.writes[0].token <= token {
		c.durable, c.begun = c.writes[0].promised, c.writes[0].start
		c.writes = c.writes[1:]
	}
	if len(c.writes) == 0 {
		c.writes = nil
	}
	if c.restoring != 0 && c.restoring <= token {
		c.restoring = 0
	}
	c.grantPromises()
	c.owed = true
	switch {
	case c.role == preparing && !c.announced && c.durable == c.ballot:
		c.promiseSelf()
	case c.role == leading:
		c.acceptedSelf()
	}
	c.log.evict(c.held+1, c.persisted) // what waits for the state machine is read again, if it is much
}

// Ready implements replica.Core.
func (c *Core) Ready(out *replica.Output) bool {
	c.takeReads(out)
	c.fetch()
	if c.role == leading {
		c.propose()
		c.fill()
		c.retire()
	}
	c.acknowledge()
	c.lookAgain(out)
	if c.batch.Len() > 0 || c.unwritten || c.flushed {
		c.write(out.Batch)
		out.Token = c.lastToken
	}
	if c.restored != nil {
		out.Restore, c.restored = c.restored, nil
	}
	c.handOut(out)
	if c.head = c.head[:0]; cap(c.head) > maxHead {
		c.head = nil // there was a promise with much in it
	}
	for i := range c.queue {
		q := &c.queue[i]
		if probe.Active() {
			c.observeMessage(q)
		}
		start := len(c.head)
		c.head = q.m.append(c.head)
		for q.tail == nil && len(c.head)-start < replica.MinMessage {
			c.head = append(c.head, 0)
		}
		out.Messages = append(out.Messages, replica.Message{To: q.to, Head: c.head[start:len(c.head):len(c.head)], Tail: q.tail})
	}
	clear(c.queue)
	c.queue = c.queue[:0]
	out.Snapshots = append(out.Snapshots, c.offers...)
	c.offers = nil
	out.WantSnapshot, c.wanted = c.wanted, false
	c.describe(out)
	done := len(out.Messages) > 0 || out.Token != 0 || out.Restore != nil || len(out.Committed) > 0 || len(out.Reads) > 0 || len(out.Snapshots) > 0 || out.WantSnapshot
	state := probe.PaxosState{Group: c.group, Ballot: c.promised.shown(), Leader: out.Leader, Leading: out.Leading, Decided: c.decided}
	if state != c.observed {
		done = true
		c.observed = state
		if probe.Active() {
			probe.Observe(state)
		}
	}
	return done
}

// describe sets what is valid after every Ready.
func (c *Core) describe(out *replica.Output) {
	out.Leader, out.Term, out.Leading, out.Decided = c.leads(), c.promised.Round, c.role == leading, c.decided
	out.HandedOver = c.handedOver != 0 && c.handedOver == out.Term
	c.shown = out.Leading
}

// write hands out the records that have gathered, with one of what was promised.
func (c *Core) write(batch *storage.Batch) {
	batch.Append(&c.batch)
	c.batch.Reset()
	c.writeHard(batch)
	c.lastToken++
	c.writes = append(c.writes, write{c.lastToken, c.promised, c.log.start.Index})
	c.unwritten, c.flushed = false, false
}

func (c *Core) writeHard(batch *storage.Batch) {
	h := hardRecord{promised: c.promised, quorums: c.quorums.mark(), decided: c.held, last: max(c.log.last(), c.held), runs: c.log.runs, digest: c.log.digest}
	if !c.lost.IsZero() {
		h.digest++ // that something is missing stays true after a restart
		h.last = max(h.last, c.lostLast)
	}
	if probe.Bug("a promise is not stored") {
		h.promised = c.durable
	}
	key := c.log.keys.Protocol(tagHard)
	batch.Set(key, storage.AppendRecord(nil, key, h.encode()))
}

// Compact implements replica.Core.
func (c *Core) Compact(to replica.Position, config []byte, batch *storage.Batch) {
	if to.Index <= c.log.start.Index || to.Index > c.held {
		return
	}
	// The record of how many runs there are has to go with those that it counts.
	batch.Append(&c.batch)
	c.batch.Reset()
	c.log.compact(to, config, batch)
	c.writeHard(batch)
	c.flushed = true
}

// Unreachable implements replica.Core.
func (c *Core) Unreachable(node uint64) {
	if p := c.peer(node); p != nil {
		p.silent = max(p.silent, pauseTicks)
	}
}

// Trust implements replica.Core.
func (c *Core) Trust() {
	c.trusted = true
	c.owed = true
}

// Status implements replica.Core.
func (c *Core) Status() synod.GroupStatus {
	s := synod.GroupStatus{
		Node:     c.node,
		Leader:   c.leads(),
		Term:     c.promised.Round,
		First:    c.log.start.Index + 1,
		Last:     max(c.log.last(), c.held),
		Commit:   c.decided,
		Members:  slices.Clone(c.voters.members),
		Learners: c.conf.Nodes(func(p replica.Participant) bool { return !p.Voter && !p.Outgoing }),
	}
	if c.role != leading {
		return s
	}
	for i := range c.peers {
		p := &c.peers[i]
		state := "replicate"
		switch {
		case p.snapshot:
			state = "snapshot"
		case p.silent >= pauseTicks:
			state = "probe"
		}
		s.Peers = append(s.Peers, synod.PeerStatus{Node: p.node, Match: p.match, Active: p.silent < c.electionTicks && p.number > 0, State: state})
	}
	return s
}
