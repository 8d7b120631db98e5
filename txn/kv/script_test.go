package kv

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/paxoscommit"
)

// TestScripts runs one group's state machine. Transactions are client.counter; the client's session was opened at its number.
//
//	prepare 1.1 [age=N] [now=N] [at=N] [floor=N] groups=0,1 [read=a,b] [range=a-c] [expect=k:v] [absent=k] [write=k:v] [delete=k]
//	close 1.1 | resolve 1.1 commit=N | resolve 1.1 abort | finish 1.1
//	reserve 1.1 age=N now=N expires=N keys=a,b
//	advance N | collect versions=N sessions=N
//	get k at=N | scan a-c at=N | state | snapshot
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		s := newState()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			for line := range strings.Lines(d.Cmd + " " + argsOf(d) + "\n" + d.Input) {
				if fields := strings.Fields(line); len(fields) > 0 {
					out.WriteString(runLine(t, &s, fields))
				}
			}
			return out.String()
		})
	})
}

func argsOf(d *datadriven.TestData) string {
	var list []string
	for _, a := range d.CmdArgs {
		list = append(list, a.String())
	}
	return strings.Join(list, " ")
}

type options map[string]string

func (o options) number(name string) uint64 {
	n, _ := strconv.ParseUint(o[name], 10, 64)
	return n
}

func (o options) list(name string) []string {
	if o[name] == "" {
		return nil
	}
	return strings.Split(strings.Trim(o[name], "()"), ",")
}

func idOf(t *testing.T, text string) paxoscommit.ID {
	client, counter, ok := strings.Cut(text, ".")
	require.True(t, ok, text)
	c, err := strconv.ParseUint(client, 10, 64)
	require.NoError(t, err)
	n, err := strconv.ParseUint(counter, 10, 64)
	require.NoError(t, err)
	return paxoscommit.ID{Session: paxoscommit.Session{Opened: c, Random: c}, Counter: n}
}

func groupsOf(o options) (list []uint32) {
	for _, g := range o.list("groups") {
		n, _ := strconv.ParseUint(g, 10, 32)
		list = append(list, uint32(n))
	}
	return list
}

func runLine(t *testing.T, sp **state, fields []string) string {
	s := *sp
	o := options{}
	var id paxoscommit.ID
	for _, f := range fields[1:] {
		k, v, _ := strings.Cut(f, "=")
		o[k] = v
	}
	switch fields[0] {
	case "prepare", "close", "resolve", "finish", "reserve":
		id = idOf(t, fields[1])
	}
	switch fields[0] {
	case "prepare":
		p := prepare{id: id, floor: max(o.number("floor"), 1), age: o.number("age"), now: o.number("now"), readAt: o.number("at"), groups: groupsOf(o), reads: o.list("read")}
		for _, r := range o.list("range") {
			from, to, _ := strings.Cut(r, "-")
			p.ranges = append(p.ranges, keyRange{from, to})
		}
		for _, e := range o.list("expect") {
			k, v, _ := strings.Cut(e, ":")
			p.expected = append(p.expected, expectation{key: k, value: []byte(v)})
		}
		for _, k := range o.list("absent") {
			p.expected = append(p.expected, expectation{key: k, absent: true})
		}
		for _, w := range o.list("write") {
			k, v, _ := strings.Cut(w, ":")
			p.writes = append(p.writes, write{key: k, value: []byte(v)})
		}
		for _, k := range o.list("delete") {
			p.writes = append(p.writes, write{key: k, deleted: true})
		}
		return show(t, s.apply(appendPrepare(nil, &p)))
	case "close":
		return show(t, s.apply(appendClose(nil, id, groupsOf(o), s.clock)))
	case "resolve":
		x := resolution{id, paxoscommit.Aborted, 0, groupsOf(o)}
		if o["commit"] != "" {
			x.outcome, x.timestamp = paxoscommit.Committed, o.number("commit")
		}
		return show(t, s.apply(appendResolve(nil, paxoscommit.Session{}, 0, s.clock, []resolution{x})))
	case "finish":
		return show(t, s.apply(appendFinish(nil, id)))
	case "reserve":
		return show(t, s.apply(appendReserve(nil, chain{o.number("age"), id.Session.Random}, o.number("now"), o.number("expires"), o.list("keys"))))
	case "advance":
		n, _ := strconv.ParseUint(fields[1], 10, 64)
		return show(t, s.apply(appendAdvance(nil, n)))
	case "collect":
		return show(t, s.apply(appendCollect(nil, o.number("versions"), o.number("sessions"))))
	case "get":
		versions := s.find(fields[1])
		value, found := valueAt(versions, o.number("at"))
		if !found {
			return "not found\n"
		}
		return fmt.Sprintf("%s\n", value)
	case "state":
		return describe(s)
	case "snapshot":
		b := snapshotOf(t, s)
		other, err := readSnapshot(bytes.NewReader(b))
		require.NoError(t, err)
		require.Equal(t, b, snapshotOf(t, other), "a snapshot of what a snapshot has restored is another one")
		require.Equal(t, describe(s), describe(other))
		*sp = other // and goes on with it
		return "the same\n"
	}
	t.Fatalf("unknown: %v", fields)
	return ""
}

