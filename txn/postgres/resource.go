package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/txn"
)

// Resource is a PostgreSQL database. All methods may be called concurrently.
type Resource struct {
	cfg     Config
	prefix  string // of the names of prepared transactions
	run     int32
	owner   string // the role
	begin   string // how a transaction begins
	tables  struct{ marker, run, number string }
	work    *pgxpool.Pool // a connection for each transaction that is open
	control *pgxpool.Pool
	stop    context.CancelFunc
	stopped sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	open      map[txn.ID]*Tx
	prepared  map[txn.ID]bool // as far as this run knows
	inherited map[txn.ID]bool // that earlier runs have prepared
	lost      map[txn.ID][]session
	done      []done // committed in this run, oldest first
}

var _ txn.OnePhaseCommitter = (*Resource)(nil)

// session is a session of the server, told from a later one of the same process number.
type session struct {
	pid   int32
	start time.Time
}

const sessionKey = "synod session"

// done is a transaction whose marker is to be removed.
type done struct {
	id txn.ID
	at time.Time
}

// Open connects to the database, makes its tables there if they are missing, and takes the resource over from earlier runs: their
// sessions are ended, so that nothing of theirs is prepared any more that this run has not seen. ctx bounds all this. What
// is prepared stays so; the manager ends it.
//
// A *synod.ConfigError says what is wrong with cfg, a *ServerError what with the server; ErrForeign, that there are prepared
// transactions which this role cannot end.
func Open(ctx context.Context, cfg Config) (*Resource, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	r := &Resource{cfg: cfg, prefix: cfg.prefix(), open: make(map[txn.ID]*Tx), prepared: make(map[txn.ID]bool), inherited: make(map[txn.ID]bool),
		lost: make(map[txn.ID][]session)}
	for _, t := range []struct {
		name string
		at   *string
	}{{"marker", &r.tables.marker}, {"run", &r.tables.run}, {"run_number", &r.tables.number}} {
		*t.at = pgx.Identifier{cfg.Schema, t.name}.Sanitize()
	}
	r.begin = "BEGIN"
	if o := cfg.TxOptions; o.IsoLevel != "" {
		r.begin += " ISOLATION LEVEL " + string(o.IsoLevel)
	}
	for _, mode := range []string{string(cfg.TxOptions.AccessMode), string(cfg.TxOptions.DeferrableMode)} {
		if mode != "" {
			r.begin += " " + mode
		}
	}
	if err := r.connect(ctx); err != nil {
		r.shut()
		return nil, err
	}
	run, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.stopped.Go(func() { r.collect(run) })
	return r, nil
}

func (r *Resource) connect(ctx context.Context) (err error) {
	control := r.cfg.Pool.Copy()
	control.MaxConns, control.MinConns, control.MinIdleConns = r.cfg.ControlConns, 0, 0
	if r.control, err = pgxpool.NewWithConfig(ctx, control); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	if err := r.checkServer(ctx); err != nil {
		return err
	}
	if err := r.makeTables(ctx); err != nil {
		return fmt.Errorf("postgres: the tables in schema %s can't be made: %w", r.cfg.Schema, err)
	}
	if err := r.takeOver(ctx); err != nil {
		return err
	}
	work := r.cfg.Pool.Copy()
	theirs := work.AfterConnect
	work.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if theirs != nil {
			if err := theirs(ctx, conn); err != nil {
				return err
			}
		}
		return r.register(ctx, conn)
	}
	if r.work, err = pgxpool.NewWithConfig(ctx, work); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	ids, err := r.InDoubt(ctx)
	for _, id := range ids {
		r.inherited[id] = true
	}
	return err
}

