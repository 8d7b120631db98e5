package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/storage"
)

// A replica some of whose records are damaged, or missing, does not know what it has promised there:
// it takes no part in anything. But what stood there, others have too. So before it opens its core, it
// asks the other members, one after the other, for what fits into the gap, and writes only what
// provably was there; the protocol knows what proves it. Where they have dropped these entries, and
// where it is the snapshot that is damaged, it fetches a snapshot, if that covers all that it lacks.
// Then it opens as if nothing had happened; if nobody could help, it does not open, and all that was
// there is there still. Replicas that are all damaged, each elsewhere, help each other.
//
// Each piece is durable, in one batch, before the next is asked for: a log that is mended in part is
// still recognised as damaged, and a repair that breaks off is gone on with at the next start.
//
//	need   attempt (8 bytes), what (1 byte), first, last, term, limit
//	give   attempt (8 bytes), status (1 byte), a piece of the log; or index, term and commands
//	       of a snapshot
//
// The snapshot itself comes as in any other transfer (transfer.go), with an empty message for
// the core.

// Gap is what a log lacks: the entries from First to Last. The one at Last has the given term.
type Gap struct{ First, Last, Term uint64 }

// Repairer is a Protocol that can mend a damaged log with what other replicas have.
type Repairer interface {
	// Repair finds out what a group's log lacks. An error says that this can't be known.
	Repair(keys Keys, store storage.Store) (Repair, error)
}

// Repair is a damaged log that is being mended.
type Repair interface {
	// Gap returns what is to be asked for next; false: nothing is missing.
	Gap() (Gap, bool)

	// Fill writes a piece that another replica gave for the gap: entries up to the gap's last,
	// from any of it on. It checks that they are the very same that were there, or else
	// returns an error and writes nothing. It returns the index of the first one.
	Fill(piece []byte, batch *storage.Batch) (first uint64, err error)

	// Start returns the index after which the log begins.
	Start() uint64

	// Fits reports whether a snapshot of what was decided up to a position may take the place
	// of all that the log still lacks: nothing that the replica has acknowledged may be forgotten.
	Fits(at Position) bool

	// Begin lets the log begin after such a snapshot. Entries that follow are kept.
	Begin(at Position, config []byte, batch *storage.Batch) error

	// Unread reports whether there are records that can't be read. Finish removes them when
	// nothing is missing.
	Unread() bool
	Finish(batch *storage.Batch)
}

// EntrySource is a Core, or a Repair, that gives other replicas what they lack.
type EntrySource interface {
	// Entries returns a piece for a gap, of at most so many bytes or of one entry, if the log has, durably, the
	// entry at its end, in that term; nil if it has not.
	Entries(gap Gap, limit int) ([]byte, error)
}

const (
	// maxRepairs is how often one call of StartGroup has something repaired: a log and a
	// snapshot, and what has been damaged meanwhile.
	maxRepairs = 3

	// repairRounds is how often all members are asked before a repair is given up, if none
	// of them helps. The pauses between grow.
	repairRounds = 4
)

// What a replica that is being repaired needs.
const (
	needEntries  = iota + 1
	needOffer    // the newest snapshot's position, if that is not below first
	needSnapshot // the snapshot at last
)

// What it is given.
const (
	giveNothing = iota
	giveEntries
	giveOffer
)

type need struct {
	attempt           uint64
	what              byte
	first, last, term uint64
	limit             uint64
}

func (q need) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, q.attempt)
	b = append(b, q.what)
	for _, v := range []uint64{q.first, q.last, q.term, q.limit} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func decodeNeed(b []byte) (need, error) {
	r := NewReader(b)
	q := need{attempt: r.Uint64(), what: r.Byte(), first: r.Uvarint(), last: r.Uvarint(), term: r.Uvarint(), limit: r.Uvarint()}
	if r.Err() != nil || q.what < needEntries || q.what > needSnapshot || q.what == needEntries && (q.first == 0 || q.first > q.last) {
		return q, errFrame
	}
	return q, nil
}

// give is the answer.
type give struct {
	attempt uint64
	status  byte
	at      Position
	piece   []byte
}

func (a give) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, a.attempt)
	b = append(b, a.status)
	if a.status == giveOffer {
		b = appendPosition(b, a.at)
	}
	return append(b, a.piece...)
}

