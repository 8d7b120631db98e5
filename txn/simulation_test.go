package txn_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/sim"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/txn"
)

var simulations = flag.Uint64("simulations", 40, "how many seeds are simulated")

// bank is a simulated cluster whose nodes have accounts, between which clients transfer.
type bank struct {
	w        *sim.World
	shared   bool // decisions are in a group of raft, and participants take over
	protocol txn.Protocol
	managers map[uint64]*txn.Manager
	accounts map[uint64]*accounts
	outcomes map[txn.ID]error
	where    map[txn.ID][]uint64
}

const (
	bankNodes = 3
	bankStart = 1000 // in each account
	bankPer   = 4    // accounts a node
)

func (b *bank) start(ctx context.Context, env *sim.Env) (func(), error) {
	own := storage.Prefix(env.Store, []byte("r"))
	a, err := openAccounts(own)
	if err != nil {
		return nil, err
	}
	if _, err := own.Get([]byte("opened")); errors.Is(err, storage.ErrNotFound) {
		batch := new(storage.Batch)
		for i := range bankPer {
			batch.Set(fmt.Appendf(nil, "a%d", i), fmt.Append(nil, bankStart))
		}
		batch.Set([]byte("opened"), nil)
		if err := own.Commit(batch); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	cfg := txn.Config{Cluster: "bank", Node: env.ID, Transport: env.Transport, Store: storage.Prefix(env.Store, []byte("t")), Logger: env.Logger,
		Resources: map[string]txn.Resource{"accounts": a, "direct": direct{a}},
		Protocol:  b.protocol, PrepareTimeout: 2 * time.Second, PeerTimeout: 2 * time.Second}
	stop := func() {}
	if b.shared {
		if stop, err = b.share(ctx, env, &cfg); err != nil {
			return nil, err
		}
	}
	m, err := txn.Start(ctx, cfg)
	if err != nil {
		stop()
		return nil, err
	}
	b.managers[env.ID], b.accounts[env.ID] = m, a
	return func() { m.Close(); stop() }, nil
}

// share starts this node's member of the group that decides.
func (b *bank) share(ctx context.Context, env *sim.Env, cfg *txn.Config) (func(), error) {
	mux := transport.NewMux(env.Transport)
	node, err := raft.Start(ctx, raft.Config{Cluster: "bank", Node: env.ID, Transport: mux.Channel(1), Store: storage.Prefix(env.Store, []byte("g")), Logger: env.Logger})
	if err != nil {
		return nil, err
	}
	if err := node.Bootstrap(ctx, 1, []uint64{1, 2, 3}); err != nil && !errors.Is(err, raft.ErrBootstrapped) {
		node.Close()
		return nil, err
	}
	group, err := node.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: new(txn.DecisionMachine)})
	if err != nil {
		node.Close()
		return nil, err
	}
	forwarder, err := txn.NewForwarder(ctx, txn.ForwarderConfig{Log: group, Node: env.ID, Transport: mux.Channel(2)})
	if err != nil {
		node.Close()
		return nil, err
	}
	cfg.Transport, cfg.Decisions, cfg.TakeOver = mux.Channel(3), txn.NewReplicatedLog(forwarder), 4*time.Second
	return func() { forwarder.Close(); node.Close() }, nil
}

// client transfers, until there is no more time.
func (b *bank) client(ctx context.Context, number int, until time.Duration) {
	r := b.w.Rand()
	for b.w.Now() < until {
		node := uint64(1 + r.IntN(bankNodes))
		m := b.managers[node]
		if m == nil {
			_ = sim.Sleep(ctx, 50*time.Millisecond)
			continue
		}
		from, to, amount := uint64(1+r.IntN(bankNodes)), uint64(1+r.IntN(bankNodes)), 1+r.IntN(50)
		branches := []txn.Participant{on(from, change{fmt.Sprint(r.IntN(bankPer)), -amount})}
		if to != from {
			branches = append(branches, on(to, change{fmt.Sprint(r.IntN(bankPer)), amount}))
			if r.IntN(4) == 0 && b.protocol == txn.TwoPhase {
				branches[1].LastAgent, branches[1].Resource = true, "direct"
			}
		} else {
			branches[0].Work = work(change{"0", -amount}, change{"1", amount})
			if r.IntN(2) == 0 && b.protocol == txn.TwoPhase {
				branches[0].Resource = "direct"
			}
		}
		limit, cancel := sim.WithTimeout(ctx, 5*time.Second)
		tx, err := m.Begin(limit)
		if err == nil {
			err = tx.Commit(limit, branches...)
			b.outcomes[tx.ID()] = err
			for _, p := range branches {
				b.where[tx.ID()] = append(b.where[tx.ID()], p.Node)
			}
		}
		cancel()
		_ = sim.Sleep(ctx, time.Duration(r.IntN(100))*time.Millisecond)
	}
}

