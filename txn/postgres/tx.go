package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/synod-go/synod/txn"
)

// txState is how far a transaction is, for its session:
//
//	open ──▶ claimed ──▶ ended
//	  │         └──▶ staying ──▲
//	  └────────────────────────┘
type txState uint8

const (
	txOpen    txState = iota
	txClaimed         // somebody prepares it, commits it in one phase, or rolls it back
	txStaying         // it has voted read-only, and keeps its locks
	txEnded
)

// Tx is what a transaction does in the database, until it is prepared or aborted. It is one session, and has the limits
// of one: one statement at a time, and rows and batches must be closed before the next. Savepoints are statements. A
// statement that failed has failed the transaction, unless there is a savepoint to go back to: it is voted No.
//
// Statements that end a transaction, or begin one, are not for the application: they make the vote a No. LISTEN, NOTIFY, temporary
// tables and cursors WITH HOLD cannot be prepared, says the server, which is a No too.
type Tx struct {
	r       *Resource
	id      txn.ID
	conn    *pgxpool.Conn
	session session
	timer   *time.Timer

	mu     sync.Mutex
	state  txState
	busy   bool  // the application's statement, rows or batch
	kill   bool  // whoever is busy ends it
	failed error // the first thing that makes it a no
}

// ID returns the transaction's ID.
func (t *Tx) ID() txn.ID { return t.id }

// enter begins a statement of the application.
func (t *Tx) enter() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.state != txOpen || t.kill:
		return fmt.Errorf("%w: %v", ErrEnded, t.id)
	case t.busy:
		return fmt.Errorf("%w: %v", ErrBusy, t.id)
	}
	t.busy = true
	return nil
}

// leave ends it, and the transaction if that was wanted meanwhile.
func (t *Tx) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy = false
	if t.kill && t.state != txEnded {
		t.state = txEnded
		t.conn.Release() // closed by then
	}
}

// see notes statements that leave more than the transaction takes back.
func (t *Tx) see(tag pgconn.CommandTag) {
	switch word, _, _ := strings.Cut(tag.String(), " "); word {
	case "LISTEN", "UNLISTEN", "NOTIFY":
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.failed == nil {
			t.failed = fmt.Errorf("postgres: transaction %v: %s cannot be prepared", t.id, word)
		}
	}
}

// claim takes the transaction from the application.
func (t *Tx) claim() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.state != txOpen || t.kill:
		return fmt.Errorf("%w: %v", ErrEnded, t.id)
	case t.busy:
		return fmt.Errorf("%w: %v: close the rows and batches before it is committed", ErrBusy, t.id)
	}
	t.state = txClaimed
	t.timer.Stop()
	return nil
}

// release gives the session back, or closes it if it is in no state to be used again. Whoever has claimed t calls it.
func (t *Tx) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != txEnded {
		t.state = txEnded
		t.timer.Stop()
		t.conn.Release() // which closes it unless it is idle
	}
}

// rollback ends a transaction that was claimed. If the server does not hear of it, it hears that the session has ended.
func (t *Tx) rollback(ctx context.Context) {
	if !t.conn.Conn().IsClosed() {
		_, _ = t.conn.Exec(ctx, "ROLLBACK", pgx.QueryExecModeSimpleProtocol)
	}
	t.release()
}

// Exec has the server execute a statement.
func (t *Tx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if err := t.enter(); err != nil {
		return pgconn.CommandTag{}, err
	}
	defer t.leave()
	tag, err := t.conn.Exec(ctx, sql, args...)
	t.see(tag)
	return tag, err
}

// Query has the server execute a query. The rows must be closed, or read to the end.
func (t *Tx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := t.enter(); err != nil {
		return nil, err
	}
	inner, err := t.conn.Conn().Query(ctx, sql, args...)
	if err != nil {
		t.leave()
		return inner, err
	}
	return &rows{Rows: inner, t: t}, nil
}

// rows are those of a Tx, which is in use until they are closed.
type rows struct {
	pgx.Rows
	t    *Tx
	once sync.Once
}

func (r *rows) Close() {
	r.Rows.Close()
	r.once.Do(r.t.leave)
}

func (r *rows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

// QueryRow has the server execute a query of one row. Errors, pgx.ErrNoRows among them, are those of Scan, which must be called.
func (t *Tx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	inner, err := t.Query(ctx, sql, args...)
	return row{inner, err}
}

type row struct {
	rows pgx.Rows
	err  error
}

func (r row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

// SendBatch has the server execute several statements in one round trip. The results must be closed.
func (t *Tx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if err := t.enter(); err != nil {
		return refused{err}
	}
	return &results{BatchResults: t.conn.Conn().SendBatch(ctx, b), t: t}
}

type results struct {
	pgx.BatchResults
	t    *Tx
	once sync.Once
}

func (r *results) Close() error {
	err := r.BatchResults.Close()
	r.once.Do(r.t.leave)
	return err
}

// refused are the results of a batch that was not sent.
type refused struct{ err error }

func (r refused) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, r.err }
func (r refused) Query() (pgx.Rows, error)         { return nil, r.err }
func (r refused) QueryRow() pgx.Row                { return row{nil, r.err} }
func (r refused) Close() error                     { return r.err }
func (r refused) Tx() pgx.Tx                       { return nil }

// CopyFrom has the server take in many rows, and returns how many.
func (t *Tx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (int64, error) {
	if err := t.enter(); err != nil {
		return 0, err
	}
	defer t.leave()
	return t.conn.Conn().CopyFrom(ctx, table, columns, source)
}

// Begin begins a transaction in the database, under an ID that the manager's Begin gave. It waits for a connection until ctx ends. Of one that
// is open it returns the same again; one that is prepared is ErrEnded.
func (r *Resource) Begin(ctx context.Context, id txn.ID) (*Tx, error) {
	if t, err := r.known(id); t != nil || err != nil {
		return t, err
	}
	conn, err := r.work.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("postgres: transaction %v: %w", id, err)
	}
	s, _ := conn.Conn().PgConn().CustomData()[sessionKey].(session)
	t := &Tx{r: r, id: id, conn: conn, session: s}
	// By the setting it is seen later that it is still the same transaction.
	if err := execute(ctx, conn.Conn(), r.begin+fmt.Sprintf("; SET LOCAL synod.transaction = '%v'", id)); err != nil {
		conn.Release()
		return nil, fmt.Errorf("postgres: transaction %v: %w", id, err)
	}
	t.timer = time.AfterFunc(r.cfg.OpenTimeout, func() {
		r.cfg.Logger.Warn("a transaction was open for too long, and is rolled back", "resource", r.cfg.Resource, "transaction", id.String())
		r.drop(t)
		r.end(context.Background(), t)
	})
	r.mu.Lock()
	other, closed := r.open[id], r.closed
	if other == nil && !closed {
		r.open[id] = t
	}
	r.mu.Unlock()
	if other != nil || closed {
		t.timer.Stop()
		t.rollback(ctx)
		return r.known(id)
	}
	return t, nil
}

// execute executes statements that take no arguments, in one round trip.
func execute(ctx context.Context, conn *pgx.Conn, sql string) error {
	return conn.PgConn().Exec(ctx, sql).Close()
}
