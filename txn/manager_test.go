package txn_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/txn"
)

// machine is a node of a test.
type machine struct {
	*txn.Manager
	id        uint64
	store     *memory.Store
	transport *inproc.Node
	accounts  *accounts
}

// cluster is some nodes in this process.
type cluster struct {
	*testing.T
	ctx     context.Context
	network *inproc.Network
	nodes   map[uint64]*machine
	adapt   func(*txn.Config)
}

func newCluster(t *testing.T, nodes uint64, adapt func(*txn.Config)) *cluster {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	network, err := inproc.New(ctx, inproc.Config{})
	require.NoError(t, err)
	c := &cluster{t, ctx, network, map[uint64]*machine{}, adapt}
	for id := uint64(1); id <= nodes; id++ {
		c.nodes[id] = &machine{id: id, store: memory.Open(memory.Config{})}
		require.NoError(t, c.start(id))
	}
	t.Cleanup(func() {
		for id := range c.nodes {
			c.stop(id)
		}
	})
	return c
}

func (c *cluster) config(id uint64) txn.Config {
	n := c.nodes[id]
	cfg := txn.Config{Cluster: "test", Node: id, Transport: n.transport, Store: storage.Prefix(n.store, []byte("t")),
		Resources:    map[string]txn.Resource{"accounts": n.accounts, "direct": direct{n.accounts}},
		TickInterval: 2 * time.Millisecond, ResendInterval: 30 * time.Millisecond, InquireInterval: 20 * time.Millisecond, PeerTimeout: 60 * time.Millisecond}
	if c.adapt != nil {
		c.adapt(&cfg)
	}
	return cfg
}

func (c *cluster) start(id uint64) (err error) {
	n := c.nodes[id]
	if n.transport, err = c.network.Open(id); err != nil {
		return err
	}
	if n.accounts, err = openAccounts(storage.Prefix(n.store, []byte("r"))); err != nil {
		return err
	}
	if n.Manager, err = txn.Start(c.ctx, c.config(id)); err != nil {
		n.transport.Close()
	}
	return err
}

func (c *cluster) stop(id uint64) {
	n := c.nodes[id]
	if n.Manager != nil {
		require.NoError(c, n.Close())
		n.transport.Close()
		n.Manager = nil
	}
}

// crash loses what was not durable.
func (c *cluster) crash(id uint64) {
	n := c.nodes[id]
	old := n.store
	n.store = old.Crash()
	c.stop(id)
}

func (c *cluster) begin(id uint64) *txn.Tx {
	tx, err := c.nodes[id].Begin(c.ctx)
	require.NoError(c, err)
	return tx
}

func on(node uint64, changes ...change) txn.Participant {
	return txn.Participant{Node: node, Resource: "accounts", Work: work(changes...)}
}

// eventually waits until something is so, asking with the time that passes.
func (c *cluster) eventually(what string, fn func() bool) {
	c.Helper()
	for !fn() {
		e := executor.NewEvent()
		timer := executor.Real().AfterFunc(2*time.Millisecond, e.Set)
		err := executor.Real().Wait(c.ctx, e)
		timer.Stop()
		require.NoError(c, err, what)
	}
}

func (c *cluster) idle() {
	c.eventually("nothing is under way", func() bool {
		for _, n := range c.nodes {
			if n.Manager == nil {
				continue
			}
			s, err := n.Status(c.ctx)
			require.NoError(c, err)
			if len(s.Transactions)+len(s.InDoubt)+len(s.Stuck)+n.accounts.locks() > 0 {
				return false
			}
		}
		return true
	})
}

func TestTransfer(t *testing.T) {
	for p := txn.TwoPhase; p <= txn.SkeenThreePhase; p++ {
		t.Run(p.String(), func(t *testing.T) { transfer(t, p) })
	}
}

