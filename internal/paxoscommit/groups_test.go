package paxoscommit

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/wire"
)

// TestGroupsAreThoseThatWereWritten: whatever list they are compared with, to save another one.
func TestGroupsAreThoseThatWereWritten(t *testing.T) {
	lists := [][]uint32{nil, {0}, {1}, {0, 1}, {0, 2}, {1, 2}, {0, 1, 2}, {0, 1, 2, 3, 4, 5, 6, 7}, {0, 1, 2, 3, 4, 5, 6, 8}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}}
	for _, want := range lists {
		for _, like := range lists {
			r := wire.NewReader(AppendGroups(nil, want))
			got := ReadGroups(&r, like)
			require.NoError(t, r.End())
			require.Equal(t, want, got, "like %v", like)
			if len(want) > 0 && len(like) > 0 && &got[0] == &like[0] {
				require.Equal(t, want, like)
			}
		}
	}
}
