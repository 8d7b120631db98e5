package multipaxos

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// Protocol makes the runtime's groups Multi-Paxos groups. It implements replica.Protocol.
type Protocol struct {
	// Quorums says which voters decide. Default: a majority.
	Quorums Quorums

	// Priority orders ballots of one round, before the nodes: of two nodes that stand for election
	// at once the one with the higher priority goes first.
	Priority uint8

	// Whole says that Open refuses a log that it can't read in whole, with a *storage.CorruptError: so that it
	// is repaired first, or somebody hears of it. Without it a core knows what it does not know, and helps
	// with the rest.
	Whole bool
}

var _ replica.Protocol = Protocol{}

// The position that a new group's log begins after. Every member of it writes the
// same, so that they agree on the configuration without a first value.
var bootPosition = replica.Position{Index: 1, Term: 1}

// Name implements replica.Protocol.
func (Protocol) Name() string { return "paxos" }

// Bootstrap implements replica.Protocol.
func (p Protocol) Bootstrap(keys replica.Keys, config []byte, batch *storage.Batch) error {
	return p.Begin(keys, bootPosition, config, batch)
}

// Begin implements replica.Protocol.
func (p Protocol) Begin(keys replica.Keys, at replica.Position, config []byte, batch *storage.Batch) error {
	conf, err := replica.DecodeConfiguration(config)
	if err != nil {
		return err
	}
	if _, err := newElectorate(p.Quorums, conf); err != nil {
		return err
	}
	begin(keys, at, config, hardRecord{promised: fenceAt(at), quorums: p.Quorums.clone().mark(), decided: at.Index, last: at.Index}, batch)
	return nil
}

// begin writes the records of a log without values.
func begin(keys replica.Keys, at replica.Position, config []byte, h hardRecord, batch *storage.Batch) {
	start, hard := keys.Protocol(tagStart), keys.Protocol(tagHard)
	s := startRecord{at, config}
	batch.Set(start, storage.AppendRecord(nil, start, s.encode()))
	batch.Set(hard, storage.AppendRecord(nil, hard, h.encode()))
}

// leftRecord is what a replica that leaves its group must not forget.
type leftRecord struct {
	promised Ballot
	last     uint64 // it may have accepted something in any slot up to here
	lost     bool   // and, since a record was missing, in any other
}

func (l leftRecord) encode() []byte {
	b := binary.AppendUvarint(l.promised.append(nil), l.last)
	if l.lost {
		return append(b, 1)
	}
	return append(b, 0)
}

func readLeft(keys replica.Keys, store storage.Store) (l leftRecord, found bool, err error) {
	key := keys.Protocol(tagLeft)
	payload, err := replica.GetRecord(store, key, keys.Group())
	if err != nil || payload == nil {
		return l, false, err
	}
	r := replica.NewReader(payload)
	l.promised, l.last = readBallot(r), r.Uvarint()
	lost := r.Byte()
	l.lost = lost != 0
	if r.Err() != nil || lost > 1 || l.promised.Round > maxRound || l.last > 0 && l.promised.IsZero() {
		return l, false, &storage.CorruptError{Group: keys.Group(), Key: key, Reason: "the record of what was promised is malformed"}
	}
	return l, true, nil
}

// Join implements replica.Protocol. The log is empty: a leader sends a snapshot first,
// which says what the group's configuration is.
//
// Of what an earlier replica on this node has accepted nothing is left, and members that were cut off may
// not know that it ever left the group: its slots are unknown, until they are decided or accepted again.
func (Protocol) Join(keys replica.Keys, store storage.Store, batch *storage.Batch) error {
	left, found, err := readLeft(keys, store)
	if err != nil {
		return err
	}
	h := hardRecord{promised: left.promised, last: left.last}
	if found {
		batch.Delete(keys.Protocol(tagLeft))
	}
	if left.last > 0 && !probe.Bug("a replica that joins again takes what it accepted for nothing") {
		rec := &record{first: 1, last: left.last, ballot: left.promised}
		key := rec.key(keys)
		batch.Set(key, storage.AppendRecord(nil, key, nil)) // no values, and no damage: see record.forgotten
		h.runs, h.digest = 1, keyDigest(key)
	}
	if left.lost {
		h.digest++
	}
	begin(keys, replica.Position{}, replica.Configuration{}.Append(nil), h, batch)
	return nil
}

