package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/sim/history"
	"github.com/synod-go/synod/transport/tcp"
)

// process is one node in a process of its own. What others send to it passes a proxy, which can
// be stopped.
type process struct {
	id            int
	redis, listen string
	proxy         *proxy
	bin, dir      string
	args          []string
	cmd           *exec.Cmd
}

// program is built once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "redis-test")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "redis")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	logging.Disable() // of connections that are refused, which is what these tests are about
	code := m.Run()
	if bin, err := program(); err == nil {
		_ = os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// onEach runs a test with each of the engines.
func onEach(t *testing.T, test func(t *testing.T, engine string)) {
	for _, engine := range slices.Sorted(maps.Keys(engines)) {
		t.Run(engine, func(t *testing.T) { test(t, engine) })
	}
}

// proxy passes connections on, unless it is cut.
type proxy struct {
	listener net.Listener
	to       string
	mu       sync.Mutex
	cut      bool
	conns    []net.Conn
}

func newProxy(t *testing.T, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: l, to: to}
	t.Cleanup(func() {
		_ = l.Close()
		p.set(true)
	})
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go p.pass(in)
		}
	}()
	return p
}

func (p *proxy) pass(in net.Conn) {
	out, err := net.Dial("tcp", p.to)
	if err != nil {
		_ = in.Close()
		return
	}
	p.mu.Lock()
	p.conns = append(p.conns, in, out)
	cut := p.cut
	p.mu.Unlock()
	if cut {
		_ = in.Close()
		_ = out.Close()
		return
	}
	go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
	_, _ = io.Copy(in, out)
	_ = in.Close()
}

// set cuts the way, or opens it.
func (p *proxy) set(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	if cut {
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.conns = nil
	}
}

// launch describes processes and starts three of them.
func launch(t *testing.T, engine string, total int) []*process {
	list := describe(t, engine, total)
	startAll(t, list[:3])
	return list
}

func startAll(t *testing.T, list []*process) {
	var ready sync.WaitGroup
	for _, p := range list {
		ready.Go(func() { p.start(t) })
	}
	ready.Wait()
	require.False(t, t.Failed())
}

// describe describes processes, of which the first three are to be a cluster, and the others to join it.
func describe(t *testing.T, engine string, total int) []*process {
	if testing.Short() {
		t.Skip("builds the program and starts processes")
	}
	bin, err := program()
	require.NoError(t, err)
	ports, err := freePorts(2 * total)
	require.NoError(t, err)
	var list []*process
	var peers []string
	for i := range total {
		p := &process{id: i + 1, bin: bin, dir: filepath.Join(t.TempDir(), strconv.Itoa(i+1)), redis: "127.0.0.1:" + ports[2*i], listen: "127.0.0.1:" + ports[2*i+1]}
		p.proxy = newProxy(t, p.listen)
		list = append(list, p)
		if i < 3 {
			peers = append(peers, fmt.Sprintf("%d=%s", p.id, p.proxy.listener.Addr()))
		}
	}
	for i, p := range list {
		p.args = []string{"-id", strconv.Itoa(p.id), "-engine", engine, "-listen", p.listen, "-dir", p.dir, "-redis", p.redis, "-insecure"}
		if i < 3 {
			p.args = append(p.args, "-peers", strings.Join(peers, ","))
		} else {
			p.args = append(p.args, "-peers", fmt.Sprintf("%d=%s", p.id, p.proxy.listener.Addr()), "-join", list[0].redis)
		}
	}
	return list
}

func (p *process) start(t *testing.T) {
	p.cmd = exec.Command(p.bin, p.args...)
	log, err := os.OpenFile(p.dir+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Error(err)
		return
	}
	defer log.Close()
	p.cmd.Stderr = log
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return
	}
	cmd := p.cmd
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		text, _ := os.ReadFile(p.dir + ".log")
		t.Errorf("node %d did not start: %q\n%s", p.id, line, text)
	}
}

// end sends a signal and waits for the end of the process.
func (p *process) end(signal os.Signal) error {
	_ = p.cmd.Process.Signal(signal)
	return p.cmd.Wait()
}

// leader waits until one of the processes says that it leads, and returns it.
func leader(t *testing.T, list []*process) *process {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		for _, p := range list {
			one, cancel := context.WithTimeout(ctx, time.Second)
			line, err := ask(one, p.redis, "SYNOD LEADER")
			cancel()
			if err == nil && line == fmt.Sprintf(":%d", p.id) {
				return p
			}
		}
		require.NoError(t, ctx.Err(), "nobody leads")
	}
}

