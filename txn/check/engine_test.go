package check

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// engine is a small database that keeps to an isolation level, one step at a time.
type engine struct {
	level   engineLevel
	rng     *rand.Rand
	time    int
	history map[string][]stored // by key, in the order of commits
	dirty   map[string][]int64  // reads uncommitted: the content in place
	locks   map[string]*lock
	table   lock // scans lock all keys, there and to come
}

type engineLevel string

const (
	locking      engineLevel = "two-phase locking"
	itemLocks    engineLevel = "two-phase locking of what is there"
	staleReads   engineLevel = "two-phase locking, and reads of old snapshots"
	freshShots   engineLevel = "snapshot isolation"
	oldShots     engineLevel = "snapshot isolation with old snapshots"
	committed    engineLevel = "read committed"
	uncommitted  engineLevel = "read uncommitted"
	listKeys                 = "abcd"
	registerKeys             = "wxyz"
)

type stored struct {
	time  int
	value []int64
}

type lock struct {
	writer  *job
	readers map[*job]bool
}

// job is a transaction inside of the engine.
type job struct {
	*engine
	readOnly bool
	snapshot int
	writes   map[string][]int64 // what it has made of keys
	base     map[string]int     // snapshots: when what it overwrites was committed
	before   map[string][]int64 // reads uncommitted: what was there
}

func newEngine(level engineLevel, rng *rand.Rand) *engine {
	return &engine{level: level, rng: rng, history: map[string][]stored{}, dirty: map[string][]int64{}, locks: map[string]*lock{}}
}

func (e *engine) begin(readOnly bool) *job {
	j := &job{engine: e, readOnly: readOnly, snapshot: e.time, writes: map[string][]int64{}, base: map[string]int{}, before: map[string][]int64{}}
	if e.level == oldShots || e.level == staleReads && readOnly {
		j.snapshot -= e.rng.IntN(min(e.time+1, 20))
	}
	return j
}

// at returns what a key held at a time.
func (e *engine) at(key string, time int) (value []int64, since int) {
	for _, s := range e.history[key] {
		if s.time <= time {
			value, since = s.value, s.time
		}
	}
	return value, since
}

func (e *engine) lock(key string) *lock {
	l := e.locks[key]
	if l == nil {
		l = &lock{}
		e.locks[key] = l
	}
	return l
}

// share and own take locks, or report that somebody is in the way.
func (l *lock) share(j *job) bool {
	if l.writer != nil && l.writer != j {
		return false
	}
	if l.readers == nil {
		l.readers = map[*job]bool{}
	}
	l.readers[j] = true
	return true
}

func (l *lock) own(j *job) bool {
	if l.writer != nil && l.writer != j {
		return false
	}
	for r := range l.readers {
		if r != j {
			return false
		}
	}
	l.writer = j
	return true
}

// read returns what the transaction sees. false: it must be aborted.
func (j *job) read(key string) ([]int64, bool) {
	if own, ok := j.writes[key]; ok {
		return own, true
	}
	switch j.level {
	case locking, itemLocks, staleReads:
		if j.level == staleReads && j.readOnly {
			break
		}
		if !j.lock(key).share(j) {
			return nil, false
		}
		value, _ := j.at(key, j.time)
		return value, true
	case committed:
		value, _ := j.at(key, j.time)
		return value, true
	case uncommitted:
		return j.dirty[key], true
	}
	value, _ := j.at(key, j.snapshot)
	return value, true
}

func (j *job) write(key string, change func(old []int64) []int64) bool {
	switch j.level {
	case locking, staleReads:
		// Whoever scans forbids keys to appear; the lock of the key is not enough.
		for r := range j.table.readers {
			if r != j {
				return false
			}
		}
		fallthrough
	case itemLocks, committed, uncommitted:
		if !j.lock(key).own(j) {
			return false
		}
	}
	old, ok := j.writes[key]
	if !ok {
		switch j.level {
		case freshShots, oldShots:
			old, j.base[key] = j.at(key, j.snapshot)
		case uncommitted:
			old = j.dirty[key]
			j.before[key] = old
		default:
			old, _ = j.at(key, j.time)
		}
	}
	j.writes[key] = change(old)
	if j.level == uncommitted {
		j.dirty[key] = j.writes[key]
	}
	return true
}

// scan returns all keys of a range that hold something.
func (j *job) scan(from, to string) (map[string][]int64, bool) {
	if j.level == locking || j.level == staleReads && !j.readOnly {
		j.table.share(j)
		for key, l := range j.locks {
			if key >= from && key < to && l.writer != nil && l.writer != j {
				return nil, false
			}
		}
	}
	found := map[string][]int64{}
	for _, key := range strings.Split(listKeys+registerKeys, "") {
		if key < from || key >= to {
			continue
		}
		if j.level == itemLocks && j.writes[key] == nil && len(j.history[key]) == 0 {
			continue // what is not there can't be locked
		}
		value, ok := j.read(key)
		if !ok {
			return nil, false
		}
		if len(value) > 0 {
			found[key] = value
		}
	}
	return found, true
}

