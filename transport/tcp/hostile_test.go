package tcp

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/transport"
)

// The tests here play one side of a conversation themselves, and play it wrong.

const (
	ours     = "ours"
	patience = 10 * time.Second
	nowhere  = "127.0.0.1:1"
)

// host is a transport with what happens to it.
type host struct {
	*Transport
	t        *testing.T
	refusals chan error
	reports  chan error
	messages chan string
	repeated []string // messages that may come again
	log      *syncBuffer
}

// syncBuffer is written by loggers and read by the test.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start opens a node in plaintext, or with an identity if change sets one.
func start(t *testing.T, node uint64, change func(*Config)) *host {
	t.Helper()
	h := &host{t: t, refusals: make(chan error, 100), reports: make(chan error, 1000), messages: make(chan string, 1000), log: &syncBuffer{}}
	c := Config{
		Cluster:   ours,
		Node:      node,
		Address:   "127.0.0.1:0",
		Logger:    slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelWarn})),
		OnRefused: func(_ string, err error) { offer(h.refusals, err) },
	}
	if change != nil {
		change(&c)
	}
	c.Insecure = c.Identity == nil
	known := c.Peers
	c.Peers = nil // set below, so that no report is missed
	tr, err := Listen(c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tr.Close()) })
	h.Transport = tr
	tr.HandleUnreachable(func(_ uint64, err error) { offer(h.reports, err) })
	tr.Handle(func(from uint64, payload []byte) { offer(h.messages, fmt.Sprintf("%d: %s", from, payload)) })
	for id, address := range known {
		require.NoError(t, tr.SetPeer(id, address))
	}
	return h
}

func offer[T any](c chan T, v T) {
	select {
	case c <- v:
	default:
	}
}

func peers(addresses ...any) map[uint64]string {
	m := make(map[uint64]string)
	for i := 0; i < len(addresses); i += 2 {
		m[uint64(addresses[i].(int))] = addresses[i+1].(string)
	}
	return m
}

func (h *host) address() string { return h.Addr().String() }

// refuses waits for a refusal with this reason, which must be in the log too.
func (h *host) refuses(reason error) *RefusedError {
	h.t.Helper()
	err := await(h.t, h.refusals, "a refusal")
	require.ErrorIs(h.t, err, reason)
	var refusal *RefusedError
	require.ErrorAs(h.t, err, &refusal)
	require.NotEmpty(h.t, refusal.Remote)
	require.Contains(h.t, h.log.String(), reason.Error())
	require.NotZero(h.t, h.Refusals())
	return refusal
}

func await[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		require.FailNow(t, what+" has not come")
		panic("unreachable")
	}
}

// deliver sends until the message arrives.
func deliver(t *testing.T, from, to *host, text string) {
	t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	end := time.After(patience)
	want := fmt.Sprintf("%d: %s", from.config.Node, text)
	var last error
	for sent := 0; ; sent++ {
		if sent == 1 {
			to.repeated = append(to.repeated, want)
		}
		last = from.Send(to.config.Node, []byte(text))
		select {
		case got := <-to.messages:
			if got == want {
				return
			}
		case <-again.C:
		case <-end:
			require.FailNowf(t, "nothing arrives", "the last Send returned: %v", last)
		}
	}
}

// nothingArrived fails the test if h has received anything, but for what was sent more than once until it came.
func (h *host) nothingArrived() {
	h.t.Helper()
	for {
		select {
		case m := <-h.messages:
			if !slices.Contains(h.repeated, m) {
				require.FailNow(h.t, "received "+m)
			}
		default:
			return
		}
	}
}

// gaveUp waits until an attempt to connect has failed.
func (h *host) gaveUp(node uint64) {
	h.t.Helper()
	require.Eventually(h.t, func() bool { return errors.Is(h.Send(node, nil), transport.ErrUnreachable) }, patience, time.Millisecond)
}

// greeting is a good hello of node 9 to h.
func (h *host) greeting() hello {
	return hello{sender: 9, receiver: h.config.Node, instance: 99, timeout: time.Second, cluster: ours}
}

// dialRaw connects without a word.
func dialRaw(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return conn
}