// connect returns clients of the processes, which try a command once.
func connect(t *testing.T, list []*process) []*redis.Client {
	var clients []*redis.Client
	for _, p := range list {
		c := redis.NewClient(&redis.Options{Addr: p.redis, Protocol: 2, MaxRetries: -1, DialTimeout: time.Second, ReadTimeout: 15 * time.Second, ContextTimeoutEnabled: true, DisableIdentity: true})
		t.Cleanup(func() { _ = c.Close() })
		clients = append(clients, c)
	}
	return clients
}

// load increments counters, each worker one of its own, until it is told to stop. A command that
// was certainly not executed is tried again, on another node; one of unknown outcome is noted.
type load struct {
	done    sync.WaitGroup
	stop    atomic.Bool
	mu      sync.Mutex
	acked   []int64
	unknown []int64
	written atomic.Int64
	failed  error
}

func startLoad(clients []*redis.Client, workers int) *load {
	l := &load{acked: make([]int64, workers), unknown: make([]int64, workers)}
	for w := range workers {
		l.done.Go(func() {
			at, tries := w, 0
			for !l.stop.Load() {
				n, err := clients[at%len(clients)].Incr(context.Background(), fmt.Sprintf("counter-%d", w)).Result()
				l.mu.Lock()
				switch {
				case err == nil:
					if n <= l.acked[w] || n > l.acked[w]+l.unknown[w]+1 {
						l.failed = fmt.Errorf("counter %d: %d follows %d, with %d of unknown outcome", w, n, l.acked[w], l.unknown[w])
					}
					l.unknown[w] -= n - l.acked[w] - 1
					l.acked[w], tries = n, 0
					l.written.Add(1)
				case certain(err):
					at++ // a retry, elsewhere
					if tries++; tries > 300 {
						l.failed = fmt.Errorf("no node executes a command: %w", err)
						l.stop.Store(true)
					}
				default:
					l.unknown[w]++
					at++
				}
				l.mu.Unlock()
				if err != nil {
					time.Sleep(10 * time.Millisecond) // as clients do between two tries
				}
			}
		})
	}
	return l
}

// certain reports whether a command was certainly not executed.
func certain(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	return strings.HasPrefix(err.Error(), "TRYAGAIN") || strings.HasPrefix(err.Error(), "CLUSTERDOWN")
}

// more waits until so many more commands were answered.
func (l *load) more(t *testing.T, n int64) {
	until := l.written.Load() + n
	require.Eventually(t, func() bool { return l.written.Load() >= until || l.stop.Load() }, time.Minute, 5*time.Millisecond)
}

// check stops the load, and sees that nothing acknowledged is lost, and nothing was executed twice.
func (l *load) check(t *testing.T, c *redis.Client) {
	l.stop.Store(true)
	l.done.Wait()
	require.NoError(t, l.failed)
	for w := range l.acked {
		n, err := c.Get(context.Background(), fmt.Sprintf("counter-%d", w)).Int64()
		require.NoError(t, err)
		require.GreaterOrEqual(t, n, l.acked[w], "counter %d", w)
		require.LessOrEqual(t, n, l.acked[w]+l.unknown[w], "counter %d", w)
	}
}

func TestKilledLeader(t *testing.T) { onEach(t, testKilledLeader) }

func testKilledLeader(t *testing.T, engine string) {
	list := launch(t, engine, 3)
	clients := connect(t, list)
	l := startLoad(clients, 8)
	for range 3 {
		l.more(t, 200)
		p := leader(t, list)
		_ = p.end(syscall.SIGKILL)
		l.more(t, 200)
		p.start(t)
	}
	l.more(t, 200)
	l.check(t, clients[0])
}

func TestRollingRestart(t *testing.T) { onEach(t, testRollingRestart) }

func testRollingRestart(t *testing.T, engine string) {
	list := launch(t, engine, 3)
	clients := connect(t, list)
	l := startLoad(clients, 8)
	for _, p := range list {
		l.more(t, 200)
		require.NoError(t, p.end(syscall.SIGTERM))
		l.more(t, 200)
		p.start(t)
		// The next one goes when this one is back.
		require.Eventually(t, func() bool { return clients[p.id-1].Get(context.Background(), "counter-0").Err() == nil }, time.Minute, 10*time.Millisecond)
	}
	l.more(t, 200)
	l.check(t, clients[2])
}

func TestReplaceAll(t *testing.T) { onEach(t, testReplaceAll) }

