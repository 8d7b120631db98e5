package paxos

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/modelcheck/network"
	"github.com/synod-go/synod/internal/multipaxos"
	"github.com/synod-go/synod/internal/replica"
)

// Model is what is explored, and within which bounds.
type Model struct {
	Name string
	For  string // what is looked at

	Voters int // nodes 1 to Voters begin the group
	Spares int // those behind belong to no configuration yet
	Slots  int // that may have values: a leader's first, too; 2 is the first slot of a group

	// How often something may happen in a run.
	Ballots   int // elections are begun
	Values    int // a leader proposes: "a", then "b", …
	Crashes   int // a node loses what is not durable, and starts again
	Lags      int // what is written is not durable before the next input
	Ticks     int // a node's time passes, by one unit
	Reads     int
	Transfers int
	Trims     int // a snapshot is made, and what it holds is cut from the log
	Damages   int // a record on a disk is altered, or removed, while its node does not run
	Rejoins   int // a replica is removed from its node, and joins anew

	Changes []Change // of the configuration, that a leader may begin

	// Who may do so; nil: all.
	Candidates []uint64 // stand for election
	Crashing   []uint64 // crash, be damaged, leave
	Readers    []uint64

	Lost []string // kinds of messages that are never delivered

	// Before is a script that has happened before. What it delivers or drops is not delivered again.
	Before []string

	// Durable says that the state machine is durable as soon as it has applied something, before the log may be.
	Durable bool

	// Refused says that nothing can be explored: the group is refused when it is to begin.
	Refused bool

	Leases        bool
	ElectionTicks int // default: 1
	MessageBytes  int // default: as many as there are
	Phase1        int // size of a quorum, with Phase2; default: a majority
	Phase2        int

	founded string // the founders' configuration

	// plain is set by tests: then nothing that differs is taken for the same, so that more states are told apart.
	plain bool
}

// plain is a node that says nothing of what does not matter to it.
type plain struct{ network.Node }

// Clone implements network.Node.
func (p plain) Clone() network.Node { return plain{p.Node.Clone()} }

// Change is a step from one configuration to the next.
type Change struct{ From, To Configuration }

// Configuration names its members.
type Configuration struct{ Voters, Outgoing, Learners []uint64 }

func (c Configuration) encode() []byte {
	var conf replica.Configuration
	part := func(nodes []uint64, set func(*replica.Participant)) {
		for _, node := range nodes {
			i := slices.IndexFunc(conf.Members, func(p replica.Participant) bool { return p.Node == node })
			if i < 0 {
				i = len(conf.Members)
				conf.Members = append(conf.Members, replica.Participant{Member: synod.Member{Node: node}})
			}
			set(&conf.Members[i])
		}
	}
	part(c.Voters, func(p *replica.Participant) { p.Voter = true })
	part(c.Outgoing, func(p *replica.Participant) { p.Outgoing = true })
	part(c.Learners, func(p *replica.Participant) { p.Learner = true })
	slices.SortFunc(conf.Members, func(a, b replica.Participant) int { return int(a.Node) - int(b.Node) })
	return conf.Append(nil)
}

// String shows the configuration as a script has it.
func (c Configuration) String() string {
	var words []string
	for _, part := range []struct {
		name  string
		nodes []uint64
	}{{"voters", c.Voters}, {"outgoing", c.Outgoing}, {"learners", c.Learners}} {
		if len(part.nodes) > 0 {
			words = append(words, fmt.Sprintf("%s=(%s)", part.name, network.List(part.nodes)))
		}
	}
	return strings.Join(words, " ")
}

// Numbers of the budgets.
const (
	ballots = iota
	values
	crashes
	lags
	ticks
	reads
	transfers
	trims
	damages
	rejoins
	changes
)

func (m *Model) budgets() []network.Budget {
	return []network.Budget{
		ballots:   {Name: "ballots", Limit: m.Ballots, Free: true},
		values:    {Name: "values", Limit: m.Values}, // their names tell how many there were
		crashes:   {Name: "crashes", Limit: m.Crashes, Free: true},
		lags:      {Name: "lags", Limit: m.Lags, Free: true},
		ticks:     {Name: "ticks", Limit: m.Ticks, Free: true},
		reads:     {Name: "reads", Limit: m.Reads}, // and their numbers
		transfers: {Name: "transfers", Limit: m.Transfers, Free: true},
		trims:     {Name: "trims", Limit: m.Trims, Free: true},
		damages:   {Name: "damages", Limit: m.Damages, Free: true},
		rejoins:   {Name: "rejoins", Limit: m.Rejoins, Free: true},
		changes:   {Name: "changes", Limit: len(m.Changes), Free: true},
	}
}

func (m *Model) protocol() multipaxos.Protocol {
	return multipaxos.Protocol{Quorums: multipaxos.Quorums{Phase1: m.Phase1, Phase2: m.Phase2}}
}

func (m *Model) founders() Configuration {
	var c Configuration
	for i := range m.Voters {
		c.Voters = append(c.Voters, uint64(i+1))
	}
	return c
}

// may reports whether a node is one of those who may do something.
func may(who []uint64, node uint64) bool { return who == nil || slices.Contains(who, node) }

