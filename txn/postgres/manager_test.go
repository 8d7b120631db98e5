//go:build unix

package postgres

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/txn"
)

func manage(t testing.TB, tr transport.Transport, store storage.Store, r txn.Resource) *txn.Manager {
	t.Helper()
	m, err := txn.Start(t.Context(), txn.Config{Cluster: "test", Node: 1, Transport: tr, Store: store, ResendInterval: 20 * time.Millisecond,
		Resources: map[string]txn.Resource{"rows": r, "more": silent{}}})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

// silent is a participant that agrees to everything.
type silent struct{}

func (silent) Prepare(context.Context, txn.PrepareRequest) (txn.Vote, error) { return txn.Yes, nil }
func (silent) Commit(context.Context, txn.ID) error                          { return nil }
func (silent) Abort(context.Context, txn.ID) error                           { return nil }
func (silent) InDoubt(context.Context) ([]txn.ID, error)                     { return nil, nil }

func wire(t testing.TB) transport.Transport {
	network, err := inproc.New(t.Context(), inproc.Config{})
	require.NoError(t, err)
	tr, err := network.Open(1)
	require.NoError(t, err)
	t.Cleanup(func() { tr.Close() })
	return tr
}

func both(node uint64) []txn.Participant {
	return []txn.Participant{{Node: node, Resource: "rows"}, {Node: node, Resource: "more"}}
}

// idle waits until nothing is under way.
func idle(t testing.TB, m *txn.Manager) (s txn.Status) {
	t.Helper()
	require.Eventually(t, func() bool {
		var err error
		s, err = m.Status(t.Context())
		require.NoError(t, err)
		return len(s.Transactions)+len(s.InDoubt)+len(s.Stuck) == 0
	}, 30*time.Second, 5*time.Millisecond)
	return s
}

// What is prepared, and the process is killed before its manager has written that down, is an orphan: the next Start ends it.
func TestOrphansAreEnded(t *testing.T) {
	s, cfg := fresh(t)
	tr, store := wire(t), memory.Open(memory.Config{})
	r := openTest(t, cfg)
	m := manage(t, tr, store, r)
	tx, err := m.Begin(t.Context())
	require.NoError(t, err)
	sql, err := r.Begin(t.Context(), tx.ID())
	require.NoError(t, err)
	_, err = sql.Exec(t.Context(), "INSERT INTO things VALUES (1)")
	require.NoError(t, err)
	vote, err := r.Prepare(t.Context(), txn.PrepareRequest{ID: tx.ID()})
	require.NoError(t, err)
	require.Equal(t, txn.Yes, vote)
	insert(t, r, 5, 1) // and this is open
	store = store.Crash()
	require.NoError(t, m.Close())
	r = openTest(t, cfg)
	inDoubt(t, r, tx.ID())
	m = manage(t, tr, store, r)
	require.Empty(t, idle(t, m).Damages)
	require.Eventually(t, func() bool { return s.number(t, "SELECT count(*) FROM pg_prepared_xacts") == 0 }, 30*time.Second, 5*time.Millisecond)
	require.Zero(t, s.number(t, "SELECT count(*) FROM things"))
	require.Zero(t, s.number(t, "SELECT count(*) FROM pg_locks WHERE relation = 'things'::regclass"))
}

// meddled is a resource with somebody who decides by hand, just before it is told the outcome.
type meddled struct {
	*Resource
	meddle func(id txn.ID)
}

func (m meddled) Commit(ctx context.Context, id txn.ID) error {
	m.meddle(id)
	return m.Resource.Commit(ctx, id)
}

// A ROLLBACK PREPARED by hand of what was to be committed is damage, which the manager records; a COMMIT PREPARED is none.
func TestADecisionByHandIsRecorded(t *testing.T) {
	s, cfg := fresh(t)
	r := openTest(t, cfg)
	verb := ""
	m := manage(t, wire(t), memory.Open(memory.Config{}), meddled{r, func(id txn.ID) {
		if s.number(t, "SELECT count(*) FROM pg_prepared_xacts") > 0 {
			s.exec(t, verb+" PREPARED '"+r.gid(id)+"'")
		}
	}})
	for _, verb = range []string{"COMMIT", "ROLLBACK"} {
		tx, err := m.Begin(t.Context())
		require.NoError(t, err)
		sql, err := r.Begin(t.Context(), tx.ID())
		require.NoError(t, err)
		_, err = sql.Exec(t.Context(), "INSERT INTO things VALUES (1)")
		require.NoError(t, err)
		require.NoError(t, tx.Commit(t.Context(), both(1)...))
		damages := idle(t, m).Damages
		if verb == "COMMIT" {
			require.Empty(t, damages)
		} else {
			require.NotEmpty(t, damages)
			require.Equal(t, txn.Damage{ID: tx.ID(), Node: 1, Resource: "rows", Kind: "aborted"}, damages[0])
		}
	}
	require.Equal(t, 1, s.number(t, "SELECT count(*) FROM things"))
}
