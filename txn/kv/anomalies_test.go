package kv

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/paxoscommit"
)

// what a test writes and reads, as strings.
func get(t *testing.T, tx *Tx, key string) string {
	v, err := tx.Get([]byte(key))
	if errors.Is(err, ErrNotFound) {
		return ""
	}
	if err != nil {
		return "error: " + err.Error()
	}
	return string(v)
}

func put(t *testing.T, db *DB, pairs ...string) {
	t.Helper()
	require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
		for i := 0; i < len(pairs); i += 2 {
			if err := tx.Put([]byte(pairs[i]), []byte(pairs[i+1])); err != nil {
				return err
			}
		}
		return nil
	}))
}

func read(t *testing.T, db *DB, keys ...string) (values []string) {
	t.Helper()
	require.NoError(t, db.View(t.Context(), func(tx *Tx) error {
		values = nil
		for _, k := range keys {
			values = append(values, get(t, tx, k))
		}
		return nil
	}))
	return values
}

// TestAnomalies has another transaction commit in the middle of one, where without isolation the named anomaly would show. Keys
// that end in 0 and 1 are in one group, or in two.
func TestAnomalies(t *testing.T) {
	for _, groups := range []int{1, 2} {
		// once runs fn in the first attempt only.
		once := func(fn func()) func() {
			done := false
			return func() {
				if !done {
					done = true
					fn()
				}
			}
		}
		run := func(name string, fn func(t *testing.T, db *DB)) {
			t.Run(name+map[int]string{1: " in one group", 2: " over two groups"}[groups], func(t *testing.T) {
				db, _ := openSolo(t, groups, 0, nil)
				fn(t, db)
			})
		}
		run("lost update", func(t *testing.T, db *DB) {
			put(t, db, "x0", "", "y1", "")
			between := once(func() { put(t, db, "x0", "a") })
			require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
				had := get(t, tx, "x0")
				between()
				_ = tx.Put([]byte("y1"), []byte("b"))
				return tx.Put([]byte("x0"), []byte(had+"b"))
			}))
			require.Equal(t, []string{"ab"}, read(t, db, "x0"))
		})
		run("write skew", func(t *testing.T, db *DB) {
			put(t, db, "x0", "1", "y1", "1")
			between := once(func() {
				require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
					if get(t, tx, "x0") == "1" {
						return tx.Put([]byte("y1"), []byte("0"))
					}
					return nil
				}))
			})
			require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
				other := get(t, tx, "y1")
				between()
				if other == "1" {
					return tx.Put([]byte("x0"), []byte("0"))
				}
				return nil
			}))
			require.NotEqual(t, []string{"0", "0"}, read(t, db, "x0", "y1"))
		})
		run("phantom", func(t *testing.T, db *DB) {
			// Each puts a key into the range if nobody else has.
			enter := func(tx *Tx, between func(), me string) error {
				in, err := tx.Scan([]byte("r"), []byte("s"), 0)
				between()
				if err != nil || len(in) > 0 {
					return err
				}
				return tx.Put([]byte(me), []byte("in"))
			}
			between := once(func() {
				require.NoError(t, db.Update(t.Context(), func(tx *Tx) error { return enter(tx, func() {}, "r0") }))
			})
			require.NoError(t, db.Update(t.Context(), func(tx *Tx) error { return enter(tx, between, "r1") }))
			require.Equal(t, []string{"in", ""}, read(t, db, "r0", "r1"))
		})
		run("phantom of a bounded scan", func(t *testing.T, db *DB) {
			put(t, db, "m0", "2")
			between := once(func() { put(t, db, "l1", "1") })
			var saw []string
			require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
				pairs, err := tx.Scan([]byte("a"), nil, 1)
				if err != nil {
					return err
				}
				between()
				saw = append(saw, string(pairs[0].Key))
				return tx.Put([]byte("w0"), pairs[0].Key)
			}))
			require.Equal(t, []string{"m0", "l1"}, saw)
		})
		run("fractured read", func(t *testing.T, db *DB) {
			put(t, db, "x0", "old", "y1", "old")
			between := once(func() { put(t, db, "x0", "new", "y1", "new") })
			var x, y string
			require.NoError(t, db.View(t.Context(), func(tx *Tx) error {
				x = get(t, tx, "x0")
				between()
				y = get(t, tx, "y1")
				return nil
			}))
			require.Equal(t, x, y)
		})
		run("long fork", func(t *testing.T, db *DB) {
			put(t, db, "x0", "old", "y1", "old")
			// One view sees x's write and not y's; then nobody may see y's and not x's.
			afterX := once(func() { put(t, db, "x0", "new") })
			afterY := once(func() { put(t, db, "y1", "new") })
			var first, second []string
			require.NoError(t, db.View(t.Context(), func(tx *Tx) error {
				y := get(t, tx, "y1")
				afterX()
				x := get(t, tx, "x0")
				require.NoError(t, db.View(t.Context(), func(inner *Tx) error {
					second = []string{get(t, inner, "x0"), ""}
					afterY()
					second[1] = get(t, inner, "y1")
					return nil
				}))
				first = []string{x, y}
				return nil
			}))
			order := map[string]int{"old": 0, "new": 1}
			smaller := func(a, b []string) bool { return order[a[0]] <= order[b[0]] && order[a[1]] <= order[b[1]] }
			require.True(t, smaller(first, second) || smaller(second, first), "%v and %v", first, second)
		})
		run("dirty read", func(t *testing.T, db *DB) {
			put(t, db, "x0", "1", "y1", "1")
			stop := errors.New("stop")
			require.ErrorIs(t, db.Update(t.Context(), func(tx *Tx) error {
				require.NoError(t, tx.Put([]byte("x0"), []byte("dirty")))
				require.Equal(t, []string{"1"}, read(t, db, "x0"))
				require.Equal(t, "dirty", get(t, tx, "x0"), "its own")
				return stop
			}), stop)
			require.Equal(t, []string{"1"}, read(t, db, "x0"))
		})
		run("stale read", func(t *testing.T, db *DB) {
			other, err := Open(t.Context(), db.cfg)
			require.NoError(t, err)
			defer other.Close()
			for _, v := range []string{"1", "2", "3"} {
				put(t, db, "x0", v, "y1", v)
				require.Equal(t, []string{v, v}, read(t, other, "x0", "y1"))
				require.NoError(t, other.ViewAt(t.Context(), db.Now(), func(tx *Tx) error {
					require.Equal(t, v, get(t, tx, "x0"))
					require.Equal(t, v, get(t, tx, "y1"))
					return nil
				}))
			}
		})
		run("an error that follows from what is not true any more", func(t *testing.T, db *DB) {
			put(t, db, "x0", "1", "y1", "1")
			between := once(func() { put(t, db, "x0", "2") })
			empty := errors.New("it is 1")
			require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
				x := get(t, tx, "x0")
				get(t, tx, "y1")
				between()
				if x == "1" {
					return empty
				}
				return nil
			}))
		})
	}
}

