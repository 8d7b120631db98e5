package commitmenttest

import (
	"fmt"
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

// Stage is what a script plays on. Messages are on their way until they are delivered, and writes and decisions wait until they are made
// durable; resources answer at once. The language, to which a protocol adds its own commands:
//
//	nodes COUNT [WORD]
//	commit NODE by=(NODE/RESOURCE,…)             begins a transaction and commits it
//	  [no=(…)] [read-only=(…)] [own=(…)]         own: the resource will abort by itself, whatever it is told
//	net                                          prints the messages on their way
//	deliver, drop, duplicate [from=N] [to=N] [type=WORD]
//	persist NODE                                 makes all writes durable
//	decide NODE                                  has the decision log answer, where there is one
//	tick [n=COUNT]                               lets time pass
//	settle [n=COUNT]                             does all of that until nothing is to be done, after COUNT ticks
//	crash NODE, start NODE
//	status NODE                                  prints what is under way
//	disk NODE                                    prints the store
type Stage[C Core[M, P], M, P fmt.Stringer] struct {
	// Nodes makes a world, for the command nodes.
	Nodes func(c Command[C, M, P], count int) *World[C, M, P]
	// Participants reads the participants of a commit, which are the argument by.
	Participants func(c Command[C, M, P]) []P
	// Status prints what is under way on a node.
	Status func(c Command[C, M, P], n *Node[C, M, P])
	// Own does a command that only this protocol has, and reports whether there is one of that name. disk is asked for as well, after
	// what the store has was printed.
	Own func(c Command[C, M, P]) bool

	World *World[C, M, P]
	Last  twophase.ID // the transaction that was begun last
}

// Command is a line of a script.
type Command[C Core[M, P], M, P fmt.Stringer] struct {
	*datadriven.TestData
	T     *testing.T
	Stage *Stage[C, M, P]
}

// RunScripts plays the scripts of testdata, each on a new stage. Run with -rewrite to write what the cores do into the scripts, and read the
// difference.
func RunScripts[C Core[M, P], M, P fmt.Stringer](t *testing.T, stage func() *Stage[C, M, P]) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if filepath.Ext(path) != ".txt" {
			return
		}
		s := stage()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out := s.exec(Command[C, M, P]{d, t, s})
			if s.World != nil {
				require.Empty(t, s.World.Broken)
			}
			return out
		})
	})
}

// Fail says that the script is wrong.
func (c Command[C, M, P]) Fail(format string, args ...any) { c.Fatalf(c.T, format, args...) }

// Print adds a line to what the command prints.
func (c Command[C, M, P]) Print(format string, args ...any) { c.Stage.World.Logf(format, args...) }

// Values returns the values of an argument.
func (c Command[C, M, P]) Values(argument string) []string {
	for _, a := range c.CmdArgs {
		if a.Key == argument {
			return a.Vals
		}
	}
	return nil
}

// Number reads a number.
func (c Command[C, M, P]) Number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		c.Fail("%v", err)
	}
	return n
}

// number returns the number of an argument, or a value if there is none.
func (c Command[C, M, P]) number(argument string, value uint64) uint64 {
	if v := c.Values(argument); len(v) == 1 {
		return c.Number(v[0])
	}
	return value
}

// Place reads a node and a resource.
func (c Command[C, M, P]) Place(text string) (node uint64, resource string) {
	before, resource, _ := strings.Cut(text, "/")
	return c.Number(before), resource
}

// Node returns the node that the command begins with.
func (c Command[C, M, P]) Node() *Node[C, M, P] {
	n := c.Stage.World.Nodes[c.Number(c.CmdArgs[0].Key)]
	if n == nil {
		c.Fail("no node %q", c.CmdArgs[0].Key)
	}
	return n
}

// resources returns the resources that an argument names.
func (c Command[C, M, P]) resources(argument string) (list []*Resource) {
	for _, v := range c.Values(argument) {
		node, resource := c.Place(v)
		list = append(list, c.Stage.World.Nodes[node].Resources[resource])
	}
	return list
}

