package main

import (
	"hash/crc64"
	"slices"
	"sync"

	"github.com/buraksezer/consistent"
	maglev "github.com/dgryski/go-maglev"
	"github.com/edwingeng/doublejump"
	"github.com/golang/groupcache/consistenthash"
	kkdai "github.com/kkdai/maglev"
	jump "github.com/lithammer/go-jump-consistent-hash"
	serialx "github.com/serialx/hashring"
	"github.com/zeromicro/go-zero/core/hash"
	stathat "stathat.com/c/consistent"

	"github.com/synod-go/synod/hashring"
)

const (
	ours   = "github.com/synod-go/synod"
	points = 160
	slots  = 65537
)

var systems = []system{
	synod("synod Points", hashring.Points{}, "160 points a node"),
	synod("synod Allocated", hashring.Allocated{}, "64 points a node, tolerance 1 %"),
	synod("synod Maglev", hashring.Maglev{}, "65,537 slots"),
	synod("synod Asura", hashring.Asura{}, ""),
	synod("synod RendezvousTable", hashring.RendezvousTable{}, "65,536 slots"),
	synod("synod Rendezvous", hashring.Rendezvous{}, ""),
	synod("synod Jump", hashring.Jump{}, ""),
	synod("synod MultiProbe", hashring.MultiProbe{}, "21 probes"),
	{"stathat", "stathat.com/c/consistent", "160 points a node; locks itself", newStathat},
	{"serialx", "github.com/serialx/hashring", "its own number of points; a new ring for each change", newSerialx},
	{"groupcache", "github.com/golang/groupcache", "160 points a node; no removal: a new ring for each change", newGroupcache},
	{"go-zero", "github.com/zeromicro/go-zero", "160 points a node; locks itself", newGoZero},
	{"buraksezer", "github.com/buraksezer/consistent", "10,007 partitions, 160 points a node, load 1.25; locks itself", newBuraksezer},
	{"lithammer jump", "github.com/lithammer/go-jump-consistent-hash", "CRC-64; what leaves is replaced by the last; locked", newLithammer},
	{"dgryski maglev", "github.com/dgryski/go-maglev", "65,537 slots; key hashed by hashring; a new table for each change", newDgryski},
	{"kkdai maglev", "github.com/kkdai/maglev", "65,537 slots; locks itself", newKkdai},
	{"doublejump", "github.com/edwingeng/doublejump", "key hashed by hashring; locked", newDoublejump},
	{"AnchorHash", "", "written after the paper; capacity twice the nodes; key hashed by hashring; locked", newAnchor},
}

// synodRing is a ring of this library behind its Live.
type synodRing struct{ live *hashring.Live[string] }

func synod(name string, a hashring.Algorithm, setting string) system {
	return system{name, ours, setting, func(nodes []string) (subject, error) {
		r, err := hashring.New(hashring.Config{Algorithm: a}, hashring.Nodes(nodes...)...)
		if err != nil {
			return nil, err
		}
		return synodRing{hashring.NewLive(r)}, nil
	}}
}

func (s synodRing) get(key string) string { return s.live.Owner(key) }

func (s synodRing) update(change func(r *hashring.Ring[string]) (*hashring.Ring[string], error)) {
	if _, err := s.live.Update(change); err != nil {
		panic(err)
	}
}

func (s synodRing) add(node string) {
	s.update(func(r *hashring.Ring[string]) (*hashring.Ring[string], error) { return r.Add(hashring.Nodes(node)...) })
}

func (s synodRing) remove(node string) {
	s.update(func(r *hashring.Ring[string]) (*hashring.Ring[string], error) { return r.Remove(node) })
}

type stathatRing struct{ *stathat.Consistent }

func newStathat(nodes []string) (subject, error) {
	c := stathat.New()
	c.NumberOfReplicas = points
	c.Set(nodes)
	return stathatRing{c}, nil
}

func (s stathatRing) get(key string) string {
	node, err := s.Get(key)
	if err != nil {
		panic(err)
	}
	return node
}
func (s stathatRing) add(node string)    { s.Add(node) }
func (s stathatRing) remove(node string) { s.Remove(node) }

// locked guards a ring that does not do so itself.
type locked[T any] struct {
	mu   sync.RWMutex
	ring T
}

type serialxRing struct {
	locked[*serialx.HashRing]
}

func newSerialx(nodes []string) (subject, error) {
	return &serialxRing{locked[*serialx.HashRing]{ring: serialx.New(nodes)}}, nil
}

func (s *serialxRing) get(key string) string {
	s.mu.RLock()
	ring := s.ring
	s.mu.RUnlock()
	node, _ := ring.GetNode(key)
	return node
}

func (s *serialxRing) add(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ring = s.ring.AddNode(node)
}

func (s *serialxRing) remove(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ring = s.ring.RemoveNode(node)
}

// rebuilt is a ring of a package that can't change one: each change makes another,
// outside the lock.
type rebuilt[T any] struct {
	locked[T]
	nodes []string
	make  func(nodes []string) T
}

