package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The store is a template: it must stay short enough to be read in one go.
func TestStoreStaysShort(t *testing.T) {
	source, err := os.ReadFile("store.go")
	require.NoError(t, err)
	lines := 0
	for line := range strings.Lines(string(source)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
			lines++
		}
	}
	require.LessOrEqual(t, lines, 100, "lines of store.go without blanks and comments")
}

func TestDemonstration(t *testing.T) {
	input := filepath.Join(t.TempDir(), "input.txt")
	require.NoError(t, os.WriteFile(input, []byte(strings.Repeat("a line\n\nanother\n", 100)), 0o600))
	var out bytes.Buffer
	require.NoError(t, demonstrate(t.Context(), &out, input), "%s", &out)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Equal(t, "ok: acknowledged=300 lost=0 failovers=1", lines[len(lines)-1])
}

func TestDemonstrationRefusesBadInput(t *testing.T) {
	require.ErrorIs(t, demonstrate(t.Context(), &bytes.Buffer{}, filepath.Join(t.TempDir(), "missing")), os.ErrNotExist)
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	require.ErrorContains(t, demonstrate(t.Context(), &bytes.Buffer{}, empty), "want some more")
}

func TestRunRefusesBadFlags(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct{ peers, dir, http, want string }{
		{"1", "d", "h", `"1" is not id=host:port`},
		{"x=h:1", "d", "h", "is not id=host:port"},
		{"2=h:1", "d", "h", "node 1 is not among them"},
		{"1=h:1", "", "h", "needs -dir and -http"},
	} {
		require.ErrorContains(t, run(ctx, 1, c.peers, c.dir, c.http), c.want)
	}
}
