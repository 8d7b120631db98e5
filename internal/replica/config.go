package replica

import (
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/transport"
)

// Config is what a node needs to run.
type Config struct {
	Protocol Protocol
	Package  string // names the engine in errors
	Settings
}

// Settings are what the user of an engine chooses. The engines document the fields for
// their users, in a Config of their own that has the same ones in the same order: so a
// conversion takes one for the other, and does not compile where they differ.
type Settings struct {
	Cluster   string
	Node      uint64
	Transport transport.Transport
	Store     storage.Store

	Logger            *slog.Logger
	Metrics           synod.Metrics
	SetAddress        func(node uint64, address string)
	HeartbeatInterval time.Duration
	ElectionTimeout   time.Duration
	MaxClockDrift     time.Duration
	Loops             int
	MaxCommandBytes   int
	MaxBatchBytes     int
	MaxPending        int
	MaxPendingBytes   int
	MaxInflightBytes  int
	MaxInboxBytes     int
	MaxUnwrittenBytes int
	MaxApplyBytes     int
	CacheBytes        int

	SnapshotBytesPerSecond int
}

// Defaults of the fields that are left zero.
const (
	defaultHeartbeat    = 50 * time.Millisecond
	heartbeatsPerLease  = 10
	defaultCommandBytes = 8 << 20
	defaultBatchBytes   = 1 << 20
	defaultPendingBytes = 64 << 20
	defaultPending      = 1 << 16
	defaultInflight     = 16 << 20
	defaultInbox        = 64 << 20
	defaultUnwritten    = 256 << 20
	defaultApply        = 16 << 20
	defaultCache        = 8 << 20
	defaultSnapshotRate = 256 << 20

	maxClusterBytes = 255

	// maxBatchBytes is what the largest batch may have: stores and transports take a
	// record and a message of that size.
	maxBatchBytes = 512 << 20

	// maxMessageHead is more than what a message has beside the commands of a batch.
	maxMessageHead = 1 << 10
)

