package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/sim"
)

const (
	heartbeat = 100 * time.Millisecond
	election  = time.Second
)

// cluster is one run's nodes and clients.
type cluster struct {
	w      *sim.World
	engine engine
	quorum int // of phase 2; 0: a majority
	nodes  map[uint64]node
	groups map[uint64]group
	joins  map[uint64]bool // nodes that are no founders
	founds []uint64

	acks    []ack
	over    bool
	errors  int
	attempt time.Duration // how long a client waits for an answer
	think   time.Duration // of a client, between two calls, on average; 0: none
}

// ack is a write that was acknowledged.
type ack struct{ began, ended time.Duration }

// run executes one seed; fn begins once somebody leads and has acknowledged a write.
func run(e engine, seed uint64, founders, more, quorum int, observer func(node uint64, what any), fn func(c *cluster)) error {
	r := sim.Execute(sim.Config{Seed: seed, MaxEvents: 1 << 32, Observer: observer}, func(w *sim.World) {
		c := &cluster{w: w, engine: e, quorum: quorum, nodes: make(map[uint64]node), groups: make(map[uint64]group), joins: make(map[uint64]bool), attempt: 2 * heartbeat}
		for id := uint64(1); id <= uint64(founders+more); id++ {
			if id <= uint64(founders) {
				c.founds = append(c.founds, id)
			}
			c.joins[id] = id > uint64(founders)
		}
		for id := uint64(1); id <= uint64(founders+more); id++ {
			w.AddNode(id, c.start)
		}
		fn(c)
		c.over = true
	})
	if r.Err != nil {
		return fmt.Errorf("%s, seed %d: %w", e.name, seed, r.Err)
	}
	return nil
}

func (c *cluster) start(ctx context.Context, env *sim.Env) (func(), error) {
	n, err := c.engine.start(ctx, env, c.quorum)
	if err != nil {
		return nil, err
	}
	if c.joins[env.ID] {
		err = n.Join(ctx, 1)
	} else {
		err = n.Bootstrap(ctx, 1, c.founds)
	}
	if err != nil && !errors.Is(err, replica.ErrBootstrapped) {
		return nil, err
	}
	g, err := n.open(ctx, &machine{})
	if err != nil {
		return nil, err
	}
	c.nodes[env.ID], c.groups[env.ID] = n, g
	return func() { _ = n.Close() }, nil
}

// leader waits until somebody leads, in the eyes of all of the founders, and has
// decided something.
func (c *cluster) leader() uint64 {
	for {
		for _, id := range c.founds {
			if g := c.groups[id]; g != nil && g.Status().Leader == id {
				if _, err := g.Propose(c.w.Context(), make([]byte, 8)); err == nil {
					return id
				}
			}
		}
		_ = sim.Sleep(c.w.Context(), heartbeat)
	}
}

// clients starts clients that write, one command after the other, wherever they are led, until
// the run is over.
func (c *cluster) clients(n int) {
	for i := range n {
		c.w.Go(func(ctx context.Context) { c.client(ctx, i) })
	}
}

func (c *cluster) client(ctx context.Context, number int) {
	all := uint64(len(c.joins))
	at := uint64(number)%all + 1
	for !c.over {
		if c.think > 0 {
			_ = sim.Sleep(ctx, time.Duration(c.w.Rand().Int64N(int64(2*c.think))))
		}
		began := c.w.Now()
		g := c.groups[at]
		if g == nil {
			at = at%all + 1
			_ = sim.Sleep(ctx, heartbeat/10)
			continue
		}
		short, cancel := sim.WithTimeout(ctx, c.attempt)
		_, err := g.Propose(short, make([]byte, 128))
		cancel()
		if err == nil {
			c.acks = append(c.acks, ack{began, c.w.Now()})
			continue
		}
		c.errors++
		var elsewhere *synod.NotLeaderError
		if errors.As(err, &elsewhere) && elsewhere.Leader != 0 && elsewhere.Leader != at {
			at = elsewhere.Leader
		} else {
			at = at%all + 1
		}
		_ = sim.Sleep(ctx, heartbeat/10)
	}
}

// since returns how long after a moment the first write that began no earlier was
// acknowledged, and the longest time without an acknowledgement from then until now. ok is
// false if there was none.
func (c *cluster) since(moment time.Duration) (first, gap time.Duration, ok bool) {
	last := moment
	for _, a := range c.acks {
		if a.ended < moment {
			continue
		}
		if !ok && a.began >= moment {
			first, ok = a.ended-moment, true
		}
		gap = max(gap, a.ended-last)
		last = a.ended
	}
	return first, max(gap, c.w.Now()-last), ok
}

// cut cuts, or mends, all links between two nodes for which through says so.
func (c *cluster) cut(cut bool, through func(a, b uint64) bool) {
	for a := uint64(1); a <= uint64(len(c.joins)); a++ {
		for b := uint64(1); b <= uint64(len(c.joins)); b++ {
			if a != b && through(a, b) {
				c.w.Link(a, b).Cut = cut
			}
		}
	}
}

// machine is a state machine that counts commands.
type machine struct{ count uint64 }

// Apply implements synod.StateMachine.
func (m *machine) Apply(index uint64, _ []byte) []byte {
	m.count = index
	return nil
}

type image uint64

// WriteTo implements io.WriterTo.
func (i image) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(binary.LittleEndian.AppendUint64(nil, uint64(i)))
	return int64(n), err
}

// Snapshot implements synod.StateMachine.
func (m *machine) Snapshot() (io.WriterTo, error) { return image(m.count), nil }

// Restore implements synod.StateMachine.
func (m *machine) Restore(r io.Reader) error {
	return binary.Read(r, binary.LittleEndian, &m.count)
}