// settled reports whether nothing is under way any more.
func (b *bank) settled(ctx context.Context) bool {
	for _, n := range b.w.Nodes() {
		limit, cancel := sim.WithTimeout(ctx, time.Second)
		s, err := b.managers[n.ID].Status(limit)
		cancel()
		if !n.Running() || err != nil || len(s.Transactions)+len(s.InDoubt)+len(s.Stuck) > 0 {
			return false
		}
	}
	return true
}

func (b *bank) check() (committed, aborted, unknown int) {
	total := 0
	for id, a := range b.accounts {
		for i := range bankPer {
			total += a.balance(fmt.Sprint(i))
		}
		if len(a.locked) > 0 {
			b.w.Failf("locks", "node %d keeps locks: %v", id, a.locked)
		}
	}
	if total != bankStart*bankPer*bankNodes {
		b.w.Failf("total", "there are %d, and should be %d", total, bankStart*bankPer*bankNodes)
	}
	for id, err := range b.outcomes {
		done := 0
		for _, node := range b.where[id] {
			if _, err := b.accounts[node].store.Get([]byte("c" + id.String())); err == nil {
				done++
			}
		}
		all := len(b.where[id])
		switch {
		case done != 0 && done != all:
			b.w.Failf("split", "transaction %v was committed by %d of %d", id, done, all)
		case err == nil && done == 0:
			b.w.Failf("lost", "transaction %v was said to be committed, and is not", id)
		case err != nil && !errors.Is(err, synod.ErrUnknownOutcome) && done != 0:
			b.w.Failf("false no", "transaction %v was said not to be committed, and is: %v", id, err)
		}
		switch {
		case err == nil:
			committed++
		case errors.Is(err, synod.ErrUnknownOutcome):
			unknown++
		default:
			aborted++
		}
	}
	return committed, aborted, unknown
}

// Transfers between nodes that crash, links that fail, and disks that stall: no money is lost or made, every client was told
// the truth, and afterwards nothing is locked or in doubt.
func TestSimulation(t *testing.T) {
	seeds := *simulations
	if testing.Short() || racing {
		seeds = min(seeds, 3)
	}
	t.Run("decisions in each coordinator's store", func(t *testing.T) { simulate(t, seeds, bank{}) })
	t.Run("decisions in a group of raft", func(t *testing.T) { simulate(t, seeds/2+1, bank{shared: true}) })
	t.Run("enhanced three-phase commit", func(t *testing.T) { simulate(t, seeds, bank{protocol: txn.EnhancedThreePhase}) })
}

func simulate(t *testing.T, seeds uint64, how bank) {
	var committed, aborted, unknown int
	for seed := range sim.Seeds(1, seeds) {
		b := &bank{shared: how.shared, protocol: how.protocol, managers: map[uint64]*txn.Manager{}, accounts: map[uint64]*accounts{}, outcomes: map[txn.ID]error{}, where: map[txn.ID][]uint64{}}
		sim.Run(t, seed, func(w *sim.World) {
			b.w = w
			for id := uint64(1); id <= bankNodes; id++ {
				w.AddNode(id, b.start)
			}
			const trouble = 20 * time.Second
			for i := range 4 {
				w.Go(func(ctx context.Context) { b.client(ctx, i, trouble) })
			}
			w.Trouble(w.Context(), trouble, sim.Atlas{Damaged: -1})
			for i := 0; !b.settled(w.Context()); i++ {
				if i == 600 {
					for id, m := range b.managers {
						s, err := m.Status(w.Context())
						w.Logf("node %d: %+v %v", id, s, err)
					}
					w.Failf("liveness", "a minute after everything healed there are transactions that are not over")
					return
				}
				_ = sim.Sleep(w.Context(), 100*time.Millisecond)
			}
			for _, n := range w.Nodes() {
				s, err := b.managers[n.ID].Status(w.Context())
				if err != nil || len(s.Damages) > 0 {
					w.Failf("damage", "node %d: %v %v", n.ID, s.Damages, err)
				}
			}
			x, y, z := b.check()
			committed, aborted, unknown = committed+x, aborted+y, unknown+z
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d committed, %d aborted, %d unknown", committed, aborted, unknown)
	if committed < int(seeds) || aborted == 0 {
		t.Errorf("too little happened: %d committed, %d aborted", committed, aborted)
	}
}
