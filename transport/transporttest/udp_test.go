package transporttest_test

import "testing"

// TestUDP runs the suite over the transport of the example.
func TestUDP(t *testing.T) { proveUDP(t) }
