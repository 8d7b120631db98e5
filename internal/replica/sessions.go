package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/storage"
)

// What a session needs of a group is that its table (sessiontable.go) is at each moment
// the one of the position up to which the log was applied. An entry changes it before
// the state machine sees what of the entry is new (applySessionBatch); a snapshot begins
// with it (captureState, restoreSessions).
//
// A state machine that keeps its state itself stores no snapshots. It is given the log
// again from where that begins, but for what it has, and the table must be the one of
// that place. So the log is cut together with a checkpoint: the table, and the position
// that it belongs to, which the state machine has durably and the log up to its cut does
// not reach beyond. A start applies from there. The results of commands that the state
// machine has, and is not given again, are not known after it.

var _ synod.SessionLog = (*Group)(nil)

// OpenSession implements synod.SessionLog.
func (g *Group) OpenSession(ctx context.Context, ttl time.Duration) (uint64, error) {
	millis := uint64(ttl.Milliseconds())
	switch {
	case ttl == 0:
		millis = defaultSessionMillis
	case ttl < time.Millisecond:
		return 0, fmt.Errorf("group %d: %w: a session that lives for %v: at least 1ms", g.id, synod.ErrInvalidRequest, ttl)
	case millis > maxSessionMillis:
		return 0, fmt.Errorf("group %d: %w: a session that lives for %v: at most a century", g.id, synod.ErrInvalidRequest, ttl)
	}
	result, err := g.proposeItem(ctx, item{kind: itemOpen, request: synod.Request{Session: g.node.ex.Uint64()}, millis: millis}, nil)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(result), nil
}

// CloseSession implements synod.SessionLog.
func (g *Group) CloseSession(ctx context.Context, session uint64) error {
	if session == 0 {
		return fmt.Errorf("group %d: %w: the session is 0", g.id, synod.ErrInvalidRequest)
	}
	_, err := g.proposeItem(ctx, item{kind: itemClose, request: synod.Request{Session: session}}, nil)
	return err
}

// ProposeOnce implements synod.SessionLog.
func (g *Group) ProposeOnce(ctx context.Context, request synod.Request, command []byte) ([]byte, error) {
	if err := checkRequest(&request); err != nil {
		return nil, fmt.Errorf("group %d: %w", g.id, err)
	}
	return g.proposeItem(ctx, item{kind: itemOnce, request: request}, command)
}

// clock returns for how many milliseconds the group has been open.
func (g *Group) clock() uint64 {
	return uint64(max(0, g.node.ex.Now().Sub(g.opened).Milliseconds()))
}

// appendSessionBatch is the batch of calls of which some use a session.
func (g *Group) appendSessionBatch(dst []byte, calls []*call) []byte {
	dst = appendSessionBatchHeader(dst, g.boot, g.pend.next(), len(calls), g.clock())
	for _, c := range calls {
		i := sessionItem{item: c.item, command: c.command}
		if c.item.kind == itemOpen {
			i.sessions, i.resultBytes = uint64(g.cfg.MaxSessions), uint64(g.cfg.MaxSessionBytes)
		}
		dst = i.append(dst)
	}
	return dst
}

// keeping is a command that was handed to a BatchApplier, and whose result is to be kept.
type keeping struct {
	at   int // in the batch
	kept *keptResult
}

// applySessionBatch is applyBatch for a batch in which sessions are used.
func (g *Group) applySessionBatch(e *Entry, batcher synod.BatchApplier) (int, error) {
	s := &g.apply
	r := NewReader(e.Data)
	h, clock, err := readSessionBatchHeader(r)
	if err != nil {
		return 0, err
	}
	if probe.Bug("sessions expire by each node's own clock") {
		h.boot, clock = g.boot, g.clock()
	}
	if expired := s.sessions.advance(h.boot, clock); expired > 0 {
		probe.Sometimes("replica: a session expires", true)
		g.node.count(metricSessionsExpired, g.id, int64(expired))
	}
	// In taken they are answered whatever happens.
	s.taken = s.taken[:0]
	if h.boot == g.boot {
		s.taken = g.pend.take(s.taken, h.first, h.count)
	}
	for n := range h.count {
		i := readSessionItem(r)
		if r.err != nil {
			return 0, r.err
		}
		g.applySessionItem(&i, n, batcher)
	}
	s.taken = s.taken[:0]
	g.sessions.Store(int64(len(s.sessions.sessions)))
	if probe.Active() {
		sum := fnv.New64a()
		_, _ = sum.Write(s.sessions.append(binary.LittleEndian.AppendUint64(nil, s.position.Commands), false))
		probe.Observe(probe.Sessions{Group: g.id, Index: e.Index, Hash: sum.Sum64()})
	}
	return h.count, r.Err()
}

