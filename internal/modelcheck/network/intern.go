package network

import (
	"sync"
	"sync/atomic"
)

// arena keeps things that have numbers. Reading one takes no lock.
type arena[T any] struct {
	mu     sync.Mutex
	count  uint32
	chunks [1 << 14]atomic.Pointer[[chunkSize]T]
}

const (
	chunkBits = 12
	chunkSize = 1 << chunkBits
)

func (a *arena[T]) at(i uint32) *T { return &a.chunks[i>>chunkBits].Load()[i&(chunkSize-1)] }

// add gives a thing the next number. The caller holds the lock, and tells the number to nobody
// without a lock or an atomic store in between.
func (a *arena[T]) add(v T) uint32 {
	i := a.count
	if i&(chunkSize-1) == 0 {
		a.chunks[i>>chunkBits].Store(new([chunkSize]T))
	}
	*a.at(i) = v
	a.count++
	return i
}

func (a *arena[T]) len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int(a.count)
}

// memo is a map from small numbers to results, which many read and few change.
type memo struct {
	mu    sync.Mutex
	table atomic.Pointer[memoTable]
}

type memoTable struct {
	count int
	slots []memoSlot
}

type memoSlot struct {
	key    atomic.Uint32 // plus one
	code   atomic.Uint32 // of the result
	result atomic.Pointer[result]
}

// code is what is asked of a result most often.
type code uint32

const (
	codeKnown code = 1 << iota
	codeIdle
	codeHears     // it is idle, but may have an effect later
	codeRestarted // it is idle, but may have an effect after a restart
	codeEcho      // messages are sent, and nothing changes
)

func spread(key uint32) uint32 { return key * 0x9e3779b1 >> 3 }

func (m *memo) get(key uint32) *result {
	t := m.table.Load()
	if t == nil {
		return nil
	}
	mask := uint32(len(t.slots) - 1)
	for i := spread(key) & mask; ; i = (i + 1) & mask {
		switch t.slots[i].key.Load() {
		case 0:
			return nil
		case key + 1:
			return t.slots[i].result.Load()
		}
	}
}

// code returns the code of a result that is there; 0: there is none.
func (m *memo) code(key uint32) code {
	t := m.table.Load()
	if t == nil {
		return 0
	}
	mask := uint32(len(t.slots) - 1)
	for i := spread(key) & mask; ; i = (i + 1) & mask {
		switch t.slots[i].key.Load() {
		case 0:
			return 0
		case key + 1:
			return code(t.slots[i].code.Load())
		}
	}
}

func (t *memoTable) put(key uint32, r *result) {
	mask := uint32(len(t.slots) - 1)
	i := spread(key) & mask
	for t.slots[i].key.Load() != 0 {
		i = (i + 1) & mask
	}
	t.slots[i].result.Store(r) // before the key, by which it is found
	t.slots[i].code.Store(uint32(r.code))
	t.slots[i].key.Store(key + 1)
	t.count++
}

// put takes in a result, unless there is one: then it returns that.
func (m *memo) put(key uint32, r *result) *result {
	m.mu.Lock()
	defer m.mu.Unlock()
	if there := m.get(key); there != nil {
		return there
	}
	t := m.table.Load()
	if t == nil || 4*(t.count+1) > 3*len(t.slots) {
		size := 8
		if t != nil {
			size = 2 * len(t.slots)
		}
		larger := &memoTable{slots: make([]memoSlot, size)}
		for i := range size / 2 {
			if t == nil {
				break
			}
			if k := t.slots[i].key.Load(); k != 0 {
				larger.put(k-1, t.slots[i].result.Load())
			}
		}
		t = larger
		t.put(key, r)
		m.table.Store(t)
		return r
	}
	t.put(key, r)
	return r
}
