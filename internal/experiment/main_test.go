package main

import (
	"bytes"
	"encoding/json"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// The engine that is made for it makes progress where one member reaches a majority, in four
// election timeouts: what OmniPaxos' paper claims. Time is virtual, and the seed decides.
func TestPartialConnectivity(t *testing.T) {
	for _, s := range scenarios[:2] {
		o, err := s.outage(engine{"paxos", startPaxos}, 1)
		require.NoError(t, err)
		require.True(t, o.ok, s.name)
		require.LessOrEqual(t, o.first, 4*election, s.name)
	}
}

func TestRunAll(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, runAll(&out, 1, "replace", true))
	var tables []table
	require.NoError(t, json.Unmarshal(out.Bytes(), &tables))
	require.Len(t, tables, 1)
	require.Len(t, tables[0].Rows, 2)

	out.Reset()
	p := &printer{w: &out}
	p.tables = tables
	require.NoError(t, p.end())
	require.Contains(t, out.String(), "|  | raft |")
	require.Contains(t, out.String(), "|  | paxos |")
	require.Contains(t, out.String(), "█")
}

func TestBadFlags(t *testing.T) {
	require.ErrorContains(t, runAll(io.Discard, 0, "", false), "-seeds is 0")
	require.ErrorContains(t, runAll(io.Discard, 1, "partial,nothing", false), `no experiment called "nothing": there are partial, stale`)
}

// Each place in a chain is taken once.
func TestPlace(t *testing.T) {
	for leader := uint64(1); leader <= 5; leader++ {
		hub := leader%5 + 1
		taken := make(map[int]bool)
		for n := uint64(1); n <= 5; n++ {
			taken[place(leader, hub, n)] = true
		}
		require.Len(t, taken, 5)
		require.True(t, taken[0] && taken[4])
	}
}
