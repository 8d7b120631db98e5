// Command postgres moves money between rows of a PostgreSQL database and replicated keys, atomically: a program to copy.
//
//	cd examples/postgres && go run .
//
// runs a PostgreSQL server of its own, with the binaries that are installed, and three nodes of a raft group in this process, on a
// temporary directory. Each transfer is a transaction of package txn over two resources: txn/postgres, which uses PREPARE
// TRANSACTION, and kv.Resource, whose keys are in the group. Meanwhile the server is killed and started again, and so is
// the manager that coordinates; at the end there is one line on the standard output,
//
//	ok: transfers=N aborted=N unknown=N total=T violations=0
//
// or FAILED, with what was wrong, and status 1. -dsn has it use a server that runs, which it does not kill; -transfers says how many
// transfers, -faults=false leaves the faults out.
//
// # What to copy
//
//   - bank.go: how a manager is started over both resources, and a transfer.
//   - node.go: the replicated keys. In a process of its own each node would have a tcp transport and a store of its own.
//   - server.go only runs PostgreSQL.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// settings are what the command line says.
type settings struct {
	dsn       string
	transfers int
	faults    bool
	verbose   bool
}

func main() {
	s := settings{}
	flag.StringVar(&s.dsn, "dsn", "", "a server that runs, as postgres://… ; it needs max_prepared_transactions above 0. Default: one of our own")
	flag.IntVar(&s.transfers, "transfers", 300, "how many transfers")
	flag.BoolVar(&s.faults, "faults", true, "kill the server, if it is our own, and the manager")
	flag.BoolVar(&s.verbose, "v", false, "say what happens")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := run(ctx, s, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "postgres:", err)
		if !errors.Is(err, errViolated) {
			os.Exit(1)
		}
	}
	verdict := "ok"
	if r.violations > 0 {
		verdict = "FAILED"
	}
	fmt.Printf("%s: transfers=%d aborted=%d unknown=%d total=%d violations=%d\n", verdict, r.transfers, r.aborted, r.unknown, r.total, r.violations)
	if r.violations > 0 {
		os.Exit(1)
	}
}

// record is what became of a run.
type record struct {
	transfers, aborted, unknown int
	total                       int64
	violations                  int
	faults                      int
}

var errViolated = errors.New("the accounts are not as they must be")

func run(ctx context.Context, s settings, out io.Writer) (r record, err error) {
	logger := slog.New(slog.DiscardHandler)
	if s.verbose {
		logger = slog.New(slog.NewTextHandler(out, nil))
	}
	dir, err := os.MkdirTemp("", "pgbank")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	var own *server
	if s.dsn == "" {
		if own, err = startServer(dir + "/pg"); err != nil {
			return r, err
		}
		defer own.stop()
		s.dsn = own.dsn()
	}
	b, err := openBank(ctx, dir, s.dsn, own, logger)
	if err != nil {
		return r, err
	}
	defer b.close()
	if err := b.fill(ctx); err != nil {
		return r, err
	}
	if err := b.work(ctx, s, out, &r); err != nil {
		return r, err
	}
	return r, b.audit(ctx, out, &r)
}
