package transporttest_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/transport/transporttest"
)

// buggy is a transport that makes one of the mistakes below.
type buggy struct {
	*inproc.Node
	id      uint64
	send    func(to uint64, payload []byte) error
	bulk    func(to uint64, payload []byte) error
	handle  func(fn handler)
	report  func(fn func(to uint64, err error))
	closing func() error
}

type handler = func(from uint64, payload []byte)

func (b *buggy) Send(to uint64, payload []byte) error            { return b.send(to, payload) }
func (b *buggy) SendBulk(to uint64, payload []byte) error        { return b.bulk(to, payload) }
func (b *buggy) Handle(fn func(from uint64, payload []byte))     { b.handle(fn) }
func (b *buggy) HandleUnreachable(fn func(to uint64, err error)) { b.report(fn) }
func (b *buggy) Close() error                                    { return b.closing() }
func (b *buggy) wrap(change func(fn handler) handler) {
	b.handle = func(fn handler) { b.Node.Handle(change(fn)) }
}
func (b *buggy) alter(change func(payload []byte) []byte) {
	b.send = func(to uint64, p []byte) error { return b.Node.Send(to, change(p)) }
}
func (b *buggy) answer(is, instead error) {
	b.send = func(to uint64, p []byte) error {
		if err := b.Node.Send(to, p); err == nil || !errors.Is(err, is) {
			return err
		}
		return instead
	}
}

