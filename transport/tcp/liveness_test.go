package tcp

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/transport"
)

func TestQueueMessagesIsALimit(t *testing.T) {
	l := listenRaw(t) // connects, and never answers: everything waits
	a := start(t, 1, func(c *Config) {
		c.Peers = peers(2, l.Addr().String())
		c.QueueMessages, c.StaleAfter = 3, time.Hour
	})
	for range 3 {
		require.NoError(t, a.Send(2, nil))
		require.NoError(t, a.SendBulk(2, nil))
	}
	require.ErrorIs(t, a.Send(2, nil), transport.ErrQueueFull)
	require.ErrorIs(t, a.SendBulk(2, nil), transport.ErrQueueFull)
	require.Equal(t, 6, a.Stats()[0].Queued)
	require.Equal(t, uint64(2), a.Stats()[0].Refused)
}

func TestQueueBytesIsALimit(t *testing.T) {
	l := listenRaw(t)
	a := start(t, 1, func(c *Config) {
		c.Peers = peers(2, l.Addr().String())
		c.QueueBytes, c.StaleAfter = 100, time.Hour
	})
	require.NoError(t, a.Send(2, make([]byte, 60)))
	require.ErrorIs(t, a.Send(2, make([]byte, 41)), transport.ErrQueueFull)
	require.NoError(t, a.Send(2, make([]byte, 40)))
	require.ErrorIs(t, a.Send(2, make([]byte, 1)), transport.ErrQueueFull)
	require.NoError(t, a.SendBulk(2, make([]byte, 1000)), "a single message fits an empty queue")
	require.ErrorIs(t, a.SendBulk(2, make([]byte, 1)), transport.ErrQueueFull)
	require.Equal(t, 1100, a.Stats()[0].Bytes)
}

func TestIdleDiallerPings(t *testing.T) {
	l := listenRaw(t)
	a := start(t, 1, func(c *Config) {
		c.Peers = peers(2, l.Addr().String())
		c.PeerTimeout = 500 * time.Millisecond
	})
	r := newFrameReader(acceptRaw(t, l, answer{node: 2, instance: 5, maxMessage: 100}), 100)
	_, ping, err := r.next()
	require.NoError(t, err)
	require.True(t, ping)
	require.Zero(t, a.Stats()[0].Sent)
}

func TestDiallerAnswersAProbe(t *testing.T) {
	l := listenRaw(t)
	start(t, 1, func(c *Config) {
		c.Peers = peers(2, l.Addr().String())
		c.PeerTimeout = maxPeerTimeout // it has no other reason to say anything
	})
	conn := acceptRaw(t, l, answer{node: 2, instance: 5, maxMessage: 100})
	for range 3 {
		_, err := conn.Write([]byte{signRead, signProbe})
		require.NoError(t, err)
		_, ping, err := newFrameReader(conn, 100).next()
		require.NoError(t, err)
		require.True(t, ping)
	}
}

func TestAcceptorTellsThatItReads(t *testing.T) {
	t.Parallel()
	a := start(t, 1, nil)
	h := a.greeting()
	h.timeout = time.Second
	conn := dialRaw(t, a.address())
	require.Equal(t, codeAccepted, greetRaw(t, conn, h).code)
	signs := make(chan byte, 100)
	go func() {
		defer close(signs)
		for {
			var b [1]byte
			if _, err := conn.Read(b[:]); err != nil {
				return
			}
			signs <- b[0]
		}
	}()
	// A connection on which something arrives now and then outlives its timeout.
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for count, began := 0, time.Now(); count < 5 || time.Since(began) < h.timeout*3/2; {
		select {
		case s, open := <-signs:
			require.True(t, open, "the connection was given up")
			require.Equal(t, byte(signRead), s)
			count++
		case <-again.C:
			_, err := conn.Write(appendPing(nil))
			require.NoError(t, err)
		}
	}
	require.NoError(t, conn.Close())
	for range signs {
	}
}

// A peer that lost its power and is back: its new process connects, while this
// node's connection leads to the old one.
func TestConnectionToAnOldProcessIsMadeAnew(t *testing.T) {
	l := listenRaw(t)
	a := start(t, 1, func(c *Config) {
		c.Peers = peers(9, l.Addr().String())
		c.PeerTimeout = maxPeerTimeout
	})
	acceptRaw(t, l, answer{node: 9, instance: 5, maxMessage: 100})
	require.Eventually(t, func() bool { return a.Stats()[0].Connected }, patience, time.Millisecond)
	h := a.greeting()
	require.Equal(t, codeAccepted, greetRaw(t, dialRaw(t, a.address()), h).code)
	acceptRaw(t, l, answer{node: 9, instance: h.instance, maxMessage: 100})
	require.Eventually(t, func() bool { return a.Stats()[0].Connects == 2 }, patience, time.Millisecond)

	// The same process connects again: all is well.
	again := dialRaw(t, a.address())
	require.Equal(t, codeAccepted, greetRaw(t, again, h).code)
	_, err := again.Write(append(appendHeader(nil, []byte("x")), "x"...))
	require.NoError(t, err)
	require.Equal(t, "9: x", await(t, a.messages, "the message"))
	out := (*a.peers.Load())[9].lanes[messageLane]
	out.mu.Lock()
	defer out.mu.Unlock()
	require.False(t, out.moved)
	require.NotZero(t, out.instance)
}

// What is queued when a connection breaks goes over the next one.
func TestQueueOutlivesAConnection(t *testing.T) {
	l := listenRaw(t)
	a := start(t, 1, func(c *Config) {
		c.Peers = peers(2, nowhere)
		c.StaleAfter = time.Hour
	})
	require.NoError(t, a.SetPeer(2, l.Addr().String()))
	require.Eventually(t, func() bool { return a.Send(2, []byte("kept")) == nil }, patience, time.Millisecond)
	other := listenRaw(t)
	require.NoError(t, a.SetPeer(2, other.Addr().String())) // while the first has not answered
	conn := acceptRaw(t, other, answer{node: 2, instance: 5, maxMessage: 100})
	payload, _, err := newFrameReader(conn, 100).next()
	require.NoError(t, err)
	require.Equal(t, "kept", string(payload))
}
