package txn

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/twophase"
)

// Tx is a transaction that has begun on this node. Its methods may be called concurrently; only one Commit or Abort has
// an effect.
type Tx struct {
	m  *Manager
	id ID
}

// ID returns its ID, under which resources are told what to do.
func (t *Tx) ID() ID { return t.id }

// Whose a call of the application is: the loop that takes it first, or the caller, who has gone.
const (
	callQueued uint32 = iota
	callTaken
	callCanceled
)

// do has the loop run fn, and waits for it. If ctx ends before the loop has begun, fn is not run.
func (m *Manager) do(ctx context.Context, fn func() error) error {
	var state atomic.Uint32
	var err error
	done := executor.NewEvent()
	if posted := m.post(func() {
		if !state.CompareAndSwap(callQueued, callTaken) {
			return
		}
		if err = m.alive(); err == nil {
			err = fn()
		}
		done.Set()
	}, 0); posted != nil {
		return posted
	}
	if waited := executor.From(ctx, m.ex).Wait(ctx, done); waited != nil {
		if state.CompareAndSwap(callQueued, callCanceled) {
			return fmt.Errorf("txn: node %d: not executed: %w", m.cfg.Node, waited)
		}
		_ = m.ex.Wait(context.WithoutCancel(ctx), done) // it is on its way
	}
	return err
}

// alive says why the manager does not work any more. The loop calls it.
func (m *Manager) alive() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	if m.closed {
		return fmt.Errorf("txn: node %d: %w", m.cfg.Node, synod.ErrClosed)
	}
	return nil
}

// maxWrites is how many batches may wait for a store that is slow, or full, before nothing new is begun, and nothing
// taken in.
const maxWrites = 4096

