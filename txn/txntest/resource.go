package txntest

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/txn"
)

// Subject is a resource under test, and what the rules need to have it do something and to look at what it did.
type Subject struct {
	// Resource is what is tested. If it is a txn.OnePhaseCommitter, that is tested, too.
	Resource txn.Resource

	// Do has the resource do thing n under a transaction: something of its own for each n, that Prepare votes Yes for
	// while nobody else does the same. It returns what is to be handed over as PrepareRequest.Work; nil if the resource knows by then.
	Do func(ctx context.Context, id txn.ID, n int) (work []byte, err error)

	// Done says how often thing n was done, as everybody sees it. A resource for which twice is the same as once says 1.
	Done func(ctx context.Context, n int) (times int, err error)

	// Read has it do something under a transaction that leaves nothing to commit. nil: it never votes ReadOnly.
	Read func(ctx context.Context, id txn.ID) (work []byte, err error)

	// Refuse has it do thing n, and something that Prepare votes No for. nil: it never does by itself.
	Refuse func(ctx context.Context, id txn.ID, n int) (work []byte, err error)
}

// ResourceOpener opens the resource that is kept under a name, and fails t if it can't. It is called again with the same
// name after close was: what was prepared and what was committed then must be there. close ends it as hard as the test can: a
// crash, if it can make one, as nothing is under way. Each rule has a name of its own.
type ResourceOpener func(t *testing.T, name string) (subject Subject, close func())

type resourceEnv struct {
	*testing.T
	ctx     context.Context
	open    ResourceOpener
	name    string
	subject Subject
	end     func()
	counter uint64
}

// RunResource tests the resources that open returns, a subtest a rule. The subtests run one after the other.
func RunResource(t *testing.T, open ResourceOpener) {
	for _, r := range resourceRules {
		t.Run(r.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			timer := executor.Real().AfterFunc(patience, cancel)
			defer timer.Stop()
			defer cancel()
			e := &resourceEnv{T: t, ctx: ctx, open: open, name: t.TempDir()}
			e.start()
			defer func() { e.end() }()
			r.test(e)
		})
	}
}

func (e *resourceEnv) start() {
	e.Helper()
	e.end = func() {}
	e.subject, e.end = e.open(e.T, e.name)
}

func (e *resourceEnv) reopen() {
	e.Helper()
	e.end()
	e.start()
}

// next returns an ID that was never used.
func (e *resourceEnv) next() txn.ID {
	e.counter++
	return txn.ID{Node: 3, Incarnation: 77, Counter: e.counter}
}

// begin has thing n done under a new transaction, and returns the request to prepare it.
func (e *resourceEnv) begin(n int) txn.PrepareRequest {
	e.Helper()
	r := txn.PrepareRequest{ID: e.next(), MayLeave: true}
	var err error
	r.Work, err = e.subject.Do(e.ctx, r.ID, n)
	require.NoError(e, err)
	return r
}

func (e *resourceEnv) prepare(n int) txn.PrepareRequest {
	e.Helper()
	r := e.begin(n)
	vote, err := e.subject.Resource.Prepare(e.ctx, r)
	require.NoError(e, err)
	require.Equal(e, txn.Yes, vote)
	return r
}

func (e *resourceEnv) commit(id txn.ID) {
	e.Helper()
	require.NoError(e, e.subject.Resource.Commit(e.ctx, id))
}

func (e *resourceEnv) abort(id txn.ID) {
	e.Helper()
	require.NoError(e, e.subject.Resource.Abort(e.ctx, id))
}

func (e *resourceEnv) inDoubt(want ...txn.ID) {
	e.Helper()
	list, err := e.subject.Resource.InDoubt(e.ctx)
	require.NoError(e, err)
	slices.SortFunc(list, txn.ID.Compare)
	if len(want) == 0 {
		require.Empty(e, list, "what is in doubt")
		return
	}
	require.Equal(e, want, list, "what is in doubt")
}

func (e *resourceEnv) done(n, times int) {
	e.Helper()
	got, err := e.subject.Done(e.ctx, n)
	require.NoError(e, err)
	require.Equal(e, times, got, "how often thing %d was done", n)
}

