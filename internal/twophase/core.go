//synod:core

package twophase

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/synod-go/synod/storage"
)

// Errors of a core.
var (
	// ErrOverloaded says that a limit is reached.
	ErrOverloaded = errors.New("twophase: too many transactions")
	// ErrRolledBack says that others know of transactions that this node has not begun yet.
	ErrRolledBack = errors.New("twophase: another node knows a later state of this node's store")
	// ErrNotInDoubt says that there is nothing that an operator could decide.
	ErrNotInDoubt = errors.New("twophase: not in doubt")
	// ErrInvalid says that a transaction's branches are not as they must be.
	ErrInvalid = errors.New("twophase: invalid transaction")
	// ErrSuperseded says that a later run of this node has ended a transaction of this one.
	ErrSuperseded = errors.New("twophase: a later run of this node works on the same decisions")
)

// Ready is what a core wants done. Batch is to be made durable, and then acknowledged with Persisted; all
// else may be done at once, in any order, but for the calls of one branch, which keep theirs.
type Ready struct {
	Messages []Message
	Batch    *storage.Batch // nil: nothing
	Token    uint64
	Forced   bool // something waits for it
	Calls    []Call
	Decide   []Decision // proposals for the decision log: answered by Decided
	Results  []Result
	Damages  []Report

	Over []Progress // for the decision log: what it may forget
}

// Empty reports whether there is nothing to do.
func (r *Ready) Empty() bool {
	return len(r.Messages) == 0 && r.Batch == nil && len(r.Calls) == 0 && len(r.Decide) == 0 && len(r.Results) == 0 && len(r.Damages) == 0 && len(r.Over) == 0
}

type held[T any] struct {
	token uint64
	what  T
}

// horizon is what a node knows of a coordinator's incarnation.
type horizon struct {
	origin   origin
	over     uint64 // transactions below are over, says the coordinator
	floor    uint64 // the same or higher: none below is prepared any more
	readOnly uint64 // below it, there may be read-only votes
	doubtful uint64 // the same, of earlier runs: they are not remembered
	finished []key  // ascending, those that are remembered
	token    uint64 // of the record of readOnly
}

// Core is both sides of two-phase commit on one node: coordinator of the transactions that were begun here, and
// participant for the resources that are here.
type Core struct {
	cfg Config
	now int64 // for records alone: nothing depends on it
	err error

	// The batch that is being made has the token next. Tokens up to durable are.
	batch   *storage.Batch
	forced  bool
	next    uint64
	durable uint64

	ready         Ready
	local         []Message // to this node
	heldMessages  []held[Message]
	heldCalls     []held[Call]
	heldLastAgent []held[ID]

	// Coordinator.
	upcoming     uint64         // the lowest counter that was not given
	transactions []*transaction // ascending by ID
	byID         map[ID]*transaction
	over         []uint64 // incarnations of this node of which decisions may be forgotten

	// Participant.
	entries  []*entry // in the order in which they came
	byKey    map[key]*entry
	finished map[key]finish
	ones     int // of those, that decided
	horizons map[origin]*horizon
	damages  []Report
}

// finish is how a branch ended. It is remembered until the transaction is over for everybody.
type finish struct {
	outcome  Outcome
	one      bool // the branch decided: it must be able to say what
	readOnly bool // it voted so, and does not know the outcome
	told     bool // the coordinator has said so, or another participant: it is no no of its own
	token    uint64
}

// New returns a core that knows nothing. Load tells it what its store has.
func New(cfg Config) *Core {
	return &Core{
		cfg: cfg, next: 1, batch: new(storage.Batch), upcoming: cfg.Base,
		byID: make(map[ID]*transaction), byKey: make(map[key]*entry), finished: make(map[key]finish), horizons: make(map[origin]*horizon),
	}
}

// Delegated returns the transactions of an incarnation whose last agent was asked, as the keys of a store say: they are
// still to be decided. All others of earlier runs that have no decision never will have one; the decision log must be
// told so before it is asked anything, for what an earlier run has proposed may still be on its way there.
func Delegated(node, incarnation uint64, keys [][]byte) []uint64 {
	var list []uint64
	for _, k := range keys {
		if len(k) == 0 || k[0] != TagDelegated {
			continue
		}
		if id, err := DecodeID(k[1:]); err == nil && originOf(id) == (origin{node, incarnation}) {
			list = append(list, id.Counter)
		}
	}
	slices.Sort(list)
	return list
}