func transfer(t *testing.T, p txn.Protocol) {
	c := newCluster(t, 3, func(cfg *txn.Config) { cfg.Protocol = p })
	deposit := c.begin(1)
	require.NoError(t, deposit.Commit(c.ctx, on(2, change{"ann", 100})))
	c.idle() // or what comes next meets its locks
	tx := c.begin(1)
	require.NoError(t, tx.Commit(c.ctx, on(2, change{"ann", -30}), on(3, change{"bob", 30})))
	require.NotEqual(t, deposit.ID(), tx.ID())
	c.idle()
	require.Equal(t, 70, c.nodes[2].accounts.balance("ann"))
	require.Equal(t, 30, c.nodes[3].accounts.balance("bob"))

	tx = c.begin(3)
	err := tx.Commit(c.ctx, on(2, change{"ann", -71}), on(3, change{"bob", 71}))
	require.ErrorIs(t, err, txn.ErrAborted)
	var aborted *txn.AbortError
	require.ErrorAs(t, err, &aborted)
	require.Equal(t, txn.AbortError{ID: tx.ID(), Node: 2, Reason: "account ann has only 70"}, *aborted)
	c.idle()
	require.Equal(t, 70, c.nodes[2].accounts.balance("ann"))
	require.Equal(t, 30, c.nodes[3].accounts.balance("bob"))
	require.ErrorIs(t, tx.Commit(c.ctx, on(2)), txn.ErrInvalid, "it is over")
	require.NoError(t, tx.Abort(c.ctx), "which is no error")
}

func TestReadOnlyAndOnePhase(t *testing.T) {
	c := newCluster(t, 3, nil)
	require.NoError(t, c.begin(1).Commit(c.ctx, txn.Participant{Node: 1, Resource: "direct", Work: work(change{"ann", 5})}))
	require.NoError(t, c.begin(2).Commit(c.ctx, txn.Participant{Node: 1, Resource: "direct", Work: work(change{"ann", 5})}))
	require.Equal(t, 10, c.nodes[1].accounts.balance("ann"))
	require.Equal(t, 0, c.nodes[1].accounts.count("prepare"))
	require.NoError(t, c.begin(2).Commit(c.ctx, on(1), on(2), on(3)))
	require.NoError(t, c.begin(2).Commit(c.ctx, on(1), on(2, change{"bob", 1}), on(3)))
	c.idle()
	require.Equal(t, 1, c.nodes[2].accounts.balance("bob"))
	err := c.begin(2).Commit(c.ctx, txn.Participant{Node: 1, Resource: "direct", Work: work(change{"ann", -11})})
	require.ErrorIs(t, err, txn.ErrAborted)
}

func TestLastAgent(t *testing.T) {
	c := newCluster(t, 3, nil)
	agent := txn.Participant{Node: 3, Resource: "direct", LastAgent: true, Work: work(change{"cat", 3})}
	require.NoError(t, c.begin(1).Commit(c.ctx, on(1, change{"ann", 1}), on(2, change{"bob", 2}), agent))
	c.idle()
	agent.Work = work(change{"cat", -4})
	err := c.begin(1).Commit(c.ctx, on(1, change{"ann", 1}), on(2, change{"bob", 2}), agent)
	require.ErrorIs(t, err, txn.ErrAborted)
	c.idle()
	require.Equal(t, []int{1, 2, 3}, []int{c.nodes[1].accounts.balance("ann"), c.nodes[2].accounts.balance("bob"), c.nodes[3].accounts.balance("cat")})
}

// A coordinator that crashes after its decision; participants that crash in doubt.
func TestRecovery(t *testing.T) {
	for p := txn.TwoPhase; p <= txn.SkeenThreePhase; p++ {
		t.Run(p.String(), func(t *testing.T) { recovery(t, p) })
	}
}

func recovery(t *testing.T, p txn.Protocol) {
	c := newCluster(t, 3, func(cfg *txn.Config) { cfg.Protocol = p })
	for _, crash := range [][]uint64{{1}, {2}, {1, 2}, {1, 2, 3}} {
		t.Run(fmt.Sprint("of ", crash), func(t *testing.T) {
			c := *c
			c.T = t
			before := c.nodes[2].accounts.balance("ann")
			c.nodes[2].accounts.fail["commit"] = errors.New("not now")
			c.nodes[3].accounts.fail["commit"] = errors.New("not now")
			require.NoError(t, c.begin(1).Commit(c.ctx, on(2, change{"ann", 1}), on(3, change{"bob", 1})))
			for _, id := range crash {
				c.crash(id)
			}
			for _, id := range crash {
				require.NoError(t, c.start(id))
			}
			for _, n := range c.nodes {
				n.accounts.mu.Lock()
				clear(n.accounts.fail)
				n.accounts.mu.Unlock()
			}
			c.idle()
			require.Equal(t, before+1, c.nodes[2].accounts.balance("ann"))
			require.Equal(t, before+1, c.nodes[3].accounts.balance("bob"))
		})
	}
}

