package transporttest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/transport"
)

// Opener opens a node of a network, and fails the test if it can't. Nodes have
// the IDs 1 to [Nodes]; each knows all others, whether they are open or not, and no
// others. A node that was closed may be opened again.
type Opener func(node uint64) transport.Transport

// Nodes is the highest ID that an [Opener] is called with.
const Nodes = 3

// unknown is a node that is never opened.
const unknown = 1 << 40

// Option changes what Run does.
type Option func(*suite)

// WithPatience sets how long a rule waits for something that must happen before
// it fails. Default: 10 s.
func WithPatience(d time.Duration) Option { return func(s *suite) { s.patience = d } }

type suite struct {
	network  func(t *testing.T) Opener
	patience time.Duration
}

// Run tests the transports of the networks that network makes, a subtest a rule
// and a network each. The subtests run one after the other; each closes what it
// opened.
func Run(t *testing.T, network func(t *testing.T) Opener, options ...Option) {
	s := &suite{network: network, patience: 10 * time.Second}
	for _, o := range options {
		o(s)
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			r.test(&env{T: t, patience: s.patience, opener: s.network(t)})
		})
	}
}

var rules = []struct {
	name string
	test func(*env)
}{
	{"a message arrives with its bytes, and Handle gets its sender", testDelivery},
	{"nothing is altered or invented", testIntegrity},
	{"a received payload belongs to the receiver", testOwnership},
	{"spare capacity of a payload is not sent", testCapacity},
	{"an empty message arrives", testEmpty},
	{"a message of 1 KiB arrives, one of 2 MiB does or is refused with ErrTooLarge", testLarge},
	{"Send to an unknown node fails with ErrUnknownNode", testUnknownNode},
	{"Send to oneself fails with ErrUnknownNode", testSelf},
	{"Send after Close fails with ErrClosed", testSendAfterClose},
	{"Close can be called again", testCloseTwice},
	{"Close waits for the handler, whoever else calls it", testCloseWaits},
	{"the handler is not called after Close", testHandlerAfterClose},
	{"messages of one sender are handled one at a time", testOneAtATime},
	{"messages that arrive before Handle do no harm", testBeforeHandle},
	{"Send may be called concurrently", testConcurrentSend},
	{"Send does not block or hoard while the receiver's handler is stuck", testStuckHandler},
	{"Send does not block while a node is closed, and a Reporter tells of it", testClosedNode},
	{"a node can be closed and opened again", testReopen},
	{"bulk messages arrive like others", testBulk},
	{"stuck bulk messages do not hold others up", testBulkLane},
	{"channels of a Mux do not mix", testMux},
}

// env is what a rule's test works with.
type env struct {
	*testing.T
	patience time.Duration
	opener   Opener
}

// open opens nodes and closes them when the test ends.
func (e *env) open(ids ...uint64) []*node {
	e.Helper()
	nodes := make([]*node, len(ids))
	for i, id := range ids {
		nodes[i] = newNode(id, e.opener(id))
		e.Cleanup(func() {
			if err := nodes[i].Close(); err != nil {
				e.Errorf("close node %d: %v", id, err)
			}
		})
	}
	return nodes
}

// node is a transport with what arrived at it.
type node struct {
	transport.Transport
	id uint64

	mu       sync.Mutex
	received []message
	changed  chan struct{} // closed and replaced when something arrives
}

type message struct {
	from    uint64
	payload []byte
}

func newNode(id uint64, t transport.Transport) *node {
	return &node{Transport: t, id: id, changed: make(chan struct{})}
}

// collect keeps all that arrives.
func (n *node) collect() { n.Handle(n.take) }

func (n *node) take(from uint64, payload []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.received = append(n.received, message{from, payload})
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *node) messages() ([]message, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.received), n.changed
}

