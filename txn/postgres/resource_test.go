package postgres

import (
	"context"
	"hash/fnv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/txn"
	"github.com/synod-go/synod/txn/txntest"
)

// The rules of txn.Resource. A run is not closed but left behind, with all its sessions: the next one takes over.
func TestResource(t *testing.T) {
	s := running(t)
	txntest.RunResource(t, func(t *testing.T, name string) (txntest.Subject, func()) {
		h := fnv.New32a()
		h.Write([]byte(name))
		table := sprint("things_%08x", h.Sum32())
		s.exec(t, "CREATE TABLE IF NOT EXISTS "+table+" (n int)")
		cfg := s.config(t)
		cfg.Resource = table
		insert := "INSERT INTO " + table + " VALUES ($1)"
		cfg.Execute = func(ctx context.Context, tx *Tx, work []byte) error {
			_, err := tx.Exec(ctx, insert, int(work[0]))
			return err
		}
		r := openTest(t, cfg)
		return txntest.Subject{
			Resource: r,
			Do: func(ctx context.Context, id txn.ID, n int) ([]byte, error) {
				if n%2 == 0 {
					return []byte{byte(n)}, nil
				}
				tx, err := r.Begin(ctx, id)
				if err != nil {
					return nil, err
				}
				_, err = tx.Exec(ctx, insert, n)
				return nil, err
			},
			Done: func(ctx context.Context, n int) (times int, err error) {
				err = r.control.QueryRow(ctx, "SELECT count(*) FROM "+table+" WHERE n = $1", n).Scan(&times)
				return times, err
			},
			Read: func(ctx context.Context, id txn.ID) ([]byte, error) {
				tx, err := r.Begin(ctx, id)
				if err != nil {
					return nil, err
				}
				var n int
				return nil, tx.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&n)
			},
			Refuse: func(ctx context.Context, id txn.ID, n int) ([]byte, error) {
				tx, err := r.Begin(ctx, id)
				if err != nil {
					return nil, err
				}
				if _, err = tx.Exec(ctx, insert, n); err != nil {
					return nil, err
				}
				_, err = tx.Exec(ctx, "SELECT 1/0")
				require.Error(t, err)
				return nil, nil
			},
		}, func() {}
	})
	// What the rules have left prepared.
	for s.number(t, "SELECT count(*) FROM pg_prepared_xacts") > 0 {
		conn, err := poolOf(t, s).Acquire(context.Background())
		require.NoError(t, err)
		var gid string
		require.NoError(t, conn.QueryRow(context.Background(), "SELECT gid FROM pg_prepared_xacts LIMIT 1").Scan(&gid))
		conn.Release()
		s.exec(t, "ROLLBACK PREPARED '"+gid+"'")
	}
}
