package txn

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/storage"
)

// Keys of a LocalLog in its store.
const (
	tagDecision = 'd' // ID
	tagProgress = 'p' // node, incarnation
)

// LocalLog is a DecisionLog in a store of one node: that of classic two-phase commit, where only the coordinator decides, and
// while it is away nobody does. A Manager makes one itself where Config.Decisions is nil.
type LocalLog struct {
	store storage.Store
	ex    executor.Executor

	mu        sync.Mutex
	registers *registers
	pending   map[ID]*write // decisions that are not durable yet
	queue     []*write      // what is to be committed
	writing   bool          // there is a task that does
	failed    error         // why the store is not believed any more
}

var _ DecisionLog = (*LocalLog)(nil)

// write is a commit that is under way, and those that wait for it.
type write struct {
	batch   *storage.Batch
	finish  func(error)
	done    bool
	err     error
	waiters []*executor.Event
}

// OpenLocalLog reads the decisions that are in a store, or in a storage.Prefix of one, and returns them as a log. The caller closes
// the store when the log is not used any more. ctx carries the executor. The error may be a *storage.CorruptError: what was
// decided can't be told then, and nothing is served.
func OpenLocalLog(ctx context.Context, store storage.Store) (*LocalLog, error) {
	l := &LocalLog{store: store, ex: executor.From(ctx, executor.Real()), registers: newRegisters(), pending: make(map[ID]*write)}
	it, err := store.Scan([]byte{0}, nil)
	if err != nil {
		return nil, fmt.Errorf("txn: decision log: %w", err)
	}
	keys, values, err := storage.Collect(it)
	if err != nil {
		return nil, fmt.Errorf("txn: decision log: %w", err)
	}
	for i, k := range keys {
		payload, err := storage.OpenRecord(k, values[i])
		if err != nil {
			return nil, fmt.Errorf("txn: decision log: %w", err)
		}
		if err := l.load(k, payload); err != nil {
			return nil, fmt.Errorf("txn: decision log: %w", &storage.CorruptError{Key: bytes.Clone(k), Reason: err.Error()})
		}
	}
	return l, nil
}

func (l *LocalLog) load(key, payload []byte) error {
	switch key[0] {
	case tagDecision:
		d, err := decodeDecision(payload)
		if err != nil {
			return err
		}
		if !bytes.Equal(key, decisionKey(d.ID)) {
			return errors.New("the record is another transaction's")
		}
		l.registers.decided[d.ID] = d
	case tagProgress:
		p, err := decodeProgress(payload)
		if err != nil {
			return err
		}
		l.registers.over[coordinator{p.Node, p.Incarnation}] = p
	default:
		return fmt.Errorf("no record of a decision log begins with %q", key[0])
	}
	return nil
}

func idKey(tag byte, id ID) []byte {
	k := binary.BigEndian.AppendUint64([]byte{tag}, id.Node)
	k = binary.BigEndian.AppendUint64(k, id.Incarnation)
	return binary.BigEndian.AppendUint64(k, id.Counter)
}

func decisionKey(id ID) []byte { return idKey(tagDecision, id) }

func progressKey(p Progress) []byte {
	return idKey(tagProgress, ID{Node: p.Node, Incarnation: p.Incarnation})[:17]
}

// Decide implements DecisionLog. It costs one forced write, of the first proposal.
func (l *LocalLog) Decide(ctx context.Context, proposal Decision) (Decision, error) {
	if err := proposal.check(); err != nil {
		return Decision{}, err
	}
	proposal = decisionOf(proposal.core()) // a copy
	l.mu.Lock()
	if l.failed != nil {
		l.mu.Unlock()
		return Decision{}, l.failed
	}
	winner, fresh, err := l.registers.decide(proposal)
	if err != nil {
		l.mu.Unlock()
		return Decision{}, err
	}
	w := l.pending[winner.ID]
	if fresh {
		w = new(write)
		l.pending[winner.ID] = w
		b := new(storage.Batch)
		k := decisionKey(winner.ID)
		b.Set(k, storage.AppendRecord(nil, k, appendDecision(nil, winner)))
		l.begin(w, b, func(err error) {
			delete(l.pending, winner.ID)
			if err != nil {
				delete(l.registers.decided, winner.ID) // nothing was written
			}
		})
	}
	if err := l.wait(ctx, w); err != nil {
		return Decision{}, fmt.Errorf("txn: decision log: transaction %v: %w", winner.ID, err)
	}
	return decisionOf(winner.core()), nil
}

