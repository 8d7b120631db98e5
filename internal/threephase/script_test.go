package threephase

import (
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/storage"
)

// TestScripts plays the scripts of testdata. Run with -rewrite to write what the cores do into the scripts, and read the
// difference. Messages are on their way until they are delivered, and writes wait until they are made durable; resources answer
// at once. The language:
//
//	nodes COUNT [skeen]
//	commit NODE by=(NODE/RESOURCE,…)             begins a transaction and commits it; + marks a participant with work
//	  [no=(…)] [read-only=(…)] [weights=(…)]
//	net                                          prints the messages on their way
//	deliver, drop, duplicate [from=N] [to=N] [type=WORD]
//	persist NODE                                 makes all writes durable
//	tick [n=COUNT]                               lets time pass
//	settle [n=COUNT]                             does all of that until nothing is to be done, after COUNT ticks
//	crash NODE, start NODE
//	terminate NODE                               its branch stands for election at once
//	cut (NODE,…), heal                           what is on its way between these nodes and the others is lost
//	status NODE, disk NODE
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if filepath.Ext(path) != ".txt" {
			return
		}
		s := &stage{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out := s.exec(t, d)
			if s.w != nil {
				require.Empty(t, s.w.broken)
			}
			return out
		})
	})
}

// stage is what a script plays on.
type stage struct {
	w    *world
	last ID
}

func (s *stage) exec(t *testing.T, d *datadriven.TestData) string {
	fail := func(format string, args ...any) { d.Fatalf(t, format, args...) }
	values := func(name string) []string {
		for _, a := range d.CmdArgs {
			if a.Key == name {
				return a.Vals
			}
		}
		return nil
	}
	parse := func(v string) uint64 {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			fail("%v", err)
		}
		return n
	}
	number := func(name string, value uint64) uint64 {
		if v := values(name); len(v) == 1 {
			return parse(v[0])
		}
		return value
	}
	bare := func() *node {
		n := s.w.nodes[parse(d.CmdArgs[0].Key)]
		if n == nil {
			fail("no node %q", d.CmdArgs[0].Key)
		}
		return n
	}
	participants := func(name string) (list []Participant) {
		for _, v := range values(name) {
			var p Participant
			v, work := strings.CutSuffix(v, "+")
			if work {
				p.Work = []byte("work")
			}
			node, resource, _ := strings.Cut(v, "/")
			p.Node, p.Resource = parse(node), resource
			list = append(list, p)
		}
		return list
	}
	pick := func() int {
		return slices.IndexFunc(s.w.net, func(m Message) bool {
			return number("from", m.From) == m.From && number("to", m.To) == m.To && (values("type") == nil || values("type")[0] == m.Kind.String())
		})
	}
	if s.w != nil {
		s.w.trace = nil
	}
	switch d.Cmd {
	case "nodes":
		p := Enhanced
		if d.HasArg("skeen") {
			p = Skeen
		}
		s.w = newWorld(int(parse(d.CmdArgs[0].Key)), p)
		s.w.loud, s.w.script, s.w.downFor = true, true, 1<<30
		s.w.open()
		s.w.trace = nil
	case "commit":
		n := bare()
		list := participants("by")
		for i, v := range values("weights") {
			list[i].Weight = uint32(parse(v))
		}
		s.last = s.w.begin(n.id, list...)
		for name, v := range map[string]Vote{"no": twophase.VoteNo, "read-only": twophase.VoteReadOnly} {
			for _, b := range participants(name) {
				s.w.nodes[b.Node].resources[b.Resource].votes[s.last] = v
			}
		}
		s.w.commit(s.last)
		s.run()
	case "net":
		for _, m := range s.w.net {
			s.w.logf("%d to %d: %v", m.From, m.To, m)
		}
	case "deliver", "drop", "duplicate":
		found := false
		for range len(s.w.net) {
			i := pick()
			if i < 0 {
				break
			}
			found = true
			switch m := s.w.net[i]; d.Cmd {
			case "deliver":
				if s.w.nodes[m.To].core == nil || s.w.side[m.From] != s.w.side[m.To] {
					s.w.logf("lost: %d to %d: %v", m.From, m.To, m)
				}
				s.w.deliver(i)
				s.run()
			case "drop":
				s.w.logf("lost: %d to %d: %v", m.From, m.To, m)
				s.w.net = slices.Delete(s.w.net, i, i+1)
			case "duplicate":
				s.w.net = append(s.w.net, m)
				return "ok"
			}
		}
		if !found {
			fail("no such message")
		}
	case "persist":
		n := bare()
		for {
			i := slices.IndexFunc(s.w.queue, func(a action) bool { return a.node == n && a.order == "write" })
			if i < 0 {
				break
			}
			s.w.act(i)
			s.run()
		}
	case "tick":
		for range number("n", 1) {
			s.w.tick()
			s.run()
		}
	case "settle":
		for range number("n", 1) {
			s.w.settle()
			s.w.tick()
		}
		s.w.settle()
	case "crash":
		bare().crash()
	case "start":
		bare().start()
		s.run()
	case "terminate":
		n := bare()
		if err := n.core.Terminate(s.last, "a"); err != nil {
			return err.Error()
		}
		n.work()
		s.run()
	case "cut":
		for _, v := range values("nodes") {
			s.w.side[parse(v)] = 1
		}
	case "heal":
		clear(s.w.side)
	case "status":
		c := bare().core
		for _, x := range c.Transactions() {
			s.w.logf("coordinates %v: %s, waits for %v", short(x.ID), x.Phase, x.Missing)
		}
		for _, x := range c.InDoubt() {
			switch {
			case x.Leading:
				s.w.logf("in doubt: %v %s, %v, leads, waits for %v", short(x.ID), x.Resource, x.State, x.Missing)
			case x.Heard:
				s.w.logf("in doubt: %v %s, %v, waits for node %d, which says %s, or for one of %v", short(x.ID), x.Resource, x.State, x.ID.Node, x.Answer, x.Peers)
			default:
				s.w.logf("in doubt: %v %s, %v, waits for node %d, which says nothing, or for one of %v", short(x.ID), x.Resource, x.State, x.ID.Node, x.Peers)
			}
		}
		for _, x := range c.Unfinished() {
			s.w.logf("%s: %v, waits for %v", x.Phase, short(x.ID), x.Missing)
		}
		for _, x := range c.Damages() {
			s.w.logf("damage: %v %d/%s %v", short(x.ID), x.Node, x.Resource, x.Damage)
		}
		if len(s.w.trace) == 0 {
			return "nothing is under way"
		}
	case "disk":
		n := bare()
		b := new(storage.Batch)
		for _, k := range slices.Sorted(maps.Keys(n.store)) {
			b.Set([]byte(k), n.store[k])
		}
		for _, line := range DescribeBatch(b) {
			s.w.logf("%s", strings.TrimPrefix(line, "write "))
		}
	default:
		fail("unknown command")
	}
	s.w.trace = slices.DeleteFunc(s.w.trace, func(line string) bool { return line == "tick" })
	if len(s.w.trace) == 0 {
		return "ok"
	}
	return strings.Join(s.w.trace, "\n")
}

// run does all that waits for nothing.
func (s *stage) run() {
	for {
		i := slices.IndexFunc(s.w.queue, func(a action) bool { return a.order != "write" })
		if i < 0 {
			return
		}
		s.w.act(i)
	}
}
