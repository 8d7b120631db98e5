package kv

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
)

// Machine is the state machine of one group: its keys with their versions, and its votes. Start a group of raft or
// paxos with one on each member, and hand group and machine to Open, as a Group. The state is in memory, and lives as the
// group's log and snapshots do. All methods may be called concurrently as synod.StateMachine says. Make one with NewMachine.
type Machine struct {
	mu      sync.RWMutex
	state   *state
	waiters []*waiter
}

var (
	_ synod.StateMachine = (*Machine)(nil)
	_ synod.BatchApplier = (*Machine)(nil)
)

// waiter is a call that goes on when the state has what it waits for.
type waiter struct {
	ready func(*state) bool
	event *executor.Event
}

// NewMachine returns an empty one.
func NewMachine() *Machine { return &Machine{state: newState()} }

// Apply implements synod.StateMachine.
func (m *Machine) Apply(_ uint64, command []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	result := m.state.apply(command).append(make([]byte, 0, answerBytes))
	m.wake()
	return result
}

// ApplyBatch implements synod.BatchApplier.
func (m *Machine) ApplyBatch(entries []synod.Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range entries {
		entries[i].Result = m.state.apply(entries[i].Command).append(make([]byte, 0, answerBytes))
	}
	m.wake()
}

// answerBytes are enough for the answer to a transaction that commits, over some groups.
const answerBytes = 40

func (m *Machine) wake() {
	if len(m.waiters) == 0 {
		return
	}
	m.waiters = slices.DeleteFunc(m.waiters, func(w *waiter) bool {
		if !w.ready(m.state) {
			return false
		}
		w.event.Set()
		return true
	})
}

// read runs fn on the state, which it must neither change nor retain.
func (m *Machine) read(fn func(*state)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	fn(m.state)
}

// await returns nil when the state is ready, false when the time is over, and the context's error.
func (m *Machine) await(ctx context.Context, ex executor.Executor, limit time.Duration, ready func(*state) bool) (bool, error) {
	m.mu.Lock()
	if ready(m.state) {
		m.mu.Unlock()
		return true, nil
	}
	w := &waiter{ready, executor.NewEvent()}
	m.waiters = append(m.waiters, w)
	m.mu.Unlock()
	timer := ex.AfterFunc(limit, w.event.Set)
	err := executor.From(ctx, ex).Wait(ctx, w.event)
	timer.Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiters = slices.DeleteFunc(m.waiters, func(o *waiter) bool { return o == w })
	return ready(m.state), err
}

// Snapshot implements synod.StateMachine.
func (m *Machine) Snapshot() (io.WriterTo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.snapshot(), nil
}

// Restore implements synod.StateMachine. The error wraps ErrCorrupt, if it is not the reader's.
func (m *Machine) Restore(reader io.Reader) error {
	s, err := readSnapshot(reader)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = s
	m.wake()
	return nil
}

// MachineStatus is what a group holds, on this node.
type MachineStatus struct {
	Keys         int           // those that are there, or were and are not collected
	Timestamp    uint64        // the group's clock: an hlc.Timestamp
	Collected    uint64        // versions that were replaced at or below are gone
	Prepared     int           // transactions that have voted yes here, and whose outcome is not known here
	Oldest       time.Duration // how far the oldest of them is behind the group's clock
	Locks        int           // keys that they hold
	Reserved     int           // keys that are kept for transactions that have lost too often
	Sessions     int           // clients
	Records      int           // votes that are kept
	Contradicted uint64        // commits of what this group has voted no for, or knows to be aborted: 0, unless something is wrong
}

// Status returns what the group holds.
func (m *Machine) Status() MachineStatus {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := m.state
	status := MachineStatus{
		Keys: s.items.Len(), Timestamp: s.clock, Collected: s.collected, Prepared: len(s.prepared), Locks: len(s.locks), Reserved: len(s.reserved),
		Sessions: s.registers.Sessions(), Records: s.registers.Len(), Contradicted: s.wrong,
	}
	for _, t := range s.prepared { //synod:ordered the largest is the same in any order
		status.Oldest = max(status.Oldest, age(s.clock, t.timestamp))
	}
	return status
}