// begin has a batch committed. finish is called under the lock when it is, with the error of a store that refused and goes
// on. Batches are written in the order in which the registers changed, those that wait together at once.
func (l *LocalLog) begin(w *write, b *storage.Batch, finish func(error)) {
	w.batch, w.finish = b, finish
	l.queue = append(l.queue, w)
	if !l.writing {
		l.writing = true
		l.ex.Go(l.writer)
	}
}

// writer is the task that commits, while there is something to commit.
func (l *LocalLog) writer() {
	for {
		round, err := l.round()
		if len(round) == 0 {
			return
		}
		if err == nil {
			all := new(storage.Batch)
			for _, w := range round {
				all.Append(w.batch)
			}
			err = l.store.Commit(all)
		}
		l.written(round, err)
	}
}

// round takes what is to be committed; none: the task ends.
func (l *LocalLog) round() ([]*write, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	round := l.queue
	l.queue = nil
	l.writing = len(round) > 0
	return round, l.failed
}

// written tells those that wait.
func (l *LocalLog) written(round []*write, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && !errors.Is(err, storage.ErrNoSpace) && l.failed == nil {
		l.failed = fmt.Errorf("txn: decision log: the store failed, and what was decided last is in doubt until the next start: %w", err)
	}
	for _, w := range round {
		w.done, w.err = true, err
		w.finish(err)
		for _, e := range w.waiters {
			e.Set()
		}
	}
}

// wait waits for a write, and gives the lock back. nil: there is none to wait for.
func (l *LocalLog) wait(ctx context.Context, w *write) error {
	if w == nil {
		l.mu.Unlock()
		return nil
	}
	e := executor.NewEvent()
	w.waiters = append(w.waiters, e)
	l.mu.Unlock()
	if err := executor.From(ctx, l.ex).Wait(ctx, e); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return w.err
}

// Recover implements DecisionLog.
func (l *LocalLog) Recover(ctx context.Context, progress Progress) ([]Decision, error) {
	if err := progress.check(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	if l.failed != nil {
		l.mu.Unlock()
		return nil, l.failed
	}
	stay, changed, err := l.registers.recover(progress)
	if err != nil {
		l.mu.Unlock()
		return nil, err
	}
	b := new(storage.Batch)
	for _, p := range changed {
		k := progressKey(p)
		b.Set(k, storage.AppendRecord(nil, k, appendProgress(nil, p)))
	}
	for i, d := range stay {
		stay[i] = decisionOf(d.core())
	}
	return stay, l.commit(ctx, b)
}

// Forget implements DecisionLog.
func (l *LocalLog) Forget(ctx context.Context, progress Progress) error {
	if err := progress.check(); err != nil {
		return err
	}
	l.mu.Lock()
	if l.failed != nil {
		l.mu.Unlock()
		return l.failed
	}
	sum, gone := l.registers.forget(progress)
	b := new(storage.Batch)
	k := progressKey(sum)
	b.Set(k, storage.AppendRecord(nil, k, appendProgress(nil, sum)))
	for _, id := range gone {
		b.Delete(decisionKey(id))
	}
	return l.commit(ctx, b)
}

// commit commits a batch, waits for it, and gives the lock back.
func (l *LocalLog) commit(ctx context.Context, b *storage.Batch) error {
	w := new(write)
	l.begin(w, b, func(error) {})
	if err := l.wait(ctx, w); err != nil {
		return fmt.Errorf("txn: decision log: %w", err)
	}
	return nil
}

// overloaded is the error of a log that is full.
func overloaded(what string) error { return fmt.Errorf("txn: %s: %w", what, synod.ErrOverloaded) }
