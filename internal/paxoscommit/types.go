//synod:core

package paxoscommit

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/synod-go/synod/internal/wire"
)

// Session is a client of all groups: transactions are numbered in it. It is opened by being used.
type Session struct {
	Opened uint64 // a timestamp: groups refuse sessions that are older than those that they have forgotten
	Random uint64
}

// ID names a transaction. It never recurs.
type ID struct {
	Session Session
	Counter uint64 // from 1 on
}

// String returns the session and the counter.
func (id ID) String() string {
	return fmt.Sprintf("%x.%x.%d", id.Session.Opened, id.Session.Random, id.Counter)
}

// Compare orders IDs: sessions by when they were opened, transactions by their counter.
func (id ID) Compare(other ID) int {
	return cmp.Or(id.Session.compare(other.Session), cmp.Compare(id.Counter, other.Counter))
}

func (s Session) compare(other Session) int {
	return cmp.Or(cmp.Compare(s.Opened, other.Opened), cmp.Compare(s.Random, other.Random))
}

// AppendID appends an ID's 24 bytes.
func AppendID(b []byte, id ID) []byte {
	b = binary.BigEndian.AppendUint64(b, id.Session.Opened)
	b = binary.BigEndian.AppendUint64(b, id.Session.Random)
	return binary.BigEndian.AppendUint64(b, id.Counter)
}

// ReadID takes an ID.
func ReadID(r *wire.Reader) ID {
	return ID{Session{r.Uint64(), r.Uint64()}, r.Uint64()}
}

// Vote is what a group has said of a transaction. It is written once.
type Vote uint8

// The votes.
const (
	None Vote = iota // it has said nothing yet
	Yes
	No
)

// String returns the vote's name.
func (v Vote) String() string { return name(int(v), "none", "yes", "no") }

// Outcome is how a transaction ended.
type Outcome uint8

// The outcomes.
const (
	Unknown Outcome = iota
	Committed
	Aborted
)

// String returns the outcome's name.
func (o Outcome) String() string { return name(int(o), "unknown", "committed", "aborted") }

func name(i int, names ...string) string {
	if i < 0 || i >= len(names) {
		return "?"
	}
	return names[i]
}

// MaxGroups is how many groups take part in a transaction at most.
const MaxGroups = 1 << 10

// Record is what a group has of a transaction.
type Record struct {
	Vote Vote
	// Timestamp is the lowest at which the group lets the transaction commit, where it has voted yes: the transaction
	// commits at the highest of all groups'. Where Outcome is Committed it is that.
	Timestamp uint64
	// Groups are all that take part, ascending.
	Groups  []uint32
	Outcome Outcome
	// Finished: all groups know the outcome.
	Finished bool
}

// String returns the record as scripts have it.
func (r Record) String() string {
	s := r.Vote.String()
	if r.Vote == Yes {
		s += fmt.Sprintf(" at %d", r.Timestamp)
	}
	if r.Outcome != Unknown {
		s += " " + r.Outcome.String()
	}
	if r.Finished {
		s += " finished"
	}
	return s
}

// AppendGroups appends a list of groups.
func AppendGroups(b []byte, groups []uint32) []byte {
	b = binary.AppendUvarint(b, uint64(len(groups)))
	for _, g := range groups {
		b = binary.AppendUvarint(b, uint64(g))
	}
	return b
}

// ReadGroups takes a list of groups, which must ascend. If it is like another one it returns that: most transactions are over the same
// groups as the one before, and nobody changes a list.
func ReadGroups(r *wire.Reader, like []uint32) []uint32 {
	n := r.Count(1)
	if n == 0 {
		return nil
	}
	if n > MaxGroups {
		r.Fail()
		return nil
	}
	var few [8]uint32
	list := few[:0]
	for range n {
		g := r.Uvarint()
		if g >= 1<<32 || len(list) > 0 && uint32(g) <= list[len(list)-1] {
			r.Fail()
			return nil
		}
		list = append(list, uint32(g))
	}
	if slices.Equal(list, like) {
		return like
	}
	return slices.Clone(list)
}
