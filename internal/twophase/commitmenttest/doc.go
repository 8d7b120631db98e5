// Package commitmenttest simulates nodes that run the core of a commitment protocol, and tries what can happen to them: a crash before and
// after every action, alone and in pairs, every message lost and repeated, and everything at random. It also plays scripts. It tests
// two-phase commit, below which it stands for the words that both speak, and three-phase commit.
//
// # Usage
//
// A package says in [Protocol] how its core is started and what it wants done, and makes a [World] of nodes with it:
//
//	w := commitmenttest.NewWorld(3, commitmenttest.Protocol[*Core, Message, Branch]{Start: …, Ready: …})
//	w.Open()
//	id := w.Begin(1, branches...)
//	w.Nodes[2].Resources["a"].Votes[id] = VoteNo
//	w.Commit(id)
//	w.Finish()
//	require.Empty(t, w.Broken)
//
// In a world nothing happens by itself. What the cores want done waits in Queue, and messages wait in Net, until the test does one of them
// ([World.Act], [World.Deliver]), all ([World.Settle]), or all until every transaction is over ([World.Finish]).
//
// A [Scenario] is a transaction in a new world; its methods run it once for each crash, and for each message. [Random] does so for
// seeds, with [World.Chaos] for the trouble, [RunScripts] plays scripts on a [Stage], and a [Hunt] shows that mistakes are found.
//
// # Guarantees
//
// Everything that a core does is an action that a crash can come before and after: a message sent, a batch made durable, a resource called,
// and what a protocol adds. Actions of a node that crashes are gone, and what was durable stays. The same calls give the same run. What
// must not be is in World.Broken: a split, a wrong answer, a lock that is kept, a core that stopped, or that has not ended.
//
// # Limits
//
// A batch is durable as a whole or not at all, and messages are not damaged. A world is for one goroutine.
package commitmenttest