// until calls send again and again until ok accepts one of the messages that n has
// received, and returns that.
func (e *env) until(n *node, what string, send func() error, ok func(message) bool) message {
	e.Helper()
	deadline := time.NewTimer(e.patience)
	defer deadline.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	var last error
	for seen := 0; ; {
		all, changed := n.messages()
		for _, m := range all[seen:] {
			if ok(m) {
				return m
			}
		}
		seen = len(all)
		last = send()
		select {
		case <-changed:
		case <-again.C:
		case <-deadline.C:
			e.Fatalf("%s has not arrived at node %d within %v; the last Send returned: %v", what, n.id, e.patience, last)
		}
	}
}

// connect sends from one node to another until something arrives.
func (e *env) connect(from, to *node) {
	e.Helper()
	text := fmt.Sprintf("connect %d to %d", from.id, to.id)
	e.until(to, "a message", func() error { return from.Send(to.id, []byte(text)) },
		func(m message) bool { return m.from == from.id && string(m.payload) == text })
}

// await fails the test unless done is closed in time.
func (e *env) await(done <-chan struct{}, what string) {
	e.Helper()
	select {
	case <-done:
	case <-time.After(e.patience):
		e.Fatalf("not within %v: %s", e.patience, what)
	}
}

// within runs fn and fails the test unless it returns in time.
func (e *env) within(what string, fn func()) {
	e.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	e.await(done, what)
}

// A sealed payload says whom it is from and to and what its number is, and is
// filled with bytes that depend on these, so that a receiver can tell that nobody
// made it up.
const sealBytes = 8 + 8 + 8 + 4

func seal(from, to, number uint64, size int) []byte {
	b := make([]byte, 0, sealBytes+size+transport.Overhead)
	b = binary.LittleEndian.AppendUint64(b, from)
	b = binary.LittleEndian.AppendUint64(b, to)
	b = binary.LittleEndian.AppendUint64(b, number)
	for i := range size {
		b = append(b, byte(number)+byte(i)*7)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

func unseal(b []byte) (from, to, number uint64, err error) {
	if len(b) < sealBytes {
		return 0, 0, 0, fmt.Errorf("%d bytes that nobody sent", len(b))
	}
	end := len(b) - 4
	if crc32.ChecksumIEEE(b[:end]) != binary.LittleEndian.Uint32(b[end:]) {
		return 0, 0, 0, fmt.Errorf("%d bytes that nobody sent so", len(b))
	}
	return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:]), nil
}

// checkSealed fails the test if something that n received is not what its sender
// sent to it. Messages of connect are left out.
func (e *env) checkSealed(n *node) map[sealed]int {
	e.Helper()
	all, _ := n.messages()
	counts := make(map[sealed]int)
	for _, m := range all {
		if bytes.HasPrefix(m.payload, []byte("connect ")) {
			continue
		}
		from, to, number, err := unseal(m.payload)
		require.NoErrorf(e, err, "node %d received from node %d", n.id, m.from)
		require.Equalf(e, m.from, from, "node %d was told another sender", n.id)
		require.Equalf(e, n.id, to, "node %d received what was meant for another", n.id)
		counts[sealed{from, number}]++
	}
	return counts
}

// sealed names a sealed message.
type sealed struct{ from, number uint64 }

func testDelivery(e *env) {
	nodes := e.open(1, 2, 3)
	for _, n := range nodes {
		n.collect()
	}
	for _, from := range nodes {
		for _, to := range nodes {
			if from == to {
				continue
			}
			text := fmt.Sprintf("from %d to %d", from.id, to.id)
			m := e.until(to, text, func() error { return from.Send(to.id, []byte(text)) },
				func(m message) bool { return string(m.payload) == text })
			require.Equal(e, from.id, m.from, "Handle was told another sender")
		}
	}
	for _, n := range nodes {
		all, _ := n.messages()
		for _, m := range all {
			require.Equalf(e, fmt.Sprintf("from %d to %d", m.from, n.id), string(m.payload), "node %d received what was not meant for it", n.id)
		}
	}
}

