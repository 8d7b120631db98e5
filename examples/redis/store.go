package main

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/synod-go/synod"
)

// store is the state machine: the keys, and what was deleted last. It executes encoded
// requests (see request), and answers with the replies, ready to be sent.
type store struct {
	mu      sync.RWMutex
	keys    map[string]*value
	deleted uint64 // index of the last request that removed a key
	epoch   uint64 // values of earlier ones belong to a snapshot, too
	index   uint64 // of the request that is executed
}

// value is what a key has. What belongs to a snapshot is not changed any more, but copied.
type value struct {
	kind    kind
	changed uint64 // index of the request that changed it last
	epoch   uint64
	text    []byte
	list    list
	hash    map[string][]byte
}

type kind byte

const (
	text kind = iota + 1
	listing
	hash
)

func newStore() *store { return &store{keys: make(map[string]*value)} }

var (
	_ synod.StateMachine = (*store)(nil)
	_ synod.BatchApplier = (*store)(nil)
)

// Apply implements synod.StateMachine.
func (s *store) Apply(index uint64, command []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.apply(index, command)
}

// ApplyBatch implements synod.BatchApplier: one lock for many requests.
func (s *store) ApplyBatch(entries []synod.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range entries {
		entries[i].Result = s.apply(entries[i].Index, entries[i].Command)
	}
}

func (s *store) apply(index uint64, command []byte) []byte {
	r, err := decodeRequest(command)
	if err != nil { // every replica says the same
		return appendError(nil, "ERR "+err.Error())
	}
	s.index = index
	var out []byte
	if r.transaction {
		for _, key := range r.watched {
			if s.changedSince(key, r.since) {
				return append(out, "*-1\r\n"...)
			}
		}
		out = appendArray(out, len(r.commands))
	}
	for _, args := range r.commands {
		out = s.execute(args, out)
	}
	return out
}

// changedSince reports whether a key may have changed after an index. Of keys that are not
// there only the last removal of any key is known: it may err on the side of a change.
func (s *store) changedSince(key string, index uint64) bool {
	if v := s.keys[key]; v != nil {
		return v.changed > index
	}
	return s.deleted > index
}

// execute appends the reply to one command.
func (s *store) execute(args [][]byte, out []byte) []byte {
	c := commands[string(upper(args[0]))]
	if c == nil || c.run == nil {
		return appendError(out, unknownCommand(args[0]))
	}
	if !c.arity(len(args)) {
		return appendError(out, wrongArity(args[0]))
	}
	return c.run(s, args[1:], out)
}

// read executes a command that changes nothing, on what is there now.
func (s *store) read(args [][]byte, out []byte) []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.execute(args, out)
}

// at returns the index up to which requests were executed.
func (s *store) at() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.index
}

var errWrongType = errors.New("WRONGTYPE Operation against a key holding the wrong kind of value")

// get returns a key's value, or nil if there is none.
func (s *store) get(key []byte, k kind) (*value, error) {
	v := s.keys[string(key)]
	if v != nil && v.kind != k {
		return nil, errWrongType
	}
	return v, nil
}

// change returns a key's value to be changed, an empty one if there is none.
func (s *store) change(key []byte, k kind) (*value, error) {
	v, err := s.get(key, k)
	switch {
	case err != nil:
		return nil, err
	case v == nil:
		v = &value{kind: k, epoch: s.epoch}
		if k == hash {
			v.hash = make(map[string][]byte)
		}
		s.keys[string(key)] = v
	case v.epoch != s.epoch:
		v = &value{kind: k, epoch: s.epoch, text: bytes.Clone(v.text), list: v.list.clone(), hash: maps.Clone(v.hash)}
		s.keys[string(key)] = v
	}
	v.changed = s.index
	return v, nil
}

// put replaces a key's value by a string.
func (s *store) put(key, b []byte) {
	s.keys[string(key)] = &value{kind: text, epoch: s.epoch, changed: s.index, text: bytes.Clone(b)}
}

func (s *store) remove(key string) bool {
	if s.keys[key] == nil {
		return false
	}
	delete(s.keys, key)
	s.deleted = s.index
	return true
}

// image is a snapshot: the keys as they were. Their values are not changed any more.
type image struct {
	keys           map[string]*value
	deleted, index uint64
}

// stored is a value as it stands in a snapshot.
type stored struct {
	Key     string
	Kind    byte
	Changed uint64
	Text    []byte
	List    [][]byte
	Fields  []string
	Values  [][]byte
}

type header struct{ Keys, Deleted, Index uint64 }

