package raft

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

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
// highest Remains.LastTerm, then the highest Remains.Last, see [Inspect].
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
	return replica.Recover(protocol{}, "raft", replica.RecoverConfig(c))
}

// Remains is what a store has of a group.
type Remains = replica.Remains

// Inspect reads which groups a node's store has, and how far, ascending by group. The node must
// not run. Groups that can't be read have an Err.
func Inspect(_ context.Context, store storage.Store) ([]Remains, error) {
	_, list, err := replica.Inspect(protocol{}, store)
	return list, err
}

// Inspect implements replica.Protocol.
func (protocol) Inspect(keys replica.Keys, store storage.Store) replica.Remains {
	r := replica.Remains{Group: keys.Group()}
	log, err := openLog(keys, store, 0)
	if err != nil {
		r.Err = err
		return r
	}
	end, err := log.end()
	if err != nil {
		r.Err = err
		return r
	}
	r.Term, r.First, r.Last, r.LastTerm, r.Commit = log.hard.GetTerm(), log.start.Index+1, log.last, end.Term, log.hard.GetCommit()
	_, config, err := readStart(keys, store)
	if err != nil {
		r.Err = err
		return r
	}
	c, err := replica.DecodeConfiguration(config)
	if err == nil {
		r.Configured(c, true)
		err = eachRun(keys, store, func(_ []byte, _ uint64, entries []*raftpb.Entry) error {
			for _, e := range entries {
				if e.GetType() == raftpb.EntryNormal || e.GetIndex() <= log.start.Index {
					continue
				}
				_, c, err := decodeChange(e.GetData())
				if err != nil {
					return err
				}
				r.Configured(c, e.GetIndex() <= r.Commit)
			}
			return nil
		})
	}
	r.Err = err
	return r
}

// eachRun calls fn with each run of a log.
func eachRun(keys replica.Keys, store storage.Store, fn func(key []byte, before uint64, entries []*raftpb.Entry) error) error {
	from, to := keys.ProtocolRange(tagLog)
	it, err := store.Scan(from, to)
	if err != nil {
		return err
	}
	defer it.Close()
	for {
		key, value, err := it.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		entries, before, err := openRun(keys.Group(), slices.Clone(value))
		if err != nil {
			return err
		}
		if err := fn(slices.Clone(key), before, entries); err != nil {
			return err
		}
	}
}

// Recover implements replica.Protocol.
func (protocol) Recover(keys replica.Keys, store storage.Store, config []byte, batch *storage.Batch) error {
	log, err := openLog(keys, store, 0)
	if err != nil {
		return err
	}
	start := keys.Protocol(tagStart)
	batch.Set(start, storage.AppendRecord(nil, start, encodeStart(log.start, config)))
	// Changes of members become empty entries of the same index and term.
	err = eachRun(keys, store, func(key []byte, before uint64, entries []*raftpb.Entry) error {
		changes := false
		for i, e := range entries {
			if e.GetType() != raftpb.EntryNormal {
				entries[i] = &raftpb.Entry{Term: new(e.GetTerm()), Index: new(e.GetIndex())}
				changes = true
			}
		}
		if changes {
			batch.Set(key, appendRun(nil, keys.Group(), before, entries))
		}
		return nil
	})
	if err != nil {
		return err
	}
	last, err := log.end()
	if err != nil {
		return err
	}
	hard := keys.Protocol(tagHard)
	state := &raftpb.HardState{Term: new(log.hard.GetTerm() + 1), Commit: new(last.Index)}
	batch.Set(hard, storage.AppendRecord(nil, hard, encodeHard(state, last)))
	return nil
}
