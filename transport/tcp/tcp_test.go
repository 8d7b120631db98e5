package tcp_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/tcp"
	"github.com/synod-go/synod/transport/transporttest"
)

const cluster = "test cluster/ä"

// network opens nodes on free ports and tells those that are open of each other.
type network struct {
	t         *testing.T
	configure func(node uint64, c *tcp.Config)

	mu        sync.Mutex
	addresses map[uint64]string
	open      map[uint64]*tcp.Transport
}

// nowhere is an address that nobody listens on.
const nowhere = "127.0.0.1:1"

func newNetwork(t *testing.T, configure func(node uint64, c *tcp.Config)) *network {
	n := &network{t: t, configure: configure, addresses: make(map[uint64]string), open: make(map[uint64]*tcp.Transport)}
	for node := range uint64(transporttest.Nodes) {
		n.addresses[node+1] = nowhere
	}
	return n
}

func (n *network) config(node uint64) tcp.Config {
	c := tcp.Config{Cluster: cluster, Node: node, Address: "127.0.0.1:0", Peers: n.addresses, PeerTimeout: 2 * time.Second}
	n.configure(node, &c)
	return c
}

// listen opens a node, which the test closes.
func (n *network) listen(node uint64) *tcp.Transport {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	tr, err := tcp.Listen(n.config(node))
	require.NoError(n.t, err)
	n.t.Cleanup(func() { require.NoError(n.t, tr.Close()) })
	n.addresses[node], n.open[node] = tr.Addr().String(), tr
	for id, peer := range n.open {
		if err := peer.SetPeer(node, tr.Addr().String()); err != nil {
			require.ErrorIs(n.t, err, transport.ErrClosed)
			delete(n.open, id)
		}
	}
	return tr
}

func insecure(_ uint64, c *tcp.Config) { c.Insecure = true }

// secure returns what gives each node an identity of one new authority.
func secure(t *testing.T) func(node uint64, c *tcp.Config) {
	authority, err := tcp.NewDevelopmentAuthority()
	require.NoError(t, err)
	return func(node uint64, c *tcp.Config) {
		identity, err := authority.Issue(c.Cluster, node)
		require.NoError(t, err)
		c.Identity = identity
	}
}

func TestTransport(t *testing.T) {
	for name, configure := range map[string]func(*testing.T) func(uint64, *tcp.Config){
		"plaintext": func(*testing.T) func(uint64, *tcp.Config) { return insecure },
		"TLS":       secure,
	} {
		t.Run(name, func(t *testing.T) {
			transporttest.Run(t, func(t *testing.T) transporttest.Opener {
				n := newNetwork(t, configure(t))
				return func(node uint64) transport.Transport { return n.listen(node) }
			})
		})
	}
}
