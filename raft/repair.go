package raft

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

var (
	_ replica.Repairer    = protocol{}
	_ replica.EntrySource = (*core)(nil)
	_ replica.EntrySource = (*repairedLog)(nil)
)

// repairedLog is a log of which some runs are damaged or missing, while it is mended.
//
// Log matching (the Raft paper, section 5.3) is what makes it certain which entries belong into it:
// where two logs have an entry of the same index and term, they have the same entries up to there. The hard
// record names the last entry. So one walks down from there: a run that has the entry, of this store
// or of a peer, is right up to it, and says the term of the entry before its first one, which
// is what to look for next. Nothing that is above has to be believed, and what lies below is never
// guessed.
type repairedLog struct {
	keys  replica.Keys
	store storage.Store
	start replica.Position
	hard  *raftpb.HardState
	last  replica.Position
	runs  []intactRun // ascending
	bad   [][]byte    // keys of the records that can't be read

	// need is the highest entry that the log lacks: it is certain that it had it. If it is not above
	// the start, nothing is missing.
	need replica.Position
}

// intactRun is what there is to know of a run that can be read.
type intactRun struct {
	first, last, before uint64
	terms               []termStart
}

func (r *intactRun) termAt(index uint64) (term uint64, ok bool) {
	if index < r.first || index > r.last {
		return 0, false
	}
	i := sort.Search(len(r.terms), func(i int) bool { return r.terms[i].first > index }) - 1
	return r.terms[i].term, true
}

func summarize(entries []*raftpb.Entry, before uint64) intactRun {
	r := intactRun{first: entries[0].GetIndex(), last: entries[len(entries)-1].GetIndex(), before: before}
	for _, e := range entries {
		if n := len(r.terms); n == 0 || r.terms[n-1].term != e.GetTerm() {
			r.terms = append(r.terms, termStart{e.GetIndex(), e.GetTerm()})
		}
	}
	return r
}

// Repair implements replica.Repairer.
func (protocol) Repair(keys replica.Keys, store storage.Store) (replica.Repair, error) {
	d := &repairedLog{keys: keys, store: store}
	var config []byte
	var err error
	if d.start, config, err = readStart(keys, store); err != nil {
		return nil, err
	}
	if _, err := decodeConf(config); err != nil {
		return nil, &storage.CorruptError{Group: keys.Group(), Key: keys.Protocol(tagStart), Reason: err.Error()}
	}
	if d.hard, d.last, err = readHard(keys, store); err != nil {
		return nil, err
	}
	if d.last.Index < d.start.Index || d.last.Index < d.hard.GetCommit() {
		return nil, &storage.CorruptError{Group: keys.Group(), Key: keys.Protocol(tagHard),
			Reason: fmt.Sprintf("the log ends at index %d, but it begins after %d, and %d was committed", d.last.Index, d.start.Index, d.hard.GetCommit())}
	}
	if err := d.scan(store); err != nil {
		return nil, err
	}
	d.need = d.last
	return d, d.descend()
}

// scan reads which runs there are.
func (d *repairedLog) scan(store storage.Store) error {
	from, to := d.keys.ProtocolRange(tagLog)
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
		first, err := runIndex(from, key)
		if err != nil {
			return replica.Corrupt(err, d.keys.Group(), 0)
		}
		if first > d.last.Index {
			return &storage.CorruptError{Group: d.keys.Group(), Index: first, Key: slices.Clone(key), Reason: "run of log entries: it lies beyond the log's end"}
		}
		entries, before, err := openRun(d.keys.Group(), slices.Clone(value))
		if err != nil || entries[0].GetIndex() != first {
			d.bad = append(d.bad, slices.Clone(key))
			continue
		}
		d.runs = append(d.runs, summarize(entries, before))
	}
}

// at returns the run in effect at an index: the last that begins there or before.
func (d *repairedLog) at(index uint64) *intactRun {
	i := sort.Search(len(d.runs), func(i int) bool { return d.runs[i].first > index }) - 1
	if i < 0 {
		return nil
	}
	return &d.runs[i]
}

// descend goes down from the entry that is needed as far as there are runs that fit.
func (d *repairedLog) descend() error {
	for d.need.Index > d.start.Index {
		run := d.at(d.need.Index)
		if run == nil {
			return nil
		}
		if term, ok := run.termAt(d.need.Index); !ok || term != d.need.Term {
			return nil
		}
		if err := d.reach(run); err != nil {
			return err
		}
	}
	return nil
}