func TestInDoubtIsShownAndForced(t *testing.T) {
	c := newCluster(t, 3, func(cfg *txn.Config) { cfg.PeerTimeout = time.Hour })
	// Node 2's votes arrive, and nothing reaches it any more.
	tx := c.begin(1)
	c.nodes[3].accounts.mu.Lock()
	c.nodes[3].accounts.fail["prepare"] = errors.New("no")
	c.nodes[3].accounts.mu.Unlock()
	blocked := make(chan error, 1)
	go func() { blocked <- tx.Commit(c.ctx, on(2, change{"ann", 1}), on(1, change{"bob", 1})) }()
	require.NoError(t, <-blocked)
	c.idle()

	c.nodes[2].accounts.mu.Lock()
	c.nodes[2].accounts.fail["commit"] = errors.New("locked out")
	c.nodes[2].accounts.mu.Unlock()
	require.NoError(t, c.begin(1).Commit(c.ctx, on(2, change{"ann", 1}), on(1, change{"bob", 1})))
	c.eventually("it is shown", func() bool {
		s, err := c.nodes[2].Status(c.ctx)
		require.NoError(t, err)
		return len(s.Stuck) == 1 && s.Stuck[0].Failure == "locked out" && s.Stuck[0].Outcome == txn.Committed
	})
	c.nodes[2].accounts.mu.Lock()
	clear(c.nodes[2].accounts.fail)
	c.nodes[2].accounts.mu.Unlock()
	c.idle()

	// The coordinator is gone in the window between vote and decision: it waits for a third vote.
	c.network.Cut(1, 3)
	tx = c.begin(1)
	ctx, cancel := context.WithCancel(c.ctx)
	go func() {
		blocked <- tx.Commit(ctx, on(2, change{"ann", 1}), on(1, change{"bob", 1}), on(3, change{"cat", 1}))
	}()
	var doubt txn.InDoubt
	c.eventually("node 2 is in doubt", func() bool {
		s, err := c.nodes[2].Status(c.ctx)
		require.NoError(t, err)
		if len(s.InDoubt) == 1 && s.InDoubt[0].Answer == "undecided" {
			doubt = s.InDoubt[0]
		}
		return doubt.Coordinator != 0
	})
	require.Equal(t, tx.ID(), doubt.ID)
	require.EqualValues(t, 1, doubt.Coordinator)
	require.WithinDuration(t, time.Now(), doubt.Since, time.Minute)
	require.Equal(t, []txn.Participant{{Node: 1, Resource: "accounts"}, {Node: 3, Resource: "accounts"}}, doubt.Others)
	cancel()
	require.ErrorIs(t, <-blocked, synod.ErrUnknownOutcome)
	require.ErrorIs(t, c.nodes[3].Force(c.ctx, tx.ID(), "accounts", txn.Committed), txn.ErrNotInDoubt)
	require.NoError(t, c.nodes[2].Force(c.ctx, tx.ID(), "accounts", txn.Committed))
	c.crash(1) // it forgets, which is an abort
	c.network.Heal(1, 3)
	require.NoError(t, c.start(1))
	c.idle()
	s, err := c.nodes[2].Status(c.ctx)
	require.NoError(t, err)
	want := txn.Damage{ID: tx.ID(), Node: 2, Resource: "accounts", Kind: "committed"}
	require.Equal(t, []txn.Damage{want}, s.Damages)
	c.crash(2)
	require.NoError(t, c.start(2))
	s, err = c.nodes[2].Status(c.ctx)
	require.NoError(t, err)
	require.Equal(t, []txn.Damage{want}, s.Damages)
	require.NoError(t, c.nodes[2].ClearDamage(c.ctx, tx.ID()))
	require.ErrorIs(t, c.nodes[2].ClearDamage(c.ctx, tx.ID()), txn.ErrInvalid)
}

func TestAStoreThatFailsStopsTheManager(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.nodes[1].store.FailSync(1, errors.New("broken disk")) // that of the decision
	err := c.begin(1).Commit(c.ctx, on(2, change{"ann", 1}), on(3, change{"bob", 1}))
	require.ErrorIs(t, err, synod.ErrUnknownOutcome)
	require.ErrorIs(t, err, storage.ErrFailed)
	c.eventually("it has stopped", func() bool {
		_, err := c.nodes[1].Begin(c.ctx)
		return errors.Is(err, storage.ErrFailed)
	})
}

