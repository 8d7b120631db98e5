package txn_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/txn"
)

func enhanced(cfg *txn.Config) { cfg.Protocol = txn.EnhancedThreePhase }

// The coordinator is lost for good between votes and decision: in two phases the participants would wait for it. Here a majority of
// them ends the transaction, and holds nothing of it any more.
func TestAMajorityEndsWhatItsCoordinatorHasLeft(t *testing.T) {
	c := newCluster(t, 4, func(cfg *txn.Config) { cfg.Protocol, cfg.PrepareTimeout = txn.EnhancedThreePhase, time.Hour })
	c.network.Cut(1, 4) // so that a vote is missing
	tx := c.begin(1)
	ctx, cancel := context.WithCancel(c.ctx)
	answered := make(chan error, 1)
	go func() {
		answered <- tx.Commit(ctx, on(2, change{"ann", 1}), on(3, change{"bob", 1}), on(4, change{"cat", 1}))
	}()
	c.eventually("two are in doubt", func() bool {
		for id := uint64(2); id <= 3; id++ {
			s, err := c.nodes[id].Status(c.ctx)
			require.NoError(t, err)
			if len(s.InDoubt) != 1 {
				return false
			}
			require.Contains(t, []string{"wait", "initial", "pre-aborted"}, s.InDoubt[0].State)
			require.EqualValues(t, 1, s.InDoubt[0].Coordinator)
			require.Len(t, s.InDoubt[0].Others, 2)
		}
		return true
	})
	cancel()
	require.ErrorIs(t, <-answered, synod.ErrUnknownOutcome)
	c.stop(1)
	c.eventually("nothing is in doubt or locked", func() bool {
		for id := uint64(2); id <= 4; id++ {
			s, err := c.nodes[id].Status(c.ctx)
			require.NoError(t, err)
			if len(s.InDoubt)+len(s.Stuck)+c.nodes[id].accounts.locks() > 0 {
				return false
			}
		}
		return true
	})
	require.Zero(t, c.nodes[2].accounts.balance("ann")+c.nodes[3].accounts.balance("bob")+c.nodes[4].accounts.balance("cat"))
	require.NoError(t, c.begin(2).Commit(c.ctx, on(2, change{"ann", 1}), on(3, change{"bob", 1}), on(4, change{"cat", 1})))
}

// A participant that is away when the others commit: they keep in mind that it has not, and tell it when it is back.
func TestWhoIsAwayIsTold(t *testing.T) {
	c := newCluster(t, 3, enhanced)
	c.nodes[3].accounts.mu.Lock()
	c.nodes[3].accounts.fail["commit"] = errors.New("not now")
	c.nodes[3].accounts.mu.Unlock()
	require.NoError(t, c.begin(1).Commit(c.ctx, on(1, change{"ann", 1}), on(2, change{"bob", 1}), on(3, change{"cat", 1})))
	c.crash(3)
	c.crash(1) // the coordinator forgets that it was one
	require.NoError(t, c.start(1))
	c.eventually("node 2 waits for node 3 alone", func() bool {
		s, err := c.nodes[2].Status(c.ctx)
		require.NoError(t, err)
		return len(s.Unfinished) == 1 && s.Unfinished[0].Phase == "committed" && len(s.Unfinished[0].Missing) == 1 && s.Unfinished[0].Missing[0].Node == 3
	})
	require.NoError(t, c.start(3))
	c.eventually("nobody waits", func() bool {
		for _, n := range c.nodes {
			s, err := n.Status(c.ctx)
			require.NoError(t, err)
			if len(s.Unfinished)+len(s.InDoubt)+len(s.Transactions) > 0 {
				return false
			}
		}
		return true
	})
	require.Equal(t, 1, c.nodes[3].accounts.balance("cat"))
}

// What three phases do not have is refused, with what to do.
func TestThreePhaseRefuses(t *testing.T) {
	c := newCluster(t, 2, enhanced)
	tx := c.begin(1)
	err := tx.Commit(c.ctx, on(1, change{"ann", 1}), txn.Participant{Node: 2, Resource: "direct", LastAgent: true})
	require.ErrorIs(t, err, txn.ErrInvalid)
	require.ErrorIs(t, c.nodes[1].Force(c.ctx, tx.ID(), "accounts", txn.Committed), txn.ErrNotInDoubt)
	require.ErrorIs(t, c.nodes[1].Settle(c.ctx, tx.ID(), txn.Committed), txn.ErrNotInDoubt)
	c.stop(1)

	for field, adapt := range map[string]func(*txn.Config){
		"Protocol":  func(cfg *txn.Config) { cfg.Protocol = 9 },
		"TakeOver":  func(cfg *txn.Config) { cfg.TakeOver = time.Second },
		"Decisions": func(cfg *txn.Config) { cfg.Decisions = txn.NewReplicatedLog(new(raft.Group)) },
	} {
		c.adapt = func(cfg *txn.Config) { enhanced(cfg); adapt(cfg) }
		var config *synod.ConfigError
		require.ErrorAs(t, c.start(1), &config, field)
		require.Equal(t, field, config.Field)
		c.nodes[1].Manager = nil
	}
}

// The protocol is not changed while something is under way, and nodes that run another one are not listened to.
func TestTheProtocolIsNotChangedUnderWay(t *testing.T) {
	for before := txn.TwoPhase; before <= txn.SkeenThreePhase; before++ {
		t.Run(before.String(), func(t *testing.T) {
			c := newCluster(t, 3, func(cfg *txn.Config) {
				cfg.Protocol, cfg.PrepareTimeout, cfg.PeerTimeout = before, time.Hour, time.Hour
			})
			c.network.Cut(1, 3)
			tx := c.begin(1)
			ctx, cancel := context.WithCancel(c.ctx)
			answered := make(chan error, 1)
			go func() { answered <- tx.Commit(ctx, on(2, change{"ann", 1}), on(3, change{"bob", 1})) }()
			c.eventually("node 2 is in doubt", func() bool {
				s, err := c.nodes[2].Status(c.ctx)
				require.NoError(t, err)
				return len(s.InDoubt) == 1
			})
			cancel()
			<-answered
			c.stop(2)
			for after := txn.TwoPhase; after <= txn.SkeenThreePhase; after++ {
				if after == before {
					continue
				}
				c.adapt = func(cfg *txn.Config) { cfg.Protocol = after }
				var config *synod.ConfigError
				require.ErrorAs(t, c.start(2), &config)
				require.Equal(t, "Protocol", config.Field)
				c.nodes[2].Manager = nil
			}
			c.adapt = func(cfg *txn.Config) { cfg.Protocol = before }
			require.NoError(t, c.start(2))
		})
	}
	c := newCluster(t, 2, func(cfg *txn.Config) {
		cfg.PrepareTimeout = 100 * time.Millisecond
		if cfg.Node == 2 {
			enhanced(cfg)
		}
	})
	require.ErrorIs(t, c.begin(1).Commit(c.ctx, on(1, change{"ann", 1}), on(2, change{"bob", 1})), txn.ErrAborted)
	s, err := c.nodes[2].Status(c.ctx)
	require.NoError(t, err)
	require.Positive(t, s.Refused)
}
