package script

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

// Group is the group that every script is about.
const Group = 1

// Engine is a protocol, and how people read what it does. Log, Sent and Check may be nil.
type Engine struct {
	// Protocol makes the protocol of a node, of the arguments of bootstrap.
	Protocol func(bootstrap *Command, node uint64) (replica.Protocol, error)

	// Manual: the output is collected by ready, and what is decided is acknowledged by applied, where the
	// script says so.
	Manual bool

	// Message says in words what a message holds. The first word is its type.
	Message func(from, to uint64, body []byte) string

	// Key names a record's key; Record says what a record holds.
	Key    func(key []byte) string
	Record func(key, value []byte) string

	// State says what a core is, in some words: it is printed whenever it changes.
	State func(c replica.Core, out *replica.Output) string

	// Status says all that there is to say of a core.
	Status func(c replica.Core, applied uint64) string

	// Log says what a core's log holds, a line each, where Status does not.
	Log func(c replica.Core) []string

	// Sent looks at a message that leaves.
	Sent func(r *Runner, m Message)

	// Check looks for what must never be, after every command, and calls Violation.
	Check func(r *Runner)
}

// Runner plays a script. Not for concurrent use.
type Runner struct {
	engine   Engine
	command  Command
	out      strings.Builder
	indent   string
	quiet    bool
	violated []string

	options replica.OpenOptions
	nodes   map[uint64]*node
	net     []Message

	// What must hold.
	onDisk  bool              // state machines keep their state on disk
	boot    entry             // before all that is decided
	decided map[uint64]entry  // by index
	lost    map[string]uint64 // values that were said to be lost, with the index that said so
	highest uint64            // index that was handed out, or that a leader took for decided
	reads   map[replica.ReadID]uint64
}

// entry is what was decided in an index.
type entry struct {
	at     replica.Position
	kind   replica.EntryKind
	value  string
	config []byte // in effect from here on
}

// New returns a Runner for one script.
func New(e Engine) *Runner { return &Runner{engine: e} }

// Exec plays one command and returns what is printed. The error says that it can't be carried out; the script
// is wrong then, not the protocol.
func (r *Runner) Exec(line string) (printed string, err error) {
	if r.command, err = ParseCommand(line); err != nil {
		return "", err
	}
	r.out.Reset()
	r.quiet, r.indent = false, ""
	if err := r.carryOut(); err != nil {
		return r.out.String(), err
	}
	r.quiet, r.indent = false, ""
	if r.engine.Check != nil {
		r.engine.Check(r)
	}
	return r.out.String(), nil
}

func (r *Runner) carryOut() (err error) {
	defer func() {
		switch v := recover().(type) {
		case nil, idle:
		case malformed:
			err = v.error
		default:
			panic(v)
		}
	}()
	r.run()
	return nil
}

// Violation prints that something is what it must never be, once.
func (r *Runner) Violation(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if slices.Contains(r.violated, text) {
		return
	}
	quiet := r.quiet
	r.quiet = false
	r.printf("VIOLATION: %s", text)
	r.violated = append(r.violated, text)
	r.quiet = quiet
}

// Violations returns what was broken so far.
func (r *Runner) Violations() []string { return r.violated }

// Nodes returns the nodes, ascending.
func (r *Runner) Nodes() []uint64 { return slices.Sorted(maps.Keys(r.nodes)) }

// Core returns the core of a node; nil if it is down.
func (r *Runner) Core(node uint64) replica.Core { return r.nodes[node].core }

// Store returns the store of a node.
func (r *Runner) Store(node uint64) *memory.Store { return r.nodes[node].store }

// Pending returns how many batches of a node wait for persist.
func (r *Runner) Pending(node uint64) int { return len(r.nodes[node].batches) }

// Applied returns what the state machine of a node has applied: the commands, and up to which index.
func (r *Runner) Applied(node uint64) (commands []string, index uint64) {
	s := &r.nodes[node].state
	return slices.Clone(s.values), s.Index
}

// Visible reports whether a node's store shows what is not durable yet.
func (r *Runner) Visible(node uint64) bool {
	n := r.nodes[node]
	return len(n.batches) > 0 && n.batches[0].visible
}

// Messages returns those on their way, in the order of net. The bytes are not to be changed.
func (r *Runner) Messages() []Message { return slices.Clone(r.net) }

// Decided returns what was handed out so far for an index.
func (r *Runner) Decided(index uint64) (value string, ok bool) {
	e, ok := r.decided[index]
	return e.value, ok
}

