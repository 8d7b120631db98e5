package kv

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/paxoscommit"
	"github.com/synod-go/synod/txn/hlc"
)

// crowd is another client, whose transactions over two groups hold a key one after the other, without a gap.
type crowd struct {
	t   *testing.T
	log *soloLog
	key string
	n   uint64
}

func (c *crowd) id() paxoscommit.ID { return client(1<<62, c.n) }

// ask asks the group for the vote of somebody's transaction.
func (c *crowd) ask(p *prepare) answer {
	p.floor = 1
	result, err := c.log.Propose(c.t.Context(), appendPrepare(nil, p))
	if err != nil {
		c.t.Error(err)
	}
	a, err := readAnswer(result)
	if err != nil {
		c.t.Error(err)
	}
	return a
}

// next has the next one take the place of the last one.
func (c *crowd) next() {
	var told []resolution
	if c.n > 0 {
		told = []resolution{{c.id(), paxoscommit.Aborted, 0, []uint32{0, 1}}}
	}
	c.n++
	a := c.ask(&prepare{id: c.id(), age: 1<<63 - 1, groups: []uint32{0, 1}, writes: []write{{key: c.key, value: []byte("crowd")}}, told: told})
	require.Equal(c.t, paxoscommit.Yes, a.record.Vote)
}

// goes has the last one go.
func (c *crowd) goes() {
	_, err := c.log.Propose(c.t.Context(), appendResolve(nil, paxoscommit.Session{}, 0, 0, []resolution{{c.id(), paxoscommit.Aborted, 0, []uint32{0, 1}}}))
	require.NoError(c.t, err)
}

// until waits until the group's state is such.
func (c *crowd) until(ready func(m *Machine, s *state) bool) {
	m := c.log.machine
	require.Eventually(c.t, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return ready(m, m.state)
	}, 30*time.Second, time.Millisecond)
}

// waits waits until somebody waits for the last one, and n altogether.
func (c *crowd) waits(n int) {
	c.until(func(m *Machine, s *state) bool { return len(m.waiters) >= n })
}

// claimed has one after the other come until somebody claims the key.
func (c *crowd) claimed() {
	for i := 2; ; i++ {
		c.waits(1)
		kept := 0
		c.log.machine.read(func(s *state) { kept = len(s.reserved) })
		if kept > 0 {
			return
		}
		require.Less(c.t, i, 20, "nobody claims anything")
		c.next()
		// Whoever waits meets it, before the one after it comes.
		_, err := c.log.machine.await(c.t.Context(), executor.Real(), 20*time.Millisecond, func(s *state) bool { return len(s.reserved) > 0 })
		require.NoError(c.t, err)
	}
}

func openCrowd(t *testing.T, change func(*Config)) (*DB, *crowd) {
	db, logs := openSolo(t, 2, 0, func(c *Config) {
		c.RecoverAfter = time.Minute
		if change != nil {
			change(c)
		}
	})
	return db, &crowd{t: t, log: logs[0], key: "x0"}
}

func background(fn func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	return done
}

// TestWhatIsClaimedIsGivenUp: by whoever does not vote in the end: who has only read, and who has given up.
func TestWhatIsClaimedIsGivenUp(t *testing.T) {
	t.Run("read only", func(t *testing.T) {
		db, c := openCrowd(t, nil)
		put(t, db, "x0", "1")
		done := background(func() error {
			return db.Update(t.Context(), func(tx *Tx) error {
				get(t, tx, "x0")
				c.next()
				return nil
			})
		})
		c.claimed()
		c.goes()
		require.NoError(t, <-done)
		c.until(func(_ *Machine, s *state) bool { return len(s.reserved) == 0 })
	})
	t.Run("view", func(t *testing.T) {
		db, c := openCrowd(t, nil)
		put(t, db, "x0", "0", "x1", "0")
		c.until(func(_ *Machine, s *state) bool { return len(s.prepared) == 0 }) // who has prepared below is of the crowd
		runs := uint64(0)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := background(func() error {
			return db.View(ctx, func(tx *Tx) error {
				runs++
				get(t, tx, "x0")
				get(t, tx, "x1")
				if runs <= lockAfter {
					a := c.ask(&prepare{id: client(1<<61, runs), groups: []uint32{0}, writes: []write{{key: "x0", value: []byte("v")}}})
					require.Equal(t, paxoscommit.Committed, a.record.Outcome)
				} else {
					c.next()
				}
				return nil
			})
		})
		c.until(func(_ *Machine, s *state) bool { return len(s.prepared) > 0 })
		c.claimed()
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		c.until(func(_ *Machine, s *state) bool { return len(s.reserved) == 0 })
		c.goes()
	})
}

// TestWhoHasClaimedWaitsForNoTurn: a younger one of its DB has the key's turn, and waits for what is kept.
func TestWhoHasClaimedWaitsForNoTurn(t *testing.T) {
	db, c := openCrowd(t, nil)
	put(t, db, "x0", "1", "z0", "1")
	c.next()
	older := background(func() error {
		return db.Update(t.Context(), func(tx *Tx) error {
			get(t, tx, "x0")
			return tx.Put([]byte("x0"), []byte("older"))
		})
	})
	c.claimed()
	younger := background(func() error {
		return db.Update(t.Context(), func(tx *Tx) error {
			get(t, tx, "z0")
			return tx.Put([]byte("x0"), []byte("younger"))
		})
	})
	c.waits(2)
	c.goes()
	for _, done := range []<-chan error{older, younger} {
		select {
		case err := <-done:
			require.NoError(t, err)
		case <-time.After(30 * time.Second): // half of what a turn is waited for
			require.Fail(t, "they wait for each other")
		}
	}
	require.Equal(t, []string{"younger"}, read(t, db, "x0"))
}