func decodeGive(b []byte) (give, error) {
	r := NewReader(b)
	a := give{attempt: r.Uint64(), status: r.Byte()}
	switch a.status {
	case giveNothing:
	case giveEntries:
		a.piece = r.Rest()
	case giveOffer:
		a.at = r.position()
	default:
		r.fail()
	}
	if r.Err() != nil || a.status == giveEntries && len(a.piece) == 0 {
		return a, errFrame
	}
	return a, nil
}

// repair is one group's, while StartGroup waits for it.
type repair struct {
	node *Node
	g    *Group
	log  Repair
	wake *executor.Event

	mu      sync.Mutex
	peer    uint64 // who is asked
	attempt uint64
	answer  *give
	asked   []repairRequest // by others that are being repaired
	chunks  []chunkMessage
	late    bool
	ended   bool // the node closes

	// What was repaired by one peer, and not reported yet.
	helper, first, last uint64
	badSessions         bool // the checkpoint can't be read, or is of a state that is lost
	own                 bool // this node has an intact snapshot
}

// repairRequest is a need that another replica has.
type repairRequest struct {
	from uint64
	need
}

// maxRequests is how many of them wait at most.
const maxRequests = 8

var errNobody = errors.New("no peer could help")

// repair mends the records of a group that can't be opened. If it can't, it returns the error that
// says what is damaged.
func (n *Node) repair(ctx context.Context, g *Group, damage error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = errors.Join(damage, panicError(v))
		}
	}()
	protocol, ok := n.cfg.Protocol.(Repairer)
	if !ok {
		return damage
	}
	r := &repair{node: n, g: g, wake: executor.NewEvent()}
	damaged, err := r.inspect(protocol)
	if err != nil {
		return damage // nothing says what was there
	}
	_, missing := r.log.Gap()
	if !missing && !damaged {
		// What can't be read is in effect nowhere.
		if err := r.finish(); err != nil {
			return fmt.Errorf("%w (%w)", damage, err)
		}
		return nil
	}
	peers := r.peers()
	if len(peers) == 0 && !r.own {
		return fmt.Errorf("%w (%w: there is none)", damage, errNobody)
	}
	n.cfg.Logger.Warn("a group's records are damaged, and its peers are asked for what is missing", "group", g.id, "peers", peers, "log", missing, "snapshot", damaged, "error", damage)
	if !g.loop.do(func() {
		if g.loop.repairs[g.id] = r; g.loop.stopping {
			r.end()
		}
		g.loop.tellMembers(g)
	}) {
		return synod.ErrClosed
	}
	defer g.loop.do(func() {
		if g.loop.repairs[g.id] == r {
			delete(g.loop.repairs, g.id)
		}
	})
	err = r.run(ctx, peers, damaged)
	r.report(0)
	if err != nil {
		return fmt.Errorf("%w (%w)", damage, err)
	}
	probe.Sometimes("replica: a record is repaired", true)
	n.cfg.Logger.Info("the group's records are whole again", "group", g.id)
	return nil
}