func (r *Runner) printf(format string, args ...any) {
	if !r.quiet {
		fmt.Fprintf(&r.out, r.indent+format+"\n", args...)
	}
}

func (r *Runner) node(id uint64) *node {
	n := r.nodes[id]
	if n == nil {
		r.command.fail("there is no node %d", id)
	}
	return n
}

// first returns the node of the first argument, which is up.
func (r *Runner) first() *node {
	n := r.node(r.command.bare(0))
	n.mustRun()
	return n
}

// idle is the panic of a command to a node that is down: it does nothing.
type idle struct{}

// mustRun ends the command if the node is down.
func (n *node) mustRun() {
	if n.core == nil {
		n.runner.quiet = false
		n.runner.printf("node %d is down", n.id)
		panic(idle{})
	}
}

func (r *Runner) run() {
	c := &r.command
	if c.Name != "bootstrap" && r.nodes == nil {
		c.fail("it begins with bootstrap")
	}
	switch c.Name {
	case "bootstrap":
		r.bootstrap()
	case "campaign":
		n := r.first()
		n.input(n.core.Campaign)
	case "tick":
		r.tick()
	case "propose":
		n := r.first()
		n.input(func() {
			for _, value := range c.words()[1:] {
				if err := n.core.Propose([]byte(value)); err != nil {
					r.printf("%s: %v", value, err)
					continue
				}
				n.mine[value] = n.term
			}
		})
	case "reconfigure":
		n := r.first()
		n.input(func() {
			if err := n.core.Reconfigure(r.configuration()); err != nil {
				r.printf("%v", err)
			}
		})
	case "ready":
		n := r.first()
		n.attempt(func() {
			if !n.ready() {
				r.printf("nothing")
			}
		})
	case "persist":
		n := r.first()
		n.attempt(func() { n.persist(int(c.Number("n", 1<<20))) })
	case "write":
		n := r.first()
		n.store.HoldSync()
		for i := range n.batches {
			if b := &n.batches[i]; !b.visible {
				n.store.CommitAsync(&b.batch, func(error) {})
				b.visible = true
			}
		}
	case "applied":
		n := r.first()
		n.attempt(func() { n.applied(c.Number("to", 1<<62)) })
	case "net":
		for _, m := range r.net {
			r.printf("%s", r.describe(m))
		}
		if len(r.net) == 0 {
			r.printf("nothing")
		}
	case "deliver":
		r.each(func(m Message) {
			r.printf("%s", r.describe(m))
			r.deliver(m)
		})
	case "drop":
		r.each(func(m Message) {
			r.printf("%s", r.describe(m))
			r.lose(m)
		})
	case "duplicate":
		var again []Message
		r.each(func(m Message) { again = append(again, m, m) })
		r.net = append(r.net, again...)
	case "settle":
		r.settle()
	case "crash":
		n := r.node(c.bare(0))
		n.crash()
		if !c.Has("down") {
			n.start(false)
		}
	case "start":
		n := r.node(c.bare(0))
		if n.core != nil {
			c.fail("node %d is up", n.id)
		}
		n.start(c.Has("held"))
	case "trust":
		n := r.first()
		n.input(n.core.Trust)
	case "damage":
		r.node(c.bare(0)).damage()
	case "leave":
		n := r.node(c.bare(0))
		n.rewrite(func(b *storage.Batch) error { return n.protocol.Leave(replica.GroupKeys(Group), n.store, b) })
	case "join":
		n := r.node(c.bare(0))
		if n.core != nil {
			c.fail("node %d has a replica", n.id)
		}
		n.rewrite(func(b *storage.Batch) error { return n.protocol.Join(replica.GroupKeys(Group), n.store, b) })
		n.start(false)
	case "snapshot":
		n := r.first()
		if n.state.Index == 0 {
			c.fail("node %d has applied nothing", n.id)
		}
		n.snapshot()
	case "compact":
		r.compact(r.first(), c.bare(1))
	case "read":
		n := r.first()
		id := replica.ReadID{Boot: n.id, Attempt: c.bare(1)}
		r.reads[id] = r.highest
		n.input(func() { n.core.Read(id) })
	case "transfer":
		n := r.first()
		n.input(func() { n.core.Transfer(c.Number("to", 0)) })
	case "unreachable":
		n := r.first()
		n.input(func() { n.core.Unreachable(c.Number("peer", 0)) })
	case "status":
		ids := r.Nodes()
		if len(c.words()) > 0 {
			ids = nil
			for i := range c.words() {
				ids = append(ids, c.bare(i))
			}
		}
		for _, id := range ids {
			r.node(id).status()
		}
	case "log":
		n := r.first()
		if r.engine.Log == nil {
			c.fail("status says it for this engine")
		}
		for _, line := range r.engine.Log(n.core) {
			r.printf("%s", line)
		}
	case "disk":
		r.node(c.bare(0)).disk()
	default:
		c.fail("unknown command")
	}
}

