package replica

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/storage"
)

// What a node promised, it must not forget. A node whose disk was wiped has forgotten
// all, and one whose disk was replaced by an old copy has forgotten what came after the
// copy was made. Neither knows that; the others can.
//
// A store draws an incarnation when it is first used. Within it, each start of a node is a
// run, with a number that rises and a name drawn at random; and the commits of all runs are
// counted, in the commits themselves. All that stands in each frame that a node sends.
// Others keep, durably, the incarnation and the run, and how far it had got, which they
// write along with what else they write. They refuse
//
//   - an incarnation that they have not met first, unless the group has admitted it;
//   - a run before the last, or of the same number under another name;
//   - a run that begins with fewer commits than they saw of the last.
//
// And they say so to the node, which stops its groups when it is told that of its own run.
// So an old copy is recognised by each node that has heard of anything that the copy
// lacks. One that has heard of nothing of that can't know: that is why a node that has
// just started gives no vote before all members of a group have said that they listen to
// it, or have been silent for two election timeouts.

// ErrRolledBack is synod.ErrRolledBack: an old copy of a store.
var ErrRolledBack = synod.ErrRolledBack

// run is one start of a node.
type run struct {
	number uint64 // 1: the first
	name   uint64
	base   uint64 // commits of all runs before
}

// pinKey names an incarnation of a peer.
type pinKey struct{ peer, incarnation uint64 }

// pin is what a node remembers of an incarnation of a peer.
type pin struct {
	run, name uint64 // the last run that was heard of; 0: none was
	progress  uint64 // commits that it is known to have made
	durable   bool   // incarnation and run are in the store
	stored    uint64 // the progress that is
	met       bool   // the peer has said that it remembers this node's run, durably
	said      bool   // that it was refused was reported
	dirty     bool   // progress is to be stored
	heard     bool   // since Node.listenFor
}

// identify reads the node's identity, or gives it one if the store is empty, and begins a
// run.
func (n *Node) identify() error {
	store := n.cfg.Store
	key := IdentityKey()
	payload, found, err := getRecord(store, key, 0)
	if err != nil {
		return fmt.Errorf("%s: identity of node %d: %w", n.cfg.Package, n.cfg.Node, err)
	}
	var b storage.Batch
	if found {
		id, err := decodeIdentity(payload)
		if err != nil {
			return fmt.Errorf("%s: %w", n.cfg.Package, &storage.CorruptError{Key: key, Reason: err.Error()})
		}
		if id.cluster != n.cfg.Cluster || id.node != n.cfg.Node {
			return fmt.Errorf("%s: %w: it is that of node %d of cluster %q, not of node %d of cluster %q: check Config.Store, Config.Node and Config.Cluster",
				n.cfg.Package, ErrForeignStore, id.node, id.cluster, n.cfg.Node, n.cfg.Cluster)
		}
		n.incarnation = id.incarnation
		if err := n.readPins(); err != nil {
			return err
		}
		if err := n.readRun(); err != nil {
			return err
		}
	} else {
		if err := n.checkEmpty(); err != nil {
			return err
		}
		id := identity{cluster: n.cfg.Cluster, node: n.cfg.Node, incarnation: n.ex.Uint64()}
		b.Set(key, storage.AppendRecord(nil, key, id.encode()))
		n.incarnation = id.incarnation
		n.counts = make(map[uint64]uint64)
	}
	n.run.number++
	n.run.name = n.ex.Uint64()
	record := binary.LittleEndian.AppendUint64(binary.AppendUvarint(nil, n.run.number), n.run.name)
	b.Set([]byte{tagRun}, storage.AppendRecord(nil, []byte{tagRun}, record))
	if err := store.Commit(&b); err != nil {
		return fmt.Errorf("%s: write identity: %w", n.cfg.Package, err)
	}
	return nil
}