// inspect finds out what is damaged, and reads who may help.
func (r *repair) inspect(protocol Repairer) (snapshot bool, err error) {
	g, store := r.g, r.node.cfg.Store
	if name, found, err := getRecord(store, g.keys.key(tagMeta), g.id); err != nil || !found || string(name) != r.node.cfg.Protocol.Name() {
		return false, errors.Join(errNobody, err)
	}
	if err := g.readIntroduced(); err != nil {
		return false, err
	}
	if g.banned, err = readBanned(store, g.keys); err != nil {
		return false, err
	}
	if !g.introduced {
		return false, errNobody // it has taken no part in anything
	}
	start, config, err := r.node.cfg.Protocol.Start(g.keys, store)
	if err != nil {
		return false, err
	}
	if r.log, err = protocol.Repair(g.keys, store); err != nil {
		return false, err
	}
	_, keepsState := g.cfg.StateMachine.(synod.DurableIndex)
	meta, found, err := g.readSnapshotMeta()
	switch {
	case errors.Is(err, storage.ErrCorrupt):
		snapshot = true
	case err != nil:
		return false, err
	case found:
		g.snapshot = meta
		if meta.Index > start.Index {
			config = meta.Config
		}
		reader := &chunkReader{group: g, meta: meta}
		for scratch := make([]byte, chunkBytes); err == nil; {
			_, err = reader.Read(scratch)
		}
		if snapshot = errors.Is(err, storage.ErrCorrupt); !snapshot && reader.err != nil && !reader.over() {
			return false, err
		}
		r.own = !snapshot
	default:
		snapshot = !keepsState && start.Commands > 0
	}
	if keepsState {
		payload, _, err := getRecord(store, g.keys.key(tagCheckpoint), g.id)
		if err == nil && payload != nil {
			_, _, err = decodeCheckpoint(payload)
		}
		r.badSessions = err != nil
		have, err := g.cfg.StateMachine.(synod.DurableIndex).DurableIndex()
		if err != nil {
			return false, err
		}
		// What the state machine has lost can't be had from the log. The sessions are of later.
		r.badSessions = r.badSessions || have < start.Commands && !r.own
		snapshot = snapshot || r.badSessions
	}
	if g.conf, err = DecodeConfiguration(config); err != nil {
		return false, err
	}
	if _, missing := r.log.Gap(); !missing && !snapshot && !r.log.Unread() {
		return false, errNobody // it is something else
	}
	return snapshot, nil
}

// over reports whether all chunks were read.
func (r *chunkReader) over() bool { return r.next == r.meta.Chunks && len(r.rest) == 0 }

// peers returns whom to ask: the members as far as they are known, and then whom this node has met.
func (r *repair) peers() []uint64 {
	own := r.node.cfg.Node
	peers := r.g.conf.Nodes(func(p Participant) bool { return p.Node != own })
	for _, node := range r.node.acquaintances() {
		if node != own && !slices.Contains(peers, node) {
			peers = append(peers, node)
		}
	}
	return peers
}

// receive takes in what arrives for a group that is being repaired. The loop calls it.
func (r *repair) receive(f *inFrame, body []byte) {
	if !r.g.loop.admits(r.g, f.from, f.incarnation) {
		return
	}
	var answer give
	var chunk chunkMessage
	var asked need
	var err error
	switch f.kind {
	case frameGive:
		answer, err = decodeGive(body)
	case frameChunk:
		chunk, err = decodeChunk(body)
	case frameNeed:
		asked, err = decodeNeed(body)
	default:
		return
	}
	if err != nil {
		r.node.refuse(f.from, r.g.id, fmt.Errorf("message of a repair: %w", err))
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case f.kind == frameNeed:
		if len(r.asked) < maxRequests {
			r.asked = append(r.asked, repairRequest{f.from, asked})
		}
	case f.from != r.peer:
	case f.kind == frameGive && answer.attempt == r.attempt:
		r.answer = &answer
	case f.kind == frameChunk && len(r.chunks) < chunkWindow:
		r.chunks = append(r.chunks, chunk)
	}
	r.wake.Set()
}

func (r *repair) end() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.wake.Set()
}

// endRepairs ends all repairs of a loop: the node closes.
func (l *loop) endRepairs() {
	for _, id := range slices.Sorted(maps.Keys(l.repairs)) {
		l.repairs[id].end()
	}
}

// wait waits until ready says so, with mu held, or for a while. An error ends the repair.
func (r *repair) wait(ctx context.Context, d time.Duration, ready func() bool) error {
	r.mu.Lock()
	r.late = false
	r.mu.Unlock()
	timer := r.node.ex.AfterFunc(d, func() {
		r.mu.Lock()
		r.late = true
		r.mu.Unlock()
		r.wake.Set()
	})
	defer timer.Stop()
	for {
		r.serve()
		r.mu.Lock()
		ended, over := r.ended, r.late || ready()
		r.mu.Unlock()
		switch {
		case ended:
			return synod.ErrClosed
		case over:
			if err := r.node.rolledBack.Load(); err != nil {
				return *err
			}
			return ctx.Err()
		}
		if err := executor.From(ctx, r.node.ex).Wait(ctx, r.wake); err != nil {
			return err
		}
	}
}

