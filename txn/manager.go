package txn

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/threephase"
	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/storage"
)

// Keys of a manager in its store: the core's records are behind prefixCore, those of a LocalLog that is its own behind
// prefixDecisions.
const (
	keyIdentity     = "i"
	keyCounter      = "n"
	prefixCore      = "c"
	prefixDecisions = "d"
)

// Manager runs transactions on one node: it coordinates those that begin here, and speaks for the node's resources. All
// methods may be called concurrently.
type Manager struct {
	cfg         Config
	ex          executor.Executor
	ctx         context.Context // of resources and of the decision log; ends with Close
	cancel      context.CancelFunc
	incarnation uint64
	cluster     uint64
	records     storage.Store
	decisions   DecisionLog
	wake        *executor.Event
	refused     atomic.Uint64
	dropped     atomic.Uint64
	inflight    atomic.Int64 // batches that are not durable yet

	mu         sync.Mutex
	inbox      []func()
	inboxBytes int
	running    int // tasks, the loop among them
	closed     bool
	err        error
	ended      []*executor.Event
	peers      map[uint64]uint64 // the incarnation under which each was met

	// What follows belongs to the loop.
	core      engine
	waiters   map[twophase.ID]*commitCall
	next      uint64 // counter
	reserved  uint64 // counters below may be given
	reserving bool
	writes    []unwritten
	ticking   bool
	over      []twophase.Progress
	telling   bool
}

// unwritten is a batch that the store has not taken yet.
type unwritten struct {
	batch *storage.Batch
	done  func(error)
}

// Start opens the manager's records in the store, asks the resources what they are in doubt about, ends what an earlier run has
// left, and begins to serve. ctx carries the executor, and bounds the start, but not the manager's life. A
// decision log that can't be reached is asked again until ctx ends.
func Start(ctx context.Context, cfg Config) (*Manager, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	ex := executor.From(ctx, executor.Real())
	m := &Manager{
		cfg: cfg, ex: ex, cluster: clusterHash(cfg.Cluster), wake: executor.NewEvent(),
		records: storage.Prefix(cfg.Store, []byte(cfg.Protocol.prefix())), decisions: cfg.Decisions,
		waiters: make(map[twophase.ID]*commitCall), peers: make(map[uint64]uint64),
	}
	fresh, identity, err := m.identify()
	if err != nil {
		return nil, err
	}
	orphans, err := m.inDoubt(ctx, fresh)
	if err != nil {
		return nil, err
	}
	if err := cfg.Store.Commit(identity); err != nil {
		return nil, fmt.Errorf("txn: node %d: %w", cfg.Node, err)
	}
	if err := m.unchanged(ctx); err != nil {
		return nil, err
	}
	if err := m.openCore(ctx); err != nil {
		return nil, err
	}
	for _, o := range orphans {
		m.core.Orphan(o.id, o.resource)
	}
	m.ctx, m.cancel = context.WithCancel(executor.With(context.WithoutCancel(ctx), ex))
	m.task(m.loop)
	cfg.Transport.Handle(m.handle)
	m.wake.Set()
	return m, nil
}

// openCore makes a core of what the store has.
func (m *Manager) openCore(ctx context.Context) (err error) {
	cfg := &m.cfg
	keys, values, err := m.load()
	if err != nil {
		return err
	}
	if cfg.Protocol != TwoPhase {
		settings := cfg.threePhase()
		settings.Incarnation, settings.Base = m.incarnation, m.next
		c := threephase.New(settings)
		c.SetNow(m.ex.Now().UnixNano())
		m.core = threePhase{c}
		if err := c.Load(keys, values); err != nil {
			return fmt.Errorf("txn: node %d: %w", cfg.Node, err)
		}
		return nil
	}
	if m.decisions == nil {
		if m.decisions, err = OpenLocalLog(ctx, storage.Prefix(cfg.Store, []byte(prefixDecisions))); err != nil {
			return err
		}
	}
	known, err := m.recover(ctx, twophase.Delegated(cfg.Node, m.incarnation, keys))
	if err != nil {
		return err
	}
	settings := cfg.core()
	settings.Incarnation, settings.Base = m.incarnation, m.next
	c := twophase.New(settings)
	c.SetNow(m.ex.Now().UnixNano())
	m.core = twoPhase{c}
	if err := c.Load(keys, values, known); err != nil {
		return fmt.Errorf("txn: node %d: %w", cfg.Node, err)
	}
	return nil
}

