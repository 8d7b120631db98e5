package kv

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/synod-go/synod/internal/paxoscommit"
)

// BenchmarkApply is what a group's state machine does for a transfer between two of 10,000 accounts: where the group is alone, and where there are
// two, with the outcome that follows.
func BenchmarkApply(b *testing.B) {
	for _, groups := range []int{1, 2} {
		b.Run(fmt.Sprintf("groups=%d", groups), func(b *testing.B) {
			s := newState()
			key := func(i int) string { return string(binary.BigEndian.AppendUint64(nil, uint64(i%10000))) }
			session := paxoscommit.Session{Opened: 1, Random: 1}
			numbers := []uint32{0, 1}[:groups]
			var commands [][]byte
			for i := range b.N {
				id := paxoscommit.ID{Session: session, Counter: uint64(i + 1)}
				p := prepare{id: id, floor: uint64(i + 1), age: 1, now: uint64(i + 1), readAt: uint64(i + 1), groups: numbers}
				from, to := key(7*i), key(7*i+1+i%13)
				p.reads = []string{from, to}
				p.writes = []write{{key: from, value: make([]byte, 8)}, {key: to, value: make([]byte, 8)}}
				commands = append(commands, appendPrepare(nil, &p))
				if groups > 1 {
					commands = append(commands, appendResolve(nil, session, uint64(i+1), 0, []resolution{{id, paxoscommit.Committed, uint64(i + 2), numbers}}))
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i, c := range commands {
				_ = s.apply(c).append(nil)
				if i%1000 == 0 {
					s.collect(s.clock - 100)
				}
			}
		})
	}
}
