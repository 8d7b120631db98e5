package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// process is one node in a process of its own.
type process struct {
	http string
	bin  string
	args []string
	log  string
	cmd  *exec.Cmd
}

// start runs the process and waits until it is ready.
func (p *process) start(t *testing.T) {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(t, err)
	defer log.Close()
	p.cmd = exec.Command(p.bin, p.args...)
	p.cmd.Stderr = log
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	line, _ := bufio.NewReader(out).ReadString('\n')
	require.Equal(t, "ready\n", line, "%v", p.args)
}

// end sends a signal, unless the process has ended, and waits for the end.
func (p *process) end(signal os.Signal) error {
	_ = p.cmd.Process.Signal(signal)
	return p.cmd.Wait()
}

// program is compiled once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kv-test")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "kv")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("%w: %s", err, out), os.RemoveAll(dir))
	}
	return bin, nil
})

var started atomic.Bool // a test has asked for the program

func TestMain(m *testing.M) {
	code := m.Run()
	if started.Load() {
		if bin, err := program(); err == nil {
			_ = os.RemoveAll(filepath.Dir(bin))
		}
	}
	os.Exit(code)
}

// describe describes three processes of the program.
func describe(t *testing.T, engine string) []*process {
	if testing.Short() {
		t.Skip("builds the program and starts three processes")
	}
	started.Store(true)
	bin, err := program()
	require.NoError(t, err)
	dir := t.TempDir()
	var peers []string
	for id := 1; id <= 3; id++ {
		address, err := freeAddress()
		require.NoError(t, err)
		peers = append(peers, fmt.Sprintf("%d=%s", id, address))
	}
	var processes []*process
	for id := 1; id <= 3; id++ {
		p := &process{bin: bin, log: filepath.Join(dir, fmt.Sprintf("log-%d", id))}
		p.http, err = freeAddress()
		require.NoError(t, err)
		p.args = []string{"-id", fmt.Sprint(id), "-engine", engine, "-peers", strings.Join(peers, ","), "-dir", filepath.Join(dir, fmt.Sprint(id)), "-http", p.http}
		processes = append(processes, p)
	}
	t.Cleanup(func() {
		for i, p := range processes {
			if p.cmd != nil {
				_ = p.end(os.Kill)
			}
			if b, err := os.ReadFile(p.log); err == nil && t.Failed() {
				t.Logf("node %d says\n%s", i+1, b)
			}
		}
	})
	return processes
}

// here is a client that stays where it asks: what another node answers says nothing
// about this one.
var here = &http.Client{Timeout: 6 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// do returns the status, 0 where there was no answer, and the body.
func do(client *http.Client, method string, p *process, key, value string) (int, string) {
	request, err := http.NewRequest(method, "http://"+p.http+"/keys/"+key, strings.NewReader(value))
	if err != nil {
		return 0, ""
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, ""
	}
	return response.StatusCode, string(body)
}

// load is clients that write, from outside, as fast as they are answered.
type load struct {
	stop    chan struct{}
	clients sync.WaitGroup

	mu           sync.Mutex
	acknowledged []string // keys; the value of each is "value of " and the key
	last         time.Time
	longest      time.Duration // between two acknowledgements, since mark
}

// startLoad starts clients whose keys all begin with name.
func startLoad(name string, clients int, processes []*process) *load {
	l := &load{stop: make(chan struct{}), last: time.Now()}
	follow := &http.Client{Timeout: 6 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	for c := range clients {
		l.clients.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-l.stop:
					return
				default:
				}
				key := fmt.Sprintf("%s-%d-%d", name, c, i)
				if status, _ := do(follow, http.MethodPut, processes[(c+i)%len(processes)], key, "value of "+key); status != http.StatusOK {
					time.Sleep(5 * time.Millisecond) // not acknowledged, and so not looked for
					continue
				}
				l.mu.Lock()
				now := time.Now()
				l.longest, l.last = max(l.longest, now.Sub(l.last)), now
				l.acknowledged = append(l.acknowledged, key)
				l.mu.Unlock()
			}
		})
	}
	return l
}