// unchanged refuses another protocol than that of what the store has under way: what was promised under one means nothing under the
// other.
func (m *Manager) unchanged(ctx context.Context) error {
	changed := func(p Protocol) error {
		return &synod.ConfigError{Package: "txn", Field: "Protocol", Reason: fmt.Sprintf("%v: the store has transactions of %v that are not over: run that on all nodes until Status has none", m.cfg.Protocol, p)}
	}
	for p := TwoPhase; p <= SkeenThreePhase; p++ {
		if p == m.cfg.Protocol {
			continue
		}
		for _, tag := range []byte{twophase.TagBranch, twophase.TagDelegated} {
			it, err := storage.Prefix(m.cfg.Store, []byte(p.prefix())).Scan([]byte{tag}, []byte{tag + 1})
			var keys [][]byte
			if err == nil {
				keys, _, err = storage.Collect(it)
			}
			if err != nil {
				return fmt.Errorf("txn: node %d: records: %w", m.cfg.Node, err)
			}
			if len(keys) > 0 {
				return changed(p)
			}
		}
	}
	if m.cfg.Protocol == TwoPhase {
		return nil
	}
	log, err := OpenLocalLog(ctx, storage.Prefix(m.cfg.Store, []byte(prefixDecisions)))
	if err != nil {
		return err
	}
	list, err := log.Recover(ctx, Progress{Node: m.cfg.Node, Incarnation: m.incarnation, Upcoming: m.next})
	if err != nil {
		return fmt.Errorf("txn: node %d: %w", m.cfg.Node, err)
	}
	for _, d := range list {
		if d.Outcome == Committed {
			return changed(TwoPhase)
		}
	}
	return nil
}

// identify reads whose store it is. The batch makes it this node's, if it is new, and reserves counters.
func (m *Manager) identify() (fresh bool, b *storage.Batch, err error) {
	b = new(storage.Batch)
	payload, err := record(m.cfg.Store, keyIdentity)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		fresh = true
		for m.incarnation == 0 {
			m.incarnation = m.ex.Uint64()
		}
		payload = binary.BigEndian.AppendUint64(nil, m.cfg.Node)
		payload = binary.BigEndian.AppendUint64(payload, m.incarnation)
		payload = append(payload, m.cfg.Cluster...)
		b.Set([]byte(keyIdentity), storage.AppendRecord(nil, []byte(keyIdentity), payload))
	case err != nil:
		return false, nil, fmt.Errorf("txn: node %d: identity: %w", m.cfg.Node, err)
	case len(payload) < 16:
		return false, nil, fmt.Errorf("txn: node %d: %w", m.cfg.Node, &storage.CorruptError{Key: []byte(keyIdentity), Reason: "the identity is cut"})
	case binary.BigEndian.Uint64(payload) != m.cfg.Node || string(payload[16:]) != m.cfg.Cluster:
		return false, nil, fmt.Errorf("%w: it is that of node %d of cluster %q, and this is node %d of %q", ErrForeignStore,
			binary.BigEndian.Uint64(payload), payload[16:], m.cfg.Node, m.cfg.Cluster)
	default:
		m.incarnation = binary.BigEndian.Uint64(payload[8:])
	}
	m.next = 1
	switch payload, err := record(m.cfg.Store, keyCounter); {
	case errors.Is(err, storage.ErrNotFound) && fresh:
	case err != nil:
		return false, nil, fmt.Errorf("txn: node %d: counter: %w", m.cfg.Node, err)
	case len(payload) != 8:
		return false, nil, fmt.Errorf("txn: node %d: %w", m.cfg.Node, &storage.CorruptError{Key: []byte(keyCounter), Reason: "the counter is cut"})
	default:
		m.next = binary.BigEndian.Uint64(payload) + 1 // above all that was ever said to be upcoming
	}
	m.reserved = m.next + idBlock
	setCounter(b, m.reserved)
	return fresh, b, nil
}

func setCounter(b *storage.Batch, counter uint64) {
	b.Set([]byte(keyCounter), storage.AppendRecord(nil, []byte(keyCounter), binary.BigEndian.AppendUint64(nil, counter)))
}

func record(s storage.Store, key string) ([]byte, error) {
	value, err := s.Get([]byte(key))
	if err != nil {
		return nil, err
	}
	return storage.OpenRecord([]byte(key), value)
}