// checkEmpty returns an error if there is anything in a store that has no identity: it
// may hold a life's promises.
func (n *Node) checkEmpty() error {
	it, err := n.cfg.Store.Scan([]byte{tagGroup}, []byte{tagRun + 1})
	if err != nil {
		return fmt.Errorf("%s: read store: %w", n.cfg.Package, err)
	}
	defer it.Close()
	k, _, err := it.Next()
	switch {
	case err == nil:
		return fmt.Errorf("%s: %w", n.cfg.Package, &storage.CorruptError{Key: IdentityKey(),
			Reason: fmt.Sprintf("the node's identity is missing, but there is data of it (key %x)", k)})
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("%s: read store: %w", n.cfg.Package, err)
	}
	return nil
}

// scan reads all records whose keys begin with a tag.
func (n *Node) scan(tag byte, what string, keyBytes int, read func(key, payload []byte) bool) error {
	it, err := n.cfg.Store.Scan([]byte{tag}, []byte{tag + 1})
	if err != nil {
		return fmt.Errorf("%s: read store: %w", n.cfg.Package, err)
	}
	keys, values, err := storage.Collect(it)
	if err != nil {
		return fmt.Errorf("%s: read store: %w", n.cfg.Package, err)
	}
	for i, key := range keys {
		payload, err := storage.OpenRecord(key, values[i])
		if err != nil {
			return fmt.Errorf("%s: %s: %w", n.cfg.Package, what, err)
		}
		if len(key) != keyBytes || !read(key, payload) {
			return fmt.Errorf("%s: %s: %w", n.cfg.Package, what, &storage.CorruptError{Key: key, Reason: "the record is malformed"})
		}
	}
	return nil
}

// readRun reads which run was the last, and how many commits there were.
func (n *Node) readRun() error {
	key := []byte{tagRun}
	payload, found, err := getRecord(n.cfg.Store, key, 0)
	if err != nil {
		return fmt.Errorf("%s: last run of node %d: %w", n.cfg.Package, n.cfg.Node, err)
	}
	r := NewReader(payload)
	n.run.number = r.Uvarint()
	r.Uint64()
	if !found || r.Err() != nil {
		return fmt.Errorf("%s: last run of node %d: %w", n.cfg.Package, n.cfg.Node, &storage.CorruptError{Key: key, Reason: "the record is missing or malformed"})
	}
	n.counts = make(map[uint64]uint64)
	err = n.scan(tagCount, "number of commits", 9, func(key, payload []byte) bool {
		r := NewReader(payload)
		count := r.Uvarint()
		n.counts[binary.BigEndian.Uint64(key[1:])] = count
		n.run.base += count
		return r.Err() == nil
	})
	n.progress.Store(n.run.base)
	return err
}

func (n *Node) readPins() error {
	return n.scan(tagPeer, "incarnation of a peer", 17, func(key, payload []byte) bool {
		k := pinKey{binary.BigEndian.Uint64(key[1:]), binary.BigEndian.Uint64(key[9:])}
		r := NewReader(payload)
		p := pin{run: r.Uvarint(), name: r.Uint64(), progress: r.Uvarint(), durable: true}
		p.stored = p.progress
		n.pins[k] = &p
		if _, several := n.current[k.peer]; several {
			n.current[k.peer] = 0 // the one that is heard from next
		} else {
			n.current[k.peer] = k.incarnation
		}
		return r.Err() == nil
	})
}

// countCommit adds to a batch how many commits there were with it.
func (l *loop) countCommit(c *commit) {
	if c.counted {
		return // it is tried again
	}
	c.counted = true
	l.count++
	key := binary.BigEndian.AppendUint64([]byte{tagCount}, l.number)
	c.batch.Set(key, storage.AppendRecord(nil, key, binary.AppendUvarint(nil, l.count)))
}

// address returns the header of a frame for a peer.
func (n *Node) address(to uint64) frameAddress {
	a := frameAddress{cluster: n.cluster, from: n.cfg.Node, to: to, incarnation: n.incarnation,
		run: n.run, progress: n.progress.Load()}
	n.pinMu.Lock()
	defer n.pinMu.Unlock()
	incarnation := n.current[to]
	if p := n.pins[pinKey{to, incarnation}]; p != nil && p.durable {
		a.expected, a.expectedRun = incarnation, p.run // which says that they will not be forgotten
	}
	return a
}