// Begin begins a transaction that this node coordinates, and gives it its ID. Nothing is written, and nobody is told: the
// application tells the resources what they are to do, under the ID, and then calls Commit or Abort. Too many
// transactions are synod.ErrOverloaded.
func (m *Manager) Begin(ctx context.Context) (*Tx, error) {
	var id twophase.ID
	err := m.do(ctx, func() error {
		if m.next >= m.reserved || m.inflight.Load() > maxWrites {
			return overloaded(fmt.Sprintf("node %d: the store does not keep up", m.cfg.Node))
		}
		id = twophase.ID{Node: m.cfg.Node, Incarnation: m.incarnation, Counter: m.next}
		if err := m.core.Open(id); err != nil {
			return m.translate(err)
		}
		m.next++
		m.reserve()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &Tx{m, ID(id)}, nil
}

// reserve has more counters reserved when half of them are given.
func (m *Manager) reserve() {
	if m.reserving || m.reserved-m.next > idBlock/2 {
		return
	}
	upto := m.reserved + idBlock
	m.reserving = m.task(func() {
		b := newCounterBatch(upto)
		err := m.cfg.Store.Commit(b)
		_ = m.post(func() {
			m.reserving = false
			if err == nil {
				m.reserved = upto
			}
			// A store that failed says so to the records, too; one that is full is asked with the next transaction.
		}, 0)
	})
}

// commitCall is a Commit that waits for its outcome.
type commitCall struct {
	done *executor.Event
	res  twophase.Result
	err  error
}

// Commit commits the transaction at all participants or at none. It returns
//
//	nil                             it is committed, durably: each participant has done so, or will
//	an *AbortError (ErrAborted)     it is aborted: no participant has committed, and none will
//	synod.ErrUnknownOutcome         ctx ended, or the manager was closed, before the outcome was known here
//	any other error                 Commit did nothing; the transaction is open as before
//
// It returns when the outcome is decided; participants may learn of it later, and until then keep what they have locked.
// A participant that was asked whether it can commit and never answered is one that said no, after Config.PrepareTimeout.
// The participants' order does not matter. A resource that is a single participant decides itself, without a record here.
func (t *Tx) Commit(ctx context.Context, participants ...Participant) error {
	m := t.m
	size := 0
	branches := make([]twophase.Branch, len(participants))
	for i, p := range participants {
		branches[i] = twophase.Branch(p)
		branches[i].Work = slices.Clone(p.Work)
		size += len(p.Work)
	}
	if size > m.cfg.MaxWorkBytes {
		return fmt.Errorf("txn: transaction %v: %w: %d bytes of work, Config.MaxWorkBytes is %d", t.id, synod.ErrTooLarge, size, m.cfg.MaxWorkBytes)
	}
	w := &commitCall{done: executor.NewEvent()}
	err := m.do(ctx, func() error {
		if err := m.core.commit(twophase.ID(t.id), branches); err != nil {
			return m.translate(err)
		}
		m.waiters[twophase.ID(t.id)] = w
		return nil
	})
	if err != nil {
		return err
	}
	if err := executor.From(ctx, m.ex).Wait(ctx, w.done); err != nil {
		_ = m.post(func() { delete(m.waiters, twophase.ID(t.id)) }, 0) // an error: it is gone already
		return fmt.Errorf("txn: transaction %v: %w: %w", t.id, synod.ErrUnknownOutcome, err)
	}
	switch {
	case w.err != nil:
		return w.err
	case w.res.Outcome == twophase.OutcomeCommitted:
		return nil
	case w.res.Outcome == twophase.OutcomeAborted:
		return &AbortError{ID: t.id, Node: w.res.Node, Reason: w.res.Reason}
	}
	return fmt.Errorf("txn: transaction %v: %w: node %d can't tell: %s", t.id, synod.ErrUnknownOutcome, w.res.Node, w.res.Reason)
}

// answer ends a Commit.
func (m *Manager) answer(res twophase.Result) {
	if w := m.waiters[res.ID]; w != nil {
		delete(m.waiters, res.ID)
		w.res = res
		w.done.Set()
	}
}

// Abort ends the transaction without committing it, and tells these participants once, so that they need not keep what
// they did for it. Whoever does not hear it, as messages get lost, has to give up by itself what was never prepared. It is no
// error if the transaction is over, or being committed: then nothing is done.
func (t *Tx) Abort(ctx context.Context, participants ...Participant) error {
	return t.m.do(ctx, func() error {
		branches := branchesOf(participants)
		t.m.core.abandon(twophase.ID(t.id), branches)
		return nil
	})
}

// Status is what a manager knows at one moment.
type Status struct {
	Node        uint64
	Incarnation uint64 // of its store

	Transactions []TransactionStatus // coordinated here and not over, ascending by ID
	InDoubt      []InDoubt           // what resources of this node wait for, oldest first
	Stuck        []Stuck             // what resources of this node fail to do
	Unfinished   []TransactionStatus // in three phases: what resources of this node have done, and must remember until the missing ones have, too
	Damages      []Damage            // what went wrong, until ClearDamage
	Refused      uint64              // frames that were malformed, misdelivered, or of a lost incarnation
	Dropped      uint64              // frames for which there was no room
}

// TransactionStatus is a transaction that is not over.
type TransactionStatus struct {
	ID      ID
	Phase   string        // open, preparing, delegated (the last agent is asked), deciding, committing, alone, closing; in three phases: open, preparing, alone, attempting, closing; of Status.Unfinished: committed, aborted
	Missing []Participant // whose vote or acknowledgement is waited for
	Unclear bool          // the last agent can't tell what it did: Settle
}

// InDoubt is a transaction whose outcome a resource waits for. It keeps what it has locked until then.
type InDoubt struct {
	ID          ID
	Resource    string
	Since       time.Time
	For         time.Duration // how long that is
	Coordinator uint64        // the node that is waited for
	Answer      string        // what it said last: nothing, undecided, or lost: it has not got the records any more
	Others      []Participant // who is asked as well, after Config.PeerTimeout
	Forced      Outcome       // what an operator decided, or Unknown
	State       string        // prepared; in three phases: initial (it has not voted, but was asked to take part in an election), wait (it has), pre-committed, pre-aborted
	Missing     []Participant // in three phases, if this resource leads the termination: whose answers it waits for. A majority is enough
}

// Stuck is a branch whose resource does not do what was decided. It is called again and again.
type Stuck struct {
	ID       ID
	Resource string
	Outcome  Outcome // what it is to do; Unknown: it does not say how a commit in one phase ended
	Failure  string
}

// Damage is a participant that did not do what was decided: an operator or the resource decided otherwise, or it has lost what it
// promised. Data are not what they should be, and somebody has to see to it.
type Damage struct {
	ID       ID
	Node     uint64
	Resource string
	Kind     string // committed: it has, and the transaction was aborted; aborted: the contrary; forgotten: it knows nothing of what it voted for
}

// Status reports what the manager knows.
func (m *Manager) Status(ctx context.Context) (Status, error) {
	s := Status{Node: m.cfg.Node, Incarnation: m.incarnation, Refused: m.refused.Load(), Dropped: m.dropped.Load()}
	err := m.do(ctx, func() error {
		now := m.ex.Now()
		for _, w := range m.core.Transactions() {
			s.Transactions = append(s.Transactions, TransactionStatus{ID: ID(w.ID), Phase: w.Phase, Missing: participantsOf(w.Missing), Unclear: w.Unclear})
		}
		for _, d := range m.core.doubts() {
			since := time.Unix(0, d.Since)
			answer := "nothing"
			if d.Heard {
				answer = d.Answer.String()
			}
			s.InDoubt = append(s.InDoubt, InDoubt{ID: ID(d.ID), Resource: d.Resource, Since: since, For: now.Sub(since), Coordinator: d.ID.Node,
				Answer: answer, Others: participantsOf(d.Peers), Forced: Outcome(d.Heuristic), State: d.state, Missing: participantsOf(d.missing)})
		}
		for _, w := range m.core.unfinished() {
			s.Unfinished = append(s.Unfinished, TransactionStatus{ID: ID(w.ID), Phase: w.Phase, Missing: participantsOf(w.Missing)})
		}
		for _, b := range m.core.Stuck() {
			s.Stuck = append(s.Stuck, Stuck{ID: ID(b.ID), Resource: b.Resource, Outcome: Outcome(b.Outcome), Failure: b.Failure})
		}
		for _, r := range m.core.Damages() {
			s.Damages = append(s.Damages, Damage{ID: ID(r.ID), Node: r.Node, Resource: r.Resource, Kind: r.Damage.String()})
		}
		return nil
	})
	return s, err
}

// Force decides what a resource of this node is in doubt about, in the coordinator's place: an operator's last means, where the
// coordinator does not come back and somebody needs what is locked. If it turns out to be the contrary of what was decided,
// that is recorded as damage, here and at the coordinator. It returns when the decision is taken up. What is not in doubt
// is ErrNotInDoubt.
func (m *Manager) Force(ctx context.Context, id ID, resource string, outcome Outcome) error {
	return m.do(ctx, func() error {
		m.cfg.Logger.Warn("an operator decides", "node", m.cfg.Node, "transaction", id.String(), "resource", resource, "outcome", outcome.String())
		if err := m.core.Force(twophase.ID(id), resource, twophase.Outcome(outcome)); err != nil {
			return m.translate(err)
		}
		return nil
	})
}

// Settle says what the last agent of a transaction of this node has done, where it can't tell itself, see
// TransactionStatus.Unclear: somebody has looked. All other participants do the same. What does not wait for this is ErrNotInDoubt.
func (m *Manager) Settle(ctx context.Context, id ID, outcome Outcome) error {
	return m.do(ctx, func() error {
		m.cfg.Logger.Warn("an operator says what a last agent did", "node", m.cfg.Node, "transaction", id.String(), "outcome", outcome.String())
		if err := m.core.Settle(twophase.ID(id), twophase.Outcome(outcome)); err != nil {
			return m.translate(err)
		}
		return nil
	})
}

// ClearDamage removes what is recorded of a transaction: somebody has seen to it. What is not recorded is ErrInvalid.
func (m *Manager) ClearDamage(ctx context.Context, id ID) error {
	return m.do(ctx, func() error {
		if !m.core.ClearDamage(twophase.ID(id)) {
			return fmt.Errorf("%w: no damage of transaction %v is recorded", ErrInvalid, id)
		}
		return nil
	})
}
