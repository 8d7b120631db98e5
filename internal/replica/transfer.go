package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/transport"
)

// A snapshot travels as chunks over the transport's bulk lane. The sender keeps up
// to chunkWindow of them unacknowledged, and repeats those when nothing moves for a
// while. The receiver takes them in order, stores each, and acknowledges what is
// durable: "next" is the number of the chunk that it waits for. The last chunk
// carries the snapshot's description and the message for the receiver's core.
//
// A transfer that breaks off is begun again by the core that wants it. If it is of the same
// snapshot, by its ID, the receiver asks for the chunk that it lacks, also after a restart: what
// it has is durable, with how much it is and the checksum so far. The sender goes there. It
// keeps what it captured of a state machine that keeps its state itself for a while, to be written
// again and to the same bytes.
//
//	chunk   transfer (8 bytes), snapshot (8 bytes), number, last (1 byte), checksum of the
//	        data (4 bytes), on the last: description, message for the core; data
//	ack     transfer (8 bytes), next, status (1 byte)
const (
	chunkWindow  = 8
	chunkRetries = 10 // rounds of repetition without progress until it is given up
)

type chunkStatus uint8

const (
	chunkWanted   chunkStatus = iota // go on with next
	chunkRefused                     // the receiver does not know this transfer any more: give up
	chunkComplete                    // the receiver has all of it
)

// sender is one transfer to one peer.
type sender struct {
	id   uint64
	wake *executor.Event
	turn *executor.Event // it may send, or the group has stopped

	mu     sync.Mutex
	next   uint64
	status chunkStatus
	ended  bool
	late   bool // nothing has moved for a while
	asked  int  // how often next was asked for since it moved
	again  bool // a chunk was lost: the receiver asks for it, again and again
	behind bool // the receiver asks for a chunk that it has acknowledged
}

// chunkGap is how many acknowledgements that ask for the same chunk say that it was
// lost. Those of chunks that came before it are fewer, as a link keeps the order.
const chunkGap = 3

// liveSnapshot is a captured state of a state machine that keeps its state itself.
type liveSnapshot struct {
	meta   SnapshotMeta
	writer io.WriterTo
	limit  int // bytes of a chunk
	busy   bool
	known  bool      // to the core
	until  time.Time // kept so long for a transfer that broke off, or does not begin
}

// requestSnapshot has the applier take a snapshot for a peer, unless one is on its way to the core: that a
// core asks again before it knows of it is no reason to drop it for a newer one, of which the core
// would not know either when it asks next.
func (l *loop) requestSnapshot(g *Group) {
	g.snapMu.Lock()
	coming := g.capturing || g.live != nil && !g.live.busy && !g.live.known
	g.snapMu.Unlock()
	if !coming {
		g.wantSnapshot.Store(true)
		g.pushApply(applyItem{})
	}
}

// captureLive takes a handle on the state, to be streamed to a peer. The applier
// calls it.
func (g *Group) captureLive() {
	g.wantSnapshot.Store(false)
	s := &g.apply
	g.snapMu.Lock()
	old := g.live
	if old != nil && old.busy {
		g.snapMu.Unlock()
		return
	}
	g.live, g.capturing = nil, true
	g.snapMu.Unlock()
	if old != nil {
		closeSnapshot(old.writer)
	}
	w, err := g.captureState()
	if err != nil {
		g.snapMu.Lock()
		g.capturing = false
		g.snapMu.Unlock()
		g.node.cfg.Logger.Error("state machine gave no snapshot: a peer that is behind must wait", "group", g.id, "error", err)
		return
	}
	live := &liveSnapshot{writer: w, limit: chunkLimit(), meta: SnapshotMeta{Position: s.position, Held: s.held(), Config: s.config, ID: g.node.ex.Uint64()}}
	g.snapMu.Lock()
	g.live, g.capturing = live, false
	g.snapMu.Unlock()
	if !g.loop.do(func() {
		if g.loop.live(g) {
			defer g.loop.recover(g)
			g.snapMu.Lock()
			live.known = true
			live.until = g.node.ex.Now().Add(resumeTimeouts * g.node.cfg.ElectionTimeout)
			g.snapMu.Unlock()
			g.core.SnapshotAvailable(live.meta)
			g.loop.mark(g)
		} else {
			g.releaseLive()
		}
	}) {
		g.releaseLive()
	}
}

