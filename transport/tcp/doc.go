// Package tcp is the transport between machines.
//
// # Usage
//
//	identity, err := tcp.LoadIdentity("ca.pem", "node-1.pem", "node-1-key.pem")
//	tr, err := tcp.Listen(tcp.Config{
//		Cluster:  "orders",
//		Node:     1,
//		Address:  "10.0.0.1:7000",
//		Peers:    map[uint64]string{2: "10.0.0.2:7000", 3: "10.0.0.3:7000"},
//		Identity: identity,
//	})
//
// WriteDevelopmentFiles makes such files for trying things out. Without an
// Identity, Listen fails unless Insecure says that plaintext is meant.
//
// # How it works
//
// A node dials a peer when it has something to send, and sends on that connection
// alone; what the peer sends comes on one that the peer dialled. Bulk data go over
// a second connection of each direction. A connection begins with a handshake:
//
//	dialler   "SYND", version, lane, from, to, instance, cluster
//	acceptor  "SYND", version, verdict, node
//
// and then carries frames in one direction: length, CRC32C of the payload (4 bytes
// each, little-endian), payload. A writer takes all that is queued and hands it to
// the system in one vectored write, so that the queue is empty or a write is under
// way.
//
// With an Identity, both ends prove by TLS 1.3 which node of which cluster they
// are: the certificate has the URI synod://CLUSTER/node/ID as a subject
// alternative name, and is signed by the cluster's authority. A dialler insists on
// the node that it meant to reach, an acceptor on the certificate's being that of
// the sender that the handshake names, which all messages of the connection are
// then attributed to.
//
// # Guarantees
//
// Messages of one lane arrive in order and at most once while a connection lasts;
// what was queued or on its way when it ends is lost, and reported. Send never
// blocks: queues are bounded, and a peer that can't be reached is refused at once
// until the next try (jittered exponential backoff). Nothing that arrives before
// the handshake is over allocates more than its few hundred bytes, and no frame is
// allocated beyond what has arrived of it. A connection that is refused, or broken
// off for what it sent, is logged with the reason, and disturbs no other.
//
// # Limits
//
// Two processes under one node ID are both listened to, since which is the right
// one can't be told here; when both are seen alive that is reported
// (ErrDuplicateNode), and the layer above must tell them apart, as raft does.
// Certificates are not checked for revocation: to lock a node out, remove it from
// the cluster's configuration.
package tcp
