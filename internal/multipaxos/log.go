package multipaxos

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"sort"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// Tags of the protocol's own records:
//
//	h                                        what was promised, decided, accepted; how many runs there are, and a digest of their keys
//	s                                        where the log begins, and the configuration there
//	l <first> <last> <round> <priority> <node>  a run of accepted values. Where runs overlap, that of the highest ballot counts.
//	v                                        what a replica that has left the group had promised, and up to where it had accepted something
const (
	tagHard  = 'h'
	tagStart = 's'
	tagRun   = 'l'
	tagLeft  = 'v'
)

// startRecord says where a log begins: after Index, with all that is up to there chosen. The term there
// is the highest origin of a fresh value up to Index.
type startRecord struct {
	replica.Position
	config []byte
}

// fenceAt returns the highest origin of a fresh value up to a position.
func fenceAt(at replica.Position) Ballot { return Ballot{at.Term, at.Priority, at.Leader} }

// setFence is the reverse of fenceAt.
func setFence(at *replica.Position, b Ballot) {
	at.Term, at.Priority, at.Leader = b.Round, b.Priority, b.Node
}

func appendPosition(b []byte, at replica.Position) []byte {
	b = binary.AppendUvarint(b, at.Index)
	b = binary.AppendUvarint(b, at.Commands)
	return fenceAt(at).append(b)
}

func readPosition(r *replica.Reader) (at replica.Position) {
	at.Index, at.Commands = r.Uvarint(), r.Uvarint()
	setFence(&at, readBallot(r))
	return at
}

func (s startRecord) encode() []byte {
	return replica.AppendBytes(appendPosition(nil, s.Position), s.config)
}

func readStart(keys replica.Keys, store storage.Store) (s startRecord, err error) {
	key := keys.Protocol(tagStart)
	payload, err := replica.GetRecord(store, key, keys.Group())
	if err != nil {
		return s, err
	}
	r := replica.NewReader(payload)
	s.Position = readPosition(r)
	s.config = slices.Clone(r.Bytes())
	if r.Err() != nil || s.Index == 0 && s.Term != 0 || s.Term > maxRound {
		return s, &storage.CorruptError{Group: keys.Group(), Key: key, Reason: "the record of where the log begins is missing or malformed"}
	}
	return s, nil
}

// hardRecord is what an acceptor must not forget, beside the values.
type hardRecord struct {
	promised Ballot
	quorums  uint64 // by which all of that was decided, see Quorums.mark; 0: nothing was
	decided  uint64 // all slots up to this one are known to be chosen; it may lag
	last     uint64 // nothing was ever accepted in a higher slot
	runs     uint64 // how many records of runs there are
	digest   uint64 // of their keys
}

func (h hardRecord) encode() []byte {
	b := h.promised.append(nil)
	b = binary.AppendUvarint(b, h.quorums)
	b = binary.AppendUvarint(b, h.decided)
	b = binary.AppendUvarint(b, h.last)
	b = binary.AppendUvarint(b, h.runs)
	return binary.LittleEndian.AppendUint64(b, h.digest)
}

func readHard(keys replica.Keys, store storage.Store) (h hardRecord, err error) {
	key := keys.Protocol(tagHard)
	payload, err := replica.GetRecord(store, key, keys.Group())
	if err != nil {
		return h, err
	}
	h, err = decodeHard(payload)
	if err != nil || h.promised.Round > maxRound || h.last < h.decided {
		return h, &storage.CorruptError{Group: keys.Group(), Key: key, Reason: "the record of what was promised is missing or malformed"}
	}
	return h, nil
}

func decodeHard(payload []byte) (h hardRecord, err error) {
	r := replica.NewReader(payload)
	h.promised, h.quorums, h.decided, h.last, h.runs, h.digest = readBallot(r), r.Uvarint(), r.Uvarint(), r.Uvarint(), r.Uvarint(), r.Uint64()
	return h, r.Err()
}

