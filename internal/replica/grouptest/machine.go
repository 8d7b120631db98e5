package grouptest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/synod-go/synod"
)

// kind says which optional powers a machine has.
type kind int

const (
	plain   kind = iota
	batched      // synod.BatchApplier
	durable      // synod.DurableIndex
)

// machine is a state machine whose state is the list of all commands. It complains
// of an engine that calls it against the rules of synod.StateMachine, and fails as
// the test says.
type machine struct {
	name     string
	complain func(format string, args ...any)

	mu       sync.Mutex
	commands []string // commands[i] has index i+1
	changed  chan struct{}
	busy     string // the call that runs
	closed   bool
	restores int
	hooks    hooks
	disk     *machineDisk // of a durable one
}

// hooks are what a test changes in a machine. They are called before the machine
// does anything, and may block, panic, and fail.
type hooks struct {
	apply    func(index uint64, command []byte)
	snapshot func() error
	write    func() error
	release  func() // what was captured is closed
	restore  func() error
	padding  int  // bytes that make a snapshot larger
	lazy     bool // a durable one makes nothing durable by itself
}

// machineDisk is what a durable machine finds after a crash.
type machineDisk struct {
	mu       sync.Mutex
	commands []string
}

func (d *machineDisk) load() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.commands
}

func (d *machineDisk) save(commands []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.commands = slices.Clip(commands) // which a machine only adds to
}

func newMachine(name string, complain func(format string, args ...any)) *machine {
	return &machine{name: name, complain: complain, changed: make(chan struct{})}
}

// batchMachine takes many commands at once.
type batchMachine struct{ *machine }

// durableMachine keeps its state itself.
type durableMachine struct{ *machine }

var (
	_ synod.BatchApplier = batchMachine{}
	_ synod.DurableIndex = durableMachine{}
)

// Apply is never called where there is ApplyBatch.
func (m batchMachine) Apply(index uint64, command []byte) []byte {
	m.complain("%s: Apply of a BatchApplier", m.name)
	return m.machine.Apply(index, command)
}

// ApplyBatch implements synod.BatchApplier.
func (m batchMachine) ApplyBatch(entries []synod.Entry) {
	if len(entries) == 0 {
		m.complain("%s: ApplyBatch of nothing", m.name)
	}
	for i := range entries {
		entries[i].Result = m.machine.Apply(entries[i].Index, entries[i].Command)
	}
}

// DurableIndex implements synod.DurableIndex.
func (m durableMachine) DurableIndex() (uint64, error) { return uint64(len(m.disk.load())), nil }

// digest stands for a command in a machine's state: itself, unless it is long.
func digest(command []byte) string {
	if len(command) <= 64 {
		return string(command)
	}
	return fmt.Sprintf("%d bytes %x", len(command), sha256.Sum256(command))
}

// result is what a machine answers.
func result(index uint64, command []byte) []byte {
	return fmt.Appendf(nil, "%d %s", index, digest(command))
}

// enter notes that a call begins, and returns what ends it.
func (m *machine) enter(call string) func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		m.complain("%s: %s after Close", m.name, call)
	}
	if m.busy != "" {
		m.complain("%s: %s during %s", m.name, call, m.busy)
	}
	m.busy = call
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.busy = ""
	}
}

func (m *machine) hook() hooks {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hooks
}

// set changes the hooks.
func (m *machine) set(fn func(h *hooks)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn(&m.hooks)
}