func testReplaceAll(t *testing.T, engine string) {
	list := launch(t, engine, 6)
	clients := connect(t, list)
	ctx := context.Background()
	l := startLoad(clients, 8)
	for _, p := range list[3:] {
		l.more(t, 100)
		p.start(t) // which joins
	}
	for _, p := range list[:3] {
		l.more(t, 100)
		require.Eventually(t, func() bool {
			err := clients[5].Do(ctx, "SYNOD", "REMOVE", p.id).Err()
			if err != nil {
				t.Logf("remove %d: %v", p.id, err)
			}
			return err == nil
		}, time.Minute, 100*time.Millisecond)
	}
	for _, p := range list[:3] {
		require.NoError(t, p.end(syscall.SIGTERM))
	}
	l.more(t, 500)
	members, err := clients[3].Do(ctx, "SYNOD", "MEMBERS").Slice()
	require.NoError(t, err)
	var ids []string
	for _, m := range members {
		ids = append(ids, fmt.Sprint(m.([]any)[0]))
	}
	require.Equal(t, []string{"4", "5", "6"}, ids)
	l.check(t, clients[4])
}

func TestTLS(t *testing.T) { onEach(t, testTLS) }

func testTLS(t *testing.T, engine string) {
	list := describe(t, engine, 3)
	dir := t.TempDir()
	require.NoError(t, tcp.WriteDevelopmentFiles(dir, "redis", 1, 2, 3))
	for _, p := range list {
		p.args = slices.DeleteFunc(p.args, func(a string) bool { return a == "-insecure" })
		node := filepath.Join(dir, fmt.Sprintf("node-%d", p.id))
		p.args = append(p.args, "-tls-ca", filepath.Join(dir, "ca.pem"), "-tls-cert", node+".pem", "-tls-key", node+"-key.pem")
	}
	// A certificate of another node is refused.
	other := exec.Command(list[0].bin, slices.Concat(list[0].args[:len(list[0].args)-4], list[1].args[len(list[1].args)-4:])...)
	out, err := other.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "certificate")
	startAll(t, list)
	clients := connect(t, list)
	require.Eventually(t, func() bool { return clients[0].Set(t.Context(), "a", 1, 0).Err() == nil }, time.Minute, 10*time.Millisecond)
	require.Equal(t, "1", clients[2].Get(t.Context(), "a").Val())
}

func TestTakenID(t *testing.T) { onEach(t, testTakenID) }

func testTakenID(t *testing.T, engine string) {
	list := launch(t, engine, 4)
	clients := connect(t, list)
	ctx := context.Background()
	require.NoError(t, clients[0].Set(ctx, "a", 1, 0).Err())
	fourth := list[3]
	fourth.args[1] = "3"         // another node has that
	for _, p := range list[:3] { // one of them leads
		args := slices.Replace(slices.Clone(fourth.args), len(fourth.args)-3, len(fourth.args), "3="+fourth.proxy.listener.Addr().String(), "-join", p.redis)
		out, err := exec.Command(fourth.bin, args...).CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), "the cluster refuses this node: -MEMBER the ID 3 is taken")
	}
	// Nor can the last voters be removed.
	for _, id := range []int{1, 2} {
		require.Eventually(t, func() bool { return clients[2].Do(ctx, "SYNOD", "REMOVE", id).Err() == nil }, time.Minute, 100*time.Millisecond)
	}
	err := clients[2].Do(ctx, "SYNOD", "REMOVE", 3).Err()
	require.ErrorContains(t, err, "ERR ")
	require.ErrorContains(t, err, "at least one")
	require.ErrorContains(t, clients[2].Do(ctx, "SYNOD", "REMOVE", 9).Err(), "MEMBER")
	require.Equal(t, "1", clients[2].Get(ctx, "a").Val())
}

// A node that is started with the other engine says so, and does no harm: not on a directory that the first one has
// written, nor as one that is to join.
func TestOtherEngine(t *testing.T) { onEach(t, testOtherEngine) }

func testOtherEngine(t *testing.T, engine string) {
	list := launch(t, engine, 4)
	clients := connect(t, list)
	ctx := context.Background()
	require.NoError(t, clients[0].Set(ctx, "a", 1, 0).Err())
	require.Equal(t, "1", clients[2].Get(ctx, "a").Val())
	third := list[2]
	for _, other := range slices.Sorted(maps.Keys(engines)) {
		if other == engine {
			continue
		}
		wrong := func(p *process) string {
			args := slices.Clone(p.args)
			args[slices.Index(args, "-engine")+1] = other
			out, err := exec.Command(p.bin, args...).CombinedOutput()
			require.Error(t, err)
			return string(out)
		}
		require.NoError(t, third.end(syscall.SIGTERM))
		require.Contains(t, wrong(third), fmt.Sprintf("the group is kept by %s, not by %s", engine, other))
		third.start(t)
		require.Eventually(t, func() bool { return clients[2].Get(ctx, "a").Val() == "1" }, time.Minute, 10*time.Millisecond)
		require.Contains(t, wrong(list[3]), fmt.Sprintf("the cluster refuses this node: -MEMBER this cluster runs on %s, not on %s: use -engine %s", engine, other, engine))
	}
	members, err := clients[0].Do(ctx, "SYNOD", "MEMBERS").Slice()
	require.NoError(t, err)
	require.Len(t, members, 3)
}