func (m *Manager) load() (keys, values [][]byte, err error) {
	it, err := m.records.Scan([]byte{0}, nil)
	if err == nil {
		keys, values, err = storage.Collect(it)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("txn: node %d: records: %w", m.cfg.Node, err)
	}
	return keys, values, nil
}

// recover ends in the decision log what earlier runs have begun, but for what is open, and returns what they decided.
// The first counter of this run is higher with each attempt, so that none is taken for one of an old copy of the store.
func (m *Manager) recover(ctx context.Context, open []uint64) ([]twophase.Decision, error) {
	for ; ; m.next++ {
		if m.next >= m.reserved {
			return nil, overloaded(fmt.Sprintf("node %d: too many attempts to reach the decision log", m.cfg.Node))
		}
		list, err := m.decisions.Recover(ctx, Progress{Node: m.cfg.Node, Incarnation: m.incarnation, Upcoming: m.next, Open: open})
		if err == nil {
			var known []twophase.Decision
			for _, d := range list {
				known = append(known, d.core())
			}
			return known, nil
		}
		err = fmt.Errorf("txn: node %d: the decision log does not say what was decided: %w", m.cfg.Node, err)
		if errors.Is(err, ErrRolledBack) || errors.Is(err, ErrInvalid) || errors.Is(err, storage.ErrFailed) || errors.Is(err, synod.ErrClosed) {
			return nil, err
		}
		m.cfg.Logger.Warn("the decision log can't be reached, and is asked again", "node", m.cfg.Node, "error", err)
		pause := executor.NewEvent()
		timer := m.ex.AfterFunc(m.cfg.ResendInterval, pause.Set)
		waited := m.ex.Wait(ctx, pause)
		timer.Stop()
		if waited != nil {
			return nil, fmt.Errorf("%w (%w)", err, waited)
		}
	}
}

type orphan struct {
	id       twophase.ID
	resource string
}

// inDoubt asks the resources what they have prepared.
func (m *Manager) inDoubt(ctx context.Context, fresh bool) ([]orphan, error) {
	var list []orphan
	for _, name := range m.cfg.names() {
		ids, err := m.cfg.Resources[name].InDoubt(ctx)
		if err != nil {
			return nil, fmt.Errorf("txn: node %d: resource %q does not say what it is in doubt about: %w", m.cfg.Node, name, err)
		}
		if fresh && len(ids) > 0 {
			return nil, fmt.Errorf("%w: resource %q has %d prepared transactions, %v the first, and this store was never used: what was promised for them is not known",
				ErrStoreLost, name, len(ids), ids[0])
		}
		for _, id := range ids {
			list = append(list, orphan{twophase.ID(id), name})
		}
	}
	return list, nil
}

// task runs fn as a task that Close waits for; false if it is closed.
func (m *Manager) task(fn func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.running++
	m.ex.Go(func() {
		defer m.leave()
		fn()
	})
	return true
}

func (m *Manager) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running--
	if m.running == 0 {
		for _, e := range m.ended {
			e.Set()
		}
		m.ended = nil
	}
}

// post has the loop run fn. It returns why the loop does not, any more.
func (m *Manager) post(fn func(), size int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.err != nil:
		return m.err
	case m.closed:
		return fmt.Errorf("txn: node %d: %w", m.cfg.Node, synod.ErrClosed)
	case size > 0 && m.inboxBytes+size > m.cfg.MaxInboxBytes:
		return overloaded("inbox")
	}
	m.inbox = append(m.inbox, fn)
	m.inboxBytes += size
	m.wake.Set()
	return nil
}

// handle receives from the transport.
func (m *Manager) handle(from uint64, payload []byte) {
	a, bodies, err := openFrame(payload)
	if err == nil && a.protocol != m.cfg.Protocol {
		err = fmt.Errorf("%w: it is of %v, and this node runs %v: Config.Protocol is the same on all nodes", errFrame, a.protocol, m.cfg.Protocol)
	}
	if err == nil && (a.cluster != m.cluster || a.from != from || a.to != m.cfg.Node) {
		err = fmt.Errorf("%w: it is from node %d to node %d, of this cluster or another", errFrame, a.from, a.to)
	}
	if err == nil {
		err = m.meet(from, a.incarnation)
	}
	if err == nil && m.inflight.Load() > maxWrites {
		m.dropped.Add(1) // the store does not keep up: what comes would only pile up before it
		return
	}
	var step func()
	if err == nil {
		step, err = m.core.open(from, m.cfg.Node, bodies)
	}
	if err != nil {
		m.refused.Add(1)
		m.cfg.Logger.Warn("a frame was refused", "node", m.cfg.Node, "from", from, "error", err)
		return
	}
	if m.post(step, len(payload)) != nil {
		m.dropped.Add(1)
	}
}

