// Package tcp carries messages between machines: a [transport.Transport] over
// TCP, with TLS 1.3 in both directions.
//
// # Usage
//
//	identity, err := tcp.LoadIdentity("ca.pem", "node-1.pem", "node-1-key.pem")
//	…
//	tr, err := tcp.Listen(tcp.Config{
//		Cluster:  "orders",
//		Node:     1,
//		Address:  "10.0.0.1:7000",
//		Peers:    map[uint64]string{2: "10.0.0.2:7000", 3: "10.0.0.3:7000"},
//		Identity: identity,
//	})
//
// [WriteDevelopmentFiles] makes such files for trying things out. Without an
// Identity, Listen fails unless Insecure says that plaintext is meant. Addresses
// change at run time with [Transport.SetPeer].
//
// # Certificates
//
// A node's certificate has the URI
//
//	synod:///CLUSTER/node/ID
//
// as a subject alternative name ([NodeURI]), and serves as client and server
// certificate. Nodes accept each other over TLS 1.3 if each certificate is
// signed by one of the other's authorities and names the right cluster and node:
// the one that was dialled, and the one that a connection's messages are said to
// come from.
//
// # How it works
//
// Who sends, dials: each node has one connection to each peer for what it sends,
// and receives over those that peers have made to it. A second connection for
// the bulk lane is made when it is first used and closed when it has been idle
// for a minute.
//
//	dialler                                         acceptor
//	   │ ◀── TLS 1.3, both prove who they are ────────▶ │
//	   │ hello: version, cluster, sender, receiver,     │
//	   │        instance, lane, timeout ──────────────▶ │
//	   │ ◀─── answer: accepted or why not, node,        │
//	   │              instance, largest message         │
//	   │ frame, frame, frame … ───────────────────────▶ │
//	   │ ◀─── a byte now and then: I have read          │
//
// A frame is its length and a CRC32C, 4 bytes each, and the payload. All numbers
// are little-endian. A writer takes everything that is queued and writes it at
// once; a lone message leaves at once. The dialler sends an empty frame when it
// has nothing to say, and the acceptor answers to what it has read. Either gives
// the connection up when it has heard nothing for Config.PeerTimeout; the
// dialler then dials again, at once and then with growing, jittered pauses. A
// pause ends early when the peer itself connects.
//
// # What becomes of messages
//
// Messages wait in a bounded queue for each peer and lane. While a connection is
// being made they wait too, but not for long: when the attempt fails, or takes
// longer than Config.StaleAfter, they are dropped and reported
// ([transport.Reporter]), and Send answers with [transport.ErrUnreachable] until
// the next attempt begins. Protocols send again what they miss, and an old
// message is worth less than a new one. When a connection breaks, what was being
// written is lost and reported; what was still queued goes over the next one.
//
// # Guarantees
//
// Messages of one lane that arrive over one connection arrive in the order in
// which they were sent, once and unaltered (CRC32C, and TLS). With TLS, a
// message comes from the node that Handle names. Whatever a peer sends, the
// process does not panic, and no frame is given more memory than four times what
// has arrived of it, and 1 MiB. A connection that is refused, or given up for
// what it carried, is counted, logged with the reason (at most ten a second) and
// handed to Config.OnRefused, and disturbs no other.
//
// # Two nodes with one ID
//
// Each Transport draws a random instance number. When a node connects whose ID
// has a connection of another instance already, that one is asked for a sign of
// life. If it gives one, the newcomer is refused, and both sides report
// [ErrDuplicateNode]; otherwise (the node was restarted, and its old connection
// is a dead one) the newcomer takes its place. So a restart gets in within half
// of Config.PeerTimeout at worst, and usually at once, since the system closes
// the connections of a process that ends. Which of two nodes is the right one,
// nobody here can know: the engines pin a node's incarnation for that.
//
// # Limits
//
// A node accepts connections from peers that it has no address of, so that it learns
// from a newcomer; whether to heed them is for the layers above to say.
// Plaintext (Config.Insecure) believes whatever a peer says of itself.
// Certificates are checked when a connection is made, and not for revocation: to
// lock a node out, remove it from the cluster's configuration. A node that is to use
// a new certificate is opened anew.
package tcp
