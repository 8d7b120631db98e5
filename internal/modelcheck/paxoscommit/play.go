package paxoscommit

import (
	"fmt"
	"slices"
	"strconv"
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
	net      []packet
}

// packet is a message on its way; nodes are counted from 0 on.
type packet struct {
	from, to int
	body     []byte
}

func (p *packet) String() string {
	return fmt.Sprintf("%d to %d: %s", p.from+1, p.to+1, describe(p.body))
}

// words is a command: bare words, and names with values.
type words struct {
	bare  []string
	named map[string][]string
}

func parse(line string) words {
	w := words{named: map[string][]string{}}
	for _, word := range strings.Fields(line) {
		if name, value, ok := strings.Cut(word, "="); ok {
			w.named[name] = strings.Split(strings.Trim(value, "()"), ",")
		} else {
			w.bare = append(w.bare, word)
		}
	}
	return w
}

// at returns a bare word; "": there is none.
func (w *words) at(i int) string {
	if i >= len(w.bare) {
		return ""
	}
	return w.bare[i]
}

// numbers returns the values of a name.
func (w *words) numbers(name string) (list []uint32) {
	for _, v := range w.named[name] {
		n, _ := strconv.ParseUint(v, 10, 32)
		list = append(list, uint32(n))
	}
	return list
}

// number returns the value of a name; 0: there is none.
func (w *words) number(name string) int {
	for _, n := range w.numbers(name) {
		return int(n)
	}
	return 0
}

func (p *Player) start(m *Model) {
	*p = Player{model: m, observer: newObserver(m)}
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
	w := parse(line)
	fail := func(format string, args ...any) (string, error, error) {
		return "", nil, fmt.Errorf("paxoscommit: %q: %s", line, fmt.Sprintf(format, args...))
	}
	if w.at(0) == "groups" {
		groups, _ := strconv.Atoi(w.at(1))
		m := &Model{Groups: groups, Recoverers: w.number("recoverers"), Refusing: w.numbers("refusing"), Seen: w.number("seen")}
		if slices.Contains(w.bare, "expiring") {
			m.Expirations = 1
		}
		if slices.Contains(w.bare, "filling") {
			m.Full = 1
		}
		if groups < 1 || groups+1+m.Recoverers > network.MaxNodes {
			return fail("at least one group, at most %d with the client and recoverers", network.MaxNodes)
		}
		p.start(m)
		return "", nil, nil
	}
	if p.model == nil {
		return fail("it begins with groups")
	}
	var text strings.Builder
	var out network.Output
	at := p.model.Groups
	c := p.client()
	switch w.at(0) {
	case "drop":
		p.net = slices.DeleteFunc(p.net, func(x packet) bool { return x.fits(&w) })
		return "", nil, nil
	case "settle":
		var kept []packet
		for len(p.net) > 0 {
			x := p.net[0]
			p.net = p.net[1:]
			if sighting := decode(x.body).kind == found; sighting || w.at(1) == "again" {
				kept = append(kept, x)
				if sighting {
					continue
				}
			}
			if violation := p.deliver(x, &text); violation != nil {
				return text.String(), violation, nil
			}
		}
		p.net = kept
		return text.String(), nil, nil
	case "deliver", "duplicate":
		i := p.pick(&w)
		if i < 0 {
			return fail("no such message is on its way")
		}
		x := p.net[i]
		if w.at(0) == "duplicate" {
			p.net = append(p.net, x)
			return "", nil, nil
		}
		p.net = slices.Delete(p.net, i, i+1)
		violation := p.deliver(x, &text)
		return text.String(), violation, nil
	case "begin":
		t := Transaction{Session: w.number("session"), Groups: w.numbers("by")}
		known := func(g uint32) bool { return g >= 1 && int(g) <= p.model.Groups }
		if t.Session < 1 || t.Session > MaxSessions || len(t.Groups) == 0 || slices.ContainsFunc(t.Groups, func(g uint32) bool { return !known(g) }) || len(c.attempts) == MaxTransactions {
			return fail("at most %d transactions, of %d sessions, over groups that are there", MaxTransactions, MaxSessions)
		}
		if len(c.attempts) == len(p.model.Transactions) {
			p.model.Transactions = append(p.model.Transactions, t)
		}
		c.begin(slices.Contains(w.bare, "short"), &out)
	case "give-up":
		i := slices.IndexFunc(c.attempts, func(a *attempt) bool { return a.c != nil && !a.answered && shorten(a.c.ID()) == w.at(1) })
		if i < 0 {
			return fail("nobody waits for it")
		}
		c.giveUp(c.attempts[i], &out)
	case "expire", "fill", "empty":
		g, _ := strconv.Atoi(w.at(1))
		if g < 1 || g > p.model.Groups {
			return fail("no such group")
		}
		at = g - 1
		in := network.Input{Kind: map[string]int{"expire": expire, "fill": fill, "empty": empty}[w.at(0)], Arg: w.number("before")}
		p.nodes[at].Take(in, 0, &out)
	default:
		return fail("unknown command")
	}
	violation = p.carryOut(at, &out, &text)
	return text.String(), violation, nil
}

