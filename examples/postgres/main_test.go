package main

import (
	"errors"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRun is the program, shorter.
func TestRun(t *testing.T) {
	r, err := run(t.Context(), settings{transfers: 150, faults: true}, io.Discard)
	if errors.Is(err, errNoServer) && os.Getenv("SYNOD_POSTGRES") != "1" {
		t.Skip("NOTHING IS TESTED:", err)
	}
	require.NoError(t, err)
	require.Zero(t, r.violations)
	require.Positive(t, r.transfers)
	require.GreaterOrEqual(t, r.faults, 2, "the server and the manager")
	require.Equal(t, 150, r.transfers+r.aborted+r.unknown)
	require.EqualValues(t, 2*accounts*initial, r.total)
}
