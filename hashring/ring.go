package hashring

import (
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"
)

// Config is how a ring places its nodes. The zero value is a classic ring of 160
// points a node.
type Config struct {
	// Algorithm places the nodes. Default: Points{}. See the package comment for which
	// to take.
	Algorithm Algorithm

	// WeightUnit is the weight that counts as one node of ordinary size: such a node
	// has Points.PerNode points, or one slot of Asura. Default 1. Rule of thumb: the
	// usual weight, if weights are gigabytes or the like.
	WeightUnit float64

	// MaxPerZone is how many replicas of a key may be in one outermost failure domain.
	// Default 1: more replicas than zones are refused. It does nothing in a ring
	// without zones.
	MaxPerZone int
}

func (c Config) filled() (Config, error) {
	if c.Algorithm == nil {
		c.Algorithm = Points{}
	}
	if c.WeightUnit == 0 {
		c.WeightUnit = 1
	}
	if c.MaxPerZone == 0 {
		c.MaxPerZone = 1
	}
	if !(c.WeightUnit > 0) || math.IsInf(c.WeightUnit, 0) {
		return c, &ConfigError{"Config.WeightUnit", fmt.Sprintf("%v: a positive number, or 0 for 1", c.WeightUnit)}
	}
	if c.MaxPerZone < 0 {
		return c, &ConfigError{"Config.MaxPerZone", fmt.Sprintf("%d: 1 or more, or 0 for 1", c.MaxPerZone)}
	}
	if err := c.Algorithm.check(); err != nil {
		return c, err
	}
	c.Algorithm = c.Algorithm.filled()
	return c, nil
}

// Ring says which node owns which key. It is a value that never changes: a change
// makes another ring, with a higher version. All methods may be called concurrently.
// A Ring is made by [New], [Decode] and the methods that change one; at least one of
// its nodes takes keys.
type Ring[N any] struct {
	placed      placement
	ids         []N // by number
	list        []member
	weights     []float64 // as the user gave them
	zones       *zones
	config      Config
	version     uint64
	fingerprint func() uint64
}

// New makes a ring of version 1. The order of the nodes is of no consequence. Errors:
// [ConfigError], [NodeError], [ErrNoNodes], [ErrTooLarge].
func New[N any](config Config, nodes ...Node[N]) (*Ring[N], error) {
	config, err := config.filled()
	if err != nil {
		return nil, err
	}
	r := &Ring[N]{config: config, version: 1}
	if err := r.enter(nodes); err != nil {
		return nil, err
	}
	if r.placed, err = config.Algorithm.place(r.list); err != nil {
		return nil, err
	}
	r.finish()
	return r, nil
}

// entry is a node on its way into a ring.
type entry[N any] struct {
	member
	id    N
	given float64 // the weight as the user gave it
}

// entryOf checks what can be checked of a node alone.
func (r *Ring[N]) entryOf(node Node[N]) (entry[N], error) {
	name, err := nameOf(node.ID)
	if err != nil {
		return entry[N]{}, err
	}
	e := entry[N]{id: node.ID, given: node.Weight, member: member{
		name: name, seed: HashString(name), weight: node.Weight / r.config.WeightUnit, zone: node.Zone, draining: node.Draining,
	}}
	return e, checkMember(&e.member)
}

// enter adds nodes to the members of a ring that nobody knows yet.
func (r *Ring[N]) enter(nodes []Node[N]) error {
	entries := make([]entry[N], 0, len(nodes))
	for _, node := range nodes {
		e, err := r.entryOf(node)
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry[N]) int { return byName(a.member, b.member) })
	size := len(r.list) + len(entries)
	ids, list, weights := make([]N, 0, size), make([]member, 0, size), make([]float64, 0, size)
	fresh := make([]int, 0, len(entries))
	i := 0
	for _, e := range entries {
		for ; i < len(r.list) && r.list[i].name <= e.name; i++ {
			ids, list, weights = append(ids, r.ids[i]), append(list, r.list[i]), append(weights, r.weights[i])
		}
		fresh = append(fresh, len(list))
		ids, list, weights = append(ids, e.id), append(list, e.member), append(weights, e.given)
	}
	r.ids, r.list, r.weights = append(ids, r.ids[i:]...), append(list, r.list[i:]...), append(weights, r.weights[i:]...)
	return checkMembers(r.list, fresh)
}

