package pebble

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/synod-go/synod/storage"
)

// space watches how much room is left on the disk.
type space struct {
	fs    vfs.FS
	dir   string
	min   int64 // bytes; 0: don't watch
	guard *guard
	log   *slog.Logger
	start time.Time

	written atomic.Int64 // bytes committed since the last look
	looked  atomic.Int64 // when that was, in nanoseconds since start
	low     atomic.Bool

	mu sync.Mutex // serializes looks
}

// While there is room, the next look is due after this many bytes or this time,
// whichever is first: both far below what MinFreeBytes has in reserve.
const (
	lookBytes = 1 << 20
	lookEvery = int64(time.Second)
)

// admit says whether a batch of so many bytes may be written.
func (s *space) admit(b *storage.Batch) error {
	if s.min == 0 {
		return nil
	}
	now := int64(time.Since(s.start))
	if s.written.Add(int64(b.Size())) < lookBytes && now-s.looked.Load() < lookEvery && !s.low.Load() && !s.guard.full.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written.Store(0)
	s.looked.Store(now)
	usage, err := s.fs.GetDiskUsage(s.dir)
	if err != nil {
		return nil // can't be known here
	}
	free := int64(min(usage.AvailBytes, 1<<62))
	if free >= s.min {
		s.guard.full.Store(false)
		if s.low.CompareAndSwap(true, false) {
			s.log.Info("there is room on the disk again", "dir", s.dir, "free", free)
		}
		return nil
	}
	if s.low.CompareAndSwap(false, true) {
		s.log.Warn("the disk is nearly full: commits are refused until there is room", "dir", s.dir, "free", free, "needed", s.min)
	}
	if free >= s.min/4 && deletesOnly(b) {
		return nil
	}
	return fmt.Errorf("%w: storage/pebble: %s has %d bytes free, fewer than MinFreeBytes, %d: make room on the disk",
		storage.ErrNoSpace, s.dir, free, s.min)
}

func deletesOnly(b *storage.Batch) bool {
	for _, op := range b.Ops() {
		if op.Kind == storage.KindSet {
			return false
		}
	}
	return true
}
