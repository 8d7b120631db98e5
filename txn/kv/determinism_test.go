package kv

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/paxoscommit"
)

// TestARestoredReplicaCollectsTheSame: a replica that has restored a snapshot and one that has applied all commands remove the same versions
// with each command that collects, or they vote differently later.
func TestARestoredReplicaCollectsTheSame(t *testing.T) {
	s, counter := newState(), uint64(0)
	commit := func(readAt uint64, reads []string, writes ...write) []byte {
		counter++
		return appendPrepare(nil, &prepare{id: paxoscommit.ID{Session: paxoscommit.Session{Opened: 1, Random: 1}, Counter: counter}, floor: counter,
			groups: []uint32{0}, readAt: readAt, reads: reads, writes: writes})
	}
	// A tombstone that is collected while its key has a value again.
	s.apply(commit(0, nil, write{key: "k", value: []byte("1")}))
	s.apply(commit(0, nil, write{key: "k", deleted: true}))
	deleted := s.clock
	s.apply(commit(0, nil, write{key: "k", value: []byte("2")}))
	s.apply(appendCollect(nil, deleted, 0))
	// As much as one command collects; the last of it is another tombstone.
	var first, second []write
	for i := range collectAtATime - 2 {
		w := write{key: fmt.Sprintf("a%04d", i), value: []byte("1")}
		first, second = append(first, w), append(second, w)
	}
	s.apply(commit(0, nil, append(first, write{key: "z", value: []byte("1")})...))
	s.apply(commit(0, nil, second...))
	s.apply(commit(0, nil, write{key: "z", deleted: true}))

	restored, err := readSnapshot(bytes.NewReader(snapshotOf(t, s)))
	require.NoError(t, err)
	both := func(command []byte) answer {
		a, b := s.apply(command), restored.apply(command)
		require.Equal(t, a, b)
		return a
	}
	both(appendCollect(nil, s.clock, 0))
	readAt := s.clock
	both(commit(0, nil, write{key: "z", deleted: true}))
	both(commit(readAt, []string{"z"}, write{key: "y", value: []byte("1")}))
	require.Equal(t, snapshotOf(t, s), snapshotOf(t, restored))
}