// greetRaw says hello and returns the answer.
func greetRaw(t *testing.T, conn net.Conn, h hello) answer {
	t.Helper()
	_, err := conn.Write(h.append(nil))
	require.NoError(t, err)
	a, err := readAnswer(conn)
	require.NoError(t, err)
	return a
}

// acceptRaw accepts one connection of a dialler and greets it, as a peer that is
// then up to the test.
func acceptRaw(t *testing.T, l net.Listener, a answer) net.Conn {
	t.Helper()
	require.NoError(t, l.(*net.TCPListener).SetDeadline(time.Now().Add(patience)))
	conn, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = readHello(conn)
	require.NoError(t, err)
	_, err = conn.Write(a.append(nil))
	require.NoError(t, err)
	return conn
}

func listenRaw(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// pair opens two nodes that know each other: the ones that must not be disturbed.
func pair(t *testing.T, change func(*Config)) (a, b *host) {
	t.Helper()
	a = start(t, 1, change)
	b = start(t, 2, func(c *Config) {
		if change != nil {
			change(c)
		}
		c.Peers = peers(1, a.address())
	})
	require.NoError(t, a.SetPeer(2, b.address()))
	deliver(t, a, b, "before")
	deliver(t, b, a, "before")
	return a, b
}

func TestPeerOfAnotherCluster(t *testing.T) {
	a, b := pair(t, nil)
	stranger := start(t, 3, func(c *Config) {
		c.Cluster = "theirs"
		c.Peers = peers(1, a.address())
	})
	refusal := a.refuses(ErrCluster)
	require.Equal(t, uint64(3), refusal.Node)
	require.False(t, refusal.ByPeer)
	require.Contains(t, refusal.Error(), `"theirs"`)
	refusal = stranger.refuses(ErrCluster)
	require.Equal(t, uint64(1), refusal.Node)
	require.True(t, refusal.ByPeer)
	report := await(t, stranger.reports, "a report")
	require.ErrorIs(t, report, transport.ErrUnreachable)
	require.ErrorIs(t, report, ErrCluster)
	deliver(t, a, b, "after")
	require.NotContains(t, a.log.String(), "3: ")
}

func TestAddressOfAnotherNode(t *testing.T) {
	a, _ := pair(t, nil)
	lost := start(t, 3, func(c *Config) { c.Peers = peers(2, a.address()) })
	refusal := a.refuses(ErrNode)
	require.Equal(t, uint64(3), refusal.Node)
	refusal = lost.refuses(ErrNode)
	require.Equal(t, uint64(2), refusal.Node)
	require.Contains(t, refusal.Error(), "node 1 answers there")
}

func TestOwnAddressAsThatOfAPeer(t *testing.T) {
	a := start(t, 1, nil)
	require.NoError(t, a.SetPeer(2, a.address()))
	a.refuses(ErrNode)
}

func TestUnsupportedVersion(t *testing.T) {
	a := start(t, 1, nil)
	h := a.greeting()
	b := h.append(nil)
	binary.LittleEndian.PutUint16(b[len(magic):], 7)
	b = appendSum(b[:len(b)-sumBytes])
	conn := dialRaw(t, a.address())
	_, err := conn.Write(b)
	require.NoError(t, err)
	got, err := readAnswer(conn)
	require.NoError(t, err)
	require.Equal(t, codeVersion, got.code)
	a.refuses(ErrVersion)
}

func TestWrongCertificate(t *testing.T) {
	authority, err := NewDevelopmentAuthority()
	require.NoError(t, err)
	other, err := NewDevelopmentAuthority()
	require.NoError(t, err)
	issue := func(a *DevelopmentAuthority, cluster string, node uint64) *Identity {
		i, err := a.Issue(cluster, node)
		require.NoError(t, err)
		return i
	}
	mixed := issue(other, ours, 9)
	mixed.Authorities = issue(authority, ours, 9).Authorities // so that the fault is found by the other side
	expired := issueAt(t, authority, ours, 9, time.Now().AddDate(-2, 0, 0))
	identified := func(node uint64) func(*Config) {
		return func(c *Config) { c.Identity = issue(authority, ours, node) }
	}
	for _, c := range []struct {
		name     string
		identity *Identity
	}{
		{"of another authority", mixed},
		{"of another node", issue(authority, ours, 8)},
		{"of another cluster", issue(authority, "theirs", 9)},
		{"expired", expired},
		{"none", &Identity{Authorities: mixed.Authorities}},
	} {
		t.Run("a dialler with a certificate "+c.name, func(t *testing.T) {
			a := start(t, 1, identified(1))
			config := c.identity.client(ours, 1)
			if c.identity.Certificate.Certificate == nil {
				config.Certificates = nil
			}
			conn := tls.Client(dialRaw(t, a.address()), config)
			h := a.greeting()
			_, err := conn.Write(h.append(nil))
			require.NoError(t, err)
			answered, err := readAnswer(conn)
			if err == nil {
				require.Equal(t, codeCertificate, answered.code)
			}
			a.refuses(ErrCertificate)
			b := start(t, 2, func(c *Config) {
				identified(2)(c)
				c.Peers = peers(1, a.address())
			})
			deliver(t, b, a, "undisturbed")
		})
		if c.identity.Certificate.Certificate == nil {
			continue // a server without one can't even begin
		}
		t.Run("an acceptor with a certificate "+c.name, func(t *testing.T) {
			l := listenRaw(t)
			served := make(chan struct{})
			go func() {
				defer close(served)
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_ = tls.Server(conn, c.identity.server()).Handshake()
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}()
			a := start(t, 1, func(c *Config) {
				identified(1)(c)
				c.Peers = peers(9, l.Addr().String())
			})
			refusal := a.refuses(ErrCertificate)
			require.Equal(t, uint64(9), refusal.Node)
			require.ErrorIs(t, await(t, a.reports, "a report"), ErrCertificate)
			_ = l.Close()
			<-served
		})
	}

	t.Run("one's own is refused at once", func(t *testing.T) {
		for _, i := range []*Identity{mixed, issue(authority, ours, 8), issue(authority, "theirs", 9), expired, {}} {
			_, err := Listen(Config{Cluster: ours, Node: 9, Address: "127.0.0.1:0", Identity: i})
			requireConfigError(t, err, "Identity")
		}
	})
}

func TestPlaintextMeetsTLS(t *testing.T) {
	authority, err := NewDevelopmentAuthority()
	require.NoError(t, err)
	secure := func(node uint64) func(*Config) {
		return func(c *Config) { c.Identity, err = authority.Issue(ours, node) }
	}
	t.Run("a dialler in plaintext", func(t *testing.T) {
		a := start(t, 1, secure(1))
		b := start(t, 2, func(c *Config) { c.Peers = peers(1, a.address()) })
		require.ErrorContains(t, a.refuses(ErrHandshake), "does not speak TLS")
		require.ErrorContains(t, b.refuses(ErrHandshake), "the peer speaks TLS")
		a.nothingArrived()
	})
	t.Run("an acceptor in plaintext", func(t *testing.T) {
		a := start(t, 1, nil)
		b := start(t, 2, func(c *Config) {
			secure(2)(c)
			c.Peers = peers(1, a.address())
		})
		require.ErrorContains(t, a.refuses(ErrHandshake), "the peer speaks TLS")
		require.ErrorIs(t, await(t, b.reports, "a report"), ErrHandshake)
		a.nothingArrived()
	})
}

func TestFrameOf2GiB(t *testing.T) {
	a, b := pair(t, nil)
	conn := dialRaw(t, a.address())
	require.Equal(t, codeAccepted, greetRaw(t, conn, a.greeting()).code)
	frame := binary.LittleEndian.AppendUint32(nil, 1<<31)
	_, err := conn.Write(append(frame, make([]byte, 100)...))
	require.NoError(t, err)
	refusal := a.refuses(ErrFrame)
	require.Equal(t, uint64(9), refusal.Node)
	require.ErrorContains(t, refusal, "2147483648 bytes, at most 67108864")
	_, err = io.Copy(io.Discard, conn)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	require.Error(t, err, "the connection is still open")
	deliver(t, b, a, "after")
	deliver(t, a, b, "after")
}

func TestFrameWithAFlippedBit(t *testing.T) {
	for _, at := range []int{0, 5, headerBytes, headerBytes + 9} {
		a := start(t, 1, nil)
		conn := dialRaw(t, a.address())
		require.Equal(t, codeAccepted, greetRaw(t, conn, a.greeting()).code)
		frame := append(appendHeader(nil, []byte("0123456789")), "0123456789"...)
		frame[at] ^= 2
		_, err := conn.Write(append(frame, make([]byte, 20)...))
		require.NoError(t, err)
		a.refuses(ErrFrame)
		a.nothingArrived()
	}
}

func TestGarbageOnThePort(t *testing.T) {
	random := make([]byte, 4096)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(random)
	good := (&hello{sender: 9, receiver: 1, instance: 99, timeout: time.Second, cluster: ours})
	flipped := good.append(nil)
	flipped[20] ^= 1
	long := good.append(nil)
	binary.LittleEndian.PutUint16(long[len(magic)+2:], 65535)
	nobody, lane := *good, *good
	nobody.sender = 0
	lane.lane = lanes
	for _, c := range []struct {
		name string
		says []byte
	}{
		{"nothing", nil},
		{"random bytes", random},
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")},
		{"a short line", []byte("hi\n")},
		{"a TLS greeting", []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0}},
		{"half a hello", good.append(nil)[:30]},
		{"a hello with a flipped bit", flipped},
		{"a hello that claims 64 KiB", long},
		{"a hello of node 0", nobody.append(nil)},
		{"a hello of an unknown lane", lane.append(nil)},
	} {
		for _, hangUp := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, hang up %v", c.name, hangUp), func(t *testing.T) {
				t.Parallel()
				a, b := pair(t, func(c *Config) { c.HandshakeTimeout = 300 * time.Millisecond })
				conn := dialRaw(t, a.address())
				_, err := conn.Write(c.says)
				require.NoError(t, err)
				if hangUp {
					require.NoError(t, conn.(*net.TCPConn).CloseWrite())
				}
				a.refuses(ErrHandshake)
				_, _ = io.Copy(io.Discard, conn) // ends, since a closes the connection
				a.nothingArrived()
				deliver(t, b, a, "after")
			})
		}
	}
}

