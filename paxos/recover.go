package paxos

import (
	"context"
	"log/slog"

	"github.com/synod-go/synod/internal/multipaxos"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// RecoverConfig says which group is to go on without its majority, from which store.
// Cluster, Node, Group and Store are required, and AcceptLoss.
type RecoverConfig struct {
	// Cluster names the cluster, as in Config.
	Cluster string

	// Node is the survivor's ID.
	Node uint64

	// Group is the group that has lost its majority.
	Group uint64

	// Store is the survivor's, which no node is using. The caller closes it.
	Store storage.Store

	// AcceptLoss says that what the other members had beyond this store may be lost.
	// Without it, Recover changes nothing and says in its error what it would lose.
	AcceptLoss bool

	// Logger is told, as an error, what was done. Default: nothing is logged.
	Logger *slog.Logger
}

// Recover makes a node the only voter of a group, in its store, when the majority of the members
// is lost for good. It is the last resort: commands that were acknowledged and that this node
// lacks are lost, and some that were not may count. Choose the survivor with the newest log: the
// highest Remains.LastTerm, then the highest Remains.Last, see [Inspect]. Where it lacks values in between, nothing takes their place.
//
// The node must not run meanwhile. Afterwards it leads alone; others become members again by
// Join, with empty stores, and Group.SetMembers. The members that were given up must be wiped
// before they come back. This node does not listen to them as they were, but if a majority of the
// old members comes back, that is another group that goes by the same name.
//
// The change is durable when Recover returns nil, and happens as a whole or not at all. Errors: a
// *synod.ConfigError, also if AcceptLoss is not set; ErrForeignStore; ErrNotBootstrapped; an error that matches
// storage.ErrCorrupt if the group's records can't be read.
func Recover(_ context.Context, c RecoverConfig) error {
	return replica.Recover(multipaxos.Protocol{}, name, replica.RecoverConfig(c))
}

// Remains is what a store has of a group.
type Remains = replica.Remains

// Inspect reads which groups a node's store has, and how far, ascending by group. The node must
// not run. Groups that can't be read have an Err.
func Inspect(_ context.Context, store storage.Store) ([]Remains, error) {
	_, list, err := replica.Inspect(multipaxos.Protocol{}, store)
	return list, err
}
