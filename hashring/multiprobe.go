package hashring

import (
	"fmt"
	"math"
	"slices"
)

// MultiProbe is multi-probe consistent hashing: a node has one place on the circle,
// a hash is tried at several, and belongs to the node that comes soonest after one of
// them. It needs little memory and pays with time: a search for each probe. It takes
// nodes of equal weight.
type MultiProbe struct {
	// Probes is how many places a hash is tried at. Default 21, with which the largest
	// share is 1.05 times the mean. At most 1,024.
	Probes int
}

func (m MultiProbe) probes() int {
	if m.Probes == 0 {
		return 21
	}
	return m.Probes
}

func (m MultiProbe) check() error {
	if m.Probes < 0 || m.Probes > 1024 {
		return &ConfigError{"MultiProbe.Probes", fmt.Sprintf("%d: between 1 and 1,024, or 0 for 21", m.Probes)}
	}
	return nil
}

func (m MultiProbe) filled() Algorithm                   { return MultiProbe{Probes: m.probes()} }
func (m MultiProbe) code() byte                          { return 7 }
func (m MultiProbe) params() []uint64                    { return []uint64{uint64(m.probes())} }
func (m MultiProbe) cost(members int, _ float64) float64 { return 20 * float64(members) }

type multiProbe struct {
	*circle
	probes int
}

func (m MultiProbe) place(list []member) (placement, error) {
	if err := equalOnly(list, "MultiProbe"); err != nil {
		return nil, err
	}
	var tokens []token
	for i := range list {
		if list[i].takes() != 0 {
			tokens = append(tokens, token{placeOf(list[i].seed, 0), uint32(i)})
		}
	}
	tokens, _ = unshare(sortTokens(tokens))
	return &multiProbe{circleOf(tokens), m.probes()}, nil
}

// change places the members anew: each has one place only.
func (m *multiProbe) change(c *change) (placement, error) { return MultiProbe{m.probes}.place(c.now) }

func (m *multiProbe) appendState(b []byte) []byte { return b }

// probe returns where a hash is tried.
func probe(hash uint64, i int) uint64 { return fold(hash^uint64(i)*k3, k1) }

func (m *multiProbe) locate(hash uint64) uint32 {
	c := m.circle
	least, best := ^uint64(0), uint32(0)
	for i := range m.probes {
		p := probe(hash, i)
		k := c.find(p)
		if k == c.n {
			k = 0
		}
		if d := c.places[k] - p; d < least || i == 0 {
			least, best = d, c.owners[k]
		}
	}
	return best
}

// next finds the place that is nearest after a probe, but farther than the last one:
// a is whether there is a last one, b its distance.
func (m *multiProbe) next(hash uint64, at cursor) (uint32, cursor) {
	c := m.circle
	least, best := ^uint64(0), none
	for i := range m.probes {
		p := probe(hash, i)
		k := c.find(p)
		for range c.n {
			if k >= c.n {
				k -= c.n
			}
			if d := c.places[k] - p; at.a == 0 || d > at.b {
				if d < least || best == none {
					least, best = d, c.owners[k]
				}
				break
			}
			k++
		}
	}
	if best == none {
		return none, at
	}
	return best, cursor{1, least, 0, 0}
}

// expected returns the share of each of n members over evenly spread hashes, which
// follows from the gaps before the places: a probe is farther than d from the next
// place with probability F(d) = Σ max(0, gap-d), and a member is hit at distance d if
// one of the probes is, and all others are farther.
func (m *multiProbe) expected(n int) []float64 {
	c := m.circle
	type gap struct {
		length float64
		owner  uint32
	}
	gaps := make([]gap, c.n)
	for i := range gaps {
		before := c.places[(i+c.n-1)%c.n]
		length := float64(c.places[i]-before) / (1 << 64)
		if c.n == 1 {
			length = 1
		}
		gaps[i] = gap{length, c.owners[i]}
	}
	slices.SortFunc(gaps, func(a, b gap) int {
		if a.length < b.length {
			return -1
		}
		return 1
	})
	shares := make([]float64, n)
	k := float64(m.probes)
	reached, rest, from := 0.0, 1.0, 0.0 // the integral up to from; F(from)
	for i, g := range gaps {
		live := float64(len(gaps) - i)
		after := max(0, rest-live*(g.length-from))
		reached += (math.Pow(rest, k) - math.Pow(after, k)) / live
		rest, from = after, g.length
		shares[g.owner] += reached
	}
	return shares
}