// Load takes in the records of the store, and the decisions of this node's transactions that are not
// forgotten. It is called once, first.
func (c *Core) Load(keys, values [][]byte, decisions []Decision) error {
	var delegated []Decision
	// The marks first: what is remembered beyond a limit raises them.
	for _, marks := range []bool{true, false} {
		for i, k := range keys {
			if len(k) == 0 || (k[0] == TagHorizon) != marks {
				continue
			}
			payload, err := storage.OpenRecord(k, values[i])
			if err != nil {
				return err
			}
			if err := c.load(k, payload, &delegated); err != nil {
				return &storage.CorruptError{Key: slices.Clone(k), Reason: err.Error()}
			}
		}
	}
	for _, h := range c.horizons { //synod:ordered each on its own
		h.doubtful = h.readOnly
	}
	for _, d := range decisions {
		if d.Outcome == OutcomeCommitted {
			c.addTransaction(&transaction{id: d.ID, phase: phaseCommitting, parts: partsOf(d.Branches, VoteYes), last: -1, answered: true, decided: true})
		} else {
			c.overNow(d.ID)
		}
	}
	for _, d := range delegated {
		if t := c.byID[d.ID]; t != nil {
			t.recorded = true
			c.undelegate(t) // decided since
			continue
		}
		t := &transaction{id: d.ID, phase: phaseDelegated, parts: partsOf(d.Branches, VoteYes), only: true, recorded: true, answered: true}
		t.last = slices.IndexFunc(d.Branches, func(b Branch) bool { return b.LastAgent })
		if t.last < 0 {
			return &storage.CorruptError{Key: delegatedKey(d.ID), Reason: "no last agent"}
		}
		t.parts[t.last].vote = 0
		c.addTransaction(t)
	}
	for _, e := range c.entries {
		c.resume(e)
	}
	return nil
}

func (c *Core) load(k, payload []byte, delegated *[]Decision) error {
	r, v := NewReader(k[1:]), NewReader(payload)
	switch k[0] {
	case TagBranch, TagFinished:
		kk := key{id: r.ID()}
		kk.resource = string(r.Rest())
		if r.Failed() || len(kk.resource) > MaxResourceBytes {
			return ErrMalformed
		}
		if k[0] == TagBranch {
			e, err := decodeBranch(kk, payload)
			if err != nil {
				return err
			}
			c.addEntry(e)
			return nil
		}
		o, f := Outcome(v.Byte(byte(OutcomeAborted))), v.Byte(3)
		if err := v.End("finished branch"); err != nil {
			return err
		}
		c.remember(kk, finish{outcome: o, one: f&1 != 0, told: f&2 != 0})
	case TagHorizon:
		o := origin{r.Uint64(), r.Uint64()}
		if err := r.End("horizon"); err != nil {
			return err
		}
		h := c.horizon(o)
		h.over, h.floor, h.readOnly = v.Uvarint(), v.Uvarint(), v.Uvarint()
		return v.End("horizon")
	case TagDelegated:
		d, err := DecodeDecision(payload)
		if err != nil {
			return err
		}
		*delegated = append(*delegated, d)
	case TagDamage:
		p := Report{ID: r.ID(), Node: r.Uint64(), Damage: Damage(v.Byte(byte(Forgotten)))}
		p.Resource = string(r.Rest())
		if r.Failed() {
			return ErrMalformed
		}
		c.damages = append(c.damages, p)
		return v.End("damage")
	default:
		return ErrMalformed
	}
	return nil
}

// SetNow says what time it is, in nanoseconds since 1970. It is written into records, so that a report may say since when
// a participant is in doubt; nothing else depends on it.
func (c *Core) SetNow(now int64) { c.now = now }

// Err returns why the core has stopped; nil while it works. A core that has stopped does nothing any more.
func (c *Core) Err() error { return c.err }

func (c *Core) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// Step takes in a message.
func (c *Core) Step(m Message) {
	if c.err != nil || m.To != c.cfg.Node {
		return
	}
	c.step(m)
	c.settle()
}

// settle delivers what the node says to itself.
func (c *Core) settle() {
	for len(c.local) > 0 {
		m := c.local[0]
		c.local = c.local[1:]
		c.step(m)
	}
}

func (c *Core) step(m Message) {
	if m.From == m.ID.Node && m.Floor != 0 {
		c.coordinatorSays(originOf(m.ID), m.Floor)
	}
	switch m.Kind {
	case KindVote, KindAck, KindResult:
		if m.ID.Node == c.cfg.Node && c.known(m.ID) {
			c.stepCoordinator(m)
		}
	case KindInquire:
		if m.Peer != "" {
			c.onPeerInquire(m)
		} else if m.ID.Node == c.cfg.Node {
			c.onInquire(m)
		}
	case KindAnswer:
		c.onAnswer(m)
	case KindPrepare, KindOutcome, KindCommitOne:
		if m.From == m.ID.Node {
			c.stepParticipant(m)
		}
	}
}