func (r *Resource) checkServer(ctx context.Context) error {
	var version, prepared int
	var fsync string
	var standby bool
	err := r.control.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('max_prepared_transactions')::int,
		current_setting('fsync'), pg_is_in_recovery(), current_user::text`).Scan(&version, &prepared, &fsync, &standby, &r.owner)
	switch {
	case err != nil:
		return fmt.Errorf("postgres: %w", err)
	case version < 130000:
		return &ServerError{"server_version_num", fmt.Sprint(version), "at least PostgreSQL 13 is needed"}
	case prepared == 0:
		return &ServerError{"max_prepared_transactions", "0", "it prepares no transactions: set it in postgresql.conf to at least max_connections, " +
			"and restart the server"}
	case standby:
		return &ServerError{"pg_is_in_recovery()", "true", "it is a standby, and takes no transactions: connect to the primary, with target_session_attrs=read-write"}
	case fsync == "off" && !r.cfg.Unsynced:
		return &ServerError{"fsync", "off", "what it has prepared may be lost: set it on; or, in a test, set Config.Unsynced"}
	}
	return nil
}

func (r *Resource) makeTables(ctx context.Context) error {
	var there bool
	err := r.control.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL AND to_regclass($2) IS NOT NULL AND to_regclass($3) IS NOT NULL",
		r.tables.marker, r.tables.run, r.tables.number).Scan(&there)
	if err != nil || there {
		return err
	}
	return pgx.BeginFunc(ctx, r.control, func(tx pgx.Tx) error {
		for _, sql := range []string{
			fmt.Sprintf("SELECT pg_advisory_xact_lock(%d, 0)", lockClass), // nobody else makes them
			"CREATE SCHEMA IF NOT EXISTS " + pgx.Identifier{r.cfg.Schema}.Sanitize(),
			"CREATE SEQUENCE IF NOT EXISTS " + r.tables.number + " AS integer CYCLE",
			"CREATE TABLE IF NOT EXISTS " + r.tables.run + ` (resource text PRIMARY KEY, number integer NOT NULL, unfenced integer[] NOT NULL DEFAULT '{}')`,
			"CREATE TABLE IF NOT EXISTS " + r.tables.marker + ` (resource text, id text, run integer NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(),
				PRIMARY KEY (resource, id))`,
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
}

// takeOver begins a run. From the first statement on no earlier one prepares anything but what is just being prepared; and
// when their sessions have ended, there is nothing of that kind any more.
func (r *Resource) takeOver(ctx context.Context) error {
	var earlier []int32
	err := r.control.QueryRow(ctx, `INSERT INTO `+r.tables.run+` AS r (resource, number) VALUES ($1, nextval('`+strings.ReplaceAll(r.tables.number, "'", "''")+`'))
		ON CONFLICT (resource) DO UPDATE SET unfenced = r.unfenced || r.number, number = excluded.number RETURNING number, unfenced`, r.prefix).Scan(&r.run, &earlier)
	if err != nil {
		return fmt.Errorf("postgres: the resource can't be taken over: %w", err)
	}
	for _, run := range earlier {
		err := r.gone(ctx, `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::bigint::oid AND objid = $2::bigint::oid AND objsubid = 2
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, int64(lockClass), int64(run))
		if err != nil {
			return fmt.Errorf("postgres: the sessions of an earlier run don't end: %w", err)
		}
	}
	if _, err = r.control.Exec(ctx, "UPDATE "+r.tables.run+" SET unfenced = '{}' WHERE resource = $1 AND number = $2", r.prefix, r.run); err != nil {
		return fmt.Errorf("postgres: the resource can't be taken over: %w", err)
	}
	return nil
}

// gone repeats a query that ends sessions until it finds none.
func (r *Resource) gone(ctx context.Context, sql string, args ...any) error {
	for {
		tag, err := r.control.Exec(ctx, sql, args...)
		if err == nil && tag.RowsAffected() == 0 {
			return nil
		}
		if err != nil && !passing(err) {
			return err
		}
		if waited := r.pause(ctx); waited != nil {
			return errors.Join(waited, err)
		}
	}
}

// fence ends a session that may still be at work, and returns when it is gone: what it did is done then, and nothing follows.
func (r *Resource) fence(ctx context.Context, s session) error {
	if err := r.gone(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2", s.pid, s.start); err != nil {
		return fmt.Errorf("postgres: session %d, whose connection was lost, does not end: %w", s.pid, err)
	}
	return nil
}

func (r *Resource) pause(ctx context.Context) error {
	timer := time.NewTimer(r.cfg.RetryInterval)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// register makes a session one of this run: a lock that it holds until its end says so.
func (r *Resource) register(ctx context.Context, conn *pgx.Conn) error {
	var s session
	err := conn.QueryRow(ctx, "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid() AND pg_try_advisory_lock_shared($1, $2)",
		int32(lockClass), r.run).Scan(&s.pid, &s.start)
	if err != nil {
		return fmt.Errorf("postgres: the session can't be registered: %w", err)
	}
	conn.PgConn().CustomData()[sessionKey] = s
	return nil
}

// known returns the transaction, if it is open.
func (r *Resource) known(id txn.ID) (*Tx, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return nil, fmt.Errorf("postgres: resource %q: %w", r.cfg.Resource, synod.ErrClosed)
	case r.prepared[id]:
		return nil, fmt.Errorf("%w: %v is prepared", ErrEnded, id)
	}
	return r.open[id], nil
}

