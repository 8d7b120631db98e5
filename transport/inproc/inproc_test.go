package inproc_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/transport/transporttest"
)

func TestTransport(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Opener {
		network, err := inproc.New(t.Context(), inproc.Config{})
		require.NoError(t, err)
		return func(node uint64) transport.Transport {
			tr, err := network.Open(node)
			require.NoError(t, err)
			return tr
		}
	})
}

// open returns a network with nodes 1 and 2, which the test closes.
func open(t *testing.T, c inproc.Config) (network *inproc.Network, a, b *inproc.Node) {
	t.Helper()
	network, err := inproc.New(t.Context(), c)
	require.NoError(t, err)
	var nodes [2]*inproc.Node
	for i := range nodes {
		nodes[i], err = network.Open(uint64(i + 1))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, nodes[i].Close()) })
	}
	return network, nodes[0], nodes[1]
}

// receive returns what arrives, and blocks the handler until it is taken or the
// test ends.
func receive(t *testing.T, n *inproc.Node) <-chan string {
	arrived := make(chan string)
	n.Handle(func(_ uint64, payload []byte) {
		select {
		case arrived <- string(payload):
		case <-t.Context().Done():
		}
	})
	return arrived
}

func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing has arrived within 10 s")
		panic("unreachable")
	}
}

func TestBadConfigIsRefused(t *testing.T) {
	for field, c := range map[string]inproc.Config{
		"QueueMessages":   {QueueMessages: -1},
		"QueueBytes":      {QueueBytes: -1},
		"MaxMessageBytes": {MaxMessageBytes: -1},
	} {
		_, err := inproc.New(t.Context(), c)
		var bad *synod.ConfigError
		require.ErrorAs(t, err, &bad, field)
		require.Equal(t, "inproc", bad.Package)
		require.Equal(t, field, bad.Field)
	}
}

func TestANodeIsOpenOnce(t *testing.T) {
	network, a, _ := open(t, inproc.Config{})
	_, err := network.Open(1)
	require.ErrorContains(t, err, "node 1 is open already")
	_, err = network.Open(0)
	require.ErrorContains(t, err, "node 0")
	require.NoError(t, a.Close())
	again, err := network.Open(1)
	require.NoError(t, err)
	require.NoError(t, a.Close()) // does not close its successor
	_, err = network.Open(1)
	require.ErrorContains(t, err, "open already")
	require.NoError(t, again.Close())
}

func TestMessagesArriveInOrder(t *testing.T) {
	_, a, b := open(t, inproc.Config{})
	arrived := receive(t, b)
	for i := range 1000 {
		require.NoError(t, a.Send(2, fmt.Append(nil, i)))
	}
	for i := range 1000 {
		require.Equal(t, fmt.Sprint(i), next(t, arrived))
	}
}

func TestACutLinkLosesSilentlyAndOneWayOnly(t *testing.T) {
	network, a, b := open(t, inproc.Config{})
	atA, atB := receive(t, a), receive(t, b)
	network.Cut(1, 2)
	require.NoError(t, a.Send(2, []byte("lost")))
	require.NoError(t, a.SendBulk(2, []byte("lost")))
	require.NoError(t, b.Send(1, []byte("the other way")))
	require.Equal(t, "the other way", next(t, atA))
	network.Heal(1, 2)
	require.NoError(t, a.Send(2, []byte("healed")))
	require.Equal(t, "healed", next(t, atB))
}

// stick has the handler of b stuck in a message of a with nothing behind it, and
// returns what tells of each message that it begins, and lets it go on with it.
func stick(t *testing.T, a, b *inproc.Node) (entered <-chan struct{}, rest <-chan string) {
	begun, arrived := make(chan struct{}, 100), make(chan string)
	b.Handle(func(_ uint64, payload []byte) {
		begun <- struct{}{}
		select {
		case arrived <- string(payload):
		case <-t.Context().Done():
		}
	})
	require.NoError(t, a.Send(2, []byte("stuck")))
	next(t, begun)
	return begun, arrived
}

