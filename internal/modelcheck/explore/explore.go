package explore

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// System is what is explored: a state to begin with, and the steps that lead from one state to
// others. S is a state. It is not changed once it was made. Several goroutines call Steps at a time,
// with different states.
type System[S any] interface {
	// Start returns the state to begin with, and its hash.
	Start() (S, Hash)

	// Steps tells v all steps that a state allows, in an order that depends on nothing but the
	// state.
	Steps(s S, v *Visit[S])
}

// Options bounds an exploration. A zero field means no bound.
type Options struct {
	Workers   int           // goroutines. Default: as many as run at a time
	MaxStates uint64        // states that are kept
	MaxDepth  int           // steps from the first state
	MaxBytes  uint64        // memory of the process, about
	MaxTime   time.Duration // from the call of Run

	// Progress is called now and then, if it is set.
	Progress func(Result)
}

// Result is what an exploration has found.
type Result struct {
	Complete    bool          // all states within the system's own bounds were explored
	Stopped     string        // why not all, if nothing was violated
	States      uint64        // different ones
	Transitions uint64        // steps that were tried from them, with those that change nothing
	Idle        uint64        // of those: steps that change nothing
	Beyond      uint64        // steps that the system's own bounds forbid
	Within      uint64        // steps to states that were left out since more is possible from another one
	Ends        uint64        // states from which no step leads away
	Depth       int           // steps to the states that are the farthest from the first
	Levels      []uint64      // how many states there are at each depth
	Frontier    uint64        // the most states that were held at once
	TableBytes  uint64        // of the set of states
	HeapBytes   uint64        // the most memory that the process used, as far as was seen
	Time        time.Duration // that it took

	Violation error // what was found to be wrong; nil: nothing
	Path      []int // the numbers of the steps that lead there, the last one included; as short as any
}

// ErrNondeterministic says that a system's steps are not always the same in a state.
var ErrNondeterministic = errors.New("explore: a step was taken again and had another outcome: the system depends on something that its hash does not cover")

// Visit takes in the steps from a state. A system calls, for each step, one of Step, Fail, Idle, Beyond.
type Visit[S any] struct {
	seen  *visited
	block *block[S]
	from  ref
	step  uint32 // number of the next
	moved bool
	pick  int // the step that is looked for; -1: all are
}

type block[S any] struct {
	found  []entry
	states []S
	failed error
	at     entry // of failed

	transitions, idle, beyond, within, ends uint64
}

// Step says that a step leads to a state with this hash. If it returns true the state is wanted: Add follows.
//
// Everything that is possible from that state is possible from each of the states in within, too, and if they
// are found nothing new is found from it: it is not wanted then.
func (v *Visit[S]) Step(h Hash, within ...Hash) bool {
	n := v.step
	v.step++
	v.block.transitions++
	v.moved = true
	if v.pick >= 0 && int(n) != v.pick {
		return false
	}
	if v.seen != nil {
		if v.seen.has(h) {
			return false
		}
		for _, w := range within {
			if v.seen.has(w) {
				v.block.within++
				return false
			}
		}
	}
	v.block.found = append(v.block.found, entry{h, v.from, n})
	return true
}

// Add is the state that the last Step leads to.
func (v *Visit[S]) Add(s S) { v.block.states = append(v.block.states, s) }

// Fail says that a step violates what must hold.
func (v *Visit[S]) Fail(err error) {
	n := v.step
	v.step++
	v.block.transitions++
	v.moved = true
	if v.block.failed == nil && (v.pick < 0 || int(n) == v.pick) {
		v.block.failed, v.block.at = err, entry{parent: v.from, step: n}
	}
}

// Idle says that a step changes nothing.
func (v *Visit[S]) Idle() {
	v.block.transitions++
	v.block.idle++
}

// Beyond says that a step is not taken since it leads beyond the bounds that the system has.
func (v *Visit[S]) Beyond() { v.block.beyond++ }

const noStep = 1<<32 - 1 // of the first state

const (
	perBlock = 256
	perBatch = 1 << 15
)

// item is a state whose steps are not explored yet.
type item[S any] struct {
	state S
	at    ref
}

type search[S any] struct {
	system System[S]
	o      Options
	seen   visited
	r      Result
	began  time.Time
	err    atomic.Pointer[error]
}

// Run explores a system, breadth first, until something is violated, all is explored, or a
// bound is reached. The result, but for time and memory, depends on nothing but the system. The error says
// that the system is none.
func Run[S any](system System[S], o Options) (Result, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	s := &search[S]{system: system, o: o, began: time.Now()}
	first, hash := system.Start()
	at, _, _ := s.seen.insert(entry{hash: hash, step: noStep})
	frontier := []item[S]{{first, at}}
	s.r.Levels = []uint64{1}
	for len(frontier) > 0 && s.r.Violation == nil && s.r.Stopped == "" {
		if o.MaxDepth > 0 && s.r.Depth == o.MaxDepth {
			s.r.Stopped = fmt.Sprintf("depth %d", o.MaxDepth)
			break
		}
		next, err := s.level(frontier)
		if err != nil {
			return s.r, err
		}
		if frontier = next; len(next) > 0 {
			s.r.Depth++
			s.r.Levels = append(s.r.Levels, uint64(len(next)))
		}
	}
	s.measure(0)
	s.r.Complete = s.r.Violation == nil && s.r.Stopped == ""
	if s.r.Violation != nil {
		if _, err := Replay(system, s.r.Path); !errors.Is(err, s.r.Violation) && (err == nil || err.Error() != s.r.Violation.Error()) {
			return s.r, fmt.Errorf("%w: %v, and then: %v", ErrNondeterministic, s.r.Violation, err)
		}
	}
	return s.r, nil
}

