package system

import (
	"context"
	"time"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/sim"
	"github.com/synod-go/synod/storage"
)

// vanish takes records of the log off some disks, as if they had never been written: no more of them than
// the group can do without at once. Others have what was there, so that these nodes come back.
func (s *run) vanish(ctx context.Context, limit int) {
	r, w := s.w.Rand(), s.w
	for len(s.invariants.latest().Members) == 0 && s.leader() == 0 && !s.calm {
		_ = sim.Sleep(ctx, election) // a group that has not begun does not begin without all
	}
	for nodes := r.Perm(len(w.Nodes())); limit > 0 && !s.calm; limit-- {
		_ = sim.Sleep(ctx, time.Duration(r.Int64N(int64(trouble/2))))
		n := w.Nodes()[nodes[0]]
		nodes = nodes[1:]
		keys := records(n.Disk.Durable())
		if len(keys) == 0 || n.Damaged() != "" {
			continue
		}
		n.Crash()
		var b storage.Batch
		for range 1 + r.IntN(3) {
			b.Delete(keys[r.IntN(len(keys))])
		}
		n.Disk.Write(&b)
		w.Logf("node %d lacks %d of its %d records of values", n.ID, b.Len(), len(keys))
		n.Start()
	}
}

// dispensable returns how many of the founders an atlas lets be damaged.
func (s *run) dispensable(atlas sim.Atlas) int {
	if atlas.Damaged == 0 {
		return int(s.options.founders-1) / 2
	}
	return max(atlas.Damaged, 0)
}

// records returns the keys of a log's records in a store.
func records(store storage.Store) [][]byte {
	it, err := store.Scan(replica.GroupKeys(1).ProtocolRange('l'))
	if err != nil {
		return nil
	}
	keys, _, err := storage.Collect(it)
	if err != nil {
		return nil
	}
	return keys
}
