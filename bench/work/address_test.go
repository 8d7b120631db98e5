package work_test

import (
	"net"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/bench/work"
)

func TestFreeAddresses(t *testing.T) {
	list, err := work.FreeAddresses(50)
	require.NoError(t, err)
	require.Len(t, list, 50)
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(list))), 50)
	for _, address := range list {
		l, err := net.Listen("tcp", address)
		require.NoError(t, err)
		require.NoError(t, l.Close())
	}
}
