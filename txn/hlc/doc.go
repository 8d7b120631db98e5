// Package hlc is hybrid logical clocks: timestamps that grow with every event that a node knows of, as a logical clock's do, and that
// stay near physical time, so that to read "as of" a time, or to drop what is older than an hour, means something. A maximum offset
// between the clocks of nodes is stated, watched, and held: a node whose clock is wrong fences itself, and does not carry others away.
//
// # Usage
//
// Each node has one [Clock], with the nodes to which it compares itself:
//
//	clock, err := hlc.New(ctx, hlc.Config{
//		Node: 1, Peers: []uint64{1, 2, 3}, Transport: mux.Channel(7),
//		Last: stored, // the highest timestamp that earlier runs have stored
//	})
//	if err := clock.Check(); err != nil { … } // this node's clock is wrong: give out nothing
//	t := clock.Now()
//	… // send t along with what happened at it; on the other side:
//	if err := clock.Update(t); err != nil { … } // theirs or ours is wrong: refuse what came with it
//	… // what happens now is later: clock.Now() > t
//
// # Guarantees
//
// [Clock.Now] returns more with every call, and more than each timestamp that [Clock.Update] took in before: if an event may have
// influenced another, its timestamp is lower. That holds whatever the machine's clock does. Over restarts it holds for what
// was stored and is handed in as Config.Last, or to Update.
//
// Update never takes in what is ahead of this node's physical time by more than Config.MaxOffset. So a clock that is a year
// ahead poisons nobody: what it says is refused, everywhere, until somebody sets it.
//
// [Clock.Check] says whether this node is the one that is wrong: nodes ask each other for the time, and know the difference within half
// of a round trip. One that is certainly further than MaxOffset from most of the peers that it knows of is fenced, as is one whose clock
// was set while it runs, until most peers say that it is right. While it is, Now does not follow the machine's clock: it goes on as it
// went before, on the monotonic clock. So what somebody did to the clock in the meantime is in no timestamp, and when the
// clock is right again, the node is as well, at once.
//
// # Which of two is wrong
//
// Two clocks that are apart do not tell. In a cluster of three or more the majority does. In one of two, both are fenced, and an operator
// decides. A node without peers believes its machine's clock.
//
// # Limits
//
// Nothing here makes a wrong clock right, and no safety should be built on it: a process may stop between Check and what it does
// next, and a clock that is set is found out only with the next answer, [Config].Interval later at most. The first answers come a round
// trip after [New]: a node that starts with a wrong clock does not know until then.
//
// A timestamp that was given out stays the lowest that Now returns. A node that starts with a clock an hour ahead, calls Now without peers to
// tell it, and is set right, is fenced for an hour ([CauseBackwards]), and so is one after a restart whose Config.Last says so.
//
// Physical times are from 1970 to 2116, in steps of 65.536 µs. Peers are at most 256, and fixed; each is sent a message of 14 bytes, and
// an answer of 22, every Interval. Frames say nothing of a cluster: the transport keeps strangers away.
//
// # Differences from the paper
//
// The clock is that of Kulkarni, Demirbas, Madappa, Avva and Leone, "Logical Physical Clocks and Consistent Snapshots in Globally
// Distributed Databases" (2014), in its 64-bit form. There, the counter is reset when the physical part moves on, and must not overflow; here
// a timestamp is one number, of which the successor is one more, so that an overflow carries. There, a message from far ahead is ignored by the
// clock, and no more is said of it; here Update tells the caller, who must refuse what came with it, or its order is lost. What compares clocks,
// fences, and holds a clock that was set is not in the paper. It takes Cristian's estimate of a remote clock (1989), with its bound;
// that the majority decides is what CockroachDB does, which stops the process; here the node goes on when clocks agree again.
package hlc