// finish completes a ring whose members are placed.
func (r *Ring[N]) finish() {
	r.zones = makeZones(r.list, r.config.MaxPerZone)
	r.fingerprint = sync.OnceValue(func() uint64 { return HashBytes(r.appendBody(nil)) })
}

// changed returns the next version with other members.
func (r *Ring[N]) changed(alter func(next *Ring[N]) error) (*Ring[N], error) {
	next := &Ring[N]{ids: r.ids, list: slices.Clone(r.list), weights: slices.Clone(r.weights), config: r.config, version: r.version + 1}
	err := alter(next)
	if err != nil {
		return nil, err
	}
	if next.placed, err = r.placed.change(compare(r.list, next.list)); err != nil {
		return nil, err
	}
	next.finish()
	return next, nil
}

// Add returns the next version, with further nodes. Errors: [NodeError] (bad or
// already a member), [ErrTooLarge].
func (r *Ring[N]) Add(nodes ...Node[N]) (*Ring[N], error) {
	return r.changed(func(next *Ring[N]) error { return next.enter(nodes) })
}

// each calls do with the number of each node.
func (r *Ring[N]) each(ids []N, do func(i int)) error {
	for _, id := range ids {
		name, err := nameOf(id)
		if err != nil {
			return err
		}
		i, ok := find(r.list, name)
		if !ok {
			return &NodeError{Node: name, Err: ErrUnknownNode, Reason: "it is not a member of this version"}
		}
		do(i)
	}
	if !slices.ContainsFunc(r.list, func(m member) bool { return !m.draining }) {
		return ErrNoNodes
	}
	return nil
}

// Remove returns the next version, without some nodes. Errors: [NodeError] (not a
// member), [ErrNoNodes] if none would be left that takes keys.
func (r *Ring[N]) Remove(ids ...N) (*Ring[N], error) {
	return r.changed(func(next *Ring[N]) error {
		gone := make([]bool, len(next.list))
		if err := next.each(ids, func(i int) { gone[i] = true }); err != nil {
			return err
		}
		next.ids = make([]N, 0, len(r.ids))
		next.list, next.weights = next.list[:0], next.weights[:0]
		for i := range r.list {
			if !gone[i] {
				next.ids = append(next.ids, r.ids[i])
				next.list = append(next.list, r.list[i])
				next.weights = append(next.weights, r.weights[i])
			}
		}
		return next.each(nil, nil)
	})
}

// Reweight returns the next version, in which a node has another weight. Errors:
// [NodeError] (not a member, bad weight), [ErrTooLarge].
func (r *Ring[N]) Reweight(id N, weight float64) (*Ring[N], error) {
	return r.changed(func(next *Ring[N]) error {
		var bad error
		err := next.each([]N{id}, func(i int) {
			next.list[i].weight, next.weights[i] = weight/r.config.WeightUnit, weight
			bad = checkMember(&next.list[i])
		})
		if err != nil {
			return err
		}
		return bad
	})
}

// Drain returns the next version, in which nodes stay members and take no keys: their
// keys go where they would go if the nodes were removed. Errors: [NodeError] (not a
// member), [ErrNoNodes].
func (r *Ring[N]) Drain(ids ...N) (*Ring[N], error) { return r.draining(ids, true) }

// Undrain returns the next version, in which nodes that were draining take keys
// again; with every algorithm but [Jump], [Asura] and [Allocated], the same ones as
// before if nothing else changed. Errors: [NodeError] (not a member).
func (r *Ring[N]) Undrain(ids ...N) (*Ring[N], error) { return r.draining(ids, false) }

func (r *Ring[N]) draining(ids []N, drain bool) (*Ring[N], error) {
	return r.changed(func(next *Ring[N]) error {
		return next.each(ids, func(i int) { next.list[i].draining = drain })
	})
}

// Rebalance returns the next version, in which the shares of an [Allocated] ring are
// within its tolerance again, at the price of moving some keys between nodes that
// stay. Other algorithms have nothing to set right: their next version is the same.
func (r *Ring[N]) Rebalance() (*Ring[N], error) {
	next := &Ring[N]{placed: r.placed, ids: r.ids, list: r.list, weights: r.weights, config: r.config, version: r.version + 1}
	if a, ok := r.placed.(*allocated); ok {
		var err error
		if next.placed, err = a.rebalance(r.list); err != nil {
			return nil, err
		}
	}
	next.finish()
	return next, nil
}

// Version returns the number of the version: 1 for a new ring, one more for each
// change.
func (r *Ring[N]) Version() uint64 { return r.version }

