//synod:core

package threephase

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/storage"
)

// Errors of a core: those of package twophase.
var (
	ErrOverloaded = twophase.ErrOverloaded
	ErrRolledBack = twophase.ErrRolledBack
	ErrNotInDoubt = twophase.ErrNotInDoubt
	ErrInvalid    = twophase.ErrInvalid
)

// Ready is what a core wants done. Batch is to be made durable, and then acknowledged with Persisted; all
// else may be done at once, in any order, but for the calls of one branch, which keep theirs.
type Ready struct {
	Messages []Message
	Batch    *storage.Batch // nil: nothing
	Token    uint64
	Forced   bool // something waits for it
	Calls    []Call
	Results  []Result
	Damages  []Report
}

// Empty reports whether there is nothing to do.
func (r *Ready) Empty() bool {
	return len(r.Messages) == 0 && r.Batch == nil && len(r.Calls) == 0 && len(r.Results) == 0 && len(r.Damages) == 0
}

type held[T any] struct {
	token uint64
	what  T
}

// horizon is what a node knows of a coordinator's incarnation.
type horizon struct {
	origin   origin
	floor    uint64   // none below is prepared any more
	finished []finish // ascending, those that are remembered
}

// finish is how a branch ended that is over for all, or of which nobody may ever have been asked to pre-commit.
type finish struct {
	key
	outcome  Outcome
	readOnly bool // it had nothing to commit
	token    uint64
}

// Core is both sides of three-phase commit on one node: coordinator of the transactions that were begun here, and
// participant for the resources that are here, each of which may be elected to terminate a transaction.
type Core struct {
	cfg Config
	now int64 // for records alone: nothing depends on it
	err error

	// The batch that is being made has the token next. Tokens up to durable are.
	batch   *storage.Batch
	forced  bool
	next    uint64
	durable uint64

	ready        Ready
	local        []Message // to this node
	heldMessages []held[Message]
	heldCalls    []held[Call]

	upcoming     uint64         // the lowest counter that was not given
	transactions []*transaction // ascending by ID

	entries  []*entry   // ascending by key
	horizons []*horizon // ascending by origin
	damages  []Report
}

// New returns a core that knows nothing. Load tells it what its store has.
func New(cfg Config) *Core {
	return &Core{cfg: cfg, next: 1, batch: new(storage.Batch), upcoming: cfg.Base}
}

// Load takes in the records of the store. It is called once, first.
func (c *Core) Load(keys, values [][]byte) error {
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
			if err := c.load(k, payload); err != nil {
				return &storage.CorruptError{Key: slices.Clone(k), Reason: err.Error()}
			}
		}
	}
	for _, e := range c.entries {
		c.resume(e)
	}
	return nil
}

