package hlc

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/probe"
)

func FuzzDecode(f *testing.F) {
	f.Add(frame{kind: kindQuestion, number: 7}.encode())
	f.Add(frame{kind: kindAnswer, number: 1 << 63, time: maxTime}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		for range 2 {
			if f, err := decode(b); err == nil {
				require.Equal(t, b, f.encode())
				require.True(t, f.time >= minTime && f.time <= maxTime)
			} else {
				require.ErrorIs(t, err, errFrame)
			}
			if len(b) < frameSumOffset {
				return
			}
			b = seal(append([]byte(nil), b...)) // past the checksum
		}
	})
}

func TestFramesThatAreNotOurs(t *testing.T) {
	good := frame{kind: kindAnswer, number: 3, time: 17}.encode()
	later := append([]byte(nil), good...)
	later[4]++
	after := append([]byte(nil), good...)
	after[frameBytes] = 0xff
	kind := append([]byte(nil), good...)
	kind[5] = 'x'
	for what, b := range map[string][]byte{
		"13 bytes": good[:13], "checksum": good[:len(good)-1], "version 2": seal(later), "after 2116": seal(after), "kind 120": seal(kind),
		"kind 97": seal(append([]byte(nil), good[:frameBytes]...)),
	} {
		_, err := decode(b)
		require.ErrorIs(t, err, errFrame)
		require.ErrorContains(t, err, what)
	}
}

// A machine that slept while an answer was under way knows that the answer is old: its monotonic clock stood still, that on
// the wall did not.
func TestAMachineThatSlept(t *testing.T) {
	asked := reading{wall: 1e18, mono: 5e9}
	now := reading{wall: asked.wall + 3600e9 + 1000, mono: asked.mono + 1000} // an hour later
	apart := func() int64 {
		s := measure(asked, now, asked.wall+500) // the peer's clock is the same
		return magnitude(s.offset(now)) - s.uncertainty(now, 0)
	}
	require.LessOrEqual(t, apart(), int64(0))
	remove := probe.Plant("hlc: a machine never sleeps")
	defer remove()
	require.Positive(t, apart(), "the mistake is found")
}

// Whatever way the answer takes, the peer's clock is where the sample says, give or take what it says; a clock of this node's that is
// set in between, or a machine that sleeps, makes it worse and not wrong.
func FuzzMeasure(f *testing.F) {
	f.Add(int64(1e18), int64(1e18+5e8), uint32(300), uint32(20), int32(0), uint32(0))
	f.Add(int64(1e18), int64(1e17), uint32(1), uint32(1e9), int32(-2e9), uint32(1e9))
	f.Fuzz(func(t *testing.T, mine, theirs int64, there, back uint32, set int32, slept uint32) {
		const far = 1 << 61
		mine, theirs = magnitude(mine%far), magnitude(theirs%far)
		asked := reading{wall: mine, mono: 5}
		if slept > 0 {
			set = 0 // a wall that is set back at the same time hides how long it slept
		}
		passed := int64(there) + int64(back)
		now := reading{wall: max(0, mine+passed+int64(slept)+int64(set)), mono: 5 + passed}
		truth := theirs + passed + int64(slept) - now.wall // the peer's clock goes on while this machine sleeps
		for _, showed := range []int64{
			theirs + int64(there),                // it slept while the answer was under way
			theirs + int64(there) + int64(slept), // or before the peer looked at its clock
		} {
			s := measure(asked, now, showed)
			require.LessOrEqual(t, magnitude(s.offset(now)-truth), s.uncertainty(now, 0))
		}
	})
}