// bugs are mistakes, each with the rule that must find it.
var bugs = map[string]struct {
	rule  string
	plant func(b *buggy)
}{
	"nothing arrives": {"a message arrives with its bytes, and Handle gets its sender", func(b *buggy) {
		b.send = func(uint64, []byte) error { return nil }
	}},
	"the handler is told the receiver": {"a message arrives with its bytes, and Handle gets its sender", func(b *buggy) {
		b.wrap(func(fn handler) handler { return func(_ uint64, p []byte) { fn(b.id, p) } })
	}},
	"everybody gets everything": {"a message arrives with its bytes, and Handle gets its sender", func(b *buggy) {
		b.send = func(to uint64, p []byte) error {
			for id := range uint64(transporttest.Nodes) {
				_ = b.Node.Send(id+1, bytes.Clone(p))
			}
			return nil
		}
	}},
	"a bit flips in longer messages": {"nothing is altered or invented", func(b *buggy) {
		b.alter(func(p []byte) []byte {
			if len(p) > 512 {
				p[400] ^= 1
			}
			return p
		})
	}},
	"messages run into each other": {"nothing is altered or invented", func(b *buggy) {
		b.wrap(func(fn handler) handler {
			var last []byte
			return func(from uint64, p []byte) {
				if len(p)%5 == 0 {
					p = append(bytes.Clone(last), p...)
				}
				last = p
				fn(from, p)
			}
		})
	}},
	"one buffer for all that arrives": {"a received payload belongs to the receiver", func(b *buggy) {
		b.wrap(func(fn handler) handler {
			buffer := make([]byte, 1<<16)
			return func(from uint64, p []byte) { fn(from, buffer[:copy(buffer, p)]) }
		})
	}},
	"payloads overlap in their capacity": {"a received payload belongs to the receiver", func(b *buggy) {
		b.wrap(func(fn handler) handler {
			return func(from uint64, p []byte) {
				all := bytes.Repeat(p, 3)
				for len(all) > 0 {
					fn(from, all[:len(p)])
					all = all[len(p):]
				}
			}
		})
	}},
	"all of the capacity is sent": {"spare capacity of a payload is not sent", func(b *buggy) {
		b.alter(func(p []byte) []byte { return p[:cap(p)] })
	}},
	"empty messages are lost": {"an empty message arrives", func(b *buggy) {
		b.send = func(to uint64, p []byte) error {
			if len(p) == 0 {
				return nil
			}
			return b.Node.Send(to, p)
		}
	}},
	"large messages are lost": {"a message of 1 KiB arrives, one of 2 MiB does or is refused with ErrTooLarge", func(b *buggy) {
		b.send = func(to uint64, p []byte) error {
			if len(p) > 1<<16 {
				return nil
			}
			return b.Node.Send(to, p)
		}
	}},
	"large messages are cut": {"a message of 1 KiB arrives, one of 2 MiB does or is refused with ErrTooLarge", func(b *buggy) {
		b.alter(func(p []byte) []byte { return p[:min(len(p), 1<<16)] })
	}},
	"an unknown node is unreachable": {"Send to an unknown node fails with ErrUnknownNode", func(b *buggy) {
		b.answer(transport.ErrUnknownNode, transport.ErrUnreachable)
	}},
	"messages to oneself arrive": {"Send to oneself fails with ErrUnknownNode", func(b *buggy) {
		var own handler
		b.handle = func(fn handler) { own = fn; b.Node.Handle(fn) }
		b.send = func(to uint64, p []byte) error {
			if to == b.id {
				own(to, p)
				return nil
			}
			return b.Node.Send(to, p)
		}
	}},
	"a closed node accepts messages": {"Send after Close fails with ErrClosed", func(b *buggy) {
		b.answer(transport.ErrClosed, nil)
	}},
	"the second Close fails": {"Close can be called again", func(b *buggy) {
		closed := false
		b.closing = func() error {
			if closed {
				return errors.New("closed already")
			}
			closed = true
			return b.Node.Close()
		}
	}},
	"the second Close hangs": {"Close can be called again", func(b *buggy) {
		closed := make(chan struct{})
		first := true
		b.closing = func() error {
			if first {
				first = false
				time.AfterFunc(time.Second, func() { close(closed) }) // so that the process ends
				return b.Node.Close()
			}
			<-closed
			return nil
		}
	}},
	"Close does not wait": {"Close waits for the handler, whoever else calls it", func(b *buggy) {
		b.closing = func() error { go b.Node.Close(); return nil }
	}},
	"only the first Close waits": {"Close waits for the handler, whoever else calls it", func(b *buggy) {
		var mu sync.Mutex
		closed := false
		b.closing = func() error {
			mu.Lock()
			first := !closed
			closed = true
			mu.Unlock()
			if first {
				return b.Node.Close()
			}
			return nil
		}
	}},
	"a closed node goes on receiving": {"the handler is not called after Close", func(b *buggy) {
		b.wrap(func(fn handler) handler {
			return func(from uint64, p []byte) { time.AfterFunc(10*time.Millisecond, func() { fn(from, p) }) }
		})
	}},
	"each message is handled on its own": {"messages of one sender are handled one at a time", func(b *buggy) {
		b.wrap(func(fn handler) handler { return func(from uint64, p []byte) { go fn(from, p) } })
	}},
	"what is early goes to a handler that there is not": {"messages that arrive before Handle do no harm", func(b *buggy) {
		var later handler
		b.handle = func(fn handler) { later = fn }
		b.Node.Handle(func(from uint64, p []byte) { later(from, p) })
	}},
	"concurrent messages are mixed up": {"Send may be called concurrently", func(b *buggy) {
		var mu sync.Mutex
		var now []byte
		b.send = func(to uint64, p []byte) error {
			mu.Lock()
			now = p
			mu.Unlock()
			runtime.Gosched()
			mu.Lock()
			defer mu.Unlock()
			return b.Node.Send(to, bytes.Clone(now))
		}
	}},
	"Send waits for room": {"Send does not block or hoard while the receiver's handler is stuck", func(b *buggy) {
		b.send = func(to uint64, p []byte) error {
			for {
				if err := b.Node.Send(to, p); !errors.Is(err, transport.ErrQueueFull) {
					return err
				}
				time.Sleep(time.Millisecond)
			}
		}
	}},
	"queues have no end": {"Send does not block or hoard while the receiver's handler is stuck", func(b *buggy) {
		b.wrap(func(fn handler) handler {
			var mu sync.Mutex
			var queue []func()
			running := false
			return func(from uint64, p []byte) {
				mu.Lock()
				defer mu.Unlock()
				queue = append(queue, func() { fn(from, p) })
				if running {
					return
				}
				running = true
				go func() {
					for {
						mu.Lock()
						if len(queue) == 0 {
							running = false
							mu.Unlock()
							return
						}
						next := queue[0]
						queue = queue[1:]
						mu.Unlock()
						next()
					}
				}()
			}
		})
		b.send = func(to uint64, p []byte) error { // leave the inner queue time
			for { // the queue behind it takes everything
				if err := b.Node.Send(to, p); !errors.Is(err, transport.ErrQueueFull) {
					return err
				}
				runtime.Gosched()
			}
		}
	}},
	"an error of its own for a node that is closed": {"Send does not block while a node is closed, and a Reporter tells of it", func(b *buggy) {
		b.answer(transport.ErrUnknownNode, errors.New("connection refused"))
	}},
	"a Reporter that says nothing": {"Send does not block while a node is closed, and a Reporter tells of it", func(b *buggy) {
		b.answer(transport.ErrUnknownNode, nil)
		b.report = func(func(uint64, error)) {}
	}},
	"a node that was away stays away": {"a node can be closed and opened again", func(b *buggy) {
		gone := make(map[uint64]bool)
		b.send = func(to uint64, p []byte) error {
			if gone[to] {
				return transport.ErrUnreachable
			}
			err := b.Node.Send(to, p)
			gone[to] = err != nil
			return err
		}
	}},
	"bulk is lost": {"bulk messages arrive like others", func(b *buggy) {
		b.bulk = func(uint64, []byte) error { return nil }
	}},
	"bulk shares the lane": {"stuck bulk messages do not hold others up", func(b *buggy) {
		b.bulk = b.Node.Send
	}},
	"the last bytes are lost": {"channels of a Mux do not mix", func(b *buggy) {
		b.alter(func(p []byte) []byte { return p[:max(0, len(p)-1)] })
	}},
}

