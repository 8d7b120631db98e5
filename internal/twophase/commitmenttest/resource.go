package commitmenttest

import (
	"fmt"

	"github.com/synod-go/synod/internal/twophase"
)

// Resource is what a participant has: what is prepared, committed and aborted survives crashes.
type Resource struct {
	OnePhase  bool                             // it cannot prepare
	Cannot    bool                             // it cannot say what became of a commit in one phase
	Votes     map[twophase.ID]twophase.Vote    // what it answers; otherwise yes
	Prepared  map[twophase.ID]bool             // durable
	Committed map[twophase.ID]int              // durable: how often it was really done
	Aborted   map[twophase.ID]bool             // durable
	Fails     map[twophase.CallKind]int        // so many calls fail
	Heuristic map[twophase.ID]twophase.Outcome // decided on its own

	staying map[twophase.ID]bool // it voted read-only, and keeps its read locks until it is told; gone with a crash
	broken  func(text string)    // says what must not be
}

func newResource(broken func(text string)) *Resource {
	return &Resource{
		Votes: make(map[twophase.ID]twophase.Vote), Prepared: make(map[twophase.ID]bool), Committed: make(map[twophase.ID]int),
		Aborted: make(map[twophase.ID]bool), Fails: make(map[twophase.CallKind]int), Heuristic: make(map[twophase.ID]twophase.Outcome),
		staying: make(map[twophase.ID]bool), broken: broken,
	}
}

// call does what a core asks of a resource. one takes the answer of a call that only resources that commit in one phase get.
func (r *Resource) call(core answered, one func(twophase.Outcome, string), call twophase.Call) {
	id, name := call.ID, call.Resource
	if r.Fails[call.Kind] > 0 {
		r.Fails[call.Kind]--
		if call.Kind == twophase.CallCommit || call.Kind == twophase.CallAbort {
			core.Done(id, name, twophase.OutcomeUnknown, "out of reach")
			return
		}
	}
	switch call.Kind {
	case twophase.CallPrepare:
		v := r.Votes[id]
		if v == 0 {
			v = twophase.VoteYes
		}
		if v == twophase.VoteYes {
			if r.Committed[id] > 0 {
				r.broken(fmt.Sprintf("%v is prepared again after it was committed", id))
			}
			r.Prepared[id] = true
			delete(r.Aborted, id)
		}
		if v == twophase.VoteReadOnly && !call.MayLeave {
			r.staying[id] = true
		}
		core.Voted(id, name, v, "not today")
	case twophase.CallCommit:
		delete(r.staying, id)
		if h := r.Heuristic[id]; h != 0 {
			core.Done(id, name, h, "")
			return
		}
		if r.Prepared[id] {
			r.Committed[id]++
			delete(r.Prepared, id)
		} else if r.Committed[id] == 0 && r.Votes[id] != twophase.VoteReadOnly {
			r.broken(fmt.Sprintf("commit of %v, which is not prepared", id))
		}
		core.Done(id, name, twophase.OutcomeUnknown, "")
	case twophase.CallAbort:
		delete(r.staying, id)
		if r.Committed[id] > 0 {
			r.broken(fmt.Sprintf("abort of %v, which was committed", id))
		}
		if r.Prepared[id] {
			r.Aborted[id] = true
			delete(r.Prepared, id)
		}
		core.Done(id, name, twophase.OutcomeUnknown, "")
	case twophase.CallOne:
		if r.Votes[id] == twophase.VoteNo {
			one(twophase.OutcomeAborted, "not today")
			return
		}
		r.Committed[id]++
		one(twophase.OutcomeCommitted, "")
	case twophase.CallOutcome:
		switch {
		case r.Cannot:
			one(twophase.OutcomeUnknown, "it can't tell")
		case r.Committed[id] > 0:
			one(twophase.OutcomeCommitted, "")
		default:
			one(twophase.OutcomeAborted, "")
		}
	}
}
