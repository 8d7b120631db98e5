package transport_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/transport/transporttest"
)

// plain is a transport that can do no more than it must. A test calls handler as
// if something had arrived.
type plain struct {
	handler func(from uint64, payload []byte)
	sent    [][]byte
	closed  int
}

func (p *plain) Send(_ uint64, payload []byte) error {
	p.sent = append(p.sent, payload)
	return nil
}
func (p *plain) Handle(fn func(from uint64, payload []byte)) { p.handler = fn }
func (p *plain) Close() error                                { p.closed++; return nil }

// prompt is a transport that reports from within Send, as it may.
type prompt struct {
	plain
	report func(to uint64, err error)
}

var errPrompt = errors.New("no way there")

func (p *prompt) Send(to uint64, _ []byte) error {
	p.report(to, errPrompt)
	return nil
}
func (p *prompt) HandleUnreachable(fn func(to uint64, err error)) { p.report = fn }

// mark returns a payload as channel id of a Mux sends it.
func mark(t *testing.T, id uint32, payload string) []byte {
	p := &plain{}
	require.NoError(t, transport.NewMux(p).Channel(id).Send(2, []byte(payload)))
	return p.sent[0]
}

func await(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("not within 10 s: " + what)
	}
}

func background(fn func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	return done
}

// TestMuxChannelIsATransport runs the suite over a channel, with another channel
// beside it that is in use too.
func TestMuxChannelIsATransport(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Opener {
		network, err := inproc.New(t.Context(), inproc.Config{})
		require.NoError(t, err)
		return func(node uint64) transport.Transport {
			tr, err := network.Open(node)
			require.NoError(t, err)
			mux := transport.NewMux(tr)
			mux.Channel(2).Handle(func(uint64, []byte) { t.Error("a message of another channel") })
			return whole{mux.Channel(1).(channel), mux}
		}
	})
}

type channel interface {
	transport.Transport
	transport.Bulker
	transport.Reporter
}

// whole is a channel that closes its Mux with itself, so that the node can be
// opened again.
type whole struct {
	channel
	mux *transport.Mux
}

func (w whole) Close() error { return errors.Join(w.channel.Close(), w.mux.Close()) }

func TestMuxDropsAndCountsWhatIsForNobody(t *testing.T) {
	p := &plain{}
	mux := transport.NewMux(p)
	var got []string
	mux.Channel(1).Handle(func(from uint64, payload []byte) { got = append(got, fmt.Sprintf("%d: %s", from, payload)) })
	mux.Channel(2) // has no handler

	p.handler(7, mark(t, 1, "for one"))
	require.Zero(t, mux.Dropped())
	p.handler(7, mark(t, 2, "for a channel without a handler"))
	require.EqualValues(t, 1, mux.Dropped())
	p.handler(7, mark(t, 3, "for a channel that nobody has opened"))
	require.EqualValues(t, 2, mux.Dropped())
	p.handler(7, nil)
	p.handler(7, []byte("no mark at all"))
	require.EqualValues(t, 4, mux.Dropped())
	require.NoError(t, mux.Channel(1).Close())
	p.handler(7, mark(t, 1, "for one that was closed"))
	require.EqualValues(t, 5, mux.Dropped())
	require.Equal(t, []string{"7: for one"}, got)
}

func TestMuxChannelIsAlwaysTheSameUntilItIsClosed(t *testing.T) {
	p := &plain{}
	mux := transport.NewMux(p)
	c := mux.Channel(1)
	require.True(t, c == mux.Channel(1))
	require.False(t, c == mux.Channel(2))
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Send(2, nil), transport.ErrClosed)
	require.Zero(t, p.closed, "a channel closes itself alone")

	again := mux.Channel(1)
	require.False(t, c == again)
	require.NoError(t, c.Close()) // does not close its successor
	require.NoError(t, again.Send(2, nil))
	require.True(t, again == mux.Channel(1))
}

func TestMuxCloseClosesAllChannels(t *testing.T) {
	p := &plain{}
	mux := transport.NewMux(p)
	c := mux.Channel(1)
	require.NoError(t, mux.Close())
	require.ErrorIs(t, c.Send(2, nil), transport.ErrClosed)
	require.ErrorIs(t, transport.SendBulk(c, 2, nil), transport.ErrClosed)
	require.ErrorIs(t, mux.Channel(1).Send(2, nil), transport.ErrClosed)
	require.ErrorIs(t, mux.Channel(2).Send(2, nil), transport.ErrClosed)
	require.Equal(t, 1, p.closed)
}

func TestMuxOverATransportThatCanDoNoMore(t *testing.T) {
	p := &plain{}
	c := transport.NewMux(p).Channel(1)
	require.False(t, transport.HandleUnreachable(c, func(uint64, error) {}), "a channel is a Reporter only where the transport below is")
	require.NoError(t, transport.SendBulk(c, 2, []byte("bulk")))
	require.Len(t, p.sent, 1, "without a lane below, bulk goes with the other messages")
}

