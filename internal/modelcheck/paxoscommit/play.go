package paxoscommit

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/synod-go/synod/internal/modelcheck/network"
	core "github.com/synod-go/synod/internal/paxoscommit"
)

// Player plays a script, step by step: it does not explore.
//
//	groups COUNT recoverers=COUNT [refusing=(GROUP,…)] [seen=COUNT] [expiring] [filling]
//	begin by=(GROUP,…) session=N [short]     short: the last group is not asked, for certain
//	give-up TX
//	expire GROUP before=TIME
//	fill GROUP                               it has no room for more sessions
//	empty GROUP                              it has again
//	deliver from=N to=N type=WORD [nth=K]
//	duplicate from=N to=N type=WORD [nth=K]
//	drop [from=N] [to=N] [type=WORD]         all such messages
//	settle [again]                           messages arrive, in their order, until there is none; but nobody sees what is unfinished.
//	                                         again: they may come once more
//
// Each command prints what is sent, how groups vote, what they learn and forget, what is answered; and what is violated. The client is the
// node behind the last group, recoverers are those behind the client. A transaction is named by its session and its number there.
type Player struct {
	model    *Model
	nodes    []network.Node
	observer *observer
	stage    network.Stage
}

// groups returns the values of a name as numbers of groups; 0 stands for what is none.
func groups(c *network.Command, name string) (list []uint32) {
	for _, n := range c.Numbers(name) {
		if n > math.MaxUint32 {
			n = 0
		}
		list = append(list, uint32(n))
	}
	return list
}

func (p *Player) start(m *Model) {
	o := newObserver(m)
	*p = Player{model: m, observer: o, stage: network.Stage{Describe: m.Describe, Observer: o}}
	for g := range m.Groups {
		p.nodes = append(p.nodes, newGroup(m, uint32(g+1)))
	}
	p.nodes = append(p.nodes, newClient(m))
	for range m.Recoverers {
		p.nodes = append(p.nodes, newRecoverer(m))
	}
}

func (p *Player) client() *client { return p.nodes[p.model.Groups].(*client) }

// Exec plays a command and returns what is printed. violation says what is violated; err, that the command can't be
// carried out.
func (p *Player) Exec(line string) (printed string, violation, err error) {
	return network.Exec("paxoscommit", line, p.exec)
}

func (p *Player) exec(c *network.Command, text *strings.Builder) (violation, err error) {
	if c.Word(0) == "groups" {
		m := &Model{Groups: int(min(c.WordNumber(1), network.MaxNodes+1)), Recoverers: c.Int("recoverers"), Refusing: groups(c, "refusing"), Seen: c.Int("seen")}
		if c.Has("expiring") {
			m.Expirations = 1
		}
		if c.Has("filling") {
			m.Full = 1
		}
		if m.Groups < 1 || m.Groups+1+m.Recoverers > network.MaxNodes {
			return nil, fmt.Errorf("at least one group, at most %d with the client and recoverers", network.MaxNodes)
		}
		p.start(m)
		return nil, nil
	}
	if p.model == nil {
		return nil, errors.New("it begins with groups")
	}
	var out network.Output
	known, violation, err := p.stage.Carry(c, func(x network.Waiting) error { return p.deliver(x, text) })
	if known {
		return violation, err
	}
	at := p.model.Groups
	client := p.client()
	switch c.Word(0) {
	case "settle":
		var kept []network.Waiting
		for len(p.stage.Waiting) > 0 {
			x := p.stage.Waiting[0]
			p.stage.Waiting = p.stage.Waiting[1:]
			if sighting := decode(x.Body).kind == found; sighting || c.Word(1) == "again" {
				kept = append(kept, x)
				if sighting {
					continue
				}
			}
			if violation := p.deliver(x, text); violation != nil {
				return violation, nil
			}
		}
		p.stage.Waiting = kept
		return nil, nil
	case "begin":
		t := Transaction{Session: c.Int("session"), Groups: groups(c, "by")}
		missing := func(g uint32) bool { return g < 1 || int64(g) > int64(p.model.Groups) }
		if t.Session < 1 || t.Session > MaxSessions || len(t.Groups) == 0 || slices.ContainsFunc(t.Groups, missing) || len(client.attempts) == MaxTransactions {
			return nil, fmt.Errorf("at most %d transactions, of %d sessions, over groups that are there", MaxTransactions, MaxSessions)
		}
		if len(client.attempts) == len(p.model.Transactions) {
			p.model.Transactions = append(p.model.Transactions, t)
		}
		client.begin(c.Has("short"), &out)
	case "give-up":
		i := slices.IndexFunc(client.attempts, func(a *attempt) bool { return a.c != nil && !a.answered && shorten(a.c.ID()) == c.Word(1) })
		if i < 0 {
			return nil, errors.New("nobody waits for it")
		}
		client.giveUp(client.attempts[i], &out)
	case "expire", "fill", "empty":
		g := c.WordNumber(1)
		if g < 1 || g > uint64(p.model.Groups) {
			return nil, errors.New("no such group")
		}
		at = int(g - 1)
		in := network.Input{Kind: map[string]int{"expire": expire, "fill": fill, "empty": empty}[c.Word(0)], Arg: c.Int("before")}
		p.nodes[at].Take(in, 0, &out)
	default:
		return nil, errors.New("unknown command")
	}
	return p.carryOut(at, &out, text), nil
}

