// Command kv is a replicated key-value store over HTTP: a program to copy. The
// store itself is store.go; the rest is the command line and a demonstration.
//
//	go run ./examples/kv
//
// runs the demonstration: three nodes in one process, a text loaded line by line,
// the leader stopped and brought back, every acknowledged write looked for on every
// node. -input FILE takes another text.
//
//	kv -id 1 -peers 1=host1:7001,2=host2:7001,3=host3:7001 -dir /var/lib/kv -http host1:8001
//
// runs one node of a cluster of three machines. Then
//
//	curl -L -T file http://host1:8001/keys/greeting
//	curl http://host2:8001/keys/greeting
//
// write and read, on any of them. A node that does not lead answers a write with a
// redirect to the one that does. The status says what became of a write: 200 written,
// 504 unknown (written, or not, or later), anything else certainly not.
//
// -engine chooses what replicates the writes, raft or paxos: for all nodes of a cluster, when it is founded.
// A node refuses a directory that the other engine has written, and does not listen to nodes that run it.
// engine.go says what a choice takes; a program that needs none changes one import.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	engine := flag.String("engine", "raft", "consensus engine, the same on all nodes: "+engineNames())
	id := flag.Uint64("id", 0, "run as this node of a cluster; without it: the demonstration")
	peers := flag.String("peers", "", "all nodes, this one too: id=host:port,…")
	dir := flag.String("dir", "", "directory of this node's data")
	public := flag.String("http", "", "host:port to serve HTTP on, as clients reach it")
	input := flag.String("input", "", "text for the demonstration to load, one key a line")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *id == 0 {
		if *peers != "" || *dir != "" || *public != "" {
			err = errors.New("-peers, -dir and -http go with -id")
		} else {
			slog.SetDefault(slog.New(slog.DiscardHandler)) // what happens is told in the demonstration's own words
			err = demonstrate(ctx, os.Stdout, *engine, *input)
		}
	} else {
		err = run(ctx, os.Stdout, *engine, *id, *peers, *dir, *public)
	}
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// run serves one node until ctx is done. It prints one line, "ready", when it does.
func run(ctx context.Context, out io.Writer, engine string, id uint64, peerList, dir, public string) error {
	if err := checkEngine(engine); err != nil {
		return err
	}
	peers := make(map[uint64]string)
	for p := range strings.SplitSeq(peerList, ",") {
		name, address, _ := strings.Cut(p, "=")
		peer, err := strconv.ParseUint(name, 10, 64)
		if err != nil || peer == 0 || address == "" || peers[peer] != "" {
			return fmt.Errorf("-peers: %q is not id=host:port, with an id above 0, each once", p)
		}
		peers[peer] = address
	}
	if peers[id] == "" {
		return fmt.Errorf("-peers: node %d is not among them", id)
	}
	if dir == "" || public == "" {
		return errors.New("-id needs -dir and -http")
	}
	front, err := net.Listen("tcp", public)
	if err != nil {
		return fmt.Errorf("-http: %w", err)
	}
	n, err := start(ctx, engine, id, peers, dir, public)
	if err != nil {
		return err
	}
	server := serve(n, front)
	fmt.Fprintln(out, "ready")
	<-ctx.Done()
	_ = server.Close()
	return n.close()
}

// serve answers HTTP requests, none for longer than five seconds: what a context
// ends, Propose and Barrier report as what it is.
func serve(n *node, l net.Listener) *http.Server {
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
			defer cancel()
			n.ServeHTTP(w, r.WithContext(ctx))
		}),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
	}
	go func() { _ = server.Serve(l) }()
	return server
}
