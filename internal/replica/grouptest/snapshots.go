package grouptest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
)

// both makes a rule of one test for state machines in memory and on disk.
func both(name string, test func(t *testing.T, engine Engine, k kind)) []rule {
	return []rule{
		{name + ", in memory", func(t *testing.T, engine Engine) { test(t, engine, plain) }},
		{name + ", on disk", func(t *testing.T, engine Engine) { test(t, engine, durable) }},
	}
}

var snapshotRules = concat(
	both("a member that is behind the log is brought up by a snapshot", testSnapshot),
	both("a snapshot arrives over links that lose, repeat and reorder", testSnapshotChaos),
	both("a snapshot arrives though its sender dies in the middle", testSnapshotSenderDies),
	both("a snapshot arrives though its receiver restarts in the middle", testSnapshotReceiverRestarts),
	both("a snapshot arrives though the link breaks in the middle", testSnapshotLinkBreaks),
	both("a piece of a snapshot is acknowledged when it is durable", testSnapshotDurable),
	both("a snapshot that was received, but not restored before a crash, is restored after it", testSnapshotCrash),
	both("two members that are behind are brought up at once", testSnapshotTwo),
	both("snapshots are taken and installed under load", testSnapshotLoad),
	both("a snapshot of a state machine that is ahead of its replayed log says what it holds", testSnapshotAhead),
	[]rule{
		{"a member without space keeps no pieces of snapshots in memory", func(t *testing.T, engine Engine) {
			testPiecesPileUp(t, engine, func(d *disk) { d.SetFull(true) }, func(d *disk) { d.SetFull(false) })
		}},
		{"a member whose store stalls keeps the pieces of one transfer in memory", func(t *testing.T, engine Engine) {
			testPiecesPileUp(t, engine, func(d *disk) { d.HoldSync() }, func(d *disk) { d.ReleaseSync() })
		}},
		{"a receiver that restarts before the end of a small snapshot is sent another one soon", testSmallSnapshotReceiverRestarts},
		{"a member is brought up though its leader takes longer to capture a state than to be asked for it again", testSlowCapture},
		{"a state that was captured for a member that has gone is let go", testCaptureForNobody},
		{"a proposal that may stand in a snapshot that is installed has an unknown outcome", testSnapshotOutcome},
		{"the log is cut up to the durable index of its state machine, and no further", testDurableCut},
		{"a DurableIndex that lost its data is refused", testDurableLost},
		{"a DurableIndex that can't tell its index is refused", testDurableError},
	},
)

func concat(lists ...[]rule) (all []rule) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// padding makes a snapshot of several chunks.
const padding = 5 << 18

func large(_, _ uint64, m *machine) { m.hooks.padding = padding }

// leaveBehind stops members and writes until the others' logs begin after what they
// have. It returns how many of them have a snapshot of their own, from which they
// will be restored when they start.
func (c *cluster) leaveBehind(ids ...uint64) (restores int) {
	const more = 5 // entries that it may yet be sent
	var last uint64
	for _, id := range ids {
		require.NoError(c, c.member(id).group(1).Barrier(c.ctx))
		last = max(last, c.member(id).group(1).Status().Last+more)
	}
	c.stop(ids...)
	for _, id := range ids {
		records, err := c.disks[id].records()
		require.NoError(c, err)
		for _, r := range records {
			if recordKind(r.key) == "snapshot" {
				restores++
			}
		}
	}
	c.eventually("the log is cut", func() bool {
		c.writes(1, 1, 20)
		for _, m := range c.running() {
			if m.group(1).Status().First <= last+1 {
				return false
			}
		}
		return true
	})
	return restores
}

