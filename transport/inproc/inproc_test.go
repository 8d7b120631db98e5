package inproc_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/transport/transporttest"
)

func TestTransport(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Opener {
		network, err := inproc.New(t.Context(), inproc.Config{})
		require.NoError(t, err)
		return func(node uint64) transport.Transport {
			tr, err := network.Open(node)
			require.NoError(t, err)
			return tr
		}
	})
}
