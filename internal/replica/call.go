package replica

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
)

type callKind uint8

const (
	callPropose callKind = iota + 1
	callRead
	callTransfer
	callMembers
)

// call is one blocking call of the application, on its way through the loop and
// the state machine. It changes hands, and its state says whose it is:
//
//	queued ──▶ taken ──▶ done        the caller takes the answer and recycles it
//	   │          └────▶ abandoned   the caller has gone; whoever answers recycles it
//	   └──▶ canceled                 the caller has gone; the loop recycles it
//
// A call that is canceled was never shown to a core: it certainly had no effect.
type call struct {
	kind    callKind
	group   *Group
	state   atomic.Uint32
	done    *executor.Event
	command []byte // a copy that belongs to the call
	item    item   // what a proposal does in a session
	epoch   uint64 // the term in which it was proposed
	index   uint64 // a read: what must have been applied. A transfer: the target
	members []synod.Member

	result []byte
	err    error
}

const (
	callQueued uint32 = iota
	callTaken
	callDone
	callCanceled
	callAbandoned
)

// recycleBytes is the largest command buffer that is kept for another call.
const recycleBytes = 64 << 10

func (n *Node) newCall(g *Group, kind callKind) *call {
	c, _ := n.calls.Get().(*call)
	if c == nil {
		c = &call{done: executor.NewEvent()}
	}
	c.kind, c.group = kind, g
	c.state.Store(callQueued)
	return c
}

func (n *Node) recycle(c *call) {
	if cap(c.command) > recycleBytes {
		c.command = nil
	}
	c.command = c.command[:0]
	c.group, c.result, c.err, c.epoch, c.index, c.members, c.item = nil, nil, nil, 0, 0, nil, item{}
	n.calls.Put(c)
}

// take makes the loop the owner of a queued call; false if the caller has gone.
func (c *call) take() bool {
	if c.state.CompareAndSwap(callQueued, callTaken) {
		return true
	}
	c.group.released(c)
	c.group.node.recycle(c)
	return false
}

// answer ends a taken call.
func (c *call) answer(result []byte, err error) {
	g := c.group
	g.released(c)
	c.result, c.err = result, err
	if c.state.CompareAndSwap(callTaken, callDone) {
		c.done.Set()
		return
	}
	g.node.recycle(c)
}

// wait blocks the caller until the call is answered or ctx is done, and ends the
// caller's part in it.
func (c *call) wait(ctx context.Context) ([]byte, error) {
	g := c.group
	ex := executor.From(ctx, g.node.ex)
	if err := ex.Wait(ctx, c.done); err != nil {
		if c.state.CompareAndSwap(callQueued, callCanceled) {
			return nil, fmt.Errorf("group %d: not executed: %w", g.id, err)
		}
		kind := c.kind
		if c.state.CompareAndSwap(callTaken, callAbandoned) {
			if kind == callPropose || kind == callMembers {
				return nil, unknown(g.id, err)
			}
			return nil, fmt.Errorf("group %d: %w", g.id, err)
		}
		// It is answered: the event is set, or will be at once.
		_ = ex.Wait(context.WithoutCancel(ctx), c.done)
	}
	result, err := c.result, c.err
	g.node.recycle(c)
	return result, err
}

func unknown(group uint64, cause error) error {
	return fmt.Errorf("group %d: %w: %w", group, synod.ErrUnknownOutcome, cause)
}

var errInstalled = errors.New("a snapshot took the place of the log in which it may stand")