// releaseLive closes the captured state unless a transfer reads it.
func (g *Group) releaseLive() {
	g.snapMu.Lock()
	live := g.live
	if live == nil || live.busy {
		g.snapMu.Unlock()
		return
	}
	g.live = nil
	g.snapMu.Unlock()
	closeSnapshot(live.writer)
}

// After a transfer broke off, the sender keeps the captured state, and the log behind it, for
// so many election timeouts, and as long one for which nobody has come yet; the receiver keeps what it has for as many as partialTimeouts.
const (
	resumeTimeouts  = 20
	partialTimeouts = 500
)

// expireTransfers drops what transfers that broke off have left, when nobody has come back.
func (l *loop) expireTransfers(g *Group) {
	now := l.node.ex.Now()
	g.snapMu.Lock()
	expired := g.live != nil && !g.live.busy && !g.live.until.IsZero() && now.After(g.live.until)
	g.snapMu.Unlock()
	if expired {
		g.releaseLive()
	}
	if in := g.incomer; in != nil && !in.complete && g.unstored == 0 && now.After(in.until) {
		l.dropIncoming(g, chunkRefused)
	}
}

// startTransferSnapshot begins what a core asked for.
func (l *loop) startTransferSnapshot(g *Group, req SnapshotRequest) {
	s := &sender{id: l.node.ex.Uint64(), wake: executor.NewEvent(), turn: executor.NewEvent()}
	g.snapMu.Lock()
	var meta SnapshotMeta
	var live *liveSnapshot
	switch {
	case g.senders[req.To] != nil:
	case g.live != nil && g.live.meta.Index == req.Index && !g.live.busy:
		live, meta = g.live, g.live.meta
		live.busy = true
	case g.snapshot.Chunks > 0 && g.snapshot.Index == req.Index:
		meta = g.snapshot
		g.pins[meta.ID]++
	}
	started := meta.Index != 0
	if started {
		g.senders[req.To] = s
		g.holds[req.To] = hold{index: meta.Index}
	}
	g.snapMu.Unlock()
	if started {
		started = g.spawn(func() { g.sendSnapshot(s, req, meta, live) })
		if !started {
			g.endTransfer(s, req.To, meta, live, true)
		}
	}
	if !started {
		if _, ok := g.cfg.StateMachine.(synod.DurableIndex); ok {
			// A captured state serves one transfer. That one is over, or under way to
			// another peer: this one gets a state of its own.
			l.requestSnapshot(g)
		}
		g.core.SnapshotSent(req.To, false)
		l.mark(g)
	}
}

// hold keeps the log behind a snapshot that a peer receives. Where the log is cut
// faster than a snapshot travels, a peer would get one after the other, and never the
// entries that follow it.
type hold struct {
	index uint64
	until time.Time // zero: while the transfer lasts
}

// held reports whether the log up to an index is kept for a peer.
func (l *loop) held(g *Group, index uint64) bool {
	g.snapMu.Lock()
	defer g.snapMu.Unlock()
	if len(g.holds) == 0 {
		return false
	}
	now, held := l.node.ex.Now(), false
	peers := g.core.Status().Peers
	maps.DeleteFunc(g.holds, func(peer uint64, h hold) bool {
		over := !h.until.IsZero() && (now.After(h.until) || slices.ContainsFunc(peers, func(p synod.PeerStatus) bool {
			return p.Node == peer && p.Match > h.index
		}))
		held = held || !over && index > h.index
		probe.Sometimes("replica: the log is kept for a snapshot's receiver", held)
		return over
	})
	return held
}

