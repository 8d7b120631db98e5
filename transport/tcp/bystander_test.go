package tcp

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/transport"
)

// The tests here are about those who have nothing to do with somebody's fault: they
// must not notice it.

// undisturbed fails the test if a connection between a and b was lost or refused.
func undisturbed(t *testing.T, a, b *host) {
	t.Helper()
	deliver(t, a, b, "undisturbed")
	deliver(t, b, a, "undisturbed")
	for _, h := range []*host{a, b} {
		require.EqualValues(t, 1, h.Stats()[0].Connects, "node %d has lost its connection", h.config.Node)
	}
}

func TestNobodyIsDisturbedBySomebodysFault(t *testing.T) {
	payload := []byte("payload")
	frame := append(appendHeader(nil, payload), payload...)
	spoilt := append(frame[:len(frame)-1:len(frame)-1], 'D')
	huge := binary.LittleEndian.AppendUint32(nil, 1<<31)
	for _, c := range []struct {
		name    string
		fault   func(t *testing.T, a *host)
		refused bool // if not: nobody is to blame for a connection that breaks
	}{
		{"garbage", func(t *testing.T, a *host) {
			_, err := io.WriteString(dialRaw(t, a.address()), "GET / HTTP/1.1\r\n\r\n")
			require.NoError(t, err)
		}, true},
		{"another cluster", func(t *testing.T, a *host) {
			h := a.greeting()
			h.cluster = "theirs"
			require.Equal(t, codeCluster, greetRaw(t, dialRaw(t, a.address()), h).code)
		}, true},
		{"the ID of a node that is connected", func(t *testing.T, a *host) {
			h := a.greeting()
			h.sender = 2
			require.Equal(t, codeDuplicate, greetRaw(t, dialRaw(t, a.address()), h).code)
		}, true},
		{"a frame of 2 GiB", func(t *testing.T, a *host) { sendRaw(t, a, huge, make([]byte, 4)) }, true},
		{"a frame with a wrong checksum", func(t *testing.T, a *host) { sendRaw(t, a, spoilt) }, true},
		{"a frame cut short", func(t *testing.T, a *host) { sendRaw(t, a, frame[:len(frame)-1]) }, false},
		{"a header cut short", func(t *testing.T, a *host) { sendRaw(t, a, frame[:3]) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, b := pair(t, nil)
			c.fault(t, a)
			if c.refused {
				await(t, a.refusals, "a refusal")
			} else {
				require.Eventually(t, func() bool {
					a.mu.Lock()
					defer a.mu.Unlock()
					return a.inbound[source{9, messageLane}] == nil
				}, patience, time.Millisecond)
				require.Zero(t, a.Refusals())
			}
			undisturbed(t, a, b)
			a.nothingArrived()
		})
	}
}

// sendRaw greets a as node 9, writes, and hangs up.
func sendRaw(t *testing.T, a *host, pieces ...[]byte) {
	t.Helper()
	conn := dialRaw(t, a.address())
	require.Equal(t, codeAccepted, greetRaw(t, conn, a.greeting()).code)
	_, err := conn.Write(bytes.Join(pieces, nil))
	require.NoError(t, err)
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
}

// As many as may be in a handshake say nothing. They are gone after the timeout, and
// a good one gets in.
func TestSilentConnectionsDoNotKeepAGoodOneOut(t *testing.T) {
	const limit = 3
	a, b := pair(t, func(c *Config) { c.MaxHandshakes, c.HandshakeTimeout = limit, 200*time.Millisecond })
	shaking := func() int {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.shaking
	}
	silent := make([]net.Conn, limit)
	for i := range silent {
		silent[i] = dialRaw(t, a.address())
	}
	require.Eventually(t, func() bool { return shaking() == limit }, patience, time.Millisecond)
	c := start(t, 3, func(c *Config) {
		c.Peers = peers(1, a.address())
		c.MinBackoff = time.Millisecond
	})
	require.ErrorContains(t, a.refuses(ErrTooManyConnections), "MaxHandshakes")
	deliver(t, c, a, "in spite of them")
	for _, conn := range silent {
		_, err := conn.Read(make([]byte, 1))
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection is still open")
	}
	undisturbed(t, a, b)
}

func TestHandshakeThatStallsHalfWayIsGivenUp(t *testing.T) {
	authority, err := NewDevelopmentAuthority()
	require.NoError(t, err)
	a := start(t, 1, func(c *Config) {
		c.HandshakeTimeout = 100 * time.Millisecond
		c.Identity, err = authority.Issue(ours, 1)
		require.NoError(t, err)
	})
	identity, err := authority.Issue(ours, 9)
	require.NoError(t, err)
	conn := tls.Client(dialRaw(t, a.address()), identity.client(ours, 1))
	require.NoError(t, conn.Handshake())
	require.ErrorContains(t, a.refuses(ErrHandshake), "nothing more was said in time")
	_, err = io.Copy(io.Discard, conn)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection is still open")
}

func TestTLSBelow13IsRefused(t *testing.T) {
	authority, err := NewDevelopmentAuthority()
	require.NoError(t, err)
	identity, err := authority.Issue(ours, 9)
	require.NoError(t, err)
	a := start(t, 1, func(c *Config) {
		c.Identity, err = authority.Issue(ours, 1)
		require.NoError(t, err)
	})
	config := identity.client(ours, 1)
	config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	require.Error(t, tls.Client(dialRaw(t, a.address()), config).Handshake())
	a.refuses(ErrHandshake)
}