// Leave implements replica.Protocol. What was promised stays, and up to where something may have been
// accepted: see Join.
func (Protocol) Leave(keys replica.Keys, store storage.Store, batch *storage.Batch) error {
	hard, err := readHard(keys, store)
	if err != nil {
		return err
	}
	left := leftRecord{promised: hard.promised, last: hard.last, lost: true}
	if log, _, lost, err := openLog(keys, store, 0); err == nil {
		left.last, left.lost = max(left.last, log.last()), lost
	} else if !errors.Is(err, storage.ErrCorrupt) {
		return err
	}
	if probe.Bug("a replica that leaves forgets its promise") {
		left = leftRecord{}
	}
	from, _ := keys.ProtocolRange(0)
	_, to := keys.ProtocolRange(^byte(0) - 1)
	batch.DeleteRange(from, to)
	key := keys.Protocol(tagLeft)
	batch.Set(key, storage.AppendRecord(nil, key, left.encode()))
	return nil
}

// Open implements replica.Protocol. The core that it returns is a *Core.
func (p Protocol) Open(o replica.OpenOptions) (replica.Core, error) {
	c, err := newCore(p, o)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Start implements replica.Protocol.
func (Protocol) Start(keys replica.Keys, store storage.Store) (replica.Position, []byte, error) {
	s, err := readStart(keys, store)
	return s.Position, s.config, err
}

// whole opens a log all of whose records are there.
func whole(keys replica.Keys, store storage.Store) (*valueLog, hardRecord, error) {
	log, hard, lost, err := openLog(keys, store, 1<<62)
	if err != nil {
		return nil, hard, err
	}
	return log, hard, errors.Join(log.contradicted(hard), log.damage(lost))
}

// Inspect implements replica.Protocol.
func (Protocol) Inspect(keys replica.Keys, store storage.Store) replica.Remains {
	r := replica.Remains{Group: keys.Group()}
	log, hard, err := whole(keys, store)
	if err != nil {
		r.Err = err
		return r
	}
	r.Term, r.First, r.Last, r.LastTerm, r.Commit = hard.promised.Round, log.start.Index+1, log.start.Index, log.start.Term, hard.decided
	noted := func(config []byte, slot uint64) bool {
		c, err := replica.DecodeConfiguration(config)
		if err != nil {
			r.Err = err
			return false
		}
		r.Configured(c, slot <= hard.decided)
		return true
	}
	if !noted(log.start.config, log.start.Index) {
		return r
	}
	for _, s := range log.spans {
		run := log.load(s.rec)
		if run == nil { // it was forgotten, see Join
			continue
		}
		if s.first == r.Last+1 {
			r.Last = s.last
		}
		if s.rec.ballot.isChosen() { // accepted in some ballot from its origin on
			r.LastTerm = max(r.LastTerm, run.values[len(run.values)-1].origin.Round)
		} else {
			r.LastTerm = max(r.LastTerm, s.rec.ballot.Round)
		}
		for slot := s.first; slot <= s.last; slot++ {
			if v := run.values[slot-run.first]; v.kind == valueConfig && !noted(v.data, slot) {
				return r
			}
		}
	}
	return r
}

// Recover implements replica.Protocol. All is decided by this node alone, so that other quorums may hold
// from now on.
func (Protocol) Recover(keys replica.Keys, store storage.Store, config []byte, batch *storage.Batch) error {
	log, hard, err := whole(keys, store)
	if err != nil {
		return err
	}
	ballot := Ballot{Round: hard.promised.Round + 1}
	var values []value
	for slot := log.start.Index + 1; slot <= log.last(); slot++ {
		v := value{origin: ballot, kind: valueGap}
		if found, _ := log.at(slot); found != nil && found.kind != valueConfig {
			v = *found
		}
		values = append(values, v)
	}
	from, to := keys.ProtocolRange(tagRun)
	batch.DeleteRange(from, to)
	h := hardRecord{promised: ballot, decided: log.last(), last: log.last()}
	const perRun = 1024
	for i := 0; i < len(values); i += perRun {
		part := values[i:min(i+perRun, len(values))]
		first := log.start.Index + 1 + uint64(i)
		rec := &record{first: first, last: first + uint64(len(part)) - 1, ballot: chosen()}
		key := rec.key(keys)
		batch.Set(key, appendRun(nil, keys.Group(), rec.ballot, first, slices.Clone(part)))
		h.runs++
		h.digest ^= keyDigest(key)
	}
	start, hardKey := keys.Protocol(tagStart), keys.Protocol(tagHard)
	s := log.start
	s.config = config
	batch.Set(start, storage.AppendRecord(nil, start, s.encode()))
	batch.Set(hardKey, storage.AppendRecord(nil, hardKey, h.encode()))
	return nil
}