// record is one run in the store.
type record struct {
	first, last uint64
	ballot      Ballot
	live        uint64 // slots for which it counts
	token       uint64 // of the batch that it is in; 0: it is durable
	bad         bool   // it can't be read
	forgotten   bool   // and says so itself: it is what Join leaves of what was accepted before, and has no content
	upTo        Ballot // if it is bad: up to which ballot what was accepted there is not known
	run         *run   // nil: read it from the store
}

func (r *record) key(keys replica.Keys) []byte {
	return keys.Protocol(tagRun, r.first, r.last, r.ballot.Round, uint64(r.ballot.Priority), r.ballot.Node)
}

func openRunKey(prefix, key []byte) (r *record, ok bool) {
	if len(key) != len(prefix)+5*8 {
		return nil, false
	}
	n := func(i int) uint64 { return binary.BigEndian.Uint64(key[len(prefix)+8*i:]) }
	r = &record{first: n(0), last: n(1), ballot: Ballot{n(2), uint8(n(3)), n(4)}}
	return r, r.first > 0 && r.first <= r.last && n(3) <= 255 && !r.ballot.IsZero()
}

// keyDigest is a record's part in the digest: the digest of some records is the XOR of theirs.
func keyDigest(key []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(key)
	return h.Sum64()
}

// span says that a record counts for some slots.
type span struct {
	first, last uint64
	rec         *record
}

// fenceStart says that from a slot on (until the next one) fresh values have this origin, or a lower one.
type fenceStart struct {
	slot   uint64
	ballot Ballot
}

// valueLog is the values that an acceptor has accepted, and those that it knows to be chosen. The
// newest are kept in memory; others are read from the store when somebody lags.
type valueLog struct {
	keys  replica.Keys
	group uint64
	store storage.Store

	start    startRecord
	promised Ballot // as the acceptor has it
	spans    []span // ascending, without overlap
	runs     uint64 // records in the store, or in a batch for it
	digest   uint64
	fences   []fenceStart // of slots that are decided and here, ascending
	garbage  []*record    // records that count for nothing, and are to be deleted

	cached []*record // whose run is in memory, the oldest first
	bytes  int       // of them
	limit  int
}

// openLog reads a group's values, all of them, so that what can't be read is found now. lost says
// that records are missing, nobody knows which.
func openLog(keys replica.Keys, store storage.Store, limit uint64) (l *valueLog, h hardRecord, lost bool, err error) {
	l = &valueLog{keys: keys, group: keys.Group(), store: store, limit: int(min(limit, 1<<40))}
	if l.start, err = readStart(keys, store); err != nil {
		return nil, h, false, err
	}
	if h, err = readHard(keys, store); err != nil {
		return nil, h, false, err
	}
	l.promised = h.promised
	from, to := keys.ProtocolRange(tagRun)
	it, err := store.Scan(from, to)
	if err != nil {
		return nil, h, false, err
	}
	defer it.Close()
	var records []*record
	for {
		key, value, err := it.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, h, false, replica.Corrupt(err, l.group, 0)
		}
		rec, ok := openRunKey(from, key)
		if !ok {
			return nil, h, false, &storage.CorruptError{Group: l.group, Key: slices.Clone(key), Reason: "not the key of a run of values"}
		}
		l.runs++
		l.digest ^= keyDigest(key)
		records = append(records, rec)
		if r, err := openRun(l.group, slices.Clone(value)); err == nil && rec.fits(r) {
			l.cache(rec, r)
			l.evict(^uint64(0), ^uint64(0))
		} else {
			probe.Sometimes("paxos: a record can't be read", true)
			rec.bad = !probe.Bug("an unreadable slot is empty")
			rec.forgotten = isForgotten(key, value)
			rec.upTo = l.unknown(rec)
			if !rec.bad {
				records = records[:len(records)-1]
			}
		}
	}
	slices.SortStableFunc(records, func(a, b *record) int { return a.ballot.Compare(b.ballot) })
	for _, rec := range records {
		l.splice(rec)
	}
	lost = (l.runs != h.runs || l.digest != h.digest) && !l.nameMissing(h)
	return l, h, lost && !probe.Bug("an unreadable slot is empty"), nil
}