func snapshotOf(t *testing.T, s *state) []byte {
	var b bytes.Buffer
	n, err := s.snapshot().WriteTo(&b)
	require.NoError(t, err)
	require.EqualValues(t, b.Len(), n)
	return b.Bytes()
}

func shortID(id paxoscommit.ID) string {
	return fmt.Sprintf("%d.%d", id.Session.Opened, id.Counter)
}

// show prints an answer, by way of its encoding.
func show(t *testing.T, a answer) string {
	a, err := readAnswer(a.append(nil))
	require.NoError(t, err)
	text := map[answerKind]string{answerDone: "done", answerBlocked: "blocked", answerOver: "over", answerExpired: "expired", answerOverfull: "overfull", answerMalformed: "malformed"}[a.kind]
	if a.kind == answerVote {
		text = a.record.String()
	}
	if a.refused != refusedNot {
		text += ": " + []string{"", "conflict", "too old", "blocked", "mismatch"}[a.refused]
	}
	if a.key != "" {
		text += " on " + a.key
	}
	if a.by != (paxoscommit.ID{}) {
		text += fmt.Sprintf(" by %s, groups %v", shortID(a.by), a.byGroups)
	} else if a.byAge != 0 {
		text += fmt.Sprintf(" by a reservation of age %d", a.byAge)
	}
	return fmt.Sprintf("%s (clock %d)\n", text, a.clock)
}

func describe(s *state) string {
	var b strings.Builder
	fmt.Fprintf(&b, "clock %d, collected %d, wrong %d, sessions %d, records %d, garbage %d\n", s.clock, s.collected, s.wrong, s.registers.Sessions(), s.registers.Len(), len(s.garbage))
	s.items.Scan(func(k string, it *item) bool {
		fmt.Fprintf(&b, "%s:", k)
		for _, v := range it.versions {
			if v.deleted {
				fmt.Fprintf(&b, " %d deleted", v.timestamp)
			} else {
				fmt.Fprintf(&b, " %d=%s", v.timestamp, v.value)
			}
			if v.voted != v.timestamp {
				fmt.Fprintf(&b, " (voted %d)", v.voted)
			}
		}
		b.WriteString("\n")
		return true
	})
	for _, k := range slices.Sorted(maps.Keys(s.locks)) {
		l := s.locks[k]
		fmt.Fprintf(&b, "lock %s:", k)
		if l.writer != nil {
			fmt.Fprintf(&b, " written by %s", shortID(l.writer.id))
		}
		for _, r := range l.readers {
			fmt.Fprintf(&b, " read by %s", shortID(r.id))
		}
		b.WriteString("\n")
	}
	for _, p := range s.locked {
		fmt.Fprintf(&b, "ranges %v by %s\n", p.ranges, shortID(p.id))
	}
	if len(s.reserved) > 0 {
		fmt.Fprintf(&b, "reserved %d\n", len(s.reserved))
	}
	return b.String()
}
