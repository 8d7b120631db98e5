package replica

import (
	"sync"

	"github.com/synod-go/synod/internal/probe"
)

// pending is the proposals of this run of a group that the log has taken up and
// that have no outcome yet, in the order of their numbers. The loop adds, the
// applier takes.
type pending struct {
	mu    sync.Mutex
	first uint64  // number of calls[head]
	calls []*call // nil: has its outcome
	head  int
}

// next returns the number that the next call will get.
func (p *pending) next() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.first + uint64(len(p.calls)-p.head)
}

func (p *pending) add(calls []*call, epoch uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range calls {
		c.epoch = epoch
	}
	if p.head > 1024 && p.head > len(p.calls)/2 {
		n := copy(p.calls, p.calls[p.head:])
		clear(p.calls[n:])
		p.calls, p.head = p.calls[:n], 0
	}
	p.calls = append(p.calls, calls...)
}

// take appends to dst the calls with count numbers from first on, nil for those
// that nobody waits for.
func (p *pending) take(dst []*call, first uint64, count int) []*call {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := first; n < first+uint64(count); n++ {
		i := n - p.first
		if n < p.first || i >= uint64(len(p.calls)-p.head) {
			dst = append(dst, nil)
			continue
		}
		at := p.head + int(i)
		dst = append(dst, p.calls[at])
		p.calls[at] = nil
	}
	p.trim()
	return dst
}

// lost removes all calls of terms below fence.
func (p *pending) lost(fence uint64, fn func(*call)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := p.head; i < len(p.calls); i++ {
		c := p.calls[i]
		if c == nil {
			continue
		}
		if c.epoch >= fence && (c.epoch > fence || !probe.Bug("a term's own proposals are taken for lost")) {
			break // terms only rise
		}
		p.calls[i] = nil
		fn(c)
	}
	p.trim()
}

func (p *pending) drain(fn func(*call)) { p.lost(^uint64(0), fn) }

func (p *pending) trim() {
	for p.head < len(p.calls) && p.calls[p.head] == nil {
		p.head++
		p.first++
	}
	if p.head == len(p.calls) {
		p.calls, p.head = p.calls[:0], 0
	}
}