// isForgotten reports whether a record is what Join leaves of what was accepted before: sealed, and empty.
// One that was cut is damage.
func isForgotten(key, value []byte) bool {
	payload, err := storage.OpenRecord(key, value)
	return err == nil && len(payload) == 0
}

// nameMissing finds out which records are missing, and puts them in their places as such that can't be read;
// false if that can't be told.
//
// The slots that are decided have values, and so has the last of all. Where they have none a record is
// missing. If as many are as there are such gaps, each is likely to have been just there, or to reach a little
// beyond, to where records of lower ballots show now; in a ballot of its neighbours, or one between them. The
// digest says whether that is so.
func (l *valueLog) nameMissing(h hardRecord) bool {
	const most = 4 // the search takes the longer the more there are
	if h.runs <= l.runs || h.runs-l.runs > most {
		return false
	}
	reach := [...]uint64{0, 256, 8, 2, 1}[h.runs-l.runs]
	var gaps [][]candidate // what may have been in each
	next := l.start.Index + 1
	for i := 0; i <= len(l.spans) && uint64(len(gaps)) <= most; i++ {
		end := h.last + 1
		if i < len(l.spans) {
			end = l.spans[i].first
		}
		if next < end && (next <= h.decided || i == len(l.spans)) {
			gaps = append(gaps, l.candidates(i, next, end-1, reach, h))
		}
		if i < len(l.spans) {
			next = l.spans[i].last + 1
		}
	}
	if uint64(len(gaps)) != h.runs-l.runs {
		return false
	}
	product := 1
	for _, list := range gaps {
		if product *= len(list); product > maxCandidates {
			return false
		}
	}
	var found []*record
	var search func(gaps [][]candidate, digest uint64) bool
	search = func(gaps [][]candidate, digest uint64) bool {
		if len(gaps) == 0 {
			return digest == h.digest
		}
		for _, c := range gaps[0] {
			if search(gaps[1:], digest^c.digest) {
				found = append(found, c.rec)
				return true
			}
		}
		return false
	}
	if !search(gaps, l.digest) {
		return false
	}
	probe.Sometimes("paxos: a missing record is named", true)
	for _, rec := range found {
		rec.upTo = l.unknown(rec)
		l.splice(rec)
	}
	l.runs, l.digest = h.runs, h.digest
	return true
}

// maxCandidates bounds the search for missing records.
const maxCandidates = 1 << 18

// candidate is a record that may be missing.
type candidate struct {
	rec    *record
	digest uint64 // of its key
}

// candidates returns the records that may be missing in the gap from one slot to another, before a span. They
// may reach over spans of lower ballots beside it, but no further than reach.
func (l *valueLog) candidates(i int, first, last, reach uint64, h hardRecord) (list []candidate) {
	ballots := []Ballot{h.promised}
	for j := max(i-2, 0); j < min(i+2, len(l.spans)); j++ {
		if b := l.spans[j].rec.ballot; !b.isChosen() {
			ballots = append(ballots, b)
		}
	}
	slices.SortFunc(ballots, Ballot.Compare)
	low, high := ballots[0].Round, ballots[len(ballots)-1].Round
	for _, b := range slices.Clone(ballots) {
		for round := low; round <= high && round-low < 32; round++ {
			ballots = append(ballots, Ballot{round, b.Priority, b.Node})
		}
	}
	ballots = append(ballots, chosen())
	slices.SortFunc(ballots, Ballot.Compare)
	for _, b := range slices.Compact(ballots) {
		if b.IsZero() {
			continue
		}
		low, high := first, last
		for j := i - 1; j >= 0 && l.spans[j].last+1 == low && l.spans[j].rec.ballot.Less(b); j-- {
			low = l.spans[j].first
		}
		if i == 0 || low == l.start.Index+1 {
			low = 1 // the log may begin inside a run
		}
		for j := i; j < len(l.spans) && l.spans[j].first == high+1 && l.spans[j].rec.ballot.Less(b); j++ {
			high = l.spans[j].last
		}
		for from := first; from >= low && first-from <= reach; from-- {
			for to := last; to <= high && to-last <= reach; to++ {
				rec := &record{first: from, last: to, ballot: b, bad: true}
				if list = append(list, candidate{rec, keyDigest(rec.key(l.keys))}); len(list) > maxCandidates {
					return list
				}
			}
		}
	}
	return list
}

