package replica

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/storage"
)

// RecoverConfig is what Recover needs. The engines have the same, with documentation.
type RecoverConfig struct {
	Cluster    string
	Node       uint64
	Group      uint64
	Store      storage.Store
	AcceptLoss bool
	Logger     *slog.Logger
}

// Remains is what a node's store has of a group.
type Remains struct {
	Group    uint64
	Term     uint64 // the last that it has heard of
	First    uint64 // index of the oldest entry that the log still holds
	Last     uint64 // of the newest before which none is missing
	LastTerm uint64 // in which the newest was proposed last
	Commit   uint64 // every index up to this one is known to be decided
	Members  []synod.Member

	// Earlier is who else may still be one, for the last changes in the log need not have been
	// decided: the members of the last configuration that is known to be, and of those after it.
	Earlier []synod.Member

	Err error // why the rest could not be read
}

// Configured notes a configuration that stands in the log, after those that were noted before, and
// whether it is known to be decided.
func (r *Remains) Configured(c Configuration, decided bool) {
	among := func(list []synod.Member, m synod.Member) bool {
		return slices.ContainsFunc(list, func(o synod.Member) bool {
			return o.Node == m.Node && (o.Incarnation == m.Incarnation || o.Incarnation == 0 || m.Incarnation == 0)
		})
	}
	before := append(r.Members, r.Earlier...)
	r.Members, r.Earlier = c.Current(), nil
	if decided {
		return
	}
	for _, m := range before {
		if !among(r.Members, m) && !among(r.Earlier, m) {
			r.Earlier = append(r.Earlier, m)
		}
	}
	slices.SortFunc(r.Earlier, func(a, b synod.Member) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Incarnation, b.Incarnation))
	})
}

// Inspect reads what a store has of groups.
func Inspect(protocol Protocol, store storage.Store) (incarnation uint64, list []Remains, err error) {
	payload, found, err := getRecord(store, IdentityKey(), 0)
	if err != nil {
		return 0, nil, err
	}
	if !found {
		return 0, nil, nil
	}
	id, err := decodeIdentity(payload)
	if err != nil {
		return 0, nil, &storage.CorruptError{Key: IdentityKey(), Reason: err.Error()}
	}
	for group := uint64(0); ; group++ {
		it, err := store.Scan(GroupKeys(group).key(0), []byte{tagGroup + 1})
		if err != nil {
			return 0, nil, err
		}
		key, _, err := it.Next()
		if err == nil && len(key) < 10 {
			err = &storage.CorruptError{Key: slices.Clone(key), Reason: "not the key of a group"}
		}
		if err != nil {
			it.Close()
			if errors.Is(err, io.EOF) {
				return id.incarnation, list, nil
			}
			return 0, nil, err
		}
		group = beUint64(key[1:])
		it.Close()
		name, found, err := getRecord(store, GroupKeys(group).key(tagMeta), group)
		switch {
		case err == nil && !found: // it was left, or never came to be
		case err == nil && string(name) != protocol.Name():
			list = append(list, Remains{Group: group, Err: keptBy(name, protocol)})
		default:
			list = append(list, protocol.Inspect(GroupKeys(group), store))
		}
		if group == ^uint64(0) {
			return id.incarnation, list, nil
		}
	}
}

