package kv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/paxoscommit"
)

// soloLog is a log of one replica: what is proposed is applied at once. lose makes calls fail, before or after they were applied.
type soloLog struct {
	mu      sync.Mutex
	machine *Machine
	index   uint64
	random  *rand.Rand
	lose    float64
}

func (l *soloLog) Propose(ctx context.Context, command []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lose > 0 && l.random.Float64() < l.lose/2 {
		return nil, synod.ErrOverloaded
	}
	l.index++
	result := l.machine.Apply(l.index, command)
	if l.lose > 0 && l.random.Float64() < l.lose {
		return nil, fmt.Errorf("%w: lost", synod.ErrUnknownOutcome)
	}
	return result, nil
}

func (l *soloLog) Barrier(ctx context.Context) error { return ctx.Err() }

func routeByLast(n int) func([]byte) int {
	return func(key []byte) int { return int(key[len(key)-1]) % n }
}

func openSolo(t *testing.T, n int, lose float64, change func(*Config)) (*DB, []*soloLog) {
	cfg := Config{Route: routeByLast(n), RecoverAfter: 50 * time.Millisecond}
	logs := make([]*soloLog, n)
	for i := range logs {
		logs[i] = &soloLog{machine: NewMachine(), random: rand.New(rand.NewPCG(1, uint64(i))), lose: lose}
		cfg.Groups = append(cfg.Groups, Group{logs[i], logs[i].machine})
	}
	if change != nil {
		change(&cfg)
	}
	db, err := Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db, logs
}

func amount(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }

func amountBytes(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

func transfer(tx *Tx, from, to []byte, n int64) error {
	a, err := tx.Get(from)
	if err != nil {
		return err
	}
	b, err := tx.Get(to)
	if err != nil {
		return err
	}
	if err := tx.Put(from, amountBytes(amount(a)-n)); err != nil {
		return err
	}
	return tx.Put(to, amountBytes(amount(b)+n))
}

// TestTransfersKeepTheTotal has many clients move money between accounts of several groups, over logs that lose answers.
func TestTransfersKeepTheTotal(t *testing.T) {
	for _, groups := range []int{1, 2, 3} {
		for _, lose := range []float64{0, 0.1} {
			t.Run(fmt.Sprintf("%d groups, %.0f%% lost", groups, lose*100), func(t *testing.T) {
				db, logs := openSolo(t, groups, lose, nil)
				const accounts, clients, each, initial = 12, 8, 60, 100
				key := func(i int) []byte { return []byte{'a', byte(i)} }
				require.NoError(t, db.Update(t.Context(), func(tx *Tx) error {
					for i := range accounts {
						if err := tx.Put(key(i), amountBytes(initial)); err != nil {
							return err
						}
					}
					return nil
				}))
				var wg sync.WaitGroup
				for c := range clients {
					wg.Go(func() {
						random := rand.New(rand.NewPCG(7, uint64(c)))
						for range each {
							from, to := random.IntN(accounts), random.IntN(accounts-1)
							if to >= from {
								to++
							}
							err := db.Update(t.Context(), func(tx *Tx) error { return transfer(tx, key(from), key(to), random.Int64N(10)) })
							if err != nil {
								t.Errorf("transfer: %v", err)
							}
							if random.IntN(5) == 0 {
								total := int64(0)
								err := db.View(t.Context(), func(tx *Tx) error {
									total = 0
									pairs, err := tx.Scan([]byte("a"), []byte("b"), 0)
									for _, p := range pairs {
										total += amount(p.Value)
									}
									return err
								})
								if err != nil || total != accounts*initial {
									t.Errorf("view: %d, %v", total, err)
								}
							}
						}
					})
				}
				wg.Wait()
				total := int64(0)
				require.NoError(t, db.ViewAt(t.Context(), db.Now(), func(tx *Tx) error {
					total = 0
					for i := range accounts {
						v, err := tx.Get(key(i))
						if err != nil {
							return err
						}
						total += amount(v)
					}
					return nil
				}))
				require.EqualValues(t, accounts*initial, total)
				require.NoError(t, db.Close())
				for _, l := range logs {
					s := l.machine.Status()
					require.Zero(t, s.Prepared)
					require.Zero(t, s.Locks)
					require.Zero(t, s.Contradicted)
				}
				s := db.Status()
				t.Logf("%d commits, %d conflicts", s.Commits, s.Conflicts)
				require.EqualValues(t, clients*each+1, s.Commits)
			})
		}
	}
}

func TestErrorsOfTransactions(t *testing.T) {
	db, _ := openSolo(t, 2, 0, nil)
	ctx := t.Context()
	_, err := Open(ctx, Config{})
	var bad *synod.ConfigError
	require.ErrorAs(t, err, &bad)
	require.Equal(t, "Groups", bad.Field)

	stop := errors.New("stop")
	require.ErrorIs(t, db.Update(ctx, func(tx *Tx) error {
		require.NoError(t, tx.Put([]byte("x"), []byte("1")))
		return stop
	}), stop)
	require.NoError(t, db.View(ctx, func(tx *Tx) error {
		_, err := tx.Get([]byte("x"))
		require.ErrorIs(t, err, ErrNotFound)
		require.ErrorIs(t, tx.Put([]byte("x"), nil), ErrInvalid)
		return nil
	}))
	require.NoError(t, db.Update(ctx, func(tx *Tx) error {
		require.NoError(t, tx.ExpectAbsent([]byte("x")))
		return tx.Put([]byte("x"), []byte("1"))
	}))
	err = db.Update(ctx, func(tx *Tx) error {
		require.NoError(t, tx.Expect([]byte("x"), []byte("2")))
		return tx.Put([]byte("y"), []byte("1"))
	})
	var mismatch *MismatchError
	require.ErrorAs(t, err, &mismatch)
	require.Equal(t, "x", string(mismatch.Key))
	require.NoError(t, db.View(ctx, func(tx *Tx) error {
		_, err := tx.Get([]byte("y"))
		require.ErrorIs(t, err, ErrNotFound)
		return nil
	}))
}

// client returns the ID of a transaction of one of the clients that tests number.
func client(client, counter uint64) paxoscommit.ID {
	return paxoscommit.ID{Session: paxoscommit.Session{Opened: client, Random: client}, Counter: counter}
}