// meet holds a peer to the incarnation under which it was met: one that comes back with another store has forgotten what it
// promised.
func (m *Manager) meet(peer, incarnation uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch known := m.peers[peer]; {
	case known == 0:
		m.peers[peer] = incarnation
	case known != incarnation:
		return fmt.Errorf("txn: node %d has another store than before: a node whose store was lost comes back under a new ID", peer)
	}
	return nil
}

// loop is the task that the core belongs to.
func (m *Manager) loop() {
	m.work()
	for {
		_ = m.ex.Wait(context.WithoutCancel(m.ctx), m.wake) // no error: it ends by closed
		m.mu.Lock()
		inbox, closed := m.inbox, m.closed || m.err != nil
		m.inbox, m.inboxBytes = nil, 0
		m.mu.Unlock()
		m.core.SetNow(m.ex.Now().UnixNano())
		for _, fn := range inbox {
			fn()
			m.work()
		}
		if closed || m.core.Err() != nil {
			break
		}
	}
	m.fail(m.core.Err())
}

// fail ends all that waits.
func (m *Manager) fail(err error) {
	m.mu.Lock()
	if err != nil && m.err == nil {
		m.err = m.translate(err)
		m.cfg.Logger.Error("the manager has stopped", "node", m.cfg.Node, "error", m.err)
	}
	cause := m.err
	if cause == nil {
		cause = fmt.Errorf("txn: node %d: %w", m.cfg.Node, synod.ErrClosed)
	}
	m.mu.Unlock()
	for id, w := range m.waiters {
		delete(m.waiters, id)
		w.err = fmt.Errorf("txn: transaction %v: %w: %w", ID(id), synod.ErrUnknownOutcome, cause)
		w.done.Set()
	}
	// What was posted since is not run: those who wait for it are told.
	m.mu.Lock()
	inbox := m.inbox
	m.inbox = nil
	m.closed = true
	m.mu.Unlock()
	for _, fn := range inbox {
		fn()
	}
	for id, w := range m.waiters {
		delete(m.waiters, id)
		w.err = fmt.Errorf("txn: transaction %v: %w: %w", ID(id), synod.ErrUnknownOutcome, cause)
		w.done.Set()
	}
	m.cancel()
}

// translate gives the core's errors the names that they have here.
func (m *Manager) translate(err error) error {
	if err == nil {
		return nil
	}
	for _, e := range []struct{ core, here error }{
		{twophase.ErrOverloaded, synod.ErrOverloaded}, {twophase.ErrRolledBack, ErrRolledBack}, {twophase.ErrNotInDoubt, ErrNotInDoubt},
		{twophase.ErrInvalid, ErrInvalid}, {twophase.ErrSuperseded, ErrSuperseded},
	} {
		if errors.Is(err, e.core) {
			return fmt.Errorf("txn: node %d: %w: %w", m.cfg.Node, e.here, err)
		}
	}
	return fmt.Errorf("txn: node %d: %w", m.cfg.Node, err)
}

// work does what the core wants done.
func (m *Manager) work() {
	for {
		w, some := m.core.take()
		if !some {
			break
		}
		m.perform(w)
	}
	if !m.ticking && (m.core.Busy() || len(m.writes) > 0 || len(m.over) > 0) {
		m.ticking = true
		m.ex.AfterFunc(m.cfg.TickInterval, func() { _ = m.post(m.tick, 0) }) // an error: there is nothing to do any more
	}
}

func (m *Manager) tick() {
	m.ticking = false
	m.core.Tick()
	m.pump()
	m.tell()
}

