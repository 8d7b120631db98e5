package memory_test

import "time"

const (
	waitFor = 10 * time.Second
	tick    = time.Millisecond
)
