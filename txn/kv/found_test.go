package kv

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/paxoscommit"
)

// TestWhatAVoteHasFoundIsLookedForAgain: a vote remembers the item of a key for the outcome. If it is another one by then, that one is to be changed.
func TestWhatAVoteHasFoundIsLookedForAgain(t *testing.T) {
	collect := func(s *state) { s.apply(appendCollect(nil, s.clock, 0)) }
	for _, c := range []struct {
		name      string
		deleted   bool
		meanwhile func(s *state) *image
	}{
		{"nothing", false, func(*state) *image { return nil }},
		{"its versions are collected", false, func(s *state) *image { collect(s); return nil }},
		{"the key is collected", true, func(s *state) *image { collect(s); return nil }},
		{"a snapshot", false, (*state).snapshot},
		{"a snapshot, and its versions are collected", false, func(s *state) *image { i := s.snapshot(); collect(s); return i }},
		{"a snapshot, and the key is collected", true, func(s *state) *image { i := s.snapshot(); collect(s); return i }},
		{"its versions are collected, and a snapshot", false, func(s *state) *image { collect(s); return s.snapshot() }},
		{"the key is collected, and a snapshot", true, func(s *state) *image { collect(s); return s.snapshot() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			// remembers: a replica that has restored a snapshot since the vote does not.
			after := func(remembers bool) []byte {
				s, counter := newState(), uint64(0)
				vote := func(groups []uint32, w write) paxoscommit.ID {
					counter++
					p := prepare{id: client(1, counter), floor: 1, age: counter, readAt: s.clock, groups: groups, writes: []write{w}}
					require.Equal(t, paxoscommit.Yes, s.apply(appendPrepare(nil, &p)).record.Vote)
					return p.id
				}
				alone, both := []uint32{0}, []uint32{0, 1}
				vote(alone, write{key: "x", value: []byte("0")})
				vote(alone, write{key: "x", value: []byte("1"), deleted: c.deleted})
				id := vote(both, write{key: "x", value: []byte("2"), read: true})
				found := &s.prepared[id].writes[0].item
				require.NotNil(t, *found)
				if !remembers {
					*found = nil
				}

				snapshot := c.meanwhile(s)
				bytesOf := func() []byte {
					if snapshot == nil {
						return nil
					}
					var b bytes.Buffer
					_, err := snapshot.WriteTo(&b)
					require.NoError(t, err)
					return b.Bytes()
				}
				before := bytesOf()
				s.apply(appendResolve(nil, id.Session, 1, s.clock, []resolution{{id, paxoscommit.Committed, s.clock + 1, both}}))
				require.Zero(t, s.wrong)
				require.Equal(t, before, bytesOf(), "a snapshot has changed")

				value, there := valueAt(s.find("x"), s.clock)
				require.True(t, there)
				require.Equal(t, "2", string(value))
				it, there := s.items.Get("x")
				require.True(t, there)
				require.Same(t, s.index["x"], it)
				require.Empty(t, s.locks)
				return snapshotOf(t, s)
			}
			require.Equal(t, after(false), after(true))
		})
	}
}

// TestAMachineKeepsNothingOfACommand: its bytes belong to whoever hands it in.
func TestAMachineKeepsNothingOfACommand(t *testing.T) {
	after := func(spoil bool) []byte {
		s := newState()
		apply := func(command []byte) answer {
			a := s.apply(command)
			if spoil {
				for i := range command {
					command[i] = 0xff
				}
			}
			return a
		}
		alone, both := []uint32{0}, []uint32{0, 1}
		part := func(counter uint64, groups []uint32, key string) *prepare {
			return &prepare{id: client(1, counter), floor: 1, age: counter, readAt: s.clock, groups: groups,
				reads: []string{key + "r"}, ranges: []keyRange{{key + "t", key + "u"}},
				expected: []expectation{{key: key + "e", absent: true}}, writes: []write{{key: key, value: []byte("value of " + key), read: true}}}
		}
		require.Equal(t, paxoscommit.Yes, apply(appendPrepare(nil, part(1, alone, "a"))).record.Vote)
		for counter := uint64(2); counter < 5; counter++ {
			require.Equal(t, paxoscommit.Yes, apply(appendPrepare(nil, part(counter, both, string(rune('a'+counter))))).record.Vote)
		}
		apply(appendResolve(nil, client(1, 2).Session, 1, s.clock, []resolution{{client(1, 2), paxoscommit.Committed, s.clock + 1, both}}))
		other := part(5, alone, "z")
		other.told = []resolution{{client(1, 3), paxoscommit.Committed, s.clock + 1, both}}
		apply(appendPrepare(nil, other))
		apply(appendClose(nil, client(2, 1), both, s.clock))
		apply(appendReserve(nil, chain{1, 1}, s.clock, s.clock+1<<30, []string{"kept"}))
		return snapshotOf(t, s)
	}
	require.Equal(t, after(false), after(true))
}

// TestOutcomesAreToldThoughTheTimerIsOfOthers: those for which it was set went with a command, and others have come.
func TestOutcomesAreToldThoughTheTimerIsOfOthers(t *testing.T) {
	db, logs := openSolo(t, 2, 0, func(c *Config) { c.RecoverAfter = time.Hour })
	g := db.groups[0]
	for again := true; again; { // or they were told at once
		put(t, db, "x0", "1", "x1", "1")
		g.mu.Lock()
		again = len(g.queue) == 0 || g.timed.IsZero()
		list := g.take(1<<20, 0)
		g.mu.Unlock()
		for _, o := range list {
			db.enqueue(g, o)
		}
	}
	settled(t, []*Machine{logs[0].machine, logs[1].machine})
}

// TestOutcomesThatWereTakenAlongLaterAreToldToo: the timer is set for the first of those that have no answer, and then for the next.
func TestOutcomesThatWereTakenAlongLaterAreToldToo(t *testing.T) {
	db, logs := openSolo(t, 2, 0, func(c *Config) { c.RecoverAfter = 40 * time.Millisecond })
	g := db.groups[0]
	var list []told
	for len(list) == 0 { // or they were told at once
		put(t, db, "x0", "1", "x1", "1")
		g.mu.Lock()
		list = g.take(1<<20, 0)
		g.mu.Unlock()
	}
	db.attached(g, nil)
	later := db.attached(g, list)
	g.mu.Lock()
	later.due = later.due.Add(40 * time.Millisecond) // so that the timer finds only the first
	g.mu.Unlock()
	require.Eventually(t, func() bool { return db.Status().Open == 0 }, time.Minute, time.Millisecond)
	settled(t, []*Machine{logs[0].machine, logs[1].machine})
}

func TestALongQueueIsNotKept(t *testing.T) {
	g := &group{}
	g.answered(&attachment{list: make([]told, 4*maxTold)}, true)
	require.Nil(t, g.spare)
	g.answered(&attachment{list: make([]told, maxTold)}, true)
	require.NotNil(t, g.spare)
	require.Empty(t, g.spare)
}
