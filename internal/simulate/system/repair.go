package system

import (
	"context"
	"errors"
	"time"

	"github.com/synod-go/synod/sim"
	"github.com/synod-go/synod/storage"
)

// repaired waits until a node on whose disk a bit has flipped takes part again, and reports whether
// it does. If the bit was one of the log or of a snapshot, and others have what was there, it must.
func (s *run) repaired(limit context.Context, n *sim.Node) bool {
	var corrupt *storage.CorruptError
	again := false
	for limit.Err() == nil {
		g := s.groups[n.ID]
		switch {
		case g != nil && errors.Is(g.Err(), storage.ErrCorrupt):
			// It was found when it was read. Somebody starts the node again.
			if again {
				return false // it is another record that can't be repaired, found only while it runs
			}
			again = true
			delete(s.groups, n.ID)
			n.Crash()
			n.Start()
		case g != nil:
			if short, cancel := sim.WithTimeout(limit, election); g.Barrier(short) == nil {
				cancel()
				return true
			} else {
				cancel()
			}
		}
		if errors.As(n.Err(), &corrupt) && !repairable(corrupt.Key) {
			return false
		}
		_ = sim.Sleep(limit, 10*time.Millisecond)
	}
	if !errors.As(n.Err(), &corrupt) && s.groups[n.ID] == nil {
		return false
	}
	if s.invariants.rules.alone(n.ID) {
		return false // nobody else may have had the end of its log
	}
	s.w.Failf("a damaged record is repaired", "node %d does not come back: %v", n.ID, n.Err())
	return false
}

// repairable reports whether a record's kind is one that peers have too: of the log, or of a snapshot.
func repairable(key []byte) bool {
	if len(key) < 10 || key[0] != 'g' {
		return false
	}
	switch key[9] {
	case 's', 'c', 'k':
		return true
	case 'x':
		return len(key) > 10 && key[10] == 'l'
	}
	return false
}