// serve answers others that are being repaired, too, with what is intact here.
func (r *repair) serve() {
	r.mu.Lock()
	asked := r.asked
	r.asked = nil
	r.mu.Unlock()
	for _, q := range asked {
		if _, member := r.g.conf.Find(q.from); !member || q.what == needSnapshot {
			continue
		}
		answer := give{attempt: q.attempt}
		if source, ok := r.log.(EntrySource); ok && q.what == needEntries {
			limit := min(q.limit, uint64(r.node.cfg.MaxBatchBytes))
			if piece, err := source.Entries(Gap{First: q.first, Last: q.last, Term: q.term}, int(limit)); err == nil && len(piece) > 0 {
				answer.status, answer.piece = giveEntries, piece
			}
		}
		message := answer.append(nil)
		send := func() { r.g.loop.sendControl(r.g, q.from, frameGive, message) }
		if wait := r.node.pace(len(message)); wait > 0 {
			r.node.ex.AfterFunc(wait, send)
		} else {
			send()
		}
	}
}

// ask asks one peer, and returns nil if it does not answer.
func (r *repair) ask(ctx context.Context, peer uint64, q need) (*give, error) {
	q.attempt = r.node.ex.Uint64()
	r.mu.Lock()
	r.peer, r.attempt, r.answer, r.chunks = peer, q.attempt, nil, nil
	r.mu.Unlock()
	r.g.loop.sendControl(r.g, peer, frameNeed, q.append(nil))
	err := r.wait(ctx, r.node.cfg.ElectionTimeout, func() bool { return r.answer != nil })
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answer, err
}

// run asks the peers in turn, until all is whole, or nobody has helped for repairRounds.
func (r *repair) run(ctx context.Context, peers []uint64, snapshot bool) error {
	for round := 0; round < repairRounds && len(peers) > 0; round++ {
		if round > 0 {
			if err := r.wait(ctx, r.node.cfg.ElectionTimeout/2<<round, func() bool { return false }); err != nil {
				return err
			}
		}
		for _, peer := range peers {
			whole, moved, err := r.from(ctx, peer, snapshot)
			if err != nil || whole {
				return err
			}
			if moved {
				round = 0
			}
		}
	}
	if whole, err := r.useSnapshot(); err != nil || whole {
		return err
	}
	return errNobody
}

// useSnapshot lets the log begin after this node's own snapshot, if that covers what nobody else
// has. What is dropped are entries that only followers might have asked for.
func (r *repair) useSnapshot() (bool, error) {
	at := r.g.snapshot.Position
	if _, missing := r.log.Gap(); !missing || !r.own || !r.log.Fits(at) {
		return false, nil
	}
	var b storage.Batch
	if err := r.log.Begin(at, r.g.snapshot.Config, &b); err != nil {
		return false, nil
	}
	r.log.Finish(&b)
	if err := r.node.cfg.Store.Commit(&b); err != nil {
		return false, err
	}
	probe.Sometimes("replica: a node's own snapshot covers damaged entries", true)
	r.report(r.node.cfg.Node)
	r.first, r.last = 0, at.Index
	return true, nil
}

// from takes what one peer has. It reports whether all is whole now, and whether there is more than
// before.
func (r *repair) from(ctx context.Context, peer uint64, snapshot bool) (whole, moved bool, err error) {
	for {
		gap, missing := r.log.Gap()
		if !missing {
			break
		}
		answer, err := r.ask(ctx, peer, need{what: needEntries, first: gap.First, last: gap.Last, term: gap.Term, limit: uint64(r.node.cfg.MaxBatchBytes)})
		if err != nil || answer == nil {
			return false, moved, err
		}
		if answer.status != giveEntries {
			snapshot = true // it has them no more, or never had
			break
		}
		var b storage.Batch
		first, err := r.log.Fill(answer.piece, &b)
		if err != nil {
			r.node.refuse(peer, r.g.id, fmt.Errorf("answer to a repair: %w", err))
			return false, moved, nil
		}
		if err := r.node.cfg.Store.Commit(&b); err != nil {
			return false, moved, err
		}
		r.mended(peer, first, gap.Last)
		moved = true
	}
	if snapshot {
		whole, err := r.useSnapshot()
		if !whole && err == nil {
			whole, err = r.fetchSnapshot(ctx, peer)
		}
		return whole, moved, err
	}
	err = r.finish()
	return err == nil, moved, err
}

