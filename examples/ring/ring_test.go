package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/hashring"
)

// wellFormed checks that a picture is XML, and counts its elements.
func wellFormed(t *testing.T, svg string) map[string]int {
	count := make(map[string]int)
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return count
		}
		require.NoError(t, err)
		if e, ok := token.(xml.StartElement); ok {
			count[e.Name.Local]++
			for _, a := range e.Attr {
				require.NotContains(t, a.Value, "NaN")
				require.NotContains(t, a.Value, "Inf")
			}
		}
	}
}

func TestPictures(t *testing.T) {
	out := filepath.Join(t.TempDir(), "pictures")
	var said bytes.Buffer
	require.NoError(t, run(settings{out: out, nodes: 6, points: 16, leaves: 2}, &said))
	lines := strings.Split(strings.TrimSpace(said.String()), "\n")
	require.Len(t, lines, 5, "a line for each file, and a summary")
	for i, name := range []string{"ring.svg", "shares.svg", "leave.svg", "balance.svg"} {
		require.Contains(t, lines[i], filepath.Join(out, name))
		svg, err := os.ReadFile(filepath.Join(out, name))
		require.NoError(t, err)
		count := wellFormed(t, string(svg))
		require.Equal(t, 1, count["svg"])
		require.NotContains(t, string(svg), "%!", "a format that does not fit")
		switch name {
		case "ring.svg":
			require.Greater(t, count["path"], 60, "an arc for each range")
		case "leave.svg":
			require.Greater(t, count["path"], 20)
		case "shares.svg":
			require.Equal(t, 1+2*6, count["rect"])
		case "balance.svg":
			require.Equal(t, 2*7+4, count["circle"], "two curves, and four published figures")
		}
	}
	require.Contains(t, lines[4], "node 2 owned")
	// The same picture each time.
	again := filepath.Join(t.TempDir(), "again")
	require.NoError(t, run(settings{out: again, nodes: 6, points: 16, leaves: 2}, io.Discard))
	a, err := os.ReadFile(filepath.Join(out, "leave.svg"))
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(again, "leave.svg"))
	require.NoError(t, err)
	require.Equal(t, a, b)
}

// A ring as ranges has no gap, and nothing in it belongs to nobody.
func TestOwned(t *testing.T) {
	ring, err := hashring.New(hashring.Config{}, members(4)...)
	require.NoError(t, err)
	arcs, err := owned(ring)
	require.NoError(t, err)
	first := uint64(0)
	for _, a := range arcs {
		require.Equal(t, first, a.First)
		require.Equal(t, ring.OwnerHash(a.Last), a.To)
		first = a.Last + 1
	}
	require.Zero(t, first)
}

// The curve goes through the published figures.
func TestMeasured(t *testing.T) {
	list, err := measure()
	require.NoError(t, err)
	published := 0
	for _, s := range list {
		require.Greater(t, s.most, 1.0)
		if s.published > 0 {
			require.InDelta(t, 0, math.Log(s.deviation/s.published), 0.15, "%d points", s.points)
			published++
		}
	}
	require.Equal(t, 4, published)
}

func TestBadSettings(t *testing.T) {
	good := settings{out: t.TempDir(), nodes: 3, points: 4, leaves: 1}
	for _, bad := range []func(*settings){
		func(s *settings) { s.out = "" },
		func(s *settings) { s.nodes = 1 },
		func(s *settings) { s.nodes = 13 },
		func(s *settings) { s.points = 0 },
		func(s *settings) { s.leaves = 3 },
		func(s *settings) { s.leaves = -1 },
		func(s *settings) { s.out = filepath.Join(s.out, "file", "below") },
	} {
		s := good
		bad(&s)
		if strings.HasSuffix(s.out, "below") {
			require.NoError(t, os.WriteFile(filepath.Dir(s.out), nil, 0o644))
		}
		require.Error(t, run(s, io.Discard))
	}
	require.NoError(t, run(good, io.Discard))
	require.NoError(t, run(settings{out: good.out, nodes: 2, points: 1, leaves: 0}, io.Discard))
}
