// Package transport moves messages between nodes. It declares the seam that
// everything above uses, [Transport], and the means to share one: [Mux].
//
// # Usage
//
// An application opens one of the transports that stand below this package (tcp
// between machines, inproc within a process), or brings its own, which is about a
// page of code and is proven by transporttest.Run. It hands the transport to a
// node:
//
//	tr, err := tcp.Listen(tcp.Config{…})
//	node, err := raft.Start(ctx, raft.Config{Transport: tr, …})
//
// When several users share it (two engines, or an engine and the application's own
// messages), each takes a channel of a Mux:
//
//	mux := transport.NewMux(tr)
//	node, err := raft.Start(ctx, raft.Config{Transport: mux.Channel(1), …})
//
// # Guarantees
//
// A message that arrives is what was sent, and comes from the node that Handle
// names. Nothing else is promised: messages may be lost, delayed, repeated and
// reordered, and whoever uses a transport must live with it. Send never blocks.
//
// # Limits
//
// A message must fit into memory, and into the transport's own limit. There are no
// acknowledgements and no streams: bulk data travels as messages on a lane of its
// own ([SendBulk]), so that whoever sends it decides how much is under way, and can
// take up a broken transfer where it ended.
package transport