func TestMuxPassesReportsOn(t *testing.T) {
	p := &prompt{}
	mux := transport.NewMux(p)
	var got []string
	for id := range uint32(2) {
		require.True(t, transport.HandleUnreachable(mux.Channel(id), func(to uint64, err error) {
			got = append(got, fmt.Sprintf("channel %d: node %d: %v", id, to, err))
		}))
	}
	mux.Channel(2) // does not want to know
	p.report(3, errPrompt)
	require.ElementsMatch(t, []string{"channel 0: node 3: no way there", "channel 1: node 3: no way there"}, got)

	got = nil
	require.NoError(t, mux.Channel(0).Close())
	p.report(3, errPrompt)
	require.Equal(t, []string{"channel 1: node 3: no way there"}, got)
}

// closing has a handler of channel 1 run, calls Close of that channel meanwhile,
// and has the handler call send when Close waits for it.
func closing(t *testing.T, under transport.Transport, deliver func([]byte), send func(transport.Transport)) {
	mux := transport.NewMux(under)
	c := mux.Channel(1)
	transport.HandleUnreachable(c, func(uint64, error) {})
	entered, release := make(chan struct{}), make(chan struct{})
	c.Handle(func(uint64, []byte) {
		close(entered)
		<-release
		send(c)
	})
	handled := background(func() { deliver(mark(t, 1, "x")) })
	await(t, entered, "the handler runs")
	closed := background(func() { require.NoError(t, c.Close()) })
	// Close has begun once the channel refuses to send.
	require.Eventually(t, func() bool { return errors.Is(c.Send(2, nil), transport.ErrClosed) }, 10*time.Second, time.Millisecond)
	select {
	case <-closed:
		t.Fatal("Close returned while the handler was running")
	case <-time.After(20 * time.Millisecond): // to let a Close that does not wait show itself
	}
	// A channel that is being closed is out of the way of one that follows it.
	require.False(t, c == mux.Channel(1))
	close(release)
	await(t, handled, "the handler returns")
	await(t, closed, "Close returns")
}

func TestMuxChannelIsClosedWhileItsHandlerSends(t *testing.T) {
	p := &plain{}
	closing(t, p, func(b []byte) { p.handler(7, b) }, func(c transport.Transport) {
		require.ErrorIs(t, c.Send(2, nil), transport.ErrClosed)
	})
}

// Another channel of the Mux sends, and the report of that reaches the one that is being
// closed, on the goroutine that its Close waits for.
func TestMuxChannelIsClosedWhileItsHandlerCausesAReport(t *testing.T) {
	p := &prompt{}
	closing(t, p, func(b []byte) { p.handler(7, b) }, func(transport.Transport) { p.report(2, errPrompt) })
}

func TestMuxSharedByManyWhileChannelsComeAndGo(t *testing.T) {
	network, err := inproc.New(t.Context(), inproc.Config{})
	require.NoError(t, err)
	muxes := make([]*transport.Mux, 2)
	for i := range muxes {
		tr, err := network.Open(uint64(i + 1))
		require.NoError(t, err)
		muxes[i] = transport.NewMux(tr)
	}
	const channels, rounds = 8, 20
	var tasks sync.WaitGroup
	for id := range uint32(channels) {
		tasks.Go(func() {
			for round := range rounds {
				a, b := muxes[0].Channel(id), muxes[1].Channel(id)
				text := fmt.Sprintf("channel %d, round %d", id, round)
				arrived := make(chan string, 1)
				b.Handle(func(_ uint64, payload []byte) {
					select {
					case arrived <- string(payload):
					default:
					}
				})
				_ = a.Send(2, []byte(text)) // inproc loses nothing here
				select {
				case got := <-arrived:
					if got != text {
						t.Errorf("channel %d received %q in the place of %q", id, got, text)
					}
				case <-time.After(10 * time.Second):
					t.Errorf("%s has not arrived", text)
				}
				_ = a.Close()
				_ = b.Close()
			}
		})
	}
	tasks.Wait()
	for _, m := range muxes {
		require.NoError(t, m.Close())
		require.Zero(t, m.Dropped())
	}
}

func ExampleMux() {
	network, err := inproc.New(context.Background(), inproc.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	open := func(id uint64) *transport.Mux {
		tr, err := network.Open(id)
		if err != nil {
			panic(err)
		}
		return transport.NewMux(tr)
	}
	one, two := open(1), open(2)
	defer func() { _, _ = one.Close(), two.Close() }()

	// An engine would take channel 1; the application talks on channel 2.
	done := make(chan struct{})
	two.Channel(2).Handle(func(from uint64, payload []byte) {
		fmt.Printf("from node %d: %s\n", from, payload)
		close(done)
	})
	if err := one.Channel(2).Send(2, []byte("hello")); err != nil {
		fmt.Println(err)
	}
	<-done
	// Output: from node 1: hello
}