// known reports whether a transaction of this node can have been begun. What others know and this node does not was
// begun by a later state of its store.
func (c *Core) known(id ID) bool {
	if id.Incarnation == c.cfg.Incarnation && id.Counter >= c.upcoming {
		c.fail(fmt.Errorf("%w: transaction %v was begun, and the next one here is %d: the store is an old copy, and has forgotten what was decided", ErrRolledBack, id, c.upcoming))
		return false
	}
	return true
}

// Tick lets time pass.
func (c *Core) Tick() {
	if c.err != nil {
		return
	}
	for _, t := range slices.Clone(c.transactions) {
		c.tickTransaction(t)
	}
	for _, e := range slices.Clone(c.entries) {
		c.tickEntry(e)
	}
	c.coordinatorSays(origin{c.cfg.Node, c.cfg.Incarnation}, c.floor())
	if c.batch.Len() > 0 {
		c.forced = true // what was left to go with another one goes now
	}
	for _, incarnation := range c.over {
		c.ready.Over = append(c.ready.Over, c.progress(incarnation))
	}
	c.over = nil
	c.settle()
}

// Persisted says that the batches up to a token are durable.
func (c *Core) Persisted(token uint64) {
	if c.err != nil {
		return
	}
	c.durable = max(c.durable, token)
	messages, calls, agents := c.heldMessages, c.heldCalls, c.heldLastAgent
	c.heldMessages, c.heldCalls, c.heldLastAgent = nil, nil, nil
	for _, h := range messages {
		c.sendAfter(h.token, h.what)
	}
	for _, h := range calls {
		c.callAfter(h.token, h.what)
	}
	for _, h := range agents {
		c.askLastAgentAfter(h.token, h.what)
	}
	for _, t := range slices.Clone(c.transactions) {
		if t.phase == phaseClosing && t.token <= c.durable {
			c.end(t)
		}
	}
	c.settle()
}

// Ready returns what is to be done, and forgets it.
func (c *Core) Ready() Ready {
	r := c.ready
	c.ready = Ready{}
	if c.err != nil {
		return Ready{}
	}
	if c.forced {
		r.Batch, r.Token, r.Forced = c.batch, c.next, true
		c.batch, c.forced = new(storage.Batch), false
		c.next++
	}
	return r
}

// Flush makes the next Ready bring everything that is to be written.
func (c *Core) Flush() {
	if c.batch.Len() > 0 {
		c.forced = true
	}
}

// write adds a record to the next batch, and returns its token. forced: something waits for it.
func (c *Core) write(k, payload []byte, forced bool) uint64 {
	c.batch.Set(k, storage.AppendRecord(nil, k, payload))
	c.forced = c.forced || forced
	return c.next
}

// newest returns the token after which everything that was written so far is durable.
func (c *Core) newest() uint64 {
	if c.batch.Len() > 0 {
		return c.next
	}
	return c.next - 1
}

func (c *Core) erase(k []byte) { c.batch.Delete(k) }

func (c *Core) send(m Message) {
	m.From = c.cfg.Node
	if m.ID.Node == c.cfg.Node && m.ID.Incarnation == c.cfg.Incarnation {
		m.Floor = c.floor()
	}
	if m.To == c.cfg.Node {
		c.local = append(c.local, m)
		return
	}
	c.ready.Messages = append(c.ready.Messages, m)
}

// sendAfter sends once the record of a token is durable: the message promises what stands there.
func (c *Core) sendAfter(token uint64, m Message) {
	if token <= c.durable {
		c.send(m)
	} else if len(c.heldMessages) < 4*(c.cfg.MaxBranches+c.cfg.MaxTransactions) {
		// Beyond that the store has stood still for long, and what is asked for again is answered later.
		c.heldMessages = append(c.heldMessages, held[Message]{token, m})
	}
}

func (c *Core) callAfter(token uint64, call Call) {
	if token > c.durable {
		c.heldCalls = append(c.heldCalls, held[Call]{token, call})
		return
	}
	c.ready.Calls = append(c.ready.Calls, call)
}

func (c *Core) horizon(o origin) *horizon {
	h := c.horizons[o]
	if h == nil {
		h = &horizon{origin: o}
		c.horizons[o] = h
	}
	return h
}

