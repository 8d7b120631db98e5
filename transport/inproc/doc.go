// Package inproc connects nodes that run in one process: for tests, for examples,
// and for programs that want the library's replication between parts of
// themselves.
//
// # Usage
//
//	network := inproc.New(ctx, inproc.Config{})
//	a, err := network.Open(1)
//	b, err := network.Open(2)
//	b.Handle(func(from uint64, payload []byte) { … })
//	err = a.Send(2, []byte("hello"))
//
// # Guarantees
//
// Messages of one lane from one node to another arrive in order, once, while both
// are open, the link is not cut and the queue has room. What is dropped after Send
// accepted it is reported (transport.Reporter). It runs on the executor that the
// context carries, so that it also works within a simulation.
//
// # Limits
//
// Queues are bounded, by messages and bytes, for each ordered pair of nodes and
// lane. Payloads are handed over, not copied: the receiver gets the sender's bytes.
package inproc