// Fingerprint returns a hash of everything that decides who owns what, and of nothing
// else: two rings of one fingerprint, whatever their versions, give the same answers.
func (r *Ring[N]) Fingerprint() uint64 { return r.fingerprint() }

// Config returns the configuration, with defaults filled in.
func (r *Ring[N]) Config() Config { return r.config }

// Len returns the number of nodes, draining ones included.
func (r *Ring[N]) Len() int { return len(r.ids) }

// TableBytes returns how many bytes the tables that look-ups read take, without the
// list of the nodes.
func (r *Ring[N]) TableBytes() int { return r.placed.size() }

// Nodes returns the nodes by name. The slice is the caller's.
func (r *Ring[N]) Nodes() []Node[N] {
	nodes := make([]Node[N], len(r.ids))
	for i := range nodes {
		nodes[i] = r.node(i)
	}
	return nodes
}

func (r *Ring[N]) node(i int) Node[N] {
	return Node[N]{ID: r.ids[i], Weight: r.weights[i], Zone: r.list[i].zone, Draining: r.list[i].draining}
}

// Node returns a member.
func (r *Ring[N]) Node(id N) (node Node[N], ok bool) {
	name, err := nameOf(id)
	if err != nil {
		return node, false
	}
	i, ok := find(r.list, name)
	if !ok {
		return node, false
	}
	return r.node(i), true
}

// Owner returns the node that owns a key. It allocates nothing.
func (r *Ring[N]) Owner(key string) N { return r.ids[r.placed.locate(HashString(key))] }

// OwnerBytes is [Ring.Owner] for bytes: equal contents have the same owner.
func (r *Ring[N]) OwnerBytes(key []byte) N { return r.ids[r.placed.locate(HashBytes(key))] }

// OwnerHash returns the node that owns a hash. Hashes are to be spread evenly over
// the numbers: [HashUint64] does that for those that are not.
func (r *Ring[N]) OwnerHash(hash uint64) N { return r.ids[r.placed.locate(hash)] }

// Walk returns the nodes that take keys, in the order in which a hash prefers them,
// its owner first, without regard to zones. Whoever can't reach one goes on to the
// next. It allocates a bit for each node.
func (r *Ring[N]) Walk(hash uint64) iter.Seq[N] {
	return func(yield func(N) bool) {
		for i := range r.walk(hash) {
			if !yield(r.ids[i]) {
				return
			}
		}
	}
}

// walk is Walk by number.
func (r *Ring[N]) walk(hash uint64) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		left := r.zones.active
		seen := make([]uint64, (len(r.ids)+63)/64)
		at := cursor{}
		for left > 0 {
			var m uint32
			if m, at = r.placed.next(hash, at); m == none {
				break
			}
			if seen[m/64]&(1<<(m%64)) != 0 {
				continue
			}
			seen[m/64] |= 1 << (m % 64)
			left--
			if !yield(m) {
				return
			}
		}
		for i := 0; left > 0 && i < len(r.list); i++ {
			if m := uint32(i); r.list[i].takes() != 0 && seen[m/64]&(1<<(m%64)) == 0 {
				left--
				if !yield(m) {
					return
				}
			}
		}
	}
}

// Choose returns the least loaded of the first d nodes that a hash prefers: those who
// look for the key know d places to look at. Load is divided by the node's weight;
// of equal ones, the first. d below 1 counts as 1, and above the number of nodes as
// all. load is called once for each; it may be called concurrently with everything.
func (r *Ring[N]) Choose(hash uint64, d int, load func(node N) float64) N {
	var chosen [8]uint32
	n := 0
	best, least := uint32(0), math.Inf(1)
	try := func(m uint32) {
		if l := load(r.ids[m]) / r.list[m].weight; n == 0 || l < least {
			best, least = m, l
		}
		n++
	}
	if d <= len(chosen) {
		at := cursor{}
		for n < d || n == 0 {
			var m uint32
			if m, at = r.placed.next(hash, at); m == none {
				break
			}
			if !slices.Contains(chosen[:n], m) {
				chosen[n] = m
				try(m)
			}
			if n == r.zones.active {
				break
			}
		}
		if n >= min(d, r.zones.active) {
			return r.ids[best]
		}
		n = 0
	}
	for m := range r.walk(hash) {
		if try(m); n >= d {
			break
		}
	}
	return r.ids[best]
}
