package kv

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/paxoscommit"
)

// seeds are commands of all kinds.
func seeds() [][]byte {
	id := paxoscommit.ID{Session: paxoscommit.Session{Opened: 3, Random: 4}, Counter: 2}
	p := prepare{id: id, floor: 1, age: 5, now: 6, readAt: 7, groups: []uint32{0, 2}, reads: []string{"a", "b"}, ranges: []keyRange{{"c", "d"}, {"e", ""}},
		expected: []expectation{{key: "f", value: []byte("1")}, {key: "g", absent: true}}, writes: []write{{key: "a", value: []byte("2")}, {key: "z", deleted: true}}}
	alone := p
	alone.groups, alone.readAt = []uint32{0}, 100
	return [][]byte{
		appendPrepare(nil, &p), appendPrepare(nil, &alone), appendClose(nil, id, p.groups, 9),
		appendResolve(nil, id.Session, 2, 9, []resolution{{id, paxoscommit.Committed, 9, p.groups}}), appendFinish(nil, id),
		appendReserve(nil, chain{1, 2}, 3, 4, []string{"a"}), appendAdvance(nil, 10), appendCollect(nil, 10, 10),
	}
}

// FuzzApply has a machine apply commands that may be none: it does not panic, and what it has then can be captured and restored.
func FuzzApply(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, command []byte) {
		s := newState()
		for _, other := range seeds()[:2] {
			s.apply(other)
		}
		a := s.apply(command)
		_, err := readAnswer(a.append(nil))
		require.NoError(t, err)
		b := snapshotOf(t, s)
		other, err := readSnapshot(bytes.NewReader(b))
		require.NoError(t, err)
		require.Equal(t, b, snapshotOf(t, other))
		for _, next := range seeds() {
			require.Equal(t, s.apply(next).append(nil), other.apply(next).append(nil))
		}
	})
}

// FuzzRestore has a machine restore what may be no snapshot.
func FuzzRestore(f *testing.F) {
	s := newState()
	var b bytes.Buffer
	for _, c := range seeds() {
		s.apply(c)
		b.Reset()
		_, _ = s.snapshot().WriteTo(&b)
		f.Add(bytes.Clone(b.Bytes()))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := NewMachine()
		if err := m.Restore(bytes.NewReader(b)); err != nil {
			return
		}
		for _, c := range seeds() {
			m.Apply(1, c)
		}
		var again bytes.Buffer
		_, err := m.state.snapshot().WriteTo(&again)
		require.NoError(t, err)
	})
}

// FuzzAnswer has a client read what may be no answer.
func FuzzAnswer(f *testing.F) {
	s := newState()
	for _, c := range seeds() {
		f.Add(s.apply(c).append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := readAnswer(b)
		if err == nil {
			again, err := readAnswer(a.append(nil))
			require.NoError(t, err)
			require.Equal(t, a, again)
		}
	})
}
