package tcp

import (
	"fmt"
	"log/slog"
	"maps"
	"net"
	"time"

	"github.com/synod-go/synod"
)

// Config says how a node is connected. Cluster, Node, one of Address and Listener,
// and one of Identity and Insecure are required; what is left zero of the rest
// gets the default that stands beside it.
type Config struct {
	// Cluster names the cluster: 1 to 255 bytes, the same on all its nodes.
	Cluster string

	// Node is this node's ID, above 0.
	Node uint64

	// Address is the host and port to listen on. Port 0 picks a free one, see
	// Transport.Addr.
	Address string

	// Listener, if set, is listened on in the place of Address. Close closes it.
	Listener net.Listener

	// Identity proves who this node is, and checks the others. See LoadIdentity.
	Identity *Identity

	// Insecure allows plaintext: anyone who reaches the port can read and alter
	// messages, and be any node. It excludes Identity.
	Insecure bool

	// Peers gives the addresses of the other nodes, as host:port. Names are resolved
	// at each attempt to connect. This node itself is ignored, so that all nodes
	// can have the same list. Default: none; see Transport.SetPeer.
	Peers map[uint64]string

	// Logger receives what happens. Default: nothing is logged.
	Logger *slog.Logger

	// OnRefused, if set, is called with each connection that this node refused, that
	// a peer refused, or that was given up because of what it carried, and with the
	// other side's address. The error is a *RefusedError. It is called concurrently
	// and must return quickly.
	OnRefused func(remote string, err error)

	// MaxMessageBytes is the largest payload, sent or received. A peer may set less;
	// then that holds for what is sent to it. Default: 64 MiB. At most 2 GiB - 1.
	MaxMessageBytes int

	// QueueMessages and QueueBytes limit what waits to be written, for each peer and
	// lane. A single message fits an empty queue in any case. Rule of thumb: what
	// the network carries within StaleAfter. Default: 4,096 messages and 64 MiB.
	QueueMessages int
	QueueBytes    int

	// StaleAfter is how long messages wait for a connection. Default: 500 ms.
	StaleAfter time.Duration

	// PeerTimeout is how long a peer may be silent before its connection is given up.
	// A probe of a dozen bytes is sent every quarter of it. At least 100 ms.
	// Default: 4 s.
	PeerTimeout time.Duration

	// DialTimeout bounds the making of a TCP connection. Default: 2 s.
	DialTimeout time.Duration

	// HandshakeTimeout bounds what follows until both sides know each other.
	// Default: 5 s.
	HandshakeTimeout time.Duration

	// MinBackoff and MaxBackoff bound the pause between two attempts to connect. It
	// doubles with each failure, and a random half of it is taken off.
	// Default: 20 ms and 1 s.
	MinBackoff time.Duration
	MaxBackoff time.Duration

	// MaxHandshakes limits the accepted connections whose other side is not known
	// yet, MaxConnections those that are in use, two for each peer. What
	// exceeds them is refused. Default: 128 and 1,024.
	MaxHandshakes  int
	MaxConnections int
}

const (
	maxClusterBytes = 255
	maxMessageBytes = 1<<31 - 1
	minPeerTimeout  = 100 * time.Millisecond
	maxPeerTimeout  = 10 * time.Minute
)

// needIdentity is the remedy for a Config that says neither how to prove who a
// node is nor that nobody needs to.
const needIdentity = "missing: load one with tcp.LoadIdentity (tcp.WriteDevelopmentFiles makes files to try; for production let your " +
	"authority sign certificates with the URI %q), or set Insecure to send in plaintext"

func badConfig(field, format string, args ...any) error {
	return &synod.ConfigError{Package: "tcp", Field: field, Reason: fmt.Sprintf(format, args...)}
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil:
		return fmt.Errorf("address %q is not of the form host:port: %w", address, err)
	case host == "" || port == "" || port == "0":
		return fmt.Errorf("address %q needs a host and a port to connect to", address)
	}
	return nil
}

func (c *Config) setDefaults() error {
	switch {
	case c.Cluster == "":
		return badConfig("Cluster", "missing: name the cluster")
	case len(c.Cluster) > maxClusterBytes:
		return badConfig("Cluster", "%d bytes, at most %d", len(c.Cluster), maxClusterBytes)
	case c.Node == 0:
		return badConfig("Node", "missing: nodes have IDs above 0")
	case c.Listener == nil && c.Address == "":
		return badConfig("Address", "missing: give a host and port to listen on, or a Listener")
	case c.Identity == nil && !c.Insecure:
		return badConfig("Identity", needIdentity, NodeURI(c.Cluster, c.Node))
	case c.Identity != nil && c.Insecure:
		return badConfig("Insecure", "set together with Identity: drop one of them")
	}
	if c.Identity != nil {
		if err := c.Identity.check(c.Cluster, c.Node); err != nil {
			return badConfig("Identity", "%v", err)
		}
	}
	for id, address := range c.Peers { //synod:ordered any one that is wrong will do
		if id == 0 {
			return badConfig("Peers", "node 0: nodes have IDs above 0")
		}
		if err := checkAddress(address); err != nil && id != c.Node {
			return badConfig("Peers", "node %d: %v", id, err)
		}
	}
	c.Peers = maps.Clone(c.Peers)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	for _, f := range []struct {
		name     string
		value    *int
		standard int
	}{
		{"MaxMessageBytes", &c.MaxMessageBytes, 64 << 20},
		{"QueueMessages", &c.QueueMessages, 4096},
		{"QueueBytes", &c.QueueBytes, 64 << 20},
		{"MaxHandshakes", &c.MaxHandshakes, 128},
		{"MaxConnections", &c.MaxConnections, 1024},
	} {
		if *f.value < 0 {
			return badConfig(f.name, "%d: must not be negative", *f.value)
		}
		if *f.value == 0 {
			*f.value = f.standard
		}
	}
	for _, f := range []struct {
		name     string
		value    *time.Duration
		standard time.Duration
	}{
		{"StaleAfter", &c.StaleAfter, 500 * time.Millisecond},
		{"PeerTimeout", &c.PeerTimeout, 4 * time.Second},
		{"DialTimeout", &c.DialTimeout, 2 * time.Second},
		{"HandshakeTimeout", &c.HandshakeTimeout, 5 * time.Second},
		{"MinBackoff", &c.MinBackoff, 20 * time.Millisecond},
		{"MaxBackoff", &c.MaxBackoff, max(time.Second, c.MinBackoff)},
	} {
		if *f.value < 0 {
			return badConfig(f.name, "%v: must not be negative", *f.value)
		}
		if *f.value == 0 {
			*f.value = f.standard
		}
	}
	switch {
	case c.MaxMessageBytes > maxMessageBytes:
		return badConfig("MaxMessageBytes", "%d: at most %d", c.MaxMessageBytes, maxMessageBytes)
	case c.PeerTimeout < minPeerTimeout || c.PeerTimeout > maxPeerTimeout:
		return badConfig("PeerTimeout", "%v: between %v and %v", c.PeerTimeout, minPeerTimeout, maxPeerTimeout)
	case c.MinBackoff > c.MaxBackoff:
		return badConfig("MinBackoff", "%v: above MaxBackoff, %v", c.MinBackoff, c.MaxBackoff)
	}
	return nil
}