// deliver brings a message to its receiver.
func (p *Player) deliver(x network.Waiting, text *strings.Builder) error {
	var out network.Output
	fmt.Fprintf(text, "%s\n", x.Show(p.model.Describe))
	p.nodes[x.To].Deliver(x.From, x.Body, false, &out)
	return p.carryOut(x.To, &out, text)
}

// tell prints what a node has done.
func tell(text *strings.Builder, m *Model, at int, out *network.Output) {
	ending := func(outcome core.Outcome, timestamp uint64) string {
		if outcome == core.Committed {
			return fmt.Sprintf("committed at %d", timestamp)
		}
		return outcome.String()
	}
	for _, fact := range out.Facts {
		switch f := fact.(type) {
		case wrote:
			fmt.Fprintf(text, "group %d: %s %s\n", f.Group, shorten(f.ID), core.Record{Vote: f.Vote, Timestamp: f.Timestamp})
		case learned:
			fmt.Fprintf(text, "group %d: %s %s\n", f.Group, shorten(f.ID), ending(f.Outcome, f.Timestamp))
		case told:
			fmt.Fprintf(text, "group %d: %s finished\n", f.Group, shorten(f.ID))
		case forgot:
			fmt.Fprintf(text, "group %d: %s forgotten\n", f.Group, shorten(f.ID))
		case contradicted:
			fmt.Fprintf(text, "group %d: %s contradicted: %s\n", f.Group, shorten(f.ID), f.Outcome)
		case answered:
			fmt.Fprintf(text, "answer: %s %s\n", shorten(f.ID), ending(f.Outcome, f.Timestamp))
		}
	}
	for _, x := range out.Messages {
		if x.To <= m.Groups+m.Recoverers {
			network.PrintSent(text, m.Describe, at, []network.Message{x})
		}
	}
}

// carryOut prints what a node has done, and brings its messages on their way.
func (p *Player) carryOut(at int, out *network.Output, text *strings.Builder) (violation error) {
	tell(text, p.model, at, out)
	return p.stage.Take(at, out, text)
}

// Play implements network.Model. At the end it is looked whether everything ends, once nothing fails any more.
func (m *Model) Play(lines []string) (string, error) {
	var p Player
	return network.Play(lines, p.Exec, func(text *strings.Builder) error { return p.model.healsAloud(p.nodes, p.observer, text) })
}
