package kv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/paxoscommit"
	"github.com/synod-go/synod/internal/probe"
)

// withAndWithout runs a test that returns whether something is right, as it is and with a mistake: then it must be wrong.
func withAndWithout(t *testing.T, bug string, right func() bool) {
	t.Helper()
	require.True(t, right())
	defer probe.Plant(bug)()
	require.False(t, right(), "nobody notices %q", bug)
}

// TestExpectationsAreLocked: what a transaction over several groups has found as it expected stays so until its outcome is known.
func TestExpectationsAreLocked(t *testing.T) {
	withAndWithout(t, "kv: what was expected is not locked", func() bool {
		s := newState()
		id := func(n uint64) paxoscommit.ID {
			return paxoscommit.ID{Session: paxoscommit.Session{Opened: 1, Random: n}, Counter: 1}
		}
		a := s.prepare(&prepare{id: id(1), floor: 1, age: 1, now: 1, groups: []uint32{0, 1}, expected: []expectation{{key: "x", absent: true}}})
		require.Equal(t, answerVote, a.kind)
		require.Equal(t, paxoscommit.Yes, a.record.Vote)
		b := s.prepare(&prepare{id: id(2), floor: 1, age: 2, now: 2, groups: []uint32{0}, writes: []write{{key: "x", value: []byte("1")}}})
		return b.kind == answerBlocked
	})
}

// forgetfulLog loses the answer to a command, and does not know its session when it comes again.
type forgetfulLog struct {
	*soloLog
	once sync.Once
}

func (l *forgetfulLog) Propose(ctx context.Context, command []byte) ([]byte, error) {
	if command[0] != opPrepare {
		return l.soloLog.Propose(ctx, command)
	}
	var err error
	l.once.Do(func() {
		_, err = l.soloLog.Propose(ctx, command)
		if err == nil {
			err = fmt.Errorf("%w: lost", synod.ErrUnknownOutcome)
		}
	})
	if err != nil {
		return nil, err
	}
	return answer{kind: answerExpired}.append(nil), nil
}

// TestForgottenSession: a group that has forgotten the session of a command that may have been applied does not make it one that was not.
func TestForgottenSession(t *testing.T) {
	withAndWithout(t, "kv: a session that was forgotten has not voted", func() bool {
		machine := NewMachine()
		db, err := Open(t.Context(), Config{Groups: []Group{{&forgetfulLog{soloLog: &soloLog{machine: machine}}, machine}}, MaxAttempts: 1})
		require.NoError(t, err)
		defer db.Close()
		err = db.Update(t.Context(), func(tx *Tx) error { return tx.Put([]byte("x"), []byte("1")) })
		require.Error(t, err)
		found := false
		machine.read(func(s *state) { found = s.newest("x").timestamp > 0 })
		require.True(t, found)
		return errors.Is(err, synod.ErrUnknownOutcome)
	})
}

// TestLocksGo: a transaction that is over holds nothing.
func TestLocksGo(t *testing.T) {
	withAndWithout(t, "kv: locks stay", func() bool {
		s := newState()
		id := paxoscommit.ID{Session: paxoscommit.Session{Opened: 1, Random: 1}, Counter: 1}
		a := s.prepare(&prepare{id: id, floor: 1, age: 1, now: 1, groups: []uint32{0, 1}, writes: []write{{key: "x", value: []byte("1")}}})
		require.Equal(t, paxoscommit.Yes, a.record.Vote)
		s.resolve(resolution{id, paxoscommit.Aborted, 0, []uint32{0, 1}})
		return len(s.locks) == 0
	})
}

// TestCollectedReads: who has read as of a time that versions are not kept of any more is voted no.
func TestCollectedReads(t *testing.T) {
	withAndWithout(t, "kv: read what is collected", func() bool {
		s := newState()
		id := func(n uint64) paxoscommit.ID {
			return paxoscommit.ID{Session: paxoscommit.Session{Opened: 1, Random: n}, Counter: 1}
		}
		s.prepare(&prepare{id: id(1), floor: 1, now: 10, groups: []uint32{0}, writes: []write{{key: "x", value: []byte("1")}}})
		s.prepare(&prepare{id: id(2), floor: 1, now: 20, groups: []uint32{0}, writes: []write{{key: "x", deleted: true}}})
		s.collect(20)
		require.Nil(t, s.find("x"), "its tombstone is gone, too")
		a := s.prepare(&prepare{id: id(3), floor: 1, now: 30, readAt: 15, groups: []uint32{0}, reads: []string{"x"}, writes: []write{{key: "y"}}})
		return a.record.Vote == paxoscommit.No
	})
}

// TestNowIsAboveWhatWasAnswered: also where a group's time is ahead of this node's.
func TestNowIsAboveWhatWasAnswered(t *testing.T) {
	withAndWithout(t, "kv: now is what the clock says", func() bool {
		db, logs := openSolo(t, 1, 0, nil)
		_, err := logs[0].Propose(t.Context(), appendAdvance(nil, db.now()+1<<50))
		require.NoError(t, err)
		put(t, db, "x", "1")
		found := ""
		require.NoError(t, db.ViewAt(t.Context(), db.Now(), func(tx *Tx) error {
			found = get(t, tx, "x")
			return nil
		}))
		return found == "1"
	})
}

// TestACommitAfterItsTombstoneIsCollected: what a transaction has found when it voted may be gone when its outcome comes.
func TestACommitAfterItsTombstoneIsCollected(t *testing.T) {
	s := newState()
	s.prepare(&prepare{id: client(1, 1), floor: 1, now: 10, groups: []uint32{0}, writes: []write{{key: "x", value: []byte("1")}}})
	s.prepare(&prepare{id: client(2, 1), floor: 1, now: 20, groups: []uint32{0}, writes: []write{{key: "x", deleted: true}}})
	a := s.prepare(&prepare{id: client(3, 1), floor: 1, now: 30, readAt: 20, groups: []uint32{0, 1}, writes: []write{{key: "x", value: []byte("2"), read: true}}})
	require.Equal(t, paxoscommit.Yes, a.record.Vote)
	s.collect(25)
	require.Nil(t, s.find("x"))
	s.resolve(resolution{client(3, 1), paxoscommit.Committed, 40, []uint32{0, 1}})
	require.Equal(t, "2", string(s.newest("x").value))
}
