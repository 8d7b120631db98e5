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

// Each system says what it has, and its models have names of their own.
func TestSystems(t *testing.T) {
	for name, system := range systems {
		s := system()
		require.NotEmpty(t, s.Models, name)
		labels := map[string]bool{}
		for _, m := range s.Models {
			require.False(t, labels[m.Label()], "%s: two models are called %s", name, m.Label())
			labels[m.Label()] = true
			require.NotEmpty(t, m.About())
			require.NotEmpty(t, m.Bounds())
		}
		for _, b := range s.Bugs {
			require.NotEmpty(t, b.Models, b.Name)
			for _, label := range b.Models {
				require.True(t, labels[label], "%s: %s: no model %s", name, b.Name, label)
			}
		}
	}
	var out bytes.Buffer
	require.NoError(t, command([]string{"-system", "2pc", "-model", "lost"}, &out, io.Discard))
	require.Contains(t, out.String(), "lost: complete, no violation\n  bounds       3 nodes, ")
	out.Reset()
	require.ErrorIs(t, command([]string{"-system", "2pc", "-bug", "2pc: a no is not counted"}, &out, io.Discard), errViolated)
	require.Contains(t, out.String(), "VIOLATION: ")
	out.Reset()
	require.NoError(t, command([]string{"-system", "paxoscommit", "-model", "full"}, &out, io.Discard))
	require.Contains(t, out.String(), "full: complete, no violation\n  bounds       2 groups, ")
	out.Reset()
	require.ErrorIs(t, command([]string{"-system", "paxoscommit", "-bug", "paxoscommit: commit without all votes"}, &out, io.Discard), errViolated)
	require.Contains(t, out.String(), "VIOLATION: ")
}