func testSnapshot(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k, group: compacting, machine: large})
	c.writes(1, 2, 5)
	for range 2 {
		f := c.others(c.leader(1))[0].id
		restores := c.leaveBehind(f)
		marks := make(map[uint64]int)
		for _, m := range c.running() {
			marks[m.id] = m.events.now()
		}
		back := c.start(f)
		installed := back.awaitKind(0, synod.EventSnapshotInstalled, 1)
		require.NotZero(t, installed.Index)
		require.NotZero(t, installed.Term)
		require.Equal(t, restores+1, back.machine(1).restored())
		c.check(1)
		require.NotEmpty(t, c.leader(1).group(1).Status().Peers)
		// Whoever sent it says so.
		c.eventually("the sender's event", func() bool {
			for _, m := range c.others(back) {
				for _, e := range m.events.all(marks[m.id]) {
					if e.Kind == synod.EventSnapshotSent && e.Peer == f && e.Group == 1 && e.Index == installed.Index {
						return true
					}
				}
			}
			return false
		})
		// It holds after a crash, and what is on its disk is not more than that.
		c.crash(f)
		back = c.start(f)
		if k == durable {
			require.Zero(t, back.machine(1).restored())
			require.Zero(t, back.group(1).Status().Snapshot)
		} else {
			require.NotZero(t, back.group(1).Status().Snapshot)
		}
		c.check(1)
	}
	if k == durable {
		c.awaitNoChunks()
	} else {
		c.awaitOneSnapshot()
	}
}

// awaitOneSnapshot waits until each store holds the pieces of one snapshot of group 1
// and no others.
func (c *cluster) awaitOneSnapshot() {
	for _, m := range c.running() {
		require.Eventually(c, func() bool {
			records, err := m.disk.records()
			require.NoError(c, err)
			snapshots := make(map[string]bool)
			for _, r := range records {
				if recordKind(r.key) == "chunk" {
					snapshots[string(r.key[:18])] = true // up to its ID
				}
			}
			return len(snapshots) == 1
		}, patience, heartbeat, "node %d keeps pieces of snapshots that are of no use", m.id)
	}
}

// awaitNoChunks waits until no store holds a piece of a snapshot of group 1.
func (c *cluster) awaitNoChunks() {
	for _, m := range c.running() {
		require.Eventually(c, func() bool {
			records, err := m.disk.records()
			require.NoError(c, err)
			for _, r := range records {
				if kind := recordKind(r.key); kind == "chunk" || kind == "snapshot" {
					return false
				}
			}
			return true
		}, patience, heartbeat, "node %d keeps a snapshot that its state machine has", m.id)
	}
}

func testSnapshotChaos(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k, group: compacting, machine: large})
	c.writes(1, 2, 5)
	f := c.others(c.leader(1))[0].id
	c.leaveBehind(f)
	rule := chaos(3, 6)
	c.network.setRule(func(p packet) fate {
		if p.from != f && p.to != f {
			return fate{}
		}
		return rule(p)
	})
	back := c.start(f)
	back.awaitKind(0, synod.EventSnapshotInstalled, 1)
	c.network.healAll()
	c.network.release(true)
	c.check(1)
}

// midway arranges that the transfer to a node gets stuck after some chunks, and
// returns a channel that is closed then, with the sender's ID in it.
func (c *cluster) midway(to uint64, chunks int) <-chan uint64 {
	reached := make(chan uint64, 1)
	seen := 0
	c.network.setRule(func(p packet) fate {
		if !p.bulk || p.to != to {
			return fate{}
		}
		if seen++; seen < chunks {
			return fate{}
		}
		select {
		case reached <- p.from:
		default:
		}
		return fate{drop: true}
	})
	return reached
}

func testSnapshotSenderDies(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k, group: compacting, machine: large})
	c.writes(1, 2, 5)
	for _, chunks := range []int{1, 4} {
		f := c.others(c.leader(1))[0].id
		c.leaveBehind(f)
		reached := c.midway(f, chunks)
		back := c.start(f)
		sender := receive(c, reached, "the transfer")
		c.crash(sender)
		c.network.setRule(nil)
		back.awaitKind(0, synod.EventSnapshotInstalled, 1)
		c.check(1)
		c.start(sender)
		c.check(1)
	}
}