const plantedBug = "SYNOD_TEST_PLANTED_BUG"

// TestBuggyTransport is not a test of its own: TestPlantedBugs runs it as another
// process, where it must fail.
func TestBuggyTransport(t *testing.T) {
	name := os.Getenv(plantedBug)
	bug, ok := bugs[name]
	if !ok && name != "none" {
		t.Skip("not started by TestPlantedBugs")
	}
	patience := 10 * time.Second
	if ok {
		patience = 500 * time.Millisecond // it waits in vain
	}
	transporttest.Run(t, func(t *testing.T) transporttest.Opener {
		network, err := inproc.New(t.Context(), inproc.Config{})
		require.NoError(t, err)
		return func(id uint64) transport.Transport {
			node, err := network.Open(id)
			require.NoError(t, err)
			b := &buggy{Node: node, id: id, send: node.Send, bulk: node.SendBulk, handle: node.Handle, report: node.HandleUnreachable, closing: node.Close}
			if ok {
				bug.plant(b)
			}
			return b
		}
	}, transporttest.WithPatience(patience))
}

// TestPlantedBugs checks the suite: each mistake must be caught, by its rule.
func TestPlantedBugs(t *testing.T) {
	run := func(bug, pattern string) (out string, err error) {
		cmd := exec.Command(os.Args[0], "-test.timeout=30s", "-test.run="+pattern)
		cmd.Env = append(os.Environ(), plantedBug+"="+bug)
		b, err := cmd.CombinedOutput()
		return string(b), err
	}
	for name, bug := range bugs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			words := strings.ReplaceAll(bug.rule, " ", "_")
			out, err := run(name, "^TestBuggyTransport$/^"+words+"$")
			require.Error(t, err, "not caught:\n%s", out)
			if !strings.Contains(out, "panic: ") {
				require.Contains(t, out, "--- FAIL: TestBuggyTransport/"+words)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		out, err := run("none", "^TestBuggyTransport$")
		require.NoError(t, err, out)
	})
}
