package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/synod-go/synod/txn"
)

// SQLSTATEs.
const (
	undefinedObject = "42704"
	objectInUse     = "55006"
)

// passing reports whether the server may answer otherwise the next time: it did not answer, is just starting or ending, or busy.
func passing(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return true
	}
	return e.Code == objectInUse || strings.HasPrefix(e.Code, "57P") || strings.HasPrefix(e.Code, "08") || strings.HasPrefix(e.Code, "53")
}

func (r *Resource) gid(id txn.ID) string { return r.prefix + id.String() }

// limited bounds a request.
func (r *Resource) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, r.cfg.RequestTimeout)
}

// claim takes a transaction from the application, and has it do what is handed over.
func (r *Resource) claim(ctx context.Context, id txn.ID, work []byte) (*Tx, error) {
	t, err := r.known(id)
	switch {
	case err != nil:
		return nil, err
	case t == nil && work == nil:
		return nil, fmt.Errorf("%w: nothing is known of %v: it never was, or it is over", ErrEnded, id)
	case t == nil && r.cfg.Execute == nil:
		return nil, fmt.Errorf("postgres: transaction %v: work was handed over, and Config.Execute is not set", id)
	case t == nil:
		if t, err = r.Begin(ctx, id); err != nil {
			return nil, err
		}
	}
	if work != nil {
		if r.cfg.Execute == nil {
			err = fmt.Errorf("postgres: transaction %v: work was handed over, and Config.Execute is not set", id)
		} else {
			err = r.cfg.Execute(ctx, t, work)
		}
	}
	if err == nil {
		err = t.claim()
	}
	r.drop(t)
	if err != nil {
		r.end(ctx, t)
		return nil, err
	}
	return t, nil
}

// facts are what the server says of a transaction that is to end.
type facts struct {
	wrote    bool
	readOnly bool // it was begun so, and cannot write
}

// ask sees whether a transaction can be committed.
func (t *Tx) ask(ctx context.Context) (f facts, err error) {
	if t.failed != nil {
		return f, t.failed
	}
	if s := t.conn.Conn().PgConn().TxStatus(); s != 'T' {
		return f, fmt.Errorf("%w: %v: a statement of it failed, or somebody ended it", ErrRolledBack, t.id)
	}
	var same, role bool
	err = t.conn.QueryRow(ctx, `SELECT pg_current_xact_id_if_assigned() IS NOT NULL, current_setting('transaction_read_only') = 'on',
		coalesce(current_setting('synod.transaction', true) = $1, false), current_user::text = $2`, t.id.String(), t.r.owner).Scan(&f.wrote, &f.readOnly, &same, &role)
	switch {
	case err != nil:
		return f, fmt.Errorf("postgres: transaction %v: %w", t.id, err)
	case !same:
		return f, fmt.Errorf("%w: %v: somebody ended it and began another one", ErrRolledBack, t.id)
	case !role:
		return f, fmt.Errorf("postgres: transaction %v: the role was changed, and another one could not end it: RESET ROLE first", t.id)
	}
	return f, nil
}

// mark writes the marker of a transaction, into what the connection has open or by itself, if no later run has taken over.
func (t *Tx) mark(ctx context.Context) error {
	tag, err := t.conn.Exec(ctx, "INSERT INTO "+t.r.tables.marker+" (resource, id, run) SELECT resource, $2, number FROM "+t.r.tables.run+
		" WHERE resource = $1 AND number = $3", t.r.prefix, t.id.String(), t.r.run)
	if err != nil {
		return fmt.Errorf("postgres: transaction %v: its marker can't be written: %w", t.id, err)
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("%w: %v", ErrSuperseded, t.id)
	}
	return nil
}

// prepareTransaction ends the transaction of a session by preparing it. In one that has failed the server does not
// prepare, but rolls back, and reports that as a success of another name.
func prepareTransaction(ctx context.Context, conn *pgx.Conn, gid string) error {
	tag, err := conn.Exec(ctx, "PREPARE TRANSACTION '"+gid+"'", pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return err
	}
	if tag.String() != "PREPARE TRANSACTION" {
		return fmt.Errorf("%w: the server answers %s to PREPARE TRANSACTION", ErrRolledBack, tag)
	}
	return nil
}