// drop forgets a transaction that is open.
func (r *Resource) drop(t *Tx) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[t.id] == t {
		delete(r.open, t.id)
	}
}

// end rolls back a transaction that is open, whatever the application does with it just now.
func (r *Resource) end(ctx context.Context, t *Tx) {
	t.mu.Lock()
	switch {
	case t.state == txOpen && t.busy:
		// Whoever uses it is told by a connection that breaks. That the statement ends in the server, too, the session is ended there.
		t.kill = true
		_ = t.conn.Conn().PgConn().Conn().Close()
		t.timer.Stop()
		t.mu.Unlock()
		limited, cancel := context.WithTimeout(ctx, r.cfg.RequestTimeout)
		defer cancel()
		if err := r.fence(limited, t.session); err != nil {
			r.cfg.Logger.Warn("a session was not ended; the server does it when it sees that the connection is closed", "resource", r.cfg.Resource,
				"transaction", t.id.String(), "error", err)
		}
		return
	case t.state == txOpen || t.state == txStaying:
		t.state = txClaimed
		t.mu.Unlock()
		limited, cancel := context.WithTimeout(ctx, r.cfg.RequestTimeout)
		defer cancel()
		t.rollback(limited)
		return
	}
	t.mu.Unlock()
}

// collect removes markers that nobody asks for any more.
func (r *Resource) collect(ctx context.Context) {
	ticker := time.NewTicker(max(min(r.cfg.KeepMarkers/4, time.Minute), 100*time.Millisecond))
	defer ticker.Stop()
	var earlier time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := r.collectOwn(ctx)
		if err == nil && time.Since(earlier) > time.Hour {
			earlier = time.Now()
			err = r.collectEarlier(ctx)
		}
		if err != nil && ctx.Err() == nil {
			r.cfg.Logger.Warn("markers were not removed, and will be", "resource", r.cfg.Resource, "error", err)
		}
	}
}

func (r *Resource) collectOwn(ctx context.Context) error {
	const batch = 1000
	for {
		r.mu.Lock()
		var ids []string
		for _, d := range r.done[:min(len(r.done), batch)] {
			if time.Since(d.at) < r.cfg.KeepMarkers {
				break
			}
			ids = append(ids, d.id.String())
		}
		r.mu.Unlock()
		if len(ids) == 0 {
			return nil
		}
		if _, err := r.control.Exec(ctx, "DELETE FROM "+r.tables.marker+" WHERE resource = $1 AND id = ANY($2)", r.prefix, ids); err != nil {
			return err
		}
		r.mu.Lock()
		r.done = slices.Delete(r.done, 0, len(ids))
		r.mu.Unlock()
	}
}

// collectEarlier leaves those alone that were in doubt when this run began: since when they are committed this run knows.
func (r *Resource) collectEarlier(ctx context.Context) error {
	r.mu.Lock()
	var doubt []string
	for id := range r.inherited {
		doubt = append(doubt, id.String())
	}
	r.mu.Unlock()
	_, err := r.control.Exec(ctx, "DELETE FROM "+r.tables.marker+" WHERE resource = $1 AND run <> $2 AND at < now() - make_interval(secs => $3) AND id <> ALL($4)",
		r.prefix, r.run, r.cfg.KeepEarlierMarkers.Seconds(), append([]string{}, doubt...))
	return err
}

// Close ends the resource. What is open is rolled back; what is prepared stays so. Calls after the first return nil.
func (r *Resource) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	open := slices.Collect(maps.Values(r.open))
	clear(r.open)
	r.mu.Unlock()
	for _, t := range open {
		r.end(context.Background(), t)
	}
	r.stop()
	r.stopped.Wait()
	r.shut()
	return nil
}

// shut closes the connections. Those that somebody uses and does not give back are not waited for.
func (r *Resource) shut() {
	over := make(chan struct{})
	go func() {
		defer close(over)
		if r.work != nil {
			r.work.Close()
		}
		if r.control != nil {
			r.control.Close()
		}
	}()
	timer := time.NewTimer(r.cfg.RequestTimeout)
	defer timer.Stop()
	select {
	case <-over:
	case <-timer.C:
		r.cfg.Logger.Warn("connections are still in use, and close when they are given back", "resource", r.cfg.Resource)
	}
}
