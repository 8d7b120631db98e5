package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/transport"
)

// stub is a replica that leads, and has its way.
type stub struct {
	mu       sync.Mutex
	sessions uint64                // opened
	expired  uint64                // those up to this one
	applied  map[synod.Request]int // how often it was asked
	members  []synod.Member
	changed  [][]synod.Member
	err      error
}

func (s *stub) Propose(context.Context, []byte) ([]byte, error) { return nil, s.err }

func (s *stub) OpenSession(context.Context, time.Duration) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	s.sessions++
	if s.applied == nil {
		s.applied = make(map[synod.Request]int)
	}
	return s.sessions, nil
}

func (s *stub) CloseSession(context.Context, uint64) error { return nil }

func (s *stub) ProposeOnce(_ context.Context, r synod.Request, _ []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	if r.Session <= s.expired || r.Session > s.sessions {
		return nil, synod.ErrSessionExpired
	}
	r.Floor = 0
	s.applied[r]++
	return []byte("+OK\r\n"), nil
}

func (s *stub) Barrier(context.Context) error                { return nil }
func (s *stub) TransferLeader(context.Context, uint64) error { return s.err }
func (s *stub) Err() error                                   { return nil }
func (s *stub) Status() synod.GroupStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return synod.GroupStatus{Configuration: slices.Clone(s.members)}
}

func (s *stub) SetMembers(_ context.Context, members []synod.Member) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.members = slices.Clone(members)
	}
	s.changed = append(s.changed, slices.Clone(members))
	return s.err
}

// wire is one end of a transport that repeats each message, and takes none while it is cut.
type wire struct {
	id      uint64
	peers   map[uint64]*wire
	handler func(from uint64, payload []byte)
	err     error
	lose    int // so many of the answers
}

func (w *wire) Send(to uint64, payload []byte) error {
	if w.err != nil {
		return fmt.Errorf("%w: node %d", w.err, to)
	}
	if other := w.peers[to]; other.lose > 0 {
		other.lose--
		return nil
	}
	for range 2 {
		go w.peers[to].handler(w.id, bytes.Clone(payload))
	}
	return nil
}
func (w *wire) Handle(fn func(from uint64, payload []byte)) { w.handler = fn }
func (w *wire) Close() error                                { return nil }

var _ transport.Transport = (*wire)(nil)

func wired(log replica) (asks, leads *node, way *wire) {
	a, b := &wire{id: 1}, &wire{id: 2}
	a.peers, b.peers = map[uint64]*wire{2: b}, map[uint64]*wire{1: a}
	asks, leads = &node{id: 1}, &node{id: 2, log: log}
	asks.forward, leads.forward = newForwarder(asks, a), newForwarder(leads, b)
	return asks, leads, a
}

func TestForwardedOnce(t *testing.T) {
	log := &stub{}
	n, _, way := wired(log)
	n.log = &stub{err: &synod.NotLeaderError{Leader: 2}}
	for i := range 100 {
		if i == 50 {
			log.mu.Lock()
			require.Len(t, log.applied, 50, "a request that arrives again is the same")
			log.expired = log.sessions
			log.mu.Unlock()
		}
		reply, err := n.propose(t.Context(), []byte("x"))
		require.NoError(t, err)
		require.Equal(t, "+OK\r\n", string(reply))
	}
	require.Eventually(t, func() bool {
		log.mu.Lock()
		defer log.mu.Unlock()
		twice := 0
		for _, asked := range log.applied {
			twice += asked - 1
		}
		return len(log.applied) == 100 && twice > 0 // others came when their session had expired
	}, time.Minute, time.Millisecond)
	// An answer that does not come leaves the outcome unknown for one attempt, not for the command.
	way.lose = 3
	_, err := n.propose(t.Context(), []byte("x"))
	require.NoError(t, err)
	require.Len(t, log.applied, 101)
	// What did not leave was not executed.
	way.err = transport.ErrUnreachable
	_, err = n.forward.ask(t.Context(), 2, kindOnce, nil)
	require.True(t, strings.HasPrefix(explain(err), "TRYAGAIN "), explain(err))
	way.err = transport.ErrTooLarge
	_, err = n.propose(t.Context(), []byte("x"))
	require.True(t, strings.HasPrefix(explain(err), "ERR "), explain(err))
	way.err = nil
	require.Len(t, log.applied, 101)
	// What the leader says comes through in its words.
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("group 1: %w", synod.ErrTooLarge), "ERR "},
		{&synod.ConfigError{Field: "Members"}, "ERR "},
		{fmt.Errorf("node 3: %w", errIncarnation), "MEMBER "},
		{fmt.Errorf("group 1: %w", synod.ErrResultLost), "UNKNOWN "},
		{errors.New("something else"), "TRYAGAIN "},
	} {
		log.err = c.err
		_, err := n.propose(t.Context(), []byte("x"))
		require.True(t, strings.HasPrefix(explain(err), c.want), explain(err))
		require.Equal(t, 1, strings.Count(explain(err), strings.TrimSpace(c.want)), explain(err))
	}
	for what, c := range map[string]error{
		"TRYAGAIN ": synod.ErrOverloaded,
		"UNKNOWN ":  fmt.Errorf("group 1: %w: it is late", synod.ErrUnknownOutcome),
	} {
		log.err = c
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := n.propose(short, []byte("x"))
		cancel()
		require.True(t, strings.HasPrefix(explain(err), what), explain(err))
	}
	log.err = nil
	_, err = n.forward.ask(t.Context(), 2, 99, nil)
	require.Equal(t, string(errForward), explain(err))
	_, err = n.forward.ask(t.Context(), 2, kindOnce, []byte("short"))
	require.Equal(t, string(errForward), explain(err))
}

