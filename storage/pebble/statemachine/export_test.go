package statemachine

import "time"

// SetLimits makes batches and commands small.
func (m *Machine) SetLimits(maxBatch, maxCommand int) {
	m.maxBatch, m.maxCommand = maxBatch, maxCommand
}

// Impatient makes what is tried again follow soon.
func Impatient(c Config) Config {
	c.pause = time.Microsecond
	return c
}
