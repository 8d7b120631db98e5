//go:build unix

package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/probe"
)

// server is a real one, in a directory of its own, reached by a socket there.
type server struct {
	dir     string
	binary  string
	as      *syscall.Credential // nil: who runs the tests
	foreign bool                // it is another process's
	process *exec.Cmd
	exited  chan struct{}
	log     lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// shared is the server of all tests of this process, which run one after the other.
var shared *server

const childVariable = "SYNOD_POSTGRES_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		child()
		return
	}
	if bug := os.Getenv(bugVariable); bug != "" {
		probe.Plant(bug)
		shared = &server{dir: os.Getenv(bugVariable + "_SERVER"), foreign: true}
	}
	code := m.Run()
	if shared != nil && !shared.foreign {
		shared.kill(syscall.SIGQUIT)
		os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// binaries are where servers are kept, by Debian among others. "" is the PATH.
var binaries = []string{"", "/usr/lib/postgresql/17/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/14/bin", "/usr/local/pgsql/bin"}

func find(name string) string {
	for _, dir := range binaries {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	return ""
}

// running returns the server that all share, and starts it if it does not run.
func running(t testing.TB) *server {
	t.Helper()
	if shared == nil {
		initdb, postgres := find("initdb"), find("postgres")
		if initdb == "" || postgres == "" {
			if os.Getenv("SYNOD_POSTGRES") == "1" {
				t.Fatal("SYNOD_POSTGRES=1, and there is no PostgreSQL server: neither in PATH nor in /usr/lib/postgresql")
			}
			t.Skip("NOTHING IS TESTED: there is no PostgreSQL server, neither in PATH nor in /usr/lib/postgresql. Install postgresql; with SYNOD_POSTGRES=1 this fails")
		}
		s := &server{binary: postgres}
		var err error
		s.dir, err = os.MkdirTemp("", "pg") // short: the path of a socket has 107 bytes
		require.NoError(t, err)
		if os.Geteuid() == 0 {
			// The server refuses to be run by root.
			u, err := user.Lookup("postgres")
			require.NoError(t, err, "the tests run as root, and there is no user postgres to run the server")
			uid, err := strconv.Atoi(u.Uid)
			require.NoError(t, err)
			gid, err := strconv.Atoi(u.Gid)
			require.NoError(t, err)
			s.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
			require.NoError(t, os.Chown(s.dir, uid, gid))
		}
		cmd := s.command(initdb, "-D", s.dir+"/data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		shared = s
	}
	if !shared.alive() {
		shared.start(t)
	}
	return shared
}

func (s *server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	return cmd
}

func (s *server) alive() bool {
	if s.foreign {
		return true
	}
	if s.process == nil {
		return false
	}
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// start starts the server, and waits until it answers. After a kill what it had shared may take a moment to vanish.
func (s *server) start(t testing.TB, settings ...string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		args := []string{"-D", s.dir + "/data", "-k", s.dir, "-c", "listen_addresses=", "-c", "max_connections=100", "-c", "fsync=on"}
		if settings == nil {
			settings = []string{"max_prepared_transactions=64"}
		}
		for _, setting := range settings {
			args = append(args, "-c", setting)
		}
		cmd := s.command(s.binary, args...)
		cmd.Stdout, cmd.Stderr = &s.log, &s.log
		require.NoError(t, cmd.Start())
		exited := make(chan struct{})
		go func() {
			_ = cmd.Wait()
			close(exited)
		}()
		s.process, s.exited = cmd, exited
		for s.alive() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			conn, err := pgx.Connect(ctx, s.url())
			if err == nil {
				conn.Close(ctx)
				cancel()
				return
			}
			cancel()
			if time.Now().After(deadline) {
				t.Fatalf("the server does not answer: %v\n%s", err, s.log.String())
			}
			time.Sleep(20 * time.Millisecond)
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server does not start:\n%s", s.log.String())
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// kill ends the server: SIGQUIT is its immediate shutdown, after which it recovers.
func (s *server) kill(sig syscall.Signal) {
	if s.alive() {
		_ = s.process.Process.Signal(sig)
		<-s.exited
	}
}

func (s *server) url() string { return "host=" + s.dir + " user=postgres dbname=postgres" }

// exec has the server do something as its superuser.
func (s *server) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url())
	require.NoError(t, err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql, args...)
	require.NoError(t, err)
}

func (s *server) number(t testing.TB, sql string, args ...any) (n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url())
	require.NoError(t, err)
	defer conn.Close(ctx)
	require.NoError(t, conn.QueryRow(ctx, sql, args...).Scan(&n))
	return n
}

func (s *server) config(t testing.TB) Config {
	pool, err := pgxpool.ParseConfig(s.url() + " pool_max_conns=20")
	require.NoError(t, err)
	// IDs never recur, and those of these tests do: each time it is another resource.
	name := t.Name() + strconv.FormatInt(time.Now().UnixNano(), 36)
	return Config{Cluster: "test", Node: 1, Resource: name, Pool: pool, RetryInterval: 5 * time.Millisecond}
}

// fresh returns a configuration, and a table for it, which is empty. Nothing is prepared.
func fresh(t testing.TB) (s *server, cfg Config) {
	s = running(t)
	s.exec(t, "DROP TABLE IF EXISTS things; CREATE TABLE things (n int)")
	require.Zero(t, s.number(t, "SELECT count(*) FROM pg_prepared_xacts"))
	return s, s.config(t)
}

func openTest(t testing.TB, cfg Config) *Resource {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := Open(ctx, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

// cutter makes connections that break at a statement: when it is sent, or when its answer is to come.
type cutter struct {
	mu     sync.Mutex
	word   string
	before bool
	times  int
	made   int
}

func (c *cutter) arm(word string, before bool, times int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.word, c.before, c.times, c.made = word, before, times, 0
}

func (c *cutter) cut(p []byte) (hit, before bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.times == 0 || !bytes.Contains(p, []byte(c.word)) {
		return false, false
	}
	c.times--
	c.made++
	return true, c.before
}

var errCut = errors.New("the connection was cut")

type cutConn struct {
	net.Conn
	c *cutter
}

func (c *cutConn) Write(p []byte) (int, error) {
	hit, before := c.c.cut(p)
	switch {
	case hit && before:
		c.Close()
		return 0, errCut
	case hit:
		_, _ = c.Conn.Write(p)
		c.Close()
		return 0, errCut
	}
	return c.Conn.Write(p)
}

func (c *cutter) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &cutConn{conn, c}, nil
}

func sprint(format string, args ...any) string { return fmt.Sprintf(format, args...) }
