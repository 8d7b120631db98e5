package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The store is a template: it must stay short enough to be read in one go.
func TestStoreStaysShort(t *testing.T) {
	source, err := os.ReadFile("store.go")
	require.NoError(t, err)
	require.NotContains(t, string(source), "/*", "the count knows comments of one line only")
	lines := 0
	for line := range strings.Lines(string(source)) {
		require.LessOrEqual(t, len(line), 150, "a long line is two: %s", line)
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
			lines++
		}
	}
	require.LessOrEqual(t, lines, 100, "lines of store.go without blanks and comments")
}

// onEach runs a test with each of the engines, beside other tests: they wait most of the time.
func onEach(t *testing.T, test func(t *testing.T, engine string)) {
	t.Parallel()
	for engine := range engines {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			test(t, engine)
		})
	}
}

func TestDemonstration(t *testing.T) { onEach(t, testDemonstration) }

func testDemonstration(t *testing.T, engine string) {
	input := filepath.Join(t.TempDir(), "input.txt")
	require.NoError(t, os.WriteFile(input, []byte(strings.Repeat("a line\n\nanother\n", 100)), 0o600))
	var out bytes.Buffer
	require.NoError(t, demonstrate(t.Context(), &out, engine, input), "%s", &out)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Equal(t, "ok: acknowledged=300 lost=0 failovers=1", lines[len(lines)-1])
	require.Equal(t, 1, strings.Count(out.String(), "ok: "))
}

func TestDemonstrationRefusesBadInput(t *testing.T) {
	require.ErrorIs(t, demonstrate(t.Context(), io.Discard, "raft", filepath.Join(t.TempDir(), "missing")), os.ErrNotExist)
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	require.ErrorContains(t, demonstrate(t.Context(), io.Discard, "raft", empty), "want some more")
}

func TestEngineThatIsNotThere(t *testing.T) {
	const want = `-engine: there is no "zab" in this release: use paxos or raft`
	require.EqualError(t, demonstrate(t.Context(), io.Discard, "zab", ""), want)
	require.EqualError(t, run(t.Context(), io.Discard, "zab", 1, "1=127.0.0.1:0", t.TempDir(), "127.0.0.1:0"), want)
}

func TestDemonstrationEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, demonstrate(ctx, io.Discard, "raft", ""), context.Canceled)
}

func TestRunRefusesBadFlags(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct{ peers, dir, http, want string }{
		{"1", "d", "h", `"1" is not id=host:port`},
		{"x=h:1", "d", "h", "is not id=host:port"},
		{"0=h:1", "d", "h", "with an id above 0"},
		{"1=h:1,1=h:2", "d", "h", "each once"},
		{"2=h:1", "d", "h", "node 1 is not among them"},
		{"1=h:1", "", "h", "needs -dir and -http"},
		{"1=h:1", "d", "h", "-http: "},
	} {
		require.ErrorContains(t, run(ctx, io.Discard, "raft", 1, c.peers, c.dir, c.http), c.want)
	}
}

func TestASnapshotHoldsTheState(t *testing.T) {
	n := &node{keys: make(map[string][]byte)}
	for i := range 100 {
		n.Apply(0, fmt.Appendf(nil, "key-%d \"<é>\"\x00value %d \xff\x00", i, i))
	}
	captured, err := n.Snapshot()
	require.NoError(t, err)
	var first, second bytes.Buffer
	written, err := captured.WriteTo(&first)
	require.NoError(t, err)
	require.EqualValues(t, first.Len(), written)
	n.Apply(0, []byte("later\x00"))
	_, err = captured.WriteTo(&second)
	require.NoError(t, err)
	require.Equal(t, first.String(), second.String(), "the same bytes whenever it is called")

	other := &node{keys: map[string][]byte{"old": nil}}
	require.NoError(t, other.Restore(&first))
	require.Len(t, other.keys, 100)
	require.Equal(t, "value 7 \xff\x00", string(other.keys[`key-7 "<é>"`]))
	require.Error(t, other.Restore(strings.NewReader(`{"half`)))
}

// alone starts a cluster of one.
func alone(t *testing.T, engine string) *node {
	address, err := freeAddress()
	require.NoError(t, err)
	n, err := start(t.Context(), engine, 1, map[uint64]string{1: address}, t.TempDir(), "leader.example:80")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.close()) })
	for { // until it leads
		ask := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/keys/first", strings.NewReader("value"))
		answer := httptest.NewRecorder()
		if n.ServeHTTP(answer, ask); answer.Code == http.StatusOK {
			return n
		}
		require.Equal(t, http.StatusServiceUnavailable, answer.Code)
		time.Sleep(time.Millisecond)
	}
}

func TestRequests(t *testing.T) { onEach(t, testRequests) }