// endTransfer releases what a transfer held. The peer has some time to fetch the
// entries that follow the snapshot.
func (g *Group) endTransfer(s *sender, to uint64, meta SnapshotMeta, live *liveSnapshot, done bool) {
	patience := time.Duration(2)
	if !done {
		patience = resumeTimeouts
	}
	until := g.node.ex.Now().Add(patience * g.node.cfg.ElectionTimeout)
	g.snapMu.Lock()
	if !probe.Bug("a snapshot's transfer is never over") {
		delete(g.senders, to)
	}
	g.holds[to] = hold{index: meta.Index, until: until}
	drop := false
	if live != nil {
		live.busy = false
		live.until = until
	} else {
		if g.pins[meta.ID]--; g.pins[meta.ID] == 0 {
			delete(g.pins, meta.ID)
			drop = g.snapshot.ID != meta.ID
		}
	}
	g.snapMu.Unlock()
	if live != nil && (done || g.stopped.Load()) {
		g.releaseLive()
	}
	if drop {
		g.loop.do(func() { g.deleteChunks(&g.loop.pending.batch, meta.ID) })
	}
}

// paceBurst is how much time's worth a transfer may send at once after it had to wait for
// something else.
const paceBurst = 50 * time.Millisecond

// pace returns how long a transfer has to wait before it sends so many bytes, for all of the
// node's to stay below the limit together.
func (n *Node) pace(bytes int) time.Duration {
	rate, burst := float64(n.cfg.SnapshotBytesPerSecond), paceBurst
	slow := probe.Buggify("replica: transfers are slow")
	if slow {
		rate, burst = 500, 0
	}
	now := n.ex.Now()
	n.paceMu.Lock()
	defer n.paceMu.Unlock()
	if earliest := now.Add(-burst); n.paced.Before(earliest) {
		n.paced = earliest
	}
	wait := n.paced.Sub(now)
	n.paced = n.paced.Add(time.Duration(float64(bytes) / rate * float64(time.Second)))
	if latest := now.Add(2 * n.cfg.ElectionTimeout); slow && n.paced.After(latest) {
		n.paced = latest // it ends soon after the trouble
	}
	return wait
}

func (g *Group) sendSnapshot(s *sender, req SnapshotRequest, meta SnapshotMeta, live *liveSnapshot) {
	err := g.stream(s, req, meta, live)
	g.endTransfer(s, req.To, meta, live, err == nil)
	if err != nil {
		g.node.cfg.Logger.Warn("snapshot not sent", "group", g.id, "to", req.To, "index", meta.Index, "error", err)
	} else {
		g.node.emit(synod.Event{Kind: synod.EventSnapshotSent, Group: g.id, Peer: req.To, Index: meta.Index, Term: meta.Term})
	}
	probe.Sometimes("replica: a snapshot is sent", err == nil)
	probe.Sometimes("replica: a snapshot can't be sent", err != nil)
	g.loop.do(func() {
		if g.loop.live(g) {
			defer g.loop.recover(g)
			g.core.SnapshotSent(req.To, err == nil)
			g.loop.mark(g)
		}
	})
	// A corrupt chunk is this node's trouble, not the receiver's.
	if errors.Is(err, storage.ErrCorrupt) {
		g.stop(err)
	}
}

var (
	errTransferRefused   = errors.New("the receiver broke the transfer off")
	errTransferForgotten = errors.New("the receiver has restarted and lost what it had")
	errTransferStuck     = errors.New("the receiver does not answer")
)

