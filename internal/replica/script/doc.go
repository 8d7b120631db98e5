// Package script plays scenarios that a person can read: bare cores of one group, over stores in
// memory, and by hand, one step at a time, everything that a runtime does around them.
//
// # Usage
//
// A [Runner] plays one script, command by command. [Play] plays a whole one and returns it with what
// the cores did; if nothing has changed it returns what it was given. The format is that of
// github.com/cockroachdb/datadriven: comments, a command, four hyphens, what is printed, an empty line.
//
//	# Node 1 is elected, and the promise of node 3 is lost.
//	campaign 1
//	----
//	preparing, promised 2.1
//	write state promised=2.1 decided=1 last=1 runs=0
//	token 1
//
// An [Engine] says which protocol it is, and how its messages and records read.
//
// # Language
//
// A command is a word and arguments: bare words, or name=value, where a value may be a list
// as in voters=(1,2,3).
//
//	bootstrap voters=3             creates nodes 1 to 3
//	  [spare=COUNT]                and more, that belong to no configuration yet
//	  [election=TICKS] [heartbeat=TICKS] [leases]
//	  [durable]                    state machines are durable as soon as they have applied something
//	  [pending=BYTES] [message=BYTES] [inflight=BYTES] [cache=BYTES] [apply=BYTES]
//	  and what the engine takes besides
//	campaign NODE                  starts an election
//	tick NODE… [n=COUNT]           lets time pass
//	propose NODE VALUE…            proposes values; no value may be proposed twice in a script
//	reconfigure NODE voters=(…)    proposes a configuration
//	  [outgoing=(…)] [learners=(…)]
//	read NODE ATTEMPT              asks for a read index
//	transfer NODE to=NODE          hands the leadership over
//	unreachable NODE peer=NODE     reports dropped messages
//	trust NODE                     says that the store is not an old one
//	ready NODE                     collects and prints what the core wants done
//	persist NODE [n=COUNT]         makes the oldest COUNT batches durable (default: all)
//	                               and acknowledges them
//	write NODE                     makes all batches visible in the store, but not durable
//	applied NODE [to=INDEX]        acknowledges decisions
//	net                            prints the messages on their way
//	deliver [FILTER]               delivers messages, in their order
//	drop [FILTER]                  loses them
//	duplicate [FILTER]             puts them on their way once more
//	settle NODE… [loud] [keep]     works off all that these nodes have to do, snapshots that are wanted
//	  [ticks=COUNT]                included, and loses messages to and from others, or keeps them on their
//	                               way; lets time pass in between
//	crash NODE [down]              loses what is not durable and opens the node again, or does not
//	start NODE [held]              opens it; held: it gives no vote before trust
//	damage NODE slot=N [missing]   flips a bit of the records that hold a slot, or removes them
//	damage NODE record=WORD [missing]   the same for the records whose description begins with a word
//	leave NODE                     removes the replica from its node
//	join NODE                      makes a replica that knows nothing yet
//	snapshot NODE                  offers the applied state to followers
//	compact NODE INDEX             drops the log up to there
//	status [NODE…]                 what a core says of itself
//	log NODE                       its log
//	disk NODE                      the records in the store
//
// A FILTER picks from the messages on their way: from=N, to=N, type=WORD, the first word of its
// description; slot=N, one that brings a value for this slot; any other name=value, and any bare
// word, as it stands in the description; then nth=K, the K-th of those; then n=COUNT, so many of them
// at most.
//
// Unless the engine's scripts say so themselves ([Engine.Manual]), the cores' output is collected and
// printed after every input, and the state machine applies at once. What is to be durable waits for
// persist.
//
// # Guarantees
//
// After each command the invariants are checked that hold for any engine: one value for each decided
// index, decisions in order, a read that misses nothing that was decided before it, no value decided
// that was said to be lost; and those of [Engine.Check]. What is broken is printed, after VIOLATION.
//
// A panic of a core, by which it says what its protocol excludes, is printed too; the node is down then.
//
// # Limits
//
// A script is one group on one thread. It says nothing of a runtime's frames, sessions or threads: the
// simulations of sim do.
package script
