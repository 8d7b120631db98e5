package postgres

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/txn"
)

func poolOf(t testing.TB, s *server) *pgxpool.Pool {
	pool, err := pgxpool.New(context.Background(), s.url())
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func testID(counter uint64) txn.ID { return txn.ID{Node: 7, Incarnation: 0xfeed, Counter: counter} }

func insert(t testing.TB, r *Resource, counter uint64, n int) *Tx {
	t.Helper()
	tx, err := r.Begin(t.Context(), testID(counter))
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "INSERT INTO things VALUES ($1)", n)
	require.NoError(t, err)
	return tx
}

func prepare(t testing.TB, r *Resource, counter uint64) (txn.Vote, error) {
	return r.Prepare(t.Context(), txn.PrepareRequest{ID: testID(counter), MayLeave: true})
}

func prepared(t testing.TB, r *Resource, counter uint64, n int) {
	t.Helper()
	insert(t, r, counter, n)
	vote, err := prepare(t, r, counter)
	require.NoError(t, err)
	require.Equal(t, txn.Yes, vote)
}

func inDoubt(t testing.TB, r *Resource, want ...txn.ID) {
	t.Helper()
	list, err := r.InDoubt(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, want, list)
}

func heuristic(t testing.TB, err error, want txn.Outcome) {
	t.Helper()
	var h *txn.HeuristicError
	require.ErrorAs(t, err, &h)
	require.Equal(t, want, h.Outcome)
}

// In a transaction that has failed PREPARE TRANSACTION prepares nothing, rolls back, and reports no error.
func TestAFailedTransactionIsVotedNo(t *testing.T) {
	s, cfg := fresh(t)
	r := openTest(t, cfg)
	tx := insert(t, r, 1, 1)
	_, err := tx.Exec(t.Context(), "SELECT 1/0")
	require.Error(t, err)
	vote, err := prepare(t, r, 1)
	require.ErrorIs(t, err, ErrRolledBack)
	require.Equal(t, txn.No, vote)

	// The server's own answer, seen by the name of its success.
	conn, err := poolOf(t, s).Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), "BEGIN")
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "SELECT 1/0")
	require.Error(t, err)
	tag, err := conn.Exec(t.Context(), "PREPARE TRANSACTION 'trap'", pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err, "which is the trap")
	require.Equal(t, "ROLLBACK", tag.String())
	require.ErrorIs(t, prepareTransaction(t.Context(), conn.Conn(), "trap"), ErrRolledBack, "nor is there a transaction now")
	require.Zero(t, s.number(t, "SELECT count(*) FROM pg_prepared_xacts"))

	// A savepoint saves it.
	tx = insert(t, r, 2, 2)
	_, err = tx.Exec(t.Context(), "SAVEPOINT s")
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT 1/0")
	require.Error(t, err)
	_, err = tx.Exec(t.Context(), "ROLLBACK TO SAVEPOINT s")
	require.NoError(t, err)
	vote, err = prepare(t, r, 2)
	require.NoError(t, err)
	require.Equal(t, txn.Yes, vote)
	require.NoError(t, r.Commit(t.Context(), testID(2)))
	require.Equal(t, 2, s.number(t, "SELECT sum(n) FROM things"))
}

// What the server only finds when it is to prepare is a No as well.
func TestWhatCannotBePreparedIsVotedNo(t *testing.T) {
	s, cfg := fresh(t)
	s.exec(t, `DROP TABLE IF EXISTS child, parent; CREATE TABLE parent (id int PRIMARY KEY); DROP ROLE IF EXISTS somebody; CREATE ROLE somebody;
		CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON ALL TABLES IN SCHEMA public TO somebody`)
	r := openTest(t, cfg)
	for i, c := range []struct{ sql, want string }{
		{"INSERT INTO child VALUES (7)", "foreign key"},
		{"CREATE TEMPORARY TABLE mine (n int)", "temporary"},
		{"NOTIFY somebody", "NOTIFY cannot be prepared"},
		{"SELECT pg_notify('somebody', '')", "NOTIFY"},
		{"COMMIT", "rolled back"},
		{"SET LOCAL ROLE somebody", "RESET ROLE"},
	} {
		counter := uint64(i + 1)
		tx := insert(t, r, counter, 1)
		_, err := tx.Exec(t.Context(), c.sql)
		require.NoError(t, err)
		if c.sql == "COMMIT" {
			_, err := tx.Exec(t.Context(), "BEGIN; INSERT INTO things VALUES (5)", pgx.QueryExecModeSimpleProtocol)
			require.NoError(t, err)
		}
		vote, err := prepare(t, r, counter)
		require.ErrorContains(t, err, c.want, c.sql)
		require.Equal(t, txn.No, vote)
		inDoubt(t, r)
		require.NoError(t, r.Abort(t.Context(), testID(counter)))
		vote, err = prepare(t, r, counter)
		require.ErrorIs(t, err, ErrEnded)
		require.Equal(t, txn.No, vote)
	}
	require.Equal(t, 1, s.number(t, "SELECT count(*) FROM things"), "what somebody has committed by a statement of their own")
}