// stream sends all chunks and waits until the receiver has them.
func (g *Group) stream(s *sender, req SnapshotRequest, meta SnapshotMeta, live *liveSnapshot) error {
	var unacked [][]byte // messages of the chunks from first on
	var first uint64
	transmit := func(message []byte) {
		if wait := g.node.pace(len(message)); wait > 0 {
			probe.Sometimes("replica: a transfer waits for its turn", true)
			timer := g.node.ex.AfterFunc(wait, s.turn.Set)
			_ = g.node.ex.Wait(context.Background(), s.turn) // the background is not cancelled
			timer.Stop()
		}
		frame := appendFrameHeader(make([]byte, 0, frameCapacity(len(message)+32)), frameChunk, g.node.address(req.To))
		frame = sealFrame(appendFrameMessage(frame, g.id, message, nil))
		// What is not sent is not acknowledged, and so repeated.
		_ = transport.SendBulk(g.node.cfg.Transport, req.To, frame)
	}
	// await returns once fewer than limit chunks are unacknowledged.
	await := func(limit int) error {
		retry := g.node.ex.AfterFunc(g.node.cfg.ElectionTimeout, func() {
			s.mu.Lock()
			s.late = true
			s.mu.Unlock()
			s.wake.Set()
		})
		defer retry.Stop()
		idle := 0
		for {
			s.mu.Lock()
			next, status, ended, late, again, behind := s.next, s.status, s.ended, s.late, s.again, s.behind
			s.late, s.again = false, false
			if late {
				s.behind = false
			}
			s.mu.Unlock()
			moved := next > first
			for ; first < next && len(unacked) > 0; first++ {
				unacked = unacked[1:]
			}
			switch {
			case ended:
				return g.closedError()
			case status == chunkRefused:
				return errTransferRefused
			case status == chunkComplete:
				unacked = nil
				return nil
			case len(unacked) < limit:
				return nil
			case moved:
				idle = 0
				retry.Reset(g.node.cfg.ElectionTimeout)
			case late, again:
				if late {
					idle++
				}
				switch {
				case idle > chunkRetries:
					return errTransferStuck
				case late && idle > 1 && behind:
					// To repeated chunks: no such answer comes late. It has restarted.
					return errTransferForgotten
				}
				for _, m := range unacked {
					probe.Sometimes("replica: a chunk is sent again", true)
					transmit(m)
				}
				retry.Reset(g.node.cfg.ElectionTimeout)
			}
			if err := g.node.ex.Wait(context.Background(), s.wake); err != nil {
				return err
			}
		}
	}
	sent := meta
	put := func(number uint64, data []byte, last bool) error {
		s.mu.Lock()
		has := number < s.next
		s.mu.Unlock()
		if has && !last { // the receiver has it from before
			first = number + 1
			unacked = nil
			return nil
		}
		message := binary.LittleEndian.AppendUint64(make([]byte, 0, 64+len(data)+len(req.Message)+len(meta.Config)), s.id)
		message = binary.LittleEndian.AppendUint64(message, meta.ID)
		message = binary.AppendUvarint(message, number)
		if last {
			message = append(message, 1)
		} else {
			message = append(message, 0)
		}
		message = binary.LittleEndian.AppendUint32(message, Checksum(data))
		if last {
			message = AppendBytes(message, sent.Append(nil))
			message = AppendBytes(message, req.Message)
		}
		message = append(message, data...)
		unacked = append(unacked, message)
		transmit(message)
		return await(chunkWindow)
	}
	if live != nil {
		cw := chunkWriter{limit: live.limit}
		cw.put = func(number uint64, data []byte, last bool) error {
			sent.Size, sent.Chunks, sent.Sum = cw.size, number+1, cw.sum
			return put(number, data, last)
		}
		if _, err := live.writer.WriteTo(&cw); err != nil {
			return err
		}
		if err := cw.finish(); err != nil {
			return err
		}
	} else {
		r := chunkReader{group: g, meta: meta}
		for number := range meta.Chunks {
			s.mu.Lock()
			has := number < s.next && number < meta.Chunks-1
			s.mu.Unlock()
			if has {
				if err := put(number, nil, false); err != nil {
					return err
				}
				continue
			}
			data, err := r.chunk(number)
			if err != nil {
				return err
			}
			if err := put(number, data, number == meta.Chunks-1); err != nil {
				return err
			}
		}
	}
	if err := await(1); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status != chunkComplete {
		return errTransferStuck
	}
	return nil
}

// receiveChunkAck takes the answer of a receiver.
func (l *loop) receiveChunkAck(g *Group, from uint64, body []byte) {
	r := NewReader(body)
	id, next, status := r.Uint64(), r.Uvarint(), chunkStatus(r.Byte())
	if err := r.Err(); err != nil || status > chunkComplete {
		l.node.refuse(from, g.id, fmt.Errorf("acknowledgement of a chunk: %w", errFrame))
		return
	}
	g.snapMu.Lock()
	s := g.senders[from]
	g.snapMu.Unlock()
	if s == nil || s.id != id {
		return
	}
	s.mu.Lock()
	if s.status == chunkWanted {
		switch {
		case next > s.next:
			s.next, s.asked = next, 0
		case next < s.next && status == chunkWanted:
			s.behind = true
		case next == s.next && status == chunkWanted:
			if s.asked++; s.asked == chunkGap {
				s.again = true
			}
		}
		s.status = status
	}
	s.mu.Unlock()
	s.wake.Set()
}

