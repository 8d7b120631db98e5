package kv

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/txn/hlc"
)

// faultyLog is a log whose next calls fail in a way of their own.
type faultyLog struct {
	*soloLog
	fault atomic.Int32
}

const (
	works   int32 = iota
	refuses       // certainly without effect
	hangs         // until the context ends; it is not applied
	forgets       // it is applied, and the answer never comes
)

func (l *faultyLog) Propose(ctx context.Context, command []byte) ([]byte, error) {
	switch l.fault.Load() {
	case refuses:
		return nil, synod.ErrOverloaded
	case forgets:
		if _, err := l.soloLog.Propose(ctx, command); err != nil {
			return nil, err
		}
		fallthrough
	case hangs:
		err := executor.Real().Wait(ctx, executor.NewEvent())
		return nil, fmt.Errorf("%w: %w", synod.ErrUnknownOutcome, err)
	}
	return l.soloLog.Propose(ctx, command)
}

// TestOutcomes: what a caller is told whose context ends, by what the groups did. What it is told is true, afterwards nothing is held,
// and a transaction of unknown outcome gets one.
func TestOutcomes(t *testing.T) {
	type row struct {
		faults    []int32 // by group
		unknown   bool
		committed bool
	}
	for _, r := range []row{
		{[]int32{refuses}, false, false},
		{[]int32{hangs}, true, false},
		{[]int32{forgets}, true, true},
		{[]int32{works, refuses}, false, false},
		{[]int32{works, hangs}, true, false},
		{[]int32{works, forgets}, true, true},
		{[]int32{refuses, hangs}, false, false},
		{[]int32{refuses, forgets}, false, false},
		{[]int32{hangs, forgets}, true, false},
		{[]int32{forgets, forgets}, true, true},
		{[]int32{works, works, hangs}, true, false},
		{[]int32{works, forgets, forgets}, true, true},
		{[]int32{works, forgets, refuses}, false, false},
	} {
		t.Run(fmt.Sprint(r.faults), func(t *testing.T) {
			n := len(r.faults)
			cfg := Config{Route: routeByLast(n), RecoverAfter: 20 * time.Millisecond}
			var logs []*faultyLog
			for range n {
				l := &faultyLog{soloLog: &soloLog{machine: NewMachine()}}
				logs = append(logs, l)
				cfg.Groups = append(cfg.Groups, Group{l, l.machine})
			}
			db, err := Open(t.Context(), cfg)
			require.NoError(t, err)
			defer db.Close()
			for i, f := range r.faults {
				logs[i].fault.Store(f)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			err = db.Update(ctx, func(tx *Tx) error {
				for i := range n {
					if err := tx.Put([]byte{'k', byte(i)}, []byte("new")); err != nil {
						return err
					}
				}
				return nil
			})
			require.Error(t, err)
			require.Equal(t, r.unknown, errors.Is(err, synod.ErrUnknownOutcome), "%v", err)
			for _, l := range logs {
				l.fault.Store(works)
			}
			// All of it or nothing, and it stays so.
			for range 2 {
				require.NoError(t, db.View(t.Context(), func(tx *Tx) error {
					for i := range n {
						_, err := tx.Get([]byte{'k', byte(i)})
						if err != nil && !errors.Is(err, ErrNotFound) {
							return err
						}
						require.Equal(t, r.committed, err == nil)
					}
					return nil
				}))
			}
			for _, l := range logs {
				_, err := l.machine.await(t.Context(), executor.Real(), time.Minute, func(s *state) bool { return len(s.locks) == 0 })
				require.NoError(t, err)
			}
			require.NoError(t, db.Close())
			for _, l := range logs {
				require.Zero(t, l.machine.Status().Locks)
			}
		})
	}
}

// TestAClockThatIsNotTrusted: a node whose clock is fenced begins nothing, and says why; one whose clock is a year behind its groups' goes on, as
// nothing depends on it.
func TestAClockThatIsNotTrusted(t *testing.T) {
	db, logs := openSolo(t, 2, 0, nil)
	ahead := uint64(hlc.FromTime(time.Now().Add(365 * 24 * time.Hour)))
	for _, l := range logs {
		_, err := l.Propose(t.Context(), appendAdvance(nil, ahead))
		require.NoError(t, err)
	}
	put(t, db, "x0", "1", "y1", "1")
	require.Equal(t, []string{"1", "1"}, read(t, db, "x0", "y1"))
	require.NoError(t, db.ViewAt(t.Context(), db.Now(), func(tx *Tx) error {
		require.Equal(t, "1", get(t, tx, "x0"))
		return nil
	}))
	require.ErrorIs(t, db.ViewAt(t.Context(), hlc.Timestamp(2*ahead), func(*Tx) error { return nil }), ErrInvalid)

	clock, err := hlc.New(t.Context(), hlc.Config{Node: 1, Last: hlc.Timestamp(ahead)})
	require.NoError(t, err)
	defer clock.Close()
	fenced, err := Open(t.Context(), Config{Groups: db.cfg.Groups, Route: db.cfg.Route, Clock: clock})
	require.NoError(t, err)
	defer fenced.Close()
	require.ErrorIs(t, fenced.Update(t.Context(), func(tx *Tx) error { return tx.Put([]byte("x0"), nil) }), hlc.ErrOffset)
}

// TestLimits: what is too large is refused, naming the limit, before anything is sent.
func TestLimits(t *testing.T) {
	db, logs := openSolo(t, 1, 0, func(c *Config) { c.MaxKeyBytes, c.MaxValueBytes, c.MaxCommandBytes = 8, 100, 500 })
	update := func(fn func(tx *Tx) error) error { return db.Update(t.Context(), fn) }
	require.ErrorIs(t, update(func(tx *Tx) error { return tx.Put([]byte("123456789"), nil) }), synod.ErrTooLarge)
	require.ErrorIs(t, update(func(tx *Tx) error { return tx.Put([]byte("1"), make([]byte, 101)) }), synod.ErrTooLarge)
	require.ErrorIs(t, update(func(tx *Tx) error { return tx.Put(nil, nil) }), ErrInvalid)
	require.ErrorIs(t, update(func(tx *Tx) error {
		for i := range 10 {
			if err := tx.Put([]byte{byte(i + 1)}, make([]byte, 90)); err != nil {
				return err
			}
		}
		return nil
	}), synod.ErrTooLarge)
	require.Zero(t, logs[0].index)
	var kept *Tx
	require.NoError(t, update(func(tx *Tx) error { kept = tx; return nil }))
	_, err := kept.Get([]byte("a"))
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorIs(t, kept.Put([]byte("a"), nil), ErrInvalid)
	for _, bad := range []Config{
		{Groups: []Group{{}}}, {Groups: db.cfg.Groups, MaxKeyBytes: 1 << 20}, {Groups: append(db.cfg.Groups, db.cfg.Groups...)}, {Groups: db.cfg.Groups, Retention: -1},
	} {
		_, err := Open(t.Context(), bad)
		var c *synod.ConfigError
		require.ErrorAs(t, err, &c)
		require.Equal(t, "kv", c.Package)
	}
	require.NoError(t, db.Close())
	require.ErrorIs(t, update(func(tx *Tx) error { return tx.Put([]byte("a"), nil) }), synod.ErrClosed)
}