// Snapshot implements synod.StateMachine. It copies the table of keys and none of the values.
func (s *store) Snapshot() (io.WriterTo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	return &image{maps.Clone(s.keys), s.deleted, s.index}, nil
}

// WriteTo implements io.WriterTo: in the order of the keys, so that it always writes the same.
func (i *image) WriteTo(w io.Writer) (int64, error) {
	counted := &counter{w: w}
	e := gob.NewEncoder(counted)
	if err := e.Encode(header{uint64(len(i.keys)), i.deleted, i.index}); err != nil {
		return counted.n, err
	}
	for _, key := range slices.Sorted(maps.Keys(i.keys)) {
		v := i.keys[key]
		x := stored{Key: key, Kind: byte(v.kind), Changed: v.changed, Text: v.text, List: v.list.items()}
		for _, field := range slices.Sorted(maps.Keys(v.hash)) {
			x.Fields, x.Values = append(x.Fields, field), append(x.Values, v.hash[field])
		}
		if err := e.Encode(x); err != nil {
			return counted.n, err
		}
	}
	return counted.n, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// Restore implements synod.StateMachine.
func (s *store) Restore(r io.Reader) error {
	d := gob.NewDecoder(r)
	var h header
	if err := d.Decode(&h); err != nil {
		return fmt.Errorf("redis: snapshot: %w", err)
	}
	keys := make(map[string]*value)
	for range h.Keys {
		var x stored
		if err := d.Decode(&x); err != nil {
			return fmt.Errorf("redis: snapshot: %w", err)
		}
		v := &value{kind: kind(x.Kind), changed: x.Changed, text: x.Text}
		for _, item := range x.List {
			v.list.pushBack(item)
		}
		if v.kind == hash {
			v.hash = make(map[string][]byte, len(x.Fields))
			for i, field := range x.Fields {
				v.hash[field] = x.Values[i]
			}
		}
		keys[x.Key] = v
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys, s.deleted, s.index, s.epoch = keys, h.Deleted, h.Index, 0
	return nil
}

// list is a list that grows at both ends.
type list struct {
	room  [][]byte // with room before the first item, and after the last
	first int
	n     int
}

func (l *list) items() [][]byte { return l.room[l.first : l.first+l.n] }

func (l *list) clone() list {
	return list{room: slices.Clone(l.items()), n: l.n}
}

func (l *list) pushBack(b []byte) {
	l.room = append(l.room[:l.first+l.n], b)
	l.n++
}

func (l *list) pushFront(b []byte) {
	if l.first == 0 {
		grow := l.n + 8
		room := make([][]byte, grow+l.n, grow+2*l.n+8)
		copy(room[grow:], l.items())
		l.room, l.first = room, grow
	}
	l.first--
	l.room[l.first] = b
	l.n++
}

// request is what goes into the log: commands that are executed one after the other, with
// nothing between them. A transaction is executed only if no watched key has changed since an index.
type request struct {
	transaction bool
	since       uint64
	watched     []string
	commands    [][][]byte
}

func (r *request) encode() []byte {
	var b []byte
	bytesOf := func(p []byte) { b = append(binary.AppendUvarint(b, uint64(len(p))), p...) }
	if r.transaction {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.AppendUvarint(b, r.since)
	b = binary.AppendUvarint(b, uint64(len(r.watched)))
	for _, key := range r.watched {
		bytesOf([]byte(key))
	}
	b = binary.AppendUvarint(b, uint64(len(r.commands)))
	for _, args := range r.commands {
		b = binary.AppendUvarint(b, uint64(len(args)))
		for _, a := range args {
			bytesOf(a)
		}
	}
	return b
}

var errRequest = errors.New("malformed request in the log")

func decodeRequest(b []byte) (r request, err error) {
	bad := false
	number := func(limit int) uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || limit >= 0 && v > uint64(limit) {
			bad, b = true, nil
			return 0
		}
		b = b[n:]
		return v
	}
	bytesOf := func() []byte {
		n := number(len(b))
		if n > uint64(len(b)) {
			bad, b = true, nil
			return nil
		}
		p := b[:n:n]
		b = b[n:]
		return p
	}
	r.transaction = number(1) == 1
	r.since = number(-1)
	for range number(len(b)) {
		r.watched = append(r.watched, string(bytesOf()))
	}
	for range number(len(b)) {
		var args [][]byte
		for range number(len(b)) {
			args = append(args, bytesOf())
		}
		if len(args) == 0 {
			bad = true
		}
		r.commands = append(r.commands, args)
		if bad {
			break
		}
	}
	if bad || len(b) != 0 {
		return request{}, errRequest
	}
	return r, nil
}
