package main

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// Plain three-phase commit yields its counterexample under a partition, and none without; E3PC yields none.
func TestThreePhase(t *testing.T) {
	var out bytes.Buffer
	require.ErrorIs(t, command([]string{"-system", "3pc"}, &out, io.Discard), errViolated)
	require.Contains(t, out.String(), "VIOLATION: split: the caller is told committed, others aborted\n")
	require.Contains(t, out.String(), "partition: VIOLATED after 3 steps")
	out.Reset()
	require.NoError(t, command([]string{"-system", "e3pc", "-model", "no"}, &out, io.Discard))
	require.Contains(t, out.String(), "no: complete, no violation\n")
	out.Reset()
	require.NoError(t, command([]string{"-system", "e3pc", "-bugs", "-model", "no"}, &out, io.Discard))
	require.Contains(t, out.String(), "| 3pc: a no is not counted | no | ")
}
