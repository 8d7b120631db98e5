// Command bank moves money between accounts that are kept in several replicated groups: a program to copy.
//
//	go run ./examples/bank
//
// runs three nodes in one process, on a temporary directory, with clients on all of them, for eight seconds. Each transfer
// is a transaction, most of them over two groups. While they run, somebody reads all accounts now and then, as they are and as they
// were; the total must be the same each time. What happens is told on the standard error; at the end there is one
// line on the standard output,
//
//	ok: transfers=N aborted=N unknown=N total=T violations=0
//
// or FAILED, with what was wrong, and status 1. -json has the full record in its place. transfers counts those that were
// confirmed to their clients, aborted those that certainly did not happen, and unknown those of which the client was
// not told: it is found out at the end, and is in the record.
//
//	go run ./examples/bank -faults
//
// stops nodes and starts them again, cuts the network, loses messages, and has clients give up or die in the middle of a
// commit. -engine chooses raft or paxos; -duration, -clients, -accounts and -groups say how much of it there is.
//
// # What to copy
//
//   - node.go: how a node is made of a transport, a store, an engine, a clock, a forwarder for each group, and a kv.DB over them. Between
//     machines the transport is tcp.Listen with an Identity and the addresses of the peers; the rest stays.
//   - bank.go: the application. How keys find their group; a transfer; how to find out, after synod.ErrUnknownOutcome, what became
//     of it, with a row that each transfer writes; and how to do it again without doing it twice.
//   - engine.go: what a choice of the engine takes. A program that needs none uses raft or paxos directly.
//
// The rest is the demonstration: faults.go has a network that loses messages and clients that die, run.go the clients, and
// audit.go what is looked at in the end: every account against the entries of its transfers, every transfer against what its client was
// told, and the whole history for strict serializability, with package txn/check.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// settings are what the command line says.
type settings struct {
	engine   string
	faults   bool
	duration time.Duration
	clients  int
	accounts int
	groups   int
}

func defaults() settings {
	return settings{engine: "raft", duration: 8 * time.Second, clients: 12, accounts: 60, groups: 3}
}

func (s settings) validate() error {
	switch {
	case s.duration <= 0:
		return errors.New("-duration must be above 0")
	case s.clients < 1 || s.clients > 1000:
		return errors.New("-clients: 1 to 1,000")
	case s.accounts < 2 || s.accounts > 100_000:
		return errors.New("-accounts: 2 to 100,000")
	case s.groups < 1 || s.groups > 100:
		return errors.New("-groups: 1 to 100")
	}
	return checkEngine(s.engine)
}

func main() {
	s, asJSON := defaults(), false
	flag.StringVar(&s.engine, "engine", s.engine, "consensus engine: "+engineNames())
	flag.BoolVar(&s.faults, "faults", s.faults, "stop nodes, cut the network, kill clients")
	flag.DurationVar(&s.duration, "duration", s.duration, "how long the clients work")
	flag.IntVar(&s.clients, "clients", s.clients, "clients, spread over the nodes")
	flag.IntVar(&s.accounts, "accounts", s.accounts, "accounts, spread over the groups")
	flag.IntVar(&s.groups, "groups", s.groups, "replicated groups")
	flag.BoolVar(&asJSON, "json", asJSON, "print the full record in the place of one line")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if !demonstrate(ctx, os.Stdout, os.Stderr, s, asJSON) {
		stop()
		os.Exit(1)
	}
}

// demonstrate does everything, and reports whether all was well.
func demonstrate(ctx context.Context, out, progress io.Writer, s settings, asJSON bool) bool {
	r, err := run(ctx, progress, s)
	if err != nil {
		r.violation("%v", err)
	}
	r.OK = len(r.Violations) == 0
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		if err := e.Encode(r); err != nil {
			fmt.Fprintln(progress, err)
			return false
		}
		return r.OK
	}
	line := fmt.Sprintf("transfers=%d aborted=%d unknown=%d total=%d violations=%d", r.Transfers, r.Aborted, r.Unknown, r.Total, r.violations)
	if r.OK {
		fmt.Fprintln(out, "ok:", line)
	} else {
		first, _, _ := strings.Cut(r.Violations[0], "\n")
		fmt.Fprintf(out, "FAILED: %s: %s\n", line, first)
	}
	return r.OK
}
