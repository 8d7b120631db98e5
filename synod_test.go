package synod_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

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
	for k := synod.EventLeaderChanged; k <= synod.EventMissed; k++ {
		require.NotEqual(t, "unknown", k.String())
		require.False(t, seen[k.String()], k.String())
		seen[k.String()] = true
	}
	require.Equal(t, "unknown", synod.EventKind(0).String())
	require.Equal(t, "unknown", (synod.EventMissed + 1).String())
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
	sentinels := []error{synod.ErrUnknownOutcome, synod.ErrClosed, synod.ErrOverloaded, synod.ErrTooLarge}
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