// applySessionItem applies an item, the n-th of its batch.
func (g *Group) applySessionItem(i *sessionItem, n int, batcher synod.BatchApplier) {
	s := &g.apply
	answer := func(result []byte, err error) {
		if n < len(s.taken) && s.taken[n] != nil {
			c := s.taken[n]
			s.taken[n] = nil
			c.answer(result, err)
		}
	}
	refuse := func(err error) {
		answer(nil, fmt.Errorf("group %d: session %016x, request %d: %w", g.id, i.request.Session, i.request.Sequence, err))
	}
	switch i.kind {
	case itemPlain:
		g.applyOnce(i.command, nil, n, batcher)
	case itemOpen:
		id := s.sessions.open(i.request.Session, i.millis, i.sessions, i.resultBytes)
		probe.Sometimes("replica: there are too many sessions", id == 0)
		if id == 0 {
			answer(nil, fmt.Errorf("group %d: %w: %d sessions are open", g.id, synod.ErrOverloaded, len(s.sessions.sessions)))
			return
		}
		answer(binary.LittleEndian.AppendUint64(nil, id), nil)
	case itemClose:
		s.sessions.close(i.request.Session)
		answer(nil, nil)
	case itemOnce:
		v, kept := s.sessions.request(i.request)
		if v == requestRepeated && probe.Bug("a retry is applied again") {
			v = requestNew
		}
		switch v {
		case requestNew:
			g.applyOnce(i.command, kept, n, batcher)
			return
		case requestRepeated:
			if kept.waiting {
				probe.Sometimes("replica: a retry comes before the first result", true)
				g.flushBatch(batcher)
			}
			if kept.dropped { // at once, for its size
				v = requestLost
			} else {
				probe.Sometimes("replica: a retry gets the first result", true)
				answer(slices.Clone(kept.result), nil)
			}
		}
		switch v {
		case requestRepeated, requestLost:
			g.node.count(metricSessionRetries, g.id, 1)
			if v == requestLost {
				probe.Sometimes("replica: a retry finds its result lost", true)
				refuse(synod.ErrResultLost)
			}
		case requestStale:
			probe.Sometimes("replica: a request is stale", true)
			refuse(synod.ErrStaleRequest)
		case requestExpired:
			probe.Sometimes("replica: a request finds no session", true)
			refuse(synod.ErrSessionExpired)
		}
	}
}

// applyOnce hands the n-th command of a batch to the state machine, unless that has it.
func (g *Group) applyOnce(command []byte, kept *keptResult, n int, batcher synod.BatchApplier) {
	s := &g.apply
	var c *call
	if n < len(s.taken) {
		c = s.taken[n]
	}
	s.position.Commands++
	switch {
	case s.position.Commands <= s.skip:
		// Nobody waits for it: what this run had proposed before is answered.
		if kept != nil {
			s.sessions.drop(kept)
		}
		return
	case batcher != nil:
		if kept != nil {
			s.keeping = append(s.keeping, keeping{len(s.batch), kept})
		}
		s.batch = append(s.batch, synod.Entry{Index: s.position.Commands, Command: command})
		s.callers = append(s.callers, c)
		if c != nil {
			s.taken[n] = nil
		}
		return
	}
	result := g.cfg.StateMachine.Apply(s.position.Commands, command)
	if kept != nil {
		s.sessions.keep(kept, result) // before the caller has it, who may change it
	}
	if c != nil {
		s.taken[n] = nil
		c.answer(result, nil)
	}
}

// keepResults keeps what a BatchApplier has answered. flushBatch calls it.
func (s *applyState) keepResults() {
	for _, k := range s.keeping {
		s.sessions.keep(k.kept, s.batch[k.at].Result)
	}
	clear(s.keeping)
	s.keeping = s.keeping[:0]
}

// captureState is the state machine's Snapshot with the sessions before it: the length
// of their table, and the table.
func (g *Group) captureState() (io.WriterTo, error) {
	w, err := g.cfg.StateMachine.Snapshot()
	if err != nil {
		return nil, err
	}
	table := g.apply.sessions.append(nil, true)
	if probe.Bug("the sessions are not in the snapshot") {
		table = nil
	}
	return &stateImage{head: binary.AppendUvarint(nil, uint64(len(table))), table: table, state: w}, nil
}

// stateImage is a captured state.
type stateImage struct {
	head, table []byte
	state       io.WriterTo
}

