package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/storage/pebble"
	"github.com/synod-go/synod/transport/tcp"
)

// node is one member of the cluster. It is the state machine, a map, that the engine
// (see engine.go) calls through Apply, Snapshot and Restore, and serves HTTP.
type node struct {
	mu    sync.RWMutex
	keys  map[string][]byte
	group replica
	close func() error
}

// Apply executes one command: a key, a zero byte, a value.
func (n *node) Apply(_ uint64, command []byte) []byte {
	key, value, _ := strings.Cut(string(command), "\x00") // a copy: the command is not ours to keep
	n.mu.Lock()
	defer n.mu.Unlock()
	n.keys[key] = []byte(value)
	return nil
}

// Snapshot is cheap: values are replaced and never changed, so that a copy of the
// map will do. It is written out while commands go on.
func (n *node) Snapshot() (io.WriterTo, error) { return snapshot(maps.Clone(n.keys)), nil }

type snapshot map[string][]byte

// WriteTo writes the same bytes whenever it is called: JSON has its keys in order.
func (s snapshot) WriteTo(w io.Writer) (int64, error) {
	b, _ := json.Marshal(s) // can't fail for such a map
	return strings.NewReader(string(b)).WriteTo(w)
}

// Restore replaces the state by a snapshot.
func (n *node) Restore(r io.Reader) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.keys = make(map[string][]byte)
	return json.NewDecoder(r).Decode(&n.keys)
}

// start opens a node on a directory. The peers, itself among them, have addresses for
// each other; its HTTP clients reach it at the public one. After an error the program
// is expected to end.
func start(ctx context.Context, engine string, id uint64, peers map[uint64]string, dir, public string) (*node, error) {
	n, log := &node{keys: make(map[string][]byte)}, slog.Default()
	transport, err := tcp.Listen(tcp.Config{Cluster: "kv", Node: id, Address: peers[id], Peers: peers, Insecure: true, Logger: log})
	disk, err2 := pebble.Open(pebble.Config{Dir: dir, Logger: log})
	if err = errors.Join(err, err2); err != nil {
		return nil, err
	}
	member, err := engines[engine](ctx, id, transport, disk, log)
	if err != nil {
		return nil, err
	}
	n.close = func() error { return errors.Join(member.Close(), disk.Close(), transport.Close()) }
	// This program takes an empty directory for a member of a new cluster: its own
	// choice. If it is empty because a disk was lost, the others will not listen to it:
	// they remember that this node was another incarnation.
	if err = member.Bootstrap(ctx, 1, slices.Sorted(maps.Keys(peers))); err != nil && !errors.Is(err, errBootstrapped) {
		return nil, err
	}
	events := member.Events(ctx)
	if n.group, err = member.startGroup(ctx, 1, n); err != nil {
		return nil, err
	}
	go events(func(synod.Event) bool { // whoever leads writes down where its clients reach it; of others this is refused
		_, _ = n.group.Propose(ctx, fmt.Appendf(nil, "\n%d\x00%s", id, public))
		return true
	})
	return n, nil
}

// ServeHTTP answers GET and PUT of /keys/KEY on every node: reads from its own map,
// writes by a redirect to the leader.
func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key, found := strings.CutPrefix(r.URL.Path, "/keys/")
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil || !found || r.Method != http.MethodGet && r.Method != http.MethodPut || strings.ContainsAny(key, "\x00\n\uFFFD") {
		http.Error(w, "want GET or PUT of /keys/KEY, one line of valid UTF-8, and a value of at most 1 MiB", http.StatusBadRequest)
		return
	}
	if r.Method == http.MethodPut {
		_, err = n.group.Propose(r.Context(), append([]byte(key+"\x00"), body...))
	} else {
		err = n.group.Barrier(r.Context()) // after it, what we hold is up to date
	}
	other := new(synod.NotLeaderError)
	_ = errors.As(err, &other)
	n.mu.RLock()
	value, exists := n.keys[key]
	leader, elsewhere := n.keys[fmt.Sprintf("\n%d", other.Leader)]
	n.mu.RUnlock()
	switch {
	case errors.Is(err, synod.ErrUnknownOutcome):
		http.Error(w, err.Error(), http.StatusGatewayTimeout) // written, or not, or later
	case elsewhere:
		http.Redirect(w, r, "http://"+string(leader)+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable) // certainly not done
	case r.Method == http.MethodPut: // written: 200
	case !exists:
		http.NotFound(w, r)
	default:
		_, _ = w.Write(value)
	}
}
