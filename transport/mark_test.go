package transport

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMarkIsTakenOffAsItWasPutOn(t *testing.T) {
	for _, id := range []uint32{0, 1, 127, 128, 16_383, 16_384, math.MaxUint32} {
		for _, payload := range []string{"", "x", "a payload"} {
			marked := appendMark([]byte(payload), id)
			require.LessOrEqual(t, len(marked), len(payload)+Overhead)
			got, rest, ok := splitMark(marked)
			require.True(t, ok, "channel %d", id)
			require.Equal(t, id, got)
			require.Equal(t, payload, string(rest))
			require.Equal(t, len(rest), cap(rest), "the mark must not be within the receiver's reach")
		}
	}
}

func TestMarkNeedsNoCopyWithinOverhead(t *testing.T) {
	payload := make([]byte, 10, 10+Overhead)
	allocations := testing.AllocsPerRun(100, func() { _ = appendMark(payload, math.MaxUint32) })
	require.Zero(t, allocations)
}

func TestWhatHasNoMarkIsRefused(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":                     nil,
		"one byte":                    {1},
		"a mark without bytes":        {7, 0},
		"more bytes than there are":   {7, 2},
		"more bytes than an ID has":   {1, 1, 1, 1, 1, 1, 6},
		"an ID that ends too early":   {1, 1, 2},
		"an ID that doesn't end":      {0x80, 1},
		"an ID above the highest one": {0xff, 0xff, 0xff, 0xff, 0x1f, 5},
	} {
		_, _, ok := splitMark(b)
		require.False(t, ok, name)
	}
}

func FuzzSplitMark(f *testing.F) {
	f.Add([]byte(nil), uint32(0))
	f.Add([]byte("payload"), uint32(300))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x1f, 5}, uint32(math.MaxUint32))
	f.Fuzz(func(t *testing.T, b []byte, id uint32) {
		if _, rest, ok := splitMark(b); ok {
			require.Equal(t, b[:len(rest)], rest)
			require.Less(t, len(rest), len(b))
		}
		got, rest, ok := splitMark(appendMark(append([]byte{}, b...), id))
		require.True(t, ok)
		require.Equal(t, id, got)
		require.Equal(t, string(b), string(rest))
	})
}