func (c *Core) load(k, payload []byte) error {
	r, v := twophase.NewReader(k[1:]), twophase.NewReader(payload)
	switch k[0] {
	case TagBranch, TagFinished:
		kk := key{id: r.ID()}
		kk.resource = string(r.Rest())
		if r.Failed() || len(kk.resource) > twophase.MaxResourceBytes {
			return ErrMalformed
		}
		if k[0] == TagBranch {
			e, err := decodeBranch(c.cfg.Node, kk, payload)
			if err != nil {
				return err
			}
			c.addEntry(e)
			return nil
		}
		o, readOnly := Outcome(v.Byte(byte(aborted))), v.Byte(1) == 1
		if o == unknown {
			v.Fail()
		}
		if err := v.End("finished branch"); err != nil {
			return err
		}
		c.remember(finish{key: kk, outcome: o, readOnly: readOnly})
	case TagHorizon:
		o := origin{r.Uint64(), r.Uint64()}
		if err := r.End("horizon"); err != nil {
			return err
		}
		c.horizon(o).floor = v.Uvarint()
		return v.End("horizon")
	case TagDamage:
		p := Report{ID: r.ID(), Node: r.Uint64(), Damage: Damage(v.Byte(byte(twophase.Forgotten)))}
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
func (c *Core) SetNow(now int64) { c.now = max(0, now) }

// Err returns why the core has stopped; nil while it works. A core that has stopped does nothing any more.
func (c *Core) Err() error { return c.err }

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
	c.local = nil
}

func (c *Core) step(m Message) {
	if m.From == m.ID.Node && m.Floor != 0 {
		c.raise(c.horizon(originOf(m.ID)), m.Floor)
	}
	k := key{m.ID, m.Resource}
	switch m.Kind {
	case KindVote, KindInquire:
		if m.ID.Node == c.cfg.Node && c.known(m.ID) {
			c.stepCoordinator(m)
		}
	case KindState, KindAck, KindDone:
		if m.Ballot.Rank == 0 {
			if m.ID.Node == c.cfg.Node && c.known(m.ID) {
				c.stepCoordinator(m)
			}
		} else if e := c.leader(m.ID, int(m.Ballot.Rank)); e != nil {
			c.stepLeader(e, m)
		}
	case KindPrepare:
		if m.From == m.ID.Node {
			c.onPrepare(k, m)
		}
	case KindAnswer:
		if m.From == m.ID.Node {
			c.onAnswer(k, m)
		}
	case KindElect, KindPreCommit, KindPreAbort:
		c.onAttempt(k, m)
	case KindOutcome:
		c.onOutcome(k, m)
	case KindOver:
		if t := c.transaction(m.ID); t != nil && m.Ballot.Rank == 0 {
			c.forgotten(t, m)
			return
		}
		c.onOver(k, m)
	}
}

// known reports whether a transaction of this node can have been begun. What others know and this node does not was
// begun by a later state of its store.
func (c *Core) known(id ID) bool {
	if id.Incarnation == c.cfg.Incarnation && id.Counter >= c.upcoming {
		c.err = fmt.Errorf("%w: transaction %v was begun, and the next one here is %d: the store is an old copy", ErrRolledBack, id, c.upcoming)
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
	c.raise(c.horizon(origin{c.cfg.Node, c.cfg.Incarnation}), c.floor())
	c.settle()
	if c.batch.Len() > 0 {
		c.forced = true // what was left to go with another one goes now
	}
}

// Persisted says that the batches up to a token are durable.
func (c *Core) Persisted(token uint64) {
	if c.err != nil {
		return
	}
	c.durable = max(c.durable, token)
	messages, calls := c.heldMessages, c.heldCalls
	c.heldMessages, c.heldCalls = nil, nil
	for _, h := range messages {
		c.sendAfter(h.token, h.what)
	}
	for _, h := range calls {
		c.callAfter(h.token, h.what)
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
func (c *Core) Flush() { c.forced = c.forced || c.batch.Len() > 0 }

// write adds a record to the next batch, and returns its token. forced: something waits for it.
func (c *Core) write(k, payload []byte, forced bool) uint64 {
	c.batch.Set(k, storage.AppendRecord(nil, k, payload))
	c.forced = c.forced || forced
	return c.next
}

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
	} else if len(c.heldMessages) < 4*(c.cfg.MaxBranches+c.cfg.MaxTransactions+c.cfg.MaxParticipants) {
		// Beyond that the store has stood still for long, and what is asked for again is answered later.
		c.heldMessages = append(c.heldMessages, held[Message]{token, m})
	}
}

// sendForced sends once a record is durable that would otherwise wait for another one.
func (c *Core) sendForced(token uint64, m Message) {
	c.forced = c.forced || token == c.next && c.batch.Len() > 0
	c.sendAfter(token, m)
}

func (c *Core) callAfter(token uint64, call Call) {
	if token > c.durable {
		c.heldCalls = append(c.heldCalls, held[Call]{token, call})
		return
	}
	c.ready.Calls = append(c.ready.Calls, call)
}

func (c *Core) horizon(o origin) *horizon {
	i, found := slices.BinarySearchFunc(c.horizons, o, func(h *horizon, o origin) int { return h.origin.compare(o) })
	if !found {
		c.horizons = slices.Insert(c.horizons, i, &horizon{origin: o})
	}
	return c.horizons[i]
}

// below reports whether a transaction is one that nobody is asked to prepare any more.
func (c *Core) below(id ID) bool {
	i, found := slices.BinarySearchFunc(c.horizons, originOf(id), func(h *horizon, o origin) int { return h.origin.compare(o) })
	return found && id.Counter < c.horizons[i].floor
}

func (c *Core) writeHorizon(h *horizon) {
	c.write(horizonKey(h.origin), binary.AppendUvarint(nil, h.floor), false)
}

// raise forgets what is below a floor.
func (c *Core) raise(h *horizon, floor uint64) {
	if floor <= h.floor {
		return
	}
	h.floor = floor
	n := 0
	for n < len(h.finished) && h.finished[n].id.Counter < floor {
		c.batch.Delete(branchKey(TagFinished, h.finished[n].key))
		n++
	}
	if n > 0 {
		h.finished = slices.Delete(h.finished, 0, n)
		c.writeHorizon(h) // until then what is in the store says the same
	}
}

// remember keeps how a branch ended. If too many are kept, the oldest of the coordinator with the most give way:
// nothing below them is prepared any more.
func (c *Core) remember(f finish) {
	h := c.horizon(originOf(f.id))
	if f.id.Counter < h.floor {
		return
	}
	i, found := slices.BinarySearchFunc(h.finished, f, func(a, b finish) int { return a.compare(b.key) })
	if found {
		h.finished[i] = f
		return
	}
	h.finished = slices.Insert(h.finished, i, f)
	count, most := 0, h
	for _, o := range c.horizons {
		count += len(o.finished)
		if len(o.finished) > len(most.finished) {
			most = o
		}
	}
	if count > c.cfg.MaxFinished {
		c.raise(most, most.finished[len(most.finished)/16].id.Counter+1)
	}
}

func (c *Core) finished(k key) (finish, bool) {
	i, found := slices.BinarySearchFunc(c.horizons, originOf(k.id), func(h *horizon, o origin) int { return h.origin.compare(o) })
	if !found {
		return finish{}, false
	}
	h := c.horizons[i]
	i, found = slices.BinarySearchFunc(h.finished, k, func(f finish, k key) int { return f.compare(k) })
	if !found {
		return finish{}, false
	}
	return h.finished[i], true
}

// floor is the lowest counter of this run whose outcome this node does not know: its participants may still be asked to prepare, or
// what became of it.
func (c *Core) floor() uint64 {
	for _, t := range c.transactions {
		if t.phase != phaseClosing {
			return t.id.Counter
		}
	}
	return c.upcoming
}

// damage records that a participant did not do what was decided.
func (c *Core) damage(r Report) uint64 {
	if slices.ContainsFunc(c.damages, func(o Report) bool { return o.ID == r.ID && o.Node == r.Node && o.Resource == r.Resource }) {
		return 0
	}
	probe.Sometimes("3pc: damage is recorded", true)
	c.ready.Damages = append(c.ready.Damages, r)
	if len(c.damages) >= twophase.MaxDamages {
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
			c.batch.Delete(damageKey(r))
			found = true
		}
		return r.ID == id
	})
	c.Flush()
	return found
}