// listens reports whether what a peer sends is taken in: whether it is one that was met
// before, or admitted, or the first of its ID, and the last run of that.
func (n *Node) listens(peer uint64, a frameAddress) bool {
	trust := probe.Active() && probe.Bug("a wiped node is trusted")
	key := pinKey{peer, a.incarnation}
	n.pinMu.Lock()
	p := n.pins[key]
	if p == nil {
		if _, known := n.current[peer]; known && !trust {
			said := n.refused[peer] == a.incarnation
			n.stranger[peer] = a.incarnation
			n.pinMu.Unlock()
			probe.Sometimes("replica: a wiped node is refused", true)
			n.refuseOnce(peer, said, ErrIncarnation, func() { n.refused[peer] = a.incarnation })
			return false
		}
		p = &pin{}
		n.pins[key] = p
	}
	late := a.run.number < p.run
	twin := a.run.number == p.run && a.run.name != p.name
	back := a.run.number > p.run && a.run.base < p.progress
	if (late || twin || back) && !probe.Bug("an old copy of a disk is trusted") {
		answer := staleNotice{run: a.run.number, name: a.run.name, known: p.run, progress: p.progress}
		said := p.said
		n.pinMu.Unlock()
		n.tell(peer, answer)
		if !late { // which says nothing: a message may have been on its way for long
			probe.Sometimes("replica: an old copy of a disk is refused", back)
			n.refuseOnce(peer, said, fmt.Errorf("%w: node %d began its run %d with %d commits, and had made %d before", ErrRolledBack, peer, a.run.number, a.run.base, answer.progress),
				func() { p.said = true })
		}
		return false
	}
	defer n.pinMu.Unlock()
	n.current[peer] = a.incarnation
	p.heard = true
	if a.run.number > p.run {
		p.run, p.name, p.durable, p.said = a.run.number, a.run.name, false, false
		n.storePin(key, p)
	}
	if a.progress > p.progress {
		p.progress, p.dirty = a.progress, true
	}
	if a.expected == n.incarnation && a.expectedRun == n.run.number {
		p.met = true
	}
	return true
}

// refuseOnce reports a peer that is not listened to, unless it has been.
func (n *Node) refuseOnce(peer uint64, said bool, err error, reported func()) {
	if said {
		n.count(metricFramesRefused, 0, 1)
		return
	}
	if n.refuse(peer, 0, err) {
		n.pinMu.Lock()
		defer n.pinMu.Unlock()
		reported()
	}
}

func pinRecord(key pinKey, p *pin) (k, record []byte) {
	k = binary.BigEndian.AppendUint64([]byte{tagPeer}, key.peer)
	k = binary.BigEndian.AppendUint64(k, key.incarnation)
	record = binary.AppendUvarint(nil, p.run)
	record = binary.LittleEndian.AppendUint64(record, p.name)
	record = binary.AppendUvarint(record, p.progress)
	return k, storage.AppendRecord(nil, k, record)
}

// storePin makes what is known of a peer durable with the next commit. The caller holds
// pinMu.
func (n *Node) storePin(key pinKey, p *pin) {
	k, record := pinRecord(key, p)
	run, progress := p.run, p.progress
	l := n.loops[0]
	l.do(func() {
		l.pending.batch.Set(k, record)
		l.pending.urgent = true
		l.pending.after = append(l.pending.after, func() {
			n.pinMu.Lock()
			defer n.pinMu.Unlock()
			p.stored = max(p.stored, progress)
			p.durable = p.durable || p.run == run
		})
	})
}

// progressTicks is how often the peers' progress is stored, in heartbeats, if there is
// something to store anyway.
const progressTicks = 20

// keepProgress adds to a commit how far the peers have got. It is called now and then when
// there is a commit anyway.
func (n *Node) keepProgress(b *storage.Batch) {
	n.pinMu.Lock()
	defer n.pinMu.Unlock()
	keys := slices.SortedFunc(maps.Keys(n.pins), func(a, b pinKey) int {
		return cmp.Or(cmp.Compare(a.peer, b.peer), cmp.Compare(a.incarnation, b.incarnation))
	})
	for _, key := range keys {
		if p := n.pins[key]; p.dirty && p.durable {
			k, record := pinRecord(key, p)
			b.Set(k, record)
			p.dirty = false
		}
	}
}