func testIntegrity(e *env) {
	nodes := e.open(1, 2, 3)
	for _, n := range nodes {
		n.collect()
	}
	a, b, c := nodes[0], nodes[1], nodes[2]
	number := uint64(0)
	const enough = 200
	for seen := 0; seen < enough; {
		e.until(b, "a sealed message", func() error {
			// Sizes around those where buffers end are the ones that go wrong.
			for _, size := range []int{0, 1, 7, 100, 511, 513, 1000, 1400} {
				number++
				_ = a.Send(b.id, seal(a.id, b.id, number, size))
				_ = c.Send(b.id, seal(c.id, b.id, number, size))
				_ = a.Send(c.id, seal(a.id, c.id, number, size))
			}
			return nil
		}, func(m message) bool { seen++; return seen >= enough })
	}
	require.NotEmpty(e, e.checkSealed(b))
	e.checkSealed(c)
	e.checkSealed(a)
}

func testOwnership(e *env) {
	nodes := e.open(1, 2)
	a, b := nodes[0], nodes[1]
	type kept struct{ payload, copy []byte }
	var mu sync.Mutex
	var odd []kept
	var count int
	b.Handle(func(from uint64, payload []byte) {
		mu.Lock()
		defer mu.Unlock()
		if count++; count%2 == 0 {
			// The owner may do as it likes with its bytes, up to their capacity.
			payload = payload[:cap(payload)]
			for i := range payload {
				payload[i] = 0xee
			}
		} else {
			odd = append(odd, kept{payload, bytes.Clone(payload)})
		}
		b.take(from, nil)
	})
	seen, number := 0, uint64(0)
	e.until(b, "a message", func() error {
		for _, size := range []int{0, 5, 64, 700} {
			number++
			_ = a.Send(b.id, seal(a.id, b.id, number, size))
		}
		return nil
	}, func(message) bool { seen++; return seen >= 100 })
	require.NoError(e, b.Close())
	for _, k := range odd {
		require.Equal(e, k.copy, k.payload, "a payload was changed after it had been handed over")
		_, _, _, err := unseal(k.payload)
		require.NoError(e, err, "a payload was changed by the owner of another")
	}
}

func testCapacity(e *env) {
	nodes := e.open(1, 2)
	a, b := nodes[0], nodes[1]
	b.collect()
	m := e.until(b, "a message", func() error {
		payload := []byte("said, unsaid")
		return a.Send(b.id, payload[:4])
	}, func(message) bool { return true })
	require.Equal(e, "said", string(m.payload))
}

func testEmpty(e *env) {
	nodes := e.open(1, 2)
	a, b := nodes[0], nodes[1]
	b.collect()
	e.until(b, "an empty message", func() error { return a.Send(b.id, []byte{}) },
		func(m message) bool { return m.from == a.id && len(m.payload) == 0 })
	all, _ := b.messages()
	before := len(all)
	count := 0
	e.until(b, "a nil message", func() error { return a.Send(b.id, nil) },
		func(m message) bool { count++; return count > before && m.from == a.id && len(m.payload) == 0 })
}

func testLarge(e *env) {
	nodes := e.open(1, 2)
	a, b := nodes[0], nodes[1]
	b.collect()
	for _, size := range []int{1 << 10, 64 << 10, 2 << 20} {
		pattern := bytes.Repeat([]byte{byte(size >> 10), 1, 2, 3, 5}, size/5)
		err := a.Send(b.id, bytes.Clone(pattern))
		if err != nil && size > 1<<10 {
			if errors.Is(err, transport.ErrTooLarge) {
				continue
			}
		}
		e.until(b, fmt.Sprintf("a message of %d bytes", len(pattern)),
			func() error { return a.Send(b.id, bytes.Clone(pattern)) },
			func(m message) bool { return bytes.Equal(m.payload, pattern) })
	}
}

