package check

import (
	"fmt"
	"slices"
	"strings"
)

// Model is what a database promises.
type Model string

// The models that a history can be held against, the strictest first. Each one that is
// called strong adds that a transaction sees all that had ended before it began, on the
// clock of the history; each one of a strong session, the same within a process.
const (
	// StrictSerializable: one order of all transactions explains what they saw, and
	// agrees with real time. It is Adya's PL-SS, and the default.
	StrictSerializable Model = "strict-serializable"
	// StrongSessionSerializable: one order explains it, and agrees with each process.
	StrongSessionSerializable Model = "strong-session-serializable"
	// Serializable: one order explains it. Adya's PL-3.
	Serializable Model = "serializable"
	// StrongSnapshotIsolation: SnapshotIsolation whose snapshots are never stale.
	StrongSnapshotIsolation Model = "strong-snapshot-isolation"
	// StrongSessionSnapshotIsolation: SnapshotIsolation whose snapshots hold what the
	// process has seen.
	StrongSessionSnapshotIsolation Model = "strong-session-snapshot-isolation"
	// SnapshotIsolation: a transaction reads one snapshot, of any age, and commits only
	// if nobody else has written meanwhile what it writes. Write skew is possible.
	SnapshotIsolation Model = "snapshot-isolation"
	// RepeatableRead: serializable, but for phantoms. Adya's PL-2.99.
	RepeatableRead Model = "repeatable-read"
	// ReadCommitted: what is read was committed, and information does not flow in
	// circles. Adya's PL-2.
	ReadCommitted Model = "read-committed"
	// ReadUncommitted: writes do not interleave, and are all that is read. Adya's PL-1.
	ReadUncommitted Model = "read-uncommitted"
)

// isolation is what a model promises if nothing is known of time and processes. They are
// bits of a set, since not all of them are comparable.
type isolation uint8

const (
	readUncommitted isolation = 1 << iota
	readCommitted
	repeatableRead
	snapshot
	serializable

	// What an anomaly excludes, together with all that is stronger.
	fromSerializable    = serializable
	fromSnapshot        = snapshot | serializable
	fromRepeatableRead  = repeatableRead | serializable
	fromRepeatableAll   = fromSnapshot | fromRepeatableRead
	fromReadCommitted   = readCommitted | fromRepeatableAll
	fromReadUncommitted = readUncommitted | fromReadCommitted
)

// level is what a conclusion rests on.
type level uint8

const (
	fromData     level = iota // what was read and written
	fromProcess               // and the order of each process
	fromRealtime              // and real time
)

// promises is all models, with what each one is made of, the strictest first.
var promises = []struct {
	model     Model
	isolation isolation
	level     level
	words     string
}{
	{StrictSerializable, serializable, fromRealtime, "strict serializable"},
	{StrongSessionSerializable, serializable, fromProcess, "strong session serializable"},
	{Serializable, serializable, fromData, "serializable"},
	{StrongSnapshotIsolation, snapshot, fromRealtime, "strong snapshot isolation"},
	{StrongSessionSnapshotIsolation, snapshot, fromProcess, "strong session snapshot isolation"},
	{SnapshotIsolation, snapshot, fromData, "snapshot isolation"},
	{RepeatableRead, repeatableRead, fromData, "repeatable read"},
	{ReadCommitted, readCommitted, fromData, "read committed"},
	{ReadUncommitted, readUncommitted, fromData, "read uncommitted"},
}

// Models returns all models, the strictest first.
func Models() []Model {
	models := make([]Model, len(promises))
	for i := range promises {
		models[i] = promises[i].model
	}
	return models
}

// String returns the model in words.
func (m Model) String() string {
	for i := range promises {
		if promises[i].model == m {
			return promises[i].words
		}
	}
	return string(m)
}

// excluded returns the models that an anomaly excludes which breaks the isolation of a
// set, and is concluded from what a level knows.
func excluded(broken isolation, known level) (models []Model) {
	for i := range promises {
		if broken&promises[i].isolation != 0 && promises[i].level >= known {
			models = append(models, promises[i].model)
		}
	}
	return models
}

// Kind is what went wrong. Those that are cycles have variants, G0-process and so on: see
// [Kind.Process] and [Kind.Realtime].
type Kind string

// Cycles, the worst first. A transaction comes before another one if the other one
// overwrote it (a write dependency, ww), read from it (a read dependency, wr), or
// overwrote what it read (an anti-dependency, rw).
const (
	// G0 is a write cycle: a cycle of write dependencies. It excludes read uncommitted.
	G0 Kind = "G0"
	// G1c is circular information flow: a cycle of write and read dependencies, with a
	// read among them. It excludes read committed.
	G1c Kind = "G1c"
	// GSingle is read skew: a cycle with exactly one anti-dependency. It excludes
	// snapshot isolation and, if no phantom is needed for it, repeatable read.
	GSingle Kind = "G-single"
	// GNonadjacent is a cycle with several anti-dependencies, none next to another: a
	// long fork, for example. It excludes what GSingle does.
	GNonadjacent Kind = "G-nonadjacent"
	// G2Item is a cycle with adjacent anti-dependencies between reads and writes of keys:
	// write skew. It excludes serializable and repeatable read, but not snapshot
	// isolation.
	G2Item Kind = "G2-item"
	// G2 is the same with an anti-dependency between a scan and a write of a key that
	// it did not find, a phantom. It excludes serializable only.
	G2 Kind = "G2"
)