// Prepare implements txn.Resource. A transaction that has written nothing is committed, or kept open, and votes ReadOnly.
func (r *Resource) Prepare(ctx context.Context, request txn.PrepareRequest) (txn.Vote, error) {
	limited, cancel := r.limited(ctx)
	defer cancel()
	r.mu.Lock()
	prepared, staying := r.prepared[request.ID], r.open[request.ID]
	r.mu.Unlock()
	if prepared {
		return txn.Yes, nil // it was asked before
	}
	if staying != nil && staying.stays() {
		return txn.ReadOnly, nil
	}
	t, err := r.claim(limited, request.ID, request.Work)
	if err != nil {
		return txn.No, err
	}
	f, err := t.ask(limited)
	if err == nil && !f.wrote {
		return r.readOnly(limited, t, request.MayLeave)
	}
	if err == nil {
		err = t.mark(limited)
	}
	if err != nil {
		r.giveUp(limited, t)
		return txn.No, err
	}
	err = prepareTransaction(limited, t.conn.Conn(), r.gid(t.id))
	if err == nil {
		t.release()
		r.mu.Lock()
		r.prepared[t.id] = true
		r.mu.Unlock()
		return txn.Yes, nil
	}
	// Whether it is prepared the server says, when the session is at its end.
	s, broken := t.session, t.conn.Conn().IsClosed() || t.conn.Conn().PgConn().TxStatus() == 'T'
	t.rollback(limited)
	again, cancel := r.limited(ctx)
	defer cancel()
	if broken {
		r.lose(t.id, s)
	}
	found, asked := r.found(again, t.id)
	switch {
	case asked != nil:
		return txn.No, fmt.Errorf("postgres: transaction %v: %w; whether it is prepared can't be asked: %w", t.id, err, asked)
	case found:
		r.cfg.Logger.Info("a transaction is prepared whose connection was lost", "resource", r.cfg.Resource, "transaction", t.id.String())
		return txn.Yes, nil
	}
	return txn.No, fmt.Errorf("postgres: transaction %v: %w", t.id, err)
}

// giveUp rolls back a transaction of which nothing was prepared. If the connection is lost the server does so when it sees
// that, which may be late if it waits for a lock: Abort, which follows a no, does not wait for that.
func (r *Resource) giveUp(ctx context.Context, t *Tx) {
	if t.conn.Conn().IsClosed() {
		r.lose(t.id, t.session)
	}
	t.rollback(ctx)
}

// stays reports whether a transaction has voted read-only and keeps its locks.
func (t *Tx) stays() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state == txStaying
}

// readOnly ends a transaction that wrote nothing, or keeps it with its locks.
func (r *Resource) readOnly(ctx context.Context, t *Tx, mayLeave bool) (txn.Vote, error) {
	if !mayLeave {
		r.mu.Lock()
		r.open[t.id] = t
		r.mu.Unlock()
		t.mu.Lock()
		t.state = txStaying
		t.mu.Unlock()
		return txn.ReadOnly, nil
	}
	// A serializable one is only known to have read what is so when its commit succeeds.
	tag, err := t.conn.Exec(ctx, "COMMIT", pgx.QueryExecModeSimpleProtocol)
	t.release()
	if err == nil && tag.String() != "COMMIT" {
		err = ErrRolledBack
	}
	if err != nil {
		return txn.No, fmt.Errorf("postgres: transaction %v, which wrote nothing: %w", t.id, err)
	}
	return txn.ReadOnly, nil
}

// lose remembers that a session may still be at work for a transaction.
func (r *Resource) lose(id txn.ID, s session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost[id] = append(r.lost[id], s)
}

// fenceLost ends the sessions that may still be at work for a transaction.
func (r *Resource) fenceLost(ctx context.Context, id txn.ID) error {
	r.mu.Lock()
	sessions := slices.Clone(r.lost[id])
	r.mu.Unlock()
	for _, s := range sessions {
		if err := r.fence(ctx, s); err != nil {
			return err
		}
	}
	r.mu.Lock()
	delete(r.lost, id)
	r.mu.Unlock()
	return nil
}

// query asks for one truth, until there is an answer.
func (r *Resource) query(ctx context.Context, sql string, args ...any) (answer bool, err error) {
	for {
		err := r.control.QueryRow(ctx, sql, args...).Scan(&answer)
		if err == nil || !passing(err) {
			return answer, err
		}
		if waited := r.pause(ctx); waited != nil {
			return false, errors.Join(waited, err)
		}
	}
}

