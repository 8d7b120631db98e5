package tcp

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"time"

	"github.com/synod-go/synod"
)

// Config says how a node is connected. Cluster, Node, and one of Address and
// Listener are required, and one of Identity and Insecure.
type Config struct {
	// Cluster names the cluster, the same on all its nodes: 1 to 255 bytes.
	Cluster string

	// Node is this node's ID, above 0.
	Node uint64

	// Address is the host and port to listen on. Port 0 picks a free one, see Addr.
	Address string

	// Listener, if set, is listened on in the place of Address. Close closes it.
	Listener net.Listener

	// Peers says where the other nodes listen. SetPeer and RemovePeer change it.
	Peers map[uint64]string

	// Identity proves who this node is, and checks the others. See LoadIdentity.
	Identity *Identity

	// Insecure allows plaintext: anyone who reaches the port can be anyone. It
	// excludes Identity.
	Insecure bool

	// Logger receives what happens. Default: nothing is logged.
	Logger *slog.Logger

	// OnRefused, if set, is told of every connection that is refused or broken off
	// for what it sent, with an error that wraps one of this package's. It is called
	// from the connection's goroutine and must return quickly.
	OnRefused func(remote string, err error)

	// QueueMessages and QueueBytes limit what waits to be sent, a peer and lane.
	// Default: 4,096 messages and 64 MiB.
	QueueMessages int
	QueueBytes    int

	// MaxMessageBytes is the largest message, sent or received. Default: 64 MiB.
	MaxMessageBytes int

	// DialTimeout limits a connection attempt, its handshake included. Default: 3 s.
	DialTimeout time.Duration

	// HandshakeTimeout limits the handshake of a connection that was accepted, and
	// MaxHandshakes how many may be in it at once; further ones wait. Default: 5 s
	// and 64.
	HandshakeTimeout time.Duration
	MaxHandshakes    int

	// WriteTimeout is how long a peer may take nothing before the connection is given
	// up. Default: 10 s.
	WriteTimeout time.Duration

	// MinBackoff and MaxBackoff bound the pause after a failed attempt, which
	// doubles each time; half of it is random. Default: 25 ms and 1 s.
	MinBackoff time.Duration
	MaxBackoff time.Duration
}

const maxCluster = 255

func (c *Config) setDefaults() error {
	bad := func(field, format string, args ...any) error {
		return &synod.ConfigError{Package: "tcp", Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case c.Cluster == "":
		return bad("Cluster", "missing: name the cluster, the same on all its nodes")
	case len(c.Cluster) > maxCluster:
		return bad("Cluster", "%d bytes long: at most %d", len(c.Cluster), maxCluster)
	case c.Node == 0:
		return bad("Node", "missing: nodes have IDs above 0")
	case c.Listener == nil && c.Address == "":
		return bad("Address", "missing: give a host and port to listen on, or a Listener")
	case c.Identity == nil && !c.Insecure:
		return bad("Identity", "missing: load one with tcp.LoadIdentity (tcp.WriteDevelopmentFiles makes files to try; for production let your "+
			"authority sign certificates with the URI %q), or set Insecure to send in plaintext", identityURI(c.Cluster, c.Node))
	case c.Identity != nil && c.Insecure:
		return bad("Insecure", "set together with Identity: drop one of them")
	}
	if c.Identity != nil {
		if err := c.Identity.check(c.Cluster, c.Node); err != nil {
			return bad("Identity", "%v", err)
		}
	}
	for id, address := range c.Peers { //synod:ordered any one that is wrong will do
		if id == 0 || address == "" {
			return bad("Peers", "node %d at %q: a peer has an ID above 0 and an address", id, address)
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
		{"QueueMessages", &c.QueueMessages, 4096},
		{"QueueBytes", &c.QueueBytes, 64 << 20},
		{"MaxMessageBytes", &c.MaxMessageBytes, 64 << 20},
		{"MaxHandshakes", &c.MaxHandshakes, 64},
	} {
		if *f.value < 0 || *f.value > 1<<30 {
			return bad(f.name, "%d: must be between 1 and 2^30", *f.value)
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
		{"DialTimeout", &c.DialTimeout, 3 * time.Second},
		{"HandshakeTimeout", &c.HandshakeTimeout, 5 * time.Second},
		{"WriteTimeout", &c.WriteTimeout, 10 * time.Second},
		{"MinBackoff", &c.MinBackoff, 25 * time.Millisecond},
		{"MaxBackoff", &c.MaxBackoff, time.Second},
	} {
		if *f.value < 0 {
			return bad(f.name, "%v: must not be negative", *f.value)
		}
		if *f.value == 0 {
			*f.value = f.standard
		}
	}
	if c.MaxBackoff < c.MinBackoff {
		return bad("MaxBackoff", "%v: must not be below MinBackoff, %v", c.MaxBackoff, c.MinBackoff)
	}
	return nil
}

// Reasons for which a connection is refused or broken off, to be tested with
// errors.Is in what OnRefused and HandleUnreachable get.
var (
	// ErrCluster: the other end belongs to another cluster.
	ErrCluster = errors.New("tcp: another cluster")
	// ErrNode: the other end is not the node that was meant to be reached.
	ErrNode = errors.New("tcp: another node")
	// ErrVersion: the other end speaks another version of the protocol.
	ErrVersion = errors.New("tcp: another protocol version")
	// ErrHandshake: what came is not a handshake.
	ErrHandshake = errors.New("tcp: not a handshake of this protocol")
	// ErrCertificate: the other end's certificate does not prove who it claims to be.
	ErrCertificate = errors.New("tcp: certificate refused")
	// ErrFrame: a frame is too large or its checksum is wrong.
	ErrFrame = errors.New("tcp: bad frame")
	// ErrDuplicateNode: two processes run under one node ID.
	ErrDuplicateNode = errors.New("tcp: two processes run under one node ID")
)