// What is no cycle of transactions.
const (
	// Garbage is a read of what nobody wrote. It excludes everything.
	Garbage Kind = "garbage-read"
	// Duplicate is an element that a list has twice. It excludes everything.
	Duplicate Kind = "duplicate-elements"
	// OwnWriteUnseen is a read that misses what its own transaction wrote before. It
	// excludes everything.
	OwnWriteUnseen Kind = "own-write-unseen"
	// G1a is an aborted read: of what a transaction wrote that has aborted. It excludes
	// read committed.
	G1a Kind = "G1a"
	// G1b is an intermediate read: of what its writer itself overwrote. It excludes read
	// committed.
	G1b Kind = "G1b"
	// DirtyUpdate is a list in which something that has committed stands on something
	// that was aborted. It excludes read committed.
	DirtyUpdate Kind = "dirty-update"
	// FutureRead is a read of what its own transaction wrote only later. It excludes read
	// committed.
	FutureRead Kind = "future-read"
	// IncompatibleOrder is reads of a list that can't be of one list, at whatever times; or
	// one that has what one transaction appended in another order, or not all of it. It
	// excludes read committed.
	IncompatibleOrder Kind = "incompatible-order"
	// CyclicVersions is values of a register of which each would have to come before the
	// other. It excludes read committed, and its variants the models that they rest on.
	CyclicVersions Kind = "cyclic-versions"
	// Internal is a transaction that reads a key twice, and sees what others have done
	// between. It excludes snapshot isolation and, if it is no phantom, repeatable read.
	Internal Kind = "internal"
	// LostUpdate is several transactions that read the same version of a key and all
	// wrote the key. It excludes snapshot isolation and, if it is no phantom, repeatable
	// read.
	LostUpdate Kind = "lost-update"
)

// kinds is all kinds, in the order in which they are reported, with what they are called.
var kinds = []struct {
	kind  Kind
	words string
}{
	{Garbage, "a read of what nobody wrote"},
	{Duplicate, "one element twice in a list"},
	{OwnWriteUnseen, "a read that misses its own transaction's write"},
	{G1a, "aborted read"},
	{DirtyUpdate, "committed on top of aborted"},
	{G1b, "intermediate read"},
	{FutureRead, "a read of its own transaction's later write"},
	{IncompatibleOrder, "reads that can't be of one list"},
	{CyclicVersions, "values that each would have to come before the other"},
	{G0, "write cycle"},
	{G1c, "circular information flow"},
	{Internal, "two reads that differ in one transaction"},
	{LostUpdate, "several updates of one version"},
	{GSingle, "read skew, or a stale read"},
	{GNonadjacent, "anti-dependencies that are not adjacent, as in a long fork"},
	{G2Item, "write skew, or another cycle with adjacent anti-dependencies"},
	{G2, "write skew, or another cycle with adjacent anti-dependencies, by a phantom"},
}

const process, realtime = "-process", "-realtime"

// Process returns the variant of a cycle, or of CyclicVersions, that takes the order of
// transactions in their processes to be seen: G0-process and so on. It excludes the
// models of a strong session, and the strong ones.
func (k Kind) Process() Kind { return k.base() + process }

// Realtime returns the variant that takes real time to be seen, and processes:
// G0-realtime and so on. It excludes the strong models, and strict serializable.
func (k Kind) Realtime() Kind { return k.base() + realtime }

func (k Kind) base() Kind {
	return Kind(strings.TrimSuffix(strings.TrimSuffix(string(k), process), realtime))
}

func (k Kind) level() level {
	switch {
	case strings.HasSuffix(string(k), process):
		return fromProcess
	case strings.HasSuffix(string(k), realtime):
		return fromRealtime
	}
	return fromData
}

// at returns the variant for what a conclusion rests on.
func (k Kind) at(l level) Kind {
	switch l {
	case fromProcess:
		return k.Process()
	case fromRealtime:
		return k.Realtime()
	}
	return k
}

// rank says where in a report a kind stands.
func (k Kind) rank() int {
	i := slices.IndexFunc(kinds, func(known struct {
		kind  Kind
		words string
	}) bool {
		return known.kind == k.base()
	})
	return int(k.level())*len(kinds) + i
}

// words returns what the kind is called.
func (k Kind) words() string {
	words := kinds[k.rank()%len(kinds)].words
	switch k.level() {
	case fromProcess:
		words += ", by the order of a process"
	case fromRealtime:
		words += ", by real time"
	}
	return words
}

// Config is what a history is held against. The zero value demands strict
// serializability.
type Config struct {
	// Model is what was promised: only what contradicts it is looked for and reported.
	// Default StrictSerializable. Rule of thumb: what the database's documentation
	// claims, and not less.
	Model Model

	// MaxPerKind is how many anomalies of a kind are reported; others are counted. 0: 10.
	MaxPerKind int

	// LinearizableKeys says that each register by itself is linearizable, whatever the
	// model says of transactions: the order of its values follows from real time. It
	// makes more of histories of registers under the weaker models; with the strong
	// models, and strict serializability, nothing is gained, since they imply it. What is
	// then found holds under that assumption only. It says nothing about lists.
	LinearizableKeys bool
}

func (c Config) filled() (Config, error) {
	if c.Model == "" {
		c.Model = StrictSerializable
	}
	if !slices.Contains(Models(), c.Model) {
		return c, &ConfigError{"Config.Model", fmt.Sprintf("%q is no model: see Models", string(c.Model))}
	}
	if c.MaxPerKind == 0 {
		c.MaxPerKind = 10
	}
	if c.MaxPerKind < 0 {
		return c, &ConfigError{"Config.MaxPerKind", fmt.Sprintf("%d: 1 or more, or 0 for 10", c.MaxPerKind)}
	}
	return c, nil
}

// promise returns what the model is made of.
func (c Config) promise() (isolation, level) {
	for i := range promises {
		if promises[i].model == c.Model {
			return promises[i].isolation, promises[i].level
		}
	}
	return serializable, fromRealtime
}
