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

// BenchmarkSend measures messages in one direction over loopback. Its one
// allocation a message is the payload that the receiver gets.
func BenchmarkSend(b *testing.B) {
	for _, size := range []int{128, 1 << 10, 16 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			from, arrived := benchmarkPair(b, 1<<16)
			payload := make([]byte, size)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			b.ResetTimer()
			for range b.N {
				// Nobody changes the payload, so that it can be sent again and again.
				for from.Send(2, payload) != nil {
					time.Sleep(50 * time.Microsecond) // spinning would take the processor that the others need
				}
			}
			for arrived.Load() < int64(b.N) {
				time.Sleep(50 * time.Microsecond)
			}
		})
	}
}

func benchmarkPair(b *testing.B, queue int) (*tcp.Transport, *atomic.Int64) {
	to, err := tcp.Listen(tcp.Config{Cluster: cluster, Node: 2, Address: "127.0.0.1:0", Insecure: true})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, to.Close()) })
	var arrived atomic.Int64
	var connected atomic.Bool
	to.Handle(func(_ uint64, payload []byte) {
		if len(payload) > 0 {
			arrived.Add(1)
		}
		connected.Store(true)
	})
	from, err := tcp.Listen(tcp.Config{Cluster: cluster, Node: 1, Address: "127.0.0.1:0", Insecure: true,
		Peers: map[uint64]string{2: to.Addr().String()}, QueueMessages: queue})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, from.Close()) })
	for !connected.Load() {
		_ = from.Send(2, nil) // does not count
		runtime.Gosched()
	}
	return from, &arrived
}

// BenchmarkRoundTrip measures a lone message and its answer.
func BenchmarkRoundTrip(b *testing.B) {
	nodes := make([]*tcp.Transport, 2)
	for i := range nodes {
		tr, err := tcp.Listen(tcp.Config{Cluster: cluster, Node: uint64(i + 1), Address: "127.0.0.1:0", Insecure: true})
		require.NoError(b, err)
		b.Cleanup(func() { require.NoError(b, tr.Close()) })
		nodes[i] = tr
	}
	for i, tr := range nodes {
		require.NoError(b, tr.SetPeer(uint64(2-i), nodes[1-i].Addr().String()))
	}
	back := make(chan struct{}, 1)
	nodes[0].Handle(func(uint64, []byte) { back <- struct{}{} })
	nodes[1].Handle(func(from uint64, payload []byte) { _ = nodes[1].Send(from, payload) })
	for range 2 {
		require.NoError(b, nodes[0].Send(2, make([]byte, 128)))
		<-back
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		_ = nodes[0].Send(2, make([]byte, 128))
		<-back
	}
}