func testSnapshotReceiverRestarts(t *testing.T, engine Engine, k kind) {
	// So many pieces that the last are not sent before the first were acknowledged.
	c := newCluster(t, engine, options{kind: k, group: compacting, machine: func(_, _ uint64, m *machine) {
		m.hooks.padding = 12 * 256 << 10
	}})
	c.writes(1, 2, 5)
	for _, chunks := range []int{1, 3, 11} {
		f := c.others(c.leader(1))[0].id
		c.leaveBehind(f)
		reached := c.midway(f, chunks)
		c.start(f)
		receive(c, reached, "the transfer")
		c.crash(f)
		c.network.setRule(nil)
		back := c.start(f)
		back.awaitKind(0, synod.EventSnapshotInstalled, 1)
		c.check(1)
	}
	if k == durable {
		c.awaitNoChunks()
	}
}

// transferOf returns the ID of the transfer that a piece belongs to: behind the
// frame's header, the group and the length.
func transferOf(piece []byte) []byte {
	const header = 2 + 10*8
	_, group := binary.Uvarint(piece[header:])
	_, length := binary.Uvarint(piece[header+group:])
	return piece[header+group+length:][:8]
}

// testPiecesPileUp has one transfer after the other given up by its sender, while
// the receiver's store takes nothing.
func testPiecesPileUp(t *testing.T, engine Engine, block, unblock func(*disk)) {
	c := newCluster(t, engine, options{group: compacting, machine: large})
	c.writes(1, 2, 5)
	f := c.others(c.leader(1))[0].id
	c.leaveBehind(f)
	d := c.disks[f]
	first := make(chan packet, 1)
	c.network.setRule(func(p packet) fate {
		if !p.bulk || p.to != f {
			return fate{}
		}
		select {
		case first <- packet{link: p.link, payload: bytes.Clone(p.payload)}:
			block(d)
			return fate{}
		default:
			return fate{drop: true}
		}
	})
	back := c.start(f)
	p := receive(c, first, "the first piece")
	d.setLimit(0)
	for transfer := range 40 {
		piece := bytes.Clone(p.payload)
		copy(transferOf(piece), fmt.Sprintf("%08d", transfer))
		c.network.inject(p.from, f, reseal(piece))
	}
	c.network.drain()
	back.node.Status() // it has worked on them
	c.network.setRule(nil)
	unblock(d)
	back.awaitKind(0, synod.EventSnapshotInstalled, 1)
	c.check(1)
	const window = 8
	require.Less(t, d.setLimit(0), (window+2)*256<<10, "pieces of transfers that are over were kept")
}

func testSmallSnapshotReceiverRestarts(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{group: compacting, machine: large})
	c.writes(1, 2, 5)
	f := c.others(c.leader(1))[0].id
	c.leaveBehind(f)
	reached := c.midway(f, 4)
	old := c.start(f)
	receive(c, reached, "the transfer")
	c.eventually("a piece is durable", func() bool {
		records, err := old.disk.records()
		require.NoError(t, err)
		return slices.ContainsFunc(records, func(r record) bool { return recordKind(r.key) == "chunk" })
	})
	c.network.drain() // its sender knows
	c.crash(f)
	var transfer []byte
	pieces := 0
	c.network.setRule(func(p packet) fate {
		if p.bulk && p.to == f {
			if transfer == nil {
				transfer = bytes.Clone(transferOf(p.payload))
			}
			if bytes.Equal(transfer, transferOf(p.payload)) {
				pieces++
			}
		}
		return fate{}
	})
	c.start(f).awaitKind(0, synod.EventSnapshotInstalled, 1)
	c.network.setRule(nil)
	c.check(1)
	require.Less(t, pieces, 20, "the old transfer goes on and on")
}