// reach notes that a run is there that has the entry that is needed.
func (d *repairedLog) reach(run *intactRun) error {
	below := replica.Position{Index: run.first - 1, Term: run.before}
	if run.first <= d.start.Index {
		below.Index = d.start.Index
		below.Term, _ = run.termAt(d.start.Index)
	}
	if below.Index == d.start.Index && below.Term != d.start.Term {
		return &storage.CorruptError{Group: d.keys.Group(), Index: d.start.Index, Key: d.keys.Protocol(tagStart),
			Reason: fmt.Sprintf("the log begins after index %d in term %d, but the entry there has term %d", d.start.Index, d.start.Term, below.Term)}
	}
	d.need = below
	return nil
}

// Gap implements replica.Repair.
func (d *repairedLog) Gap() (replica.Gap, bool) {
	if d.need.Index <= d.start.Index {
		return replica.Gap{}, false
	}
	gap := replica.Gap{First: d.start.Index + 1, Last: d.need.Index, Term: d.need.Term}
	if below := d.at(d.need.Index); below != nil {
		// It is likely to be right up to its end, if that is lower; or else in part.
		next := below.last + 1
		if below.last >= d.need.Index {
			next = below.first + 1
		}
		gap.First = min(max(gap.First, next), gap.Last)
	}
	return gap, true
}

var errUnfit = errors.New("raft: the entries do not fit into the log")

// Fill implements replica.Repair.
func (d *repairedLog) Fill(piece []byte, batch *storage.Batch) (first uint64, err error) {
	gap, missing := d.Gap()
	if !missing {
		return 0, errUnfit
	}
	entries, before, err := openRun(d.keys.Group(), piece)
	if err != nil {
		return 0, err
	}
	run := summarize(entries, before)
	term, _ := run.termAt(gap.Last)
	for i, t := range run.terms { // of a log, they rise
		if i > 0 && t.term < run.terms[i-1].term {
			return 0, errUnfit
		}
	}
	if run.last != gap.Last || run.first < gap.First || term != gap.Term || run.before > run.terms[0].term {
		return 0, fmt.Errorf("%w: they are those from %d to %d, the last in term %d; it lacks those from %d to %d, the last in term %d",
			errUnfit, run.first, run.last, term, gap.First, gap.Last, gap.Term)
	}
	if err := d.reach(&run); err != nil {
		return 0, err
	}
	d.drop(batch, run.first, run.last+1)
	batch.Set(d.keys.Protocol(tagLog, run.first), piece)
	i := sort.Search(len(d.runs), func(i int) bool { return d.runs[i].first > run.first })
	d.runs = slices.Insert(d.runs, i, run)
	return run.first, d.descend()
}

// drop removes the runs that begin at an index from first on, and below end.
func (d *repairedLog) drop(batch *storage.Batch, first, end uint64) {
	from, _ := d.keys.ProtocolRange(tagLog)
	batch.DeleteRange(d.keys.Protocol(tagLog, first), d.keys.Protocol(tagLog, end))
	d.runs = slices.DeleteFunc(d.runs, func(r intactRun) bool { return r.first >= first && r.first < end })
	d.bad = slices.DeleteFunc(d.bad, func(key []byte) bool {
		index, err := runIndex(from, key)
		return err == nil && index >= first && index < end
	})
}

// Start implements replica.Repair.
func (d *repairedLog) Start() uint64 { return d.start.Index }

// Fits implements replica.Repair.
func (d *repairedLog) Fits(at replica.Position) bool {
	switch {
	case at.Index < d.start.Index || at.Index < d.need.Index:
		return false
	case at.Index > d.last.Index:
		return true // all that was acknowledged, and decided, is in the snapshot
	case at.Index == d.need.Index:
		return at.Term == d.need.Term
	case at.Index == d.start.Index:
		return at.Term == d.start.Term
	}
	run := d.at(at.Index)
	if run == nil {
		return false
	}
	term, ok := run.termAt(at.Index)
	return ok && term == at.Term
}

