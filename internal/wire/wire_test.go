package wire

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// What was appended is read again, and of a part of it nothing that was not there.
func TestFields(t *testing.T) {
	b := binary.AppendUvarint(nil, math.MaxUint64)
	b = binary.AppendVarint(b, math.MinInt64)
	b = binary.BigEndian.AppendUint64(b, 7)
	b = append(b, 3)
	b = AppendBytes(b, "name")
	b = AppendBytes(b, []byte{})
	read := func(b []byte) error {
		r := NewReader(b)
		if u, v, f, one, name, empty := r.Uvarint(), r.Varint(), r.Uint64(), r.Byte(3), r.Bytes(4), r.Bytes(0); !r.Failed() {
			require.Equal(t, uint64(math.MaxUint64), u)
			require.Equal(t, int64(math.MinInt64), v)
			require.Equal(t, uint64(7), f)
			require.Equal(t, byte(3), one)
			require.Equal(t, "name", string(name))
			require.Nil(t, empty)
		}
		return r.End()
	}
	require.NoError(t, read(b))
	for i := range b {
		require.ErrorIs(t, read(b[:i]), ErrMalformed, i)
	}
	require.ErrorIs(t, read(append(b, 0)), ErrMalformed)
}

// What is beyond its limit is refused, and after that everything is zero.
func TestLimits(t *testing.T) {
	for name, fail := range map[string]func(r *Reader){
		"byte":         func(r *Reader) { require.Zero(t, r.Byte(6)) },
		"bytes":        func(r *Reader) { require.Nil(t, r.Bytes(6)) },
		"bytes beyond": func(r *Reader) { require.Nil(t, r.Bytes(10)) },
		"count":        func(r *Reader) { require.Zero(t, r.Count(1)) },
		"caller":       func(r *Reader) { r.Fail() },
	} {
		r := NewReader([]byte{7, 1, 2, 3})
		require.Equal(t, []byte{7, 1, 2, 3}, r.Rest(), name)
		fail(&r)
		require.True(t, r.Failed(), name)
		require.Empty(t, r.Rest(), name)
		require.Zero(t, r.Len(), name)
		require.Zero(t, r.Varint(), name)
		require.Zero(t, r.Uvarint(), name)
		require.ErrorIs(t, r.End(), ErrMalformed, name)
	}
}