// quorum reports whether so many have voted for a value that it is chosen, where the proposer has had
// a configuration in effect. Bit i stands for node i+1.
func (m *Model) quorum(voters uint64, config string) bool {
	if config == "" {
		config = m.founded
	}
	conf, err := replica.DecodeConfiguration([]byte(config))
	if err != nil {
		return false
	}
	half := func(member func(replica.Participant) bool) bool {
		var all uint64
		for _, p := range conf.Members {
			if member(p) {
				all |= 1 << (p.Node - 1)
			}
		}
		n, of := bits.OnesCount64(voters&all), bits.OnesCount64(all)
		if m.Phase2 > 0 {
			return n >= m.Phase2
		}
		return 2*n > of
	}
	return half(func(p replica.Participant) bool { return p.Voter }) && (!conf.Joint() || half(func(p replica.Participant) bool { return p.Outgoing }))
}

// changing reports whether configurations change.
func (m *Model) changing() bool {
	return len(m.Changes) > 0 || slices.ContainsFunc(m.Before, func(line string) bool { return strings.HasPrefix(line, "reconfigure") })
}

// timeless reports whether no time passes.
func (m *Model) timeless() bool { return m.Ticks == 0 && !m.plain }

// fixed reports whether no time passes, and neither a configuration nor a snapshot comes.
func (m *Model) fixed() bool { return m.timeless() && !m.changing() && m.Trims == 0 }

// crashing reports whether a node may restart.
func (m *Model) crashing(node uint64) bool {
	return may(m.Crashing, node) && m.Crashes+m.Damages+m.Rejoins > 0
}

// Bounds says within which bounds the model is explored.
func (m *Model) Bounds() string {
	words := []string{fmt.Sprintf("%d nodes, %d slots", m.Voters+m.Spares, m.Slots)}
	for _, b := range m.budgets() {
		if b.Limit > 0 {
			words = append(words, fmt.Sprintf("%d %s", b.Limit, b.Name))
		}
	}
	for _, who := range []struct {
		what  string
		nodes []uint64
	}{{"candidates", m.Candidates}, {"crashing", m.Crashing}, {"readers", m.Readers}} {
		if who.nodes != nil {
			words = append(words, who.what+" "+network.List(who.nodes))
		}
	}
	if m.Durable {
		words = append(words, "durable state machines")
	}
	if len(m.Before) > 0 {
		words = append(words, fmt.Sprintf("%d commands before", len(m.Before)))
	}
	if m.Leases {
		words = append(words, fmt.Sprintf("leases of %d ticks", max(m.ElectionTicks, 1)))
	}
	if m.MessageBytes > 0 {
		words = append(words, fmt.Sprintf("%d bytes a message", m.MessageBytes))
	}
	if m.Phase1 > 0 {
		words = append(words, fmt.Sprintf("quorums of %d and %d", m.Phase1, m.Phase2))
	}
	if m.fixed() {
		words = append(words, "late promises lost")
	}
	if len(m.Lost) > 0 {
		words = append(words, "without "+strings.Join(m.Lost, ", "))
	}
	return strings.Join(words, ", ")
}

// bootstrap is the first line of a script.
func (m *Model) bootstrap() string {
	line := fmt.Sprintf("bootstrap voters=%d", m.Voters)
	if m.Spares > 0 {
		line += fmt.Sprintf(" spare=%d", m.Spares)
	}
	line += fmt.Sprintf(" election=%d heartbeat=1", max(m.ElectionTicks, 1))
	if m.Leases {
		line += " leases"
	}
	if m.MessageBytes > 0 {
		line += fmt.Sprintf(" message=%d", m.MessageBytes)
	}
	if m.Durable {
		line += " durable"
	}
	if m.Phase1 > 0 {
		line += fmt.Sprintf(" phase1=%d phase2=%d", m.Phase1, m.Phase2)
	}
	return line
}

// Label implements network.Model.
func (m *Model) Label() string { return m.Name }

// About implements network.Model.
func (m *Model) About() string { return m.For }

// Begin implements network.Model.
func (m *Model) Begin() []string { return append([]string{m.bootstrap()}, m.Before...) }

// Describe implements network.Model.
func (m *Model) Describe(from, _ int, body []byte) string { return describe(uint64(from+1), body) }

// New implements network.Model.
func (m *Model) New(planted bool) (*network.Network, error) {
	lost := m.Lost
	m.Lost = nil // before that nothing was lost but what the script says
	defer func() { m.Lost = lost }()
	var p Player
	err := p.start(m)
	var config *synod.ConfigError
	switch {
	case m.Refused && errors.As(err, &config):
		return nil, fmt.Errorf("%w: %w", network.ErrRefused, err)
	case m.Refused && err == nil && !planted:
		return nil, fmt.Errorf("paxos: model %s: it is not refused", m.Name)
	}
	for _, line := range m.Before {
		if err == nil {
			var violation error
			_, violation, err = p.Exec(line)
			err = errors.Join(err, violation)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("paxos: model %s: %w", m.Name, err)
	}
	c := network.Config{Observer: p.observer, Waiting: p.stage.Waiting, Budgets: m.budgets(), Restarts: []int{crashes, damages, rejoins}, Late: crashes, Planted: planted, Describe: m.Describe, Restarting: func(node int) bool { return m.crashing(uint64(node + 1)) }}
	if m.Lags > 0 {
		c.Late = lags
	}
	for _, n := range p.nodes {
		if m.plain {
			c.Nodes = append(c.Nodes, plain{n})
		} else {
			c.Nodes = append(c.Nodes, n)
		}
	}
	for i := range c.Budgets {
		c.Budgets[i].Free = c.Budgets[i].Free && !m.plain
	}
	return network.New(c)
}
