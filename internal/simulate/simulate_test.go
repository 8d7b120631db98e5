package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/simulate/system"
)

// The command runs its workers from its own file, which here is this test's.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args, "-worker") {
		if err := command(os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestSweep(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, command([]string{"-seeds", "6", "-workers", "2", "-json"}, nil, &out, io.Discard))
	var sum system.Summary
	require.NoError(t, json.Unmarshal(out.Bytes(), &sum))
	require.Equal(t, "raft", sum.System)
	require.EqualValues(t, 6, sum.Seeds)
	require.Equal(t, 6, sum.Histories)
	require.Zero(t, sum.Mismatches)
	require.Empty(t, sum.Violations)
	require.Greater(t, sum.Hours, 0.1)
	require.Positive(t, sum.Events)
	require.Positive(t, sum.Calls)
	require.NotEmpty(t, sum.Faults)
	require.NotEmpty(t, sum.Reached)
}

// A bug that is planted fails the command, and the report says how to see it again.
func TestReport(t *testing.T) {
	var out bytes.Buffer
	bug := "the vote is not stored"
	require.ErrorContains(t, command([]string{"-seeds", "2", "-workers", "2", "-bug", bug}, nil, &out, io.Discard), "violations")
	require.Contains(t, out.String(), "promises are kept")
	again := regexp.MustCompile(`to see it again: -start (\d+) -seeds 1 -keep (\S+) -trace -bug "` + bug + `"`).FindStringSubmatch(out.String())
	require.Len(t, again, 3, out.String())
	out.Reset()
	err := command([]string{"-start", again[1], "-seeds", "1", "-keep", again[2], "-trace", "-bug", bug}, nil, &out, io.Discard)
	require.ErrorContains(t, err, "promises are kept")
	require.Contains(t, out.String(), "node 1 starts")
}

func TestFlags(t *testing.T) {
	for want, args := range map[string][]string{
		`no system "x"`:            {"-system", "x"},
		`no bug "x"`:               {"-bug", "x"},
		"-keep":                    {"-keep", "x"},
		"above 0":                  {"-seeds", "0"},
		"provided but not defined": {"-x"},
	} {
		require.ErrorContains(t, command(args, nil, io.Discard, io.Discard), want)
	}
}