// WriteTo implements io.WriterTo.
func (i *stateImage) WriteTo(w io.Writer) (total int64, err error) {
	for _, b := range [][]byte{i.head, i.table} {
		n, err := w.Write(b)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	n, err := i.state.WriteTo(w)
	return total + n, err
}

// Close implements io.Closer.
func (i *stateImage) Close() error {
	closeSnapshot(i.state)
	return nil
}

// restoreSessions takes the session table off the front of a snapshot.
func (g *Group) restoreSessions(r *chunkReader) error {
	malformed := func(reason string) error {
		if r.err != nil && !errors.Is(r.err, io.EOF) {
			return r.err
		}
		return &storage.CorruptError{Group: g.id, Index: r.meta.Index, Key: g.keys.key(tagSnapshot), Reason: reason}
	}
	length, err := binary.ReadUvarint(byteReader{r})
	if err != nil {
		return malformed("the snapshot ends before its session table")
	}
	if length > r.meta.Size {
		return malformed("the snapshot ends inside its session table")
	}
	b, err := io.ReadAll(io.LimitReader(r, int64(length)))
	if err != nil || uint64(len(b)) != length {
		return malformed("the snapshot ends inside its session table")
	}
	table, err := decodeSessionTable(b)
	if err != nil {
		return malformed(err.Error())
	}
	g.setSessions(table)
	probe.Sometimes("replica: a snapshot brings sessions", len(table.sessions) > 0)
	return nil
}

func (g *Group) setSessions(t *sessionTable) {
	g.apply.sessions, g.apply.saved = t, nil
	g.sessions.Store(int64(len(t.sessions)))
}

// byteReader is an io.ByteReader.
type byteReader struct{ r io.Reader }

// ReadByte implements io.ByteReader.
func (b byteReader) ReadByte() (byte, error) {
	var buf [1]byte
	_, err := io.ReadFull(b.r, buf[:])
	return buf[0], err
}

// checkpoint is where the applier begins after a restart, if the state machine keeps its
// state itself.
type checkpoint struct {
	Position
	config []byte
	table  []byte // without results
}

// capture returns the checkpoint of the position up to which the log is applied.
func (s *applyState) capture() *checkpoint {
	return &checkpoint{s.position, s.config, s.sessions.append(nil, false)}
}

// store writes the checkpoint's record; nil: none.
func (c *checkpoint) store(keys Keys, b *storage.Batch) {
	if c == nil {
		return
	}
	r := AppendBytes(appendPosition(nil, c.Position), c.config)
	r = append(r, c.table...)
	key := keys.key(tagCheckpoint)
	b.Set(key, storage.AppendRecord(nil, key, r))
}

func decodeCheckpoint(b []byte) (*checkpoint, *sessionTable, error) {
	r := NewReader(b)
	c := &checkpoint{Position: r.position()}
	c.config = bytes.Clone(r.Bytes())
	c.table = r.Rest()
	if err := r.Err(); err != nil {
		return nil, nil, err
	}
	t, err := decodeSessionTable(c.table)
	return c, t, err
}

// cutDurable returns where the log may be cut, of what a state machine that keeps its
// state itself has durably, with the checkpoint that belongs to it.
func (g *Group) cutDurable(have uint64) (mark, bool) {
	s := &g.apply
	may := func(m mark) bool { return m.Commands <= have && g.mayCut(m) }
	if s.sessions.unused() {
		// Nor were there any sessions before: each place has its checkpoint.
		m, ok := s.cut(may)
		m.checkpoint = &checkpoint{Position: m.Position, config: m.config}
		return m, ok
	}
	// One that the state machine does not have yet is kept for the next time.
	if s.saved == nil || s.position.Commands <= have {
		s.saved = s.capture()
	}
	saved := s.saved
	probe.Sometimes("replica: a checkpoint waits for the state machine", saved.Commands > have)
	if saved.Commands > have {
		return mark{}, false
	}
	m, ok := s.cut(func(m mark) bool { return may(m) && m.Index <= saved.Index })
	if !ok {
		return m, false
	}
	m.checkpoint, s.saved = saved, nil
	if s.position.Commands > have {
		s.saved = s.capture()
	}
	return m, true
}

// resume returns where the applier begins if the state machine keeps its state itself,
// has so many commands, and the log begins at start: at the checkpoint, or at a snapshot
// that was installed, or stored when the state machine was of another kind.
func (g *Group) resume(start Position, config []byte, have uint64) (Position, []byte, error) {
	found := false
	if meta := &g.snapshot; meta.Chunks > 0 && meta.Index >= start.Index && meta.Commands <= have {
		if err := g.restoreSessions(&chunkReader{group: g, meta: *meta}); err != nil {
			return start, nil, err
		}
		start, config, found = meta.Position, meta.Config, true
	}
	key := g.keys.key(tagCheckpoint)
	payload, stored, err := getRecord(g.node.cfg.Store, key, g.id)
	if err != nil {
		return start, nil, err
	}
	if stored {
		c, table, err := decodeCheckpoint(payload)
		if err != nil {
			return start, nil, &storage.CorruptError{Group: g.id, Key: key, Reason: err.Error()}
		}
		if c.Index > start.Index || !found && c.Index == start.Index {
			if !probe.Bug("a start forgets the sessions of a state machine that has a disk") {
				g.setSessions(table)
			}
			probe.Sometimes("replica: a start finds sessions in a checkpoint", len(table.sessions) > 0)
			start, config, found = c.Position, c.config, true
		}
	}
	if !found && start.Commands > 0 {
		return start, nil, &storage.CorruptError{Group: g.id, Index: start.Index, Key: key,
			Reason: "the log was compacted, but the checkpoint of its sessions is missing"}
	}
	return start, config, nil
}