// found asks whether a transaction is prepared, when nobody is at work for it any more.
func (r *Resource) found(ctx context.Context, id txn.ID) (bool, error) {
	if err := r.fenceLost(ctx, id); err != nil {
		return false, err
	}
	found, err := r.query(ctx, "SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE gid = $1)", r.gid(id))
	if found && err == nil {
		r.mu.Lock()
		r.prepared[id] = true
		r.mu.Unlock()
	}
	return found, err
}

// marked asks whether a transaction is committed.
func (r *Resource) marked(ctx context.Context, id txn.ID) (bool, error) {
	return r.query(ctx, "SELECT EXISTS (SELECT FROM "+r.tables.marker+" WHERE resource = $1 AND id = $2)", r.prefix, id.String())
}

// decide commits or rolls back what is prepared. If there is nothing prepared, it returns false: somebody has done so before, maybe
// this process, whose connection was lost. What is visible of a commit is so before its name is gone.
func (r *Resource) decide(ctx context.Context, verb string, id txn.ID) (done bool, err error) {
	for {
		_, err := r.control.Exec(ctx, verb+" '"+r.gid(id)+"'", pgx.QueryExecModeSimpleProtocol)
		var e *pgconn.PgError
		switch {
		case err == nil:
			return true, nil
		case errors.As(err, &e) && e.Code == undefinedObject:
			return false, nil
		case !passing(err):
			return false, fmt.Errorf("postgres: transaction %v: %w", id, err)
		}
		if waited := r.pause(ctx); waited != nil {
			return false, fmt.Errorf("postgres: transaction %v: %w (%w)", id, err, waited)
		}
	}
}

// committed notes that a transaction is over, and since when its marker is of no use.
func (r *Resource) committed(id txn.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.prepared, id)
	r.done = append(r.done, done{id, time.Now()})
}

// Commit implements txn.Resource. If it was committed before, which its marker says, that is no error. A transaction that is
// neither prepared nor committed is ErrNotPrepared, with a txn.HeuristicError.
func (r *Resource) Commit(ctx context.Context, id txn.ID) error {
	limited, cancel := r.limited(ctx)
	defer cancel()
	r.mu.Lock()
	t, known := r.open[id], r.prepared[id]
	delete(r.open, id)
	r.mu.Unlock()
	if t != nil && t.stays() {
		if _, err := t.conn.Exec(limited, "COMMIT", pgx.QueryExecModeSimpleProtocol); err != nil {
			// It wrote nothing, and had its vote.
			r.cfg.Logger.Info("a transaction that wrote nothing did not end in order", "resource", r.cfg.Resource, "transaction", id.String(), "error", err)
		}
		t.release()
		return nil
	}
	if t != nil {
		r.end(limited, t)
	}
	done, err := r.decide(limited, "COMMIT PREPARED", id)
	if err == nil && !done {
		done, err = r.marked(limited, id)
	}
	switch {
	case err != nil:
		return err
	case done:
		r.committed(id)
		return nil
	}
	r.mu.Lock()
	delete(r.prepared, id)
	r.mu.Unlock()
	why := "it never was here, or somebody has rolled it back"
	if known {
		why = "somebody has rolled it back"
	}
	return fmt.Errorf("%w: %v: %s: %w", ErrNotPrepared, id, why, &txn.HeuristicError{Outcome: txn.Aborted})
}

// Abort implements txn.Resource. A transaction that somebody has committed is a txn.HeuristicError.
func (r *Resource) Abort(ctx context.Context, id txn.ID) error {
	limited, cancel := r.limited(ctx)
	defer cancel()
	r.mu.Lock()
	t := r.open[id]
	delete(r.open, id)
	r.mu.Unlock()
	if t != nil {
		r.end(limited, t)
	}
	if err := r.fenceLost(limited, id); err != nil {
		return err
	}
	done, err := r.decide(limited, "ROLLBACK PREPARED", id)
	if err != nil {
		return err
	}
	if !done {
		marked, err := r.marked(limited, id)
		if err != nil {
			return err
		}
		if marked {
			r.committed(id)
			return fmt.Errorf("postgres: transaction %v: %w", id, &txn.HeuristicError{Outcome: txn.Committed})
		}
	}
	r.mu.Lock()
	delete(r.prepared, id)
	r.mu.Unlock()
	return nil
}