func (c *Core) writeHorizon(h *horizon, forced bool) uint64 {
	b := binary.AppendUvarint(nil, h.over)
	b = binary.AppendUvarint(b, h.floor)
	return c.write(horizonKey(h.origin), binary.AppendUvarint(b, h.readOnly), forced)
}

// coordinatorSays takes in that all transactions of a coordinator below a counter are over: nothing of them needs to
// be remembered.
func (c *Core) coordinatorSays(o origin, floor uint64) {
	h := c.horizon(o)
	if floor > h.over {
		h.over = floor
		c.raise(h, max(floor, h.floor))
	}
}

// raise forgets what is below a floor.
func (c *Core) raise(h *horizon, floor uint64) {
	h.floor = floor
	forgotten := false
	h.finished = slices.DeleteFunc(h.finished, func(k key) bool {
		f := c.finished[k]
		if k.id.Counter >= floor || f.one && k.id.Counter >= h.over {
			return false
		}
		if !f.readOnly {
			c.erase(branchKey(TagFinished, k))
			forgotten = true
		}
		if f.one {
			c.ones--
		}
		delete(c.finished, k)
		return true
	})
	if forgotten {
		c.writeHorizon(h, false) // until then what is in the store says the same
	}
}

// remember keeps how a branch ended. If too many are kept, the oldest of the coordinator with the most give way:
// nothing below them is prepared any more.
func (c *Core) remember(k key, f finish) {
	h := c.horizon(originOf(k.id))
	if !c.remembers(h, k, f.one) {
		return
	}
	if _, there := c.finished[k]; !there {
		i, _ := slices.BinarySearchFunc(h.finished, k, key.compare)
		h.finished = slices.Insert(h.finished, i, k)
		if f.one {
			c.ones++
		}
	}
	c.finished[k] = f
	if len(c.finished)-c.ones <= c.cfg.MaxFinished {
		return
	}
	most := h
	for _, other := range c.horizons { //synod:ordered the largest is the same in any order
		if len(other.finished) > len(most.finished) || len(other.finished) == len(most.finished) && other.origin.compare(most.origin) < 0 {
			most = other
		}
	}
	c.raise(most, max(most.floor, most.finished[len(most.finished)/16].id.Counter+1))
}

// remembers reports whether a branch that is over is to be remembered.
func (c *Core) remembers(h *horizon, k key, one bool) bool {
	if h == nil {
		return true
	}
	if one {
		return k.id.Counter >= h.over
	}
	return k.id.Counter >= h.floor
}

// overNow notes that the decision of a transaction may be forgotten.
func (c *Core) overNow(id ID) {
	if !slices.Contains(c.over, id.Incarnation) {
		c.over = append(c.over, id.Incarnation)
	}
}

func (c *Core) progress(incarnation uint64) Progress {
	p := Progress{Node: c.cfg.Node, Incarnation: incarnation, Upcoming: c.upcoming}
	if incarnation != c.cfg.Incarnation {
		p.Upcoming = 1<<64 - 1 // it is gone
	}
	for _, t := range c.transactions {
		if t.id.Incarnation == incarnation {
			p.Open = append(p.Open, t.id.Counter)
		}
	}
	return p
}

func (c *Core) floor() uint64 {
	for _, t := range c.transactions {
		if t.id.Node == c.cfg.Node && t.id.Incarnation == c.cfg.Incarnation {
			return t.id.Counter
		}
	}
	return c.upcoming
}

// MaxDamages is how many damages are recorded: where there are more, nobody looks.
const MaxDamages = 1 << 14

// damage records that a participant did not do what was decided.
func (c *Core) damage(r Report) uint64 {
	i := slices.IndexFunc(c.damages, func(o Report) bool { return o.ID == r.ID && o.Node == r.Node && o.Resource == r.Resource })
	if i >= 0 {
		return 0
	}
	c.ready.Damages = append(c.ready.Damages, r)
	if len(c.damages) >= MaxDamages {
		return 0
	}
	c.damages = append(c.damages, r)
	return c.write(damageKey(r), []byte{byte(r.Damage)}, true)
}

// Damages returns what is recorded, in the order in which it was found, until ClearDamage.
func (c *Core) Damages() []Report { return slices.Clone(c.damages) }

// ClearDamage removes what is recorded of a transaction: somebody has dealt with it.
func (c *Core) ClearDamage(id ID) (found bool) {
	c.damages = slices.DeleteFunc(c.damages, func(r Report) bool {
		if r.ID == id {
			c.erase(damageKey(r))
			found = true
		}
		return r.ID == id
	})
	c.Flush()
	return found
}