// A server that does not prepare, or loses what it has prepared, is refused before anything is promised.
func TestServersThatAreRefused(t *testing.T) {
	s, cfg := fresh(t)
	defer func() {
		s.kill(syscall.SIGINT)
		s.start(t)
	}()
	for setting, value := range map[string]string{"max_prepared_transactions": "0", "fsync": "off"} {
		s.kill(syscall.SIGINT)
		s.start(t, "max_prepared_transactions=64", setting+"="+value)
		_, err := Open(t.Context(), cfg)
		require.ErrorIs(t, err, ErrServer)
		var server *ServerError
		require.ErrorAs(t, err, &server)
		require.Equal(t, setting, server.Setting)
		require.Equal(t, value, server.Value)
		require.Contains(t, err.Error(), "set")
	}
	cfg.Unsynced = true // fsync is not what is refused now
	s.kill(syscall.SIGINT)
	s.start(t, "fsync=off", "max_prepared_transactions=64")
	r, err := Open(t.Context(), cfg)
	require.NoError(t, err)
	require.NoError(t, r.Close())
}

func TestOpenRefuses(t *testing.T) {
	pool, err := pgxpool.ParseConfig("host=/nowhere")
	require.NoError(t, err)
	good := Config{Cluster: "test", Node: 1, Resource: "r", Pool: pool}
	for field, spoil := range map[string]func(*Config){
		"Cluster":            func(c *Config) { c.Cluster = "" },
		"Node":               func(c *Config) { c.Node = 0 },
		"Resource":           func(c *Config) { c.Resource = "" },
		"Pool":               func(c *Config) { c.Pool = nil },
		"Schema":             func(c *Config) { c.Schema = strings.Repeat("s", 64) },
		"TxOptions":          func(c *Config) { c.TxOptions.IsoLevel = "; DROP TABLE things" },
		"ControlConns":       func(c *Config) { c.ControlConns = -1 },
		"OpenTimeout":        func(c *Config) { c.OpenTimeout = 1 },
		"RequestTimeout":     func(c *Config) { c.RequestTimeout = 1 },
		"RetryInterval":      func(c *Config) { c.RetryInterval = -1 },
		"KeepMarkers":        func(c *Config) { c.KeepMarkers = 1 },
		"KeepEarlierMarkers": func(c *Config) { c.KeepEarlierMarkers = 1 },
	} {
		cfg := good
		spoil(&cfg)
		_, err := Open(t.Context(), cfg)
		var bad *synod.ConfigError
		require.ErrorAs(t, err, &bad, field)
		require.Equal(t, field, bad.Field)
	}
}