// Recover makes a node the only voter of a group whose majority is lost.
func Recover(protocol Protocol, pkg string, c RecoverConfig) error {
	fail := func(err error) error {
		return fmt.Errorf("%s: recover group %d on node %d: %w", pkg, c.Group, c.Node, err)
	}
	bad := func(field, reason string) error {
		return &synod.ConfigError{Package: pkg, Field: field, Reason: reason}
	}
	switch {
	case c.Cluster == "":
		return bad("Cluster", "missing: the name of the cluster")
	case c.Node == 0:
		return bad("Node", "missing: the node whose store this is")
	case c.Group == 0:
		return bad("Group", "missing: the group that has lost its majority")
	case c.Store == nil:
		return bad("Store", "missing: the survivor's store, which no node must be using")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	store, keys := c.Store, GroupKeys(c.Group)
	payload, found, err := getRecord(store, IdentityKey(), 0)
	if err != nil {
		return fail(err)
	}
	if !found {
		return fail(ErrNotBootstrapped)
	}
	id, err := decodeIdentity(payload)
	if err != nil {
		return fail(&storage.CorruptError{Key: IdentityKey(), Reason: err.Error()})
	}
	if id.cluster != c.Cluster || id.node != c.Node {
		return fail(fmt.Errorf("%w: it is that of node %d of cluster %q", ErrForeignStore, id.node, id.cluster))
	}
	name, found, err := getRecord(store, keys.key(tagMeta), c.Group)
	switch {
	case err != nil:
		return fail(err)
	case !found:
		return fail(ErrNotBootstrapped)
	case string(name) != protocol.Name():
		return fail(keptBy(name, protocol))
	}
	remains := protocol.Inspect(keys, store)
	if remains.Err != nil {
		return fail(remains.Err)
	}
	if !slices.ContainsFunc(remains.Members, func(m synod.Member) bool { return m.Node == c.Node }) {
		return fail(fmt.Errorf("%w: it has never been a member, or is none any more", synod.ErrRemoved))
	}
	var lost []uint64
	for _, m := range append(remains.Members, remains.Earlier...) {
		if m.Node != c.Node && !slices.Contains(lost, m.Node) {
			lost = append(lost, m.Node)
		}
	}
	if !c.AcceptLoss {
		return fail(bad("AcceptLoss", fmt.Sprintf("not set: the group would go on from index %d of term %d, of which %d were decided for certain, and without nodes %v: "+
			"what was acknowledged beyond that would be lost. Set it if no majority of the members can be had back, and this one has the newest log of those that can", remains.Last, remains.LastTerm, remains.Commit, lost)))
	}

	// Everything in one batch.
	var b storage.Batch
	config := Configuration{Members: []Participant{{Member: synod.Member{Node: c.Node, Incarnation: id.incarnation}, Voter: true}}}
	for _, m := range remains.Members {
		if m.Node == c.Node {
			config.Members[0].Address = m.Address
		}
	}
	encoded := config.Append(nil)
	g := &Group{id: c.Group, keys: keys, node: &Node{cfg: Config{Settings: Settings{Store: store}}}}
	if err := g.readIntroduced(); err != nil {
		return fail(err)
	}
	banned, err := readBanned(store, keys)
	if err != nil {
		return fail(err)
	}
	for _, m := range append(remains.Members, remains.Earlier...) {
		incarnation := m.Incarnation
		if incarnation == 0 {
			incarnation = g.founders[m.Node]
		}
		if m.Node != c.Node && incarnation != 0 {
			banned = append(banned, pinKey{m.Node, incarnation})
		}
	}
	writeBanned(keys, banned, &b)
	introduced := keys.key(tagIntroduced)
	b.Set(introduced, storage.AppendRecord(nil, introduced, nil))
	meta, found, err := g.readSnapshotMeta()
	if err != nil {
		return fail(err)
	}
	if found {
		meta.Config = encoded
		key := keys.key(tagSnapshot)
		b.Set(key, storage.AppendRecord(nil, key, meta.Append(nil)))
	}
	checkpointed, found, err := getRecord(store, keys.key(tagCheckpoint), c.Group)
	if err != nil {
		return fail(err)
	}
	if found {
		cp, _, err := decodeCheckpoint(checkpointed)
		if err != nil {
			return fail(&storage.CorruptError{Group: c.Group, Key: keys.key(tagCheckpoint), Reason: err.Error()})
		}
		cp.config = encoded
		cp.store(keys, &b)
	}
	if err := protocol.Recover(keys, store, encoded, &b); err != nil {
		return fail(err)
	}
	if err := store.Commit(&b); err != nil {
		return fail(err)
	}
	c.Logger.Error("RECOVERED A GROUP WITHOUT ITS MAJORITY: what others had acknowledged beyond this log is lost. The members that were given up must be wiped before they come back",
		"group", c.Group, "node", c.Node, "term", remains.Term+1, "last", remains.Last, "decided for certain", remains.Commit, "given up", lost)
	return nil
}

// A member that was given up may come back with what it had. It would speak for a group that
// has gone on without it, so that nothing of that incarnation is listened to any more.

func writeBanned(keys Keys, list []pinKey, b *storage.Batch) {
	var record []byte
	for _, k := range list {
		record = binary.LittleEndian.AppendUint64(record, k.peer)
		record = binary.LittleEndian.AppendUint64(record, k.incarnation)
	}
	key := keys.key(tagBanned)
	b.Set(key, storage.AppendRecord(nil, key, record))
}

func readBanned(store storage.Store, keys Keys) (list []pinKey, err error) {
	key := keys.key(tagBanned)
	payload, _, err := getRecord(store, key, keys.group)
	if err != nil {
		return nil, err
	}
	r := NewReader(payload)
	for r.Len() > 0 && r.err == nil {
		list = append(list, pinKey{r.Uint64(), r.Uint64()})
	}
	if r.Err() != nil {
		return nil, &storage.CorruptError{Group: keys.group, Key: key, Reason: "the record of members that were given up is malformed"}
	}
	return list, nil
}
