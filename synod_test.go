package synod_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
)

func TestErrorsCanBeToldApart(t *testing.T) {
	cause := io.ErrUnexpectedEOF
	err := fmt.Errorf("raft: %w", &synod.FailedError{Group: 7, Err: cause})
	var failed *synod.FailedError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, uint64(7), failed.Group)
	require.ErrorIs(t, err, cause)
	require.NotErrorIs(t, err, synod.ErrUnknownOutcome)

	unknown := fmt.Errorf("group 1: %w: %w", synod.ErrUnknownOutcome, cause)
	require.ErrorIs(t, unknown, synod.ErrUnknownOutcome)
	require.ErrorIs(t, unknown, cause)

	require.EqualError(t, &synod.ConfigError{Package: "raft", Field: "Node", Reason: "missing"}, "raft: Config.Node: missing")
}

func TestEventKindsHaveNames(t *testing.T) {
	seen := make(map[string]bool)
	for k := synod.EventLeaderChanged; k <= synod.EventRepaired; k++ {
		require.NotEqual(t, "unknown", k.String())
		require.False(t, seen[k.String()], k.String())
		seen[k.String()] = true
	}
	require.Equal(t, "unknown", synod.EventKind(0).String())
	require.Equal(t, "unknown", (synod.EventRepaired + 1).String())
}

func TestErrorsNameWhatIsConcerned(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&synod.NotLeaderError{Group: 4, Leader: 2}, "synod: group 4: not leader: ask node 2"},
		{&synod.NotLeaderError{Group: 4}, "synod: group 4: not leader, leader unknown: retry after an election"},
		{&synod.FailedError{Group: 4, Err: io.ErrShortWrite}, "synod: group 4 stopped on this node: short write"},
	} {
		require.EqualError(t, c.err, c.want)
	}
	sentinels := []error{synod.ErrUnknownOutcome, synod.ErrClosed, synod.ErrOverloaded, synod.ErrTooLarge,
		synod.ErrSessionExpired, synod.ErrStaleRequest, synod.ErrResultLost, synod.ErrInvalidRequest}
	for i, a := range sentinels {
		require.Contains(t, a.Error(), "synod: ")
		for j, b := range sentinels {
			require.Equal(t, i == j, errors.Is(fmt.Errorf("raft: %w", a), b))
		}
	}
}

// register is a state machine: one value, replaced by each command.
type register struct{ value []byte }

func (r *register) Apply(_ uint64, command []byte) []byte {
	old := r.value
	r.value = bytes.Clone(command) // the command is not ours to keep
	return old
}

func (r *register) Snapshot() (io.WriterTo, error) {
	return bytes.NewBuffer(bytes.Clone(r.value)), nil
}

func (r *register) Restore(from io.Reader) (err error) {
	r.value, err = io.ReadAll(from)
	return err
}

// An engine feeds a state machine commands, and at times has it save and restore
// its state.
func ExampleStateMachine() {
	var sm synod.StateMachine = new(register)
	sm.Apply(1, []byte("one"))
	fmt.Printf("%s\n", sm.Apply(2, []byte("two")))

	snapshot, _ := sm.Snapshot()
	var stored bytes.Buffer
	_, _ = snapshot.WriteTo(&stored)

	var other synod.StateMachine = new(register)
	_ = other.Restore(&stored)
	fmt.Printf("%s\n", other.Apply(3, nil))
	// Output:
	// one
	// two
}

// busy is a log without an engine, for a test: each proposal ends in the same way.
type busy struct{ err error }

func (b busy) Propose(context.Context, []byte) ([]byte, error) { return []byte("done"), b.err }
func (b busy) Barrier(context.Context) error                   { return nil }

// A caller of Propose learns one of three things.
func ExampleLog() {
	for _, log := range []synod.Log{
		busy{nil},
		busy{fmt.Errorf("raft: group 1: %w: %w", synod.ErrUnknownOutcome, context.DeadlineExceeded)},
		busy{fmt.Errorf("raft: group 1: %w", synod.ErrOverloaded)},
	} {
		switch result, err := log.Propose(context.Background(), []byte("command")); {
		case err == nil:
			fmt.Printf("applied: %s\n", result)
		case errors.Is(err, synod.ErrUnknownOutcome):
			fmt.Println("applied, or not, or later:", err)
		default:
			fmt.Println("certainly not applied:", err)
		}
	}
	// Output:
	// applied: done
	// applied, or not, or later: raft: group 1: synod: outcome unknown: context deadline exceeded
	// certainly not applied: raft: group 1: synod: overloaded
}