// Names of prepared transactions have 199 bytes. Whether all of them fit is known before the first.
func TestNames(t *testing.T) {
	_, cfg := fresh(t)
	longest := txn.ID{Node: 1<<64 - 1, Incarnation: 1<<64 - 1, Counter: 1<<64 - 1}
	require.Len(t, longest.String(), maxID)
	cfg.Resource = ""
	for len(cfg.prefix())+maxID < maxGID {
		cfg.Resource += "r"
	}
	r := openTest(t, cfg)
	tx, err := r.Begin(t.Context(), longest)
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "INSERT INTO things VALUES (1)")
	require.NoError(t, err)
	vote, err := r.Prepare(t.Context(), txn.PrepareRequest{ID: longest})
	require.NoError(t, err)
	require.Equal(t, txn.Yes, vote)
	inDoubt(t, r, longest)
	require.NoError(t, r.Commit(t.Context(), longest))

	cfg.Resource += "r"
	_, err = Open(t.Context(), cfg)
	var bad *synod.ConfigError
	require.ErrorAs(t, err, &bad)
	require.Equal(t, "Resource", bad.Field)

	// No character has a meaning, and no two resources have the same names.
	prefixes := map[string]bool{}
	for _, c := range [][2]string{{"a", "b/c"}, {"a/b", "c"}, {"a", "b"}, {"'; DROP TABLE things; --", "\x00\\%_"}, {"a", "b%2Fc"}, {"A", "b"}} {
		cfg.Cluster, cfg.Resource = c[0], c[1]
		require.False(t, prefixes[cfg.prefix()])
		prefixes[cfg.prefix()] = true
		r := openTest(t, cfg)
		prepared(t, r, 1, 1)
		inDoubt(t, r, testID(1))
		require.NoError(t, r.Abort(t.Context(), testID(1)))
	}
}

// The server is killed. What was prepared is there when it is back, and what was not is not.
func TestTheServerIsKilled(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"immediate shutdown": syscall.SIGQUIT, "kill -9": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			s, cfg := fresh(t)
			cfg.RequestTimeout = time.Minute
			r := openTest(t, cfg)
			prepared(t, r, 1, 1)
			prepared(t, r, 2, 2)
			prepared(t, r, 3, 4)
			require.NoError(t, r.Commit(t.Context(), testID(1)))
			insert(t, r, 4, 8)
			s.kill(sig)
			result := make(chan error, 1)
			go func() { result <- r.Commit(t.Context(), testID(2)) }() // it waits until the server is back
			s.start(t)
			require.NoError(t, <-result)
			inDoubt(t, r, testID(3))
			vote, err := prepare(t, r, 4)
			require.Error(t, err)
			require.Equal(t, txn.No, vote)
			require.NoError(t, r.Abort(t.Context(), testID(4)))
			require.NoError(t, r.Commit(t.Context(), testID(1)))
			require.NoError(t, r.Close())
			r = openTest(t, cfg)
			inDoubt(t, r, testID(3))
			require.NoError(t, r.Abort(t.Context(), testID(3)))
			require.Equal(t, 3, s.number(t, "SELECT sum(n) FROM things"))
		})
	}
}

// The connection is lost as PREPARE TRANSACTION is sent, or as its answer comes: the server is asked what became of it.
func TestTheConnectionIsLostInPrepare(t *testing.T) {
	s, cfg := fresh(t)
	c := new(cutter)
	cfg.Pool.ConnConfig.DialFunc = c.dial
	r := openTest(t, cfg)
	for i := range uint64(10) {
		insert(t, r, i, 1)
		before := i%2 == 0
		c.arm("PREPARE TRANSACTION", before, 1)
		vote, err := prepare(t, r, i)
		require.Equal(t, 1, c.made)
		if before {
			require.Error(t, err)
			require.Equal(t, txn.No, vote)
			inDoubt(t, r)
		} else if vote == txn.Yes {
			require.NoError(t, err)
			inDoubt(t, r, testID(i))
		} else {
			inDoubt(t, r) // its session was ended before it came to that
		}
		require.NoError(t, r.Abort(t.Context(), testID(i)))
	}
	require.Zero(t, s.number(t, "SELECT count(*) FROM things"))

	// Even if the server is slow, what it is at is at its end before that is taken for a no.
	s.exec(t, `CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON things DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()`)
	insert(t, r, 100, 1)
	c.arm("PREPARE TRANSACTION", false, 1)
	vote, err := prepare(t, r, 100)
	require.Error(t, err, "its session was ended")
	require.Equal(t, txn.No, vote)
	time.Sleep(500 * time.Millisecond) // long after it would have been prepared
	inDoubt(t, r)
}

