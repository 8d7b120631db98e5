package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A bounded sweep; longer ones are the command's.
func TestRaft(t *testing.T) {
	seeds := uint64(30)
	if testing.Short() {
		seeds = 5
	}
	s := systems["raft"]
	sum := newSummary("raft", 1)
	for seed := uint64(1); seed <= seeds; seed++ {
		o := s.do(job{Seed: seed, Twice: true})
		sum.add(o)
		require.Empty(t, o.Report)
	}
	sum.end(s.sites)
	require.Empty(t, sum.Violations)
	require.Zero(t, sum.Mismatches)
	require.EqualValues(t, seeds, sum.Histories)
}
