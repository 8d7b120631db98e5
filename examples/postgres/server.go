package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// server is a PostgreSQL server of our own, in a directory, reached by a socket there.
type server struct {
	dir     string
	binary  string
	as      *syscall.Credential // nil: as whoever runs this
	process *exec.Cmd
	exited  chan struct{}
}

var errNoServer = errors.New("no PostgreSQL server is installed: neither in PATH nor in /usr/lib/postgresql; install it, or use -dsn")

func find(name string) string {
	places := []string{name}
	more, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	for _, p := range append(places, more...) {
		if path, err := exec.LookPath(p); err == nil {
			return path
		}
	}
	return ""
}

// startServer makes a database in a directory, and runs it.
func startServer(dir string) (*server, error) {
	initdb, binary := find("initdb"), find("postgres")
	if initdb == "" || binary == "" {
		return nil, errNoServer
	}
	s := &server{dir: dir, binary: binary}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		// PostgreSQL refuses to be run by root.
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, fmt.Errorf("PostgreSQL is not run by root, and: %w", err)
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2, os.Chown(dir, uid, gid), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
			return nil, err
		}
		s.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if out, err := s.command(initdb, "-D", dir+"/data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	return s, s.start()
}

func (s *server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	return cmd
}

func (s *server) dsn() string { return "host=" + s.dir + " user=postgres dbname=postgres" }

// start runs the server, and waits until it answers.
func (s *server) start() error {
	log, err := os.OpenFile(filepath.Join(filepath.Dir(s.dir), "postgres.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		cmd := s.command(s.binary, "-D", s.dir+"/data", "-k", s.dir, "-c", "listen_addresses=", "-c", "max_prepared_transactions=64")
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			return err
		}
		exited := make(chan struct{})
		go func() { _ = cmd.Wait(); close(exited) }()
		s.process, s.exited = cmd, exited
		for running := true; running; {
			if conn, err := pgx.Connect(ctx, s.dsn()); err == nil {
				return conn.Close(ctx)
			}
			select {
			case <-exited:
				running = false // what the killed one has left may be in the way for a moment
			case <-ctx.Done():
				return fmt.Errorf("the server does not answer: %w", ctx.Err())
			case <-time.After(20 * time.Millisecond):
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the server does not start: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// restart kills the server in the middle of what it does.
func (s *server) restart() error {
	s.kill()
	return s.start()
}

func (s *server) kill() {
	_ = s.process.Process.Signal(syscall.SIGQUIT) // its immediate shutdown: it recovers at the next start
	<-s.exited
}

func (s *server) stop() { s.kill() }