// The connection is lost as COMMIT PREPARED is sent, or as its answer comes, once or more often: it is committed once.
func TestTheConnectionIsLostInCommit(t *testing.T) {
	s, cfg := fresh(t)
	c := new(cutter)
	cfg.Pool.ConnConfig.DialFunc = c.dial
	r := openTest(t, cfg)
	for i, times := range []int{1, 1, 3, 3} {
		counter := uint64(i)
		prepared(t, r, counter, 1)
		c.arm("COMMIT PREPARED", i%2 == 0, times)
		require.NoError(t, r.Commit(t.Context(), testID(counter)))
		require.GreaterOrEqual(t, c.made, 1)
		c.arm("", false, 0)
		require.NoError(t, r.Commit(t.Context(), testID(counter)))
		prepared(t, r, 100+counter, 1000)
		c.arm("ROLLBACK PREPARED", i%2 == 0, times)
		require.NoError(t, r.Abort(t.Context(), testID(100+counter)))
		c.arm("", false, 0)
		require.NoError(t, r.Abort(t.Context(), testID(100+counter)))
		require.Equal(t, i+1, s.number(t, "SELECT sum(n) FROM things"))
	}
}

// The same in one phase: Outcome knows, and so does the caller.
func TestTheConnectionIsLostInOnePhase(t *testing.T) {
	s, cfg := fresh(t)
	c := new(cutter)
	cfg.Pool.ConnConfig.DialFunc = c.dial
	r := openTest(t, cfg)
	want := 0
	for i := range uint64(10) {
		insert(t, r, i, 1)
		c.arm("COMMIT", i%2 == 0, 1)
		outcome, err := r.CommitOnePhase(t.Context(), testID(i), nil)
		require.Equal(t, 1, c.made)
		c.arm("", false, 0)
		if outcome == txn.Committed {
			require.NoError(t, err)
			require.NotZero(t, i%2)
			want++
		} else {
			require.Error(t, err)
			require.Equal(t, txn.Aborted, outcome)
		}
		again, err := r.Outcome(t.Context(), testID(i))
		require.NoError(t, err)
		require.Equal(t, outcome, again)
		require.Equal(t, want, s.number(t, "SELECT count(*) FROM things"))
	}
}

// What is committed is known by its marker; what never was prepared by that there is none.
func TestMarkersTellCommittedFromNeverPrepared(t *testing.T) {
	_, cfg := fresh(t)
	r := openTest(t, cfg)
	prepared(t, r, 1, 1)
	require.NoError(t, r.Commit(t.Context(), testID(1)))
	require.NoError(t, r.Commit(t.Context(), testID(1)))
	err := r.Commit(t.Context(), testID(2))
	require.ErrorIs(t, err, ErrNotPrepared)
	heuristic(t, err, txn.Aborted)
	insert(t, r, 3, 1)
	require.ErrorIs(t, r.Commit(t.Context(), testID(3)), ErrNotPrepared, "it was open")
	require.NoError(t, r.Close())
	r = openTest(t, cfg)
	require.NoError(t, r.Commit(t.Context(), testID(1)), "also after a restart")
	require.ErrorIs(t, r.Commit(t.Context(), testID(2)), ErrNotPrepared)
}

// Somebody decides by hand.
func TestADecisionByHand(t *testing.T) {
	s, cfg := fresh(t)
	r := openTest(t, cfg)
	for i, verb := range []string{"COMMIT", "ROLLBACK"} {
		for j, restart := range []bool{false, true} {
			one, two := uint64(10*i+2*j), uint64(10*i+2*j+1)
			prepared(t, r, one, 1)
			prepared(t, r, two, 1)
			for _, counter := range []uint64{one, two} {
				s.exec(t, verb+" PREPARED '"+r.gid(testID(counter))+"'")
			}
			if restart {
				require.NoError(t, r.Close())
				r = openTest(t, cfg)
			}
			inDoubt(t, r)
			commit, abort := r.Commit(t.Context(), testID(one)), r.Abort(t.Context(), testID(two))
			if verb == "COMMIT" {
				require.NoError(t, commit)
				heuristic(t, abort, txn.Committed)
			} else {
				require.ErrorIs(t, commit, ErrNotPrepared)
				heuristic(t, commit, txn.Aborted)
				require.NoError(t, abort)
			}
		}
	}
}