// matches reports whether a command is about a message.
func (c Command[C, M, P]) matches(m M) bool {
	from, to, kind := c.Stage.World.protocol.Envelope(m)
	kinds := c.Values("type")
	return c.number("from", from) == from && c.number("to", to) == to && (kinds == nil || kinds[0] == kind.String())
}

// messages does something with all messages that a command is about.
func (c Command[C, M, P]) messages() {
	w := c.Stage.World
	found := false
	for range len(w.Net) {
		i := slices.IndexFunc(w.Net, c.matches)
		if i < 0 {
			break
		}
		found = true
		m := w.Net[i]
		if c.Cmd == "duplicate" {
			w.Net = append(w.Net, m)
			return
		}
		if c.Cmd == "drop" || !w.reaches(m) {
			from, to, _ := w.protocol.Envelope(m)
			c.Print("lost: %d to %d: %v", from, to, m)
		}
		if c.Cmd == "drop" {
			w.Net = slices.Delete(w.Net, i, i+1)
			continue
		}
		w.Deliver(i)
		c.Stage.Run()
	}
	if !found {
		c.Fail("no such message")
	}
}

// commit begins a transaction and commits it.
func (c Command[C, M, P]) commit() {
	s := c.Stage
	n := c.Node()
	s.Last = s.World.Begin(n.ID, s.Participants(c)...)
	for argument, v := range map[string]twophase.Vote{"no": twophase.VoteNo, "read-only": twophase.VoteReadOnly} {
		for _, r := range c.resources(argument) {
			r.Votes[s.Last] = v
		}
	}
	for _, r := range c.resources("own") {
		r.Heuristic[s.Last] = twophase.OutcomeAborted
	}
	s.World.Commit(s.Last)
	s.Run()
}

func (s *Stage[C, M, P]) exec(c Command[C, M, P]) string {
	if c.Cmd == "nodes" {
		s.World = s.Nodes(c, int(c.Number(c.CmdArgs[0].Key)))
		s.World.Loud, s.World.Script, s.World.DownFor = true, true, 1<<30
		s.World.Open()
		return "ok"
	}
	w := s.World
	w.Trace = nil
	empty := "ok"
	switch c.Cmd {
	case "commit":
		c.commit()
	case "net":
		for _, m := range w.Net {
			from, to, _ := w.protocol.Envelope(m)
			c.Print("%d to %d: %v", from, to, m)
		}
	case "deliver", "drop", "duplicate":
		c.messages()
	case "persist", "decide":
		n := c.Node()
		for s.World.First(func(a Action[C, M, P]) bool { return a.Node == n && waits(a) == c.Cmd }) {
			s.Run()
		}
	case "tick":
		for range c.number("n", 1) {
			w.Tick()
			s.Run()
		}
	case "settle":
		for range c.number("n", 1) {
			w.Settle()
			w.Tick()
		}
		w.Settle()
	case "crash":
		c.Node().Crash()
	case "start":
		c.Node().Start()
		s.Run()
	case "status":
		s.Status(c, c.Node())
		empty = "nothing is under way"
	case "disk":
		n := c.Node()
		b := new(storage.Batch)
		for _, k := range slices.Sorted(maps.Keys(n.Store)) {
			b.Set([]byte(k), n.Store[k])
		}
		for _, line := range w.protocol.Describe(b) {
			c.Print("%s", strings.TrimPrefix(line, "write "))
		}
		s.Own(c)
	default:
		if !s.Own(c) {
			c.Fail("unknown command")
		}
	}
	w.Trace = slices.DeleteFunc(w.Trace, func(line string) bool { return line == "tick" })
	if len(w.Trace) == 0 {
		return empty
	}
	return strings.Join(w.Trace, "\n")
}

// waits says which command an action waits for; "": none.
func waits[C Core[M, P], M, P fmt.Stringer](a Action[C, M, P]) string {
	switch {
	case a.Order == "write":
		return "persist"
	case strings.HasPrefix(a.What, "decide"):
		return "decide"
	}
	return ""
}

// Run does all that waits for nothing.
func (s *Stage[C, M, P]) Run() {
	for s.World.First(func(a Action[C, M, P]) bool { return waits(a) == "" }) {
	}
}
