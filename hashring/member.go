package hashring

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Limits. What is beyond them is refused with a typed error.
const (
	MaxNodes  = 1 << 20    // nodes of a ring; [Maglev] and [RendezvousTable] take 65,535, [Asura] 32,768 slots
	MaxName   = 1 << 10    // bytes of a node's name, and of a zone's path
	MaxDepth  = 8          // failure domains inside each other
	MinWeight = 1.0 / 1024 // units of weight
	MaxWeight = 1024       // units of weight
	maxPoints = 1 << 24    // points of a circle
	none      = ^uint32(0) // no member
	maxSpread = 1<<16 - 1  // members that a table of uint16 can name
)

// Node is a member of a ring.
type Node[N any] struct {
	// ID is what look-ups return. Its name decides where the node's places are: see
	// the package comment, Names.
	ID N

	// Weight is the node's share in proportion to the other nodes' weights. Required:
	// 1 for a node of ordinary size; between [MinWeight] and [MaxWeight] times
	// [Config.WeightUnit].
	Weight float64

	// Zone is the path of the failure domains that the node is in, the outermost one
	// first: "eu-west/b/rack-17". Either all nodes of a ring have one, or none.
	Zone string

	// Draining says that the node is a member that takes no keys: its keys are where
	// they would be without it. See [Ring.Drain].
	Draining bool
}

// Nodes returns nodes of weight 1 without a zone.
func Nodes[N any](ids ...N) []Node[N] {
	nodes := make([]Node[N], len(ids))
	for i, id := range ids {
		nodes[i] = Node[N]{ID: id, Weight: 1}
	}
	return nodes
}

// Named is a member that has a name of its own. The name identifies it for good: two
// members of one name are the same member.
type Named interface {
	// HashringName returns the name: 1 to [MaxName] bytes, always the same.
	HashringName() string
}

// nameOf returns the name of a node.
func nameOf[N any](id N) (string, error) {
	switch v := any(id).(type) {
	case string:
		return checkName(v)
	case Named:
		if r := reflect.ValueOf(v); r.Kind() == reflect.Pointer && r.IsNil() {
			return "", &NodeError{Reason: "a nil pointer", Err: ErrName}
		}
		return checkName(v.HashringName())
	}
	v := reflect.ValueOf(id)
	switch {
	case !v.IsValid():
		return "", &NodeError{Reason: "nil", Err: ErrName}
	case v.Kind() == reflect.String:
		return checkName(v.String())
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10), nil
	case v.CanUint():
		return strconv.FormatUint(v.Uint(), 10), nil
	}
	b, err := appendName(nil, v)
	if err != nil {
		return "", err
	}
	return checkName(string(b))
}

// appendName appends a name for a comparable value that is made of others: each part
// after its length, so that no two values have one name.
func appendName(b []byte, v reflect.Value) ([]byte, error) {
	part := func(s string) ([]byte, error) {
		b = append(strconv.AppendInt(b, int64(len(s)), 10), ':')
		return append(b, s...), nil
	}
	var err error
	switch {
	case v.Kind() == reflect.String:
		return part(v.String())
	case v.CanInt():
		return part(strconv.FormatInt(v.Int(), 10))
	case v.CanUint() && v.Kind() != reflect.Uintptr:
		return part(strconv.FormatUint(v.Uint(), 10))
	case v.Kind() == reflect.Bool:
		return part(strconv.FormatBool(v.Bool()))
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if b, err = appendName(b, v.Field(i)); err != nil {
				return nil, err
			}
		}
		return b, nil
	case v.Kind() == reflect.Array:
		for i := range v.Len() {
			if b, err = appendName(b, v.Index(i)); err != nil {
				return nil, err
			}
		}
		return b, nil
	}
	return nil, &NodeError{Reason: fmt.Sprintf("a %s has no name that is the same in every process: give the node's type a method HashringName() string", v.Type()), Err: ErrName}
}

func checkName(name string) (string, error) {
	if name == "" || len(name) > MaxName {
		return "", &NodeError{Node: name[:min(len(name), 64)], Reason: fmt.Sprintf("%d bytes: a name has 1 to %d", len(name), MaxName), Err: ErrName}
	}
	return name, nil
}

// member is what algorithms know of a node. Members are sorted by name, and known by
// their number in that order.
type member struct {
	name     string
	seed     uint64  // hash of the name: all places of the member follow from it
	weight   float64 // in units; what the user said divided by Config.WeightUnit
	zone     string
	draining bool
}

