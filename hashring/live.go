package hashring

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Live holds the version of a ring that is in use. Readers load it without a lock and
// never wait, whatever writers do; a reader that needs several answers of one version
// keeps what Load returned. All methods may be called concurrently. It is made by
// [NewLive], and must not be copied.
type Live[N any] struct {
	ring    atomic.Pointer[Ring[N]]
	writing sync.Mutex
}

// NewLive returns a holder of a ring.
func NewLive[N any](ring *Ring[N]) *Live[N] {
	l := &Live[N]{}
	l.ring.Store(ring)
	return l
}

// Load returns the version in use.
func (l *Live[N]) Load() *Ring[N] { return l.ring.Load() }

// Owner returns the owner of a key in the version in use.
func (l *Live[N]) Owner(key string) N { return l.ring.Load().Owner(key) }

// Store puts a version in use that was made elsewhere, by another node for example.
// It returns [ErrStale], and changes nothing, unless the version is above the one in
// use; storing the one in use once more is no error.
func (l *Live[N]) Store(ring *Ring[N]) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	now := l.ring.Load()
	if ring.version > now.version {
		l.ring.Store(ring)
		return nil
	}
	if ring == now || ring.version == now.version && ring.Fingerprint() == now.Fingerprint() {
		return nil
	}
	return fmt.Errorf("%w: version %d, fingerprint %016x; in use is version %d, fingerprint %016x",
		ErrStale, ring.version, ring.Fingerprint(), now.version, now.Fingerprint())
}

// Update puts the version in use that change makes of the present one, and returns
// it. Updates run one after the other. What change returns as an error is returned,
// and nothing changes.
func (l *Live[N]) Update(change func(ring *Ring[N]) (*Ring[N], error)) (*Ring[N], error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	next, err := change(l.ring.Load())
	if err != nil {
		return nil, err
	}
	l.ring.Store(next)
	return next, nil
}
