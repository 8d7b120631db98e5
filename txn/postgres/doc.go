// Package postgres is a resource of package txn: a PostgreSQL database. What a transaction does there is committed together
// with what its other participants do, or not at all, whatever crashes: this process, the server, or the connection between
// them. It is a module of its own, so that only who uses it compiles a driver.
//
// # Usage
//
// The server must prepare transactions: max_prepared_transactions in its postgresql.conf is at least as large as the number that
// may be in doubt at a time, and 0 by default.
//
//	pool, err := pgxpool.ParseConfig("postgres://…")
//	orders, err := postgres.Open(ctx, postgres.Config{Cluster: "shop", Node: 1, Resource: "orders", Pool: pool})
//	manager, err := txn.Start(ctx, txn.Config{Cluster: "shop", Node: 1, …, Resources: map[string]txn.Resource{"orders": orders}})
//
//	tx, err := manager.Begin(ctx)
//	sql, err := orders.Begin(ctx, tx.ID())
//	_, err = sql.Exec(ctx, "UPDATE …")
//	err = tx.Commit(ctx, txn.Participant{Node: 1, Resource: "orders"}, …)
//
// What a database on another node is to do goes with the request, txn.Participant.Work, and Config.Execute does it there.
//
// # How
//
// Prepare writes a marker, a row in a table of the resource's own, into the transaction itself, and ends it by PREPARE TRANSACTION, under a
// name made of the cluster, the node, the resource and the transaction's ID. Commit is COMMIT PREPARED; if the server says
// that there is no such transaction, the marker tells whether it was committed before, or never prepared. Abort is ROLLBACK
// PREPARED. InDoubt is what the server has under the resource's name. A transaction that has written nothing votes
// ReadOnly, and costs the server no write.
//
// # Guarantees
//
// The answer of the server is what counts, by its name: in a transaction that has failed, PREPARE TRANSACTION rolls back and
// reports success, as ROLLBACK. That is a No.
//
// If the connection is lost in the middle, the outcome is asked for, not guessed; and it is asked when the session that was at work is gone, so
// that nothing happens afterwards. For the same reason Open ends the sessions of earlier runs, and lets no earlier run
// prepare anything more, before it says what is in doubt: a process that was killed, or stopped, leaves no transaction
// prepared that nobody knows of.
//
// If somebody decides in the server by hand, that is a txn.HeuristicError where it is not what was decided. What another role
// has prepared under the resource's name, or in another database, is ErrForeign, and not taken for what is not there.
//
// In one phase the marker is committed with the transaction, so that Outcome can tell. A server that would lose what it
// promised, with fsync off, is refused; synchronous_commit off is made on for such a commit, and does not matter for the others.
//
// # Isolation
//
// It is PostgreSQL's, as Config.TxOptions has it, for what is in this database. Locks are held while a transaction is in doubt, over
// restarts of the server, too; and so is what VACUUM could remove otherwise. Transactions in doubt for long must be
// seen to: txn.Manager.Status has them.
//
// Two transactions that wait for each other through another resource are no deadlock that PostgreSQL sees: set
// lock_timeout, or rely on Config.RequestTimeout and Config.OpenTimeout.
//
// # Markers
//
// A marker is removed Config.KeepMarkers after the commit, by the process that committed, so that their number is that of the
// transactions of this time. Those that an earlier run had left are kept for Config.KeepEarlierMarkers. A Commit that is asked
// again after that is ErrNotPrepared, and recorded as damage: the manager asks again only until it has written down that it is
// over, a matter of milliseconds, unless its node crashes just then and its coordinator is away for long.
//
// # Limits
//
// What PostgreSQL cannot prepare is voted No: transactions that used temporary tables, LISTEN, UNLISTEN or NOTIFY, cursors WITH
// HOLD, or a lock of the session and the transaction on the same object. A pg_notify in a transaction that wrote nothing is
// sent with the vote.
//
// The role must be the same as when something was prepared, and own the tables in Config.Schema, or be able to make them.
// The session belongs to the resource: the application does not end its transactions, nor give its locks free, as DISCARD ALL and
// pg_advisory_unlock_all do. Poolers that give each transaction another session are not possible.
//
// A standby that is promoted must have all that the primary had acknowledged: synchronous replication, or what was prepared is lost.
// A server that is restored from an older copy has forgotten what it promised: the manager records damage.
//
// The server can't be simulated: it is tested as a process, which is killed, and whose machine is not.
package postgres
