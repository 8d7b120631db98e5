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
// write and read, on any of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
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
			err = demonstrate(ctx, os.Stdout, *input)
		}
	} else {
		err = run(ctx, *id, *peers, *dir, *public)
	}
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// run serves one node until ctx is done.
func run(ctx context.Context, id uint64, peerList, dir, public string) error {
	peers := make(map[uint64]string)
	for _, p := range strings.Split(peerList, ",") {
		name, address, _ := strings.Cut(p, "=")
		peer, err := strconv.ParseUint(name, 10, 64)
		if err != nil || address == "" {
			return fmt.Errorf("-peers: %q is not id=host:port", p)
		}
		peers[peer] = address
	}
	if peers[id] == "" {
		return fmt.Errorf("-peers: node %d is not among them", id)
	}
	if dir == "" || public == "" {
		return errors.New("-id needs -dir and -http")
	}
	listener, err := net.Listen("tcp", peers[id])
	if err != nil {
		return err
	}
	front, err := net.Listen("tcp", public)
	if err != nil {
		return err
	}
	n, err := start(ctx, id, peers, dir, listener, public)
	if err != nil {
		return err
	}
	server := serve(n, front)
	fmt.Println("ready")
	<-ctx.Done()
	_ = server.Close()
	return n.close()
}

// serve answers HTTP requests, none for longer than five seconds.
func serve(n *node, l net.Listener) *http.Server {
	mux := http.NewServeMux()
	handler := http.TimeoutHandler(n, 5*time.Second, "no answer in time: a write may have happened, or not")
	mux.Handle("GET /keys/{key...}", handler)
	mux.Handle("PUT /keys/{key...}", handler)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(l) }()
	return server
}
