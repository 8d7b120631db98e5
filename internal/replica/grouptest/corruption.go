package grouptest

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

var corruptionRules = []rule{
	{"a record that is damaged, and that nobody else has, stops its group with ErrCorrupt, changes nothing, and disturbs nobody", testFlippedBits},
	{"a record of the node that is damaged or missing stops the node with ErrCorrupt", testNodeRecords},
	{"a group whose first record is missing is damaged, not new", testMissingMeta},
	{"a chunk that is damaged while it is sent stops the sender's group, and another one sends", testChunkDamagedAtSender},
}

// recordKind says what a key of a node's store is for, as far as the runtime knows.
// The records of the protocol are told apart by their tags.
func recordKind(key []byte) string {
	switch {
	case len(key) == 1 && key[0] == 'n':
		return "identity"
	case len(key) == 17 && key[0] == 'p':
		return "peer"
	case len(key) == 9 && key[0] == 'q':
		return "count"
	case len(key) == 1 && key[0] == 'r':
		return "run"
	case len(key) < 10 || key[0] != 'g':
		return "unknown"
	}
	switch key[9] {
	case 'm':
		return "group"
	case 's':
		return "snapshot"
	case 'c':
		return "chunk"
	case 'k':
		return "checkpoint"
	case 'a':
		return "partial"
	}
	return fmt.Sprintf("protocol %q", key[10:min(len(key), 11)])
}

// clone copies records, so that one can be changed.
func clone(records []record) []record {
	copied := make([]record, len(records))
	for i, r := range records {
		copied[i] = record{bytes.Clone(r.key), bytes.Clone(r.value)}
	}
	return copied
}

// spread returns up to n of the indexes below count: the first, the last, and some
// between.
func spread(count, n int) []int {
	if count <= n {
		n = count
	}
	var list []int
	for i := range n {
		list = append(list, i*(count-1)/max(1, n-1))
	}
	return list
}

// requireKept checks that all records of a group are as they were.
func requireKept(t *testing.T, before, after []record, group byte, what string) {
	t.Helper()
	values := make(map[string][]byte)
	for _, r := range after {
		values[string(r.key)] = r.value
	}
	for _, r := range before {
		if r.key[0] == 'g' && r.key[8] == group && !bytes.Equal(values[string(r.key)], r.value) {
			require.FailNow(t, "something was removed or repaired", "%s: record %x", what, r.key)
		}
	}
}

func testFlippedBits(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{groups: 2, group: compacting, machine: large})
	c.writes(1, 1, 150)
	c.writes(2, 1, 5)
	victim := c.others(c.leader(1))[0].id
	c.member(victim).awaitKind(0, synod.EventSnapshotTaken, 1)
	c.check(1)
	c.check(2)
	c.stop(victim)
	var good []record
	kinds := make(map[string][]int)
	for {
		var err error
		good, err = c.disks[victim].records()
		require.NoError(t, err)
		clear(kinds)
		snapshots := make(map[string]bool)
		for i, r := range good {
			if r.key[0] == 'g' && r.key[8] == 1 {
				kind := recordKind(r.key)
				kinds[kind] = append(kinds[kind], i)
				if kind == "chunk" {
					snapshots[string(r.key[:len(r.key)-8])] = true
				}
			}
		}
		if len(snapshots) == 1 {
			break
		}
		// Chunks of an older snapshot, or of one that was not finished, are nobody's: a start
		// removes them.
		c.start(victim)
		c.check(1)
		c.stop(victim)
	}
	require.GreaterOrEqual(t, len(kinds), 4, "kinds of records: %v", kinds)
	require.Greater(t, len(kinds["chunk"]), 2)
	// What a repair asks for is not answered.
	c.network.setRule(func(p packet) fate { return fate{drop: p.payload[1] == needKind} })
	for kind, places := range kinds {
		for _, at := range spread(len(places), 3) {
			i := places[at]
			for _, bit := range spread(8*len(good[i].value), 3) {
				what := fmt.Sprintf("%s, record %d of %d, bit %d", kind, at+1, len(places), bit)
				// On the same disk again and again: an older copy of it would forget.
				d := c.disks[victim]
				flip := func() {
					value := bytes.Clone(good[i].value)
					if damaged := d.mustGet(c, good[i].key); bytes.Equal(damaged, value) {
						value[bit/8] ^= 1 << (bit % 8)
					}
					var b storage.Batch
					b.Set(good[i].key, value)
					require.NoError(t, d.Commit(&b))
				}
				flip()
				before, err := d.records()
				require.NoError(t, err)
				m, err := c.open(victim, nil)
				require.NoError(t, err, what)
				short, cancel := contextFor(c, heartbeat)
				err = m.tryGroup(short, 1)
				cancel()
				require.ErrorIs(t, err, storage.ErrCorrupt, what)
				require.NotErrorIs(t, err, replica.ErrNotBootstrapped, what)
				var corrupt *storage.CorruptError
				require.ErrorAs(t, err, &corrupt, what)
				require.Equal(t, uint64(1), corrupt.Group, "%s: %v", what, err)
				require.NotEmpty(t, corrupt.Reason)
				// The other group of the node runs, and so does this one elsewhere.
				require.NoError(t, m.startGroup(2))
				require.NoError(t, m.group(2).Barrier(c.ctx))
				c.stop(victim)
				after, err := d.records()
				require.NoError(t, err)
				requireKept(t, before, after, 1, what)
				flip()
			}
		}
		c.writes(1, 1, 2)
	}
	c.network.healAll()
	// Undamaged, it goes on.
	c.start(victim)
	c.check(1)
	c.check(2)
}

