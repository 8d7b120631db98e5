package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/synod-go/synod"
)

// Config says which database a resource is, and how it works. Cluster, Node, Resource and Pool are required; what is left
// zero gets the default that stands beside it.
type Config struct {
	// Cluster, Node and Resource are what the manager has: txn.Config.Cluster, txn.Config.Node, and the name in
	// txn.Config.Resources. They are a part of the name that prepared transactions have in the server, which has 199 bytes
	// at most, 58 of them for the transaction: some 120 are left for both names together. They must stay the
	// same as long as anything is prepared.
	Cluster  string
	Node     uint64
	Resource string

	// Pool is how the database is reached, from pgxpool.ParseConfig: the role may create tables in Schema, or owns them already. It is
	// copied. Its MaxConns is how many transactions may be open at a time; Begin waits for one. The server must
	// be reached directly: not through a pooler that gives each transaction another session.
	Pool *pgxpool.Config

	// Schema is where the resource's own tables are: a marker for each transaction, and one row for the resource. It is made
	// if it is not there. Default: synod.
	Schema string

	// Execute does what is handed over with the request to prepare, txn.Participant.Work. An error is a No. It must not use
	// tx after it has returned. nil: work is refused.
	Execute func(ctx context.Context, tx *Tx, work []byte) error

	// TxOptions are those of all transactions. Default: what the server has by default.
	TxOptions pgx.TxOptions

	// Logger receives what happens. Default: nothing is logged.
	Logger *slog.Logger

	// ControlConns is how many connections there are beside Pool, for what ends transactions: it must not
	// wait for those that hold connections of Pool, and wait for locks. Default: 4.
	ControlConns int32

	// OpenTimeout is how long a transaction may be open, from Begin until it is prepared or aborted; then it is rolled back, since
	// it holds locks. Default: 10 minutes.
	OpenTimeout time.Duration

	// RequestTimeout limits each of Prepare, Commit, Abort and so on; the manager asks again. Default: 10 s.
	RequestTimeout time.Duration

	// RetryInterval is how long one that failed waits until it asks the server again. Default: 50 ms.
	RetryInterval time.Duration

	// KeepMarkers is how long the marker of a transaction is kept after its commit, as long as this process runs: well
	// above the time that the manager needs to write down that it is over. Default: 15 minutes.
	KeepMarkers time.Duration

	// KeepEarlierMarkers is how long markers are kept that earlier runs have left, since when they were written. Until then somebody who was
	// in doubt may ask again. Default: 7 days.
	KeepEarlierMarkers time.Duration

	// Unsynced says that it is intended that the server runs with fsync off, and loses data when its machine crashes: for
	// tests. Default: such a server is refused.
	Unsynced bool
}

const (
	maxGID = 199 // bytes: GIDSIZE in the server, less one

	// maxID is the length of the longest transaction ID.
	maxID = 58

	// lockClass is the first key of the advisory locks by which the sessions of a run are found: "syno".
	lockClass = 0x73796e6f
)