// finish removes what can't be read, when nothing is missing.
func (r *repair) finish() error {
	var b storage.Batch
	if r.log.Finish(&b); b.Len() == 0 {
		return nil
	}
	return r.node.cfg.Store.Commit(&b)
}

// mended notes what is to be reported.
func (r *repair) mended(peer, first, last uint64) {
	if r.helper == peer && last == r.first-1 {
		r.first = first
		return
	}
	r.report(peer)
	r.first, r.last = first, last
}

// report reports what a peer has given, and begins with the next.
func (r *repair) report(next uint64) {
	if r.helper != 0 {
		r.node.cfg.Logger.Info("damaged records came again from a peer", "group", r.g.id, "peer", r.helper, "first", r.first, "last", r.last)
		r.node.emit(synod.Event{Kind: synod.EventRepaired, Group: r.g.id, Peer: r.helper, First: r.first, Index: r.last})
	}
	r.helper = next
}

// fetchSnapshot fetches a peer's snapshot that covers all that is missing, if there is one.
func (r *repair) fetchSnapshot(ctx context.Context, peer uint64) (bool, error) {
	least := r.log.Start()
	if gap, missing := r.log.Gap(); missing {
		least = gap.Last
	}
	for range 3 { // it may have to take one first, or a newer one
		answer, err := r.ask(ctx, peer, need{what: needOffer, first: least})
		if err != nil || answer == nil {
			return false, err
		}
		if answer.status == giveOffer && r.log.Fits(answer.at) {
			return r.receiveSnapshot(ctx, peer, answer.at)
		}
		if answer.status == giveOffer {
			least = max(least, answer.at.Index+1)
		}
		if err := r.wait(ctx, r.node.cfg.ElectionTimeout/2, func() bool { return false }); err != nil {
			return false, err
		}
	}
	return false, nil
}

// receiveSnapshot receives a snapshot, chunk after chunk, and lets it take the place of what is
// missing.
func (r *repair) receiveSnapshot(ctx context.Context, peer uint64, at Position) (bool, error) {
	g, store := r.g, r.node.cfg.Store
	r.mu.Lock()
	r.peer, r.attempt, r.answer, r.chunks = peer, 0, nil, nil
	r.mu.Unlock()
	in := &incoming{id: r.node.ex.Uint64()}
	drop := func(err error) (bool, error) {
		var b storage.Batch
		g.deleteChunks(&b, in.id)
		return false, errors.Join(err, store.Commit(&b))
	}
	// As patient as the sender, which repeats chunks, and gives up.
	for idle := 0; idle <= chunkRetries*chunkWindow; {
		if in.next == 0 {
			g.loop.sendControl(g, peer, frameNeed, need{attempt: r.node.ex.Uint64(), what: needSnapshot, last: at.Index}.append(nil))
		}
		if err := r.wait(ctx, r.node.cfg.ElectionTimeout, func() bool { return len(r.chunks) > 0 }); err != nil {
			return drop(err)
		}
		r.mu.Lock()
		if len(r.chunks) == 0 {
			r.mu.Unlock()
			idle += chunkWindow
			continue
		}
		c := r.chunks[0]
		r.chunks = r.chunks[1:]
		r.mu.Unlock()
		if idle++; c.number == 0 && c.transfer != in.transfer {
			in.transfer, in.next, in.size, in.sum = c.transfer, 0, 0, 0
		} else if c.transfer == in.transfer && c.number == in.next {
			idle = 0
		}
		if c.transfer != in.transfer || c.number != in.next {
			g.loop.ackChunk(g, peer, c.transfer, in.next, chunkWanted)
			continue
		}
		in.next++
		in.size += uint64(len(c.data))
		in.sum = ChecksumUpdate(in.sum, c.data)
		if c.last && (in.size != c.meta.Size || in.sum != c.meta.Sum || in.next != c.meta.Chunks || !r.log.Fits(c.meta.Position)) {
			r.node.refuse(peer, g.id, fmt.Errorf("snapshot at index %d: the chunks do not add up, or it does not cover what is missing: %w", c.meta.Index, errFrame))
			g.loop.ackChunk(g, peer, c.transfer, in.next, chunkRefused)
			return drop(nil)
		}
		var b storage.Batch
		key := g.chunkKey(in.id, c.number)
		b.Set(key, storage.AppendRecord(nil, key, c.data))
		if c.last {
			if err := r.begin(c.meta, in.id, &b); err != nil {
				r.node.refuse(peer, g.id, err)
				g.loop.ackChunk(g, peer, c.transfer, in.next, chunkRefused)
				return drop(nil)
			}
		}
		if err := store.Commit(&b); err != nil {
			return false, err
		}
		if c.last {
			g.loop.ackChunk(g, peer, c.transfer, in.next, chunkComplete)
			probe.Sometimes("replica: a snapshot takes the place of damaged records", true)
			r.report(peer)
			r.first, r.last = 0, c.meta.Index
			return true, nil
		}
		g.loop.ackChunk(g, peer, c.transfer, in.next, chunkWanted)
	}
	return drop(nil)
}