// commit makes it all there at once, or reports that it can't.
func (j *job) commit() bool {
	defer j.release()
	if j.level == freshShots || j.level == oldShots {
		for key, base := range j.base {
			if _, since := j.at(key, j.time); since != base {
				return false
			}
		}
	}
	j.time++
	for key, value := range j.writes {
		j.history[key] = append(j.history[key], stored{j.time, value})
	}
	return true
}

func (j *job) abort() {
	maps.Copy(j.dirty, j.before)
	j.release()
}

func (j *job) release() {
	delete(j.table.readers, j)
	for _, l := range j.locks {
		delete(l.readers, j)
		if l.writer == j {
			l.writer = nil
		}
	}
}

// options is how a history is made.
type options struct {
	transactions, clients, operations int
	keys                              int // of each sort
	registers, scans, unknown         bool
}

// client runs one transaction after the other.
type client struct {
	job   *job
	rec   *Recording
	left  int
	ended bool // what is left is to hear of it
	ok    bool
}

// makeHistory has clients use an engine side by side.
func makeHistory(level engineLevel, o options, rng *rand.Rand) History {
	e := newEngine(level, rng)
	var r Recorder
	clients := make([]client, o.clients)
	var abandoned []*job
	begun := 0
	for begun < o.transactions || slices.ContainsFunc(clients, func(c client) bool { return c.job != nil }) {
		if n := len(abandoned); n > 0 && rng.IntN(4) == 0 {
			// Its client knows nothing of it any more.
			if j := abandoned[n-1]; rng.IntN(2) == 0 {
				j.commit()
			} else {
				j.abort()
			}
			abandoned = abandoned[:n-1]
		}
		i := rng.IntN(len(clients))
		c := &clients[i]
		switch {
		case c.job == nil:
			if begun == o.transactions {
				continue
			}
			begun++
			*c = client{job: e.begin(rng.IntN(3) == 0), rec: r.Begin(i + 1), left: 1 + rng.IntN(o.operations)}
		case c.ended:
			if c.ok {
				c.rec.Commit()
			} else {
				c.rec.Abort()
			}
			*c = client{}
		case c.left == 0 && o.unknown && rng.IntN(20) == 0:
			if rng.IntN(2) == 0 {
				c.rec.Unknown()
			}
			abandoned = append(abandoned, c.job)
			*c = client{}
		case c.left == 0 && rng.IntN(20) == 0:
			c.job.abort()
			c.ended = true
		case c.left == 0:
			c.ok = c.job.commit()
			if !c.ok {
				c.job.abort()
			}
			c.ended = true
		default:
			c.left--
			if !c.step(o, rng, r.Unique()) {
				c.job.abort()
				c.ended = true
			}
		}
	}
	return r.History()
}

// step executes one operation of a transaction.
func (c *client) step(o options, rng *rand.Rand, value int64) bool {
	register := o.registers && rng.IntN(2) == 0
	key := string(listKeys[rng.IntN(o.keys)])
	if register {
		key = string(registerKeys[rng.IntN(o.keys)])
	}
	switch {
	case o.scans && rng.IntN(6) == 0:
		from := rng.IntN(len(listKeys))
		to := []string{string(listKeys[from] + byte(1+rng.IntN(3))), "~"}[rng.IntN(2)]
		found, ok := c.job.scan(string(listKeys[from]), to)
		if ok {
			c.rec.Scan(string(listKeys[from]), to, found)
		}
		return ok
	case c.job.readOnly || rng.IntN(2) == 0:
		seen, ok := c.job.read(key)
		if ok {
			c.rec.Read(key, seen...)
		}
		return ok
	case register:
		c.rec.Write(key, value)
		return c.job.write(key, func([]int64) []int64 { return []int64{value} })
	default:
		c.rec.Append(key, value)
		return c.job.write(key, func(old []int64) []int64 { return append(slices.Clip(old), value) })
	}
}

// variants returns kinds with their variants. If reads may be stale, then so are those that take
// processes or real time to be seen.
func variants(stale bool, kinds ...Kind) map[Kind]bool {
	all := make(map[Kind]bool)
	for _, k := range kinds {
		all[k], all[k.Process()], all[k.Realtime()] = true, true, true
	}
	if stale {
		for _, k := range []Kind{G0, G1c, GSingle, GNonadjacent, G2Item, G2, CyclicVersions} {
			all[k.Process()], all[k.Realtime()] = true, true
		}
	}
	return all
}