// contradicted returns an error if the hard record can't be the one that was written with the log: that is
// not repaired, for nobody else knows what this acceptor has promised.
func (l *valueLog) contradicted(h hardRecord) error {
	bad := func(format string, args ...any) error {
		return &storage.CorruptError{Group: l.group, Index: l.start.Index, Key: l.keys.Protocol(tagHard), Reason: fmt.Sprintf(format, args...)}
	}
	if h.decided < l.start.Index {
		return bad("the log begins after slot %d, but only those up to %d are decided", l.start.Index, h.decided)
	}
	for _, s := range l.spans {
		if s.rec.last > h.last || !s.rec.ballot.isChosen() && h.promised.Less(s.rec.ballot) {
			return bad("there are values up to slot %d, in ballot %v, but %v was promised, and nothing accepted after slot %d", s.rec.last, s.rec.ballot, h.promised, h.last)
		}
	}
	return nil
}

// damage returns an error if there is something that can't be read. What a replica that has joined again
// has forgotten is no damage, and none either what it says is lost before it was told anything.
func (l *valueLog) damage(lost bool) error {
	if l.start.Index == 0 {
		return nil
	}
	for _, s := range l.spans {
		if s.rec.bad && !s.rec.forgotten {
			return &storage.CorruptError{Group: l.group, Index: s.first, Key: s.rec.key(l.keys), Reason: fmt.Sprintf("the values of slots %d to %d are damaged or missing", s.rec.first, s.rec.last)}
		}
	}
	if lost {
		from, _ := l.keys.ProtocolRange(tagRun)
		return &storage.CorruptError{Group: l.group, Index: l.start.Index + 1, Key: from, Reason: "runs of values are missing, and which ones can't be told"}
	}
	return nil
}

// fits reports whether a run is what the record's key says.
func (r *record) fits(run *run) bool {
	return run.first == r.first && run.last() == r.last && run.ballot == r.ballot
}

// put takes in a run, and reports whether anything of it is new. It is in the batch
// that token stands for.
func (l *valueLog) put(r *run, token uint64, batch *storage.Batch) bool {
	if r.last() <= l.start.Index || l.covers(r) {
		return false
	}
	rec := &record{first: r.first, last: r.last(), ballot: r.ballot, token: token}
	l.cache(rec, r)
	l.splice(rec)
	l.collect(batch)
	key := rec.key(l.keys)
	batch.Set(key, r.bytes)
	l.runs++
	l.digest ^= keyDigest(key)
	return true
}

// covers reports whether nothing of a run would count.
func (l *valueLog) covers(r *run) bool {
	next := max(r.first, l.start.Index+1)
	for i := l.search(next); i < len(l.spans) && l.spans[i].first <= next; i++ {
		s := &l.spans[i]
		if !s.rec.over(r.ballot) {
			return false
		}
		if next = s.last + 1; next > r.last() {
			return true
		}
	}
	return false
}

// over reports whether the record counts where there is one of another ballot, too.
func (r *record) over(ballot Ballot) bool {
	if r.bad {
		return ballot.Less(r.upTo)
	}
	return !r.ballot.Less(ballot)
}

