// Package sim runs a whole cluster on one thread, in virtual time, from a seed:
// nodes, network and disks, with faults. The same seed gives the same run, so that
// a failure is found once and replayed as often as it takes. What runs inside is
// the shipping code, and an application's own, unchanged: only what stands behind
// transport.Transport, storage.Store and the executor of its context is simulated.
//
// # Usage
//
//	sim.Run(t, seed, func(w *sim.World) {
//		for id := uint64(1); id <= 3; id++ {
//			w.AddNode(id, func(ctx context.Context, env *sim.Env) (func(), error) {
//				node, err := raft.Start(ctx, raft.Config{Transport: env.Transport, Store: env.Store, …})
//				…
//				return func() { node.Close() }, nil
//			})
//		}
//		w.Go(func(ctx context.Context) { … group.Propose(ctx, command) … })
//		w.Trouble(20 * time.Second) // everything from w.Faults, at rates that the seed draws
//		w.Heal()
//		…
//	})
//
// The function runs on a task of its own, as do the functions passed to AddNode and
// Go; each may block in the library's calls with the context that it gets. Time
// passes only while all tasks wait.
//
// # Guarantees
//
// One seed, one trace: every event that the world takes (deliveries, completions,
// timers, faults, the order in which tasks run) feeds a hash, which Result reports.
// For that, what runs inside must take time, randomness and concurrency from its
// context's executor (the library does), and must not let the order of a map's
// keys reach its behaviour.
//
// A crash loses what a node's disk had not made durable, or keeps a part of it, whole
// commits in their order, as the seed decides.
//
// # Limits
//
// One simulation runs in a process at a time: go.etcd.io/raft/v3 draws its
// election jitter from crypto/rand.Reader, which Run replaces while it runs. Code
// that blocks by other means than the library's calls (a channel, time.Sleep, a
// context made by context.WithTimeout) blocks the whole world, or runs on real
// time: use World.Sleep and World.WithTimeout. Disks fail as a whole, or lose
// commits; bits that flip and old copies are not simulated yet, nor are clocks that
// run apart.
package sim
