package tcp_test

import (
	"errors"
	"testing"

	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/transporttest"
)

// muxed is a channel that closes its Mux with itself, so that the node can be opened
// again.
type muxed struct {
	channel
	mux *transport.Mux
}

type channel interface {
	transport.Transport
	transport.Bulker
	transport.Reporter
}

func (m muxed) Close() error { return errors.Join(m.channel.Close(), m.mux.Close()) }

func TestTransportThroughAMux(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Opener {
		n := newNetwork(t, secure(t))
		return func(node uint64) transport.Transport {
			mux := transport.NewMux(n.listen(node))
			return muxed{mux.Channel(1).(channel), mux}
		}
	})
}
