package kv

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/paxoscommit"
	"github.com/synod-go/synod/txn/hlc"
)

// Group is one replicated log, and this node's replica of what it keeps.
type Group struct {
	// Log is what proposals go to: on a node that may not lead the group a txn.Forwarder over a *raft.Group or a
	// *paxos.Group; on one that always does, or is alone, the group itself.
	Log synod.Log

	// Machine is the group's state machine on this node.
	Machine *Machine
}

// Config says how a DB works. Groups is required, and Route where there is more than one; what is left zero gets the default
// that stands beside it.
type Config struct {
	// Groups are all that keys are kept in, the same in the same order on every node. They are not closed. At most 1,024.
	Groups []Group

	// Route says which group keeps a key, by its place in Groups. It is the same function of the key alone on all nodes, for
	// ever, and may be called concurrently. It must not retain the key.
	Route func(key []byte) int

	// RouteRange says which groups may keep keys from from on, below to, where to is nil for all. Default: all do.
	RouteRange func(from, to []byte) []int

	// Clock gives timestamps. Nothing that a transaction sees or does depends on how right it is; but ViewAt reads as of a time,
	// and versions and sessions are collected by their age: a clock that is far ahead keeps the first for longer, and ends the second earlier. It is not closed. Default: one of the DB's own, which no peers check.
	Clock *hlc.Clock

	// RecoverAfter is how long another transaction may be in the way, prepared and without an outcome, until it is taken for left
	// behind, and ended. Well above a round of consensus. Default: 2 s.
	RecoverAfter time.Duration

	// Retention is how long a version is kept after it was replaced: for how far back ViewAt reads, and how long a transaction may
	// read. Default: 30 s.
	Retention time.Duration

	// SessionTTL is how long a client is remembered that does nothing: whoever sends a command again after longer does not learn what
	// became of it. Default: an hour.
	SessionTTL time.Duration

	// MaxAttempts is how often a transaction is tried, before Update and View return ErrConflict. Default: 100.
	MaxAttempts int

	// MaxTransactions limits those that commit at a time, through this DB; one counts until all groups know its outcome. What exceeds
	// them is refused with synod.ErrOverloaded. Default: 16,384.
	MaxTransactions int

	// MaxKeyBytes and MaxValueBytes limit what is written. Defaults: 1 KiB, and 512 KiB. At most 64 KiB, and 64 MiB.
	MaxKeyBytes, MaxValueBytes int

	// MaxCommandBytes limits what a transaction reads and writes in a group: keys that were read, ranges, keys and values that are
	// written. The log must take commands as large. Default: 1 MiB.
	MaxCommandBytes int

	// Logger receives what happens. Default: nothing is logged.
	Logger *slog.Logger
}

func (c *Config) setDefaults() error {
	bad := func(field, format string, args ...any) error {
		return &synod.ConfigError{Package: "kv", Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case len(c.Groups) == 0:
		return bad("Groups", "missing: at least one")
	case len(c.Groups) > paxoscommit.MaxGroups:
		return bad("Groups", "%d of them: at most %d", len(c.Groups), paxoscommit.MaxGroups)
	case len(c.Groups) > 1 && c.Route == nil:
		return bad("Route", "missing: there are %d groups, and something has to say which one keeps a key", len(c.Groups))
	}
	for i, g := range c.Groups {
		switch {
		case g.Log == nil:
			return bad("Groups", "group %d has no Log", i)
		case g.Machine == nil:
			return bad("Groups", "group %d has no Machine: the one that its Log was started with", i)
		}
	}
	if c.Route == nil {
		c.Route = func([]byte) int { return 0 }
	}
	for _, f := range []struct {
		name          string
		value         *time.Duration
		standard, low time.Duration
	}{
		{"RecoverAfter", &c.RecoverAfter, 2 * time.Second, time.Millisecond},
		{"Retention", &c.Retention, 30 * time.Second, time.Millisecond},
		{"SessionTTL", &c.SessionTTL, time.Hour, time.Second},
	} {
		if *f.value == 0 {
			*f.value = f.standard
		}
		if *f.value < f.low {
			return bad(f.name, "%v: at least %v", *f.value, f.low)
		}
	}
	for _, f := range []struct {
		name           string
		value          *int
		standard, high int
	}{
		{"MaxAttempts", &c.MaxAttempts, 100, 1 << 30},
		{"MaxTransactions", &c.MaxTransactions, 16384, 1 << 20},
		{"MaxKeyBytes", &c.MaxKeyBytes, 1 << 10, maxKeyBytes},
		{"MaxValueBytes", &c.MaxValueBytes, 1 << 19, maxValueBytes},
		{"MaxCommandBytes", &c.MaxCommandBytes, 1 << 20, 1 << 28},
	} {
		if *f.value == 0 {
			*f.value = f.standard
		}
		if *f.value < 1 || *f.value > f.high {
			return bad(f.name, "%d: 1 to %d", *f.value, f.high)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