func testSlowCapture(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{kind: durable, group: compacting, machine: large})
	c.writes(1, 2, 5)
	f := c.others(c.leader(1))[0].id
	c.leaveBehind(f)
	var mu sync.Mutex
	heard, captured, more := 0, 0, make(chan struct{})
	c.network.setRule(func(p packet) fate {
		if p.from == f {
			mu.Lock()
			heard++
			close(more)
			more = make(chan struct{})
			mu.Unlock()
		}
		return fate{}
	})
	for _, m := range c.running() {
		m.machine(1).set(func(h *hooks) {
			h.snapshot = func() error {
				mu.Lock()
				defer mu.Unlock()
				captured++
				for until := heard + 20; heard < until; {
					next := more
					mu.Unlock()
					select {
					case <-next:
					case <-c.ctx.Done():
						mu.Lock()
						return c.ctx.Err()
					}
					mu.Lock()
				}
				return nil
			}
		})
	}
	c.start(f).awaitKind(0, synod.EventSnapshotInstalled, 1)
	for _, m := range c.running() {
		m.machine(1).set(func(h *hooks) { h.snapshot = nil })
	}
	c.network.setRule(nil)
	c.check(1)
	mu.Lock()
	defer mu.Unlock()
	require.LessOrEqual(t, captured, 2, "what is captured is dropped before it is used") // two, if the leader has changed
}

func testCaptureForNobody(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{kind: durable, group: compacting, machine: large})
	c.writes(1, 2, 5)
	f := c.others(c.leader(1))[0].id
	c.leaveBehind(f)
	begun, gone := make(chan *member, 100), make(chan struct{})
	captured, released := make(chan struct{}, 100), make(chan struct{}, 1)
	for _, m := range c.running() {
		m.machine(1).set(func(h *hooks) {
			h.snapshot = func() error {
				begun <- m
				select {
				case <-gone:
				case <-c.ctx.Done():
				}
				captured <- struct{}{}
				return nil
			}
			h.release = func() {
				select {
				case released <- struct{}{}:
				default:
				}
			}
		})
	}
	c.start(f)
	wait := func(what string, signal <-chan struct{}) {
		select {
		case <-signal:
		case <-c.ctx.Done():
			require.Fail(t, what)
		}
	}
	var l *member
	select {
	case l = <-begun:
	case <-c.ctx.Done():
		require.Fail(t, "nobody captures anything")
	}
	c.crash(f)
	c.eventually("it is missed", func() bool {
		peers := l.group(1).Status().Peers
		return !slices.ContainsFunc(peers, func(p synod.PeerStatus) bool { return p.Node == f && p.Active })
	})
	close(gone)
	wait("nothing was captured", captured)
	wait("what was captured is kept for nobody", released)
	c.start(f).awaitKind(0, synod.EventSnapshotInstalled, 1)
	c.check(1)
}

func testSnapshotLinkBreaks(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k, group: compacting, machine: large})
	c.writes(1, 2, 5)
	f := c.others(c.leader(1))[0].id
	c.leaveBehind(f)
	reached := c.midway(f, 3)
	back := c.start(f)
	receive(c, reached, "the transfer")
	// Everything else still arrives; the group goes on, and so far that the snapshot
	// under way is of no use any more.
	c.writes(1, 1, 200, c.others(back)...)
	c.network.setRule(nil)
	back.awaitKind(0, synod.EventSnapshotInstalled, 1)
	c.check(1)
}

func testSnapshotDurable(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k, group: compacting, machine: large})
	c.writes(1, 2, 5)
	f := c.others(c.leader(1))[0].id
	c.leaveBehind(f)
	marks := make(map[uint64]int)
	for _, m := range c.running() {
		marks[m.id] = m.events.now()
	}
	// From the first piece on nothing becomes durable at the receiver. The sender
	// sends all again, since it hears that none has been stored.
	const pieces = 1 + padding/(256<<10)
	repeated := make(chan struct{})
	seen := 0
	d := c.disks[f]
	c.network.setRule(func(p packet) fate {
		if p.bulk && p.to == f {
			if seen++; seen == 1 {
				d.HoldSync()
			} else if seen == 2*pieces+1 {
				close(repeated)
			}
		}
		return fate{}
	})
	back := c.start(f)
	receive(c, repeated, "the pieces are sent again")
	for _, m := range c.others(back) {
		for _, e := range m.events.all(marks[m.id]) {
			require.NotEqual(t, synod.EventSnapshotSent, e.Kind, "node %d believes that it was taken over", m.id)
		}
	}
	c.network.setRule(nil)
	c.crash(f)
	back = c.start(f)
	back.awaitKind(0, synod.EventSnapshotInstalled, 1)
	c.check(1)
}

