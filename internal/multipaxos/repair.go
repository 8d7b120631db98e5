package multipaxos

import (
	"errors"
	"fmt"
	"slices"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

var (
	_ replica.Repairer    = Protocol{}
	_ replica.EntrySource = (*Core)(nil)
	_ replica.EntrySource = (*repairedLog)(nil)
)

// repairedLog is a log of which some runs are damaged or missing, while it is mended.
//
// What proves that a value belongs into a slot: that it is chosen there, since no other one ever is; or that
// it was accepted there in the very ballot of the record that can't be read, since a ballot has one value a
// slot. A record's key says its slots and its ballot, and where the key is gone as well, the digest of all
// keys often does (see nameMissing). Where it does not, all slots in which something may have been
// accepted are to be fetched, as chosen.
type repairedLog struct {
	keys replica.Keys
	hard hardRecord
	log  *valueLog
	lost bool // records are missing, nobody knows which
}

// Repair implements replica.Repairer.
func (Protocol) Repair(keys replica.Keys, store storage.Store) (replica.Repair, error) {
	d := &repairedLog{keys: keys}
	var err error
	if d.log, d.hard, d.lost, err = openLog(keys, store, 0); err != nil {
		return nil, err
	}
	if err := d.log.contradicted(d.hard); err != nil {
		return nil, err
	}
	if _, err := replica.DecodeConfiguration(d.log.start.config); err != nil {
		return nil, &storage.CorruptError{Group: keys.Group(), Key: keys.Protocol(tagStart), Reason: err.Error()}
	}
	return d, nil
}

// lacks reports whether a slot's value is to be fetched, and returns its span, if there is one.
func (d *repairedLog) lacks(slot uint64) (*span, bool) {
	s := d.log.find(slot)
	switch {
	case s == nil:
		return nil, d.lost && slot <= d.hard.last
	case s.rec.bad: // a record that is missing may be one of a higher ballot than what was forgotten
		return s, !s.rec.forgotten || d.lost && slot <= d.hard.last
	}
	return s, d.lost && slot <= d.hard.last && !s.rec.ballot.isChosen()
}

// Gap implements replica.Repair. It is the highest one; its term is the round in which its last value was
// accepted, if that is known.
//
// What a replica has forgotten since it had left the group is none, unless records are missing besides: nobody
// owes it that, and the core asks for what it needs of it. One that has just joined was told nothing yet, and lacks nothing.
func (d *repairedLog) Gap() (replica.Gap, bool) {
	start := d.log.start.Index
	if start == 0 {
		return replica.Gap{}, false
	}
	below := func(slot uint64, s *span) uint64 { // the next slot down that another span, or none, is at
		if s != nil {
			return max(s.first, start+1) - 1
		}
		if i := d.log.search(slot); i > 0 {
			return max(d.log.spans[i-1].last, start)
		}
		return start
	}
	last := d.log.last()
	if d.lost {
		last = max(last, d.hard.last)
	}
	for last > start {
		s, lacks := d.lacks(last)
		if !lacks {
			last = below(last, s)
			continue
		}
		gap := replica.Gap{Last: last}
		if s != nil && s.rec.bad {
			gap.Term = s.rec.ballot.Round
		}
		first := below(last, s)
		for first > start {
			s, lacks := d.lacks(first)
			if !lacks {
				break
			}
			first = below(first, s)
		}
		gap.First = first + 1
		return gap, true
	}
	return replica.Gap{}, false
}

var errUnfit = errors.New("paxos: the values do not fit into the log")

// Fill implements replica.Repair.
func (d *repairedLog) Fill(piece []byte, batch *storage.Batch) (first uint64, err error) {
	gap, missing := d.Gap()
	if !missing {
		return 0, errUnfit
	}
	r, err := openRun(d.keys.Group(), piece)
	if err != nil {
		return 0, err
	}
	fits := r.last() == gap.Last && r.first >= gap.First
	if !r.ballot.isChosen() {
		s, _ := d.lacks(gap.Last)
		fits = fits && s != nil && s.rec.bad && s.rec.ballot == r.ballot && r.first >= s.first
	}
	if !fits || !d.log.put(r, 0, batch) {
		return 0, fmt.Errorf("%w: they are those from %d to %d, in ballot %v; it lacks those from %d to %d", errUnfit, r.first, r.last(), r.ballot, gap.First, gap.Last)
	}
	d.log.evict(^uint64(0), ^uint64(0))
	d.writeHard(batch)
	return r.first, nil
}

func (d *repairedLog) writeHard(batch *storage.Batch) {
	if _, missing := d.Gap(); !missing {
		d.lost = false // all that may have been accepted is here, and chosen
	}
	h := d.hard
	h.runs, h.digest = d.log.runs, d.log.digest
	if d.lost {
		h.digest++ // as Core.writeHard has it
	}
	key := d.keys.Protocol(tagHard)
	batch.Set(key, storage.AppendRecord(nil, key, h.encode()))
}

// Start implements replica.Repair.
func (d *repairedLog) Start() uint64 { return d.log.start.Index }

// Fits implements replica.Repair. What a snapshot holds is chosen.
func (d *repairedLog) Fits(at replica.Position) bool {
	gap, missing := d.Gap()
	return at.Index >= d.log.start.Index && (!missing || at.Index >= gap.Last)
}

// Begin implements replica.Repair.
func (d *repairedLog) Begin(at replica.Position, config []byte, batch *storage.Batch) error {
	if !d.Fits(at) {
		return errUnfit
	}
	if conf, err := replica.DecodeConfiguration(config); err != nil || len(conf.Members) == 0 {
		return fmt.Errorf("%w: a snapshot's configuration: %v", errUnfit, err)
	}
	d.log.begin(startRecord{at, config}, batch)
	d.hard.decided = max(d.hard.decided, at.Index)
	d.hard.last = max(d.hard.last, at.Index)
	if probe.Bug("a repair forgets what follows its snapshot") {
		from, to := d.keys.ProtocolRange(tagRun)
		batch.DeleteRange(from, to)
		d.log.spans, d.log.runs, d.log.digest, d.hard.last = nil, 0, 0, at.Index
	}
	d.writeHard(batch)
	return nil
}

// Unread implements replica.Repair.
func (d *repairedLog) Unread() bool {
	for _, rec := range d.log.garbage {
		if rec.bad {
			return true
		}
	}
	_, missing := d.Gap()
	return missing || d.lost
}

// Finish implements replica.Repair.
func (d *repairedLog) Finish(batch *storage.Batch) {
	if lost := d.lost; len(d.log.garbage) > 0 || lost {
		d.log.collect(batch)
		d.writeHard(batch)
	}
}

// Entries implements replica.EntrySource: values that are chosen, or those of one record, up to the gap's last.
func (c *Core) Entries(gap replica.Gap, limit int) ([]byte, error) {
	low := max(gap.First, c.log.start.Index+1, c.floor+1)
	if !c.trusted || c.restoring != 0 || gap.Last < low {
		return nil, nil
	}
	return c.log.pieceFor(gap, low, c.held, limit), nil
}

// Entries implements replica.EntrySource.
func (d *repairedLog) Entries(gap replica.Gap, limit int) ([]byte, error) {
	low, decided := max(gap.First, d.log.start.Index+1), d.hard.decided
	if d.lost {
		decided = 0 // a record of a higher ballot may be what is missing
	}
	if gap.Last < low {
		return nil, nil
	}
	return d.log.pieceFor(gap, low, decided, limit), nil
}

// pieceFor makes a piece for a gap, of slots from low on, as chosen up to where they are decided.
func (l *valueLog) pieceFor(gap replica.Gap, low, decided uint64, limit int) []byte {
	ballot := chosen()
	if gap.Last > decided {
		s := l.find(gap.Last)
		if s == nil || s.rec.ballot.Round != gap.Term && !s.rec.ballot.isChosen() {
			return nil
		}
		low, ballot = max(low, s.first), s.rec.ballot
	}
	var values []value // the last first
	for next, size := gap.Last, 0; next >= low && size < limit; {
		s := l.find(next)
		if s == nil {
			break
		}
		r := l.load(s.rec)
		if r == nil {
			break
		}
		for ; next >= max(low, s.first) && size < limit; next-- {
			v := r.values[next-r.first]
			if size += valueSize(&v); size > limit && len(values) > 0 {
				break
			}
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return nil
	}
	slices.Reverse(values)
	return encodeRun(l.group, ballot, gap.Last+1-uint64(len(values)), values).bytes
}
