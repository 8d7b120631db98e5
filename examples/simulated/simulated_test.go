package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/sim"
)

// This is the test that an application would have.
func TestOffice(t *testing.T) {
	reached := make(map[string]int)
	for seed := range sim.Seeds(1, 20) {
		r := sim.Run(t, seed, correct)
		for site, n := range r.Sites {
			reached[site] += n
		}
	}
	for site, n := range reached {
		require.Positive(t, n, "no run got to where %s", site)
	}
	require.NotEmpty(t, reached)
}

// And this shows that it would have found the mistake.
func TestForgetful(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(&out, 0, 25, false), "%s", &out)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var seed, mended uint64
	_, err := fmt.Sscanf(lines[len(lines)-1], "ok: found=%d mended=%d", &seed, &mended)
	require.NoError(t, err)
	require.Contains(t, out.String(), "replicas agree")

	a, b := sim.Execute(sim.Config{Seed: seed}, forgetful), sim.Execute(sim.Config{Seed: seed}, forgetful)
	require.Error(t, a.Err)
	require.Equal(t, a.Err.Error(), b.Err.Error())
	require.Equal(t, a.Hash, b.Hash)

	out.Reset()
	require.NoError(t, run(&out, seed, 0, true))
	require.Contains(t, out.String(), "replicas agree")
	require.ErrorContains(t, run(&out, 0, 0, false), "was not found")
}
