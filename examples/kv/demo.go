package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// opticks is the beginning of Isaac Newton's Opticks, fourth edition, 1730, which
// is in the public domain.
//
//go:embed opticks.txt
var opticks []byte

const (
	members = 3
	clients = 16
	// patience is how long the demonstration tries until it calls something lost.
	patience = 20 * time.Second
)

// member is one node of the demonstration, running or not.
type member struct {
	id            uint64
	dir           string
	address, http string
	node          *node
	server        *http.Server
}

type demo struct {
	out     io.Writer
	engine  string
	began   time.Time
	members []*member
	client  *http.Client

	mu        sync.Mutex
	confirmed map[string]string // acknowledged writes
}

func demonstrate(ctx context.Context, out io.Writer, engine, input string) error {
	if err := checkEngine(engine); err != nil {
		return err
	}
	text, name := opticks, "Newton's Opticks"
	if input != "" {
		var err error
		if text, err = os.ReadFile(input); err != nil {
			return err
		}
		name = filepath.Base(input)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		lines = append(lines, strings.TrimRight(line, "\r\n"))
	}
	if len(lines) < 2 {
		return fmt.Errorf("%s has %d lines: want some more", name, len(lines))
	}
	dir, err := os.MkdirTemp("", "synod-kv-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := &demo{
		out:       out,
		engine:    engine,
		began:     time.Now(),
		client:    &http.Client{Timeout: 6 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: clients}},
		confirmed: make(map[string]string),
	}
	defer d.client.CloseIdleConnections()
	defer func() {
		for _, m := range d.members {
			m.stop()
		}
	}()
	if err := d.open(ctx, dir); err != nil {
		return err
	}

	half := len(lines) / 2
	d.say("%d clients load %s through HTTP, on all nodes: lines 1 to %d", clients, name, half)
	if err := d.load(ctx, lines[:half], 0, nil); err != nil {
		return err
	}
	var stopped *member
	d.say("they go on with lines %d to %d", half+1, len(lines))
	err = d.load(ctx, lines[half:], half, func() {
		if stopped = d.leader(); stopped == nil {
			return
		}
		d.say("stopping node %d, which leads, in the middle of it", stopped.id)
		stopped.stop()
		at := time.Now()
		if next := d.leader(); next != nil {
			d.say("node %d leads, %v later", next.id, time.Since(at).Round(time.Millisecond))
		}
	})
	if err != nil {
		return err
	}
	if stopped == nil {
		return errors.New("there was no leader to stop")
	}
	d.say("starting node %d again", stopped.id)
	if err := d.start(ctx, stopped); err != nil {
		return err
	}
	d.say("reading all %d acknowledged writes, from each node", len(d.confirmed))
	lost := make(map[string]bool)
	for _, m := range d.members {
		missing, err := d.check(ctx, m)
		if err != nil {
			return err
		}
		d.say("node %d has %d of them", m.id, len(d.confirmed)-len(missing))
		for _, key := range missing {
			lost[key] = true
		}
	}
	if len(lost) > 0 {
		return fmt.Errorf("acknowledged=%d lost=%d failovers=1", len(d.confirmed), len(lost))
	}
	fmt.Fprintf(out, "ok: acknowledged=%d lost=0 failovers=1\n", len(d.confirmed))
	return nil
}

func (d *demo) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.out, "%6.2fs  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

// freeAddress returns an address of this machine that nobody listens on. A node that
// is started again listens where it did before, and nothing else may have come there
// in between, nor may two callers be given one address. So the host is a loopback
// address of its own, where the system has more than 127.0.0.1, and the port is one
// that few systems give to outgoing connections.
func freeAddress() (string, error) {
	var err error
	for attempt := range 100 {
		host := "127.0.0.1"
		if attempt < 50 {
			host = fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
		}
		address := fmt.Sprintf("%s:%d", host, 20_000+rand.IntN(10_000))
		var l net.Listener
		if l, err = net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", err
}

// open starts all members on free ports.
func (d *demo) open(ctx context.Context, dir string) (err error) {
	for id := uint64(1); id <= members; id++ {
		m := &member{id: id, dir: filepath.Join(dir, fmt.Sprintf("node-%d", id))}
		if m.address, err = freeAddress(); err != nil {
			return err
		}
		if m.http, err = freeAddress(); err != nil {
			return err
		}
		d.members = append(d.members, m)
	}
	for _, m := range d.members {
		if err := d.start(ctx, m); err != nil {
			return err
		}
		d.say("node %d is up: for its peers at %s, for clients at http://%s/keys/", m.id, m.address, m.http)
	}
	return nil
}

func (d *demo) start(ctx context.Context, m *member) error {
	peers := make(map[uint64]string)
	for _, p := range d.members {
		peers[p.id] = p.address
	}
	front, err := net.Listen("tcp", m.http)
	if err != nil {
		return err
	}
	n, err := start(ctx, d.engine, m.id, peers, m.dir, m.http)
	if err != nil {
		_ = front.Close()
		return err
	}
	m.node, m.server = n, serve(n, front)
	return nil
}

func (m *member) stop() {
	if m.node != nil {
		_ = m.server.Close()
		_ = m.node.close()
		m.server, m.node = nil, nil
	}
}

// leader returns the running member that leads, awaiting an election.
func (d *demo) leader() *member {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for _, m := range d.members {
			if m.node != nil && m.node.group.Status().Leader == m.id {
				return m
			}
		}
	}
	return nil
}