// admit takes an incarnation of a peer in that a group has admitted.
func (n *Node) admit(peer, incarnation uint64) {
	if peer == n.cfg.Node || incarnation == 0 {
		return
	}
	n.pinMu.Lock()
	defer n.pinMu.Unlock()
	key := pinKey{peer, incarnation}
	if n.pins[key] != nil {
		return
	}
	p := &pin{}
	n.pins[key] = p
	n.current[peer] = 0 // the one that is heard from next
	n.storePin(key, p)
}

// incarnationOf returns the incarnation of a peer that is durably remembered; 0: none is.
func (n *Node) incarnationOf(peer uint64) uint64 {
	if peer == n.cfg.Node {
		return n.incarnation
	}
	n.pinMu.Lock()
	defer n.pinMu.Unlock()
	incarnation := n.current[peer]
	if p := n.pins[pinKey{peer, incarnation}]; p == nil || !p.durable {
		return 0
	}
	return incarnation
}

// listenFor forgets what was heard of a peer, to find out whether it is there.
func (n *Node) listenFor(peer uint64) {
	n.pinMu.Lock()
	defer n.pinMu.Unlock()
	delete(n.stranger, peer)
	if p := n.pins[pinKey{peer, n.current[peer]}]; p != nil {
		p.heard = false
	}
}

// heardOf returns the incarnation that was heard of since listenFor, and that is durably
// remembered, and one that is not listened to.
func (n *Node) heardOf(peer uint64) (incarnation, stranger uint64) {
	if peer == n.cfg.Node {
		return n.incarnation, 0
	}
	n.pinMu.Lock()
	defer n.pinMu.Unlock()
	incarnation = n.current[peer]
	if p := n.pins[pinKey{peer, incarnation}]; p == nil || !p.durable || !p.heard {
		incarnation = 0
	}
	return incarnation, n.stranger[peer]
}

// met reports whether a peer has said that it remembers this run of this node.
func (n *Node) met(peer uint64) bool {
	n.pinMu.Lock()
	defer n.pinMu.Unlock()
	p := n.pins[pinKey{peer, n.current[peer]}]
	return p != nil && p.met
}

// staleNotice tells a node that a run of it is not listened to.
type staleNotice struct {
	run, name       uint64 // the one that is not
	known, progress uint64 // the run that is known, and its commits
}

func (s staleNotice) append(b []byte) []byte {
	for _, v := range []uint64{s.run, s.name, s.known, s.progress} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// tell sends a notice, once in a heartbeat.
func (n *Node) tell(peer uint64, s staleNotice) {
	if n.often(n.told, peer) {
		return
	}
	frame := appendFrameHeader(make([]byte, 0, frameCapacity(64)), frameStale, n.address(peer))
	n.sendNow(peer, appendFrameMessage(frame, 0, s.append(nil), nil))
}

// toldStale takes a notice in. It counts if it is of this very run: late messages of
// earlier ones are refused too.
func (n *Node) toldStale(from uint64, body []byte) {
	r := NewReader(body)
	s := staleNotice{run: r.Uint64(), name: r.Uint64(), known: r.Uint64(), progress: r.Uint64()}
	if r.Err() != nil {
		n.refuse(from, 0, fmt.Errorf("notice of a stale run: %w", errFrame))
		return
	}
	if s.run != n.run.number || s.name != n.run.name {
		return
	}
	err := fmt.Errorf("%w: node %d knows of run %d of this node, with %d commits; this is run %d, which began with %d: "+
		"wipe it, start it as a new node, and have a member call SetMembers with its new incarnation", ErrRolledBack, from, s.known, s.progress, s.run, n.run.base)
	n.rollBack(err)
}

// rollBack stops all groups of a node whose store is an old copy.
func (n *Node) rollBack(err error) {
	if !n.rolledBack.CompareAndSwap(nil, &err) {
		return
	}
	probe.Sometimes("replica: a node learns that its disk is an old copy", true)
	n.cfg.Logger.Error("this node's store is an old copy: its groups stop", "error", err)
	for _, l := range n.loops {
		l.do(func() {
			for _, g := range append([]*Group(nil), l.order...) {
				l.fail(g, err)
			}
		})
	}
}