func (c *Config) setDefaults() error {
	bad := func(field, format string, args ...any) error {
		return &synod.ConfigError{Package: c.Package, Field: field, Reason: fmt.Sprintf(format, args...)}
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
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.HeartbeatInterval == 0 {
		c.HeartbeatInterval = defaultHeartbeat
	}
	if c.ElectionTimeout == 0 {
		c.ElectionTimeout = heartbeatsPerLease * c.HeartbeatInterval
	}
	switch {
	case c.HeartbeatInterval < time.Millisecond:
		return bad("HeartbeatInterval", "%v: at least 1ms", c.HeartbeatInterval)
	case c.ElectionTimeout < 3*c.HeartbeatInterval:
		return bad("ElectionTimeout", "%v: at least three heartbeats of %v, better ten", c.ElectionTimeout, c.HeartbeatInterval)
	case c.MaxClockDrift < 0:
		return bad("MaxClockDrift", "%v: must not be below 0", c.MaxClockDrift)
	case c.MaxClockDrift > 0 && c.leaseLength() < c.HeartbeatInterval:
		return bad("MaxClockDrift", "%v: at most %v, which is ElectionTimeout (%v in whole heartbeats) less two heartbeats: beyond that no lease is left",
			c.MaxClockDrift, c.ElectionTimeout.Truncate(c.HeartbeatInterval)-2*c.HeartbeatInterval, c.ElectionTimeout.Truncate(c.HeartbeatInterval))
	}
	if c.Loops == 0 {
		c.Loops = min(4, max(1, runtime.GOMAXPROCS(0)/2))
	}
	for _, f := range []struct {
		name          string
		value         *int
		standard, low int
	}{
		{"Loops", &c.Loops, 1, 1},
		{"MaxCommandBytes", &c.MaxCommandBytes, defaultCommandBytes, 1},
		{"MaxBatchBytes", &c.MaxBatchBytes, defaultBatchBytes, 1},
		{"MaxPendingBytes", &c.MaxPendingBytes, defaultPendingBytes, 1},
		{"MaxPending", &c.MaxPending, defaultPending, 1},
		{"MaxInflightBytes", &c.MaxInflightBytes, defaultInflight, 1},
		{"MaxInboxBytes", &c.MaxInboxBytes, defaultInbox, 1},
		{"MaxUnwrittenBytes", &c.MaxUnwrittenBytes, defaultUnwritten, 1},
		{"MaxApplyBytes", &c.MaxApplyBytes, defaultApply, 1},
		{"CacheBytes", &c.CacheBytes, defaultCache, 1},
		{"SnapshotBytesPerSecond", &c.SnapshotBytesPerSecond, defaultSnapshotRate, chunkBytes},
	} {
		if *f.value == 0 {
			*f.value = f.standard
		}
		if *f.value < f.low {
			return bad(f.name, "%d: must not be below %d", *f.value, f.low)
		}
	}
	// A single batch must fit into whatever bounds the way of batches.
	switch {
	case c.MaxBatchBytes > maxBatchBytes/2:
		return bad("MaxBatchBytes", "%d: at most %d", c.MaxBatchBytes, maxBatchBytes/2)
	case c.MaxCommandBytes > maxBatchBytes/2:
		return bad("MaxCommandBytes", "%d: at most %d: keep large values elsewhere", c.MaxCommandBytes, maxBatchBytes/2)
	}
	largest := c.MaxBatchBytes + c.MaxCommandBytes
	if c.MaxPendingBytes < c.MaxCommandBytes {
		return bad("MaxPendingBytes", "%d: must be at least MaxCommandBytes, %d", c.MaxPendingBytes, c.MaxCommandBytes)
	}
	if c.MaxInflightBytes < largest {
		return bad("MaxInflightBytes", "%d: must be at least MaxBatchBytes and MaxCommandBytes together, %d", c.MaxInflightBytes, largest)
	}
	if need := largest + maxMessageHead; c.MaxInboxBytes < need {
		return bad("MaxInboxBytes", "%d: must be at least MaxBatchBytes and MaxCommandBytes together and 1 KiB, %d", c.MaxInboxBytes, need)
	}
	return nil
}

// leaseLength returns how long a lease is, from the beginning of the attempt that it comes
// from: see lease.go. 0: there are none.
func (c *Config) leaseLength() time.Duration {
	if c.MaxClockDrift == 0 {
		return 0
	}
	return c.ElectionTimeout.Truncate(c.HeartbeatInterval) - c.HeartbeatInterval - c.MaxClockDrift
}

// GroupConfig is what a group needs to run. The engines have the same, with documentation.
type GroupConfig struct {
	ID              uint64
	StateMachine    synod.StateMachine
	SnapshotEntries uint64
	SnapshotBytes   uint64
	RetainEntries   uint64
	RetainBytes     uint64
	MaxSessions     int
	MaxSessionBytes int
}

const (
	defaultSnapshotEntries = 100_000
	defaultSnapshotBytes   = 64 << 20
	defaultRetainEntries   = 5_000
	defaultRetainBytes     = 32 << 20
)

func (c *GroupConfig) setDefaults(pkg string) error {
	switch {
	case c.ID == 0:
		return &synod.ConfigError{Package: pkg, Field: "ID", Reason: "missing: give every group an ID above 0"}
	case c.StateMachine == nil:
		return &synod.ConfigError{Package: pkg, Field: "StateMachine", Reason: "missing: it is what the group replicates"}
	}
	for _, f := range []struct {
		name           string
		value          *int
		standard, most int
	}{
		{"MaxSessions", &c.MaxSessions, defaultSessions, maxSessions},
		{"MaxSessionBytes", &c.MaxSessionBytes, defaultSessionBytes, maxSessionBytes},
	} {
		if *f.value == 0 {
			*f.value = f.standard
		}
		if *f.value < 1 || *f.value > f.most {
			return &synod.ConfigError{Package: pkg, Field: f.name, Reason: fmt.Sprintf("%d: 1 to %d", *f.value, f.most)}
		}
	}
	if c.SnapshotEntries == 0 {
		c.SnapshotEntries = defaultSnapshotEntries
	}
	if c.SnapshotBytes == 0 {
		c.SnapshotBytes = defaultSnapshotBytes
	}
	if c.RetainEntries == 0 {
		c.RetainEntries = defaultRetainEntries
	}
	if c.RetainBytes == 0 {
		c.RetainBytes = defaultRetainBytes
	}
	return nil
}
