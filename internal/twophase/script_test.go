package twophase

import (
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
)

// TestScripts plays the scripts of testdata. Run with -rewrite to write what the cores do into the scripts, and read the
// difference. Messages are on their way until they are delivered, and writes and decisions wait until they are made
// durable; resources answer at once. The language:
//
//	nodes COUNT [one] [shared] [agent-forgets]   one: resources commit in one phase; shared: one decision log
//	commit NODE by=(NODE/RESOURCE,…)             begins a transaction and commits it; * marks a last agent, + one with work
//	  [no=(…)] [read-only=(…)] [own=(…)]         own: the resource will abort by itself, whatever it is told
//	net                                          prints the messages on their way
//	deliver, drop, duplicate [from=N] [to=N] [type=WORD]
//	persist NODE                                 makes all writes durable
//	decide NODE                                  has the decision log answer
//	tick [n=COUNT]                               lets time pass
//	settle [n=COUNT]                             does all of that until nothing is to be done, after COUNT ticks
//	crash NODE, start NODE
//	force NODE outcome=WORD [tx=COUNTER]         an operator decides
//	status NODE, disk NODE
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if filepath.Ext(path) != ".txt" {
			return
		}
		s := &stage2pc{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out := s.exec(t, d)
			if s.w != nil {
				require.Empty(t, s.w.broken)
			}
			return out
		})
	})
}

// stage2pc is what a script plays on.
type stage2pc struct {
	w    *world
	last ID
}

func (s *stage2pc) exec(t *testing.T, d *datadriven.TestData) string {
	fail := func(format string, args ...any) { d.Fatalf(t, format, args...) }
	has := func(word string) bool { return d.HasArg(word) }
	number := func(name string, value uint64) uint64 {
		for _, a := range d.CmdArgs {
			if a.Key == name && len(a.Vals) == 1 {
				v, err := strconv.ParseUint(a.Vals[0], 10, 64)
				if err != nil {
					fail("%v", err)
				}
				value = v
			}
		}
		return value
	}
	bare := func() *node {
		id, err := strconv.ParseUint(d.CmdArgs[0].Key, 10, 64)
		if err != nil || s.w.nodes[id] == nil {
			fail("no node %q", d.CmdArgs[0].Key)
		}
		return s.w.nodes[id]
	}
	branches := func(name string) (list []Branch) {
		for _, a := range d.CmdArgs {
			if a.Key != name {
				continue
			}
			for _, v := range a.Vals {
				var b Branch
				if strings.HasSuffix(v, "+") {
					v, b.Work = strings.TrimSuffix(v, "+"), []byte("work")
				}
				v, b.LastAgent = strings.CutSuffix(v, "*")
				node, resource, _ := strings.Cut(v, "/")
				n, err := strconv.ParseUint(node, 10, 64)
				if err != nil {
					fail("%v", err)
				}
				b.Node, b.Resource = n, resource
				list = append(list, b)
			}
		}
		return list
	}
	pick := func() int {
		return slices.IndexFunc(s.w.net, func(m Message) bool {
			return number("from", m.From) == m.From && number("to", m.To) == m.To && (!has("type") || slices.ContainsFunc(d.CmdArgs, func(a datadriven.CmdArg) bool {
				return a.Key == "type" && a.Vals[0] == m.Kind.String()
			}))
		})
	}
	if s.w != nil {
		s.w.trace = nil
	}
	switch d.Cmd {
	case "nodes":
		count, err := strconv.Atoi(d.CmdArgs[0].Key)
		if err != nil {
			fail("%v", err)
		}
		s.w = newWorld(count, has("one"), has("shared"))
		s.w.loud, s.w.script, s.w.downFor = true, true, 1<<30
		for _, n := range s.w.nodes {
			for _, r := range n.resources {
				r.cannot = has("agent-forgets")
			}
		}
		s.w.open()
		s.w.trace = nil
	case "commit":
		n := bare()
		s.last = s.w.begin(n.id, branches("by")...)
		for name, v := range map[string]Vote{"no": VoteNo, "read-only": VoteReadOnly} {
			for _, b := range branches(name) {
				s.w.nodes[b.Node].resources[b.Resource].votes[s.last] = v
			}
		}
		for _, b := range branches("own") {
			s.w.nodes[b.Node].resources[b.Resource].heuristic[s.last] = OutcomeAborted
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
				if s.w.nodes[m.To].core == nil {
					s.w.logf("lost: %v", m)
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
	case "persist", "decide":
		n := bare()
		for {
			i := slices.IndexFunc(s.w.queue, func(a action) bool { return a.node == n && s.waits(a) == d.Cmd })
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
		s.w.trace = slices.DeleteFunc(s.w.trace, func(line string) bool { return line == "tick" })
	case "settle":
		for range number("n", 1) {
			s.w.settle()
			s.w.tick()
		}
		s.w.settle()
		s.w.trace = slices.DeleteFunc(s.w.trace, func(line string) bool { return line == "tick" })
	case "crash":
		bare().crash()
	case "start":
		n := bare()
		n.start()
		s.run()
	case "force":
		o := OutcomeCommitted
		if slices.ContainsFunc(d.CmdArgs, func(a datadriven.CmdArg) bool { return a.Key == "outcome" && a.Vals[0] == "aborted" }) {
			o = OutcomeAborted
		}
		n := bare()
		if err := n.core.Force(s.last, "a", o); err != nil {
			return err.Error()
		}
		n.work()
		s.run()
	case "status":
		c := bare().core
		for _, x := range c.Transactions() {
			s.w.logf("coordinates %v: %s, waits for %v%s", shorten(x.ID), x.Phase, x.Missing, map[bool]string{true: ", an operator must settle it"}[x.Unclear])
		}
		for _, x := range c.InDoubt() {
			heard := "nothing"
			if x.Heard {
				heard = x.Answer.String()
			}
			s.w.logf("in doubt: %v %s, waits for node %d, which says %s, and %v", shorten(x.ID), x.Resource, x.ID.Node, heard, x.Peers)
		}
		for _, x := range c.Damages() {
			s.w.logf("damage: %v %d/%s %v", shorten(x.ID), x.Node, x.Resource, x.Damage)
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
		for _, decided := range n.decisions.recoverable() {
			s.w.logf("decision %v %v", shorten(decided.ID), decided.Outcome)
		}
	default:
		fail("unknown command")
	}
	if len(s.w.trace) == 0 {
		return "ok"
	}
	return strings.Join(s.w.trace, "\n")
}

// waits says which command an action waits for.
func (s *stage2pc) waits(a action) string {
	switch {
	case a.order == "write":
		return "persist"
	case strings.HasPrefix(a.what, "decide"):
		return "decide"
	}
	return ""
}

// run does all that waits for nothing.
func (s *stage2pc) run() {
	for {
		i := slices.IndexFunc(s.w.queue, func(a action) bool { return s.waits(a) == "" })
		if i < 0 {
			return
		}
		s.w.act(i)
	}
}

// recoverable returns the decisions that there are.
func (r *register) recoverable() []Decision {
	return slices.SortedFunc(maps.Values(r.decided), func(a, b Decision) int { return a.ID.Compare(b.ID) })
}
