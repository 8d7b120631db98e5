package tcp_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/tcp"
)

// Two nodes with certificates from files, as two processes would have them.
func Example() {
	dir, err := os.MkdirTemp("", "synod")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := tcp.WriteDevelopmentFiles(dir, "orders", 1, 2); err != nil {
		log.Fatal(err)
	}
	listen := func(node uint64, peers map[uint64]string) *tcp.Transport {
		identity, err := tcp.LoadIdentity(
			filepath.Join(dir, "ca.pem"),
			filepath.Join(dir, fmt.Sprintf("node-%d.pem", node)),
			filepath.Join(dir, fmt.Sprintf("node-%d-key.pem", node)))
		if err != nil {
			log.Fatal(err)
		}
		t, err := tcp.Listen(tcp.Config{Cluster: "orders", Node: node, Address: "127.0.0.1:0", Peers: peers, Identity: identity})
		if err != nil {
			log.Fatal(err)
		}
		return t
	}

	b := listen(2, nil)
	defer b.Close()
	received := make(chan string)
	b.Handle(func(from uint64, payload []byte) { received <- fmt.Sprintf("from node %d: %s", from, payload) })

	a := listen(1, map[uint64]string{2: b.Addr().String()})
	defer a.Close()
	if err := a.Send(2, []byte("hello")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-received)
	// Output: from node 1: hello
}

func ExampleConfig() {
	_, err := tcp.Listen(tcp.Config{Cluster: "orders", Node: 1})
	fmt.Println(err)
	// Output: tcp: Config.Address: missing: give a host and port to listen on, or a Listener
}

func ExampleTransport_SetPeer() {
	t, err := tcp.Listen(tcp.Config{Cluster: "orders", Node: 1, Address: "127.0.0.1:0", Insecure: true})
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	fmt.Println(t.Send(2, []byte("hello")))
	if err := t.SetPeer(2, "b.example:7000"); err != nil {
		log.Fatal(err)
	}
	for _, s := range t.Stats() {
		fmt.Println("node", s.Node, "at", s.Address)
	}
	// Output:
	// tcp: to node 2: transport: unknown node: tell its address by SetPeer
	// node 2 at b.example:7000
}

func ExampleDevelopmentAuthority() {
	authority, err := tcp.NewDevelopmentAuthority()
	if err != nil {
		log.Fatal(err)
	}
	identity, err := authority.Issue("orders", 7)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(identity.Certificate.Leaf.URIs[0])
	_, err = tcp.Listen(tcp.Config{Cluster: "orders", Node: 8, Address: "127.0.0.1:0", Identity: identity})
	fmt.Println(err)
	// Output:
	// synod:///orders/node/7
	// tcp: Config.Identity: its certificate is not this node's: tcp: certificate refused: it is for "synod:///orders/node/7", not for "synod:///orders/node/8"
}

// A transport is usually shared through channels of a transport.Mux.
func ExampleTransport() {
	t, err := tcp.Listen(tcp.Config{Cluster: "orders", Node: 1, Address: "127.0.0.1:0", Insecure: true})
	if err != nil {
		log.Fatal(err)
	}
	mux := transport.NewMux(t)
	consensus, own := mux.Channel(1), mux.Channel(2)
	consensus.Handle(func(from uint64, payload []byte) {})
	own.Handle(func(from uint64, payload []byte) {})
	fmt.Println(mux.Close())
	fmt.Println(errors.Is(own.Send(2, nil), transport.ErrClosed))
	// Output:
	// <nil>
	// true
}