func TestReadOnly(t *testing.T) {
	for _, options := range []pgx.TxOptions{{}, {IsoLevel: pgx.Serializable}, {IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly, DeferrableMode: pgx.Deferrable}} {
		s, cfg := fresh(t)
		cfg.TxOptions = options
		r := openTest(t, cfg)
		read := func(counter uint64) {
			tx, err := r.Begin(t.Context(), testID(counter))
			require.NoError(t, err)
			var n int
			require.NoError(t, tx.QueryRow(t.Context(), "SELECT count(*) FROM things").Scan(&n))
		}
		before := s.number(t, "SELECT count(*) FROM synod.marker")
		read(1)
		vote, err := prepare(t, r, 1)
		require.NoError(t, err)
		require.Equal(t, txn.ReadOnly, vote)
		for counter := uint64(2); counter <= 3; counter++ {
			read(counter)
			for range 2 {
				vote, err = r.Prepare(t.Context(), txn.PrepareRequest{ID: testID(counter)})
				require.NoError(t, err)
				require.Equal(t, txn.ReadOnly, vote)
			}
			require.NotZero(t, r.work.Stat().AcquiredConns(), "it keeps its locks")
			if counter == 2 {
				require.NoError(t, r.Commit(t.Context(), testID(counter)))
			} else {
				require.NoError(t, r.Abort(t.Context(), testID(counter)))
			}
			require.Zero(t, r.work.Stat().AcquiredConns())
		}
		require.Equal(t, before, s.number(t, "SELECT count(*) FROM synod.marker"), "nothing was written")

		// As the only one, or the last, it has to be able to tell.
		read(4)
		outcome, err := r.CommitOnePhase(t.Context(), testID(4), nil)
		require.NoError(t, err)
		require.Equal(t, txn.Committed, outcome)
		require.NoError(t, r.Close())
		r = openTest(t, cfg)
		outcome, err = r.Outcome(t.Context(), testID(4))
		require.NoError(t, err)
		require.Equal(t, txn.Committed, outcome)
	}
}

// A run that is superseded prepares nothing any more, whatever it has open.
func TestALaterRunTakesOver(t *testing.T) {
	s, cfg := fresh(t)
	old := openTest(t, cfg)
	prepared(t, old, 1, 1)
	insert(t, old, 2, 1)
	r := openTest(t, cfg)
	inDoubt(t, r, testID(1))
	vote, err := prepare(t, old, 2)
	require.Error(t, err, "its session was ended")
	require.Equal(t, txn.No, vote)
	insert(t, old, 3, 1)
	vote, err = prepare(t, old, 3)
	require.ErrorIs(t, err, ErrSuperseded)
	require.Equal(t, txn.No, vote)
	insert(t, old, 4, 1)
	outcome, err := old.CommitOnePhase(t.Context(), testID(4), nil)
	require.ErrorIs(t, err, ErrSuperseded)
	require.Equal(t, txn.Aborted, outcome)
	inDoubt(t, r, testID(1))
	require.NoError(t, r.Commit(t.Context(), testID(1)))
	require.Equal(t, 1, s.number(t, "SELECT count(*) FROM things"))
}