func TestDiallerMeetsAnotherVersion(t *testing.T) {
	l := listenRaw(t)
	a := start(t, 1, func(c *Config) { c.Peers = peers(2, l.Addr().String()) })
	conn, err := l.Accept()
	require.NoError(t, err)
	defer conn.Close()
	_, err = readHello(conn)
	require.NoError(t, err)
	b := (&answer{code: codeVersion, node: 2}).append(nil)
	binary.LittleEndian.PutUint16(b[len(magic):], 7)
	_, err = conn.Write(appendSum(b[:len(b)-sumBytes]))
	require.NoError(t, err)
	require.ErrorContains(t, a.refuses(ErrVersion), "the peer's is 7")
	require.ErrorIs(t, await(t, a.reports, "a report"), transport.ErrUnreachable)
}

func TestOwnAddressIsCalledThat(t *testing.T) {
	a := start(t, 1, nil)
	require.NoError(t, a.SetPeer(2, a.address()))
	for {
		if refusal := a.refuses(ErrNode); !refusal.ByPeer {
			require.ErrorContains(t, refusal, "this node has dialled itself, at the address that it has for node 2")
			return
		}
	}
}

// Nodes that have nothing to say to each other stay connected.
func TestIdleConnectionsAreKept(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.PeerTimeout = minPeerTimeout })
	a.mu.Lock()
	in := a.inbound[source{2, messageLane}]
	a.mu.Unlock()
	// There are at most four probes within the timeout.
	end := in.reads.Load() + 12
	require.Eventually(t, func() bool { return in.reads.Load() >= end }, patience, time.Millisecond)
	undisturbed(t, a, b)
}

// What a peer sends is handled while it sends a message of many megabytes, which
// arrives as it was, over either way of writing.
func TestLargeMessages(t *testing.T) {
	authority, err := NewDevelopmentAuthority()
	require.NoError(t, err)
	for name, secure := range map[string]bool{"plaintext": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t, func(c *Config) {
				if secure {
					c.Identity, err = authority.Issue(ours, c.Node)
					require.NoError(t, err)
				}
			})
			for _, size := range []int{1 << 20, 8 << 20} {
				want := bytes.Repeat([]byte("0123456789abcdef"), size/16)
				arrived := make(chan bool, 1)
				b.Handle(func(_ uint64, payload []byte) { offer(arrived, bytes.Equal(payload, want)) })
				require.NoError(t, a.Send(2, bytes.Clone(want)))
				require.True(t, await(t, arrived, "the message"))
				require.NoError(t, a.SendBulk(2, bytes.Clone(want)))
				require.True(t, await(t, arrived, "the bulk message"))
			}
			require.ErrorIs(t, a.Send(2, make([]byte, 64<<20+1)), transport.ErrTooLarge)
		})
	}
}

func TestTheLogOfRefusalsIsLimited(t *testing.T) {
	a := start(t, 1, nil)
	const scans = 100
	for range scans {
		conn := dialRaw(t, a.address())
		_, _ = io.WriteString(conn, "scan")
		require.NoError(t, conn.Close())
	}
	for range scans {
		await(t, a.refusals, "a refusal")
	}
	require.EqualValues(t, scans, a.Refusals(), "all are counted")
	require.Less(t, strings.Count(a.log.String(), `msg="connection refused"`), scans)
}

// busy returns the stacks of goroutines that run code of this package other than
// its tests, and other than what closes a connection when a context is done: that
// ends by itself.
func busy() (stacks []string) {
	b := make([]byte, 1<<20)
	for s := range strings.SplitSeq(string(b[:runtime.Stack(b, true)]), "\n\n") {
		if strings.Contains(s, "created by context.(*afterFuncCtx)") {
			continue
		}
		if strings.Contains(s, "transport/tcp.(*Transport)") || strings.Contains(s, "transport/tcp.(*lane)") {
			stacks = append(stacks, s)
		}
	}
	return stacks
}

func TestCloseLeavesNothingRunning(t *testing.T) {
	require.Empty(t, busy(), "an earlier test has left something")
	l := listenRaw(t) // accepts, and never answers
	a, b := pair(t, nil)
	require.NoError(t, a.SetPeer(3, l.Addr().String()))
	require.NoError(t, a.SetPeer(4, nowhere))
	require.NoError(t, a.SendBulk(2, []byte("bulk")))
	await(t, b.messages, "the bulk message")
	dialRaw(t, a.address()) // says nothing
	require.Equal(t, codeAccepted, greetRaw(t, dialRaw(t, a.address()), a.greeting()).code)
	require.NotEmpty(t, busy())
	for _, h := range []*host{a, b} {
		require.NoError(t, h.Close())
	}
	require.Empty(t, busy())
	_, err := net.Dial("tcp", a.address())
	require.Error(t, err, "the port is still open")
}

// A claim of 2 GiB gets memory as its bytes arrive, and not at once after the first
// of them.
func TestMemoryOfAFrameFollowsWhatHasArrived(t *testing.T) {
	for _, arrives := range []int{0, 1, readBufferBytes, firstBytes + 1, 4*firstBytes + 1} {
		b := make([]byte, headerBytes+arrives)
		binary.LittleEndian.PutUint32(b, maxMessageBytes)
		r := newFrameReader(bytes.NewReader(b), maxMessageBytes)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := r.next()
		runtime.ReadMemStats(&after)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		// What it grew through is counted too: a third more.
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(6*arrives+2*firstBytes), "%d bytes have arrived", arrives)
	}
}
