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

// pieces is how many pieces the snapshots of these tests have, about.
const pieces = 20

func huge(_, _ uint64, m *machine) { m.hooks.padding = pieces * 256 << 10 }

// pieceOf returns which piece of a snapshot a message holds.
func pieceOf(message []byte) uint64 {
	number, _ := binary.Uvarint(transferOf(message)[:18][16:])
	return number
}

// sourceOf returns the ID of the snapshot that a piece belongs to, as its sender has it.
func sourceOf(message []byte) string { return string(transferOf(message)[:16][8:]) }

// The pieces of a snapshot below whole arrive before a transfer breaks off; window is how many
// are sent beyond those that are known to have arrived.
const (
	whole  = 11
	window = 8
)

// transfer is a transfer that has come partway.
type transfer struct {
	from   uint64
	source string
}

// partway brings a transfer to a node so far that it has some pieces of it durably, and
// loses the rest.
func (c *cluster) partway(f uint64) transfer {
	c.leaveBehind(f)
	reached := make(chan transfer, 1)
	c.network.setRule(func(p packet) fate {
		if !p.bulk || p.to != f {
			return fate{}
		}
		number := pieceOf(p.payload)
		if number == whole+window-1 {
			select {
			case reached <- transfer{p.from, sourceOf(p.payload)}:
			default:
			}
		}
		return fate{drop: number >= whole}
	})
	c.start(f)
	return receive(c, reached, "the transfer")
}

// transfers counts how often each piece is sent to a node from now on, by the snapshot.
func (c *cluster) transfers(to uint64) (sent func() map[string]map[uint64]int) {
	counts := make(map[string]map[uint64]int)
	c.network.setRule(func(p packet) fate {
		if p.bulk && p.to == to {
			source := sourceOf(p.payload)
			if counts[source] == nil {
				counts[source] = make(map[uint64]int)
			}
			counts[source][pieceOf(p.payload)]++
		}
		return fate{}
	})
	return func() map[string]map[uint64]int {
		c.network.mu.Lock()
		defer c.network.mu.Unlock()
		return maps.Clone(counts)
	}
}

// same says whether nothing was sent but the snapshot whose transfer broke off. Another leader
// has another one, and a leader may have taken a newer one.
func (c *cluster) same(t transfer, sent map[string]map[uint64]int) bool {
	return len(sent) == 1 && sent[t.source] != nil
}

// resumed says whether what was there was not sent again, but for a first window, sent
// before the receiver could say what it has. If another snapshot was sent it does not, and it is
// to be tried again.
func (c *cluster) resumed(t transfer, sent map[string]map[uint64]int) bool {
	if !c.same(t, sent) {
		return false
	}
	require.Contains(c, sent[t.source], uint64(pieces-1))
	for n := range sent[t.source] {
		require.False(c, n >= window && n < whole, "the transfer began anew: %v", sent)
	}
	return true
}

func testTransferResumed(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k, group: compacting, machine: huge})
	c.writes(1, 2, 5)
	c.eventually("the same snapshot is sent again", func() bool {
		f := c.others(c.leader(1))[0].id
		part := c.partway(f)
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
		resumed := c.resumed(part, sent())
		c.network.setRule(nil)
		c.check(1)
		return resumed
	})
}

func testTransferReceiver(t *testing.T, engine Engine, k kind) {
	c := newCluster(t, engine, options{kind: k, group: compacting, machine: huge})
	c.writes(1, 2, 5)
	c.eventually("the same snapshot is sent again", func() bool {
		f := c.others(c.leader(1))[0].id
		part := c.partway(f)
		c.crash(f)
		sent := c.transfers(f)
		c.start(f).awaitKind(0, synod.EventSnapshotInstalled, 1)
		resumed := c.resumed(part, sent())
		c.network.setRule(nil)
		c.check(1)
		return resumed
	})
}

func testTransferSender(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{group: compacting, machine: huge})
	c.writes(1, 2, 5)
	f := c.others(c.leader(1))[0].id
	part := c.partway(f)
	mark := c.member(f).events.now()
	c.stop(part.from)
	sent := c.transfers(f)
	// The third one alone elects nobody with a node that is behind; with the sender it does.
	c.start(part.from)
	c.member(f).awaitKind(mark, synod.EventSnapshotInstalled, 1)
	c.network.setRule(nil)
	c.check(1)
	require.NotEmpty(t, sent())
}

func testTransferDamaged(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{group: compacting, machine: huge})
	c.writes(1, 2, 5)
	c.eventually("the same snapshot is sent again", func() bool {
		f := c.others(c.leader(1))[0].id
		part := c.partway(f)
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
		transfers := c.transfers(f)
		c.start(f).awaitKind(0, synod.EventSnapshotInstalled, 1)
		sent := transfers()
		same := c.same(part, sent)
		require.True(t, !same || sent[part.source][0] > 0, "what can't be read was believed")
		c.network.setRule(nil)
		c.check(1)
		return same
	})
}
