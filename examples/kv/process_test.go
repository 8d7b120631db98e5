package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// process is one node in a process of its own.
type process struct {
	t    *testing.T
	args []string
	http string
	bin  string
	cmd  *exec.Cmd
}

// start runs the process and waits until it is ready.
func (p *process) start() {
	p.cmd = exec.Command(p.bin, p.args...)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	require.NoError(p.t, err)
	require.NoError(p.t, p.cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(p.t, err)
	require.Equal(p.t, "ready\n", line)
}

// kill ends the process without a warning.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// TestKilledLeader runs three processes, kills the leader while clients write, and
// looks for every acknowledged write on every node.
func TestKilledLeader(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program and starts three processes")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "kv")
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	var peers []string
	var processes []*process
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		return l.Addr().String()
	}
	for id := range 3 {
		peers = append(peers, fmt.Sprintf("%d=%s", id+1, free()))
	}
	for id := range 3 {
		p := &process{t: t, bin: bin, http: free()}
		p.args = []string{"-id", fmt.Sprint(id + 1), "-peers", strings.Join(peers, ","), "-dir", filepath.Join(dir, fmt.Sprint(id+1)), "-http", p.http}
		processes = append(processes, p)
		p.start()
		t.Cleanup(p.kill)
	}

	client := &http.Client{Timeout: 6 * time.Second}
	put := func(at int, key string) error {
		request, err := http.NewRequest(http.MethodPut, "http://"+processes[at%3].http+"/keys/"+key, strings.NewReader("value of "+key))
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusNoContent {
			return errors.New(response.Status)
		}
		return nil
	}
	leader := func() int {
		var at int
		require.Eventually(t, func() bool {
			for i := range 3 {
				// The leader answers a write itself, the others say where to go.
				direct := &http.Client{Timeout: 6 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
				request, _ := http.NewRequest(http.MethodPut, "http://"+processes[i].http+"/keys/probe", strings.NewReader("x"))
				response, err := direct.Do(request)
				if err != nil {
					continue
				}
				response.Body.Close()
				if response.StatusCode == http.StatusNoContent {
					at = i
					return true
				}
			}
			return false
		}, 30*time.Second, 10*time.Millisecond)
		return at
	}
	old := leader()

	var mu sync.Mutex
	acknowledged := make(map[string]bool)
	last, gap := time.Now(), time.Duration(0)
	killed, stop := make(chan struct{}), make(chan struct{})
	var writers sync.WaitGroup
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acknowledged)
	}
	for w := range 8 {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("w%d-%d", w, i)
				if put(w+i, key) != nil {
					continue // not acknowledged, and so not looked for
				}
				mu.Lock()
				acknowledged[key] = true
				now := time.Now()
				select {
				case <-killed:
					gap = max(gap, now.Sub(last))
				default:
				}
				last = now
				mu.Unlock()
			}
		})
	}
	require.Eventually(t, func() bool { return count() > 200 }, 30*time.Second, time.Millisecond)
	close(killed)
	processes[old].kill()
	before := count()
	require.Eventually(t, func() bool { return count() > before+500 }, 30*time.Second, time.Millisecond, "writes must go on")
	processes[old].start()
	before = count()
	require.Eventually(t, func() bool { return count() > before+200 }, 30*time.Second, time.Millisecond)
	close(stop)
	writers.Wait()
	t.Logf("%d writes acknowledged; the longest pause between two, after the kill: %v", len(acknowledged), gap)

	for i, p := range processes {
		for key := range acknowledged {
			var body []byte
			require.Eventually(t, func() bool {
				response, err := client.Get("http://" + p.http + "/keys/" + key)
				if err != nil {
					return false
				}
				defer response.Body.Close()
				body, err = io.ReadAll(response.Body)
				// Not found is an answer, and a wrong one.
				return err == nil && (response.StatusCode == http.StatusOK || response.StatusCode == http.StatusNotFound)
			}, 30*time.Second, time.Millisecond)
			require.Equal(t, "value of "+key, string(body), "node %d", i+1)
		}
	}
}