// endSnapshots wakes the transfers of a group that has stopped.
func (g *Group) endSnapshots() {
	g.snapMu.Lock()
	for _, to := range slices.Sorted(maps.Keys(g.senders)) { // in the same order in each run of a seed
		s := g.senders[to]
		s.mu.Lock()
		s.ended = true
		s.mu.Unlock()
		s.wake.Set()
		s.turn.Set()
	}
	g.snapMu.Unlock()
	g.releaseLive()
}

// incoming is a snapshot that is being received.
type incoming struct {
	from     uint64
	transfer uint64
	source   uint64 // the sender's ID of the snapshot
	id       uint64 // under which the chunks are stored
	next     uint64 // the chunk that is stored next
	durable  uint64 // the chunks below are durable
	size     uint64
	sum      uint32

	durableSize uint64 // of the durable chunks
	durableSum  uint32

	until    time.Time // kept so long, if no more comes
	complete bool
	meta     SnapshotMeta
}

// chunkMessage is a chunk as it travels.
type chunkMessage struct {
	transfer, source, number uint64
	last                     bool
	meta                     SnapshotMeta // on the last one
	message, data            []byte
}

func decodeChunk(body []byte) (c chunkMessage, err error) {
	r := NewReader(body)
	c.transfer, c.source, c.number = r.Uint64(), r.Uint64(), r.Uvarint()
	last := r.Byte()
	c.last = last == 1
	var sumBytes [4]byte
	for i := range sumBytes {
		sumBytes[i] = r.Byte()
	}
	if c.last {
		m := NewReader(r.Bytes())
		c.meta.Read(m)
		c.message = r.Bytes()
		if m.Err() != nil {
			r.fail()
		}
	}
	c.data = r.Rest()
	if r.Err() != nil || last > 1 || Checksum(c.data) != binary.LittleEndian.Uint32(sumBytes[:]) {
		return c, errFrame
	}
	return c, nil
}

func (l *loop) receiveChunk(g *Group, from uint64, body []byte) {
	m, err := decodeChunk(body)
	if err != nil {
		l.node.refuse(from, g.id, fmt.Errorf("chunk of a snapshot: %w", err))
		return
	}
	transfer, source, number, last, meta, message, data := m.transfer, m.source, m.number, m.last, m.meta, m.message, m.data
	in := g.incomer
	switch {
	case !l.live(g):
		return
	case in != nil && in.from == from && in.transfer == transfer:
	case in != nil && in.from == from && in.source == source && !in.complete && number < chunkWindow+in.durable && g.unstored == 0 && l.full == nil:
		// It goes on where the last transfer of the same snapshot broke off.
		probe.Sometimes("replica: a transfer is resumed", in.durable > 0)
		in.transfer, in.next = transfer, in.durable
		in.size, in.sum = in.durableSize, in.durableSum
	case in == nil && (g.received == transfer || last && len(message) == 0): // or it was for a repair
		l.ackChunk(g, from, transfer, 0, chunkComplete) // the acknowledgement was lost
		return
	case in != nil && in.complete, g.restoring.Load():
		l.ackChunk(g, from, transfer, 0, chunkRefused) // another one is being installed
		return
	case number >= chunkWindow:
		// The first chunk must have been acknowledged, before a restart or before
		// another transfer took this one's place.
		l.ackChunk(g, from, transfer, 0, chunkRefused)
		return
	case number != 0:
		l.ackChunk(g, from, transfer, 0, chunkWanted)
		return
	case l.full != nil, g.unstored > 0:
		// Chunks of the transfer before wait for the store, and those of this one would
		// pile up behind them: the sender will repeat it.
		return
	default:
		if in != nil {
			if probe.Bug("a snapshot that broke off is waited for") {
				return
			}
			g.deleteChunks(&l.pending.batch, in.id)
		}
		in = &incoming{from: from, transfer: transfer, source: source, id: l.node.ex.Uint64()}
		g.incomer = in
	}
	in.until = l.node.ex.Now().Add(partialTimeouts * l.node.cfg.ElectionTimeout)
	if number != in.next || in.complete {
		// One that was repeated, or that others went missing before.
		status := chunkWanted
		if in.complete {
			status = chunkComplete
		}
		l.ackChunk(g, from, transfer, in.durable, status)
		return
	}
	if l.full != nil || number >= in.durable+chunkWindow {
		return // it is repeated
	}
	in.next++
	in.size += uint64(len(data))
	in.sum = ChecksumUpdate(in.sum, data)
	if last {
		if in.size != meta.Size || in.sum != meta.Sum || in.next != meta.Chunks {
			l.node.refuse(from, g.id, fmt.Errorf("snapshot at index %d: the chunks do not add up: %w", meta.Index, errFrame))
			l.dropIncoming(g, chunkRefused)
			return
		}
		meta.ID = in.id
	}
	key := g.chunkKey(in.id, number)
	record := storage.AppendRecord(nil, key, data)
	g.unstored++
	c := l.gather(len(record) + 128)
	c.batch.Set(key, record)
	size, sum := in.size, in.sum
	if !last { // the last one brings what is not kept: it has to come again
		in.record(g.keys, number+1, &c.batch)
	}
	c.urgent = true
	c.after = append(c.after, func() {
		g.unstored--
		if !l.live(g) || g.incomer != in {
			return
		}
		in.durable, in.durableSize, in.durableSum = number+1, size, sum
		if !last {
			l.ackChunk(g, from, transfer, in.durable, chunkWanted)
			return
		}
		in.complete, in.meta = true, meta
		g.received = transfer
		l.ackChunk(g, from, transfer, in.durable, chunkComplete)
		l.step(g, from, message, len(body))
		if l.live(g) {
			l.ready(g)
		}
		if g.incomer == in { // the core has no use for it
			l.dropIncoming(g, chunkComplete)
		}
	})
}