// level explores the states of one depth, and returns those of the next.
func (s *search[S]) level(frontier []item[S]) (next []item[S], err error) {
	var parts [shards][]item[S]
	held := uint64(len(frontier))
	for start := 0; start < len(frontier); start += perBatch {
		batch := frontier[start:min(start+perBatch, len(frontier))]
		blocks := make([]block[S], (len(batch)+perBlock-1)/perBlock)
		var taken atomic.Int64
		s.parallel(func(int) {
			for {
				n := int(taken.Add(1)) - 1
				if n >= len(blocks) {
					return
				}
				s.expand(batch[n*perBlock:min((n+1)*perBlock, len(batch))], &blocks[n])
			}
		})
		if err := s.err.Load(); err != nil {
			return nil, *err
		}
		for i := range blocks {
			b := &blocks[i]
			s.r.Transitions += b.transitions
			s.r.Idle += b.idle
			s.r.Beyond += b.beyond
			s.r.Within += b.within
			s.r.Ends += b.ends
			if b.failed != nil {
				s.r.Violation, s.r.Path = b.failed, append(s.path(b.at.parent), int(b.at.step))
				s.measure(held)
				return nil, nil
			}
		}
		var full atomic.Bool
		s.parallel(func(worker int) {
			for i := range blocks {
				b := &blocks[i]
				for j := range b.found {
					e := &b.found[j]
					n := e.hash.shard()
					if n%s.o.Workers != worker {
						continue
					}
					at, isNew, noRoom := s.seen.insert(*e)
					if isNew {
						parts[n] = append(parts[n], item[S]{b.states[j], at})
					}
					if noRoom {
						full.Store(true)
					}
				}
			}
		})
		clear(batch) // these states are not needed any more
		held -= uint64(len(batch))
		waiting := held
		for i := range parts {
			waiting += uint64(len(parts[i]))
		}
		s.measure(waiting)
		if full.Load() {
			s.r.Stopped = fmt.Sprintf("a part of the set of states has no room for more than %d", 1<<indexBits)
		}
		if s.r.Stopped != "" {
			return nil, nil
		}
	}
	n := 0
	for i := range parts {
		n += len(parts[i])
	}
	next = make([]item[S], 0, n)
	for i := range parts {
		next = append(next, parts[i]...)
		parts[i] = nil
	}
	return next, nil
}

// parallel calls fn once for each worker, at the same time.
func (s *search[S]) parallel(fn func(worker int)) {
	var group sync.WaitGroup
	for w := range s.o.Workers {
		group.Add(1)
		go func() {
			defer group.Done()
			fn(w)
		}()
	}
	group.Wait()
}

// expand takes the steps from some states.
func (s *search[S]) expand(items []item[S], b *block[S]) {
	for i := range items {
		v := Visit[S]{seen: &s.seen, block: b, from: items[i].at, pick: -1}
		s.system.Steps(items[i].state, &v)
		if !v.moved {
			b.ends++
		}
		if i == 0 {
			s.repeat(items[i], b)
		}
		if b.failed != nil {
			return
		}
	}
}

// repeat takes the steps from the first state of a block once more.
func (s *search[S]) repeat(it item[S], b *block[S]) {
	var again block[S]
	v := Visit[S]{seen: &s.seen, block: &again, from: it.at, pick: -1}
	s.system.Steps(it.state, &v)
	if !slices.Equal(again.found, b.found) || again.transitions != b.transitions || (again.failed == nil) != (b.failed == nil) {
		err := error(ErrNondeterministic)
		s.err.Store(&err)
	}
}

// path returns the steps from the first state to another.
func (s *search[S]) path(to ref) (steps []int) {
	for e := s.seen.at(to); e.step != noStep; e = s.seen.at(e.parent) {
		steps = append(steps, int(e.step))
	}
	slices.Reverse(steps)
	return steps
}

// measure takes down how large the search is, and whether that is too much.
func (s *search[S]) measure(waiting uint64) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.r.HeapBytes = max(s.r.HeapBytes, m.Sys-m.HeapReleased)
	s.r.Frontier = max(s.r.Frontier, waiting)
	s.r.States, s.r.TableBytes = s.seen.states()
	s.r.Time = time.Since(s.began)
	switch o := &s.o; {
	case s.r.Violation != nil || waiting == 0:
	case o.MaxStates > 0 && s.r.States >= o.MaxStates:
		s.r.Stopped = fmt.Sprintf("%d states", s.r.States)
	case o.MaxTime > 0 && s.r.Time >= o.MaxTime:
		s.r.Stopped = fmt.Sprintf("%v", o.MaxTime)
	case o.MaxBytes > 0 && m.HeapAlloc > o.MaxBytes:
		runtime.GC() // some of it is not used any more
		if runtime.ReadMemStats(&m); m.HeapAlloc > o.MaxBytes-o.MaxBytes/8 {
			s.r.Stopped = fmt.Sprintf("%d MiB of memory", o.MaxBytes>>20)
		}
	}
	if s.o.Progress != nil {
		s.o.Progress(s.r)
	}
}

// Replay takes the steps with these numbers, one after the other, and returns the states in between, the
// first one included. The error is what the last step violates, if it does.
func Replay[S any](system System[S], path []int) ([]S, error) {
	state, _ := system.Start()
	states := []S{state}
	for i, n := range path {
		var b block[S]
		v := Visit[S]{block: &b, pick: n}
		system.Steps(state, &v)
		switch {
		case b.failed != nil && i == len(path)-1:
			return states, b.failed
		case b.failed != nil || len(b.states) != 1:
			return states, fmt.Errorf("explore: step %d of the path, number %d of its state: %w", i+1, n, ErrNondeterministic)
		}
		state = b.states[0]
		states = append(states, state)
	}
	return states, nil
}