// TestWhoHasVotedDoesNotWaitToClaim: what it would claim is kept for an older one, which it gives way to.
func TestWhoHasVotedDoesNotWaitToClaim(t *testing.T) {
	db, logs := openSolo(t, 2, 0, func(c *Config) { c.RecoverAfter = time.Minute })
	c := &crowd{t: t, log: logs[0], key: "x0"}
	put(t, db, "x0", "1", "k0", "1", "y1", "1")
	settled(t, []*Machine{logs[0].machine, logs[1].machine})
	now := db.now()
	_, err := logs[0].Propose(t.Context(), appendReserve(nil, chain{1, 1}, now, uint64(hlc.FromTime(hlc.Timestamp(now).Time().Add(time.Hour))), []string{"k0"}))
	require.NoError(t, err)
	c.next()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := background(func() error {
		return db.Update(ctx, func(tx *Tx) error {
			for _, k := range []string{"x0", "k0", "y1"} {
				if err := tx.Put([]byte(k), []byte("b")); err != nil {
					return err
				}
			}
			return nil
		})
	})
	_, err = logs[1].machine.await(t.Context(), executor.Real(), time.Minute, func(s *state) bool { return len(s.prepared) == 1 })
	require.NoError(t, err)
	for range 3 * claimAfter {
		c.waits(1)
		c.next()
	}
	c.goes()
	ok, err := logs[1].machine.await(t.Context(), executor.Real(), 30*time.Second, func(s *state) bool { return len(s.prepared) == 0 })
	require.NoError(t, err)
	require.True(t, ok, "it holds its vote, and waits for an older one")
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

// noReservations is a log on which reservations have no answer.
type noReservations struct{ *soloLog }

func (l noReservations) Propose(ctx context.Context, command []byte) ([]byte, error) {
	if command[0] == opReserve {
		<-ctx.Done()
		return nil, errors.Join(synod.ErrUnknownOutcome, ctx.Err())
	}
	return l.soloLog.Propose(ctx, command)
}

// TestAClaimsOutcomeIsNotTheTransactions: it is not known whether a key is kept; but certain that nothing was committed.
func TestAClaimsOutcomeIsNotTheTransactions(t *testing.T) {
	db, c := openCrowd(t, func(c *Config) { c.Groups[0].Log = noReservations{c.Groups[0].Log.(*soloLog)} })
	put(t, db, "x0", "1")
	c.next()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := background(func() error {
		return db.Update(ctx, func(tx *Tx) error { return tx.Put([]byte("x0"), []byte("b")) })
	})
	for range claimAfter - 1 {
		c.waits(1)
		c.next()
	}
	time.AfterFunc(50*time.Millisecond, cancel) // it claims, by then
	err := <-done
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, synod.ErrUnknownOutcome)
	c.goes()
}

// smallLog takes no command above a size.
type smallLog struct {
	*soloLog
	most int
}

func (l smallLog) Propose(ctx context.Context, command []byte) ([]byte, error) {
	if len(command) > l.most {
		return nil, fmt.Errorf("%w: %d bytes", synod.ErrTooLarge, len(command))
	}
	return l.soloLog.Propose(ctx, command)
}

// TestAClaimFitsInACommand: of what was scanned as much is kept as has room.
func TestAClaimFitsInACommand(t *testing.T) {
	const most = 4096
	db, c := openCrowd(t, func(c *Config) {
		c.MaxCommandBytes = most
		c.Groups[0].Log = smallLog{c.Groups[0].Log.(*soloLog), most}
	})
	for i := range 20 {
		put(t, db, fmt.Sprintf("k%02d%0500d0", i, 0), "")
	}
	put(t, db, "x0", "1")
	c.next()
	done := background(func() error {
		return db.Update(t.Context(), func(tx *Tx) error {
			if _, err := tx.Scan([]byte("k"), []byte("l"), 0); err != nil {
				return err
			}
			if _, err := tx.Get([]byte("x0")); err != nil {
				return err
			}
			return tx.Put([]byte("x0"), []byte("b"))
		})
	})
	c.claimed()
	c.goes()
	require.NoError(t, <-done)
}

// TestWhatIsGoneHasChanged: a key that was read is deleted and collected before the transaction votes, or while it waits for something else.
func TestWhatIsGoneHasChanged(t *testing.T) {
	for _, how := range []string{"written", "waits", "validates"} {
		t.Run(how, func(t *testing.T) {
			db, c := openCrowd(t, nil)
			c.key = "y0"
			put(t, db, "x0", "1")
			remove := func() {
				a := c.ask(&prepare{id: client(1<<61, 1), groups: []uint32{0}, writes: []write{{key: "x0", deleted: true}}})
				if a.record.Outcome != paxoscommit.Committed {
					t.Error("it was not deleted")
				}
				if _, err := c.log.Propose(t.Context(), appendCollect(nil, a.record.Timestamp, 0)); err != nil {
					t.Error(err)
				}
			}
			runs, x := 0, ""
			require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
				x = get(t, tx, "x0")
				if runs++; runs == 1 {
					switch how {
					case "written":
						remove()
					default:
						if how == "validates" {
							get(t, tx, "y0")
						}
						c.next()
						go func() {
							c.waits(1)
							remove()
							c.goes()
						}()
					}
				}
				switch how {
				case "written":
					return tx.Put([]byte("x0"), []byte(x+"+"))
				case "waits":
					get(t, tx, "y0")
					return tx.Put([]byte("z0"), []byte(x+"+"))
				}
				return nil
			}))
			require.Equal(t, 2, runs)
			require.Empty(t, x)
		})
	}
}