// Begin implements replica.Repair.
func (d *repairedLog) Begin(at replica.Position, config []byte, batch *storage.Batch) error {
	if !d.Fits(at) {
		return errUnfit
	}
	if conf, err := decodeConf(config); err != nil || len(conf.GetVoters()) == 0 {
		return fmt.Errorf("%w: a snapshot's configuration: %v", errUnfit, err)
	}
	start := d.keys.Protocol(tagStart)
	batch.Set(start, storage.AppendRecord(nil, start, encodeStart(at, config)))
	keep := at.Index + 1
	if forget := probe.Bug("a repair forgets what follows its snapshot"); at.Index >= d.last.Index || forget {
		keep = max(keep, d.last.Index+1)
		if at.Index > d.last.Index || forget {
			state := &raftpb.HardState{Term: new(d.hard.GetTerm()), Vote: new(d.hard.GetVote()), Commit: new(at.Index)}
			if state.GetTerm() < at.Term {
				state.Term, state.Vote = new(at.Term), nil
			}
			hard := d.keys.Protocol(tagHard)
			batch.Set(hard, storage.AppendRecord(nil, hard, encodeHard(state, at)))
			d.hard, d.last = state, at
		}
	} else if run := d.at(at.Index + 1); run != nil {
		keep = run.first
	}
	d.drop(batch, 0, keep)
	d.start, d.need = at, at
	return nil
}

// Unread implements replica.Repair.
func (d *repairedLog) Unread() bool { return len(d.bad) > 0 }

// Finish implements replica.Repair.
func (d *repairedLog) Finish(batch *storage.Batch) {
	for _, key := range d.bad {
		// The entries that are in effect there are in the runs around it.
		batch.Delete(key)
	}
	d.bad = nil
}

// Entries implements replica.EntrySource. An entry that is in an intact run is the one of its index and term,
// whatever else is damaged.
func (d *repairedLog) Entries(gap replica.Gap, limit int) ([]byte, error) {
	run := d.at(gap.Last)
	if run == nil {
		return nil, nil
	}
	low := max(gap.First, run.first)
	if term, ok := run.termAt(gap.Last); !ok || term != gap.Term || gap.Last < low {
		return nil, nil
	}
	value, err := d.store.Get(d.keys.Protocol(tagLog, run.first))
	if err != nil {
		return nil, err
	}
	entries, before, err := openRun(d.keys.Group(), slices.Clone(value))
	if err != nil {
		return nil, err
	}
	entries = entries[:gap.Last-run.first+1]
	first, size := len(entries)-1, int(entrySize(entries[len(entries)-1]))
	for first > int(low-run.first) && size+int(entrySize(entries[first-1])) <= limit {
		first--
		size += int(entrySize(entries[first]))
	}
	if first > 0 {
		before = entries[first-1].GetTerm()
	}
	return appendRun(make([]byte, 0, runSize(entries[first:])), d.keys.Group(), before, entries[first:]), nil
}

// Entries implements replica.EntrySource. What is in the log is durable; what stands at a place in
// the store may be newer than the log knows, and so the terms are held against the log's.
func (c *core) Entries(gap replica.Gap, limit int) ([]byte, error) {
	l := c.log
	low := max(gap.First, l.start.Index+1)
	if term, err := l.Term(gap.Last); err != nil || gap.Last < low || term != gap.Term {
		return nil, nil
	}
	var entries []*raftpb.Entry // the last first
	size := 0
	for next := gap.Last; next >= low; {
		i := sort.Search(len(l.runs), func(i int) bool { return l.runs[i] > next }) - 1
		if i < 0 {
			break
		}
		part, err := l.all(max(l.runs[i], low), next+1)
		if err != nil {
			return nil, err
		}
		for _, e := range slices.Backward(part) {
			if size += int(entrySize(e)); size > limit && len(entries) > 0 {
				break
			}
			entries = append(entries, e)
		}
		if next = min(next, part[0].GetIndex()) - 1; size > limit {
			break
		}
	}
	if len(entries) == 0 {
		return nil, nil
	}
	slices.Reverse(entries)
	for _, e := range entries {
		if term, err := l.Term(e.GetIndex()); err != nil || term != e.GetTerm() {
			return nil, err
		}
	}
	before, err := l.Term(entries[0].GetIndex() - 1)
	if err != nil {
		return nil, err
	}
	return appendRun(make([]byte, 0, runSize(entries)), c.group, before, entries), nil
}

// all returns entries [lo, hi), from the store and from the cache.
func (l *logStore) all(lo, hi uint64) ([]*raftpb.Entry, error) {
	var entries []*raftpb.Entry
	for lo < hi {
		part, err := l.Entries(lo, hi, ^uint64(0))
		if err != nil {
			return nil, err
		}
		entries = append(entries, part...)
		lo += uint64(len(part))
	}
	return entries, nil
}
