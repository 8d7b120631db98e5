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

// store is the state machine: the keys. It executes encoded requests (see request), and answers with
// the replies, ready to be sent.
type store struct {
	mu    sync.RWMutex
	keys  map[string]*value
	epoch uint64 // values of earlier ones belong to a snapshot, too
	index uint64 // of the request that is executed
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
		for _, w := range r.watched {
			if s.versionOf(w.key) != w.version {
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

// versionOf returns the index of the request that changed a key last; 0: there is no such key. It is the
// same on all nodes.
func (s *store) versionOf(key string) uint64 {
	if v := s.keys[key]; v != nil {
		return v.changed
	}
	return 0
}

// version is versionOf what is there now.
func (s *store) version(key string) uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.versionOf(key)
}

// Limits of what the store keeps, and answers: a node passes replies on in one message, all of a
// request together.
const (
	maxValue = 32 << 20 // bytes of a string
	maxReply = 48 << 20 // bytes of the replies to one request
)

const (
	errValue = "ERR string exceeds maximum allowed size (32 MiB)"
	errReply = "ERR the reply is larger than 48 MiB, or those to the commands before it, which were sent together with this one, are"
)

// execute appends the reply to one command.
func (s *store) execute(args [][]byte, out []byte) []byte {
	if len(args) == 2 && len(args[0]) == 0 { // it was found out before: see answered
		return append(out, args[1]...)
	}
	c := commands[string(upper(args[0]))]
	if c == nil || c.run == nil {
		return appendError(out, unknownCommand(args))
	}
	if !c.arity(len(args)) {
		return appendError(out, wrongArity(args[0]))
	}
	before := len(out)
	if out = c.run(s, args[1:], out); len(out) > maxReply && !c.write {
		out = appendError(out[:before], errReply)
	}
	return out
}

// answered makes of a reply a command that has it. Clients can't send one: it has no name.
func answered(reply []byte) [][]byte { return [][]byte{nil, reply} }

// read executes a command that changes nothing, on what is there now.
func (s *store) read(args [][]byte, out []byte) []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.execute(args, out)
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
	return true
}

// image is a snapshot: the keys as they were. Their values are not changed any more.
type image struct {
	keys  map[string]*value
	index uint64
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

type header struct{ Keys, Index uint64 }

// Snapshot implements synod.StateMachine. It copies the table of keys and none of the values.
func (s *store) Snapshot() (io.WriterTo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	return &image{maps.Clone(s.keys), s.index}, nil
}

// WriteTo implements io.WriterTo: in the order of the keys, so that it always writes the same.
func (i *image) WriteTo(w io.Writer) (int64, error) {
	counted := &counter{w: w}
	e := gob.NewEncoder(counted)
	if err := e.Encode(header{uint64(len(i.keys)), i.index}); err != nil {
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
	s.keys, s.index, s.epoch = keys, h.Index, 0
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
// nothing between them. A transaction is executed only if all watched keys are as they were.
type request struct {
	transaction bool
	watched     []watched
	commands    [][][]byte
}

// watched is a key and its version when it was watched.
type watched struct {
	key     string
	version uint64
}

func (r *request) encode() []byte {
	var b []byte
	bytesOf := func(p []byte) { b = append(binary.AppendUvarint(b, uint64(len(p))), p...) }
	if r.transaction {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(r.watched)))
	for _, w := range r.watched {
		bytesOf([]byte(w.key))
		b = binary.AppendUvarint(b, w.version)
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
	for range number(len(b)) {
		r.watched = append(r.watched, watched{string(bytesOf()), number(-1)})
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
