package txn

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/threephase"
	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/transport"
)

// Config says how a manager runs. Cluster, Node, Transport and Store are required; what is left zero gets the default that
// stands beside it.
type Config struct {
	// Cluster names the cluster: 1 to 255 bytes, the same on all its nodes. Messages of another cluster are
	// refused.
	Cluster string

	// Node is this node's ID, above 0. It belongs to this node and this store for ever: a node whose store was lost
	// comes back under a new ID.
	Node uint64

	// Transport carries messages to the other nodes. The manager sets its handler and uses it until Close; the
	// caller closes it after that. To share it, hand in a channel of a transport.Mux.
	Transport transport.Transport

	// Store keeps the manager's records. The caller closes it after Close. To share it, hand in a
	// storage.Prefix.
	Store storage.Store

	// Resources are what takes part in transactions on this node, by name: 1 to 255 bytes each. A node that only
	// coordinates has none. The map must not be changed.
	Resources map[string]Resource

	// Protocol is how outcomes are agreed on: the same on all nodes, whose frames are refused otherwise. It can be changed when nothing
	// is under way on any node; Start refuses it while the store says that something is. Default: TwoPhase.
	Protocol Protocol

	// Decisions is where the outcomes of this node's transactions are decided, in two phases. Default: a LocalLog in Store, which is
	// classic two-phase commit.
	Decisions DecisionLog

	// TakeOver is after how long in doubt a participant proposes in Decisions to abort, so that a coordinator that is
	// away blocks nobody. All nodes must have the same replicated log then. Well above PrepareTimeout, or slow
	// transactions are aborted. Default: 0, never: it waits for the coordinator, or for another participant.
	TakeOver time.Duration

	// Logger receives what happens. Default: nothing is logged.
	Logger *slog.Logger

	// TickInterval is the unit in which time passes for the protocol, while something is under way, and how
	// long an acknowledgement waits at most for another write to go with. At least 1 ms. Default: 20 ms.
	TickInterval time.Duration

	// OpenTimeout is how long a transaction may be open, from Begin to Commit or Abort; then it is abandoned. Default: an hour.
	OpenTimeout time.Duration

	// PrepareTimeout is how long the coordinator waits for all votes, before it aborts. Default: 10 s.
	PrepareTimeout time.Duration

	// ResendInterval is how long it waits for an answer before it asks again, and how long after a failure a resource is
	// called again. Well above the round trip and the time that a resource needs. Default: 500 ms.
	ResendInterval time.Duration

	// InquireInterval is how often a participant in doubt asks for the outcome. Default: 1 s.
	InquireInterval time.Duration

	// PeerTimeout is after how long in doubt it asks the other participants, too. In three phases: how long it hears no
	// leader before it stands for election, each participant a ResendInterval after the one before it. Default: 3 s.
	PeerTimeout time.Duration

	// MaxTransactions limits the transactions that are coordinated here at a time: what exceeds them is refused with
	// synod.ErrOverloaded. A committed one counts until each participant has acknowledged it. Default: 16,384.
	MaxTransactions int

	// MaxBranches limits what this node's resources take part in at a time: what exceeds them is voted No. Default: 16,384.
	MaxBranches int

	// MaxParticipants limits the participants of a transaction; at most 1,024. Default: 64.
	MaxParticipants int

	// MaxWorkBytes limits the work of a transaction, all participants together. The transport must take messages of
	// that and 1 MiB. Default: 1 MiB.
	MaxWorkBytes int

	// MaxFinished limits the branches that are over and remembered, for others that are in doubt. Beyond it the
	// oldest are forgotten: what is older than they is refused from then on. 100 bytes of memory each. Default: 65,536.
	MaxFinished int

	// MaxInboxBytes limits what has arrived and was not worked on. What exceeds it is dropped, and sent again. Default: 64 MiB.
	MaxInboxBytes int
}

const (
	maxClusterBytes = 255

	// idBlock is how many counters are reserved at a time.
	idBlock = 1 << 20
)