// takes returns the weight with which a member takes keys.
func (m *member) takes() float64 {
	if m.draining {
		return 0
	}
	return m.weight
}

func checkMember(m *member) error {
	if !(m.weight >= MinWeight && m.weight <= MaxWeight) { // also refuses NaN
		return &NodeError{Node: m.name, Err: ErrWeight,
			Reason: fmt.Sprintf("%v units of weight: a weight is between 1/1024 and 1024 times Config.WeightUnit; to take a node's keys away, drain it", m.weight)}
	}
	return checkZone(m)
}

func checkZone(m *member) error {
	if m.zone == "" {
		return nil
	}
	parts := strings.Split(m.zone, "/")
	if len(m.zone) > MaxName || len(parts) > MaxDepth || slices.Contains(parts, "") {
		return &NodeError{Node: m.name, Err: ErrZone,
			Reason: fmt.Sprintf("%.64q: a zone is a path of 1 to %d names between slashes, %d bytes at most", m.zone, MaxDepth, MaxName)}
	}
	return nil
}

// checkMembers holds sorted members against each other, of which some are new.
func checkMembers(list []member, fresh []int) error {
	if len(list) > MaxNodes {
		return fmt.Errorf("%w: %d nodes, at most %d", ErrTooLarge, len(list), MaxNodes)
	}
	zoned, takes := 0, false
	for i := range list {
		m := &list[i]
		if i > 0 && m.name == list[i-1].name {
			return &NodeError{Node: m.name, Err: ErrDuplicate, Reason: "named twice: give every node a name of its own"}
		}
		if m.zone != "" {
			zoned++
		} else if zoned > 0 {
			zoned = -MaxNodes - 1
		}
		takes = takes || !m.draining
	}
	if !takes {
		return ErrNoNodes
	}
	if zoned != 0 && zoned != len(list) {
		i := slices.IndexFunc(list, func(m member) bool { return m.zone == "" })
		return &NodeError{Node: list[i].name, Err: ErrZone, Reason: "has no zone, while others have: give one to all or to none"}
	}
	return checkSeeds(list, fresh)
}

// checkSeeds refuses names that have one hash: their nodes would have the same places.
func checkSeeds(list []member, fresh []int) error {
	clash := func(i int) error {
		return &NodeError{Node: list[i].name, Err: ErrDuplicate, Reason: "another node's name has the same hash: rename one of them"}
	}
	if len(fresh) < 16 {
		for _, i := range fresh {
			for k := range list {
				if k != i && list[k].seed == list[i].seed {
					return clash(i)
				}
			}
		}
		return nil
	}
	seen := make(map[uint64]bool, len(list))
	for i := range list {
		if seen[list[i].seed] {
			return clash(i)
		}
		seen[list[i].seed] = true
	}
	return nil
}

func byName(a, b member) int { return cmp.Compare(a.name, b.name) }

// find returns the number of a member.
func find(list []member, name string) (int, bool) {
	return slices.BinarySearchFunc(list, name, func(m member, name string) int { return cmp.Compare(m.name, name) })
}

// equalWeights reports whether all members that take keys have one weight.
func equalWeights(list []member) bool {
	w := 0.0
	for i := range list {
		if t := list[i].takes(); t != 0 {
			if w != 0 && w != t {
				return false
			}
			w = t
		}
	}
	return true
}

func totalWeight(list []member) float64 {
	sum := 0.0
	for i := range list {
		sum += list[i].takes()
	}
	return sum
}

// fair returns the share that each member should have.
func fair(list []member) []float64 {
	total := totalWeight(list)
	shares := make([]float64, len(list))
	for i := range list {
		shares[i] = list[i].takes() / total
	}
	return shares
}

// ln is the natural logarithm, in arithmetic that gives the same result everywhere:
// the conversions keep a compiler from fusing a multiplication with an addition.
func ln(x float64) float64 {
	m, e := math.Frexp(x)
	if m < math.Sqrt2/2 {
		m, e = m*2, e-1
	}
	s := (m - 1) / (m + 1)
	t := float64(s * s)
	// The series of the inverse hyperbolic tangent: |s| < 0.172.
	p := 1.0 / 21
	for d := 19; d >= 1; d -= 2 {
		p = float64(p*t) + 1/float64(d)
	}
	return float64(float64(2*s)*p) + float64(float64(e)*math.Ln2)
}