func TestGarbageFromTheOneThatWasDialled(t *testing.T) {
	for _, says := range []string{"SSH-2.0-OpenSSH_9.6\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n"} {
		l := listenRaw(t)
		go func() {
			conn, err := l.Accept()
			if err == nil {
				_, _ = io.WriteString(conn, says)
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}
		}()
		a := start(t, 1, func(c *Config) { c.Peers = peers(2, l.Addr().String()) })
		require.ErrorContains(t, a.refuses(ErrHandshake), "not a Synod node")
		require.ErrorIs(t, await(t, a.reports, "a report"), transport.ErrUnreachable)
	}
}

func TestTwoNodesWithOneID(t *testing.T) {
	a := start(t, 1, nil)
	first := start(t, 2, func(c *Config) { c.Peers = peers(1, a.address()) })
	deliver(t, first, a, "first")
	second := start(t, 2, func(c *Config) { c.Peers = peers(1, a.address()) })
	refusal := a.refuses(ErrDuplicateNode)
	require.Equal(t, uint64(2), refusal.Node)
	refusal = second.refuses(ErrDuplicateNode)
	require.True(t, refusal.ByPeer)
	require.ErrorIs(t, await(t, second.reports, "a report"), ErrDuplicateNode)
	deliver(t, first, a, "still here")
	// When the first is gone, the second gets in.
	require.NoError(t, first.Close())
	deliver(t, second, a, "second")
}

