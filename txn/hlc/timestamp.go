package hlc

import (
	"fmt"
	"time"
)

// Timestamp is a hybrid logical time: in the high 48 bits nanoseconds since 1970, of which the low 16 bits make place for a
// counter. So it is near physical time, in steps of 65.536 µs, and orders more events than time does. Timestamps are ordered as
// numbers. 0 is none.
//
// A counter that overflows goes on in the time: what counts is that the number grows. 65,536 timestamps in a step is one a nanosecond.
type Timestamp uint64

const (
	logicalBits = 16
	logicalMask = 1<<logicalBits - 1

	// Times are within these, from 1970 to 2116: differences of two do not overflow, whatever a clock shows.
	minTime, maxTime = 0, 1<<62 - 1
)

// FromTime returns the first timestamp of the step that t is in. Before 1970 it is 0, and after 2116 the last one of that year's
// that there is.
func FromTime(t time.Time) Timestamp { return Timestamp(nanoseconds(t) &^ logicalMask) }

// nanoseconds returns a time as nanoseconds since 1970, within minTime and maxTime.
func nanoseconds(t time.Time) int64 {
	switch s := t.Unix(); {
	case s < 0:
		return minTime
	case s >= maxTime/int64(time.Second):
		return maxTime
	default:
		return s*int64(time.Second) + int64(t.Nanosecond())
	}
}

// physical returns the time without the counter, as nanoseconds since 1970.
func (t Timestamp) physical() int64 { return int64(min(t, 1<<63-1) &^ logicalMask) }

// Time returns the physical part, in UTC: where the step begins.
func (t Timestamp) Time() time.Time { return time.Unix(0, t.physical()).UTC() }

// Next returns the timestamp that follows at once; the last one that there is has itself.
func (t Timestamp) Next() Timestamp {
	if t == 1<<64-1 {
		return t
	}
	return t + 1
}

// String returns the time and, behind a #, the counter; of 0, none.
func (t Timestamp) String() string {
	if t == 0 {
		return "none"
	}
	return fmt.Sprintf("%s#%d", t.Time().Format("2006-01-02T15:04:05.000000000Z"), t&logicalMask)
}