// InDoubt implements txn.Resource: what the server has prepared under the resource's name. If another role has, or another
// database, that is ErrForeign: it could not be ended.
func (r *Resource) InDoubt(ctx context.Context) ([]txn.ID, error) {
	rows, err := r.control.Query(ctx, "SELECT gid, owner::text, database::text, owner = current_user AND database = current_database() FROM pg_prepared_xacts WHERE starts_with(gid, $1)", r.prefix)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	defer rows.Close()
	var list []txn.ID
	for rows.Next() {
		var gid, owner, database string
		var ours bool
		if err := rows.Scan(&gid, &owner, &database, &ours); err != nil {
			return nil, fmt.Errorf("postgres: %w", err)
		}
		if !ours {
			return nil, fmt.Errorf("%w: %s is of role %s, in database %s: connect as that, there", ErrForeign, gid, owner, database)
		}
		id, err := txn.ParseID(strings.TrimPrefix(gid, r.prefix))
		if err != nil {
			return nil, fmt.Errorf("postgres: the prepared transaction %s has the resource's name, and is none of it: %w", gid, err)
		}
		list = append(list, id)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	slices.SortFunc(list, txn.ID.Compare)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range list {
		r.prepared[id] = true
	}
	return list, nil
}

// CommitOnePhase implements txn.OnePhaseCommitter.
func (r *Resource) CommitOnePhase(ctx context.Context, id txn.ID, work []byte) (txn.Outcome, error) {
	limited, cancel := r.limited(ctx)
	defer cancel()
	t, err := r.claim(limited, id, work)
	if err != nil {
		return txn.Aborted, err
	}
	f, err := t.ask(limited)
	if err == nil && !f.readOnly {
		err = t.mark(limited)
	}
	if err == nil && !f.readOnly {
		// What is prepared is durable in any case. A commit is, if that is not switched off.
		_, err = t.conn.Exec(limited, "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'")
	}
	if err != nil {
		r.giveUp(limited, t)
		return txn.Aborted, err
	}
	tag, err := t.conn.Exec(limited, "COMMIT", pgx.QueryExecModeSimpleProtocol)
	if err == nil && tag.String() != "COMMIT" {
		err = fmt.Errorf("%w: the server answers %s to COMMIT", ErrRolledBack, tag)
	}
	if err == nil && f.readOnly {
		// It could not write its marker. There is nothing to lose before that is there.
		if err = execute(limited, t.conn.Conn(), "BEGIN READ WRITE; SET LOCAL synchronous_commit = on"); err == nil {
			if err = t.mark(limited); err == nil {
				_, err = t.conn.Exec(limited, "COMMIT", pgx.QueryExecModeSimpleProtocol)
			}
		}
	}
	s, broken := t.session, t.conn.Conn().IsClosed()
	if err == nil {
		t.release()
		r.committed(id)
		return txn.Committed, nil
	}
	t.rollback(limited)
	if broken {
		r.lose(id, s)
	}
	again, cancel := r.limited(ctx)
	defer cancel()
	outcome, asked := r.Outcome(again, id)
	if outcome == txn.Committed {
		return outcome, nil
	}
	return outcome, errors.Join(fmt.Errorf("postgres: transaction %v: %w", id, err), asked)
}

// Outcome implements txn.OnePhaseCommitter: the marker says, when nobody is at work for the transaction any more.
func (r *Resource) Outcome(ctx context.Context, id txn.ID) (txn.Outcome, error) {
	limited, cancel := r.limited(ctx)
	defer cancel()
	r.mu.Lock()
	t := r.open[id]
	delete(r.open, id)
	r.mu.Unlock()
	if t != nil {
		r.end(limited, t)
	}
	found, err := r.found(limited, id)
	switch {
	case err != nil:
		return txn.Unknown, err
	case found:
		return txn.Unknown, fmt.Errorf("postgres: transaction %v is prepared, and in doubt", id)
	}
	marked, err := r.marked(limited, id)
	switch {
	case err != nil:
		return txn.Unknown, err
	case marked:
		r.committed(id)
		return txn.Committed, nil
	}
	return txn.Aborted, nil
}