func testRequests(t *testing.T, engine string) {
	n := alone(t, engine)
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/keys/first", "", 200, "value"},
		{"PUT", "/keys/first", "", 200, ""},
		{"GET", "/keys/first", "", 200, ""},
		{"GET", "/keys/none", "", 404, "404"},
		{"PUT", "/keys/a/b//c%20d", "\x00\xff", 200, ""},
		{"GET", "/keys/a/b//c%20d", "", 200, "\x00\xff"},
		{"HEAD", "/keys/first", "", 400, ""},
		{"DELETE", "/keys/first", "", 400, "want GET or PUT"},
		{"PUT", "/elsewhere", "", 400, "want GET or PUT"},
		{"PUT", "/keys/%0A1", "", 400, "one line"},
		{"PUT", "/keys/a%00b", "", 400, "one line"},
		{"PUT", "/keys/%FF", "", 400, "valid UTF-8"},
		{"PUT", "/keys/long", strings.Repeat("x", 1<<20+1), 400, "at most 1 MiB"},
		{"PUT", "/keys/long", strings.Repeat("x", 1<<20), 200, ""},
	} {
		answer := httptest.NewRecorder()
		n.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(c.body)))
		require.Equal(t, c.status, answer.Code, "%s %s: %s", c.method, c.path, answer.Body)
		require.Contains(t, answer.Body.String(), c.want)
		if c.want == "" && c.method != "HEAD" {
			require.Empty(t, answer.Body.String())
		}
	}
}

// Three nodes: the one that leads takes a write, the others say where it is.
func TestWritesAreRedirectedToTheLeader(t *testing.T) { onEach(t, testWritesAreRedirectedToTheLeader) }

func testWritesAreRedirectedToTheLeader(t *testing.T, engine string) {
	peers, fronts := make(map[uint64]string), make(map[uint64]string)
	for id := uint64(1); id <= 3; id++ {
		var err error
		peers[id], err = freeAddress()
		require.NoError(t, err)
	}
	var nodes []*node
	for id := uint64(1); id <= 3; id++ {
		front, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		fronts[id] = front.Addr().String()
		n, err := start(t.Context(), engine, id, peers, t.TempDir(), fronts[id])
		require.NoError(t, err)
		nodes = append(nodes, n)
		server := serve(n, front)
		t.Cleanup(func() { _ = server.Close(); require.NoError(t, n.close()) })
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	put := func(id uint64) (status int, location string) {
		ask, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+fronts[id]+"/keys/a?b", strings.NewReader("value"))
		require.NoError(t, err)
		answer, err := client.Do(ask)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		return answer.StatusCode, answer.Header.Get("Location")
	}
	// An election, and the leader's word of its address, take a moment.
	require.Eventually(t, func() bool {
		leaders, redirects := uint64(0), make(map[string]bool)
		for id := uint64(1); id <= 3; id++ {
			switch status, location := put(id); status {
			case http.StatusOK:
				leaders += id
			case http.StatusTemporaryRedirect:
				redirects[location] = true
			default:
				require.Equal(t, http.StatusServiceUnavailable, status)
			}
		}
		return leaders > 0 && len(redirects) == 1 && redirects["http://"+fronts[leaders]+"/keys/a?b"]
	}, 30*time.Second, 5*time.Millisecond)

	for id, n := range nodes { // reads are answered everywhere
		answer := httptest.NewRecorder()
		n.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/keys/a", nil))
		require.Equal(t, http.StatusOK, answer.Code, "node %d: %s", id+1, answer.Body)
		require.Equal(t, "value", answer.Body.String())
	}
}

// A write that loses its majority is neither confirmed nor denied; a read says no.
func TestWithoutAMajority(t *testing.T) { onEach(t, testWithoutAMajority) }

func testWithoutAMajority(t *testing.T, engine string) {
	var nodes []*node
	peers := make(map[uint64]string)
	for id := uint64(1); id <= 3; id++ {
		var err error
		peers[id], err = freeAddress()
		require.NoError(t, err)
	}
	for id := uint64(1); id <= 3; id++ {
		n, err := start(t.Context(), engine, id, peers, t.TempDir(), fmt.Sprintf("node-%d.example", id))
		require.NoError(t, err)
		nodes = append(nodes, n)
	}
	request := func(n *node, method string) int {
		answer := httptest.NewRecorder()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		n.ServeHTTP(answer, httptest.NewRequestWithContext(ctx, method, "/keys/a", nil))
		return answer.Code
	}
	var leader *node
	require.Eventually(t, func() bool {
		for _, n := range nodes {
			if request(n, http.MethodPut) == http.StatusOK {
				leader = n
			}
		}
		return leader != nil
	}, 30*time.Second, time.Millisecond)
	for _, n := range nodes {
		if n != leader {
			require.NoError(t, n.close())
		}
	}
	require.Equal(t, http.StatusGatewayTimeout, request(leader, http.MethodPut))
	require.Equal(t, http.StatusServiceUnavailable, request(leader, http.MethodGet))
	require.NoError(t, leader.close())
}