// search returns the place of the first span that ends at a slot or later.
func (l *valueLog) search(slot uint64) int {
	if n := len(l.spans); n > 0 && l.spans[n-1].last < slot {
		return n
	}
	return sort.Search(len(l.spans), func(i int) bool { return l.spans[i].last >= slot })
}

// find returns the span of a slot, or nil.
func (l *valueLog) find(slot uint64) *span {
	i := l.search(slot)
	if i == len(l.spans) || l.spans[i].first > slot {
		return nil
	}
	return &l.spans[i]
}

// last returns the last slot that has a value, at least where the log begins.
func (l *valueLog) last() uint64 {
	if n := len(l.spans); n > 0 {
		return max(l.spans[n-1].last, l.start.Index)
	}
	return l.start.Index
}

// splice puts a record where it counts.
func (l *valueLog) splice(rec *record) {
	first, last := max(rec.first, l.start.Index+1), rec.last
	if first > last {
		l.garbage = append(l.garbage, rec)
		return
	}
	emit := func(from, to uint64, r *record) {
		if from > to {
			return
		}
		if n := len(l.spans); n > 0 && l.spans[n-1].rec == r && l.spans[n-1].last+1 == from {
			l.spans[n-1].last = to
			return
		}
		l.spans = append(l.spans, span{from, to, r})
	}
	i := l.search(first)
	if i == len(l.spans) {
		rec.live = last - first + 1
		emit(first, last, rec)
		return
	}
	after := slices.Clone(l.spans[i:])
	l.spans = l.spans[:i]
	next := first // what is before has its place
	for _, s := range after {
		if s.first > last {
			if next <= last {
				emit(next, last, rec)
				rec.live += last - next + 1
				next = last + 1
			}
			emit(s.first, s.last, s.rec)
			continue
		}
		if s.first < first {
			emit(s.first, first-1, s.rec)
		}
		from, to := max(s.first, first), min(s.last, last)
		if next < from {
			emit(next, from-1, rec)
			rec.live += from - next
		}
		if s.rec.over(rec.ballot) {
			emit(from, to, s.rec)
		} else {
			emit(from, to, rec)
			rec.live += to - from + 1
			l.release(s.rec, to-from+1)
		}
		next = to + 1
		emit(max(s.first, last+1), s.last, s.rec)
	}
	if next <= last {
		emit(next, last, rec)
		rec.live += last - next + 1
	}
	if rec.live == 0 {
		l.garbage = append(l.garbage, rec)
	}
}

// release says that a record does not count any more for so many slots.
func (l *valueLog) release(rec *record, slots uint64) {
	if rec.live -= slots; rec.live == 0 {
		l.garbage = append(l.garbage, rec)
		l.forget(rec)
	}
}

// collect deletes the records that count for nothing.
func (l *valueLog) collect(batch *storage.Batch) {
	for _, rec := range l.garbage {
		key := rec.key(l.keys)
		batch.Delete(key)
		l.runs--
		l.digest ^= keyDigest(key)
	}
	l.garbage = nil
}

// cache keeps a run in memory.
func (l *valueLog) cache(rec *record, r *run) {
	rec.run = r
	l.cached = append(l.cached, rec)
	l.bytes += len(r.bytes) + 64*len(r.values)
}

func (l *valueLog) forget(rec *record) {
	if rec.run != nil {
		l.bytes -= len(rec.run.bytes) + 64*len(rec.run.values)
		rec.run = nil
	}
}

// evict drops runs from memory while there are too many, but for those that are not durable or
// that hold slots from keep on.
func (l *valueLog) evict(keep, persisted uint64) {
	n, limit := 0, l.limit
	if probe.Buggify("paxos: no value is cached") {
		limit = 0
	}
	for ; n < len(l.cached); n++ {
		rec := l.cached[n]
		if rec.run == nil {
			continue
		}
		if l.bytes <= limit || rec.last >= keep || rec.token > persisted {
			break
		}
		l.forget(rec)
	}
	if n > 0 {
		clear(l.cached[:n])
		l.cached = l.cached[n:]
	}
}