func TestQueueMessagesLimitsAllThatWaits(t *testing.T) {
	const limit = 10
	_, a, b := open(t, inproc.Config{QueueMessages: limit})
	_, arrived := stick(t, a, b)
	fill := func() (accepted int) {
		for {
			if err := a.Send(2, []byte("x")); err != nil {
				require.ErrorIs(t, err, transport.ErrQueueFull)
				return accepted
			}
			accepted++
			require.LessOrEqual(t, accepted, limit)
		}
	}
	require.Equal(t, limit, fill())
	require.NoError(t, a.SendBulk(2, []byte("x")), "the lanes have a queue each")
	// As the handler gets on, there is room for as many as it has begun, and not for
	// the rest of what its task took out of the queue.
	next(t, arrived)
	next(t, arrived)
	require.LessOrEqual(t, fill(), 2)
}

func TestQueueBytesLimitsAllThatWaits(t *testing.T) {
	_, a, b := open(t, inproc.Config{QueueBytes: 100})
	_, arrived := stick(t, a, b)
	require.NoError(t, a.Send(2, make([]byte, 60)))
	require.ErrorIs(t, a.Send(2, make([]byte, 60)), transport.ErrQueueFull)
	require.NoError(t, a.Send(2, make([]byte, 40)))
	require.ErrorIs(t, a.Send(2, make([]byte, 1)), transport.ErrQueueFull)
	for range 3 {
		next(t, arrived)
	}
	_, stuck := stick(t, a, b)
	require.NoError(t, a.Send(2, make([]byte, 1000)), "a single message fits an empty queue in any case")
	require.ErrorIs(t, a.Send(2, make([]byte, 1)), transport.ErrQueueFull)
	next(t, stuck)
	require.Len(t, next(t, stuck), 1000)
}

func TestAMessageThatIsTooLargeIsRefused(t *testing.T) {
	_, a, b := open(t, inproc.Config{MaxMessageBytes: 10})
	arrived := receive(t, b)
	require.ErrorIs(t, a.Send(2, make([]byte, 11)), transport.ErrTooLarge)
	require.ErrorIs(t, a.SendBulk(2, make([]byte, 11)), transport.ErrTooLarge)
	require.NoError(t, a.Send(2, make([]byte, 10)))
	require.Len(t, next(t, arrived), 10)
}

func TestWhatWaitsWhenANodeIsClosedIsReported(t *testing.T) {
	for name, taken := range map[string]bool{"in the queue": false, "taken out of it": true} {
		t.Run(name, func(t *testing.T) {
			_, a, b := open(t, inproc.Config{})
			reports := make(chan error, 10)
			a.HandleUnreachable(func(to uint64, err error) {
				if to != 2 {
					t.Errorf("node %d was reported", to)
				}
				reports <- err
			})
			entered, arrived := stick(t, a, b)
			if taken {
				// The two are taken out together, and the handler sticks in the first of them.
				require.NoError(t, a.Send(2, []byte("stuck")))
				require.NoError(t, a.Send(2, []byte("will be dropped")))
				next(t, arrived)
				next(t, entered)
			} else {
				require.NoError(t, a.Send(2, []byte("will be dropped")))
			}
			closed := make(chan error, 1)
			go func() { closed <- b.Close() }()
			// Once it is being closed, nobody knows it any more.
			require.Eventually(t, func() bool { return errors.Is(a.Send(2, nil), transport.ErrUnknownNode) }, 10*time.Second, time.Millisecond)
			require.Equal(t, "stuck", next(t, arrived))
			require.NoError(t, next(t, closed))
			require.ErrorIs(t, next(t, reports), transport.ErrUnreachable)
			select {
			case text := <-arrived:
				t.Fatalf("%q arrived at a closed node", text)
			default:
			}
		})
	}
}

func ExampleNetwork() {
	network, err := inproc.New(context.Background(), inproc.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	one, err := network.Open(1)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer one.Close()
	two, err := network.Open(2)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer two.Close()

	arrived := make(chan string)
	two.Handle(func(from uint64, payload []byte) { arrived <- fmt.Sprintf("from node %d: %s", from, payload) })
	if err := one.Send(2, []byte("hello")); err != nil {
		fmt.Println(err)
	}
	fmt.Println(<-arrived)

	network.Cut(1, 2)
	fmt.Println("over a link that is cut:", one.Send(2, []byte("lost")))
	fmt.Println(one.Send(3, []byte("nobody")))
	// Output:
	// from node 1: hello
	// over a link that is cut: <nil>
	// inproc: to node 3: transport: unknown node
}