// Histories of engines show what their level allows, and nothing else; and of what it allows,
// all is found sooner or later.
func TestEngines(t *testing.T) {
	skews := []Kind{G2Item, G2}
	loose := append([]Kind{Internal, LostUpdate, GSingle, GNonadjacent}, skews...)
	for _, c := range []struct {
		level   engineLevel
		keeps   Model
		allowed map[Kind]bool // when it is held against strict serializability
		found   []Kind        // over all seeds
	}{
		{locking, StrictSerializable, nil, nil},
		{staleReads, Serializable, variants(true), []Kind{GSingle.Process(), GSingle.Realtime()}},
		{itemLocks, RepeatableRead, variants(false, Internal, LostUpdate, GSingle, GNonadjacent, G2), []Kind{GSingle, Internal}},
		{freshShots, StrongSnapshotIsolation, variants(false, skews...), []Kind{G2Item, G2}},
		{oldShots, SnapshotIsolation, variants(true, skews...), []Kind{G2Item, G2, GSingle.Process(), GSingle.Realtime()}},
		{committed, ReadCommitted, variants(false, loose...), []Kind{Internal, LostUpdate, GSingle, G2Item}},
		{uncommitted, ReadUncommitted, nil, []Kind{G1a, G1b, G1c, IncompatibleOrder, GSingle, LostUpdate, Internal}},
	} {
		t.Run(string(c.level), func(t *testing.T) {
			found := make(map[Kind]int)
			for seed := range uint64(160 / scale) {
				rng := rand.New(rand.NewPCG(seed, 1))
				o := options{transactions: 60, clients: 2 + rng.IntN(5), operations: 1 + rng.IntN(6), keys: 1 + rng.IntN(4),
					registers: seed%2 == 1, scans: seed%4 > 1, unknown: seed%8 > 3}
				h := makeHistory(c.level, o, rng)
				for _, m := range Models() {
					r, err := h.Check(Config{Model: m, MaxPerKind: 3})
					require.NoError(t, err, "seed %d", seed)
					verify(t, h, r)
					if weaker(m, c.keeps) {
						require.True(t, r.OK(), "seed %d: %s\n%s", seed, r, notation(h))
					}
					if m != StrictSerializable {
						continue
					}
					for k, n := range r.Found {
						found[k] += n
						if c.allowed != nil {
							require.True(t, c.allowed[k], "seed %d: %s: %s\n%s", seed, k, r, notation(h))
						}
					}
				}
			}
			for _, k := range c.found {
				require.True(t, scale > 1 || found[k] > 0, "%s: found %v", k, found)
			}
			t.Log(found)
		})
	}
}

// parts returns what a model is made of.
func (m Model) parts() (isolation, level) { return Config{Model: m}.promise() }

// weaker reports whether all that keeps to a model keeps to another one.
func weaker(other, m Model) bool {
	i, l := other.parts()
	j, k := m.parts()
	implies := map[isolation]isolation{readUncommitted: readUncommitted, readCommitted: readCommitted | readUncommitted,
		repeatableRead: repeatableRead | readCommitted | readUncommitted, snapshot: snapshot | readCommitted | readUncommitted,
		serializable: serializable | snapshot | repeatableRead | readCommitted | readUncommitted}
	return implies[j]&i != 0 && l <= k
}

// One transaction after the other is right by every model, and one wrong read is not, by
// the strictest.
func TestOneWrongRead(t *testing.T) {
	changed := 0
	for seed := range uint64(600 / scale) {
		rng := rand.New(rand.NewPCG(seed, 3))
		o := options{transactions: 20, clients: 1, operations: 6, keys: 1 + rng.IntN(4), registers: seed%2 == 1, scans: seed%4 > 1}
		h := makeHistory([]engineLevel{locking, freshShots, committed, uncommitted}[rng.IntN(4)], o, rng)
		for _, m := range []Model{StrictSerializable, Models()[rng.IntN(len(Models()))]} {
			r, err := h.Check(Config{Model: m, LinearizableKeys: seed%8 > 3})
			require.NoError(t, err)
			require.NoError(t, r.Err(), "seed %d: %s", seed, notation(h))
		}
		right := notation(h)
		if !mutate(h, rng) {
			continue
		}
		changed++
		r, err := h.Check(Config{})
		require.NoError(t, err)
		require.ErrorIs(t, r.Err(), ErrViolation, "seed %d\n%s\nbefore it was changed\n%s", seed, notation(h), right)
		verify(t, h, r)
	}
	require.Greater(t, changed, 300/scale)
}