func (c *Config) setDefaults() error {
	bad := func(field, format string, args ...any) error {
		return &synod.ConfigError{Package: "txn", Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case c.Cluster == "":
		return bad("Cluster", "missing: name the cluster, the same on all its nodes")
	case len(c.Cluster) > maxClusterBytes:
		return bad("Cluster", "%d bytes long: at most %d", len(c.Cluster), maxClusterBytes)
	case c.Node == 0:
		return bad("Node", "missing: give every node an ID of its own, above 0, and never use one again")
	case c.Transport == nil:
		return bad("Transport", "missing: use transport/tcp, or an implementation of your own")
	case c.Store == nil:
		return bad("Store", "missing: use storage/pebble, or an implementation of your own")
	case c.Protocol > SkeenThreePhase:
		return bad("Protocol", "%d: there is none of that number", c.Protocol)
	case c.Protocol != TwoPhase && c.Decisions != nil:
		return bad("Decisions", "%v has none: the participants decide", c.Protocol)
	case c.Protocol != TwoPhase && c.TakeOver != 0:
		return bad("TakeOver", "%v: %v has no decision log: participants terminate transactions after PeerTimeout", c.TakeOver, c.Protocol)
	case c.TakeOver != 0 && c.Decisions == nil:
		return bad("TakeOver", "%v: needs Decisions that all nodes share: a ReplicatedLog", c.TakeOver)
	}
	for name, r := range c.Resources {
		if name == "" || len(name) > twophase.MaxResourceBytes {
			return bad("Resources", "a name of %d bytes: 1 to %d", len(name), twophase.MaxResourceBytes)
		}
		if r == nil {
			return bad("Resources", "%q is nil", name)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	for _, f := range []struct {
		name          string
		value         *time.Duration
		standard, low time.Duration
	}{
		{"TickInterval", &c.TickInterval, 20 * time.Millisecond, time.Millisecond},
		{"OpenTimeout", &c.OpenTimeout, time.Hour, time.Second},
		{"PrepareTimeout", &c.PrepareTimeout, 10 * time.Second, time.Millisecond},
		{"ResendInterval", &c.ResendInterval, 500 * time.Millisecond, time.Millisecond},
		{"InquireInterval", &c.InquireInterval, time.Second, time.Millisecond},
		{"PeerTimeout", &c.PeerTimeout, 3 * time.Second, time.Millisecond},
		{"TakeOver", &c.TakeOver, 0, 0},
	} {
		if *f.value == 0 {
			*f.value = f.standard
		}
		if *f.value < f.low {
			return bad(f.name, "%v: at least %v", *f.value, f.low)
		}
	}
	for _, f := range []struct {
		name                string
		value               *int
		standard, low, high int
	}{
		{"MaxTransactions", &c.MaxTransactions, 1 << 14, 1, maxOpen},
		{"MaxBranches", &c.MaxBranches, 1 << 14, 1, 1 << 24},
		{"MaxParticipants", &c.MaxParticipants, 64, 1, twophase.MaxParticipants},
		{"MaxWorkBytes", &c.MaxWorkBytes, 1 << 20, 1, 256 << 20},
		{"MaxFinished", &c.MaxFinished, 1 << 16, 16, 1 << 24},
		{"MaxInboxBytes", &c.MaxInboxBytes, 64 << 20, 1 << 20, 1 << 40},
	} {
		if *f.value == 0 {
			*f.value = f.standard
		}
		if *f.value < f.low || *f.value > f.high {
			return bad(f.name, "%d: %d to %d", *f.value, f.low, f.high)
		}
	}
	if c.MaxInboxBytes < c.MaxWorkBytes+1<<20 {
		return bad("MaxInboxBytes", "%d: at least MaxWorkBytes, %d, and 1 MiB: the largest message must fit", c.MaxInboxBytes, c.MaxWorkBytes)
	}
	return nil
}

// ticks is how many ticks a duration lasts, at least one.
func (c *Config) ticks(d time.Duration) int { return int((d + c.TickInterval - 1) / c.TickInterval) }

// core is the configuration of the core, but for what the store says.
func (c *Config) core() twophase.Config {
	t := twophase.Config{
		Node:            c.Node,
		OnePhase:        make(map[string]bool),
		OpenTicks:       c.ticks(c.OpenTimeout),
		PrepareTicks:    c.ticks(c.PrepareTimeout),
		ResendTicks:     c.ticks(c.ResendInterval),
		InquireTicks:    c.ticks(c.InquireInterval),
		PeerTicks:       c.ticks(c.PeerTimeout),
		TakeOverTicks:   c.ticks(c.TakeOver),
		MaxTransactions: c.MaxTransactions,
		MaxBranches:     c.MaxBranches,
		MaxParticipants: c.MaxParticipants,
		MaxFinished:     c.MaxFinished,
	}
	for name, r := range c.Resources {
		_, t.OnePhase[name] = r.(OnePhaseCommitter)
	}
	return t
}

// threePhase is the configuration of the core of three-phase commit, but for what the store says.
func (c *Config) threePhase() threephase.Config {
	t := threephase.Config{
		Node:            c.Node,
		Resources:       c.names(),
		OpenTicks:       c.ticks(c.OpenTimeout),
		PrepareTicks:    c.ticks(c.PrepareTimeout),
		ResendTicks:     c.ticks(c.ResendInterval),
		InquireTicks:    c.ticks(c.InquireInterval),
		PeerTicks:       c.ticks(c.PeerTimeout),
		MaxTransactions: c.MaxTransactions,
		MaxBranches:     c.MaxBranches,
		MaxParticipants: c.MaxParticipants,
		MaxFinished:     c.MaxFinished,
	}
	if c.Protocol == SkeenThreePhase {
		t.Protocol = threephase.Skeen
	}
	return t
}

// names returns the names of the resources, ascending.
func (c *Config) names() []string {
	var list []string
	for name := range c.Resources {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}
