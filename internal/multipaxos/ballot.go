package multipaxos

//synod:core

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/synod-go/synod/internal/replica"
)

// Ballot names one attempt of one node to lead. Ballots are ordered by Round, then by
// Priority, then by Node, so that no two nodes ever have the same one. The zero Ballot is
// below all that are used.
type Ballot struct {
	Round    uint64
	Priority uint8
	Node     uint64
}

// isChosen reports whether b stands for the ballot of a value that is known to be chosen,
// however that became known: no ballot is higher, and none can choose another value.
func (b Ballot) isChosen() bool { return b.Round == math.MaxUint64 }

func chosen() Ballot { return Ballot{Round: math.MaxUint64} }

// maxRound is the highest round that a node may promise. What is above is not from a
// node that counted its way there.
const maxRound = math.MaxUint64 / 2

// Compare returns -1, 0 or +1 as b is below o, equal to it, or above.
func (b Ballot) Compare(o Ballot) int {
	if c := cmp.Compare(b.Round, o.Round); c != 0 {
		return c
	}
	if c := cmp.Compare(b.Priority, o.Priority); c != 0 {
		return c
	}
	return cmp.Compare(b.Node, o.Node)
}

// Less reports whether b is below o.
func (b Ballot) Less(o Ballot) bool { return b.Compare(o) < 0 }

// IsZero reports whether b is no ballot.
func (b Ballot) IsZero() bool { return b == Ballot{} }

// String shows a ballot as round.node, or round.priority.node.
func (b Ballot) String() string {
	switch {
	case b.isChosen():
		return "chosen"
	case b.Priority == 0:
		return fmt.Sprintf("%d.%d", b.Round, b.Node)
	}
	return fmt.Sprintf("%d.%d.%d", b.Round, b.Priority, b.Node)
}

func (b Ballot) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, b.Round)
	dst = append(dst, b.Priority)
	return binary.AppendUvarint(dst, b.Node)
}

func readBallot(r *replica.Reader) Ballot {
	return Ballot{Round: r.Uvarint(), Priority: r.Byte(), Node: r.Uvarint()}
}

func maxBallot(a, b Ballot) Ballot {
	if a.Less(b) {
		return b
	}
	return a
}