func TestPeerUnderOwnID(t *testing.T) {
	a := start(t, 1, nil)
	twin := start(t, 1, nil)
	conn := dialRaw(t, a.address())
	h := a.greeting()
	h.sender, h.instance = 1, twin.instance
	require.Equal(t, codeDuplicate, greetRaw(t, conn, h).code)
	a.refuses(ErrDuplicateNode)
}

// A machine that lost its power leaves a connection behind that nobody closes.
func TestRestartedNodeReplacesADeadConnection(t *testing.T) {
	a := start(t, 1, nil)
	h := a.greeting()
	h.timeout = minPeerTimeout
	dead := dialRaw(t, a.address())
	require.Equal(t, codeAccepted, greetRaw(t, dead, h).code)
	h.instance++
	fresh := dialRaw(t, a.address())
	require.Equal(t, codeAccepted, greetRaw(t, fresh, h).code)
	_, err := io.Copy(io.Discard, dead) // probed, then closed
	_ = err
	_, err = fresh.Write(append(appendHeader(nil, []byte("hello")), "hello"...))
	require.NoError(t, err)
	require.Equal(t, "9: hello", await(t, a.messages, "the message"))
	require.Zero(t, a.Refusals())
}

func TestNewConnectionWaitsForTheOldOnesHandler(t *testing.T) {
	a := start(t, 1, nil)
	entered, release := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	var handled []string
	a.Handle(func(_ uint64, payload []byte) {
		mu.Lock()
		handled = append(handled, "begin "+string(payload))
		mu.Unlock()
		if string(payload) == "old" {
			close(entered)
			<-release
		}
		mu.Lock()
		handled = append(handled, "end "+string(payload))
		mu.Unlock()
		offer(a.messages, string(payload))
	})
	h := a.greeting()
	old := dialRaw(t, a.address())
	require.Equal(t, codeAccepted, greetRaw(t, old, h).code)
	_, err := old.Write(append(appendHeader(nil, []byte("old")), "old"...))
	require.NoError(t, err)
	<-entered
	fresh := dialRaw(t, a.address())
	_, err = fresh.Write(h.append(nil))
	require.NoError(t, err)
	_, err = fresh.Write(append(appendHeader(nil, []byte("new")), "new"...))
	require.NoError(t, err)
	_, _ = io.Copy(io.Discard, old) // until it is closed: the newcomer is waiting
	close(release)
	require.Equal(t, "old", await(t, a.messages, "the old message"))
	require.Equal(t, "new", await(t, a.messages, "the new message"))
	require.Equal(t, []string{"begin old", "end old", "begin new", "end new"}, handled)
}