func testSnapshotCrash(t *testing.T, engine Engine, k kind) {
	var mu sync.Mutex
	var hook func() error
	c := newCluster(t, engine, options{kind: k, group: compacting, machine: func(node, group uint64, m *machine) {
		large(node, group, m)
		mu.Lock()
		defer mu.Unlock()
		m.hooks.restore = hook
	}})
	c.writes(1, 2, 5)
	f := c.others(c.leader(1))[0].id
	passes := c.leaveBehind(f)
	g := newGate()
	defer g.release()
	mu.Lock()
	hook = func() error {
		if passes--; passes >= 0 {
			return nil
		}
		g.pass()
		return errors.New("the process is gone")
	}
	mu.Unlock()
	old := c.start(f)
	receive(c, g.reached, "the restore")
	before := old.machine(1).index()
	bury := c.kill(f)
	g.release()
	bury()
	mu.Lock()
	hook = nil
	mu.Unlock()
	// Alone: what it has comes from its own disk.
	c.network.isolate(f)
	back := c.start(f)
	require.Greater(t, back.machine(1).index(), before)
	require.Equal(t, 1, back.machine(1).restored())
	c.network.healAll()
	c.check(1)
	// And after the next.
	c.crash(f)
	c.start(f)
	c.check(1)
	if k == durable {
		c.awaitNoChunks()
	}
}

func testSnapshotTwo(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{size: 5, kind: k, group: compacting, machine: large})
	c.writes(1, 2, 5)
	others := c.others(c.leader(1))
	a, b := others[0].id, others[2].id
	c.leaveBehind(a, b)
	first, second := c.start(a), c.start(b)
	first.awaitKind(0, synod.EventSnapshotInstalled, 1)
	second.awaitKind(0, synod.EventSnapshotInstalled, 1)
	c.check(1)
}

func testSnapshotLoad(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k, group: compacting})
	ctx, cancel := context.WithCancel(c.ctx)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, _ = c.tryWrite(ctx, 1)
			}
		})
	}
	for round := range 4 {
		f := c.others(c.leader(1))[round%2]
		from := f.events.now()
		c.network.isolate(f.id)
		c.eventually("the log is cut", func() bool {
			c.write(1, c.others(f)...)
			last := f.group(1).Status().Last // it may not have taken up yet what had reached it
			for _, m := range c.others(f) {
				if m.group(1).Status().First <= last+1 {
					return false
				}
			}
			return true
		})
		c.network.healAll()
		f.awaitKind(from, synod.EventSnapshotInstalled, 1)
	}
	cancel()
	wg.Wait()
	c.check(1)
}

// testSnapshotAhead has a receiver with a state machine of kind k. The sender's keeps
// its state itself. After a restart it holds commands of which the log does not know
// yet that they are decided; and it learns that only from the receiver, once that is
// brought up.
func testSnapshotAhead(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{stopped: true, group: compacting})
	start := func(id uint64) *member {
		c.options.kind = durable
		if id == 3 {
			c.options.kind = k
		}
		return c.start(id)
	}
	for _, id := range c.ids() {
		start(id)
	}
	c.writes(1, 2, 5)
	c.leaveBehind(3)
	// The last answers tell the leader of decisions that no record tells.
	l := c.leader(1)
	end := c.writes(1, 1, 5)
	require.NoError(t, l.machine(1).await(c.ctx, end))
	c.stop(c.others(l)[0].id)
	c.stop(l.id)
	l = start(l.id)
	require.Equal(t, end, l.group(1).Status().Commands)
	back := start(3)
	back.awaitKind(0, synod.EventSnapshotInstalled, 1)
	c.check(1)
	// What it was given holds after a restart too.
	c.crash(3)
	start(3)
	c.check(1)
	c.crash(3)
	c.stop(l.id)
	start(3)
	start(l.id)
	c.check(1)
}

