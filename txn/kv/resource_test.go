package kv

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/txn"
	"github.com/synod-go/synod/txn/txntest"
)

// kept are the groups of resources that are opened again.
func resourceOpener(t *testing.T) txntest.ResourceOpener {
	kept := map[string][]*soloLog{}
	return func(t *testing.T, name string) (txntest.Subject, func()) {
		if kept[name] == nil {
			for range 2 {
				kept[name] = append(kept[name], &soloLog{machine: NewMachine()})
			}
		}
		cfg := Config{Route: routeByLast(2)}
		for _, l := range kept[name] {
			cfg.Groups = append(cfg.Groups, Group{l, l.machine})
		}
		db, err := Open(context.Background(), cfg)
		require.NoError(t, err)
		r, err := NewResource(ResourceConfig{DB: db, Prefix: []byte("_"), Name: "keys"})
		require.NoError(t, err)
		key := func(n int) []byte { return fmt.Appendf(nil, "thing%d", n) }
		value := func(ctx context.Context, n int) (v []byte, err error) {
			err = db.View(ctx, func(tx *Tx) error {
				v, err = tx.Get(key(n))
				return err
			})
			if errors.Is(err, ErrNotFound) {
				return nil, nil
			}
			return v, err
		}
		return txntest.Subject{
			Resource: r,
			Do: func(ctx context.Context, id txn.ID, n int) ([]byte, error) {
				if n%2 == 0 {
					had, err := value(ctx, n)
					return (&Work{Put: []Pair{{key(n), append(had, 'x')}}}).Encode(), err
				}
				return nil, r.Do(ctx, id, func(tx *Tx) error {
					had, err := tx.Get(key(n))
					if err != nil && !errors.Is(err, ErrNotFound) {
						return err
					}
					return tx.Put(key(n), append(had, 'x'))
				})
			},
			Done: func(ctx context.Context, n int) (int, error) {
				v, err := value(ctx, n)
				return len(v), err
			},
			Refuse: func(ctx context.Context, id txn.ID, n int) ([]byte, error) {
				return (&Work{Expect: []Pair{{[]byte("never"), []byte("so")}}, Put: []Pair{{key(n), []byte("x")}}}).Encode(), nil
			},
		}, func() { db.Close() }
	}
}

func TestResource(t *testing.T) { txntest.RunResource(t, resourceOpener(t)) }

func TestResourceLocks(t *testing.T) {
	db, _ := openSolo(t, 2, 0, nil)
	r, err := NewResource(ResourceConfig{DB: db, Prefix: []byte("_"), Name: "keys"})
	require.NoError(t, err)
	put(t, db, "x0", "1", "y1", "1")
	first, second := txn.ID{Node: 1, Counter: 1}, txn.ID{Node: 1, Counter: 2}
	touch := func(id txn.ID) error {
		return r.Do(t.Context(), id, func(tx *Tx) error {
			get(t, tx, "x0")
			return tx.Put([]byte("y1"), []byte("2"))
		})
	}
	require.NoError(t, touch(first))
	require.ErrorIs(t, touch(first), ErrLocked)
	require.ErrorIs(t, touch(second), ErrLocked)
	guarded := func() error {
		return db.Update(t.Context(), func(tx *Tx) error {
			if err := r.Guard(tx, []byte("x0")); err != nil {
				return err
			}
			return tx.Put([]byte("x0"), []byte("3"))
		})
	}
	require.ErrorIs(t, guarded(), ErrLocked, "what it has read is kept, too")
	require.ErrorIs(t, r.Commit(t.Context(), first), ErrInvalid, "it is not prepared")
	require.NoError(t, r.Abort(t.Context(), first))
	require.NoError(t, guarded())
	require.NoError(t, touch(second))
	require.ErrorIs(t, r.Do(t.Context(), txn.ID{Node: 1, Counter: 3}, func(tx *Tx) error {
		_, err := tx.Scan(nil, nil, 0)
		return err
	}), ErrInvalid)

	defer probe.Plant("kv: a resource takes what is locked")()
	require.NoError(t, touch(first), "the mistake is noticed by this test")
}
