package commitmenttest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// RequireWhole requires that a message is decoded as it was encoded, and that what is cut off is refused as malformed.
func RequireWhole[M any](t *testing.T, m M, encode func([]byte, M) []byte, decode func([]byte) (M, error), malformed error) {
	b := encode(nil, m)
	got, err := decode(b)
	require.NoError(t, err)
	require.Equal(t, m, got)
	for i := range b {
		_, err := decode(b[:i])
		require.ErrorIs(t, err, malformed, i)
	}
}