func (r *Runner) bootstrap() {
	c := &r.command
	r.options = replica.OpenOptions{
		Logger:         slog.New(slog.DiscardHandler),
		ElectionTicks:  int(c.Number("election", 10)),
		HeartbeatTicks: int(c.Number("heartbeat", 1)),
		Leases:         c.Has("leases"),
		MessageBytes:   c.Number("message", 1<<20),
		InflightBytes:  c.Number("inflight", 1<<24),
		PendingBytes:   c.Number("pending", 1<<20),
		ApplyBytes:     c.Number("apply", 1<<20),
		CacheBytes:     c.Number("cache", 1<<20),
	}
	*r = Runner{engine: r.engine, command: r.command, options: r.options, nodes: map[uint64]*node{}, decided: map[uint64]entry{}, lost: map[string]uint64{}, reads: map[replica.ReadID]uint64{}, violated: r.violated}
	c = &r.command
	var members []synod.Member
	voters := c.Number("voters", 3)
	for id := range voters {
		members = append(members, synod.Member{Node: id + 1})
	}
	config := replica.NewConfiguration(members).Append(nil)
	r.boot.config = config
	r.onDisk = c.Has("durable")
	for id := uint64(1); id <= voters+c.Number("spare", 0); id++ {
		p, err := r.engine.Protocol(c, id)
		if err != nil {
			r.printf("refused: %v", err)
			continue
		}
		n := &node{runner: r, id: id, protocol: p, store: memory.Open(memory.Config{})}
		r.nodes[id] = n
		var b storage.Batch
		if id <= voters {
			err = p.Bootstrap(replica.GroupKeys(Group), config, &b)
		} else {
			err = p.Join(replica.GroupKeys(Group), n.store, &b)
		}
		if err == nil {
			err = n.store.Commit(&b)
		}
		if err == nil {
			err = n.open(false)
		}
		if err != nil {
			r.printf("node %d: refused: %v", id, err)
			n.core = nil
			continue
		}
		n.settleState()
	}
}

// configuration makes the one that a reconfigure describes.
func (r *Runner) configuration() []byte {
	c := &r.command
	var conf replica.Configuration
	part := func(name string, set func(*replica.Participant)) {
		for _, node := range c.Numbers(name) {
			i := slices.IndexFunc(conf.Members, func(p replica.Participant) bool { return p.Node == node })
			if i < 0 {
				i = len(conf.Members)
				conf.Members = append(conf.Members, replica.Participant{Member: synod.Member{Node: node}})
			}
			set(&conf.Members[i])
		}
	}
	part("voters", func(p *replica.Participant) { p.Voter = true })
	part("outgoing", func(p *replica.Participant) { p.Outgoing = true })
	part("learners", func(p *replica.Participant) { p.Learner = true })
	slices.SortFunc(conf.Members, func(a, b replica.Participant) int { return int(a.Node) - int(b.Node) })
	return conf.Append(nil)
}

func (r *Runner) tick() {
	c := &r.command
	for i := range c.words() {
		r.node(c.bare(i)).mustRun()
	}
	for i := range c.words() {
		n := r.node(c.bare(i))
		pass := func() {
			for range c.Number("n", 1) {
				if n.core != nil {
					n.input(n.core.Tick)
				}
			}
		}
		if len(c.words()) == 1 {
			pass()
		} else {
			r.about(n, pass)
		}
	}
}

func (r *Runner) compact(n *node, index uint64) {
	e, ok := r.decided[index]
	if !ok || index > n.state.Index {
		r.command.fail("node %d has not applied index %d", n.id, index)
	}
	b := batch{}
	n.attempt(func() {
		n.core.Compact(e.at, e.config, &b.batch)
		n.describe(&b.batch)
		n.batches = append(n.batches, b)
		if !r.engine.Manual {
			n.ready()
		}
	})
}
