package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
)

// Session numbers the commands of one session for callers that run concurrently,
// and knows below which number all have their answers. Its methods may be called
// concurrently. It is tied to no group and no node: whoever makes an attempt sends the
// Request to wherever the group can be reached.
type Session struct {
	id uint64

	mu      sync.Mutex
	next    uint64
	floor   uint64 // all below are done
	done    [synod.SessionWindow]bool
	waiting []*executor.Event
}

// NewSession returns a Session of an ID that OpenSession gave. next is the first number
// that was not used in the session; 0 is 1, for a session that is new. Of a session
// whose numbers are used in two places at once, callers get each other's results.
func NewSession(id, next uint64) *Session {
	next = max(1, next)
	return &Session{id: id, next: next, floor: next}
}

// ID returns the session's ID.
func (s *Session) ID() uint64 { return s.id }

// Begin returns the request of the next command, to be sent with ProposeOnce, and as
// often as it takes. End must follow. While SessionWindow numbers are between the oldest
// command without End and the next one, it waits, up to ctx.
func (s *Session) Begin(ctx context.Context) (synod.Request, error) {
	ex := executor.From(ctx, executor.Real())
	for {
		s.mu.Lock()
		if s.next-s.floor < synod.SessionWindow {
			r := synod.Request{Session: s.id, Sequence: s.next, Floor: s.floor}
			s.next++
			s.mu.Unlock()
			return r, nil
		}
		wake := executor.NewEvent()
		s.waiting = append(s.waiting, wake)
		s.mu.Unlock()
		if err := ex.Wait(ctx, wake); err != nil {
			s.mu.Lock()
			for i, e := range s.waiting {
				if e == wake {
					s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
					break
				}
			}
			s.mu.Unlock()
			return synod.Request{}, fmt.Errorf("session %016x: not executed: %d commands have no answer: %w", s.id, synod.SessionWindow, err)
		}
	}
}

// End says that a request has its answer, or is given up: it will not be sent again.
// A second End does nothing.
func (s *Session) End(r synod.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Session != s.id || r.Sequence < s.floor || r.Sequence >= s.next {
		return
	}
	s.done[r.Sequence%synod.SessionWindow] = true
	before := s.floor
	for s.floor < s.next && s.done[s.floor%synod.SessionWindow] {
		s.done[s.floor%synod.SessionWindow] = false
		s.floor++
	}
	if s.floor > before {
		for _, e := range s.waiting {
			e.Set()
		}
		s.waiting = nil
	}
}

// Pauses between two attempts of Do.
const (
	firstPause = 10 * time.Millisecond
	longPause  = time.Second
)

// Do runs a command to its end: attempt, which calls ProposeOnce with the request on
// some node of its choice, is called until its error is none of ErrUnknownOutcome,
// *NotLeaderError and ErrOverloaded, or ctx ends; between two calls there is a pause,
// from 10 ms up to a second. An attempt that must not wait for a node that is cut off
// for as long as ctx lasts bounds itself, by a deadline of its own: context.DeadlineExceeded counts as an
// ErrUnknownOutcome while ctx lasts.
//
// The error is one of the command, and not of the last attempt alone: it matches
// synod.ErrUnknownOutcome if any attempt may have been applied and none was seen to be;
// synod.ErrResultLost if it was applied; any other one if it was not, and never will be.
func (s *Session) Do(ctx context.Context, attempt func(ctx context.Context, r synod.Request) ([]byte, error)) ([]byte, error) {
	r, err := s.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.End(r)
	ex := executor.From(ctx, executor.Real())
	wake := executor.NewEvent()
	maybe := false
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		result, err := attempt(ctx, r)
		if err == nil || errors.Is(err, synod.ErrResultLost) {
			return result, err
		}
		unknown := errors.Is(err, synod.ErrUnknownOutcome) || errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil
		maybe = maybe || unknown
		again := unknown || errors.Is(err, synod.ErrOverloaded) || errors.As(err, new(*synod.NotLeaderError))
		if again {
			timer := ex.AfterFunc(pause/2+time.Duration(ex.Uint64()%uint64(pause/2)), wake.Set)
			if ended := ex.Wait(ctx, wake); ended != nil {
				timer.Stop()
				err, again = fmt.Errorf("%w; the last attempt: %w", ended, err), false
			}
		}
		if !again {
			if maybe && !errors.Is(err, synod.ErrUnknownOutcome) {
				err = fmt.Errorf("%w by one of the attempts; the last one: %w", synod.ErrUnknownOutcome, err)
			}
			return nil, fmt.Errorf("session %016x, request %d: %w", r.Session, r.Sequence, err)
		}
	}
}

// Propose is Do with one group's log, of which all attempts are made: for a log that
// finds the leader by itself, or to outlast a leader's overload and short absence.
func (s *Session) Propose(ctx context.Context, log synod.SessionLog, command []byte) ([]byte, error) {
	return s.Do(ctx, func(ctx context.Context, r synod.Request) ([]byte, error) {
		return log.ProposeOnce(ctx, r, command)
	})
}
