package multipaxos

//synod:core

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// What people are shown of a core and of its records. Of a message, see Describe in wire.go.

// State says in some words what the core is, and what it has promised.
func (c *Core) State() string {
	s := c.role.String()
	switch {
	case c.role == follower && !c.leader.IsZero():
		s += fmt.Sprintf(" %v", c.leader)
	case c.role == leading && !c.covered:
		s += " without phase 1"
	}
	return fmt.Sprintf("%s, promised %v", s, c.promised)
}

// Describe says all that matters of the core, in one line: what it is, what it has promised, up to where it knows what
// is decided, who decides, and what it has accepted: slot:value@ballot, with a star while the record is not durable.
func (c *Core) Describe() string {
	var s strings.Builder
	s.WriteString(c.role.String())
	if c.role == follower && !c.leader.IsZero() {
		fmt.Fprintf(&s, " %v", c.leader)
	}
	fmt.Fprintf(&s, " promised=%v", c.promised)
	if c.durable != c.promised {
		fmt.Fprintf(&s, " durable=%v", c.durable)
	}
	if !c.lost.IsZero() {
		fmt.Fprintf(&s, " lost=%v", c.lost)
	}
	if !c.trusted {
		s.WriteString(" held-back")
	}
	if c.quiet > 0 {
		fmt.Fprintf(&s, " quiet=%d", c.quiet)
	}
	fmt.Fprintf(&s, " decided=%d", c.decided)
	if c.held != c.decided {
		fmt.Fprintf(&s, " held=%d", c.held)
	}
	fmt.Fprintf(&s, " %v after=%d [", c.conf, c.log.start.Index)
	for i, word := range c.log.words(c.persisted) {
		if i > 0 {
			s.WriteByte(' ')
		}
		s.WriteString(word)
	}
	s.WriteByte(']')
	return s.String()
}

// words says what stands in the slots.
func (l *valueLog) words(persisted uint64) []string {
	var words []string
	for _, s := range l.spans {
		r := l.load(s.rec)
		if r == nil {
			words = append(words, fmt.Sprintf("%s:unknown-up-to-%v", slotRange(s.first, s.last), s.rec.upTo))
			continue
		}
		for slot := s.first; slot <= s.last; slot++ {
			word := fmt.Sprintf("%d:%s", slot, describeValue(r.ballot, &r.values[slot-r.first]))
			if s.rec.token > persisted {
				word += "*"
			}
			words = append(words, word)
		}
	}
	return words
}

func slotRange(first, last uint64) string {
	if first == last {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

// DescribeKey names the key of one of the protocol's own records.
func DescribeKey(keys replica.Keys, key []byte) string {
	prefix := keys.Protocol(tagRun)
	if rec, ok := openRunKey(prefix, key); ok && bytes.HasPrefix(key, prefix) {
		return fmt.Sprintf("run %s@%v", slotRange(rec.first, rec.last), rec.ballot)
	}
	for tag, name := range map[byte]string{tagHard: "state", tagStart: "start", tagLeft: "left"} { //synod:ordered one of them at most
		if bytes.Equal(key, keys.Protocol(tag)) {
			return name
		}
	}
	return fmt.Sprintf("%q", key)
}

// DescribeRecord says what a record holds, in one line.
func DescribeRecord(keys replica.Keys, key, value []byte) string {
	name := DescribeKey(keys, key)
	if strings.HasPrefix(name, "run ") {
		r, err := openRun(keys.Group(), value)
		if isForgotten(key, value) {
			return name + ": forgotten"
		}
		if err != nil {
			return name + ": " + err.Error()
		}
		words := []string{"run"}
		for i := range r.values {
			words = append(words, fmt.Sprintf("%d:%s", r.first+uint64(i), describeValue(r.ballot, &r.values[i])))
		}
		return strings.Join(words, " ")
	}
	payload, err := storage.OpenRecord(key, value)
	if err != nil {
		return name + ": " + err.Error()
	}
	r := replica.NewReader(payload)
	switch name {
	case "state":
		h, err := decodeHard(payload)
		if err != nil {
			return name + ": " + err.Error()
		}
		return fmt.Sprintf("state promised=%v decided=%d last=%d runs=%d", h.promised, h.decided, h.last, h.runs)
	case "start":
		at := readPosition(r)
		s := fmt.Sprintf("start after=%d commands=%d fence=%v", at.Index, at.Commands, fenceAt(at))
		conf, err := replica.DecodeConfiguration(r.Bytes())
		if err != nil {
			return s + ": " + err.Error()
		}
		return s + " " + conf.String()
	case "left":
		return fmt.Sprintf("left promised=%v last=%d", readBallot(r), r.Uvarint())
	}
	return name
}

// Claims says what a message lets others count on, as one that only leaves when it is durable at its sender: that
// a ballot is promised, and that values are accepted in it, or chosen, in ranges of slots. false: it claims nothing.
func Claims(group, sender uint64, b []byte) (promised Ballot, accepted [][2]uint64, ok bool) {
	m, err := decodeMessage(group, sender, b)
	if err != nil {
		return promised, nil, false
	}
	switch m.kind {
	case kindPrepare, kindPromise:
		return m.ballot, nil, true
	case kindAccepted:
		if m.through > m.decided {
			accepted = append(accepted, [2]uint64{m.decided + 1, m.through})
		}
		for _, r := range m.ranges {
			accepted = append(accepted, [2]uint64{r.first, r.last})
		}
		return m.ballot, accepted, true
	}
	return promised, nil, false
}
