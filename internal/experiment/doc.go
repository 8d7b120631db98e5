// Command experiment lets the engines do the same work under the same trouble, in a simulation,
// and prints a table and a chart of what became of it:
//
//	go run ./internal/experiment                    # all of them
//	go run ./internal/experiment -only partial -seeds 50
//
// What they are:
//
//   - partial: links are cut so that not everybody reaches everybody. How long until a
//     write that begins after that is acknowledged, and what is the longest gap between two? The
//     scenarios are those of Ng, Haridi and Carbone, "Omni-Paxos: Breaking the Barriers of Partial
//     Connectivity" (EuroSys 2023), section 2, and a chain of five.
//   - stale: of five members only one that lacks the newest entries reaches a majority.
//   - slow: some of five members are slow. With a quorum of two for phase 2, a leader
//     needs only one that is not.
//   - loss: each link loses some messages. How long from the proposal of an entry until it is
//     chosen, and until it is decided along with all before it?
//   - replace: a majority of the members is replaced while clients write.
//
// Each run is drawn from a seed: network, disks, the order of tasks, and who leads. Time is
// virtual, so that the figures depend on the seeds alone, and are the same on every
// machine; computing costs no time in them. Both engines get the same seeds, network, disks
// and timeouts: heartbeats every 100 ms and elections after one to two seconds. Raft runs with pre-vote and
// check-quorum, as always here.
package main
