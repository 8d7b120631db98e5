package synod_test

import (
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