func TestAStoreThatIsFullGoesOnWhenThereIsRoom(t *testing.T) {
	c := newCluster(t, 2, nil)
	c.nodes[1].store.SetFull(true)
	result := make(chan error, 1)
	go func() {
		result <- c.begin(2).Commit(c.ctx, txn.Participant{Node: 1, Resource: "direct", Work: work(change{"ann", 1})})
	}()
	c.eventually("it waits for room", func() bool {
		s, err := c.nodes[2].Status(c.ctx)
		return err == nil && len(s.Transactions) == 1
	})
	c.nodes[1].store.SetFull(false)
	err := <-result
	require.True(t, err == nil || errors.Is(err, txn.ErrAborted), err)
	c.idle()
}

func TestStartRefuses(t *testing.T) {
	c := newCluster(t, 2, nil)
	good := c.config(1)
	for field, spoil := range map[string]func(*txn.Config){
		"Cluster":         func(cfg *txn.Config) { cfg.Cluster = "" },
		"Node":            func(cfg *txn.Config) { cfg.Node = 0 },
		"Transport":       func(cfg *txn.Config) { cfg.Transport = nil },
		"Store":           func(cfg *txn.Config) { cfg.Store = nil },
		"Resources":       func(cfg *txn.Config) { cfg.Resources = map[string]txn.Resource{"": nil} },
		"TakeOver":        func(cfg *txn.Config) { cfg.TakeOver = time.Second },
		"TickInterval":    func(cfg *txn.Config) { cfg.TickInterval = 1 },
		"MaxBranches":     func(cfg *txn.Config) { cfg.MaxBranches = -1 },
		"MaxParticipants": func(cfg *txn.Config) { cfg.MaxParticipants = 5000 },
		"MaxInboxBytes":   func(cfg *txn.Config) { cfg.MaxInboxBytes = 2 << 20; cfg.MaxWorkBytes = 2 << 20 },
	} {
		cfg := good
		spoil(&cfg)
		_, err := txn.Start(c.ctx, cfg)
		var bad *synod.ConfigError
		require.ErrorAs(t, err, &bad, field)
		require.Equal(t, field, bad.Field)
	}
	c.stop(1)
	other := good
	other.Node = 9
	_, err := txn.Start(c.ctx, other)
	require.ErrorIs(t, err, txn.ErrForeignStore)

	// A resource that has prepared, and a store that knows nothing of it.
	lost := good
	lost.Store = memory.Open(memory.Config{})
	b := new(storage.Batch)
	b.Set([]byte("p7.1.1"), work(change{"ann", 1}))
	require.NoError(t, c.nodes[1].accounts.store.Commit(b))
	for range 2 {
		_, err = txn.Start(c.ctx, lost)
		require.ErrorIs(t, err, txn.ErrStoreLost)
	}
	c.nodes[1].accounts.fail["in doubt"] = errors.New("out of reach")
	_, err = txn.Start(c.ctx, good)
	require.ErrorContains(t, err, "out of reach")
}

// A branch that was prepared, but whose vote cannot have left, is aborted at the start.
func TestAnOrphanIsAborted(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.stop(1)
	b := new(storage.Batch)
	b.Set([]byte("p7.1.1"), work(change{"ann", 1}))
	require.NoError(t, c.nodes[1].accounts.store.Commit(b))
	require.NoError(t, c.start(1))
	c.idle()
	require.Equal(t, 0, c.nodes[1].accounts.balance("ann"))
}

func TestIDsNeverRecur(t *testing.T) {
	c := newCluster(t, 1, nil)
	seen := map[txn.ID]bool{}
	for range 5 {
		for range 10 {
			tx := c.begin(1)
			require.False(t, seen[tx.ID()])
			seen[tx.ID()] = true
			parsed, err := txn.ParseID(tx.ID().String())
			require.NoError(t, err)
			require.Equal(t, tx.ID(), parsed)
		}
		c.crash(1)
		require.NoError(t, c.start(1))
	}
	c.crash(1)
	c.nodes[1].store = memory.Open(memory.Config{}) // all is lost
	require.NoError(t, c.start(1))
	for range 10 {
		require.False(t, seen[c.begin(1).ID()])
	}
	for _, bad := range []string{"", "1.2", "1.2.3.4", "01.2.3", "1.G.3", "1.2.-3", "1.2.3 "} {
		_, err := txn.ParseID(bad)
		require.ErrorIs(t, err, txn.ErrInvalid, bad)
	}
}