// What the history is held against: a counter and a list that belong together.
type pair struct {
	counter int
	list    string
}

type call struct {
	op   string
	pair int
	item string
}

var pairs = history.Model[pair, call, string]{
	Key: func(c call) string { return strconv.Itoa(c.pair) },
	Step: func(p pair, c call) (pair, string) {
		switch c.op {
		case "incr":
			p.counter++
			return p, strconv.Itoa(p.counter)
		case "push":
			p.list += c.item + " "
			return p, strconv.Itoa(strings.Count(p.list, " "))
		case "exec":
			p.counter++
			p.list += c.item + " "
			return p, fmt.Sprint(p.counter, strings.Count(p.list, " "))
		case "get":
			return p, strconv.Itoa(p.counter)
		case "both":
			return p, fmt.Sprint(p.counter, ":", p.list)
		}
		return p, p.list
	},
}

// do makes a call of the history with a client.
func do(ctx context.Context, client *redis.Client, c call) (string, error) {
	counter, list := fmt.Sprintf("n%d", c.pair), fmt.Sprintf("l%d", c.pair)
	items := func(found []string) (s string) {
		for _, item := range found {
			s += item + " "
		}
		return s
	}
	switch c.op {
	case "incr":
		n, err := client.Incr(ctx, counter).Result()
		return strconv.FormatInt(n, 10), err
	case "push":
		n, err := client.RPush(ctx, list, c.item).Result()
		return strconv.FormatInt(n, 10), err
	case "exec":
		tx := client.TxPipeline()
		n, m := tx.Incr(ctx, counter), tx.RPush(ctx, list, c.item)
		_, err := tx.Exec(ctx)
		return fmt.Sprint(n.Val(), m.Val()), err
	case "both":
		tx := client.TxPipeline()
		n, m := tx.Get(ctx, counter), tx.LRange(ctx, list, 0, -1)
		_, err := tx.Exec(ctx)
		if errors.Is(err, redis.Nil) {
			err = nil
		}
		value := n.Val()
		if value == "" {
			value = "0"
		}
		return fmt.Sprint(value, ":", items(m.Val())), err
	case "get":
		s, err := client.Get(ctx, counter).Result()
		if errors.Is(err, redis.Nil) {
			return "0", nil
		}
		return s, err
	}
	found, err := client.LRange(ctx, list, 0, -1).Result()
	return items(found), err
}

func TestLinearizable(t *testing.T) { onEach(t, testLinearizable) }

func testLinearizable(t *testing.T, engine string) {
	t.Parallel() // it waits most of the time
	list := launch(t, engine, 3)
	clients := connect(t, list)
	h := history.New(pairs)
	var mu sync.Mutex // of the history
	var answered, next atomic.Int64
	var stop atomic.Bool
	var done sync.WaitGroup
	began := time.Now()
	ops := []string{"incr", "push", "exec", "get", "both", "range"}
	for w := range 6 {
		done.Go(func() {
			client := w
			for i := 0; !stop.Load(); i++ {
				c := call{op: ops[(i*7+w)%len(ops)], item: strconv.FormatInt(next.Add(1), 10)}
				c.pair = int(time.Since(began)/(500*time.Millisecond))*4 + (i+w)%4 // new ones all the time: parts stay short
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				mu.Lock()
				made := h.Begin(client, c)
				mu.Unlock()
				output, err := do(ctx, clients[(i+w)%3], c)
				cancel()
				mu.Lock()
				switch {
				case err == nil:
					made.Return(output)
					answered.Add(1)
				case certain(err) || c.op == "get" || c.op == "range":
					made.Refused() // a read that failed has no effect
				default:
					client += 100 // that call may still be under way
				}
				mu.Unlock()
				if err != nil {
					time.Sleep(20 * time.Millisecond)
				} else {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	more := func(n int64) {
		until := answered.Load() + n
		require.Eventually(t, func() bool { return answered.Load() >= until }, time.Minute, 5*time.Millisecond)
	}
	for round := range 6 {
		more(150)
		p := leader(t, list)
		switch round % 3 {
		case 0:
			_ = p.end(syscall.SIGKILL)
			more(100)
			p.start(t)
		case 1:
			require.NoError(t, p.cmd.Process.Signal(syscall.SIGSTOP))
			more(50) // of the others
			require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
		case 2:
			p.proxy.set(true) // it hears nobody
			more(50)
			p.proxy.set(false)
		}
	}
	more(150)
	stop.Store(true)
	done.Wait()
	require.NoError(t, h.Check(time.Minute))
	calls, _ := h.Len()
	t.Logf("%d calls, %d answered", calls, answered.Load())
}
