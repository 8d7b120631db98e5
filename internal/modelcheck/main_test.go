package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A counterexample that was saved is played again, and violates the same; without the mistake it does not.
func TestACounterexampleIsPlayedAgain(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	err := command([]string{"-bug", "an accept of a lower ballot is taken", "-save", dir}, &out, io.Discard)
	require.ErrorIs(t, err, errViolated)
	require.Contains(t, out.String(), "VIOLATED after 5 steps")

	file := filepath.Join(dir, "base_an_accept_of_a_lower_ballot_is_taken.txt")
	saved, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(saved), "\nVIOLATION: ")

	out.Reset()
	err = command([]string{"-play", file, "-bug", "an accept of a lower ballot is taken"}, &out, io.Discard)
	require.ErrorIs(t, err, errViolated)
	require.Equal(t, string(saved), out.String())

	out.Reset()
	err = command([]string{"-play", file}, &out, io.Discard)
	require.NotErrorIs(t, err, errViolated)
	require.NotContains(t, out.String(), "VIOLATION")
}

// The command says what was explored, and whether that is all.
func TestReport(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, command([]string{"-model", "alone"}, &out, io.Discard))
	require.Contains(t, out.String(), "alone: complete, no violation\n  bounds       2 nodes, ")
	out.Reset()
	require.NoError(t, command([]string{"-model", "base", "-depth", "3"}, &out, io.Discard))
	require.Contains(t, out.String(), "base: not complete, no violation: stopped at depth 3\n")
	out.Reset()
	require.NoError(t, command([]string{"-model", "alone", "-json"}, &out, io.Discard))
	require.Contains(t, out.String(), `"complete": true`)
	out.Reset()
	require.NoError(t, command([]string{"-list"}, &out, io.Discard))
	require.Contains(t, out.String(), "bug: a promise is forgotten (base)\n")
	out.Reset()
	require.NoError(t, command([]string{"-model", "disjoint"}, &out, io.Discard))
	require.Contains(t, out.String(), "refused, as it must be")
	out.Reset()
	require.NoError(t, command([]string{"-bugs", "-model", "leave"}, &out, io.Discard))
	require.Contains(t, out.String(), "| a replica that leaves forgets its promise | leave | ")
}

func TestWhatTheCommandRefuses(t *testing.T) {
	for _, args := range [][]string{{"-system", "none"}, {"-model", "none"}, {"-bug", "none"}, {"-play", "none"}, {"-none"}} {
		require.Error(t, command(args, io.Discard, io.Discard), args)
	}
}