func (m *Manager) perform(w work) {
	m.send(w.messages)
	if w.batch != nil {
		m.inflight.Add(1)
		token := w.token
		m.writes = append(m.writes, unwritten{w.batch, func(err error) {
			_ = m.post(func() { // refused: nobody waits any more
				if err != nil {
					m.stop(fmt.Errorf("the store failed: %w", err))
					return
				}
				m.core.Persisted(token)
			}, 0)
		}})
		m.pump()
	}
	for _, d := range w.decide {
		m.task(func() { m.decide(d) })
	}
	for _, call := range w.calls {
		m.task(func() { m.call(call) })
	}
	for _, res := range w.results {
		m.answer(res)
	}
	for _, d := range w.damages {
		m.cfg.Logger.Error("a participant did not do what was decided", "node", m.cfg.Node, "transaction", ID(d.ID).String(), "participant", d.Node,
			"resource", d.Resource, "damage", d.Damage.String())
		if d.Node == m.cfg.Node {
			m.forgetHeuristic(ID(d.ID), d.Resource)
		}
	}
	for _, p := range w.over {
		m.over = slices.DeleteFunc(m.over, func(o twophase.Progress) bool { return o.Incarnation == p.Incarnation })
		m.over = append(m.over, p)
	}
	m.tell()
}

// stop ends the manager for good.
func (m *Manager) stop(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.err = m.translate(err)
		m.cfg.Logger.Error("the manager has stopped", "node", m.cfg.Node, "error", m.err)
	}
	m.wake.Set()
}

// maxFrameBytes is the size from which on messages go into another frame.
const maxFrameBytes = 256 << 10

func (m *Manager) send(messages []outgoing) {
	for len(messages) > 0 {
		to := messages[0].to
		frame := beginFrame(address{m.cfg.Protocol, m.cluster, m.cfg.Node, m.incarnation, to})
		var rest []outgoing
		for _, msg := range messages {
			if msg.to == to && len(frame) < maxFrameBytes {
				frame = appendBody(frame, msg.body)
			} else {
				rest = append(rest, msg)
			}
		}
		if err := m.cfg.Transport.Send(to, sealFrame(frame)); err != nil {
			m.cfg.Logger.Debug("a frame was not sent, what is in it comes again", "node", m.cfg.Node, "to", to, "error", err)
		}
		messages = rest
	}
}

// pump hands batches to the store, in their order. One that is refused as there is no space waits for a tick, and the others
// behind it.
func (m *Manager) pump() {
	for len(m.writes) > 0 {
		w := m.writes[0]
		var over, refused atomic.Bool
		m.mu.Lock()
		if m.closed || m.err != nil {
			m.mu.Unlock()
			return
		}
		m.running++
		m.mu.Unlock()
		storage.CommitAsync(m.records, w.batch, func(err error) {
			defer m.leave()
			if errors.Is(err, storage.ErrNoSpace) && !over.Load() {
				refused.Store(true) // told before CommitAsync returns
				return
			}
			m.inflight.Add(-1)
			w.done(err)
		})
		over.Store(true)
		if refused.Load() {
			m.cfg.Logger.Warn("the store is full, and is asked again", "node", m.cfg.Node)
			return
		}
		m.writes = m.writes[1:]
	}
	m.writes = nil
}

// tell says to the decision log what it may forget, one progress at a time.
func (m *Manager) tell() {
	if m.telling || len(m.over) == 0 {
		return
	}
	p := m.over[0]
	m.over = m.over[1:]
	m.telling = m.task(func() {
		ctx, cancel := m.limited()
		err := m.decisions.Forget(ctx, Progress(p))
		cancel()
		_ = m.post(func() {
			m.telling = false
			if err == nil {
				m.tell()
				return
			}
			m.cfg.Logger.Warn("the decision log did not forget, and is told again", "node", m.cfg.Node, "error", err)
			if !slices.ContainsFunc(m.over, func(o twophase.Progress) bool { return o.Incarnation == p.Incarnation }) {
				m.over = append(m.over, p) // with the next tick
			}
		}, 0)
	})
}

// limited returns a context for one attempt to reach the decision log: it may be one that waits for a leader, or for an
// answer that is lost.
func (m *Manager) limited() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(m.ctx)
	timer := m.ex.AfterFunc(m.cfg.PrepareTimeout, cancel)
	return ctx, func() {
		timer.Stop()
		cancel()
	}
}

func (m *Manager) decide(d twophase.Decision) {
	ctx, cancel := m.limited()
	defer cancel()
	winner, err := m.decisions.Decide(ctx, decisionOf(d))
	v := twophase.VerdictUnknown
	switch {
	case err == nil && winner.Outcome == Committed:
		v = twophase.VerdictCommitted
	case err == nil:
		v = twophase.VerdictAborted
	case errors.Is(err, ErrForgotten):
		v = twophase.VerdictForgotten
	default:
		m.cfg.Logger.Warn("the decision log did not decide, and is asked again", "node", m.cfg.Node, "transaction", ID(d.ID).String(), "error", err)
	}
	_ = m.post(func() {
		if errors.Is(err, storage.ErrFailed) {
			m.stop(err)
			return
		}
		m.core.Decided(d.ID, v)
	}, 0)
}

