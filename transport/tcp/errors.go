package tcp

import (
	"errors"
	"fmt"
)

// Reasons for which a connection is refused or given up, to be tested with
// errors.Is. They arrive wrapped in a [*RefusedError].
var (
	// ErrCluster says that the two nodes belong to different clusters.
	ErrCluster = errors.New("tcp: another cluster")

	// ErrNode says that another node lives at the address that was dialled.
	ErrNode = errors.New("tcp: another node")

	// ErrVersion says that the two nodes have no version of the protocol in common.
	ErrVersion = errors.New("tcp: unsupported protocol version")

	// ErrCertificate says that a certificate is missing, not to be trusted, or that
	// of another node or cluster.
	ErrCertificate = errors.New("tcp: certificate refused")

	// ErrDuplicateNode says that two running processes use one node ID.
	ErrDuplicateNode = errors.New("tcp: two nodes with one ID")

	// ErrHandshake says that the other side did not keep to the protocol before it
	// was known who it is: garbage, plaintext where TLS is due or the reverse, or
	// silence for longer than Config.HandshakeTimeout.
	ErrHandshake = errors.New("tcp: handshake failed")

	// ErrFrame says that a peer sent a frame that is too long or whose checksum is
	// wrong.
	ErrFrame = errors.New("tcp: invalid frame")

	// ErrTooManyConnections says that a limit on accepted connections is reached:
	// Config.MaxConnections or Config.MaxHandshakes.
	ErrTooManyConnections = errors.New("tcp: too many connections")
)

// RefusedError says that a connection was refused, and by whom. Retrieve it with
// errors.As; it wraps the reason.
type RefusedError struct {
	Remote string // the other side's address
	Node   uint64 // the peer that was dialled, or that the other side claims to be; 0: unknown
	ByPeer bool   // the peer refused us, rather than we the peer
	Err    error  // the reason
}

// Error implements error.
func (e *RefusedError) Error() string {
	node := ""
	if e.Node != 0 {
		node = fmt.Sprintf("node %d at ", e.Node)
	}
	if e.ByPeer {
		return fmt.Sprintf("tcp: %s%s refused the connection: %v", node, e.Remote, e.Err)
	}
	return fmt.Sprintf("tcp: connection with %s%s refused: %v", node, e.Remote, e.Err)
}

// Unwrap returns the reason.
func (e *RefusedError) Unwrap() error { return e.Err }
