package hashring

import (
	"errors"
	"fmt"
)

// What is wrong, to be tested with errors.Is. What is returned wraps them and names
// the node, the field or the offset at fault.
var (
	// ErrNoNodes says that no node would be left that takes keys.
	ErrNoNodes = errors.New("hashring: no node takes keys: a ring has at least one that is not draining")

	// ErrDuplicate says that two nodes have one name, or one hash of their names.
	ErrDuplicate = errors.New("duplicate node")

	// ErrUnknownNode says that a node is not a member.
	ErrUnknownNode = errors.New("unknown node")

	// ErrWeight says that a weight is zero, negative, infinite, not a number, out of
	// the range between [MinWeight] and [MaxWeight] units, or that the algorithm
	// does not take it.
	ErrWeight = errors.New("bad weight")

	// ErrZone says that a zone is no path of failure domains.
	ErrZone = errors.New("bad zone")

	// ErrName says that a node has no name that could be hashed and encoded.
	ErrName = errors.New("bad name")

	// ErrTooLarge says that there are more nodes, points or slots than the algorithm
	// has room for.
	ErrTooLarge = errors.New("hashring: too large")

	// ErrNoRanges says that an algorithm does not divide the hash space into ranges,
	// so that shares and differences can't be counted out.
	ErrNoRanges = errors.New("hashring: the algorithm makes no ranges of keys: take Points, Allocated, Maglev or RendezvousTable")

	// ErrInfeasible says that so many replicas can't be had.
	ErrInfeasible = errors.New("hashring: infeasible")

	// ErrCorrupt says that an encoding is damaged, truncated or hostile.
	ErrCorrupt = errors.New("hashring: corrupt encoding")

	// ErrStale says that a version is not above the one that is in use.
	ErrStale = errors.New("hashring: stale ring")
)

// ConfigError says which field is wrong, and what to do about it.
type ConfigError struct {
	Field  string // the field's name, with its type: "Config.WeightUnit", "Maglev.Slots"
	Reason string // what is wrong, and the remedy
}

// Error implements error.
func (e *ConfigError) Error() string { return fmt.Sprintf("hashring: %s: %s", e.Field, e.Reason) }

// NodeError says which node is wrong, and why.
type NodeError struct {
	Node   string // its name
	Reason string // what is wrong, and the remedy
	Err    error  // [ErrDuplicate], [ErrUnknownNode], [ErrWeight], [ErrZone] or [ErrName]
}

// Error implements error.
func (e *NodeError) Error() string {
	return fmt.Sprintf("hashring: node %q: %v: %s", e.Node, e.Err, e.Reason)
}

// Unwrap returns what kind of mistake it is.
func (e *NodeError) Unwrap() error { return e.Err }

// InfeasibleError says why so many replicas can't be had. It is an [ErrInfeasible].
type InfeasibleError struct {
	Replicas   int // that were asked for
	Nodes      int // that take keys
	Zones      int // outermost failure domains with such nodes; 0: the ring has no zones
	MaxPerZone int // as in Config; 0: the ring has no zones
	Feasible   int // the most that can be had
}

// Error implements error.
func (e *InfeasibleError) Error() string {
	switch {
	case e.Replicas < 1:
		return fmt.Sprintf("hashring: infeasible: %d replicas: ask for one or more", e.Replicas)
	case e.Replicas > e.Nodes:
		return fmt.Sprintf("hashring: infeasible: %d replicas on %d nodes: add nodes", e.Replicas, e.Nodes)
	default:
		return fmt.Sprintf("hashring: infeasible: %d replicas over %d zones with %d in each at most make %d: add zones or raise Config.MaxPerZone",
			e.Replicas, e.Zones, e.MaxPerZone, e.Feasible)
	}
}

// Unwrap returns [ErrInfeasible].
func (e *InfeasibleError) Unwrap() error { return ErrInfeasible }

// DecodeError says where an encoding is damaged. It is an [ErrCorrupt].
type DecodeError struct {
	Offset int    // in bytes from the beginning
	Reason string // what is wrong there
}

// Error implements error.
func (e *DecodeError) Error() string {
	return fmt.Sprintf("hashring: corrupt encoding: at byte %d: %s", e.Offset, e.Reason)
}

// Unwrap returns [ErrCorrupt].
func (e *DecodeError) Unwrap() error { return ErrCorrupt }
