package grouptest

import (
	"testing"

	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/transporttest"
)

// The network is a transport as any other while it is told nothing else.
func TestNetwork(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Opener {
		n := newNetwork(transporttest.Nodes)
		return func(node uint64) transport.Transport { return n.open(node) }
	})
}