func (c *Config) setDefaults() error {
	bad := func(field, format string, args ...any) error {
		return &synod.ConfigError{Package: "postgres", Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case c.Cluster == "":
		return bad("Cluster", "missing: the name that the manager has")
	case c.Node == 0:
		return bad("Node", "missing: the ID of the manager's node")
	case c.Resource == "":
		return bad("Resource", "missing: the name that the resource has in the manager's Config.Resources")
	case len(c.prefix())+maxID > maxGID:
		return bad("Resource", "Cluster and Resource make names of up to %d bytes for prepared transactions, and the server takes %d: use shorter ones",
			len(c.prefix())+maxID, maxGID)
	case c.Pool == nil:
		return bad("Pool", "missing: use pgxpool.ParseConfig")
	case c.Pool.MaxConns < 1:
		return bad("Pool", "MaxConns is %d: use pgxpool.ParseConfig", c.Pool.MaxConns)
	case c.TxOptions.BeginQuery != "" || c.TxOptions.CommitQuery != "":
		return bad("TxOptions", "BeginQuery and CommitQuery are the resource's own")
	case !slices.Contains([]pgx.TxIsoLevel{"", pgx.Serializable, pgx.RepeatableRead, pgx.ReadCommitted, pgx.ReadUncommitted}, c.TxOptions.IsoLevel):
		return bad("TxOptions", "IsoLevel %q: one of pgx's", c.TxOptions.IsoLevel)
	case !slices.Contains([]pgx.TxAccessMode{"", pgx.ReadWrite, pgx.ReadOnly}, c.TxOptions.AccessMode):
		return bad("TxOptions", "AccessMode %q: one of pgx's", c.TxOptions.AccessMode)
	case !slices.Contains([]pgx.TxDeferrableMode{"", pgx.Deferrable, pgx.NotDeferrable}, c.TxOptions.DeferrableMode):
		return bad("TxOptions", "DeferrableMode %q: one of pgx's", c.TxOptions.DeferrableMode)
	}
	if c.Schema == "" {
		c.Schema = "synod"
	}
	if len(c.Schema) > 63 {
		return bad("Schema", "%d bytes long: at most 63", len(c.Schema))
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ControlConns == 0 {
		c.ControlConns = 4
	}
	if c.ControlConns < 1 || c.ControlConns > 1000 {
		return bad("ControlConns", "%d: 1 to 1000", c.ControlConns)
	}
	for _, f := range []struct {
		name          string
		value         *time.Duration
		standard, low time.Duration
	}{
		{"OpenTimeout", &c.OpenTimeout, 10 * time.Minute, time.Second},
		{"RequestTimeout", &c.RequestTimeout, 10 * time.Second, 10 * time.Millisecond},
		{"RetryInterval", &c.RetryInterval, 50 * time.Millisecond, time.Millisecond},
		{"KeepMarkers", &c.KeepMarkers, 15 * time.Minute, time.Second},
		{"KeepEarlierMarkers", &c.KeepEarlierMarkers, 7 * 24 * time.Hour, time.Minute},
	} {
		if *f.value == 0 {
			*f.value = f.standard
		}
		if *f.value < f.low {
			return bad(f.name, "%v: at least %v", *f.value, f.low)
		}
	}
	return nil
}

// prefix is what the names of this resource's prepared transactions begin with. No two resources have the same, and no
// character in it has a meaning in SQL.
func (c *Config) prefix() string {
	return fmt.Sprintf("synod/%s/%d/%s/", url.QueryEscape(c.Cluster), c.Node, url.QueryEscape(c.Resource))
}

// Errors, to be tested with errors.Is.
var (
	// ErrEnded says that the transaction is not open any more: it is prepared, aborted, or was open for too long.
	ErrEnded = errors.New("postgres: the transaction is not open")

	// ErrBusy says that the transaction is in use: rows, a batch or another call have to be ended first.
	ErrBusy = errors.New("postgres: the transaction is in use")

	// ErrRolledBack says that the server had rolled the transaction back, since a statement of it failed, or somebody ended it by
	// a statement of their own.
	ErrRolledBack = errors.New("postgres: the transaction was rolled back")

	// ErrNotPrepared says that a transaction is to be committed that is neither prepared nor committed in the server: it never was, or
	// somebody has rolled it back by hand. A txn.HeuristicError comes with it, so that it is recorded as damage.
	ErrNotPrepared = errors.New("postgres: the transaction is not prepared")

	// ErrSuperseded says that the resource was opened again, by another process or this one: this one prepares nothing any more.
	ErrSuperseded = errors.New("postgres: the resource was opened again since")

	// ErrForeign says that there are prepared transactions of this resource which it can't end: another role has prepared them, or they
	// are in another database of the server.
	ErrForeign = errors.New("postgres: prepared transactions belong to another role or database")

	// ErrServer says that the server is not such that it can be used. The error is a *ServerError.
	ErrServer = errors.New("postgres: the server cannot be used")
)

// ServerError says which setting of the server must be another. It matches ErrServer.
type ServerError struct {
	Setting string // its name in postgresql.conf, as far as it is one
	Value   string // what it is
	Remedy  string // what to do
}

// Error implements error.
func (e *ServerError) Error() string {
	return fmt.Sprintf("postgres: the server has %s = %s: %s", e.Setting, e.Value, e.Remedy)
}

// Is makes the error match ErrServer.
func (e *ServerError) Is(target error) bool { return target == ErrServer }
