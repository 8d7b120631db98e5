package sim

import "time"

// clock is a node's own. It runs faster or slower than the world's (drift). The clock on
// the wall, beside, may be off and be set while it runs.
type clock struct {
	since  time.Duration // the world's time when this speed began
	base   time.Duration // what the monotonic clock showed then
	drift  float64       // so much faster: 0.01 is a hundredth
	jumped time.Duration // by how much the clock on the wall is off
}

// at returns what the monotonic clock shows.
func (c *clock) at(now time.Duration) time.Duration {
	d := now - c.since
	if c.drift == 0 {
		return c.base + d
	}
	return c.base + d + time.Duration(float64(d)*c.drift)
}

// takes returns how much of the world's time passes until the clock has gone on by d: a timer is not early, by its own clock. One that was
// would find, again and again, that something is left, and the world would not go on.
func (c *clock) takes(now, d time.Duration) time.Duration {
	if c.drift == 0 || d <= 0 || d > farAway {
		return d
	}
	takes, end := time.Duration(float64(d)/(1+c.drift)), c.at(now)+d
	for takes > 0 && c.at(now+takes-1) >= end {
		takes--
	}
	for c.at(now+takes) < end {
		takes++
	}
	return takes
}

// farAway is how far floating point counts nanoseconds: more than a hundred days, beyond all simulations. What is farther takes as long as it says.
const farAway = 1 << 53

func (c *clock) setDrift(now time.Duration, drift float64) {
	c.base, c.since, c.drift = c.at(now), now, drift
}