func TestClose(t *testing.T) {
	c := newCluster(t, 2, nil)
	c.network.Cut(1, 2)
	tx := c.begin(1)
	result := make(chan error, 1)
	go func() { result <- tx.Commit(c.ctx, on(1, change{"ann", 1}), on(2, change{"bob", 1})) }()
	c.eventually("it waits", func() bool {
		s, err := c.nodes[1].Status(c.ctx)
		require.NoError(t, err)
		return len(s.Transactions) == 1 && len(s.Transactions[0].Missing) == 1
	})
	m := c.nodes[1].Manager
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
	require.ErrorIs(t, <-result, synod.ErrUnknownOutcome)
	_, err := m.Begin(c.ctx)
	require.ErrorIs(t, err, synod.ErrClosed)
}

func TestStrangersAreRefused(t *testing.T) {
	c := newCluster(t, 2, nil)
	stranger, err := c.network.Open(9)
	require.NoError(t, err)
	require.NoError(t, stranger.Send(1, []byte("hello")))
	other, err := txn.Start(c.ctx, txn.Config{Cluster: "other", Node: 9, Transport: stranger, Store: memory.Open(memory.Config{}), ResendInterval: 5 * time.Millisecond, TickInterval: time.Millisecond, PrepareTimeout: 50 * time.Millisecond})
	require.NoError(t, err)
	defer other.Close()
	tx, err := other.Begin(c.ctx)
	require.NoError(t, err)
	require.ErrorIs(t, tx.Commit(c.ctx, on(1), on(2)), txn.ErrAborted, "nobody answers")
	s, err := c.nodes[1].Status(c.ctx)
	require.NoError(t, err)
	require.GreaterOrEqual(t, s.Refused, uint64(2))
	require.Empty(t, c.nodes[1].accounts.count("prepare"))
}

// With decisions that all nodes share, a coordinator that is gone blocks nobody; and one that comes back learns what was
// decided without it. Pitfall 41.
func TestTakeOver(t *testing.T) {
	shared, err := txn.OpenLocalLog(t.Context(), memory.Open(memory.Config{}))
	require.NoError(t, err)
	c := newCluster(t, 3, func(cfg *txn.Config) {
		cfg.Decisions, cfg.TakeOver, cfg.PeerTimeout = shared, 50*time.Millisecond, time.Hour
	})
	c.network.Cut(1, 3) // node 1 never gets the vote of node 3, for node 3 is not asked
	tx := c.begin(1)
	result := make(chan error, 1)
	go func() {
		result <- tx.Commit(c.ctx, on(2, change{"ann", 1}), on(3, change{"bob", 1}))
	}()
	for _, doubts := range []int{1, 0} {
		c.eventually("node 2 is in doubt, and then not any more", func() bool {
			s, err := c.nodes[2].Status(c.ctx)
			require.NoError(t, err)
			return len(s.InDoubt) == doubts && (doubts > 0 || c.nodes[2].accounts.locks() == 0)
		})
	}
	s, err := c.nodes[1].Status(c.ctx)
	require.NoError(t, err)
	require.Len(t, s.Transactions, 1, "while the coordinator still waits")
	c.network.Heal(1, 3)
	require.ErrorIs(t, <-result, txn.ErrAborted, "its proposal came second")
	c.idle()

	// The coordinator decides, and dies before anybody hears of it.
	require.NoError(t, c.begin(1).Commit(c.ctx, on(2, change{"ann", 5}), on(3, change{"bob", 5})))
	c.network.Cut(1, 2)
	c.network.Cut(1, 3)
	c.crash(1)
	c.eventually("the others commit", func() bool {
		return c.nodes[2].accounts.balance("ann") == 5 && c.nodes[3].accounts.balance("bob") == 5
	})
	c.network.Heal(1, 2)
	c.network.Heal(1, 3)
	require.NoError(t, c.start(1))
	c.idle()
	require.Equal(t, 5, c.nodes[2].accounts.balance("ann"))
}

// Pitfall 40: a coordinator whose store is an old copy is found out by a decision log that it shares.
func TestAnOldCopyIsRefused(t *testing.T) {
	shared, err := txn.OpenLocalLog(t.Context(), memory.Open(memory.Config{}))
	require.NoError(t, err)
	c := newCluster(t, 2, func(cfg *txn.Config) { cfg.Decisions = shared })
	c.crash(1)
	old := c.nodes[1].store
	c.nodes[1].store = old.Crash()
	copied := c.nodes[1].store
	for range 2 {
		require.NoError(t, c.start(1))
		c.crash(1)
	}
	c.nodes[1].store = copied.Crash()
	require.ErrorIs(t, c.start(1), txn.ErrRolledBack)
	c.nodes[1].store = memory.Open(memory.Config{})
	require.NoError(t, c.start(1))
}
