package threephase

import (
	"strings"
	"testing"

	"github.com/synod-go/synod/internal/twophase/commitmenttest"
)

type command = commitmenttest.Command[*Core, Message, Participant]

// TestScripts plays the scripts of testdata. The language is that of commitmenttest, and
//
//	nodes COUNT [skeen]
//	commit … [weights=(…)]   + marks a participant with work
//	terminate NODE           its branch stands for election at once
//	cut (NODE,…), heal       what is on its way between these nodes and the others is lost
func TestScripts(t *testing.T) {
	commitmenttest.RunScripts(t, func() *commitmenttest.Stage[*Core, Message, Participant] {
		return &commitmenttest.Stage[*Core, Message, Participant]{
			Nodes: func(c command, count int) *simulated {
				p := Enhanced
				if c.HasArg("skeen") {
					p = Skeen
				}
				return newWorld(count, p).simulated
			},
			Participants: func(c command) (list []Participant) {
				weights := c.Values("weights")
				for i, v := range c.Values("by") {
					var p Participant
					v, work := strings.CutSuffix(v, "+")
					if work {
						p.Work = []byte("work")
					}
					p.Node, p.Resource = c.Place(v)
					if i < len(weights) {
						p.Weight = uint32(c.Number(weights[i]))
					}
					list = append(list, p)
				}
				return list
			},
			Status: status,
			Own:    own,
		}
	})
}

func own(c command) bool {
	w := c.Stage.World
	switch c.Cmd {
	case "terminate":
		n := c.Node()
		if err := n.Core.Terminate(c.Stage.Last, "a"); err != nil {
			c.Print("%v", err)
			return true
		}
		n.Work()
		c.Stage.Run()
	case "cut":
		for _, v := range c.Values("nodes") {
			w.Side[c.Number(v)] = 1
		}
	case "heal":
		clear(w.Side)
	default:
		return false
	}
	return true
}

func status(c command, n *node) {
	for _, x := range n.Core.Transactions() {
		c.Print("coordinates %v: %s, waits for %v", short(x.ID), x.Phase, x.Missing)
	}
	for _, x := range n.Core.InDoubt() {
		switch {
		case x.Leading:
			c.Print("in doubt: %v %s, %v, leads, waits for %v", short(x.ID), x.Resource, x.State, x.Missing)
		case x.Heard:
			c.Print("in doubt: %v %s, %v, waits for node %d, which says %s, or for one of %v", short(x.ID), x.Resource, x.State, x.ID.Node, x.Answer, x.Peers)
		default:
			c.Print("in doubt: %v %s, %v, waits for node %d, which says nothing, or for one of %v", short(x.ID), x.Resource, x.State, x.ID.Node, x.Peers)
		}
	}
	for _, x := range n.Core.Unfinished() {
		c.Print("%s: %v, waits for %v", x.Phase, short(x.ID), x.Missing)
	}
	for _, x := range n.Core.Damages() {
		c.Print("damage: %v %d/%s %v", short(x.ID), x.Node, x.Resource, x.Damage)
	}
}
