package grouptest

import (
	"encoding/binary"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/storage"
)

var transferRules = concat(
	both("a snapshot's transfer goes on where the link broke", testTransferResumed),
	both("a snapshot's transfer goes on where it was when its receiver restarts", testTransferReceiver),
	[]rule{
		{"a snapshot's transfer goes on where it was when its sender restarts", testTransferSender},
		{"a partial snapshot that can't be read is received again", testTransferDamaged},
	},
)

// pieces is how many pieces the snapshots of these tests have, about; partial, how many of
// them arrive before a transfer breaks off.
const (
	pieces  = 20
	partial = 11
)

func huge(_, _ uint64, m *machine) { m.hooks.padding = pieces * 256 << 10 }

// pieceOf returns which piece of a snapshot a message holds.
func pieceOf(message []byte) uint64 {
	number, _ := binary.Uvarint(transferOf(message)[:18][16:])
	return number
}

// transfers counts how often each piece is sent to a node from now on.
func (c *cluster) transfers(to uint64) (sent func() map[uint64]int) {
	counts := make(map[uint64]int)
	c.network.setRule(func(p packet) fate {
		if p.bulk && p.to == to {
			counts[pieceOf(p.payload)]++
		}
		return fate{}
	})
	return func() map[uint64]int {
		c.network.mu.Lock()
		defer c.network.mu.Unlock()
		return maps.Clone(counts)
	}
}

// partway brings a transfer to a node so far that it has some pieces of it durably, and
// loses the rest. It returns how many those are and who sends.
func (c *cluster) partway(f uint64) (durable int, sender uint64) {
	c.leaveBehind(f)
	reached := make(chan uint64, 1)
	c.network.setRule(func(p packet) fate {
		// By its number: under load a piece is sent again before it is acknowledged.
		if !p.bulk || p.to != f || pieceOf(p.payload) < partial {
			return fate{}
		}
		select {
		case reached <- p.from:
		default:
		}
		return fate{drop: true}
	})
	back := c.start(f)
	sender = receive(c, reached, "the transfer")
	c.eventually("pieces are durable", func() bool {
		records, err := back.disk.records()
		require.NoError(c, err)
		durable = 0
		for _, r := range records {
			if recordKind(r.key) == "chunk" {
				durable++
			}
		}
		return durable >= partial
	})
	return durable, sender
}

// requireResumed says that what was there was not sent again: but for a first window, sent
// before the receiver could say what it has.
func (c *cluster) requireResumed(sent map[uint64]int) {
	const window = 8
	require.Contains(c, sent, uint64(pieces-1))
	for n := range sent {
		require.False(c, n >= window && n < partial, "the transfer began anew: %v", sent)
	}
}

func testTransferResumed(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k, group: compacting, machine: huge})
	c.writes(1, 2, 5)
	f := c.others(c.leader(1))[0].id
	c.partway(f)
	mark := c.member(f).events.now()
	// Nothing arrives until the sender has given up and begins another transfer.
	var broken string
	again := make(chan struct{}, 1)
	c.network.setRule(func(p packet) fate {
		if !p.bulk || p.to != f {
			return fate{}
		}
		transfer := string(transferOf(p.payload))
		if broken == "" {
			broken = transfer
		}
		if transfer != broken {
			select {
			case again <- struct{}{}:
			default:
			}
		}
		return fate{drop: true}
	})
	receive(c, again, "another transfer")
	sent := c.transfers(f)
	c.member(f).awaitKind(mark, synod.EventSnapshotInstalled, 1)
	c.requireResumed(sent())
	c.network.setRule(nil)
	c.check(1)
}

func testTransferReceiver(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k, group: compacting, machine: huge})
	c.writes(1, 2, 5)
	f := c.others(c.leader(1))[0].id
	c.partway(f)
	c.crash(f)
	sent := c.transfers(f)
	c.start(f).awaitKind(0, synod.EventSnapshotInstalled, 1)
	c.requireResumed(sent())
	c.network.setRule(nil)
	c.check(1)
}

func testTransferSender(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{group: compacting, machine: huge})
	c.writes(1, 2, 5)
	f := c.others(c.leader(1))[0].id
	_, sender := c.partway(f)
	mark := c.member(f).events.now()
	c.stop(sender)
	sent := c.transfers(f)
	// The third one alone elects nobody with a node that is behind; with the sender it does.
	c.start(sender)
	c.member(f).awaitKind(mark, synod.EventSnapshotInstalled, 1)
	c.network.setRule(nil)
	c.check(1)
	require.NotEmpty(t, sent())
}

func testTransferDamaged(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{group: compacting, machine: huge})
	c.writes(1, 2, 5)
	f := c.others(c.leader(1))[0].id
	c.partway(f)
	c.crash(f)
	damaged := false
	records, err := c.disks[f].records()
	require.NoError(t, err)
	for _, r := range records {
		if recordKind(r.key) == "partial" {
			r.value[len(r.value)/2] ^= 1
			var b storage.Batch
			b.Set(r.key, r.value)
			require.NoError(t, c.disks[f].Commit(&b))
			damaged = true
		}
	}
	require.True(t, damaged, "no record of how much there is")
	sent := c.transfers(f)
	c.start(f).awaitKind(0, synod.EventSnapshotInstalled, 1)
	require.Positive(t, sent()[0], "what can't be read was believed")
	c.network.setRule(nil)
	c.check(1)
}