// refused sees that a request is not voted Yes.
func (e *resourceEnv) refused(r txn.PrepareRequest) {
	e.Helper()
	vote, err := e.subject.Resource.Prepare(e.ctx, r)
	if err == nil {
		require.NotEqual(e, txn.Yes, vote)
	}
}

// free sees that thing n can be done by somebody else: nothing is locked.
func (e *resourceEnv) free(n, times int) {
	e.Helper()
	r := e.prepare(n)
	e.commit(r.ID)
	e.done(n, times)
}

var resourceRules = []struct {
	name string
	test func(e *resourceEnv)
}{
	{"nothing is to be seen before Commit, and all afterwards", func(e *resourceEnv) {
		r := e.begin(1)
		e.done(1, 0)
		vote, err := e.subject.Resource.Prepare(e.ctx, r)
		require.NoError(e, err)
		require.Equal(e, txn.Yes, vote)
		e.done(1, 0)
		e.commit(r.ID)
		e.done(1, 1)
		e.reopen()
		e.done(1, 1)
	}},
	{"Commit is idempotent: it is called until somebody has heard that it succeeded", func(e *resourceEnv) {
		r := e.prepare(1)
		for range 3 {
			e.commit(r.ID)
			e.commit(r.ID)
			e.done(1, 1)
			e.inDoubt()
			e.reopen()
		}
	}},
	{"Commit does what was prepared once, even if the same was done again since", func(e *resourceEnv) {
		first := e.prepare(1)
		e.commit(first.ID)
		e.free(2, 1)
		e.commit(first.ID)
		e.done(1, 1)
		e.done(2, 1)
	}},
	{"Abort takes back what was prepared, and is idempotent", func(e *resourceEnv) {
		r := e.prepare(1)
		for range 3 {
			e.abort(r.ID)
			e.abort(r.ID)
			e.done(1, 0)
			e.inDoubt()
			e.reopen()
		}
		e.free(1, 1)
	}},
	{"Abort takes back what was not prepared yet", func(e *resourceEnv) {
		r := e.begin(1)
		e.abort(r.ID)
		e.done(1, 0)
		e.inDoubt()
		e.free(1, 1)
	}},
	{"Abort of what it knows nothing of is no error", func(e *resourceEnv) {
		for range 2 {
			e.abort(e.next())
		}
		e.inDoubt()
	}},
	{"Prepare is durable before Yes: the transaction is in doubt after a crash, and can be committed", func(e *resourceEnv) {
		first, second := e.prepare(1), e.prepare(2)
		e.inDoubt(first.ID, second.ID)
		for range 2 {
			e.reopen()
			e.inDoubt(first.ID, second.ID)
			e.done(1, 0)
		}
		e.commit(first.ID)
		e.done(1, 1)
		e.done(2, 0)
		e.inDoubt(second.ID)
		e.commit(second.ID)
		e.done(2, 1)
		e.inDoubt()
	}},
	{"Prepare is durable before Yes: the transaction is in doubt after a crash, and can be aborted", func(e *resourceEnv) {
		r := e.prepare(1)
		e.reopen()
		e.abort(r.ID)
		e.done(1, 0)
		e.inDoubt()
		e.reopen()
		e.inDoubt()
		e.done(1, 0)
		e.free(1, 1)
	}},
	{"in doubt is what is prepared and not over, and nothing else", func(e *resourceEnv) {
		e.inDoubt()
		open, committed, aborted, prepared := e.begin(1), e.prepare(2), e.prepare(3), e.prepare(4)
		e.commit(committed.ID)
		e.abort(aborted.ID)
		e.inDoubt(prepared.ID)
		e.inDoubt(prepared.ID)
		e.abort(open.ID)
		e.abort(prepared.ID)
		e.inDoubt()
	}},
	{"what is over holds nothing: the same can be done again", func(e *resourceEnv) {
		r := e.prepare(1)
		e.commit(r.ID)
		r = e.prepare(1)
		e.abort(r.ID)
		r = e.prepare(1)
		e.reopen()
		e.commit(r.ID)
		e.prepare(1)
	}},
	{"transactions are apart: one is committed, one aborted, one stays in doubt", func(e *resourceEnv) {
		a, b, c := e.prepare(1), e.prepare(2), e.prepare(3)
		e.commit(b.ID)
		e.abort(a.ID)
		e.done(1, 0)
		e.done(2, 1)
		e.done(3, 0)
		e.inDoubt(c.ID)
		e.commit(c.ID)
		e.done(3, 1)
	}},
	{"transactions of other coordinators and other incarnations are others", func(e *resourceEnv) {
		r := e.prepare(1)
		for _, other := range []txn.ID{{Node: 4, Incarnation: 77, Counter: 1}, {Node: 3, Incarnation: 78, Counter: 1}, {Node: 3, Incarnation: 77, Counter: 11}} {
			e.abort(other)
		}
		e.inDoubt(r.ID)
		e.commit(r.ID)
		e.done(1, 1)
	}},
	{"the longest ID is one", func(e *resourceEnv) {
		r := txn.PrepareRequest{ID: txn.ID{Node: 1<<64 - 1, Incarnation: 1<<64 - 1, Counter: 1<<64 - 1}}
		var err error
		r.Work, err = e.subject.Do(e.ctx, r.ID, 1)
		require.NoError(e, err)
		vote, err := e.subject.Resource.Prepare(e.ctx, r)
		require.NoError(e, err)
		require.Equal(e, txn.Yes, vote)
		e.reopen()
		e.inDoubt(r.ID)
		e.commit(r.ID)
		e.done(1, 1)
	}},
	{"what it was never told of it does not vote Yes for", func(e *resourceEnv) {
		e.refused(txn.PrepareRequest{ID: e.next(), MayLeave: true})
		e.inDoubt()
	}},
	{"what it was told of and lost in a crash it does not vote Yes for", func(e *resourceEnv) {
		r := e.begin(1)
		e.reopen()
		e.done(1, 0)
		e.inDoubt()
		if r.Work == nil {
			e.refused(r)
		}
		e.abort(r.ID)
		e.inDoubt()
		e.free(1, 1)
	}},
	{"what was aborted is not prepared any more", func(e *resourceEnv) {
		r := e.begin(1)
		e.abort(r.ID)
		if r.Work == nil {
			e.refused(r)
			e.inDoubt()
		}
		e.done(1, 0)
	}},
	{"a request to prepare that comes twice promises nothing that is not kept", func(e *resourceEnv) {
		r := e.prepare(1)
		vote, err := e.subject.Resource.Prepare(e.ctx, r)
		if err == nil && vote == txn.Yes {
			e.inDoubt(r.ID)
			e.commit(r.ID)
			e.done(1, 1)
			return
		}
		e.inDoubt() // it says that it has aborted
		e.done(1, 0)
		e.free(1, 1)
	}},
	{"after No it holds nothing", func(e *resourceEnv) {
		if e.subject.Refuse == nil {
			return
		}
		r := txn.PrepareRequest{ID: e.next(), MayLeave: true}
		var err error
		r.Work, err = e.subject.Refuse(e.ctx, r.ID, 1)
		require.NoError(e, err)
		vote, err := e.subject.Resource.Prepare(e.ctx, r)
		if err == nil {
			require.Equal(e, txn.No, vote)
		}
		e.inDoubt()
		e.done(1, 0)
		e.free(1, 1)
		e.abort(r.ID) // it is told in any case
		e.done(1, 1)
	}},
	{"after ReadOnly there is nothing in doubt, and nothing to be done", func(e *resourceEnv) {
		if e.subject.Read == nil {
			return
		}
		for _, leave := range []bool{true, false} {
			for _, end := range []func(context.Context, txn.ID) error{e.subject.Resource.Commit, e.subject.Resource.Abort} {
				r := txn.PrepareRequest{ID: e.next(), MayLeave: leave}
				var err error
				r.Work, err = e.subject.Read(e.ctx, r.ID)
				require.NoError(e, err)
				vote, err := e.subject.Resource.Prepare(e.ctx, r)
				require.NoError(e, err)
				require.Equal(e, txn.ReadOnly, vote)
				e.inDoubt()
				if !leave {
					require.NoError(e, end(e.ctx, r.ID)) // or it is not called any more
				}
			}
		}
		e.free(1, 1)
	}},
	{"a call whose context is done returns, and leaves nothing that Abort does not find", func(e *resourceEnv) {
		r := e.begin(1)
		ctx, cancel := context.WithCancel(e.ctx)
		cancel()
		vote, err := e.subject.Resource.Prepare(ctx, r)
		if err == nil && vote == txn.Yes {
			e.inDoubt(r.ID) // it was quicker
		}
		e.abort(r.ID)
		e.inDoubt()
		e.done(1, 0)
		e.free(1, 1)
	}},
	{"many transactions at once", func(e *resourceEnv) {
		const many = 12
		ex := executor.Real()
		errs := make([]error, many)
		var events []*executor.Event
		for n := range many {
			id := e.next()
			event := executor.NewEvent()
			events = append(events, event)
			ex.Go(func() {
				defer event.Set()
				work, err := e.subject.Do(e.ctx, id, n)
				if err == nil {
					var vote txn.Vote
					vote, err = e.subject.Resource.Prepare(e.ctx, txn.PrepareRequest{ID: id, Work: work, MayLeave: true})
					if err == nil && vote != txn.Yes {
						err = fmt.Errorf("it votes %v", vote)
					}
				}
				if err == nil && n%3 == 0 {
					err = e.subject.Resource.Abort(e.ctx, id)
				} else if err == nil {
					err = e.subject.Resource.Commit(e.ctx, id)
				}
				errs[n] = err
			})
		}
		for n, event := range events {
			require.NoError(e, ex.Wait(e.ctx, event))
			require.NoError(e, errs[n])
		}
		for n := range many {
			e.done(n, min(n%3, 1))
		}
		e.inDoubt()
	}},
	{"one phase: what it says that it committed is committed, and it can tell afterwards", func(e *resourceEnv) {
		one, ok := e.subject.Resource.(txn.OnePhaseCommitter)
		if !ok {
			return
		}
		r := e.begin(1)
		outcome, err := one.CommitOnePhase(e.ctx, r.ID, r.Work)
		require.NoError(e, err)
		require.Equal(e, txn.Committed, outcome)
		for range 2 {
			e.done(1, 1)
			e.inDoubt()
			one := e.subject.Resource.(txn.OnePhaseCommitter)
			outcome, err = one.Outcome(e.ctx, r.ID)
			require.NoError(e, err)
			require.Equal(e, txn.Committed, outcome)
			e.reopen()
		}
		e.free(2, 1)
	}},
	{"one phase: what was not committed never will be", func(e *resourceEnv) {
		one, ok := e.subject.Resource.(txn.OnePhaseCommitter)
		if !ok {
			return
		}
		outcome, err := one.Outcome(e.ctx, e.next())
		require.NoError(e, err)
		require.Equal(e, txn.Aborted, outcome)
		r := e.begin(1)
		e.reopen()
		one = e.subject.Resource.(txn.OnePhaseCommitter)
		outcome, err = one.Outcome(e.ctx, r.ID)
		require.NoError(e, err)
		require.Equal(e, txn.Aborted, outcome)
		e.done(1, 0)
		e.free(1, 1)
		if e.subject.Refuse == nil {
			return
		}
		r = txn.PrepareRequest{ID: e.next()}
		r.Work, err = e.subject.Refuse(e.ctx, r.ID, 2)
		require.NoError(e, err)
		outcome, err = one.CommitOnePhase(e.ctx, r.ID, r.Work)
		require.Error(e, err, "it says why")
		require.Equal(e, txn.Aborted, outcome)
		e.done(2, 0)
		outcome, err = one.Outcome(e.ctx, r.ID)
		require.NoError(e, err)
		require.Equal(e, txn.Aborted, outcome)
		e.free(2, 1)
	}},
}
