package multipaxos_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/multipaxos/paxosscript"
	"github.com/synod-go/synod/internal/replica/script"
)

// fault is what happens to one message of a run.
type fault struct {
	at    int // which one, counted from 0 in the order of delivery; -1: none
	again int // it is delivered, and once more after so many others; 0: it is lost
}

// tour runs a group of three through all that it does: an election, values, reads with a leader and without, a
// handover, a follower that comes back behind a trimmed log, and the end of a leader. Each part has so many ticks
// to reach its aim.
type tour struct {
	t     *testing.T
	r     *script.Runner
	f     fault
	sent  int            // messages so far
	kinds map[string]int // of them
	what  string         // the message that the fault has met
	due   []int          // after how many more the repeated one is delivered
	said  strings.Builder
	up    []uint64
	asked int
}

const patience = 80 // ticks

func (s *tour) exec(format string, args ...any) string {
	out, err := s.r.Exec(fmt.Sprintf(format, args...))
	require.NoError(s.t, err)
	s.said.WriteString(out)
	return out
}

// work delivers and persists until nothing is left.
func (s *tour) work() {
	for {
		busy := false
		for _, id := range s.up {
			if s.r.Pending(id) > 0 {
				s.exec("persist %d", id)
				busy = true
			}
		}
		if messages := s.r.Messages(); len(messages) > 0 {
			busy = true
			s.deliver(messages[0])
		}
		if !busy {
			return
		}
	}
}

// deliver delivers the first message on its way, or has the fault meet it.
func (s *tour) deliver(m script.Message) {
	if len(s.due) > 0 && s.due[0] == 0 {
		// What was repeated is the last one on its way.
		s.due = nil
		s.exec("deliver nth=%d", len(s.r.Messages()))
		return
	}
	kind := s.r.Kind(m)
	s.kinds[kind]++
	switch {
	case s.sent != s.f.at:
		s.exec("deliver n=1")
	case s.f.again == 0:
		s.what = strings.TrimSpace(s.exec("drop n=1"))
	default:
		s.exec("duplicate n=1") // at the end
		s.what = strings.TrimSpace(s.exec("deliver n=1"))
		s.due = append(s.due, s.f.again+1)
	}
	if len(s.due) > 0 {
		s.due[0]--
	}
	s.sent++
}

// until lets time pass until an aim is reached.
func (s *tour) until(what string, aim func() bool) {
	for range patience {
		s.work()
		if aim() {
			return
		}
		for _, id := range s.up {
			s.exec("tick %d", id)
		}
	}
	s.exec("status")
	s.t.Fatalf("message %d (%s): not reached: %s\n%s", s.f.at, s.what, what, s.said.String())
}

func (s *tour) leader() uint64 {
	for _, id := range s.up {
		if c := s.r.Core(id); c != nil && c.Status().Leader == id {
			return id
		}
	}
	return 0
}

// propose has a value decided, and applied everywhere.
func (s *tour) propose(value string) {
	s.until("a leader for "+value, func() bool {
		l := s.leader()
		return l != 0 && !strings.Contains(s.exec("propose %d %s", l, value), value+":")
	})
	s.applied(value)
}

// applied waits until all that are up have applied a value.
func (s *tour) applied(value string) {
	s.until(value+" is applied", func() bool {
		return !slices.ContainsFunc(s.up, func(id uint64) bool {
			commands, _ := s.r.Applied(id)
			return !slices.Contains(commands, value)
		})
	})
}

// read has a read answered, and asks again every few ticks, as the runtime does.
func (s *tour) read(node uint64) {
	answers := 0
	ticks := 0
	s.until(fmt.Sprintf("a read at node %d", node), func() bool {
		if ticks++; ticks%5 == 1 {
			s.asked++
			s.exec("read %d %d", node, s.asked)
			s.work()
		}
		answers = strings.Count(s.said.String(), fmt.Sprintf("read %d.%d at index", node, s.asked))
		return answers > 0
	})
}