func testNodeRecords(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 1, 3)
	victim := c.others(c.leader(1))[0].id
	// The incarnations of its peers are stored with what comes next.
	require.Eventually(t, func() bool {
		records, err := c.member(victim).disk.records()
		require.NoError(t, err)
		peers := 0
		for _, r := range records {
			if recordKind(r.key) == "peer" {
				peers++
			}
		}
		return peers > 0
	}, patience, heartbeat)
	c.stop(victim)
	good, err := c.disks[victim].records()
	require.NoError(t, err)
	try := func(records []record, what string) {
		d, err := diskOf(records)
		require.NoError(t, err)
		_, err = c.openOn(victim, d, nil)
		require.ErrorIs(t, err, storage.ErrCorrupt, what)
		after, err := d.records()
		require.NoError(t, err)
		require.Equal(t, records, after, what)
	}
	found := 0
	for i, r := range good {
		switch recordKind(r.key) {
		case "identity", "run":
			try(append(clone(good[:i]), clone(good[i+1:])...), recordKind(r.key)+" is missing")
		case "peer", "count":
		default:
			continue
		}
		found++
		for bit := range 8 * len(r.value) {
			damaged := clone(good)
			damaged[i].value[bit/8] ^= 1 << (bit % 8)
			try(damaged, fmt.Sprintf("%s, bit %d", recordKind(r.key), bit))
		}
		damaged := clone(good)
		damaged[i].value = damaged[i].value[:len(r.value)-1]
		try(damaged, recordKind(r.key)+", cut")
	}
	require.GreaterOrEqual(t, found, 4)
	c.start(victim)
	c.check(1)
}

func testMissingMeta(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{})
	c.writes(1, 1, 3)
	victim := c.others(c.leader(1))[0].id
	c.stop(victim)
	good, err := c.disks[victim].records()
	require.NoError(t, err)
	var damaged []record
	for _, r := range good {
		if recordKind(r.key) != "group" {
			damaged = append(damaged, r)
		}
	}
	require.Len(t, damaged, len(good)-1)
	d, err := diskOf(damaged)
	require.NoError(t, err)
	m, err := c.openOn(victim, d, nil)
	require.NoError(t, err)
	defer m.close()
	require.ErrorIs(t, m.startGroup(1), storage.ErrCorrupt)
	require.ErrorIs(t, m.node.Bootstrap(c.ctx, 1, c.ids()), storage.ErrCorrupt, "what the group promised would be overwritten")
	after, err := d.records()
	require.NoError(t, err)
	requireKept(t, damaged, after, 1, "without its first record")
	c.check(1)
}

func testChunkDamagedAtSender(t *testing.T, engine Engine) {
	c := newCluster(t, engine, options{groups: 2, group: compacting, machine: large})
	c.writes(1, 2, 5)
	f := c.others(c.leader(1))[0].id
	c.leaveBehind(f)
	// All that may be sent by the leader is damaged.
	l := c.leader(1)
	records, err := l.disk.records()
	require.NoError(t, err)
	var b storage.Batch
	for _, r := range records {
		if recordKind(r.key) == "chunk" && r.key[8] == 1 {
			value := bytes.Clone(r.value)
			value[len(value)/2] ^= 4
			b.Set(r.key, value)
		}
	}
	require.NotZero(t, b.Len())
	require.NoError(t, l.disk.Commit(&b))
	back := c.start(f)
	// Either the leader finds it, and stops, or it is no leader any more.
	back.awaitKind(0, synod.EventSnapshotInstalled, 1)
	c.check(1)
	c.check(2)
	require.NoError(t, l.group(2).Err())
	if err := l.group(1).Err(); err != nil {
		require.ErrorIs(t, err, storage.ErrCorrupt)
		require.ErrorAs(t, err, new(*synod.FailedError))
	}
}
