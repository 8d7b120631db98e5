package transport

import (
	"errors"
)

// Transport moves messages between nodes. It promises little: a message may be
// lost, delayed, repeated and reordered. It must never be altered or invented,
// and its sender must be the one that Handle reports. All methods may be called
// concurrently.
type Transport interface {
	// Send passes a message to the node with the given ID, and never blocks. nil
	// says that the message was accepted, not that it will arrive; an error says
	// that it certainly will not, and wraps ErrUnknownNode, ErrQueueFull,
	// ErrTooLarge, ErrUnreachable or ErrClosed. Send takes the payload over, with or
	// without an error: the caller must not touch it again, up to its capacity.
	Send(to uint64, payload []byte) error

	// Handle sets the function that receives messages. It is called once, before
	// the first message is expected; what arrives earlier is dropped. Messages
	// of one sender are handed over one at a time, those of different senders
	// possibly at once. fn owns the payload, and must return quickly: while it
	// runs, its sender's next message waits.
	Handle(fn func(from uint64, payload []byte))

	// Close stops sending and receiving and releases everything. When it returns,
	// fn is not running and will not be called again, so it must not be called
	// from within fn. Calls after the first return nil.
	Close() error
}

// Bulker is an optional power of a [Transport]: a lane of its own for bulk data
// (snapshots), so that it never holds messages up. Use it through [SendBulk].
type Bulker interface {
	// SendBulk is like Send, in every respect, but for the lane. Messages of the
	// two lanes reach the same Handle function, in no particular order, and
	// possibly at once.
	SendBulk(to uint64, payload []byte) error
}

// Reporter is an optional power of a [Transport]: it tells when a node that was
// sent to can't be reached. Use it through [HandleUnreachable].
type Reporter interface {
	// HandleUnreachable sets the function that is told of an accepted message
	// that was dropped, or of a connection that broke or could not be made, with
	// the reason. One call may stand for many messages. fn must return quickly
	// and may be called concurrently.
	HandleUnreachable(fn func(to uint64, err error))
}

// Errors of Send. Implementations wrap them, naming the node.
var (
	ErrUnknownNode = errors.New("transport: unknown node")
	ErrQueueFull   = errors.New("transport: queue full")
	ErrTooLarge    = errors.New("transport: message too large")
	ErrUnreachable = errors.New("transport: node unreachable")
	ErrClosed      = errors.New("transport: closed")
)

// SendBulk sends over t's bulk lane where it has one, and otherwise like any
// other message.
func SendBulk(t Transport, to uint64, payload []byte) error {
	if b, ok := t.(Bulker); ok {
		return b.SendBulk(to, payload)
	}
	return t.Send(to, payload)
}

// HandleUnreachable sets fn where t can report, and says whether it can.
// Without reports, whoever sends finds out by what does not come back.
func HandleUnreachable(t Transport, fn func(to uint64, err error)) bool {
	r, ok := t.(Reporter)
	if ok {
		r.HandleUnreachable(fn)
	}
	return ok
}
