package statemachine

// SetLimits makes batches and commands small.
func (m *Machine) SetLimits(maxBatch, maxCommand int) {
	m.maxBatch, m.maxCommand = maxBatch, maxCommand
}
