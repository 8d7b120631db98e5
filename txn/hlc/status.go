package hlc

import "time"

// Status is what a clock knows at one moment.
type Status struct {
	Node      uint64
	Last      Timestamp // the highest that was given out or taken in; 0: none
	Wall      time.Time // what the machine's clock shows
	Physical  time.Time // the time that Now goes by: another while the machine's clock is not believed
	MaxOffset time.Duration
	Fenced    error        // as Check has it
	Refused   uint64       // timestamps that Update has refused
	Peers     []PeerStatus // ascending by node
}

// PeerStatus is what is known of the clock of a peer.
type PeerStatus struct {
	Node        uint64
	Known       bool          // it has answered lately, and soon enough; otherwise the rest is 0
	Offset      time.Duration // by how much its clock is ahead of this node's; below 0 it is behind
	Uncertainty time.Duration // by how much Offset may be wrong
	RoundTrip   time.Duration // of question and answer
	Age         time.Duration // of the answer
}

// Status returns what the clock knows.
func (c *Clock) Status() Status {
	s := Status{Node: c.cfg.Node, MaxOffset: c.cfg.MaxOffset, Refused: c.refused.Load()}
	s.Fenced = c.Check()
	s.Physical = time.Unix(0, c.physical()).UTC()
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.read()
	s.Last, s.Wall = c.Last(), time.Unix(0, now.wall).UTC()
	for i := range c.peers {
		p := &c.peers[i]
		ps := PeerStatus{Node: p.node}
		if c.limits.usable(&p.sample, now) {
			ps = PeerStatus{Node: p.node, Known: true, Offset: time.Duration(p.sample.offset(now)), RoundTrip: time.Duration(p.sample.trip),
				Uncertainty: time.Duration(p.sample.uncertainty(now, c.limits.drift)), Age: time.Duration(now.mono - p.sample.at)}
		}
		s.Peers = append(s.Peers, ps)
	}
	return s
}
