package paxos

import "github.com/synod-go/synod/internal/modelcheck/network"

// bugs are the mistakes that can be put into the core, and the models that find them, the fastest first. Missing is
// "a repair forgets what follows its snapshot": no model repairs. The simulation of whole nodes finds it.
var bugs = []network.Bug{
	{Name: "a promise is forgotten", Models: []string{"base"}},
	{Name: "a promise leaves before it is durable", Models: []string{"base"}},
	{Name: "a trimmed acceptor says empty", Models: []string{"trim", "base"}},
	{Name: "an accept of a lower ballot is taken", Models: []string{"base"}},
	{Name: "an accept does not raise the promise", Models: []string{"base"}},
	{Name: "an accept is acknowledged before it is durable", Models: []string{"base"}},
	{Name: "a promise is not stored", Models: []string{"base"}},
	{Name: "a round is used twice", Models: []string{"base"}},
	{Name: "the round is not durable before the prepare", Models: []string{"base"}},
	{Name: "decided marks slots of other ballots", Models: []string{"base"}},
	{Name: "a filled gap is a fence", Models: []string{"gaps"}},
	{Name: "a leader counts its accept before it is durable", Models: []string{"pipeline"}},
	{Name: "a gap is filled where there is a value", Models: []string{"base"}},
	{Name: "accepts of another ballot counted", Models: []string{"base"}},
	{Name: "the lowest ballot's value taken", Models: []string{"base"}},
	{Name: "a partial promise counts", Models: []string{"pieces"}},
	{Name: "an unreadable slot is empty", Models: []string{"damage"}},
	{Name: "records are not checked", Models: []string{"damage"}},
	{Name: "an unknown slot taken for an empty one", Models: []string{"damage"}},
	{Name: "a new leader answers reads at once", Models: []string{"reads"}},
	{Name: "a leader answers reads without asking", Models: []string{"reads"}},
	{Name: "a read looks at one member only", Models: []string{"looks"}},
	{Name: "a read takes what is accepted for decided", Models: []string{"looks"}},
	{Name: "a lease binds nobody", Models: []string{"leases"}},
	{Name: "a restarted member promises at once", Models: []string{"leases"}},
	{Name: "a node that hears a leader stands for election", Models: []string{"leases"}},
	{Name: "a node that may not be the only voter leads at once", Models: []string{"alone"}},
	{Name: "a fence is about its own round, too", Models: []string{"durable"}},
	{Name: "a quorum of one half decides", Models: []string{"reconfigure"}},
	{Name: "the window open behind a configuration", Models: []string{"reconfigure"}},
	{Name: "phase 1 of the old configuration only", Models: []string{"twice"}},
	{Name: "a replica that leaves forgets its promise", Models: []string{"leave"}},
	{Name: "a replica that joins again takes what it accepted for nothing", Models: []string{"leave"}},
	{Name: "quorums need not intersect", Models: []string{"disjoint"}},
}