// mark starts the search for the longest pause anew.
func (l *load) mark() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.longest = 0
}

// more awaits so many more acknowledgements.
func (l *load) more(t *testing.T, n int) {
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.acknowledged)
	}
	before := count()
	require.Eventually(t, func() bool { return count() >= before+n }, patience, time.Millisecond, "writes must go on")
}

// leader returns the number of the process that takes writes itself; the others say
// where to go.
func leader(t *testing.T, processes []*process) (at int) {
	require.Eventually(t, func() bool {
		for i, p := range processes {
			if status, _ := do(here, http.MethodPut, p, "probe", ""); status == http.StatusOK {
				at = i
				return true
			}
		}
		return false
	}, patience, 5*time.Millisecond)
	return at
}

// verify looks for every acknowledged write on every node.
func (l *load) verify(t *testing.T, processes []*process) {
	for i, p := range processes {
		for _, key := range l.acknowledged {
			var status int
			var body string
			require.Eventually(t, func() bool {
				status, body = do(here, http.MethodGet, p, key, "")
				return status == http.StatusOK || status == http.StatusNotFound // an answer, though a wrong one
			}, patience, time.Millisecond)
			require.Equal(t, "value of "+key, body, "node %d: status %d", i+1, status)
		}
	}
}

// TestKilledLeader runs three processes and kills the one that leads while clients
// write, and again once it is back.
func TestKilledLeader(t *testing.T) { onEach(t, testKilledLeader) }

func testKilledLeader(t *testing.T, engine string) {
	processes := describe(t, engine)
	for _, p := range processes {
		p.start(t)
	}
	l := startLoad("load", 8, processes)
	defer func() {
		select {
		case <-l.stop:
		default:
			close(l.stop)
		}
		l.clients.Wait()
	}()
	l.more(t, 200)
	for range 2 {
		old := leader(t, processes)
		l.mark()
		_ = processes[old].end(os.Kill)
		l.more(t, 500)
		l.mu.Lock()
		t.Logf("node %d, which led, was killed: the longest pause between two acknowledged writes was %v", old+1, l.longest.Round(time.Millisecond))
		l.mu.Unlock()
		processes[old].start(t)
		l.more(t, 200)
	}
	close(l.stop)
	l.clients.Wait()
	l.verify(t, processes)
	t.Logf("%d acknowledged writes are on every node", len(l.acknowledged))
}

// TestEndedCluster ends all processes, by kill and by a polite signal, and starts
// them again.
func TestEndedCluster(t *testing.T) { onEach(t, testEndedCluster) }

func testEndedCluster(t *testing.T, engine string) {
	processes := describe(t, engine)
	for _, signal := range []os.Signal{os.Kill, syscall.SIGTERM} {
		for _, p := range processes {
			p.start(t)
		}
		l := startLoad(fmt.Sprintf("signal-%d", signal), 8, processes)
		l.more(t, 200)
		close(l.stop)
		l.clients.Wait()
		for _, p := range processes {
			err := p.end(signal)
			require.Equal(t, signal != os.Kill, err == nil, "%v", err)
		}
		for _, p := range processes {
			p.start(t)
		}
		l.verify(t, processes)
		for _, p := range processes {
			_ = p.end(os.Kill)
		}
	}
}

// A node that is started on a directory of the other engine says so, and does no harm.
func TestOtherEngine(t *testing.T) { onEach(t, testOtherEngine) }

func testOtherEngine(t *testing.T, engine string) {
	processes := describe(t, engine)
	for _, p := range processes {
		p.start(t)
	}
	l := startLoad("load", 8, processes)
	l.more(t, 50)
	close(l.stop)
	l.clients.Wait()
	third := processes[2]
	for other := range engines {
		if other == engine {
			continue
		}
		require.NoError(t, third.end(syscall.SIGTERM))
		args := slices.Clone(third.args)
		args[slices.Index(args, "-engine")+1] = other
		out, err := exec.Command(third.bin, args...).Output()
		require.Error(t, err)
		require.Contains(t, string(out), fmt.Sprintf("the group is kept by %s, not by %s", engine, other))
		third.start(t)
	}
	l.verify(t, processes)
}