// load returns a record's run, or nil if it can't be read: then it is unknown from here on.
func (l *valueLog) load(rec *record) *run {
	if rec.run != nil || rec.bad {
		return rec.run
	}
	probe.Sometimes("paxos: values are read from the store", true)
	value, err := l.store.Get(rec.key(l.keys))
	if err == nil {
		var r *run
		if r, err = openRun(l.group, value); err == nil && rec.fits(r) {
			return r
		}
	} else if !errors.Is(err, storage.ErrNotFound) && !errors.Is(err, storage.ErrCorrupt) {
		panic(fmt.Errorf("paxos: group %d: read values of slots %d to %d: %w", l.group, rec.first, rec.last, err))
	}
	rec.bad, rec.upTo = true, l.unknown(rec)
	return nil
}

// unknown returns up to which ballot a record that can't be read leaves in the dark what was accepted. One
// of a value that was known to be chosen has taken the place of one of some ballot that was promised.
func (l *valueLog) unknown(rec *record) Ballot {
	if rec.ballot.isChosen() {
		return l.promised
	}
	return rec.ballot
}

// at returns the value of a slot and the ballot in which it was accepted; nil if there is none
// that can be read.
func (l *valueLog) at(slot uint64) (*value, Ballot) {
	s := l.find(slot)
	if s == nil {
		return nil, Ballot{}
	}
	r := l.load(s.rec)
	if r == nil {
		return nil, Ballot{}
	}
	return &r.values[slot-r.first], r.ballot
}

// mayChange reports whether a value after a slot is a configuration, or may be one.
func (l *valueLog) mayChange(slot uint64) bool {
	for i := l.search(slot + 1); i < len(l.spans); i++ {
		s := &l.spans[i]
		r := l.load(s.rec)
		if r == nil {
			return true
		}
		for next := max(s.first, slot+1); next <= s.last; next++ {
			if r.values[next-r.first].kind == valueConfig {
				return true
			}
		}
	}
	return false
}

// fence returns the highest origin of a fresh value up to a slot, which is decided and here.
func (l *valueLog) fence(slot uint64) Ballot {
	i := sort.Search(len(l.fences), func(i int) bool { return l.fences[i].slot > slot })
	if i == 0 {
		return fenceAt(l.start.Position)
	}
	return l.fences[i-1].ballot
}

// held takes in that the value of a slot, which follows those before, is decided and here.
func (l *valueLog) held(slot uint64, v *value) {
	if v.fresh() && l.fence(slot).Less(v.origin) {
		l.fences = append(l.fences, fenceStart{slot, v.origin})
	}
}

// compact drops the values up to a position.
func (l *valueLog) compact(to replica.Position, config []byte, batch *storage.Batch) {
	setFence(&to, l.fence(to.Index))
	l.begin(startRecord{to, config}, batch)
}

// begin drops the values up to a start, and writes that.
func (l *valueLog) begin(s startRecord, batch *storage.Batch) {
	i := l.search(s.Index + 1)
	for _, old := range l.spans[:i] {
		l.release(old.rec, old.last-old.first+1)
	}
	l.spans = slices.Clone(l.spans[i:])
	if len(l.spans) > 0 && l.spans[0].first <= s.Index {
		probe.Sometimes("paxos: the log begins inside a run", true)
		l.release(l.spans[0].rec, s.Index+1-l.spans[0].first)
		l.spans[0].first = s.Index + 1
	}
	at, _ := slices.BinarySearchFunc(l.fences, s.Index+1, func(f fenceStart, slot uint64) int { return cmp.Compare(f.slot, slot) })
	l.fences = slices.Clone(l.fences[at:])
	l.start = s
	l.collect(batch)
	key := l.keys.Protocol(tagStart)
	batch.Set(key, storage.AppendRecord(nil, key, s.encode()))
}
