//synod:core

package hlc

import "github.com/synod-go/synod/internal/probe"

// All times here are nanoseconds: those of a clock on the wall since 1970, those of a monotonic clock since the start.

// reading is what both clocks of a node show at one moment.
type reading struct{ wall, mono int64 }

// sample is what one answer of a peer says. It tells the peer's clock on the wall from this node's monotonic one, so that it stays
// what it is when this node's clock on the wall is set.
type sample struct {
	known bool
	ahead int64 // the peer's wall less the monotonic clock
	trip  int64 // the round trip
	at    int64 // when the answer came, on the monotonic clock
}

// measure makes a sample of an answer: the peer's clock showed theirs at some moment between the question, asked, and now. In the
// middle of it, it is wrong by half of the round trip at most. Nothing is asked of the network but that.
func measure(asked, now reading, theirs int64) sample {
	trip := now.mono - asked.mono
	// A monotonic clock stands still while the machine sleeps. The one on the wall does not, so that an answer
	// from before is not taken for one of now.
	if !probe.Bug("hlc: a machine never sleeps") {
		trip = max(trip, now.wall-asked.wall)
	}
	if probe.Bug("hlc: the way back takes no time") {
		return sample{known: true, ahead: theirs - now.mono, trip: trip, at: now.mono}
	}
	return sample{known: true, ahead: theirs + trip/2 - now.mono, trip: trip, at: now.mono}
}

// offset returns by how much the peer's clock is ahead of the one on this node's wall.
func (s *sample) offset(now reading) int64 { return s.ahead + now.mono - now.wall }

// uncertainty returns by how much offset may be wrong: half of the round trip, and what clocks may have drifted apart since it began.
func (s *sample) uncertainty(now reading, drift float64) int64 {
	if probe.Bug("hlc: an offset is exact") {
		return 0
	}
	return s.trip/2 + 1 + int64(drift*float64(now.mono-s.at+s.trip))
}

// limits are by what offsets are judged.
type limits struct {
	offset int64   // clocks may be so far apart
	drift  float64 // a monotonic clock may run so much faster or slower
	fresh  int64   // a sample is believed for so long
}

// comparison says how a node's clock stands to those of its peers.
type comparison struct {
	known int // peers whose clock is known to within the limit
	far   int // of these, those certainly further away than the limit
	near  int // those certainly within it
	least int // the nearest of those that are far; -1: there is none
}

// usable reports whether a sample says something about now.
func (l limits) usable(s *sample, now reading) bool {
	if !s.known || s.uncertainty(now, l.drift) > l.offset {
		return false
	}
	return now.mono-s.at <= l.fresh || probe.Bug("hlc: what a peer said is believed for ever")
}

// compare holds a reading against what peers have said.
func (l limits) compare(peers []peer, now reading) comparison {
	c := comparison{least: -1}
	var least int64
	for i := range peers {
		s := &peers[i].sample
		if !l.usable(s, now) {
			continue
		}
		c.known++
		offset, by := magnitude(s.offset(now)), s.uncertainty(now, l.drift)
		switch {
		case offset-by > l.offset:
			if c.far++; c.least < 0 || offset < least {
				c.least, least = i, offset
			}
		case offset+by <= l.offset:
			c.near++
		}
	}
	return c
}

// apart reports whether the clock is far from those of most peers. Who is right cannot be seen from two clocks alone: then neither is.
func (c comparison) apart() bool {
	if probe.Bug("hlc: one peer's clock is enough to be fenced") {
		return c.far > 0
	}
	return 2*c.far > c.known
}

// agrees reports whether most peers say that the clock is right.
func (c comparison) agrees() bool { return 2*c.near > c.known }

func magnitude(d int64) int64 { return max(d, -d) }

// peer is another node, whose clock is compared.
type peer struct {
	node     uint64
	sample   sample
	number   uint64  // of the question that has no answer; 0: there is none
	asked    reading // when
	returned bool    // it was asked because it asked, and no answer since was of use
}

// answered takes in an answer; false: it is none to the question that is open. One that was under way for too long says nothing, and
// does not take the place of one that says something.
func (p *peer) answered(f frame, now reading, l limits) bool {
	if p.number == 0 || p.number != f.number && !probe.Bug("hlc: an answer to an earlier question counts") {
		return false
	}
	p.number = 0
	if s := measure(p.asked, now, f.time); l.usable(&s, now) {
		p.sample, p.returned = s, false
	}
	return true
}