func TestLimitsOfConnections(t *testing.T) {
	t.Run("in a handshake", func(t *testing.T) {
		a := start(t, 1, func(c *Config) { c.MaxHandshakes = 2 })
		for range 2 {
			conn := dialRaw(t, a.address())
			_, err := conn.Write([]byte(magic)[:3])
			require.NoError(t, err)
		}
		dialRaw(t, a.address())
		require.ErrorContains(t, a.refuses(ErrTooManyConnections), "MaxHandshakes")
	})
	t.Run("in use", func(t *testing.T) {
		a := start(t, 1, func(c *Config) { c.MaxConnections = 1 })
		h := a.greeting()
		require.Equal(t, codeAccepted, greetRaw(t, dialRaw(t, a.address()), h).code)
		h.sender = 10
		require.Equal(t, codeBusy, greetRaw(t, dialRaw(t, a.address()), h).code)
		require.ErrorContains(t, a.refuses(ErrTooManyConnections), "MaxConnections")
	})
}

func TestSilentDiallerIsGivenUp(t *testing.T) {
	a := start(t, 1, nil)
	h := a.greeting()
	h.timeout = minPeerTimeout
	conn := dialRaw(t, a.address())
	require.Equal(t, codeAccepted, greetRaw(t, conn, h).code)
	_, err := io.Copy(io.Discard, conn)
	require.NoError(t, err, "want the connection to be closed")
}

func TestHungPeerIsGivenUp(t *testing.T) {
	l := listenRaw(t)
	a := start(t, 1, func(c *Config) {
		c.Peers = peers(2, l.Addr().String())
		c.PeerTimeout = minPeerTimeout
	})
	acceptRaw(t, l, answer{node: 2, instance: 5, maxMessage: 1000})
	report := await(t, a.reports, "a report")
	require.ErrorIs(t, report, transport.ErrUnreachable)
	require.ErrorContains(t, report, "silent for 100ms")
}