func testUnknownNode(e *env) {
	nodes := e.open(1, 2)
	a, b := nodes[0], nodes[1]
	b.collect()
	require.ErrorIs(e, a.Send(unknown, []byte("x")), transport.ErrUnknownNode)
	require.ErrorIs(e, transport.SendBulk(a.Transport, unknown, []byte("x")), transport.ErrUnknownNode)
	require.ErrorIs(e, a.Send(0, []byte("x")), transport.ErrUnknownNode)
	e.connect(a, b)
}

func testSelf(e *env) {
	nodes := e.open(1, 2)
	a, b := nodes[0], nodes[1]
	a.collect()
	b.collect()
	require.ErrorIs(e, a.Send(a.id, []byte("to myself")), transport.ErrUnknownNode)
	require.ErrorIs(e, transport.SendBulk(a.Transport, a.id, []byte("to myself")), transport.ErrUnknownNode)
	e.connect(a, b)
	e.connect(b, a)
	all, _ := a.messages()
	for _, m := range all {
		require.Equal(e, b.id, m.from, "a node received a message of its own")
	}
}

func testSendAfterClose(e *env) {
	nodes := e.open(1, 2)
	a, b := nodes[0], nodes[1]
	b.collect()
	e.connect(a, b)
	require.NoError(e, a.Close())
	require.ErrorIs(e, a.Send(b.id, []byte("x")), transport.ErrClosed)
	require.ErrorIs(e, transport.SendBulk(a.Transport, b.id, []byte("x")), transport.ErrClosed)
}

func testCloseTwice(e *env) {
	nodes := e.open(1, 2)
	nodes[1].collect()
	e.connect(nodes[0], nodes[1])
	for _, n := range nodes {
		e.within("Close returns", func() {
			require.NoError(e, n.Close())
			require.NoError(e, n.Close())
		})
	}
	fresh := e.open(3)[0] // closed before it was ever used
	require.NoError(e, fresh.Close())
	require.NoError(e, fresh.Close())
}

func testCloseWaits(e *env) {
	nodes := e.open(1, 2)
	a, b := nodes[0], nodes[1]
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var returned atomic.Bool
	b.Handle(func(from uint64, payload []byte) {
		b.take(from, payload)
		once.Do(func() {
			close(entered)
			<-release
			returned.Store(true)
		})
	})
	e.until(b, "a message", func() error { return a.Send(b.id, []byte("x")) }, func(message) bool { return true })
	<-entered
	// Whoever calls Close may rely on it, not only who was first.
	const closers = 3
	closed := make(chan error, closers)
	for range closers {
		go func() { closed <- b.Close() }()
	}
	select {
	case <-closed:
		close(release)
		e.Fatal("Close returned while the handler was running")
	case <-time.After(50 * time.Millisecond): // a good transport is not faster or slower for it
	}
	close(release)
	e.within("Close returns when the handler has", func() {
		for range closers {
			require.NoError(e, <-closed)
			require.True(e, returned.Load(), "Close returned while the handler was running")
		}
	})
}

func testHandlerAfterClose(e *env) {
	nodes := e.open(1, 2, 3)
	stop := make(chan struct{})
	var senders sync.WaitGroup
	defer senders.Wait()
	defer close(stop)
	b := nodes[1]
	var closed atomic.Bool
	var late atomic.Int64
	b.Handle(func(from uint64, payload []byte) {
		if closed.Load() {
			late.Add(1)
		}
		b.take(from, nil)
	})
	for _, from := range []*node{nodes[0], nodes[2]} {
		senders.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = from.Send(b.id, []byte("x"))
					runtime.Gosched()
				}
			}
		})
	}
	seen := 0
	e.until(b, "a message", func() error { return nil }, func(message) bool { seen++; return seen >= 20 })
	e.within("Close returns", func() { require.NoError(e, b.Close()) })
	closed.Store(true)
	// What is under way has every chance to arrive.
	for range 200 {
		_ = nodes[0].Send(b.id, []byte("x"))
		runtime.Gosched()
	}
	select {
	case <-stop:
	case <-time.After(20 * time.Millisecond):
	}
	require.Zero(e, late.Load(), "the handler was called after Close had returned")
}

