package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/synod-go/synod"
)

// Office sells tickets: a small state machine, as an application would write one. A
// ticket that is given back is sold again before a new one is printed.
type Office struct {
	state state
}

type state struct {
	Printed  int   // tickets 1 to Printed exist
	Returned []int // those that were given back, the next to be sold last
	Owners   map[int]string
}

var _ synod.StateMachine = (*Office)(nil)

// Apply executes "sell NAME", whose result is the ticket's number, or "return NUMBER".
func (o *Office) Apply(_ uint64, command []byte) []byte {
	s := &o.state
	if s.Owners == nil {
		s.Owners = make(map[int]string)
	}
	verb, rest, _ := strings.Cut(string(command), " ")
	switch verb {
	case "sell":
		var ticket int
		if n := len(s.Returned); n > 0 {
			ticket, s.Returned = s.Returned[n-1], s.Returned[:n-1]
		} else {
			s.Printed++
			ticket = s.Printed
		}
		s.Owners[ticket] = rest
		return fmt.Append(nil, ticket)
	case "return":
		var ticket int
		if _, err := fmt.Sscan(rest, &ticket); err == nil && s.Owners[ticket] != "" {
			delete(s.Owners, ticket)
			s.Returned = append(s.Returned, ticket)
			return []byte("thanks")
		}
	}
	return []byte("refused")
}

// String describes the state.
func (o *Office) String() string {
	return fmt.Sprintf("printed %d, returned %v, owners %v", o.state.Printed, o.state.Returned, o.state.Owners)
}

// Snapshot captures the state: encoded at once, since Apply goes on changing it.
func (o *Office) Snapshot() (io.WriterTo, error) { return encode(o.state) }

// Restore replaces the state.
func (o *Office) Restore(r io.Reader) error {
	o.state = state{}
	return json.NewDecoder(r).Decode(&o.state)
}

// encode returns a state as JSON, which has its keys in order: the same state gives the
// same bytes.
func encode(s state) (io.WriterTo, error) {
	b, err := json.Marshal(s)
	return bytes.NewReader(b), err
}

// Forgetful is an Office with a subtle mistake, of the kind that no test of Apply finds: its
// snapshots leave out the tickets that were given back. A node that was restarted
// prints a new ticket where the others sell an old one, and from then on
// believes that other people hold other tickets.
type Forgetful struct{ Office }

// Snapshot captures most of the state.
func (f *Forgetful) Snapshot() (io.WriterTo, error) {
	return encode(state{Printed: f.state.Printed, Owners: f.state.Owners})
}
