package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/txn/kv"
)

// network makes links lose messages: all, or some.
type network struct {
	mu   sync.Mutex
	lost map[[2]uint64]float64 // the share, by sender and receiver
}

func newNetwork() *network { return &network{lost: make(map[[2]uint64]float64)} }

// lose makes the link from one node to another lose a share of its messages, from 0 to 1.
func (n *network) lose(from, to uint64, share float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost[[2]uint64{from, to}] = share
}

// around makes all links of a node, in both directions, lose a share.
func (n *network) around(id uint64, share float64) {
	for other := uint64(1); other <= members; other++ {
		if other != id {
			n.lose(id, other, share)
			n.lose(other, id, share)
		}
	}
}

func (n *network) loses(from, to uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	share := n.lost[[2]uint64{from, to}]
	return share > 0 && rand.Float64() < share
}

// link is a node's transport, on such a network. What is lost is lost without a word.
type link struct {
	transport.Transport
	network *network
	from    uint64
}

var (
	_ transport.Transport = (*link)(nil)
	_ transport.Bulker    = (*link)(nil)
	_ transport.Reporter  = (*link)(nil)
)

func (l *link) Send(to uint64, payload []byte) error {
	if l.network.loses(l.from, to) {
		return nil
	}
	return l.Transport.Send(to, payload)
}

func (l *link) SendBulk(to uint64, payload []byte) error {
	if l.network.loses(l.from, to) {
		return nil
	}
	return transport.SendBulk(l.Transport, to, payload)
}

func (l *link) HandleUnreachable(fn func(to uint64, err error)) {
	transport.HandleUnreachable(l.Transport, fn)
}

// mortal is a client that dies after so many calls of its logs: of a commit over two groups, one may have its command,
// and the other one not. The answer to the last one does not reach it.
type mortal struct{ left atomic.Int64 }

func (m *mortal) dead() bool { return m.left.Load() <= 0 }

// groups returns what the client sees of groups.
func (m *mortal) groups(groups []kv.Group) []kv.Group {
	var list []kv.Group
	for _, g := range groups {
		list = append(list, kv.Group{Log: mortalLog{m, g.Log}, Machine: g.Machine})
	}
	return list
}

type mortalLog struct {
	*mortal
	log synod.Log
}

var errDead = fmt.Errorf("bank: the client is dead: %w", synod.ErrClosed)

func (l mortalLog) Propose(ctx context.Context, command []byte) ([]byte, error) {
	left := l.left.Add(-1)
	if left < 0 {
		return nil, errDead
	}
	result, err := l.log.Propose(ctx, command)
	if left == 0 {
		return nil, errors.Join(synod.ErrUnknownOutcome, errDead)
	}
	return result, err
}

func (l mortalLog) Barrier(ctx context.Context) error {
	if l.dead() {
		return errDead
	}
	return l.log.Barrier(ctx)
}