func (s *tour) run() {
	s.exec("bootstrap voters=3")
	s.up = []uint64{1, 2, 3}
	s.until("a leader", func() bool { return s.leader() != 0 })
	for _, value := range []string{"a", "b", "c"} {
		s.propose(value)
	}
	for id := range uint64(3) {
		s.read(id + 1)
	}
	from := s.leader()
	to := from%3 + 1
	s.exec("transfer %d to=%d", from, to)
	s.until("a handover", func() bool {
		if l := s.leader(); l != to && l != 0 && s.r.Core(l) != nil {
			s.exec("transfer %d to=%d", l, to) // it ends after a while
		}
		return s.leader() == to
	})
	s.propose("d")
	// A follower is away while the log is trimmed.
	away := to%3 + 1
	s.exec("crash %d down", away)
	s.up = slices.DeleteFunc(s.up, func(id uint64) bool { return id == away })
	s.propose("e")
	s.propose("f")
	leader := s.leader()
	s.exec("snapshot %d", leader)
	_, index := s.r.Applied(leader)
	s.exec("compact %d %d", leader, index)
	s.exec("start %d", away)
	s.up = []uint64{1, 2, 3}
	s.applied("f")
	s.propose("g")
	// Another one stands for election, without need, while the leader proposes.
	leader = s.leader()
	s.exec("propose %d h", leader)
	s.exec("campaign %d", leader%3+1)
	s.exec("tick %d", leader)
	s.decided("h", "i")
	// A follower is away, and then the leader ends. A read comes before there is another one, to the follower, which
	// has to fetch what it has missed.
	gone := s.leader()
	away = gone%3 + 1
	s.exec("crash %d down", away)
	s.up = slices.DeleteFunc(s.up, func(id uint64) bool { return id == away })
	s.propose("j")
	s.exec("crash %d down", gone)
	s.exec("start %d", away)
	s.up = slices.DeleteFunc([]uint64{1, 2, 3}, func(id uint64) bool { return id == gone })
	s.read(away)
	s.propose("k")
	s.exec("start %d", gone)
	s.up = []uint64{1, 2, 3}
	s.applied("k")
	require.Empty(s.t, s.r.Violations(), "message %d (%s)", s.f.at, s.what)
	for _, id := range s.up {
		commands, _ := s.r.Applied(id)
		commands = slices.DeleteFunc(commands, func(value string) bool { return value == "h" }) // it may be given up
		require.Equal(s.t, []string{"a", "b", "c", "d", "e", "f", "g", "i", "j", "k"}, commands, "message %d (%s)", s.f.at, s.what)
	}
}

// decided waits until a value is decided or said to be lost, whoever leads, and proposes the next.
func (s *tour) decided(value, next string) {
	s.propose(next)
	s.until(value+" has an end", func() bool {
		said := s.said.String()
		return strings.Contains(said, "lost: "+value+",") || strings.Contains(said, ":"+value+"\n") || strings.Contains(said, ":"+value+" ")
	})
}

func newTour(t *testing.T, f fault) *tour {
	e := paxosscript.Engine()
	if f.at >= 0 {
		e.Check, e.Sent = nil, nil // of thousands of runs that is too dear
	}
	return &tour{t: t, r: script.New(e), f: f, kinds: map[string]int{}}
}

// TestAnyMessageMayBeLost loses each single message of a tour in turn, and wants all to be decided that was proposed
// (1704.00082 found published specifications in which one lost message stops the protocol).
func TestAnyMessageMayBeLost(t *testing.T) {
	whole := newTour(t, fault{at: -1})
	whole.run()
	t.Logf("%d messages: %v", whole.sent, whole.kinds)
	for _, kind := range []string{"canvass", "canvassed", "prepare", "promise", "accept", "heartbeat", "accepted", "refused", "learn", "learned",
		"read", "read-index", "look", "looked", "take-over", "snapshot"} {
		require.NotZero(t, whole.kinds[kind], "no %s in the run", kind)
	}
	for i := range whole.sent {
		newTour(t, fault{at: i}).run()
	}
}

// TestAnyMessageMayBeRepeated delivers each single message of a tour twice, at once and late.
func TestAnyMessageMayBeRepeated(t *testing.T) {
	whole := newTour(t, fault{at: -1})
	whole.run()
	for i := range whole.sent {
		for _, again := range []int{1, 20} {
			newTour(t, fault{at: i, again: again}).run()
		}
	}
}