func TestQueueOverflow(t *testing.T) {
	l := listenRaw(t)
	a := start(t, 1, func(c *Config) {
		c.Peers = peers(2, l.Addr().String())
		c.QueueMessages, c.QueueBytes = 3, 10<<20
		c.PeerTimeout = 300 * time.Millisecond
	})
	acceptRaw(t, l, answer{node: 2, instance: 5, maxMessage: maxMessageBytes}) // and never reads
	var err error
	sent := 0
	for err == nil && sent < 1000 {
		err = a.Send(2, make([]byte, 4<<20))
		sent++
	}
	require.ErrorIs(t, err, transport.ErrQueueFull)
	stats := a.Stats()
	require.Len(t, stats, 1)
	require.Equal(t, uint64(2), stats[0].Node)
	require.LessOrEqual(t, stats[0].Queued, 3)
	require.LessOrEqual(t, stats[0].Bytes, 12<<20)
	require.NotZero(t, stats[0].Refused)
	require.ErrorIs(t, await(t, a.reports, "a report of what was dropped"), transport.ErrUnreachable)
	require.NotZero(t, a.Stats()[0].Dropped)
}

func TestMessagesDoNotWaitLongForAConnection(t *testing.T) {
	l := listenRaw(t) // accepts connections, and nobody answers
	a := start(t, 1, func(c *Config) {
		c.Peers = peers(2, l.Addr().String())
		c.StaleAfter = 50 * time.Millisecond
	})
	err := a.Send(2, []byte("x"))
	report := await(t, a.reports, "a report")
	require.ErrorIs(t, report, transport.ErrUnreachable)
	require.ErrorContains(t, report, "no connection to")
	if err == nil {
		require.Equal(t, uint64(1), a.Stats()[0].Dropped)
	}
	require.Zero(t, a.Stats()[0].Queued)
	require.Zero(t, a.Stats()[0].Bytes)
	require.ErrorIs(t, a.Send(2, []byte("x")), transport.ErrUnreachable)
}

func TestUnreachablePeer(t *testing.T) {
	a := start(t, 1, func(c *Config) {
		c.Peers = peers(2, nowhere)
		c.MinBackoff, c.MaxBackoff = time.Hour, time.Hour
	})
	a.gaveUp(2)
	require.ErrorContains(t, a.Send(2, []byte("x")), "node 2")
	require.Zero(t, a.Refusals())
	require.NoError(t, a.SetPeer(2, "127.0.0.1:2"))
	for report := error(nil); report == nil || !strings.Contains(report.Error(), "127.0.0.1:2"); {
		report = await(t, a.reports, "a report")
		require.ErrorIs(t, report, transport.ErrUnreachable)
	}
}

func TestPeerThatConnectsEndsThePause(t *testing.T) {
	l := listenRaw(t)
	a := start(t, 1, func(c *Config) {
		c.Peers = peers(9, l.Addr().String())
		c.MinBackoff, c.MaxBackoff = time.Hour, time.Hour
	})
	conn, err := l.Accept()
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.ErrorIs(t, await(t, a.reports, "a report"), transport.ErrUnreachable)
	require.Equal(t, codeAccepted, greetRaw(t, dialRaw(t, a.address()), a.greeting()).code)
	acceptRaw(t, l, answer{node: 9, instance: 99, maxMessage: 1000})
	require.Eventually(t, func() bool { return a.Stats()[0].Connected }, patience, time.Millisecond)
}

func TestAddressChangesAtRunTime(t *testing.T) {
	b := start(t, 2, nil)
	a := start(t, 1, func(c *Config) {
		c.Peers = peers(2, nowhere)
		c.MinBackoff, c.MaxBackoff = time.Hour, time.Hour
	})
	a.gaveUp(2)
	require.NoError(t, a.SetPeer(2, b.address()))
	deliver(t, a, b, "at the first address")

	// The node is at two addresses now; the messages go to the one that was set last.
	moved := start(t, 2, nil)
	require.NoError(t, a.SetPeer(2, moved.address()))
	deliver(t, a, moved, "at the second address")
	require.Equal(t, moved.address(), a.Stats()[0].Address)

	a.RemovePeer(2)
	require.ErrorIs(t, a.Send(2, []byte("x")), transport.ErrUnknownNode)
	require.NoError(t, a.SetPeer(2, b.address()))
	deliver(t, a, b, "at the first again")

	requireConfigError(t, a.SetPeer(0, nowhere), "Peers")
	requireConfigError(t, a.SetPeer(2, "no port"), "Peers")
	require.NoError(t, a.SetPeer(1, nowhere), "a node's own address is ignored")
	require.NoError(t, a.Close())
	require.ErrorIs(t, a.SetPeer(2, nowhere), transport.ErrClosed)
}