func testOneAtATime(e *env) {
	nodes := e.open(1, 2)
	a, b := nodes[0], nodes[1]
	var running, overlaps atomic.Int64
	b.Handle(func(from uint64, payload []byte) {
		if running.Add(1) > 1 {
			overlaps.Add(1)
		}
		for range 10 {
			runtime.Gosched()
		}
		running.Add(-1)
		b.take(from, nil)
	})
	e.until(b, "a message", func() error { return a.Send(b.id, []byte("x")) }, func(message) bool { return true })
	seen := 0
	e.until(b, "a message", func() error {
		var senders sync.WaitGroup
		for range 4 {
			senders.Go(func() {
				for range 25 {
					_ = a.Send(b.id, []byte("x"))
				}
			})
		}
		senders.Wait()
		return nil
	}, func(message) bool { seen++; return seen >= 300 })
	require.Zero(e, overlaps.Load(), "two messages of one sender were handled at once")
}

func testBeforeHandle(e *env) {
	nodes := e.open(1, 2)
	a, b := nodes[0], nodes[1]
	for range 100 {
		_ = a.Send(b.id, []byte("early"))
		runtime.Gosched()
	}
	b.collect()
	e.connect(a, b)
}

func testConcurrentSend(e *env) {
	nodes := e.open(1, 2, 3)
	for _, n := range nodes {
		n.collect()
	}
	const tasks, each = 4, 100
	var senders sync.WaitGroup
	for _, from := range nodes {
		for task := range uint64(tasks) {
			senders.Go(func() {
				for i := range uint64(each) {
					for _, to := range nodes {
						if to != from {
							_ = from.Send(to.id, seal(from.id, to.id, task<<32|i, int(i)))
						}
					}
				}
			})
		}
	}
	e.within("every Send returns", senders.Wait)
	for _, from := range nodes {
		for _, to := range nodes {
			if from != to {
				e.connect(from, to)
			}
		}
	}
	for _, n := range nodes {
		e.checkSealed(n)
	}
}

func testStuckHandler(e *env) {
	nodes := e.open(1, 2)
	a, b := nodes[0], nodes[1]
	stuck := make(chan struct{})
	release := sync.OnceFunc(func() { close(stuck) })
	defer release()
	var once sync.Once
	var delivered atomic.Int64
	b.Handle(func(from uint64, payload []byte) {
		if len(payload) == 0 {
			b.take(from, payload)
			once.Do(func() { <-stuck })
			return
		}
		delivered.Add(1)
		if string(payload) == "after" {
			b.take(from, payload)
		}
	})
	e.until(b, "a message", func() error { return a.Send(b.id, nil) }, func(message) bool { return true })
	// More than a transport may keep waiting, and more than a system's buffers hold.
	const size, count = 16 << 10, 16 << 10
	e.within("every Send returns, though the handler doesn't", func() {
		for range count {
			if err := a.Send(b.id, make([]byte, size)); err != nil {
				if !errors.Is(err, transport.ErrQueueFull) && !errors.Is(err, transport.ErrUnreachable) {
					e.Errorf("Send to a stuck node: %v: want ErrQueueFull or ErrUnreachable", err)
				}
			}
		}
	})
	release()
	e.until(b, "a message after the handler went on", func() error { return a.Send(b.id, []byte("after")) },
		func(m message) bool { return string(m.payload) == "after" })
	require.Lessf(e, delivered.Load(), int64(count), "all of %d MiB waited for a handler: queues must be bounded", size*count>>20)
}