// forgetful is a log with one session, for a test: it loses its first answer.
type forgetful struct {
	busy
	applied map[uint64]string // by sequence
}

func (f *forgetful) OpenSession(context.Context, time.Duration) (uint64, error) { return 7, nil }
func (f *forgetful) CloseSession(context.Context, uint64) error                 { return nil }

func (f *forgetful) ProposeOnce(_ context.Context, r synod.Request, command []byte) ([]byte, error) {
	if result, ok := f.applied[r.Sequence]; ok {
		return []byte(result), nil // and not applied again
	}
	f.applied[r.Sequence] = fmt.Sprintf("%s was command %d", command, len(f.applied)+1)
	return nil, fmt.Errorf("raft: group 1: %w", synod.ErrUnknownOutcome)
}

// The same Request is sent until its outcome is known.
func ExampleSessionLog() {
	ctx := context.Background()
	var log synod.Log = &forgetful{applied: make(map[uint64]string)}
	sessions, ok := log.(synod.SessionLog)
	if !ok {
		panic("this log has no sessions")
	}
	session, err := sessions.OpenSession(ctx, time.Hour)
	if err != nil {
		panic(err)
	}
	for sequence := uint64(1); sequence <= 2; sequence++ {
		// All commands before this one have been answered.
		request := synod.Request{Session: session, Sequence: sequence, Floor: sequence}
		for {
			result, err := sessions.ProposeOnce(ctx, request, fmt.Append(nil, "command ", sequence))
			if !errors.Is(err, synod.ErrUnknownOutcome) {
				fmt.Printf("%s, %v\n", result, err)
				break
			}
			fmt.Println("again:", err)
		}
	}
	// Output:
	// again: raft: group 1: synod: outcome unknown
	// command 1 was command 1, <nil>
	// again: raft: group 1: synod: outcome unknown
	// command 2 was command 2, <nil>
}

// Of a session's commands 5 to 7, which are under way at once, 5 and 7 have no answer yet.
func ExampleRequest() {
	fmt.Printf("%+v\n", synod.Request{Session: 7, Sequence: 8, Floor: 5})
	fmt.Println("at most", synod.SessionWindow-1, "above the floor")
	// Output:
	// {Session:7 Sequence:8 Floor:5}
	// at most 1023 above the floor
}

func ExampleFailedError() {
	err := fmt.Errorf("propose: %w", &synod.FailedError{Group: 1, Err: errors.New("sync failed")})
	if failed := (*synod.FailedError)(nil); errors.As(err, &failed) {
		fmt.Println("group", failed.Group, "is gone from this node:", failed.Err)
	}
	// Output: group 1 is gone from this node: sync failed
}

func ExampleConfigError() {
	err := fmt.Errorf("open: %w", &synod.ConfigError{Package: "raft", Field: "Node", Reason: "is 0: give each node an ID of its own"})
	if wrong := (*synod.ConfigError)(nil); errors.As(err, &wrong) {
		fmt.Println("field:", wrong.Field)
	}
	fmt.Println(err)
	// Output:
	// field: Node
	// open: raft: Config.Node: is 0: give each node an ID of its own
}

func ExampleNotLeaderError() {
	err := fmt.Errorf("write: %w", &synod.NotLeaderError{Group: 1, Leader: 3})
	if other := (*synod.NotLeaderError)(nil); errors.As(err, &other) {
		fmt.Println("ask node", other.Leader)
	}
	fmt.Println(&synod.NotLeaderError{Group: 1})
	// Output:
	// ask node 3
	// synod: group 1: not leader, leader unknown: retry after an election
}

func ExampleEventKind() {
	fmt.Println(synod.EventLeaderChanged, "/", synod.EventSnapshotInstalled)
	// Output: leader changed / snapshot installed
}
