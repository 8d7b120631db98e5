package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
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
	writers = 16
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
	began   time.Time
	members []*member
	client  *http.Client

	mu        sync.Mutex
	confirmed map[string]string // acknowledged writes
}

func demonstrate(ctx context.Context, out io.Writer, input string) error {
	text, name := opticks, "Newton's Opticks"
	if input != "" {
		var err error
		if text, err = os.ReadFile(input); err != nil {
			return err
		}
		name = filepath.Base(input)
	}
	var lines []string
	for scanner := bufio.NewScanner(bytes.NewReader(text)); scanner.Scan(); {
		lines = append(lines, scanner.Text())
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
		began:     time.Now(),
		client:    &http.Client{Timeout: 6 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: writers}},
		confirmed: make(map[string]string),
	}
	if err := d.open(ctx, dir); err != nil {
		return err
	}
	defer func() {
		for _, m := range d.members {
			m.stop()
		}
	}()

	half := len(lines) / 2
	d.say("loading the first half of %s: %d lines, %d writers, through HTTP on all nodes", name, half, writers)
	if err := d.load(ctx, lines[:half], 0, nil); err != nil {
		return err
	}
	var stopped *member
	d.say("going on with the other half, %d lines", len(lines)-half)
	err = d.load(ctx, lines[half:], half, func() {
		if stopped = d.leader(); stopped != nil {
			d.say("stopping the leader, node %d, in the middle of it", stopped.id)
			stopped.stop()
		}
	})
	if err != nil {
		return err
	}
	if stopped == nil {
		return errors.New("there was no leader to stop")
	}
	next := d.leader()
	if next == nil {
		return errors.New("no other leader was found")
	}
	d.say("node %d leads now; %d writes acknowledged", next.id, len(d.confirmed))
	d.say("starting node %d again", stopped.id)
	if err := d.start(ctx, stopped); err != nil {
		return err
	}
	lost := 0
	for _, m := range d.members {
		missing, err := d.check(ctx, m)
		if err != nil {
			return err
		}
		d.say("node %d: %d of %d acknowledged writes are there", m.id, len(d.confirmed)-missing, len(d.confirmed))
		lost += missing
	}
	if lost > 0 {
		return fmt.Errorf("acknowledged=%d lost=%d failovers=1", len(d.confirmed), lost)
	}
	fmt.Fprintf(out, "ok: acknowledged=%d lost=0 failovers=1\n", len(d.confirmed))
	return nil
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "%6.2fs  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

// open starts all members on free ports.
func (d *demo) open(ctx context.Context, dir string) error {
	for id := uint64(1); id <= members; id++ {
		m := &member{id: id, dir: filepath.Join(dir, fmt.Sprintf("node-%d", id))}
		for _, address := range []*string{&m.address, &m.http} {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			*address = l.Addr().String()
			// start listens there again: the port is ours for as long as nobody else
			// picks just this one.
			_ = l.Close()
		}
		d.members = append(d.members, m)
	}
	for _, m := range d.members {
		if err := d.start(ctx, m); err != nil {
			return err
		}
		d.say("node %d: peers at %s, HTTP at %s", m.id, m.address, m.http)
	}
	return nil
}

func (d *demo) start(ctx context.Context, m *member) error {
	peers := make(map[uint64]string)
	for _, p := range d.members {
		peers[p.id] = p.address
	}
	listener, err := net.Listen("tcp", m.address)
	if err != nil {
		return err
	}
	front, err := net.Listen("tcp", m.http)
	if err != nil {
		return err
	}
	if m.node, err = start(ctx, m.id, peers, m.dir, listener, m.http); err != nil {
		return err
	}
	m.server = serve(m.node, front)
	return nil
}

func (m *member) stop() {
	if m.server != nil {
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

// load writes lines, and calls middle, if there is one, when half of them are
// acknowledged.
func (d *demo) load(ctx context.Context, lines []string, offset int, middle func()) error {
	began := time.Now()
	work := make(chan int)
	var wg sync.WaitGroup
	var done, failed atomic.Int64
	var longest atomic.Int64
	var once sync.Once
	for w := range writers {
		wg.Go(func() {
			for i := range work {
				if middle != nil && int(done.Load()) >= len(lines)/2 {
					once.Do(middle)
				}
				key := fmt.Sprintf("line-%05d", offset+i)
				start := time.Now()
				if d.put(ctx, w+i, key, lines[i]) != nil {
					failed.Add(1)
					continue
				}
				for took := int64(time.Since(start)); ; {
					if old := longest.Load(); took <= old || longest.CompareAndSwap(old, took) {
						break
					}
				}
				d.mu.Lock()
				d.confirmed[key] = lines[i]
				d.mu.Unlock()
				done.Add(1)
			}
		})
	}
	for i := range lines {
		work <- i
	}
	close(work)
	wg.Wait()
	seconds := time.Since(began).Seconds()
	d.say("%d lines in %.2fs (%.0f a second), the longest wait %v", done.Load(), seconds, float64(done.Load())/seconds,
		time.Duration(longest.Load()).Round(time.Millisecond))
	if n := failed.Load(); n > 0 {
		return fmt.Errorf("%d writes were not acknowledged within %v", n, patience)
	}
	return nil
}

// put writes a key until it is acknowledged. To repeat a write whose outcome is
// unknown is harmless here: it sets the same key to the same value.
func (d *demo) put(ctx context.Context, first int, key, value string) (err error) {
	for at, deadline := first, time.Now().Add(patience); time.Now().Before(deadline) && ctx.Err() == nil; at++ {
		url := "http://" + d.members[at%members].http + "/keys/" + key
		var request *http.Request
		if request, err = http.NewRequestWithContext(ctx, http.MethodPut, url, strings.NewReader(value)); err != nil {
			return err
		}
		var response *http.Response
		if response, err = d.client.Do(request); err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			if response.StatusCode == http.StatusNoContent {
				return nil
			}
			err = errors.New(response.Status)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("%s: %w", key, err)
}

// check counts the acknowledged writes that a node does not have.
func (d *demo) check(ctx context.Context, m *member) (missing int, err error) {
	for key, want := range d.confirmed {
		var got []byte
		for deadline := time.Now().Add(patience); ; {
			var status int
			if status, got, err = d.get(ctx, m, key); err == nil && (status == http.StatusOK || status == http.StatusNotFound) {
				break
			}
			if time.Now().After(deadline) {
				return 0, fmt.Errorf("node %d does not answer: %d, %w", m.id, status, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if string(got) != want {
			missing++
		}
	}
	return missing, nil
}

func (d *demo) get(ctx context.Context, m *member, key string) (status int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.http+"/keys/"+key, nil)
	if err != nil {
		return 0, nil, err
	}
	response, err := d.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	return response.StatusCode, body, err
}