// begin writes the records of a snapshot whose chunks are there.
func (r *repair) begin(meta SnapshotMeta, id uint64, b *storage.Batch) error {
	g := r.g
	if _, err := DecodeConfiguration(meta.Config); err != nil {
		return err
	}
	if err := r.log.Begin(meta.Position, meta.Config, b); err != nil {
		return err
	}
	r.log.Finish(b)
	meta.ID = id // the chunks of another one are nobody's then, and go when the group opens
	key := g.keys.key(tagSnapshot)
	b.Set(key, storage.AppendRecord(nil, key, meta.Append(nil)))
	if r.badSessions {
		b.Delete(g.keys.key(tagCheckpoint)) // they are in the snapshot
	}
	return nil
}

// receiveNeed answers a replica that is being repaired.
func (l *loop) receiveNeed(g *Group, from uint64, body []byte) {
	q, err := decodeNeed(body)
	if err != nil {
		l.node.refuse(from, g.id, fmt.Errorf("request for a repair: %w", err))
		return
	}
	if _, member := g.conf.Find(from); !l.live(g) || !g.introduced || g.removed || g.giving || !member {
		return
	}
	defer l.recover(g)
	answer := give{attempt: q.attempt}
	switch q.what {
	case needEntries:
		source, ok := g.core.(EntrySource)
		if !ok {
			return
		}
		limit := min(q.limit, uint64(l.node.cfg.MaxBatchBytes))
		piece, err := source.Entries(Gap{First: q.first, Last: q.last, Term: q.term}, int(limit))
		if err != nil {
			l.node.cfg.Logger.Warn("a peer lacks entries that can't be read here either", "group", g.id, "peer", from, "error", err)
		}
		if err == nil && len(piece) > 0 {
			answer.status, answer.piece = giveEntries, piece
		}
	case needOffer:
		if meta, ok := g.offer(q.first); ok {
			answer.status, answer.at = giveOffer, meta.Position
		} else if g.applied.Load() >= q.first {
			l.requestSnapshot(g)
		}
	case needSnapshot:
		g.snapMu.Lock()
		busy := g.senders[from] != nil
		g.snapMu.Unlock()
		if meta, ok := g.offer(q.last); ok && meta.Index == q.last && !busy {
			l.startTransferSnapshot(g, SnapshotRequest{To: from, Index: q.last})
		}
		return
	}
	l.give(g, from, answer)
}

// offer returns a snapshot that could be sent, if it is not below an index. A captured state is
// kept for a while.
func (g *Group) offer(least uint64) (SnapshotMeta, bool) {
	g.snapMu.Lock()
	defer g.snapMu.Unlock()
	if live := g.live; live != nil && !live.busy && live.meta.Index >= least {
		live.until = g.node.ex.Now().Add(resumeTimeouts * g.node.cfg.ElectionTimeout)
		return live.meta, true
	}
	return g.snapshot, g.snapshot.Chunks > 0 && g.snapshot.Index >= least
}

// give sends an answer, no faster than snapshots travel. Until it has left, the group takes no other
// request.
func (l *loop) give(g *Group, to uint64, answer give) {
	message := answer.append(nil)
	wait := l.node.pace(len(message))
	if wait <= 0 {
		l.sendControl(g, to, frameGive, message)
		return
	}
	g.giving = true
	l.node.ex.AfterFunc(wait, func() {
		l.do(func() {
			if g.giving = false; l.live(g) {
				l.sendControl(g, to, frameGive, message)
			}
		})
	})
}
