package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
)

func TestSessionNumbers(t *testing.T) {
	ctx := context.Background()
	s := NewSession(7, 0)
	require.EqualValues(t, 7, s.ID())
	var open []synod.Request
	r := rand.New(rand.NewPCG(1, 2))
	done, floor := make(map[uint64]bool), uint64(1)
	for n := uint64(1); n <= 5000; n++ {
		q, err := s.Begin(ctx)
		require.NoError(t, err)
		require.Equal(t, n, q.Sequence)
		require.NoError(t, checkRequest(&q))
		for ; floor < q.Floor; floor++ {
			require.True(t, done[floor], "the floor is above %d, which has no answer", floor)
		}
		open = append(open, q)
		for len(open) > r.IntN(20) {
			i := r.IntN(len(open))
			s.End(open[i])
			s.End(open[i])
			done[open[i].Sequence] = true
			open = append(open[:i], open[i+1:]...)
		}
	}
	for _, q := range open {
		s.End(q)
	}
	q, err := s.Begin(ctx)
	require.NoError(t, err)
	require.Equal(t, synod.Request{Session: 7, Sequence: 5001, Floor: 5001}, q)
	// What is not its own is none of its business.
	s.End(synod.Request{Session: 8, Sequence: 5001})
	s.End(synod.Request{Session: 7, Sequence: 5002})
	next, err := s.Begin(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 5001, next.Floor)
	resumed, err := NewSession(7, 100).Begin(ctx)
	require.NoError(t, err)
	require.Equal(t, synod.Request{Session: 7, Sequence: 100, Floor: 100}, resumed)
}

func TestSessionWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSession(7, 0)
		first, err := s.Begin(t.Context())
		require.NoError(t, err)
		for range synod.SessionWindow - 1 {
			q, err := s.Begin(t.Context())
			require.NoError(t, err)
			s.End(q)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = s.Begin(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, synod.ErrUnknownOutcome)
		require.Empty(t, s.waiting)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if q, err := s.Begin(t.Context()); err != nil || checkRequest(&q) != nil {
					t.Error(q, err)
				}
			})
		}
		synctest.Wait()
		require.Len(t, s.waiting, 3)
		s.End(first)
		wg.Wait()
	})
}

func TestSessionDo(t *testing.T) {
	unknown := unknown(1, context.DeadlineExceeded)
	elsewhere := &synod.NotLeaderError{Group: 1, Leader: 2}
	for name, test := range map[string]struct {
		answers []error // of the attempts; the last one again and again
		want    []error
		not     []error
		calls   int
	}{
		"at once":               {[]error{nil}, nil, nil, 1},
		"after a while":         {[]error{unknown, elsewhere, synod.ErrOverloaded, unknown, nil}, nil, nil, 5},
		"refused for good":      {[]error{synod.ErrTooLarge}, []error{synod.ErrTooLarge}, []error{synod.ErrUnknownOutcome}, 1},
		"closed":                {[]error{elsewhere, synod.ErrClosed}, []error{synod.ErrClosed}, []error{synod.ErrUnknownOutcome}, 2},
		"closed, and maybe":     {[]error{unknown, synod.ErrClosed}, []error{synod.ErrClosed, synod.ErrUnknownOutcome}, nil, 2},
		"expired":               {[]error{synod.ErrSessionExpired}, []error{synod.ErrSessionExpired}, []error{synod.ErrUnknownOutcome}, 1},
		"expired, and maybe":    {[]error{elsewhere, unknown, elsewhere, synod.ErrSessionExpired}, []error{synod.ErrSessionExpired, synod.ErrUnknownOutcome}, nil, 4},
		"late":                  {[]error{context.DeadlineExceeded, fmt.Errorf("not executed: %w", context.DeadlineExceeded), nil}, nil, nil, 3},
		"late, and closed":      {[]error{context.DeadlineExceeded, synod.ErrClosed}, []error{synod.ErrClosed, synod.ErrUnknownOutcome}, nil, 2},
		"late to the end":       {[]error{context.DeadlineExceeded}, []error{context.DeadlineExceeded, synod.ErrUnknownOutcome}, nil, 0},
		"applied":               {[]error{unknown, synod.ErrResultLost}, []error{synod.ErrResultLost}, []error{synod.ErrUnknownOutcome}, 2},
		"no end":                {[]error{unknown}, []error{synod.ErrUnknownOutcome, context.DeadlineExceeded}, nil, 0},
		"no end, and not":       {[]error{elsewhere}, []error{elsewhere, context.DeadlineExceeded}, []error{synod.ErrUnknownOutcome}, 0},
		"no end, and maybe not": {[]error{unknown, elsewhere}, []error{synod.ErrUnknownOutcome, context.DeadlineExceeded}, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewSession(7, 0)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				calls := 0
				var request synod.Request
				result, err := s.Do(ctx, func(_ context.Context, r synod.Request) ([]byte, error) {
					if calls > 0 {
						require.Equal(t, request, r, "another request")
					}
					request = r
					err := test.answers[min(calls, len(test.answers)-1)]
					calls++
					if err != nil {
						return nil, err
					}
					return []byte("result"), nil
				})
				if test.want == nil {
					require.NoError(t, err)
					require.Equal(t, "result", string(result))
				} else {
					require.Nil(t, result)
				}
				for _, want := range test.want {
					require.ErrorIs(t, err, want)
				}
				for _, not := range test.not {
					require.NotErrorIs(t, err, not)
				}
				if test.calls > 0 {
					require.Equal(t, test.calls, calls)
				} else {
					require.Greater(t, calls, 15, "it gives up")
					require.Less(t, calls, 60, "it does not pause")
				}
				// Its number is done.
				next, err := s.Begin(t.Context())
				require.NoError(t, err)
				require.EqualValues(t, 2, next.Floor)
			})
		})
	}
}

// once is a log that remembers who asked it.
type once struct {
	synod.SessionLog
	asked []synod.Request
}

func (o *once) ProposeOnce(_ context.Context, r synod.Request, command []byte) ([]byte, error) {
	if o.asked = append(o.asked, r); len(o.asked) < 3 {
		return nil, errors.Join(synod.ErrUnknownOutcome)
	}
	return append([]byte("did "), command...), nil
}

func TestSessionPropose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &once{}
		result, err := NewSession(9, 4).Propose(t.Context(), log, []byte("it"))
		require.NoError(t, err)
		require.Equal(t, "did it", string(result))
		want := synod.Request{Session: 9, Sequence: 4, Floor: 4}
		require.Equal(t, []synod.Request{want, want, want}, log.asked)
	})
}