// A session of an earlier run that is in the middle of PREPARE TRANSACTION prepares nothing that InDoubt has not seen.
func TestAnEarlierRunIsPreparing(t *testing.T) {
	s, cfg := fresh(t)
	s.exec(t, `CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON things DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()`)
	old := openTest(t, cfg)
	insert(t, old, 1, 1)
	votes := make(chan txn.Vote, 1)
	go func() {
		vote, _ := old.Prepare(context.Background(), txn.PrepareRequest{ID: testID(1), MayLeave: true})
		votes <- vote
	}()
	require.Eventually(t, func() bool {
		return s.number(t, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'PREPARE TRANSACTION%' AND state = 'active'") == 1
	}, 30*time.Second, 5*time.Millisecond)
	r := openTest(t, cfg)
	inDoubt(t, r)
	require.Equal(t, txn.No, <-votes)
	time.Sleep(1200 * time.Millisecond) // long after it would have been prepared
	inDoubt(t, r)
}

func TestMarkersAreRemoved(t *testing.T) {
	s, cfg := fresh(t)
	cfg.KeepMarkers = time.Second
	r := openTest(t, cfg)
	count := "SELECT count(*) FROM synod.marker WHERE resource = $1"
	for i := range uint64(5) {
		prepared(t, r, i, 1)
		require.NoError(t, r.Commit(t.Context(), testID(i)))
	}
	prepared(t, r, 9, 1)
	require.Equal(t, 5, s.number(t, count, r.prefix))
	require.Eventually(t, func() bool { return s.number(t, count, r.prefix) == 0 }, 30*time.Second, 20*time.Millisecond)
	require.NoError(t, r.Commit(t.Context(), testID(9)), "a marker for that which was in doubt meanwhile")
	require.NoError(t, r.Commit(t.Context(), testID(9)))

	// Those of earlier runs are kept for longer, and so are those of what was in doubt when this one began.
	cfg.KeepMarkers = time.Hour
	prepared(t, r, 10, 1)
	prepared(t, r, 11, 1)
	require.NoError(t, r.Commit(t.Context(), testID(11)))
	require.NoError(t, r.Close())
	r = openTest(t, cfg)
	require.NoError(t, r.Commit(t.Context(), testID(10)))
	require.NoError(t, r.collectEarlier(t.Context()))
	for _, counter := range []uint64{10, 11} {
		require.NoError(t, r.Commit(t.Context(), testID(counter)))
	}
	s.exec(t, "UPDATE synod.marker SET at = now() - interval '8 days'")
	require.NoError(t, r.collectEarlier(t.Context()))
	require.NoError(t, r.Commit(t.Context(), testID(10)))
	require.ErrorIs(t, r.Commit(t.Context(), testID(11)), ErrNotPrepared)
}

// What another role has prepared cannot be ended: to take it for not prepared would be a wrong answer.
func TestPreparedByAnotherRole(t *testing.T) {
	s, cfg := fresh(t)
	s.exec(t, "DROP ROLE IF EXISTS other; CREATE ROLE other LOGIN SUPERUSER")
	theirs := cfg
	theirs.Pool = cfg.Pool.Copy()
	theirs.Pool.ConnConfig.User = "other"
	r := openTest(t, theirs)
	prepared(t, r, 1, 1)
	require.NoError(t, r.Close())
	_, err := Open(t.Context(), cfg)
	require.ErrorIs(t, err, ErrForeign)
	require.ErrorContains(t, err, "other")
	r = openTest(t, theirs)
	require.NoError(t, r.Abort(t.Context(), testID(1)))
	require.NoError(t, r.Close())
}

// A role that is no superuser is enough.
func TestAnOrdinaryRole(t *testing.T) {
	s, cfg := fresh(t)
	s.exec(t, `DROP SCHEMA IF EXISTS own CASCADE; DROP ROLE IF EXISTS ordinary; CREATE ROLE ordinary LOGIN; CREATE SCHEMA own AUTHORIZATION ordinary; GRANT ALL ON things TO ordinary`)
	cfg.Schema = "own"
	cfg.Pool.ConnConfig.User = "ordinary"
	old := openTest(t, cfg)
	prepared(t, old, 1, 1)
	insert(t, old, 2, 1)
	r := openTest(t, cfg)
	inDoubt(t, r, testID(1))
	require.NoError(t, r.Commit(t.Context(), testID(1)))
	require.Equal(t, 1, s.number(t, "SELECT count(*) FROM own.marker"))
}

// Abort does not wait for what the application is at.
func TestAbortInTheMiddle(t *testing.T) {
	s, cfg := fresh(t)
	r := openTest(t, cfg)
	tx := insert(t, r, 1, 1)
	result := make(chan error, 1)
	go func() {
		_, err := tx.Exec(context.Background(), "LOCK TABLE things; SELECT pg_sleep(60)", pgx.QueryExecModeSimpleProtocol)
		result <- err
	}()
	require.Eventually(t, func() bool {
		return s.number(t, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1
	}, 30*time.Second, 5*time.Millisecond)
	_, err := tx.Exec(t.Context(), "SELECT 1")
	require.ErrorIs(t, err, ErrBusy)
	require.NoError(t, r.Abort(t.Context(), testID(1)))
	require.Error(t, <-result)
	require.Zero(t, s.number(t, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
	require.Zero(t, s.number(t, "SELECT count(*) FROM things"))
	_, err = tx.Exec(t.Context(), "SELECT 1")
	require.ErrorIs(t, err, ErrEnded)

	// Rows that are not read to the end are the application's mistake, and a no.
	tx = insert(t, r, 2, 1)
	rows, err := tx.Query(t.Context(), "SELECT generate_series(1, 100000)")
	require.NoError(t, err)
	require.True(t, rows.Next())
	vote, err := prepare(t, r, 2)
	require.ErrorIs(t, err, ErrBusy)
	require.Equal(t, txn.No, vote)
	rows.Close()
	require.NoError(t, r.Abort(t.Context(), testID(2)))
	require.Eventually(t, func() bool { return r.work.Stat().AcquiredConns() == 0 }, 30*time.Second, time.Millisecond)
}

func TestOpenTimeout(t *testing.T) {
	s, cfg := fresh(t)
	cfg.OpenTimeout = time.Second
	r := openTest(t, cfg)
	tx := insert(t, r, 1, 1)
	require.Eventually(t, func() bool { return r.work.Stat().AcquiredConns() == 0 }, 30*time.Second, 5*time.Millisecond)
	_, err := tx.Exec(t.Context(), "SELECT 1")
	require.ErrorIs(t, err, ErrEnded)
	vote, err := prepare(t, r, 1)
	require.ErrorIs(t, err, ErrEnded)
	require.Equal(t, txn.No, vote)
	require.Zero(t, s.number(t, "SELECT count(*) FROM things"))
}

// Statements of all kinds, and work that is handed over.
func TestStatements(t *testing.T) {
	s, cfg := fresh(t)
	no := errors.New("not today")
	cfg.Execute = func(ctx context.Context, tx *Tx, work []byte) error {
		if string(work) == "no" {
			return no
		}
		b := new(pgx.Batch)
		b.Queue("INSERT INTO things VALUES (1)")
		b.Queue("INSERT INTO things VALUES (2)")
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		if n, err := tx.CopyFrom(ctx, pgx.Identifier{"things"}, []string{"n"}, pgx.CopyFromRows([][]any{{3}, {4}})); err != nil || n != 2 {
			return err
		}
		rows, err := tx.Query(ctx, "SELECT n FROM things")
		if err != nil {
			return err
		}
		numbers, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil || len(numbers) != 4 {
			return errors.Join(err, errors.New("it does not read what it wrote"))
		}
		var n int
		if err := tx.QueryRow(ctx, "SELECT n FROM things WHERE n > 100").Scan(&n); !errors.Is(err, pgx.ErrNoRows) {
			return errors.Join(err, errors.New("there is a row"))
		}
		return nil
	}
	r := openTest(t, cfg)
	request := txn.PrepareRequest{ID: testID(1), Work: []byte("yes")}
	for range 2 {
		vote, err := r.Prepare(t.Context(), request)
		require.NoError(t, err)
		require.Equal(t, txn.Yes, vote)
	}
	require.NoError(t, r.Commit(t.Context(), testID(1)))
	require.Equal(t, 10, s.number(t, "SELECT sum(n) FROM things"))
	vote, err := r.Prepare(t.Context(), txn.PrepareRequest{ID: testID(2), Work: []byte("no")})
	require.ErrorIs(t, err, no)
	require.Equal(t, txn.No, vote)
	require.Zero(t, r.work.Stat().AcquiredConns())
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	_, err = r.Begin(t.Context(), testID(3))
	require.ErrorIs(t, err, synod.ErrClosed)
}

// All the server's places for prepared transactions are taken: a No, with the server's reason.
func TestNoPlaceIsLeft(t *testing.T) {
	s, cfg := fresh(t)
	defer func() {
		s.kill(syscall.SIGINT)
		s.start(t)
	}()
	s.kill(syscall.SIGINT)
	s.start(t, "max_prepared_transactions=2")
	r := openTest(t, cfg)
	prepared(t, r, 1, 1)
	prepared(t, r, 2, 1)
	insert(t, r, 3, 1)
	vote, err := prepare(t, r, 3)
	require.Equal(t, txn.No, vote)
	var e *pgconn.PgError
	require.ErrorAs(t, err, &e)
	require.Contains(t, e.Message, "prepared transactions")
	require.NoError(t, r.Abort(t.Context(), testID(3)))
	inDoubt(t, r, testID(1), testID(2))
	require.NoError(t, r.Commit(t.Context(), testID(1)))
	require.NoError(t, r.Abort(t.Context(), testID(2)))
	prepared(t, r, 4, 1)
	require.NoError(t, r.Commit(t.Context(), testID(4)))
	require.NoError(t, r.Close())
}