// load writes lines, and has middle, if there is one, run beside it once half of them
// are acknowledged. It gives up with the first write that fails for good.
func (d *demo) load(ctx context.Context, lines []string, offset int, middle func()) error {
	began := time.Now()
	work, failed := make(chan int), make(chan error, clients)
	var wg sync.WaitGroup
	var done, longest atomic.Int64
	for c := range clients {
		wg.Go(func() {
			for i := range work {
				start := time.Now()
				key := fmt.Sprintf("line-%05d", offset+i+1)
				if err := d.put(ctx, c+i, key, lines[i]); err != nil {
					failed <- err
					return
				}
				for took := int64(time.Since(start)); ; {
					if old := longest.Load(); took <= old || longest.CompareAndSwap(old, took) {
						break
					}
				}
				d.mu.Lock()
				d.confirmed[key] = lines[i]
				d.mu.Unlock()
				if int(done.Add(1)) == (len(lines)+1)/2 && middle != nil {
					wg.Go(middle)
				}
			}
		})
	}
	err := func() error {
		defer wg.Wait()
		defer close(work)
		for i := range lines {
			select {
			case work <- i:
			case err := <-failed:
				return err
			}
		}
		return nil
	}()
	if err == nil && len(failed) > 0 {
		err = <-failed // one of the last
	}
	if err != nil {
		return err
	}
	seconds := time.Since(began).Seconds()
	d.say("%d lines acknowledged in %.2fs, %.0f a second; the longest wait was %v", done.Load(), seconds, float64(done.Load())/seconds,
		time.Duration(longest.Load()).Round(time.Millisecond))
	return nil
}

// put writes a key until it is acknowledged, trying one node after the other. To
// repeat a write whose outcome is unknown is harmless here: it sets the same key to
// the same value.
func (d *demo) put(ctx context.Context, first int, key, value string) error {
	var last error
	for at, deadline := first, time.Now().Add(patience); time.Now().Before(deadline); at++ {
		status, _, err := d.request(ctx, d.client, http.MethodPut, d.members[at%members], key, value)
		if err == nil && status == http.StatusOK {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		last = fmt.Errorf("%s was not acknowledged within %v: status %d, %v", key, patience, status, err)
		time.Sleep(5 * time.Millisecond)
	}
	return last
}

// check reads all acknowledged writes from one node, and returns the keys of those
// that it does not have.
func (d *demo) check(ctx context.Context, m *member) (missing []string, err error) {
	// What another node answers says nothing about this one.
	client := &http.Client{Timeout: d.client.Timeout, Transport: d.client.Transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	keys := make(chan string)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for key := range keys {
				d.mu.Lock()
				want, over := d.confirmed[key], err != nil
				d.mu.Unlock()
				if over {
					continue
				}
				got, found, failure := d.get(ctx, client, m, key)
				d.mu.Lock()
				if failure != nil {
					err = failure
				} else if !found || got != want {
					missing = append(missing, key)
				}
				d.mu.Unlock()
			}
		})
	}
	for _, key := range slices.Sorted(maps.Keys(d.confirmed)) {
		keys <- key
	}
	close(keys)
	wg.Wait()
	return missing, err
}

// get reads a key from one node until it answers.
func (d *demo) get(ctx context.Context, client *http.Client, m *member, key string) (value string, found bool, err error) {
	for deadline := time.Now().Add(patience); ; {
		status, body, err := d.request(ctx, client, http.MethodGet, m, key, "")
		switch {
		case ctx.Err() != nil:
			return "", false, ctx.Err()
		case err == nil && (status == http.StatusOK || status == http.StatusNotFound):
			return body, status == http.StatusOK, nil
		case time.Now().After(deadline):
			return "", false, fmt.Errorf("node %d does not answer: status %d, %v", m.id, status, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (d *demo) request(ctx context.Context, client *http.Client, method string, m *member, key, value string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+m.http+"/keys/"+key, strings.NewReader(value))
	if err != nil {
		return 0, "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	return response.StatusCode, string(b), err
}