// deliver brings a message to its receiver.
func (p *Player) deliver(x packet, text *strings.Builder) error {
	var out network.Output
	fmt.Fprintf(text, "%v\n", &x)
	p.nodes[x.to].Deliver(x.from, x.body, false, &out)
	return p.carryOut(x.to, &out, text)
}

// pick returns the place of the message that a command names; -1: there is none.
func (p *Player) pick(w *words) int {
	nth := max(w.number("nth"), 1)
	for i := range p.net {
		if p.net[i].fits(w) {
			if nth--; nth == 0 {
				return i
			}
		}
	}
	return -1
}

// fits reports whether a message is one of those that a command names.
func (p *packet) fits(w *words) bool {
	is := func(name, value string) bool { return w.named[name] == nil || slices.Contains(w.named[name], value) }
	return is("from", strconv.Itoa(p.from+1)) && is("to", strconv.Itoa(p.to+1)) && is("type", decode(p.body).kind.String())
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
			fmt.Fprintf(text, "send %v\n", &packet{at, x.To, x.Body})
		}
	}
}

// carryOut prints what a node has done, and brings its messages on their way.
func (p *Player) carryOut(at int, out *network.Output, text *strings.Builder) (violation error) {
	tell(text, p.model, at, out)
	for _, x := range out.Messages {
		p.net = append(p.net, packet{at, x.To, x.Body})
	}
	violation = out.Violation
	for _, fact := range out.Facts {
		if violation == nil {
			violation = p.observer.Observe(fact)
		}
	}
	if violation != nil {
		first, _, _ := strings.Cut(violation.Error(), "\n")
		fmt.Fprintf(text, "VIOLATION: %s\n", first)
	}
	return violation
}

// Play implements network.Model. At the end it is looked whether everything ends, once nothing fails any more.
func (m *Model) Play(lines []string) (string, error) {
	var p Player
	var text strings.Builder
	for i, line := range lines {
		if strings.HasPrefix(line, "#") {
			fmt.Fprintf(&text, "%s\n", line)
			continue
		}
		printed, violation, err := p.Exec(line)
		if err != nil {
			return text.String(), err
		}
		fmt.Fprintf(&text, "%s\n----\n%s", line, printed)
		if violation == nil && i == len(lines)-1 {
			var end strings.Builder
			if violation = p.model.healsAloud(p.nodes, p.observer, &end); violation != nil {
				first, _, _ := strings.Cut(violation.Error(), "\n")
				fmt.Fprintf(&text, "From here on nothing fails:\n%sVIOLATION: %s\n", &end, first)
			}
		}
		text.WriteString("\n")
		if violation != nil {
			break
		}
	}
	return strings.TrimRight(text.String(), "\n") + "\n", nil
}