func TestChangeMembers(t *testing.T) {
	log := &stub{members: []synod.Member{{Node: 1, Incarnation: 10}, {Node: 2, Incarnation: 20}}}
	n := &node{id: 1, log: log}
	ask := func(id, incarnation uint64, address string) error {
		payload := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, id), incarnation)
		_, err := n.execute(t.Context(), kindMembers, append(payload, address...))
		return err
	}
	// Those that come at once do not undo each other.
	var all sync.WaitGroup
	for id := uint64(3); id < 10; id++ {
		all.Go(func() { require.NoError(t, ask(id, 10*id, fmt.Sprintf("host%d:1", id))) })
	}
	all.Wait()
	require.Len(t, log.members, 9)
	// One that asks again while it catches up is still to become a voter.
	log.members[8].Learner = true
	require.NoError(t, ask(log.members[8].Node, log.members[8].Incarnation, "elsewhere:1"))
	require.False(t, log.members[8].Learner)
	require.Equal(t, "elsewhere:1", log.members[8].Address)
	require.True(t, strings.HasPrefix(explain(ask(2, 99, "host2:1")), "MEMBER the ID 2 is taken"))
	require.True(t, strings.HasPrefix(explain(ask(77, 0, "")), "MEMBER node 77 is none"))
	require.NoError(t, ask(2, 0, ""))
	require.Len(t, log.members, 8)
	_, err := n.execute(t.Context(), kindMembers, []byte("short"))
	require.Equal(t, errForward, err)
}

func TestLargeReplies(t *testing.T) {
	s := newStore()
	piece := strings.Repeat("x", 1<<20)
	for range maxValue / len(piece) {
		run(s, "APPEND big "+piece)
	}
	require.Equal(t, []string{"-" + errValue + " ", fmt.Sprintf(":%d ", maxValue), ":1 "}, run(s, "APPEND big x", "STRLEN big", "APPEND small x"))
	get, _ := inline([]byte("GET big"))
	swap, _ := inline([]byte("SET big y GET"))
	push, _ := inline([]byte("RPUSH l a"))
	// The second of the large ones is refused, and what changes something is executed or not.
	out := s.Apply(s.index+1, (&request{transaction: true, commands: [][][]byte{get, get, push, swap, get}}).encode())
	require.Less(t, len(out), maxReply)
	rest := string(out[maxValue:])
	require.True(t, strings.HasSuffix(rest, "x\r\n-"+errReply+"\r\n:1\r\n-"+errReply+"\r\n-"+errReply+"\r\n"), rest[max(0, len(rest)-500):])
	require.Equal(t, []string{fmt.Sprintf(":%d ", maxValue), "-" + errReply + " "}, run(s, "STRLEN big", "MGET big big big big"))
}

func TestFlags(t *testing.T) {
	dir := t.TempDir()
	good := options{engine: "raft", id: 1, peers: "1=127.0.0.1:1", dir: dir, redis: "127.0.0.1:0", insecure: true}
	for _, c := range []struct {
		want   string
		change func(o *options)
	}{
		{`-engine: there is no "zab"`, func(o *options) { o.engine = "zab" }},
		{"-peers: ", func(o *options) { o.peers = "" }},
		{"-peers: ", func(o *options) { o.peers = "1=a:1,1=b:1" }},
		{"-peers: ", func(o *options) { o.peers = "0=a:1" }},
		{"-peers: node 1 is not among them", func(o *options) { o.peers = "2=a:1" }},
		{"-dir", func(o *options) { o.dir = "" }},
		{"-redis", func(o *options) { o.redis = "" }},
		{"-redis", func(o *options) { o.redis = "nowhere" }},
		{"-tls-ca", func(o *options) { o.insecure = false }},
		{"-insecure", func(o *options) { o.ca = "ca.pem" }},
		{"-tls-cert", func(o *options) { o.insecure, o.ca = false, "ca.pem" }},
		{"nowhere.pem", func(o *options) { o.insecure, o.ca, o.cert, o.key = false, "nowhere.pem", "nowhere.pem", "nowhere.pem" }},
	} {
		o := good
		c.change(&o)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err := runOne(ctx, &bytes.Buffer{}, o)
		cancel()
		require.ErrorContains(t, err, c.want)
	}
	require.ErrorContains(t, runThree(t.Context(), &bytes.Buffer{}, "zab"), "-engine")
	require.ErrorContains(t, compare(t.Context(), &bytes.Buffer{}, "raft,zab"), `-engine: there is no "zab"`)
	require.ErrorContains(t, compare(t.Context(), &bytes.Buffer{}, "raft,paxos,raft"), "-engine: raft is there twice")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries, "flags that are wrong leave nothing behind")
}
