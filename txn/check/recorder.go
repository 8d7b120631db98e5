package check

import (
	"maps"
	"slices"
	"sync"
)

// Recorder writes down what clients do, as they do it. Its zero value is ready; all
// methods may be called concurrently.
//
// It has no clock: its times are the order of the calls of Begin and of the end of each
// transaction, which is what real time is good for. So Begin is called before anything is
// sent to the database, and the end is recorded after its answer has come.
type Recorder struct {
	mu     sync.Mutex
	time   int64
	unique int64
	all    []*Recording
}

// Recording is a transaction that is being recorded. Its methods may be called
// concurrently; the order of the calls is taken for that of the operations.
type Recording struct {
	recorder *Recorder
	t        Transaction // guarded by recorder.mu
	ended    bool
}

// Begin records that a transaction begins, in a session numbered from 1 on, or 0 for
// none. A session whose transaction had an unknown outcome may go on.
func (r *Recorder) Begin(process int) *Recording {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.time++
	t := &Recording{recorder: r, t: Transaction{Process: process, Begin: r.time}}
	r.all = append(r.all, t)
	return t
}

// Unique returns a number that it has not returned before, from 1 on: a value to append
// or to write.
func (r *Recorder) Unique() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unique++
	return r.unique
}

// History returns what was recorded so far, and what it returns does not change any more.
// Transactions that have not ended have an unknown outcome.
func (r *Recorder) History() History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := History{Transactions: make([]Transaction, len(r.all))}
	for i, t := range r.all {
		h.Transactions[i] = t.t
		h.Transactions[i].Operations = slices.Clone(t.t.Operations)
	}
	return h
}

func (t *Recording) add(o Operation) {
	t.recorder.mu.Lock()
	defer t.recorder.mu.Unlock()
	t.t.Operations = append(t.t.Operations, o)
}

// Append records that value is about to be appended to the list key. Call it before the
// request is sent: what was recorded too late is a value that nobody wrote. If the
// database refuses the request, and the transaction goes on and commits without it, the
// history is wrong: abort the transaction.
func (t *Recording) Append(key string, value int64) {
	t.add(Operation{Kind: Append, Key: key, Value: value})
}

// Write records that value is about to be written into the register key. What is said
// of [Recording.Append] holds here.
func (t *Recording) Write(key string, value int64) {
	t.add(Operation{Kind: Write, Key: key, Value: value})
}

// Read records what a read of key has returned: the elements of a list, the one value
// of a register, or nothing. It keeps nothing of its arguments. A read without an answer
// is not recorded.
func (t *Recording) Read(key string, seen ...int64) {
	t.add(Operation{Kind: Read, Key: key, Seen: slices.Clone(seen)})
}

// Scan records what a read of all keys from from on, up to and without to, has
// returned, by key; to "" is the end of all keys. It keeps nothing of its arguments.
func (t *Recording) Scan(from, to string, found map[string][]int64) {
	found = maps.Clone(found)
	for key, seen := range found {
		found[key] = slices.Clone(seen)
	}
	t.add(Operation{Kind: Scan, Key: from, To: to, Found: found})
}

// Commit records that the transaction has committed.
func (t *Recording) Commit() { t.end(Committed) }

// Abort records that the transaction certainly has no effect, and will have none. After
// another end it does nothing, so that it may be deferred.
func (t *Recording) Abort() { t.end(Aborted) }

// Unknown records that nobody can say whether the transaction has committed, or will.
func (t *Recording) Unknown() { t.end(Unknown) }

// end records the first end; others do nothing.
func (t *Recording) end(o Outcome) {
	t.recorder.mu.Lock()
	defer t.recorder.mu.Unlock()
	if t.ended {
		return
	}
	t.recorder.time++
	t.ended, t.t.Outcome = true, o
	if o != Unknown {
		t.t.End = t.recorder.time
	}
}