// guard runs what is the application's, and makes a panic an error.
func guard(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("txn: the resource panicked: %v", v)
		}
	}()
	return fn()
}

// call has a resource do something.
func (m *Manager) call(c twophase.Call) {
	r := m.cfg.Resources[c.Resource]
	if r == nil {
		// It took part in an earlier run, and is not configured any more.
		_ = m.post(func() {
			m.core.Done(c.ID, c.Resource, twophase.OutcomeUnknown, "it is not among Config.Resources")
			m.core.DoneOne(c.ID, c.Resource, twophase.OutcomeUnknown, "it is not among Config.Resources")
		}, 0)
		return
	}
	id := ID(c.ID)
	var vote Vote
	var outcome Outcome
	err := guard(func() (err error) {
		switch c.Kind {
		case twophase.CallPrepare:
			vote, err = r.Prepare(m.ctx, PrepareRequest{ID: id, Work: c.Work, MayLeave: c.MayLeave})
		case twophase.CallCommit:
			err = r.Commit(m.ctx, id)
		case twophase.CallAbort:
			err = r.Abort(m.ctx, id)
		case twophase.CallOne, twophase.CallOutcome:
			one, can := r.(OnePhaseCommitter)
			switch {
			case !can:
				err = errors.New("it does not commit in one phase any more")
			case c.Kind == twophase.CallOne:
				outcome, err = one.CommitOnePhase(m.ctx, id, c.Work)
			default:
				outcome, err = one.Outcome(m.ctx, id)
			}
		}
		return err
	})
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	_ = m.post(func() {
		switch c.Kind {
		case twophase.CallPrepare:
			if err != nil || vote != Yes && vote != ReadOnly {
				vote = No
			}
			if vote == No && reason == "" {
				reason = "the resource said no"
			}
			m.core.Voted(c.ID, c.Resource, twophase.Vote(vote), reason)
		case twophase.CallCommit, twophase.CallAbort:
			var h *HeuristicError
			if errors.As(err, &h) && (h.Outcome == Committed || h.Outcome == Aborted) {
				m.core.Done(c.ID, c.Resource, twophase.Outcome(h.Outcome), "")
				return
			}
			if err != nil {
				m.cfg.Logger.Warn("a resource failed, and is called again", "node", m.cfg.Node, "transaction", id.String(), "resource", c.Resource,
					"call", c.Kind.String(), "error", err)
			}
			m.core.Done(c.ID, c.Resource, twophase.OutcomeUnknown, reason)
		default:
			if outcome == Committed && err != nil || outcome > Aborted {
				outcome = Unknown
			}
			if outcome == Aborted && reason == "" {
				reason = "the resource has aborted"
			}
			m.core.DoneOne(c.ID, c.Resource, twophase.Outcome(outcome), reason)
		}
	}, 0)
}

func (m *Manager) forgetHeuristic(id ID, resource string) {
	f, ok := m.cfg.Resources[resource].(HeuristicForgetter)
	if !ok {
		return
	}
	m.task(func() {
		if err := guard(func() error { return f.ForgetHeuristic(m.ctx, id) }); err != nil {
			m.cfg.Logger.Warn("a resource did not forget what it decided", "node", m.cfg.Node, "transaction", id.String(), "resource", resource, "error", err)
		}
	})
}

// Close ends the manager: calls that wait return, with synod.ErrUnknownOutcome where a transaction was being decided;
// the resources' calls are told by their context, and waited for. What is in doubt stays so until the next
// Start. Calls after the first wait as well, and return nil.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.closed = true
	m.wake.Set()
	m.cancel()
	if m.running == 0 {
		m.mu.Unlock()
		return nil
	}
	e := executor.NewEvent()
	m.ended = append(m.ended, e)
	m.mu.Unlock()
	return m.ex.Wait(context.WithoutCancel(m.ctx), e)
}

func newCounterBatch(counter uint64) *storage.Batch {
	b := new(storage.Batch)
	setCounter(b, counter)
	return b
}
