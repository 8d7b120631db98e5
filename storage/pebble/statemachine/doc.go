// Package statemachine is a state machine that keeps its state on disk, in Pebble: as
// much of it as the disk holds, and after a restart there at once, without a replay of
// everything. The application says what a command does to a map of ordered keys;
// everything else, durability, snapshots and their transfer, is done here.
//
// # Usage
//
//	machine, err := statemachine.Open(statemachine.Config{
//		Dir: "/var/lib/app/state",
//		Apply: func(tx *statemachine.Tx, index uint64, command []byte) (result []byte) {
//			key, value, _ := bytes.Cut(command, []byte("="))
//			tx.Set(key, value)
//			return nil
//		},
//	})
//	…
//	group, err := node.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: machine})
//	…
//	view, err := machine.View()
//	value, err := view.Get(key)
//
// A read through a [View] is linearizable after a Barrier of the group. Each group has a
// machine, and each machine a directory of its own. Close the node, then the machine.
//
// # How it works
//
// There is no write-ahead log: the group's log is one. Commands go to a table in
// memory, all of a batch and the index of the last one at once. The tables are written
// to disk in the background, in order and each as a whole, when they are full, after a
// while, or when the group asks how far it may cut its log. After a crash the state is
// that at the end of some batch, and DurableIndex says which: it reads the index from
// what is on disk, where it lies among the effects of the commands. The group replays
// what follows.
//
// A snapshot is a checkpoint: links to the tables, which do not change. So it costs
// little to take, whatever the size of the state, and the group goes on while it is
// sent, file by file. It is restored into a directory of its own, verified, synced, and
// put in the place of the old one by a rename.
//
// # Guarantees
//
// A batch takes effect whole or not at all, for views and across a crash. DurableIndex
// never tells more than survives a crash at that moment. When Restore returns, the new
// state is durable; if it fails, or a crash interrupts it, the old one is there. Open
// removes what a crash left over.
//
// A view does not change, also when a snapshot is restored meanwhile.
//
// # Failures
//
// The first write or sync that fails freezes the directory as it is. Nothing is tried
// again: Apply panics with an error that wraps storage.ErrFailed, and the replica
// stops. Opened again, the machine holds what DurableIndex had told, or more. Pebble,
// which would end the process, is kept from noticing.
//
// While the disk is full, Apply and Snapshot wait for room, and so does the group's
// replica; nothing is lost. What is in memory then is bounded by
// [Config].MemTableBytes. Waiting ends with Close.
//
// What can't be believed is a *storage.CorruptError: a table with a flipped bit when it
// is read or sent, a manifest when the machine is opened, a snapshot when it is
// restored. A directory that has lost a part is never taken for an empty one. Who
// removes it, opens the machine anew and starts the group gets the state from another
// member.
//
// # Limits
//
// What lies between DurableIndex and the last command is in memory alone. A group has
// its log for that; who uses a machine without one calls Flush.
//
// A machine that was stopped together with its group is closed and opened again before
// the group is started again, see [ErrOutOfOrder].
//
// One command may write 1 GiB at most ([ErrTooLarge]). Apply waits where compactions
// can't keep up. Restore needs room on the disk for both states, and a snapshot that is
// being sent holds on to tables that were compacted meanwhile.
//
// All replicas must understand Pebble's format of the others: take every node to a new
// version of this library before a format that it alone can write is switched on.
package statemachine
