package txn_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/txn"
)

// wire is a transport whose messages are kept, so that a test can have one arrive again.
type wire struct {
	greets *wire  // who gets greetings, and answers to them, at once
	node   uint64 // whose it is
	mu     sync.Mutex
	handle func(from uint64, payload []byte)
	kept   [][]byte
	sent   map[byte]int // by kind
}

func (w *wire) Send(_ uint64, payload []byte) error {
	if greeting := payload[4] == 'q' && binary.BigEndian.Uint64(payload[13:]) == 0; w.greets != nil && (greeting || payload[4] == 's') {
		go w.greets.handle(w.node, payload)
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent[payload[4]]++
	w.kept = append(w.kept, payload)
	return nil
}
func (w *wire) Handle(fn func(from uint64, payload []byte)) { w.handle = fn }
func (w *wire) Close() error                                { return nil }

// counted is a log that refuses the first command, and takes the rest.
type counted struct {
	mu      sync.Mutex
	refused int
	applied int
	err     error
}

func (c *counted) Propose(context.Context, []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == 0 {
		c.refused++
		return nil, c.err
	}
	c.applied++
	return nil, nil
}
func (c *counted) Barrier(context.Context) error { return nil }

// TestARepeatedRequestIsServedOnce: a transport may repeat a message. Whoever has been told that his command had no effect must not find
// it applied because the request came a second time.
func TestARepeatedRequestIsServedOnce(t *testing.T) {
	ctx := t.Context()
	asker, server := &wire{node: 1, sent: map[byte]int{}}, &wire{node: 2, sent: map[byte]int{}}
	asker.greets, server.greets = server, asker
	here := new(stub)
	here.leader.Store(2)
	f, err := txn.NewForwarder(ctx, txn.ForwarderConfig{Log: here, Node: 1, Transport: asker, RequestTimeout: time.Millisecond, RetryInterval: time.Millisecond})
	require.NoError(t, err)
	defer f.Close()
	log := &counted{err: &synod.NotLeaderError{Group: 1}}
	g, err := txn.NewForwarder(ctx, txn.ForwarderConfig{Log: log, Node: 2, Transport: server})
	require.NoError(t, err)
	_, err = f.Propose(ctx, []byte("x"))
	require.ErrorIs(t, err, synod.ErrUnknownOutcome)
	require.Len(t, asker.kept, 1, "a greeting aside")
	for range 3 {
		server.handle(1, asker.kept[0])
	}
	// Numbers are served in any order, and after another run of the asker has begun at another number.
	_, err = f.Propose(ctx, []byte("y"))
	require.ErrorIs(t, err, synod.ErrUnknownOutcome)
	_, err = f.Propose(ctx, []byte("z"))
	require.ErrorIs(t, err, synod.ErrUnknownOutcome)
	again, err := txn.NewForwarder(ctx, txn.ForwarderConfig{Log: here, Node: 1, Transport: asker, RequestTimeout: time.Millisecond, RetryInterval: time.Millisecond})
	require.NoError(t, err)
	defer again.Close()
	_, err = again.Propose(ctx, []byte("w"))
	require.ErrorIs(t, err, synod.ErrUnknownOutcome)
	require.Len(t, asker.kept, 4)
	for _, i := range []int{2, 3, 1, 2, 0, 3} {
		server.handle(1, asker.kept[i])
	}
	require.NoError(t, g.Close()) // waits for what is served
	require.Equal(t, 1, log.refused)
	require.Equal(t, 3, log.applied)
}

// TestARepeatedRequestIsServedByOneProcess: the one that has served it is gone before its answer has come, and the request comes again to the next one, which
// does not know that, and does not lead.
func TestARepeatedRequestIsServedByOneProcess(t *testing.T) {
	require.ErrorIs(t, outcomeOfARepeatedRequest(t), synod.ErrUnknownOutcome)
	defer probe.Plant("forwarder: serve what was asked of an earlier process")()
	require.NotErrorIs(t, outcomeOfARepeatedRequest(t), synod.ErrUnknownOutcome)
}

func outcomeOfARepeatedRequest(t *testing.T) error {
	asker := &wire{sent: map[byte]int{}}
	here := new(stub)
	here.leader.Store(2)
	f, err := txn.NewForwarder(t.Context(), txn.ForwarderConfig{Log: here, Node: 1, Transport: asker, RetryInterval: time.Millisecond})
	require.NoError(t, err)
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	outcome := make(chan error, 1)
	go func() {
		_, err := f.Propose(ctx, []byte("x"))
		outcome <- err
	}()
	log := &counted{refused: 1}
	frame := 0
	next := func() []byte { // of the asker
		var b []byte
		require.Eventually(t, func() bool {
			asker.mu.Lock()
			defer asker.mu.Unlock()
			if frame < len(asker.kept) {
				b = asker.kept[frame]
			}
			return b != nil
		}, 10*time.Second, time.Millisecond)
		frame++
		return b
	}
	server := &wire{sent: map[byte]int{}}
	g, err := txn.NewForwarder(t.Context(), txn.ForwarderConfig{Log: log, Node: 2, Transport: server})
	require.NoError(t, err)
	for answer := []byte(nil); answer == nil || answer[4] != 'r'; { // which is lost
		if answer != nil {
			asker.handle(2, answer)
		}
		server.handle(1, next())
		require.Eventually(t, func() bool {
			server.mu.Lock()
			defer server.mu.Unlock()
			if len(server.kept) > 0 {
				answer, server.kept = server.kept[0], server.kept[1:]
				return true
			}
			return false
		}, 10*time.Second, time.Millisecond)
	}
	require.NoError(t, g.Close())
	require.Equal(t, 1, log.applied)
	last := asker.kept[frame-1]
	elsewhere := &counted{err: &synod.NotLeaderError{Group: 1}}
	server = &wire{sent: map[byte]int{}}
	g, err = txn.NewForwarder(t.Context(), txn.ForwarderConfig{Log: elsewhere, Node: 2, Transport: server})
	require.NoError(t, err)
	server.handle(1, last)
	require.NoError(t, g.Close())
	require.Len(t, server.kept, 1)
	here.leader.Store(0) // nor does anybody
	asker.handle(2, server.kept[0])
	time.AfterFunc(20*time.Millisecond, cancel) // until then it waits for a leader, if it takes the answer for one to what it has asked
	return <-outcome
}

// TestALeaderThatTakesNoSuchCommandSaysSo: a command over the leader's limit is not one to try again.
func TestALeaderThatTakesNoSuchCommandSaysSo(t *testing.T) {
	network, err := inproc.New(t.Context(), inproc.Config{})
	require.NoError(t, err)
	here := new(stub)
	here.leader.Store(2)
	logs := map[uint64]synod.Log{1: here, 2: &counted{err: fmt.Errorf("%w: by far", synod.ErrTooLarge)}}
	forwarders := map[uint64]*txn.Forwarder{}
	for id, log := range logs {
		tr, err := network.Open(id)
		require.NoError(t, err)
		defer tr.Close()
		forwarders[id], err = txn.NewForwarder(t.Context(), txn.ForwarderConfig{Log: log, Node: id, Transport: tr})
		require.NoError(t, err)
		defer forwarders[id].Close()
	}
	_, err = forwarders[1].Propose(t.Context(), []byte("x"))
	require.ErrorIs(t, err, synod.ErrTooLarge)
	require.ErrorContains(t, err, "by far")
}