// record writes how much is received, with the last chunk of it.
func (in *incoming) record(keys Keys, chunks uint64, b *storage.Batch) {
	r := binary.LittleEndian.AppendUint64(nil, in.source)
	r = binary.LittleEndian.AppendUint64(r, in.id)
	r = binary.AppendUvarint(r, in.from)
	r = binary.AppendUvarint(r, chunks)
	r = binary.AppendUvarint(r, in.size)
	r = binary.LittleEndian.AppendUint64(r, uint64(in.sum))
	key := keys.key(tagPartial)
	b.Set(key, storage.AppendRecord(nil, key, r))
}

// readIncoming reads how much of a snapshot was received before the last restart. It is worth
// nothing if that can't be read.
func (g *Group) readIncoming() error {
	key := g.keys.key(tagPartial)
	payload, found, err := getRecord(g.node.cfg.Store, key, g.id)
	if err != nil && !errors.Is(err, storage.ErrCorrupt) || err == nil && !found {
		return err
	}
	r := NewReader(payload)
	in := &incoming{source: r.Uint64(), id: r.Uint64(), from: r.Uvarint(), durable: r.Uvarint(), durableSize: r.Uvarint(), durableSum: uint32(r.Uint64())}
	if err != nil || r.Err() != nil {
		g.node.cfg.Logger.Warn("what was received of a snapshot can't be read, and is received again", "group", g.id, "error", errors.Join(err, r.Err()))
		return nil
	}
	in.next, in.size, in.sum = in.durable, in.durableSize, in.durableSum
	in.until = g.node.ex.Now().Add(partialTimeouts * g.node.cfg.ElectionTimeout)
	g.incomer = in
	return nil
}

func (l *loop) dropIncoming(g *Group, status chunkStatus) {
	in := g.incomer
	g.incomer = nil
	g.deleteChunks(&l.pending.batch, in.id)
	l.pending.batch.Delete(g.keys.key(tagPartial))
	l.ackChunk(g, in.from, in.transfer, in.durable, status)
}

func (l *loop) ackChunk(g *Group, to, transfer, next uint64, status chunkStatus) {
	message := binary.LittleEndian.AppendUint64(nil, transfer)
	message = binary.AppendUvarint(message, next)
	message = append(message, byte(status))
	frame := appendFrameHeader(make([]byte, 0, frameCapacity(len(message)+32)), frameChunkAck, l.node.address(to))
	frame = sealFrame(appendFrameMessage(frame, g.id, message, nil))
	// One that is lost is asked for again by a repeated chunk.
	_ = l.node.cfg.Transport.Send(to, frame)
}
