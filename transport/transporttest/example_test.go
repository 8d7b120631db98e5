package transporttest_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/transporttest"
)

// UDP is a transport of one's own: a datagram a message, with the sender's ID in
// front. It has neither of the optional powers and no limit but the datagram's. It
// believes what a datagram says of its sender: it is for a network where everybody is
// trusted.
type UDP struct {
	node    uint64
	peers   map[uint64]*net.UDPAddr
	conn    *net.UDPConn
	handler atomic.Pointer[func(from uint64, payload []byte)]
	reader  sync.WaitGroup
	closed  atomic.Bool
}

// maxDatagram is what fits into a datagram beside the sender's ID.
const maxDatagram = 65507 - 8

// OpenUDP opens a node that listens on the address that peers gives it.
func OpenUDP(node uint64, peers map[uint64]*net.UDPAddr) (*UDP, error) {
	conn, err := net.ListenUDP("udp", peers[node])
	if err != nil {
		return nil, err
	}
	u := &UDP{node: node, peers: peers, conn: conn}
	u.reader.Go(u.read)
	return u, nil
}

func (u *UDP) Send(to uint64, payload []byte) error {
	address := u.peers[to]
	switch {
	case u.closed.Load():
		return fmt.Errorf("udp: %w", transport.ErrClosed)
	case address == nil || to == u.node:
		return fmt.Errorf("udp: node %d: %w", to, transport.ErrUnknownNode)
	case len(payload) > maxDatagram:
		return fmt.Errorf("udp: %d bytes, at most %d: %w", len(payload), maxDatagram, transport.ErrTooLarge)
	}
	datagram := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(payload)), u.node)
	if _, err := u.conn.WriteToUDP(append(datagram, payload...), address); err != nil {
		return fmt.Errorf("udp: node %d: %w: %w", to, transport.ErrUnreachable, err)
	}
	return nil
}

func (u *UDP) Handle(fn func(from uint64, payload []byte)) { u.handler.Store(&fn) }

func (u *UDP) read() {
	buffer := make([]byte, 1<<16)
	for {
		n, _, err := u.conn.ReadFromUDP(buffer)
		if u.closed.Load() {
			return
		}
		fn := u.handler.Load()
		if err != nil || n < 8 || fn == nil {
			continue
		}
		payload := append([]byte{}, buffer[8:n]...) // the receiver's from now on
		(*fn)(binary.LittleEndian.Uint64(buffer), payload)
	}
}

func (u *UDP) Close() error {
	u.closed.Store(true)
	_ = u.conn.Close() // ends read; fails when it was closed before
	u.reader.Wait()
	return nil
}

// proveUDP is what a test of it says.
func proveUDP(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Opener {
		peers := loopback(transporttest.Nodes)
		return func(node uint64) transport.Transport {
			u, err := OpenUDP(node, peers)
			if err != nil {
				t.Fatal(err)
			}
			return u
		}
	})
}

// loopback finds free ports for nodes.
func loopback(nodes int) map[uint64]*net.UDPAddr {
	peers := make(map[uint64]*net.UDPAddr)
	for id := range uint64(nodes) {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		peers[id+1] = conn.LocalAddr().(*net.UDPAddr)
	}
	return peers
}

// A transport of one's own is about a page of code. transporttest.Run proves it
// (proveUDP, called from a test), and then everything of the library runs on it.
func Example() {
	peers := loopback(2)
	one, err := OpenUDP(1, peers)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer one.Close()
	two, err := OpenUDP(2, peers)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer two.Close()

	done := make(chan struct{})
	two.Handle(func(from uint64, payload []byte) {
		fmt.Printf("from node %d: %s\n", from, payload)
		close(done)
	})
	if err := one.Send(2, []byte("hello")); err != nil {
		fmt.Println(err)
	}
	<-done
	// Output: from node 1: hello
}