func testClosedNode(e *env) {
	nodes := e.open(1, 2, 3)
	a, b, c := nodes[0], nodes[1], nodes[2]
	reports := make(chan uint64, 1)
	reporter := transport.HandleUnreachable(a.Transport, func(to uint64, err error) {
		if err == nil {
			e.Error("a report without a reason")
		}
		select {
		case reports <- to:
		default:
		}
	})
	b.collect()
	c.collect()
	e.connect(a, b)
	require.NoError(e, b.Close())
	e.within("Send returns", func() {
		for range 1000 {
			err := a.Send(b.id, []byte("x"))
			if err != nil && !errors.Is(err, transport.ErrUnreachable) && !errors.Is(err, transport.ErrUnknownNode) && !errors.Is(err, transport.ErrQueueFull) {
				e.Errorf("Send to a closed node: %v: want ErrUnreachable, ErrUnknownNode or ErrQueueFull", err)
				return
			}
		}
	})
	if reporter {
		e.within("a report or an error of Send tells that the node is gone", func() {
			for {
				if a.Send(b.id, []byte("x")) != nil {
					return
				}
				select {
				case to := <-reports:
					if to != b.id {
						e.Errorf("node %d was reported, it was %d that was closed", to, b.id)
					}
					return
				case <-time.After(time.Millisecond): // not lost yet: send again
				}
			}
		})
	}
	e.connect(a, c)
}

func testReopen(e *env) {
	nodes := e.open(1, 2)
	a, b := nodes[0], nodes[1]
	a.collect()
	b.collect()
	e.connect(a, b)
	e.connect(b, a)
	for range 2 {
		require.NoError(e, b.Close())
		_ = a.Send(b.id, []byte("meanwhile"))
		b = e.open(2)[0]
		b.collect()
		e.connect(a, b)
		e.connect(b, a)
	}
}

func testBulk(e *env) {
	nodes := e.open(1, 2)
	a, b := nodes[0], nodes[1]
	b.collect()
	number := uint64(0)
	for _, size := range []int{0, 1000, 20_000} {
		number++
		err := transport.SendBulk(a.Transport, b.id, seal(a.id, b.id, number, size))
		if size > 1000 && errors.Is(err, transport.ErrTooLarge) {
			continue
		}
		e.until(b, "a bulk message",
			func() error { return transport.SendBulk(a.Transport, b.id, seal(a.id, b.id, number, size)) },
			func(m message) bool { _, _, got, err := unseal(m.payload); return err == nil && got == number })
	}
	e.checkSealed(b)
}

func testBulkLane(e *env) {
	nodes := e.open(1, 2)
	a, b := nodes[0], nodes[1]
	if _, ok := a.Transport.(transport.Bulker); !ok {
		e.Skip("the transport is no Bulker")
	}
	release := make(chan struct{})
	defer close(release)
	b.Handle(func(from uint64, payload []byte) {
		if len(payload) > 0 && payload[0] == 'B' {
			b.take(from, nil)
			<-release
			return
		}
		b.take(from, payload)
	})
	bulk := func() []byte {
		p := make([]byte, 16<<10)
		p[0] = 'B'
		return p
	}
	e.until(b, "a bulk message", func() error { return transport.SendBulk(a.Transport, b.id, bulk()) }, func(message) bool { return true })
	e.within("every SendBulk returns, though the handler doesn't", func() {
		for range 8 << 10 {
			_ = transport.SendBulk(a.Transport, b.id, bulk())
		}
	})
	for i := range 10 {
		text := fmt.Sprintf("message %d", i)
		e.until(b, text, func() error { return a.Send(b.id, []byte(text)) },
			func(m message) bool { return string(m.payload) == text })
	}
}

func testMux(e *env) {
	nodes := e.open(1, 2)
	ma, mb := transport.NewMux(nodes[0].Transport), transport.NewMux(nodes[1].Transport)
	for id := range uint32(3) {
		a, b := newNode(1, ma.Channel(id)), newNode(2, mb.Channel(id))
		b.collect()
		text := fmt.Sprintf("channel %d", id)
		e.until(b, text, func() error { return a.Send(b.id, []byte(text)) },
			func(m message) bool { return m.from == a.id && string(m.payload) == text })
		all, _ := b.messages()
		for _, m := range all {
			require.Equal(e, text, string(m.payload), "a message of another channel")
		}
	}
}
