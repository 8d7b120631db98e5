package txn

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/synod-go/synod"
)

// Commands of a DecisionMachine, and the first bytes of its results.
const (
	opDecide  = 'd'
	opRecover = 'r'
	opForget  = 'f'

	resultDone       = 0
	resultForgotten  = 1
	resultRolledBack = 2
	resultMalformed  = 3
	resultOverloaded = 4
)

// maxDecisions is how many decisions a DecisionMachine holds.
const maxDecisions = 1 << 20

// DecisionMachine is the state machine of a replicated decision log: start a group of raft or paxos with it, and
// hand both to NewReplicatedLog. The zero value is empty and ready to use.
type DecisionMachine struct {
	mu        sync.Mutex
	registers *registers
}

var _ synod.StateMachine = (*DecisionMachine)(nil)

func (m *DecisionMachine) state() *registers {
	if m.registers == nil {
		m.registers = newRegisters()
	}
	return m.registers
}

// Apply implements synod.StateMachine.
func (m *DecisionMachine) Apply(_ uint64, command []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(command) == 0 {
		return []byte{resultMalformed}
	}
	r := m.state()
	body := command[1:]
	switch command[0] {
	case opDecide:
		d, err := decodeDecision(body)
		if err != nil {
			return []byte{resultMalformed}
		}
		if _, there := r.decided[d.ID]; !there && len(r.decided) >= maxDecisions {
			return []byte{resultOverloaded}
		}
		winner, _, err := r.decide(d)
		if err != nil {
			return []byte{resultForgotten}
		}
		return appendDecision([]byte{resultDone}, winner)
	case opRecover, opForget:
		p, err := decodeProgress(body)
		if err != nil {
			return []byte{resultMalformed}
		}
		if command[0] == opForget {
			r.forget(p)
			return []byte{resultDone}
		}
		stay, _, err := r.recover(p)
		if err != nil {
			return []byte{resultRolledBack}
		}
		return appendDecisions([]byte{resultDone}, stay)
	}
	return []byte{resultMalformed}
}

func appendDecisions(b []byte, list []Decision) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, d := range list {
		e := appendDecision(nil, d)
		b = binary.AppendUvarint(b, uint64(len(e)))
		b = append(b, e...)
	}
	return b
}

var errDecisions = errors.New("txn: malformed decisions")

func decodeDecisions(b []byte) (list []Decision, rest []byte, err error) {
	count, n := binary.Uvarint(b)
	if n <= 0 || count > uint64(len(b)) {
		return nil, nil, errDecisions
	}
	b = b[n:]
	for range count {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return nil, nil, errDecisions
		}
		d, err := decodeDecision(b[n : n+int(size)])
		if err != nil {
			return nil, nil, err
		}
		list, b = append(list, d), b[n+int(size):]
	}
	return list, b, nil
}

// decisionImage is a captured state, encoded: it is small, as decisions are forgotten soon.
type decisionImage []byte

// WriteTo implements io.WriterTo.
func (i decisionImage) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(i)
	return int64(n), err
}

// Snapshot implements synod.StateMachine.
func (m *DecisionMachine) Snapshot() (io.WriterTo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.state()
	list := slices.SortedFunc(maps.Values(r.decided), func(a, b Decision) int { return a.ID.Compare(b.ID) })
	b := appendDecisions(nil, list)
	keys := slices.SortedFunc(maps.Keys(r.over), coordinator.compare)
	b = binary.AppendUvarint(b, uint64(len(keys)))
	for _, k := range keys {
		e := appendProgress(nil, r.over[k])
		b = binary.AppendUvarint(b, uint64(len(e)))
		b = append(b, e...)
	}
	return decisionImage(b), nil
}

// Restore implements synod.StateMachine.
func (m *DecisionMachine) Restore(reader io.Reader) error {
	var buffer bytes.Buffer
	if _, err := buffer.ReadFrom(reader); err != nil {
		return err
	}
	list, b, err := decodeDecisions(buffer.Bytes())
	if err != nil {
		return err
	}
	r := newRegisters()
	for _, d := range list {
		r.decided[d.ID] = d
	}
	count, n := binary.Uvarint(b)
	if n <= 0 || count > uint64(len(b)) {
		return errDecisions
	}
	b = b[n:]
	for range count {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return errDecisions
		}
		p, err := decodeProgress(b[n : n+int(size)])
		if err != nil {
			return err
		}
		b = b[n+int(size):]
		r.over[coordinator{p.Node, p.Incarnation}] = p
	}
	if len(b) != 0 {
		return errDecisions
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.registers = r
	return nil
}

// ReplicatedLog is a DecisionLog in a replicated log: a coordinator that is gone blocks nobody, as any participant may propose
// to abort. It keeps nothing itself: any number of them may share a log.
type ReplicatedLog struct{ log synod.Log }

var _ DecisionLog = (*ReplicatedLog)(nil)

// NewReplicatedLog returns the decision log that a group replicates, whose state machine is a DecisionMachine. What log.Propose
// refuses, Decide refuses, with its error; a *raft.Group and a *paxos.Group take proposals on their leader alone, a Forwarder over
// one on any member. A proposal whose outcome is unknown may be made again.
func NewReplicatedLog(log synod.Log) *ReplicatedLog { return &ReplicatedLog{log} }

func (l *ReplicatedLog) propose(ctx context.Context, op byte, body []byte) ([]byte, error) {
	result, err := l.log.Propose(ctx, append([]byte{op}, body...))
	if err != nil {
		return nil, fmt.Errorf("txn: decision log: %w", err)
	}
	if len(result) == 0 {
		return nil, fmt.Errorf("txn: decision log: %w: the group has another state machine than a DecisionMachine", ErrInvalid)
	}
	switch result[0] {
	case resultDone:
		return result[1:], nil
	case resultForgotten:
		return nil, ErrForgotten
	case resultRolledBack:
		return nil, fmt.Errorf("%w: the decision log knows of transactions that this node has not begun", ErrRolledBack)
	case resultOverloaded:
		return nil, overloaded(fmt.Sprintf("decision log: there are %d decisions that nobody has acknowledged", maxDecisions))
	}
	return nil, fmt.Errorf("txn: decision log: %w: the members of the group do not know this command: they run another version", ErrInvalid)
}

// Decide implements DecisionLog. It costs one command.
func (l *ReplicatedLog) Decide(ctx context.Context, proposal Decision) (Decision, error) {
	if err := proposal.check(); err != nil {
		return Decision{}, err
	}
	result, err := l.propose(ctx, opDecide, appendDecision(nil, proposal))
	if err != nil {
		return Decision{}, err
	}
	return decodeDecision(result)
}

// Recover implements DecisionLog.
func (l *ReplicatedLog) Recover(ctx context.Context, progress Progress) ([]Decision, error) {
	if err := progress.check(); err != nil {
		return nil, err
	}
	result, err := l.propose(ctx, opRecover, appendProgress(nil, progress))
	if err != nil {
		return nil, err
	}
	list, _, err := decodeDecisions(result)
	return list, err
}

// Forget implements DecisionLog.
func (l *ReplicatedLog) Forget(ctx context.Context, progress Progress) error {
	if err := progress.check(); err != nil {
		return err
	}
	_, err := l.propose(ctx, opForget, appendProgress(nil, progress))
	return err
}
