package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A bounded sweep; longer ones are the command's.
func TestRaft(t *testing.T) {
	seeds := uint64(8)
	if testing.Short() {
		seeds = 2
	}
	s := sweep("raft", runRaft, 1, seeds, false, false)
	require.Empty(t, s.Violations)
	require.Zero(t, s.Mismatches)
	require.GreaterOrEqual(t, len(s.Faults), 20, "%v", s.Faults)
}
