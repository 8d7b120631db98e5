// Package work is what every system under comparison has to do: the same closed
// loop of clients, the same commands, the same state machine, measured alike. It
// imports the standard library only, so that each system's module can use it.
package work

import (
	"encoding/binary"
	"sync"
)

// Keys is the number of keys that the clients write to, at random.
const Keys = 10_000

// Command fills b, of at least 8 bytes, with a command: a key and a value.
func Command(b []byte, random uint64) {
	binary.LittleEndian.PutUint64(b, random%Keys)
	for i := 8; i+8 <= len(b); i += 8 {
		random ^= random << 13
		random ^= random >> 7
		random ^= random << 17
		binary.LittleEndian.PutUint64(b[i:], random)
	}
}

// State is the state machine of all systems: the last value of each key.
type State struct {
	mu     sync.RWMutex
	values map[uint64][]byte
}

// NewState returns an empty state.
func NewState() *State { return &State{values: make(map[uint64][]byte, Keys)} }

// Apply executes a command, which it copies.
func (s *State) Apply(command []byte) {
	key := binary.LittleEndian.Uint64(command)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[key] = append(s.values[key][:0], command[8:]...)
}

// ApplyAll executes commands under one lock.
func (s *State) ApplyAll(commands func(yield func([]byte) bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range commands {
		key := binary.LittleEndian.Uint64(c)
		s.values[key] = append(s.values[key][:0], c[8:]...)
	}
}

// Get returns the length of a key's value.
func (s *State) Get(key uint64) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.values[key])
}
