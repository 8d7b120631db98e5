package twophase_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	. "github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/internal/twophase/commitmenttest"
)

type command = commitmenttest.Command[*Core, Message, Branch]

// TestScripts plays the scripts of testdata. The language is that of commitmenttest, and
//
//	nodes COUNT [one] [shared] [agent-forgets]   one: resources commit in one phase; shared: one decision log
//	commit …                                     * marks a last agent, + one with work
//	force NODE outcome=WORD                      an operator decides
func TestScripts(t *testing.T) {
	commitmenttest.RunScripts(t, func() *commitmenttest.Stage[*Core, Message, Branch] {
		var w *world
		return &commitmenttest.Stage[*Core, Message, Branch]{
			Nodes: func(c command, count int) *simulated {
				w = newWorld(count, c.HasArg("one"), c.HasArg("shared"))
				for _, n := range w.Nodes {
					for _, r := range n.Resources {
						r.Cannot = c.HasArg("agent-forgets")
					}
				}
				return w.simulated
			},
			Participants: func(c command) (list []Branch) {
				for _, v := range c.Values("by") {
					var b Branch
					v, work := strings.CutSuffix(v, "+")
					if work {
						b.Work = []byte("work")
					}
					v, b.LastAgent = strings.CutSuffix(v, "*")
					b.Node, b.Resource = c.Place(v)
					list = append(list, b)
				}
				return list
			},
			Status: status,
			Own: func(c command) bool {
				switch c.Cmd {
				case "force":
					force(c)
				case "disk":
					decided := maps.Values(w.decisions[c.Node().ID].decided)
					for _, d := range slices.SortedFunc(decided, func(a, b Decision) int { return a.ID.Compare(b.ID) }) {
						c.Print("decision %v %v", commitmenttest.Short(d.ID), d.Outcome)
					}
				default:
					return false
				}
				return true
			},
		}
	})
}

func force(c command) {
	o := OutcomeCommitted
	if slices.Contains(c.Values("outcome"), "aborted") {
		o = OutcomeAborted
	}
	n := c.Node()
	if err := n.Core.Force(c.Stage.Last, "a", o); err != nil {
		c.Print("%v", err)
		return
	}
	n.Work()
	c.Stage.Run()
}

func status(c command, n *node) {
	for _, x := range n.Core.Transactions() {
		c.Print("coordinates %v: %s, waits for %v%s", commitmenttest.Short(x.ID), x.Phase, x.Missing, map[bool]string{true: ", an operator must settle it"}[x.Unclear])
	}
	for _, x := range n.Core.InDoubt() {
		heard := "nothing"
		if x.Heard {
			heard = x.Answer.String()
		}
		c.Print("in doubt: %v %s, waits for node %d, which says %s, and %v", commitmenttest.Short(x.ID), x.Resource, x.ID.Node, heard, x.Peers)
	}
	for _, x := range n.Core.Damages() {
		c.Print("damage: %v %d/%s %v", commitmenttest.Short(x.ID), x.Node, x.Resource, x.Damage)
	}
}
