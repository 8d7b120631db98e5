package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/synod-go/synod/transport/tcp"
)

// options are the command line.
type options struct {
	engine, peers, listen, redis, dir, join string
	ca, cert, key                           string
	id                                      uint64
	insecure, compare                       bool
}

func main() {
	var o options
	flag.StringVar(&o.engine, "engine", "raft", "consensus engine, the same on all nodes: "+engineNames()+"; with -compare: one or more, and commas")
	flag.Uint64Var(&o.id, "id", 0, "run as this node of a cluster; without it: three nodes in this process")
	flag.StringVar(&o.peers, "peers", "", "all nodes, this one too: id=host:port,…; with -join: this one")
	flag.StringVar(&o.listen, "listen", "", "host:port to listen on for the other nodes, if it is not that in -peers")
	flag.StringVar(&o.redis, "redis", "", "host:port to serve the Redis protocol on")
	flag.StringVar(&o.dir, "dir", "", "directory of this node's data")
	flag.StringVar(&o.join, "join", "", "Redis address of a member: join its cluster instead of founding one")
	flag.StringVar(&o.ca, "tls-ca", "", "file with the certificates of the cluster's authority")
	flag.StringVar(&o.cert, "tls-cert", "", "file with this node's certificate")
	flag.StringVar(&o.key, "tls-key", "", "file with its key")
	flag.BoolVar(&o.insecure, "insecure", false, "let nodes talk in plaintext: on a network that nobody else reaches")
	flag.BoolVar(&o.compare, "compare", false, "measure against redis-server with redis-benchmark, and print a table")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case flag.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case o.compare && o != options{engine: o.engine, compare: true}:
		err = errors.New("-compare goes with -engine, and no other flag")
	case o.compare:
		err = compare(ctx, os.Stdout, o.engine)
	case o.id == 0 && o != options{engine: o.engine}:
		err = errors.New("all flags but -engine and -compare go with -id, which is above 0")
	case o.id == 0:
		err = runThree(ctx, os.Stdout, o.engine)
	default:
		err = runOne(ctx, os.Stdout, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "failed:", err)
		os.Exit(1)
	}
}

// config makes a node's configuration of the command line.
func (o *options) config() (config, error) {
	c := config{engine: o.engine, id: o.id, peers: make(map[uint64]string), join: o.join != "", listen: o.listen, dir: o.dir, log: slog.Default()}
	if err := checkEngine(o.engine); err != nil {
		return c, err
	}
	for p := range strings.SplitSeq(o.peers, ",") {
		name, address, _ := strings.Cut(p, "=")
		peer, err := strconv.ParseUint(name, 10, 64)
		if err != nil || peer == 0 || address == "" || c.peers[peer] != "" {
			return c, fmt.Errorf("-peers: %q is not id=host:port, with an id above 0, each once", p)
		}
		c.peers[peer] = address
	}
	if c.peers[o.id] == "" {
		return c, fmt.Errorf("-peers: node %d is not among them", o.id)
	}
	if o.dir == "" || o.redis == "" {
		return c, errors.New("-id needs -dir and -redis")
	}
	switch tls := o.ca != "" || o.cert != "" || o.key != ""; {
	case tls == o.insecure:
		return c, errors.New("-id needs either -tls-ca, -tls-cert and -tls-key, or -insecure")
	case tls && (o.ca == "" || o.cert == "" || o.key == ""):
		return c, errors.New("-tls-ca, -tls-cert and -tls-key go together")
	case tls:
		identity, err := tcp.LoadIdentity(o.ca, o.cert, o.key)
		if err != nil {
			return c, fmt.Errorf("-tls-ca, -tls-cert, -tls-key: %w", err)
		}
		c.identity = identity
	}
	return c, nil
}

// runOne serves one node until ctx is done. It prints a line, "ready", when it does.
func runOne(ctx context.Context, out io.Writer, o options) error {
	c, err := o.config()
	if err != nil {
		return err
	}
	front, err := net.Listen("tcp", o.redis)
	if err != nil {
		return fmt.Errorf("-redis: %w", err)
	}
	n, err := start(ctx, c)
	if err != nil {
		return errors.Join(err, front.Close())
	}
	defer n.close()
	if c.join {
		joining, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := join(joining, o.join, n); err != nil {
			return errors.Join(fmt.Errorf("-join: %w", err), front.Close())
		}
	}
	s := serve(n, front)
	fmt.Fprintln(out, "ready")
	<-ctx.Done()
	return s.close()
}

// runThree serves three nodes of one process, with their data in a temporary directory.
func runThree(ctx context.Context, out io.Writer, engine string) error {
	if err := checkEngine(engine); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	peers := make(map[uint64]string)
	for i, port := range ports {
		peers[uint64(i+1)] = "127.0.0.1:" + port
	}
	var nodes []*node
	for id := uint64(1); id <= 3; id++ {
		// Plaintext, within this process.
		n, err := start(ctx, config{engine: engine, id: id, peers: peers, dir: filepath.Join(dir, strconv.FormatUint(id, 10)), log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		defer n.close()
		nodes = append(nodes, n)
	}
	for i, n := range nodes {
		address := fmt.Sprintf("127.0.0.1:%d", 6381+i)
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		s := serve(n, l)
		defer s.close()
	}
	fmt.Fprintln(out, "three nodes, on the Redis ports 6381 to 6383")
	fmt.Fprintln(out, "ready")
	<-ctx.Done()
	return nil
}
