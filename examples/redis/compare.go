package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rounds is how often each is measured, in turn.
const rounds = 3

// contestant is what is measured: the port that takes the requests, and how many it answered in a second.
type contestant struct {
	name, port string
	rates      map[string][]float64 // by command
}

// compare measures three processes of this program for each engine of a list, and one redis-server that syncs each
// write, with redis-benchmark, in turn, and prints the medians as a table.
func compare(ctx context.Context, out io.Writer, list string) error {
	names := strings.Split(list, ",")
	for i, name := range names {
		if err := checkEngine(name); err != nil {
			return err
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("-engine: %s is there twice", name)
		}
	}
	dir, err := os.MkdirTemp("", "redis-compare")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var processes []*exec.Cmd
	defer func() {
		for _, p := range processes {
			_ = p.Process.Kill()
			_ = p.Wait()
		}
	}()
	run := func(ready string, name string, args ...string) error {
		p := exec.CommandContext(ctx, name, args...)
		output, err := p.StdoutPipe()
		if err != nil {
			return err
		}
		if err := p.Start(); err != nil {
			return err
		}
		processes = append(processes, p)
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			if strings.Contains(lines.Text(), ready) {
				go func() { _, _ = io.Copy(io.Discard, output) }()
				return nil
			}
		}
		return fmt.Errorf("%s did not start: %w", name, errors.Join(lines.Err(), io.ErrUnexpectedEOF))
	}
	ports, err := freePorts(1 + 6*len(names))
	if err != nil {
		return err
	}
	if err := run("Ready to accept", "redis-server", "--port", ports[0], "--dir", dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always"); err != nil {
		return err
	}
	server := contestant{"one redis-server, appendfsync always", ports[0], make(map[string][]float64)}
	contestants := []contestant{server}
	for i, name := range names {
		of := ports[1+6*i:][:6]
		var peers []string
		for i := range 3 {
			peers = append(peers, fmt.Sprintf("%d=127.0.0.1:%s", i+1, of[i]))
		}
		for i := range 3 {
			id := strconv.Itoa(i + 1)
			if err := run("ready", self, "-engine", name, "-id", id, "-peers", strings.Join(peers, ","), "-dir", filepath.Join(dir, name+"-"+id),
				"-redis", "127.0.0.1:"+of[3+i], "-insecure"); err != nil {
				return err
			}
		}
		// The leader is measured: clients that know it do not pay for passing requests on.
		leader, err := leaderPort(ctx, of[3:])
		if err != nil {
			return err
		}
		contestants = append(contestants, contestant{"three nodes, " + name, leader, make(map[string][]float64)})
	}
	for round := range rounds {
		for i := range contestants {
			c := contestants[(round+i)%len(contestants)]
			if err := benchmark(ctx, c.port, c.rates); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(out, "redis-benchmark -t set,get,incr,lpush -P 16 -c 64 -n %s, requests a second, median of %d rounds in turn\n\n", requests, rounds)
	head, line := "| command | "+server.name+" |", "|---|---|"
	for _, c := range contestants[1:] {
		head, line = head+" "+c.name+" | ratio |", line+"---|---|"
	}
	fmt.Fprintln(out, head+"\n"+line)
	for _, name := range []string{"SET", "GET", "INCR", "LPUSH"} {
		theirs := median(server.rates[name])
		fmt.Fprintf(out, "| %s | %.0f |", name, theirs)
		for _, c := range contestants[1:] {
			ours := median(c.rates[name])
			fmt.Fprintf(out, " %.0f | %.2f |", ours, ours/theirs)
		}
		fmt.Fprintln(out)
	}
	return nil
}

const requests = "200000"

func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}

// benchmark runs redis-benchmark and reads its table.
func benchmark(ctx context.Context, port string, into map[string][]float64) error {
	b, err := exec.CommandContext(ctx, "redis-benchmark", "-p", port, "-t", "set,get,incr,lpush", "-P", "16", "-c", "64", "-n", requests, "--csv").CombinedOutput()
	if err != nil {
		return fmt.Errorf("redis-benchmark: %w: %s", err, b)
	}
	for line := range bytes.Lines(b) {
		fields := strings.Split(strings.TrimSpace(string(line)), ",")
		if len(fields) < 2 {
			continue
		}
		if rate, err := strconv.ParseFloat(strings.Trim(fields[1], `"`), 64); err == nil {
			name := strings.Trim(fields[0], `"`)
			into[name] = append(into[name], rate)
		}
	}
	return nil
}

// leaderPort finds the node that leads.
func leaderPort(ctx context.Context, ports []string) (string, error) {
	for {
		for i, port := range ports {
			if line, err := ask(ctx, "127.0.0.1:"+port, "SYNOD LEADER"); err == nil && line == fmt.Sprintf(":%d", i+1) {
				return port, nil
			}
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ask sends a line and returns the first of the answer.
func ask(ctx context.Context, address, line string) (string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%s\r\n", line); err != nil {
		return "", err
	}
	answer, err := newReader(conn).line()
	return string(answer), err
}

// freePorts returns ports that nobody listens on. A process that is started again listens where it did before, and nothing may have come there in
// between: so they are of those that few systems give to outgoing connections.
func freePorts(n int) (ports []string, err error) {
	for attempts := 0; len(ports) < n && attempts < 100+n; attempts++ {
		port := strconv.Itoa(20_000 + rand.IntN(10_000))
		l, failed := net.Listen("tcp", "127.0.0.1:"+port)
		if failed != nil {
			err = failed
			continue
		}
		defer l.Close()
		ports = append(ports, port)
	}
	if len(ports) < n {
		return nil, err
	}
	return ports, nil
}