// TestDirtyWriteIsRefused: two transactions that write the same keys in two groups, each prepared first in one of them. The younger gives
// way, and the older goes on.
func TestDirtyWriteIsRefused(t *testing.T) {
	s := [2]*state{newState(), newState()}
	vote := func(g int, client, age uint64) answer {
		p := prepare{id: paxoscommit.ID{Session: paxoscommit.Session{Opened: 1, Random: client}, Counter: 1}, floor: 1, age: age, groups: []uint32{0, 1},
			writes: []write{{key: "x", value: []byte{byte(client)}}}}
		return s[g].apply(appendPrepare(nil, &p))
	}
	require.Equal(t, paxoscommit.Yes, vote(0, 1, 10).record.Vote)
	require.Equal(t, paxoscommit.Yes, vote(1, 2, 20).record.Vote)
	require.Equal(t, answerBlocked, vote(1, 1, 10).kind, "the older waits")
	younger := vote(0, 2, 20)
	require.Equal(t, paxoscommit.No, younger.record.Vote)
	require.Equal(t, refusedBlocked, younger.refused)
	id := paxoscommit.ID{Session: paxoscommit.Session{Opened: 1, Random: 2}, Counter: 1}
	for _, g := range s {
		g.apply(appendResolve(nil, paxoscommit.Session{}, 0, 0, []resolution{{id, paxoscommit.Aborted, 0, []uint32{0, 1}}}))
	}
	require.Equal(t, paxoscommit.Yes, vote(1, 1, 10).record.Vote)
}

// TestWhatIsLeftBehindIsEnded: a client vanishes between its votes, at each point; whoever meets what it has left ends it, and gets on.
func TestWhatIsLeftBehindIsEnded(t *testing.T) {
	for votes := 1; votes <= 3; votes++ {
		db, logs := openSolo(t, 3, 0, func(c *Config) { c.RecoverAfter = 5 * time.Millisecond })
		put(t, db, "x0", "old", "x1", "old", "x2", "old")
		for _, l := range logs {
			_, err := l.machine.await(t.Context(), executor.Real(), time.Minute, func(s *state) bool { return len(s.locks) == 0 })
			require.NoError(t, err)
		}
		dead := paxoscommit.ID{Session: paxoscommit.Session{Opened: db.now(), Random: 1}, Counter: 1}
		for g := range votes {
			p := prepare{id: dead, floor: 1, age: 1, now: db.now(), groups: []uint32{0, 1, 2}, writes: []write{{key: "x" + string(rune('0'+g)), value: []byte("new")}}}
			result, err := logs[g].Propose(t.Context(), appendPrepare(nil, &p))
			require.NoError(t, err)
			a, err := readAnswer(result)
			require.NoError(t, err)
			require.Equal(t, paxoscommit.Yes, a.record.Vote)
		}
		want := "old"
		if votes == 3 {
			want = "new" // all have voted: it is committed, though nobody has said so
		}
		require.Equal(t, []string{want, want, want}, read(t, db, "x0", "x1", "x2"))
		put(t, db, "x0", "1", "x1", "1", "x2", "1")
		// What it had sent comes late.
		for g := range 3 {
			p := prepare{id: dead, floor: 1, age: 1, now: db.now(), groups: []uint32{0, 1, 2}, writes: []write{{key: "x" + string(rune('0'+g)), value: []byte("late")}}}
			_, err := logs[g].Propose(t.Context(), appendPrepare(nil, &p))
			require.NoError(t, err)
		}
		require.Equal(t, []string{"1", "1", "1"}, read(t, db, "x0", "x1", "x2"))
		require.NoError(t, db.Close())
		for _, l := range logs {
			require.Zero(t, l.machine.Status().Prepared)
		}
	}
}
