package tcp_test

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/transport/tcp"
)

// BenchmarkSenders measures messages of 200 bytes from eight goroutines in one
// direction over loopback. Allocations are counted on both sides: one a message is
// the payload that the receiver gets.
func BenchmarkSenders(b *testing.B) {
	const senders, size = 8, 200
	for name, identify := range identities(b) {
		b.Run(name, func(b *testing.B) {
			var arrived atomic.Int64
			nodes := benchmarkNodes(b, identify)
			nodes[1].Handle(func(_ uint64, payload []byte) {
				if len(payload) == size {
					arrived.Add(1)
				}
			})
			payload := make([]byte, size)
			b.SetBytes(size)
			b.ReportAllocs()
			b.SetParallelism(max(1, senders/runtime.GOMAXPROCS(0)))
			b.ResetTimer()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					for nodes[0].Send(2, payload) != nil { // nobody changes it
						// The queue is full. Eight that try without a pause would take the
						// processors from those that empty it.
						time.Sleep(100 * time.Microsecond)
					}
				}
			})
			for arrived.Load() < int64(b.N) {
				time.Sleep(100 * time.Microsecond)
			}
		})
	}
}

// BenchmarkLone measures one message of 200 bytes there and back, with and without
// TLS.
func BenchmarkLone(b *testing.B) {
	for name, identify := range identities(b) {
		b.Run(name, func(b *testing.B) {
			nodes := benchmarkNodes(b, identify)
			back := make(chan struct{}, 1)
			nodes[0].Handle(func(uint64, []byte) { back <- struct{}{} })
			nodes[1].Handle(func(from uint64, payload []byte) { _ = nodes[1].Send(from, payload) })
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if err := nodes[0].Send(2, make([]byte, 200)); err != nil {
					b.Fatal(err)
				}
				<-back
			}
		})
	}
}

func identities(b *testing.B) map[string]func(*tcp.Config) {
	authority, err := tcp.NewDevelopmentAuthority()
	require.NoError(b, err)
	return map[string]func(*tcp.Config){
		"plaintext": func(c *tcp.Config) { c.Insecure = true },
		"TLS": func(c *tcp.Config) {
			c.Identity, err = authority.Issue(c.Cluster, c.Node)
			require.NoError(b, err)
		},
	}
}

// benchmarkNodes returns the nodes 1 and 2, connected both ways.
func benchmarkNodes(b *testing.B, identify func(*tcp.Config)) [2]*tcp.Transport {
	var nodes [2]*tcp.Transport
	connected := make(chan uint64, 100)
	for i := range nodes {
		c := tcp.Config{Cluster: cluster, Node: uint64(i + 1), Address: "127.0.0.1:0", QueueMessages: 1 << 16}
		identify(&c)
		var err error
		nodes[i], err = tcp.Listen(c)
		require.NoError(b, err)
		b.Cleanup(func() { require.NoError(b, nodes[i].Close()) })
		nodes[i].Handle(func(from uint64, _ []byte) { connected <- from })
	}
	for i, n := range nodes {
		other := uint64(2 - i)
		require.NoError(b, n.SetPeer(other, nodes[1-i].Addr().String()))
		require.NoError(b, n.Send(other, nil))
		require.Equal(b, uint64(i+1), <-connected, fmt.Sprintf("node %d has connected", i+1))
	}
	return nodes
}