func testSnapshotOutcome(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{group: compacting})
	c.writes(1, 1, 5)
	c.eventually("its proposals are in the others' logs", func() bool {
		l := c.leader(1)
		others := c.others(l)
		last := l.group(1).Status().Last
		// It speaks, and hears nothing: what it proposes is decided without it.
		for _, o := range others {
			c.network.cut(o.id, l.id)
		}
		answers := make(chan error, 5)
		for range cap(answers) {
			go func() {
				_, err := c.propose(c.ctx, l, 1, c.newCommand(1))
				answers <- err
			}()
		}
		c.writes(1, 1, 5, others...)
		c.network.isolate(l.id)
		last = max(last, l.group(1).Status().Last)
		c.eventually("the log is cut", func() bool {
			c.writes(1, 1, 20, others...)
			return others[0].group(1).Status().First > last+5 && others[1].group(1).Status().First > last+5
		})
		from := l.events.now()
		c.network.healAll()
		l.awaitKind(from, synod.EventSnapshotInstalled, 1)
		unknown := 0
		for range cap(answers) {
			err := receive(c, answers, "an answer")
			require.Error(t, err)
			if errors.Is(err, synod.ErrUnknownOutcome) {
				unknown++
			}
		}
		c.check(1)
		return unknown > 0
	})
}

func testDurableCut(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1, kind: durable, group: compacting, machine: func(_, _ uint64, m *machine) {
		m.hooks.lazy = true
	}})
	m := c.member(1)
	require.NoError(t, m.group(1).Barrier(c.ctx))
	empty := m.group(1).Status().Last
	c.writes(1, 1, 400)
	first := m.group(1).Status().First
	require.LessOrEqual(t, first, empty+1, "commands were cut off, but none is durable in the state machine")
	for range 2 {
		m.machine(1).sync()
		synced := m.machine(1).index()
		from := m.events.now()
		c.eventually("the log is cut", func() bool {
			c.writes(1, 1, 20)
			return m.group(1).Status().First > first
		})
		require.NotZero(t, m.awaitKind(from, synod.EventLogCompacted, 1).Index)
		c.writes(1, 1, 200) // not further
		c.crash(1)
		m = c.start(1)
		require.NoError(t, m.group(1).Barrier(c.ctx))
		require.Greater(t, m.machine(1).index(), synced)
		require.Zero(t, m.machine(1).restored())
		c.check(1)
		first = m.group(1).Status().First
	}
	for _, e := range m.events.all(0) {
		require.NotEqual(t, synod.EventSnapshotTaken, e.Kind, "a snapshot was stored for nothing")
	}
}

func testDurableLost(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1, kind: durable, group: compacting})
	m := c.member(1)
	c.eventually("the log is cut", func() bool {
		c.writes(1, 1, 20)
		return m.group(1).Status().First > 100
	})
	require.NoError(t, m.closeGroup(1)) // the record of the cut need not be durable before
	c.stop(1)
	place := link{1, 1}
	kept := c.machineDisks[place]
	for _, rest := range []int{0, 1, 90} {
		c.machineDisks[place] = &machineDisk{commands: kept.load()[:rest]}
		m, err := c.open(1, nil)
		require.NoError(t, err)
		err = m.startGroup(1)
		require.Error(t, err, "with %d commands", rest)
		require.ErrorContains(t, err, "group 1")
		require.ErrorContains(t, err, "lost")
		c.stop(1)
	}
	c.machineDisks[place] = kept
	c.start(1)
	c.check(1)
}

// unsureMachine can't tell its index.
type unsureMachine struct{ *machine }

var _ synod.DurableIndex = unsureMachine{}

func (unsureMachine) DurableIndex() (uint64, error) { return 0, errors.New("no idea") }

func testDurableError(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{size: 1})
	m := c.member(1)
	require.NoError(t, m.closeGroup(1))
	unsure := newMachine("unsure", t.Errorf)
	require.ErrorContains(t, m.startGroupOn(1, unsure, unsureMachine{unsure}), "no idea")
	require.NoError(t, m.startGroup(1))
	c.check(1)
}