func TestPeerRestartsAtItsAddress(t *testing.T) {
	b := start(t, 2, nil)
	address := b.address()
	a := start(t, 1, func(c *Config) { c.Peers = peers(2, address) })
	deliver(t, a, b, "one")
	for range 3 {
		require.NoError(t, b.Close())
		require.ErrorIs(t, await(t, a.reports, "a report"), transport.ErrUnreachable)
		b = start(t, 2, func(c *Config) { c.Address = address })
		deliver(t, a, b, "another")
	}
	require.Equal(t, uint64(4), a.Stats()[0].Connects)
}

func TestPeerTakesLess(t *testing.T) {
	b := start(t, 2, func(c *Config) { c.MaxMessageBytes = 100 })
	a := start(t, 1, func(c *Config) { c.Peers = peers(2, nowhere) })
	require.NoError(t, a.SetPeer(2, b.address()))
	deliver(t, a, b, "short")
	require.ErrorIs(t, a.Send(2, make([]byte, 101)), transport.ErrTooLarge)
	require.NoError(t, a.Send(2, bytes.Repeat([]byte("x"), 100)))
	deliver(t, a, b, "short")
	require.Equal(t, uint64(1), a.Stats()[0].Connects)
}

// What waits while the connection is being made, and turns out to be too large.
func TestQueuedMessageIsTooLargeForThePeer(t *testing.T) {
	l := listenRaw(t)
	a := start(t, 1, func(c *Config) {
		c.Peers = peers(2, l.Addr().String())
		c.StaleAfter = time.Hour
	})
	require.NoError(t, a.Send(2, make([]byte, 101)))
	require.NoError(t, a.Send(2, []byte("short")))
	conn := acceptRaw(t, l, answer{node: 2, instance: 5, maxMessage: 100})
	require.ErrorIs(t, await(t, a.reports, "a report"), transport.ErrTooLarge)
	payload, _, err := newFrameReader(conn, 1000).next()
	require.NoError(t, err)
	require.Equal(t, "short", string(payload))
	require.Equal(t, uint64(1), a.Stats()[0].Dropped)
}

func TestHandedInListener(t *testing.T) {
	l := listenRaw(t)
	a := start(t, 1, func(c *Config) { c.Address, c.Listener = "", l })
	require.Equal(t, l.Addr(), a.Addr())
	require.NoError(t, a.Close())
	_, err := net.Dial("tcp", l.Addr().String())
	require.Error(t, err, "the listener is still open")
	_, err = Listen(Config{Cluster: ours, Node: 1, Address: "127.0.0.1:99999", Insecure: true})
	require.ErrorContains(t, err, "listen on 127.0.0.1:99999")
}

func TestSendDoesNotAllocate(t *testing.T) {
	l := listenRaw(t)
	a := start(t, 1, func(c *Config) { c.Peers = peers(2, l.Addr().String()) })
	conn := acceptRaw(t, l, answer{node: 2, instance: 5, maxMessage: maxMessageBytes})
	payload := make([]byte, 100)
	buf := make([]byte, headerBytes+len(payload))
	one := func() {
		for a.Send(2, payload) != nil {
		}
		if _, err := io.ReadFull(conn, buf); err != nil {
			t.Error(err)
		}
	}
	for range 10 {
		one() // buffers reach their size
	}
	require.Less(t, testing.AllocsPerRun(200, one), 0.5)
	require.Eventually(t, func() bool { s := a.Stats()[0]; return s.Queued == 0 && s.Bytes == 0 }, patience, time.Millisecond)
}
