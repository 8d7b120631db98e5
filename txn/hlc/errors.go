package hlc

import (
	"errors"
	"fmt"
	"time"
)

// ErrOffset says that clocks are too far apart. It is matched by every *OffsetError.
var ErrOffset = errors.New("hlc: clocks are too far apart")

// Cause says how clocks came to be called too far apart.
type Cause uint8

const (
	// CauseAhead is of Update: the timestamp is further ahead of this node's clock than MaxOffset. It was not taken in.
	CauseAhead Cause = iota + 1

	// CauseApart is of Check: this node's clock is further than MaxOffset from those of most of the peers whose clock is known.
	CauseApart

	// CauseJumped is of Check: this node's clock was set by more than MaxOffset while it ran, and most peers have not said yet that
	// it is right.
	CauseJumped

	// CauseBackwards is of Check: this node has given out, or taken in, timestamps that are further ahead of its clock than MaxOffset. It
	// has been set back since, or was before Config.Last was stored.
	CauseBackwards
)

// OffsetError says that clocks are further apart than MaxOffset, and how that is known. It matches ErrOffset; retrieve it with errors.As.
type OffsetError struct {
	Cause Cause
	Node  uint64 // this one

	// Timestamp is what Update has refused; of CauseBackwards, the highest that was given out or taken in.
	Timestamp Timestamp

	// Offset is by how much the other is ahead of this node's clock; below 0 it is behind. The other is the timestamp; of CauseApart the
	// nearest of the peers that are too far away, which is Peer; of CauseJumped the clock as it ran before.
	Offset time.Duration

	// Uncertainty is by how much Offset may be wrong.
	Uncertainty time.Duration

	MaxOffset  time.Duration
	Peer       uint64 // of CauseApart
	Far, Known int    // of CauseApart: so many peers are too far away, of so many whose clock is known
}

// Error implements error.
func (e *OffsetError) Error() string {
	switch e.Cause {
	case CauseAhead:
		return fmt.Sprintf("hlc: node %d: timestamp %v is %v ahead of this node's clock, MaxOffset is %v: it was not taken in; see to the clocks of both sides", e.Node, e.Timestamp, e.Offset, e.MaxOffset)
	case CauseApart:
		return fmt.Sprintf("hlc: node %d: its clock is further than MaxOffset, %v, from those of %d of %d peers: that of the nearest, node %d, is ahead by %v, give or take %v; set this node's clock",
			e.Node, e.MaxOffset, e.Far, e.Known, e.Peer, e.Offset, e.Uncertainty)
	case CauseJumped:
		return fmt.Sprintf("hlc: node %d: its clock was set by %v while it ran, MaxOffset is %v, and no majority of peers says that it is right", e.Node, -e.Offset, e.MaxOffset)
	case CauseBackwards:
		return fmt.Sprintf("hlc: node %d: timestamps up to %v were in use here, which is %v ahead of its clock, MaxOffset is %v: wait until it has caught up", e.Node, e.Timestamp, e.Offset, e.MaxOffset)
	}
	return fmt.Sprintf("hlc: node %d: clocks are %v apart", e.Node, e.Offset)
}

// Is makes the error match ErrOffset.
func (e *OffsetError) Is(target error) bool { return target == ErrOffset }
