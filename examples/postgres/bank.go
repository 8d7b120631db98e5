package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/txn"
	"github.com/synod-go/synod/txn/kv"
	"github.com/synod-go/synod/txn/postgres"
)

const (
	accounts = 10 // in the database, and as many in keys
	initial  = 1000
	clients  = 4
)

func key(i int) []byte { return fmt.Appendf(nil, "account/%d", i) }

func encode(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

func decode(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }

// bank has accounts in both places.
type bank struct {
	dsn    string
	server *server // nil: it is somebody else's
	logger *slog.Logger
	nodes  []*node

	mu       sync.RWMutex // held for writing while the manager is exchanged
	manager  *txn.Manager
	database *postgres.Resource
	keys     *kv.Resource
}

func openBank(ctx context.Context, dir, dsn string, own *server, logger *slog.Logger) (*bank, error) {
	network, err := inproc.New(ctx, inproc.Config{})
	if err != nil {
		return nil, err
	}
	b := &bank{dsn: dsn, server: own, logger: logger}
	for id := uint64(1); id <= 3; id++ {
		n, err := startNode(ctx, network, id, dir)
		if err != nil {
			b.close()
			return nil, err
		}
		b.nodes = append(b.nodes, n)
	}
	if err := b.startManager(ctx); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// startManager starts what coordinates: on node 1, whose store has its decisions.
func (b *bank) startManager(ctx context.Context) (err error) {
	home := b.nodes[0]
	pool, err := pgxpool.ParseConfig(b.dsn)
	if err != nil {
		return err
	}
	pool.MaxConns = 2 * clients
	if b.database, err = postgres.Open(ctx, postgres.Config{Cluster: "bank", Node: 1, Resource: "rows", Pool: pool, Logger: b.logger}); err != nil {
		return err
	}
	if b.keys, err = kv.NewResource(kv.ResourceConfig{DB: home.db, Prefix: []byte("\x00txn/"), Name: "keys-1"}); err != nil {
		return err
	}
	b.manager, err = txn.Start(ctx, txn.Config{Cluster: "bank", Node: 1, Transport: home.mux.Channel(3), Store: home.store, Logger: b.logger,
		Resources: map[string]txn.Resource{"rows": b.database, "keys": b.keys}})
	return err
}

func (b *bank) stopManager() {
	if b.manager != nil {
		b.manager.Close()
	}
	if b.database != nil {
		b.database.Close()
	}
}

func (b *bank) close() {
	b.stopManager()
	for _, n := range b.nodes {
		n.close()
	}
}

// fill makes the accounts.
func (b *bank) fill(ctx context.Context) error {
	conn, err := pgxpool.New(ctx, b.dsn)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Exec(ctx, `DROP TABLE IF EXISTS accounts; CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0))`); err != nil {
		return err
	}
	for i := range accounts {
		if _, err := conn.Exec(ctx, `INSERT INTO accounts VALUES ($1, $2)`, i, initial); err != nil {
			return err
		}
	}
	return b.nodes[0].db.Update(ctx, func(tx *kv.Tx) error {
		for i := range accounts {
			if err := tx.Put(key(i), encode(initial)); err != nil {
				return err
			}
		}
		return nil
	})
}

var errFunds = errors.New("not enough money")

// transfer moves an amount from a row to a key, or back if it is below 0. nil: it has happened; txn.ErrAborted and what is not
// synod.ErrUnknownOutcome: it has not, and won't.
func (b *bank) transfer(ctx context.Context, row, account int, amount int64) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	tx, err := b.manager.Begin(ctx)
	if err != nil {
		return err
	}
	err = func() error {
		sql, err := b.database.Begin(ctx, tx.ID())
		if err != nil {
			return err
		}
		tag, err := sql.Exec(ctx, `UPDATE accounts SET balance = balance - $2 WHERE id = $1 AND balance >= $2`, row, amount)
		if err != nil {
			return err
		}
		if tag.RowsAffected() != 1 {
			return errFunds
		}
		return b.keys.Do(ctx, tx.ID(), func(t *kv.Tx) error {
			v, err := t.Get(key(account))
			if err != nil {
				return err
			}
			if decode(v)+amount < 0 {
				return errFunds
			}
			return t.Put(key(account), encode(decode(v)+amount))
		})
	}()
	rows, keys := txn.Participant{Node: 1, Resource: "rows"}, txn.Participant{Node: 1, Resource: "keys"}
	if err != nil {
		return errors.Join(err, tx.Abort(ctx, rows, keys)) // what they have done is taken back
	}
	return tx.Commit(ctx, rows, keys)
}

// work has clients transfer while things break.
func (b *bank) work(ctx context.Context, s settings, out io.Writer, r *record) error {
	var mu sync.Mutex
	left := s.transfers
	take := func() bool {
		mu.Lock()
		defer mu.Unlock()
		left--
		return left >= 0
	}
	progress := make(chan struct{}, 1) // a sixth of all is done: something breaks
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(c), 1))
			for ctx.Err() == nil && take() {
				limit, cancel := context.WithTimeout(ctx, 5*time.Second)
				err := b.transfer(limit, random.IntN(accounts), random.IntN(accounts), random.Int64N(201)-100)
				cancel()
				mu.Lock()
				switch {
				case err == nil:
					r.transfers++
				case errors.Is(err, synod.ErrUnknownOutcome):
					r.unknown++
				default:
					r.aborted++
				}
				if (r.transfers+r.aborted+r.unknown)%max(s.transfers/6, 1) == 0 {
					select {
					case progress <- struct{}{}:
					default:
					}
				}
				mu.Unlock()
				if err != nil { // whatever is the matter takes a moment
					select {
					case <-ctx.Done():
					case <-time.After(100 * time.Millisecond):
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for n := 0; s.faults; n++ {
		select {
		case <-done:
			return ctx.Err()
		case <-progress:
		}
		r.faults++
		if n%2 == 0 && b.server != nil {
			fmt.Fprintln(out, "the server is killed, and started again")
			if err := b.server.restart(); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintln(out, "the manager is closed in the middle of what it does, and started again")
		b.manager.Close() // calls return; what was voted for stays in doubt
		b.mu.Lock()
		b.stopManager()
		err := b.startManager(ctx)
		b.mu.Unlock()
		if err != nil {
			return err
		}
	}
	<-done
	return ctx.Err()
}

// audit waits until nothing is in doubt, and looks at everything.
func (b *bank) audit(ctx context.Context, out io.Writer, r *record) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := pgxpool.New(ctx, b.dsn)
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		prepared, locked := 0, 0
		if err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()`).Scan(&prepared); err != nil {
			return err
		}
		err := b.nodes[1].db.View(ctx, func(tx *kv.Tx) error {
			pairs, err := tx.Scan([]byte("\x00txn/"), []byte("\x00txn0"), 0)
			locked = len(pairs)
			return err
		})
		if err != nil {
			return err
		}
		if prepared == 0 && locked == 0 {
			break
		}
		select { // the manager asks and tells until it is
		case <-ctx.Done():
			return fmt.Errorf("%d transactions are in doubt in the database, %d records in the keys: %w", prepared, locked, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
	var rows int64
	if err := conn.QueryRow(ctx, `SELECT sum(balance)::bigint FROM accounts`).Scan(&rows); err != nil {
		return err
	}
	var keys int64
	if err := b.nodes[2].db.View(ctx, func(tx *kv.Tx) error {
		keys = 0
		for i := range accounts {
			v, err := tx.Get(key(i))
			if err != nil {
				return err
			}
			if decode(v) < 0 {
				r.violations++
			}
			keys += decode(v)
		}
		return nil
	}); err != nil {
		return err
	}
	fmt.Fprintf(out, "in the database %d, in keys %d\n", rows, keys)
	r.total = rows + keys
	if r.total != 2*accounts*initial {
		r.violations++
	}
	status, err := b.manager.Status(ctx)
	if err != nil {
		return err
	}
	for _, d := range status.Damages {
		fmt.Fprintf(out, "damage: %+v\n", d)
		r.violations++
	}
	if r.violations > 0 {
		return errViolated
	}
	return nil
}
