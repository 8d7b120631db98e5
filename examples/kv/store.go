package main

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/storage/pebble"
	"github.com/synod-go/synod/transport/tcp"
)

// node is one member of the cluster. It is the state machine, a map, that Raft
// calls through Apply, Snapshot and Restore, and serves HTTP.
type node struct {
	mu    sync.RWMutex
	keys  map[string][]byte
	group *raft.Group
	close func() error
}

// Apply executes one command: a key, a zero byte, a value.
func (n *node) Apply(_ uint64, command []byte) []byte {
	key, value, _ := bytes.Cut(command, []byte{0})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.keys[string(key)] = bytes.Clone(value) // the command is not ours to keep
	return nil
}

type snapshot map[string][]byte

func (s snapshot) WriteTo(w io.Writer) (int64, error) { return 0, gob.NewEncoder(w).Encode(s) }

// Snapshot is cheap: values are replaced and never changed, so that a copy of the
// map will do.
func (n *node) Snapshot() (io.WriterTo, error) { return snapshot(maps.Clone(n.keys)), nil }

func (n *node) Restore(r io.Reader) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.keys = make(map[string][]byte)
	return gob.NewDecoder(r).Decode((*snapshot)(&n.keys))
}

// start opens a node on a directory. Its peers reach it at the listener, its HTTP
// clients at the public address. After an error the program is expected to end.
func start(ctx context.Context, id uint64, peers map[uint64]string, dir string, listener net.Listener, public string) (*node, error) {
	n := &node{keys: make(map[string][]byte)}
	transport, err := tcp.Listen(tcp.Config{Cluster: "kv", Node: id, Listener: listener, Peers: peers, Insecure: true})
	if err != nil {
		return nil, err
	}
	disk, err := pebble.Open(pebble.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	member, err := raft.Start(ctx, raft.Config{Cluster: "kv", Node: id, Transport: transport, Store: disk})
	if err != nil {
		return nil, err
	}
	n.close = func() error { return errors.Join(member.Close(), disk.Close(), transport.Close()) }
	// This program takes an empty directory for a member of a new cluster. If it is
	// empty because a disk was lost, the others will not listen to it: they remember
	// that this node was another incarnation.
	if err = member.Bootstrap(ctx, 1, slices.Sorted(maps.Keys(peers))); err != nil && !errors.Is(err, raft.ErrBootstrapped) {
		return nil, err
	}
	events := member.Events(ctx)
	if n.group, err = member.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: n}); err != nil {
		return nil, err
	}
	go func() {
		for e := range events { // whoever leads writes down where its clients reach it
			if e.Kind == synod.EventLeaderChanged && e.Leader == id {
				_, _ = n.group.Propose(ctx, []byte("\nleader\x00"+public))
			}
		}
	}()
	return n, nil
}

// ServeHTTP answers GET and PUT of /keys/KEY.
func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key, reading := r.PathValue("key"), r.Method == http.MethodGet
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	switch {
	case err != nil || bytes.ContainsAny([]byte(key), "\x00\n"):
		http.Error(w, "want a key without zero bytes and line breaks, and a value of at most 1 MiB", http.StatusBadRequest)
		return
	case reading:
		err = n.group.Barrier(r.Context()) // after it, what we hold is up to date
	default:
		_, err = n.group.Propose(r.Context(), append([]byte(key+"\x00"), body...))
	}
	n.mu.RLock()
	leader := n.keys["\nleader"]
	value, found := n.keys[key]
	n.mu.RUnlock()
	if other := (*synod.NotLeaderError)(nil); errors.As(err, &other) && other.Leader != 0 && leader != nil {
		http.Redirect(w, r, "http://"+string(leader)+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	} else if errors.Is(err, synod.ErrUnknownOutcome) {
		http.Error(w, err.Error(), http.StatusGatewayTimeout) // written, or not
	} else if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable) // certainly not done
	} else if !reading {
		w.WriteHeader(http.StatusNoContent)
	} else if !found {
		http.NotFound(w, r)
	} else {
		_, _ = w.Write(value)
	}
}
