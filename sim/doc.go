// Package sim runs a whole cluster on one thread, in virtual time, from a seed: nodes,
// network, disks and clocks, with faults. The same seed gives the same run, so that a
// failure that is found once is replayed as often as it takes. What runs inside is the
// shipping code, and an application's own, unchanged: only what stands behind
// transport.Transport, storage.Store and the executor of its context is simulated.
//
// # Usage
//
//	for seed := range sim.Seeds(1, 100) {
//		sim.Run(t, seed, func(w *sim.World) {
//			for id := uint64(1); id <= 3; id++ {
//				w.AddNode(id, func(ctx context.Context, env *sim.Env) (func(), error) {
//					node, err := raft.Start(ctx, raft.Config{Transport: env.Transport, Store: env.Store, …})
//					…
//					return func() { node.Close() }, nil
//				})
//			}
//			w.Go(func(ctx context.Context) { … group.Propose(ctx, command) … })
//			w.Trouble(w.Context(), 20*time.Second, sim.Atlas{})
//			… // everything is whole again: there must be progress, and nothing may be lost
//		})
//	}
//
// The function runs on a task of its own, as do the functions passed to AddNode and
// Go; each may block in the library's calls with the context that it gets, and in
// [Sleep]. Time passes only while all tasks wait. A run has two phases: [World.Trouble]
// injects what [Kinds] lists, as often as the seed has drawn; then everything heals, and
// the run must go on.
//
// What must always hold is a [World.Check], which runs after every event; package
// sim/history checks what clients saw. [Sometimes] marks places that a sweep must have
// reached, [Buggify] branches that a simulation takes more often than the world does.
//
// A failed run says why, with its seed, what was planned, the end of its trace, the few
// faults that the failure needs ([Shrink]), and how to see it again:
//
//	SYNOD_SIM='seed=17 keep=3,9' go test -run '^TestStore$'
//
// # Guarantees
//
// One seed, one trace: every event that the world takes (deliveries, completions,
// timers, faults, the order in which tasks run), every message and every commit feeds
// a hash, which Result reports. For that, what runs inside must take time, randomness
// and concurrency from its context ([Sleep], [WithTimeout], [Now], [Rand], [Go]; the library
// does), and must not let the order of a map's keys reach its behaviour.
//
// A crash loses what a node's disk had not made durable, or keeps a part of it, whole
// commits in their order, as the seed decides. A fault goes its way whatever others do,
// so that they can be dropped one by one. [Atlas] keeps the damage within what a system
// promises to survive.
//
// # Limits
//
// One simulation runs in a process at a time: go.etcd.io/raft/v3 draws its election
// jitter from crypto/rand.Reader, which Run replaces while it runs, and Sometimes and
// Buggify have no context. More run in more processes, and no test runs beside one, in
// parallel. Code that blocks by other means than the library's calls (a channel,
// time.Sleep, sync.WaitGroup) blocks the whole world; a context that ends on real time fails
// the run.
//
// Batches are atomic, as storage.Store has it: that a store keeps to it when a disk
// tears what it writes is for the store's own tests. Messages arrive whole.
package sim