// Apply implements synod.StateMachine.
func (m *machine) Apply(index uint64, command []byte) []byte {
	defer m.enter("Apply")()
	h := m.hook()
	if h.apply != nil {
		h.apply(index, command)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if want := uint64(len(m.commands)) + 1; index != want {
		m.complain("%s: Apply of index %d, want %d", m.name, index, want)
	}
	m.commands = append(m.commands, digest(command))
	if m.disk != nil && !h.lazy {
		m.disk.save(m.commands)
	}
	m.wake()
	return result(index, command)
}

func (m *machine) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// sync makes the state of a lazy durable machine durable.
func (m *machine) sync() { m.disk.save(m.state()) }

// capture is what Snapshot returns.
type capture struct {
	commands []string
	padding  int
	hook     func() error
	release  func()
}

// Close implements io.Closer.
func (c *capture) Close() error {
	if c.release != nil {
		c.release()
	}
	return nil
}

// Snapshot implements synod.StateMachine.
func (m *machine) Snapshot() (io.WriterTo, error) {
	defer m.enter("Snapshot")()
	h := m.hook()
	if h.snapshot != nil {
		if err := h.snapshot(); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return &capture{commands: slices.Clone(m.commands), padding: h.padding, hook: h.write, release: h.release}, nil
}

// pad appends n bytes of the padding from an offset on. No two of its pieces are equal.
func pad(b []byte, from, n int) []byte {
	b = slices.Grow(b, n)
	tail := b[len(b) : len(b)+n]
	for i := range tail {
		at := from + i
		tail[i] = byte(at) ^ byte(at>>8) ^ byte(at>>16)
	}
	return b[:len(b)+n]
}

// WriteTo implements io.WriterTo.
func (c *capture) WriteTo(w io.Writer) (int64, error) {
	if c.hook != nil {
		if err := c.hook(); err != nil {
			return 0, err
		}
	}
	b := binary.AppendUvarint(nil, uint64(c.padding))
	b = pad(b, 0, c.padding)
	b = binary.AppendUvarint(b, uint64(len(c.commands)))
	for _, command := range c.commands {
		b = binary.AppendUvarint(b, uint64(len(command)))
		b = append(b, command...)
	}
	// In pieces that are no power of two, so that they cross the ends of buffers.
	var total int64
	for len(b) > 0 {
		n, err := w.Write(b[:min(len(b), 3001)])
		total += int64(n)
		if err != nil {
			return total, err
		}
		b = b[n:]
	}
	return total, nil
}

// Restore implements synod.StateMachine.
func (m *machine) Restore(from io.Reader) error {
	defer m.enter("Restore")()
	if h := m.hook(); h.restore != nil {
		if err := h.restore(); err != nil {
			return err
		}
	}
	r := bufio.NewReader(from)
	padding, err := binary.ReadUvarint(r)
	if err != nil {
		return err
	}
	have, want := make([]byte, 4<<10), make([]byte, 0, 4<<10)
	for i := 0; i < int(padding); i += len(have) {
		have = have[:min(len(have), int(padding)-i)]
		if _, err := io.ReadFull(r, have); err != nil {
			return err
		}
		if want = pad(want[:0], i, len(have)); !bytes.Equal(have, want) {
			return errors.New("the snapshot was altered")
		}
	}
	count, err := binary.ReadUvarint(r)
	if err != nil {
		return err
	}
	commands := make([]string, count)
	for i := range commands {
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return err
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		commands[i] = string(b)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) != 0 {
		return errors.Join(errors.New("the snapshot is too long"), err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.commands = commands
	m.restores++
	if m.disk != nil {
		m.disk.save(m.commands)
	}
	m.wake()
	return nil
}

// state returns all commands that were applied.
func (m *machine) state() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.commands)
}

// index returns the index of the last command.
func (m *machine) index() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(len(m.commands))
}

func (m *machine) restored() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.restores
}

// await waits until the machine has applied an index.
func (m *machine) await(ctx context.Context, index uint64) error {
	for {
		m.mu.Lock()
		have, changed := uint64(len(m.commands)), m.changed
		m.mu.Unlock()
		if have >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: applied %d of %d commands: %w", m.name, have, index, ctx.Err())
		}
	}
}

func (m *machine) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
}

// gate blocks whoever passes it until it is opened.
type gate struct {
	reached chan struct{} // closed when somebody waits
	open    chan struct{}
	once    sync.Once
	opened  sync.Once
}

func newGate() *gate { return &gate{reached: make(chan struct{}), open: make(chan struct{})} }

func (g *gate) pass() {
	g.once.Do(func() { close(g.reached) })
	<-g.open
}

func (g *gate) release() { g.opened.Do(func() { close(g.open) }) }

// isCommand makes a hook that acts on one command alone.
func isCommand(want string, then func()) func(uint64, []byte) {
	return func(_ uint64, command []byte) {
		if bytes.Equal(command, []byte(want)) {
			then()
		}
	}
}