func (r *rebuilt[T]) swap(nodes []string) {
	ring := r.make(nodes)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring, r.nodes = ring, nodes
}

func (r *rebuilt[T]) add(node string) { r.swap(append(slices.Clip(r.nodes), node)) }

func (r *rebuilt[T]) remove(node string) {
	i := slices.Index(r.nodes, node)
	r.swap(slices.Delete(slices.Clone(r.nodes), i, i+1))
}

type groupcacheRing struct{ rebuilt[*consistenthash.Map] }

func newGroupcache(nodes []string) (subject, error) {
	g := &groupcacheRing{}
	g.make = func(nodes []string) *consistenthash.Map {
		m := consistenthash.New(points, nil)
		m.Add(nodes...)
		return m
	}
	g.swap(nodes)
	return g, nil
}

func (g *groupcacheRing) get(key string) string {
	g.mu.RLock()
	ring := g.ring
	g.mu.RUnlock()
	return ring.Get(key)
}

type goZeroRing struct{ *hash.ConsistentHash }

func newGoZero(nodes []string) (subject, error) {
	h := hash.NewCustomConsistentHash(points, nil)
	for _, n := range nodes {
		h.Add(n)
	}
	return goZeroRing{h}, nil
}

func (g goZeroRing) get(key string) string {
	node, _ := g.Get(key)
	return node.(string)
}
func (g goZeroRing) add(node string)    { g.Add(node) }
func (g goZeroRing) remove(node string) { g.Remove(node) }

type buraksezerRing struct{ *consistent.Consistent }

type memberName string

func (m memberName) String() string { return string(m) }

type hasher struct{}

func (hasher) Sum64(b []byte) uint64 { return hashring.HashBytes(b) }

func newBuraksezer(nodes []string) (subject, error) {
	members := make([]consistent.Member, len(nodes))
	for i, n := range nodes {
		members[i] = memberName(n)
	}
	return buraksezerRing{consistent.New(members, consistent.Config{Hasher: hasher{}, PartitionCount: 10007, ReplicationFactor: points, Load: 1.25})}, nil
}

func (b buraksezerRing) get(key string) string { return b.LocateKey([]byte(key)).String() }
func (b buraksezerRing) add(node string)       { b.Add(memberName(node)) }
func (b buraksezerRing) remove(node string)    { b.Remove(node) }

// lithammer's jump numbers buckets: who is in which is kept here.
type lithammerRing struct {
	locked[[]string]
	table *crc64.Table
}

func newLithammer(nodes []string) (subject, error) {
	return &lithammerRing{locked[[]string]{ring: slices.Clone(nodes)}, crc64.MakeTable(crc64.ECMA)}, nil
}

func (l *lithammerRing) get(key string) string {
	h := crc64.Checksum([]byte(key), l.table)
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.ring[jump.Hash(h, int32(len(l.ring)))]
}

func (l *lithammerRing) add(node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring = append(l.ring, node)
}

func (l *lithammerRing) remove(node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := len(l.ring) - 1
	l.ring[slices.Index(l.ring, node)] = l.ring[last]
	l.ring = l.ring[:last]
}

// named is a table that answers with numbers, and the names of these.
type named struct {
	table *maglev.Table
	names []string
}

type dgryskiRing struct{ rebuilt[named] }

func newDgryski(nodes []string) (subject, error) {
	d := &dgryskiRing{}
	d.make = func(nodes []string) named { return named{maglev.New(nodes, slots), nodes} }
	d.swap(nodes)
	return d, nil
}

func (d *dgryskiRing) get(key string) string {
	d.mu.RLock()
	ring := d.ring
	d.mu.RUnlock()
	return ring.names[ring.table.Lookup(hashring.HashString(key))]
}

type kkdaiRing struct{ *kkdai.Maglev }

func newKkdai(nodes []string) (subject, error) {
	m, err := kkdai.NewMaglev(slices.Clone(nodes), slots)
	return kkdaiRing{m}, err
}

func (k kkdaiRing) get(key string) string {
	node, err := k.Get(key)
	if err != nil {
		panic(err)
	}
	return node
}

func (k kkdaiRing) add(node string) {
	if err := k.Add(node); err != nil {
		panic(err)
	}
}

func (k kkdaiRing) remove(node string) {
	if err := k.Remove(node); err != nil {
		panic(err)
	}
}

type doublejumpRing struct{ locked[*doublejump.Hash] }

func newDoublejump(nodes []string) (subject, error) {
	d := &doublejumpRing{locked[*doublejump.Hash]{ring: doublejump.NewHash()}}
	for _, n := range nodes {
		d.ring.Add(n)
	}
	return d, nil
}

func (d *doublejumpRing) get(key string) string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.ring.Get(hashring.HashString(key)).(string)
}

func (d *doublejumpRing) add(node string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ring.Add(node)
}

func (d *doublejumpRing) remove(node string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ring.Remove(node)
}
