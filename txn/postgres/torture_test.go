//go:build unix

package postgres

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage/pebble"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/txn"
	"github.com/synod-go/synod/txn/files"
)

var (
	torture     = flag.Duration("torture", 15*time.Second, "how long TestTorture kills")
	tortureSeed = flag.Uint64("torture-seed", 0, "when it kills; 0: some other time each time")
)

const (
	tortureAccounts = 4
	tortureStart    = 1000 // in each account, on both sides
)

// A cluster in a process of its own transfers between rows and files, and is killed, and so is the server, again and again. Whatever
// was said of a transaction is so; each is in both places or in none; nothing is lost, and nothing stays prepared.
func TestTorture(t *testing.T) {
	s, _ := fresh(t)
	s.exec(t, `DROP TABLE IF EXISTS accounts, transfers; CREATE TABLE accounts (id int PRIMARY KEY, balance int CHECK (balance >= 0)); CREATE TABLE transfers (id text)`)
	dir := t.TempDir()
	money := filepath.Join(dir, "money")
	require.NoError(t, os.Mkdir(money, 0o755))
	for i := range tortureAccounts {
		s.exec(t, "INSERT INTO accounts VALUES ($1, $2)", i, tortureStart)
		require.NoError(t, os.WriteFile(filepath.Join(money, strconv.Itoa(i)), fmt.Append(nil, tortureStart), 0o644))
	}
	seed := *tortureSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-torture-seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	said := map[string]string{}
	var kills, restarts int
	c := startChild(t, s, dir, "transfer", said)
	for began := time.Now(); time.Since(began) < *torture; {
		time.Sleep(time.Duration(200+r.IntN(1800)) * time.Millisecond)
		switch r.IntN(4) {
		case 0, 1:
			kills++
			c.kill()
			c = startChild(t, s, dir, "transfer", said)
		case 2:
			restarts++
			s.kill([]syscall.Signal{syscall.SIGQUIT, syscall.SIGKILL}[r.IntN(2)])
			time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond)
			s.start(t)
		case 3:
			kills++
			restarts++
			c.kill()
			s.kill(syscall.SIGKILL)
			s.start(t)
			c = startChild(t, s, dir, "transfer", said)
		}
	}
	c.kill()
	c = startChild(t, s, dir, "settle", said)
	require.NoError(t, c.wait(), "what is in doubt is not resolved:\n%s", c.errors.String())
	require.Equal(t, "settled", said["settled"], c.errors.String())

	require.Zero(t, s.number(t, "SELECT count(*) FROM pg_prepared_xacts"))
	total := s.number(t, "SELECT sum(balance) FROM accounts")
	for i := range tortureAccounts {
		content, err := os.ReadFile(filepath.Join(money, strconv.Itoa(i)))
		require.NoError(t, err)
		n, err := strconv.Atoi(string(content))
		require.NoError(t, err)
		total += n
	}
	require.Equal(t, 2*tortureAccounts*tortureStart, total, "money was made or lost")
	rows := map[string]bool{}
	list, err := poolOf(t, s).Query(t.Context(), "SELECT id FROM transfers")
	require.NoError(t, err)
	ids, err := pgx.CollectRows(list, pgx.RowTo[string])
	require.NoError(t, err)
	for _, id := range ids {
		require.False(t, rows[id], "%s was done twice", id)
		rows[id] = true
	}
	names, err := os.ReadDir(filepath.Join(money, "transfers"))
	require.NoError(t, err)
	both := map[string]bool{}
	for _, name := range names {
		require.True(t, rows[name.Name()], "%s is a file, and no row", name.Name())
		both[name.Name()] = true
	}
	var committed, aborted, doubtful int
	for id, outcome := range said {
		switch outcome {
		case "committed":
			committed++
			require.True(t, rows[id] && both[id], "%s was said to be committed", id)
		case "alone":
			committed++
			require.True(t, rows[id], "%s was said to be committed", id)
		case "doubtful":
			doubtful++
		case "aborted":
			aborted++
			require.False(t, rows[id] || both[id], "%s was said to be aborted", id)
		}
	}
	for id := range rows {
		require.True(t, both[id] || said["single "+id] != "", "%s is a row, and no file", id)
	}
	left, err := os.ReadDir(filepath.Join(money, ".synod", "prepared"))
	require.NoError(t, err)
	require.Empty(t, left)
	t.Logf("%d kills of the process, %d of the server; %d transfers said to be committed, %d aborted; %d done; %d were in doubt after a kill", kills, restarts, committed, aborted, len(rows), doubtful)
	require.Greater(t, committed, 10)
	require.Positive(t, aborted)
}

// childProcess is this test's binary as the cluster.
type childProcess struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	read   chan struct{} // closed when all that it said was read
	errors lockedBuffer
}

// startChild starts one. What it says of transactions goes into said, which is read when it has ended.
func startChild(t *testing.T, s *server, dir, mode string, said map[string]string) *childProcess {
	c := &childProcess{read: make(chan struct{})}
	c.cmd = exec.Command(os.Args[0], "-test.run=^$")
	c.cmd.Env = append(os.Environ(), childVariable+"="+mode, "SYNOD_POSTGRES_DIR="+dir, "SYNOD_POSTGRES_URL="+s.url())
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.in, err = c.cmd.StdinPipe() // it ends with this process
	require.NoError(t, err)
	c.cmd.Stderr = &c.errors
	require.NoError(t, c.cmd.Start())
	go func() {
		defer close(c.read)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if word, id, ok := strings.Cut(lines.Text(), " "); ok {
				if word == "single" {
					id = "single " + id // between rows, whatever becomes of it
				}
				if word == "doubtful" {
					id = "doubtful " + id
				}
				said[id] = word
			}
		}
	}()
	return c
}

func (c *childProcess) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.wait()
}

func (c *childProcess) wait() error {
	<-c.read
	return c.cmd.Wait()
}

// child is the cluster: two nodes, rows on the first, files on the second. It starts again and again what does not start while
// the server is away.
func child() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3) // the test is gone
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		err := cluster(ctx, os.Getenv("SYNOD_POSTGRES_DIR"), os.Getenv("SYNOD_POSTGRES_URL"), os.Getenv(childVariable) == "settle")
		if err == nil {
			return
		}
		fmt.Fprintln(os.Stderr, err)
		if ctx.Err() != nil {
			os.Exit(2)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func cluster(ctx context.Context, dir, url string, settle bool) error {
	pool, err := pgxpool.ParseConfig(url + " pool_max_conns=10 connect_timeout=5")
	if err != nil {
		return err
	}
	rows, err := Open(ctx, Config{Cluster: "torture", Node: 1, Resource: "rows", Pool: pool, RequestTimeout: 2 * time.Second, RetryInterval: 10 * time.Millisecond,
		OpenTimeout: 5 * time.Second, Execute: func(ctx context.Context, tx *Tx, work []byte) error {
			var account, amount int
			if _, err := fmt.Sscan(string(work), &account, &amount); err != nil {
				return err
			}
			return move(ctx, tx, account, amount)
		}})
	if err != nil {
		return err
	}
	defer rows.Close()
	sheets, err := files.Open(ctx, files.Config{Dir: filepath.Join(dir, "money")})
	if err != nil {
		return err
	}
	defer sheets.Close()
	for _, r := range []txn.Resource{rows, sheets} {
		ids, err := r.InDoubt(ctx)
		if err != nil {
			return err
		}
		for _, id := range ids {
			fmt.Printf("doubtful %v\n", id)
		}
	}
	network, err := inproc.New(ctx, inproc.Config{})
	if err != nil {
		return err
	}
	managers := make([]*txn.Manager, 3)
	for id := uint64(1); id <= 2; id++ {
		transport, err := network.Open(id)
		if err != nil {
			return err
		}
		defer transport.Close()
		store, err := pebble.Open(pebble.Config{Dir: filepath.Join(dir, fmt.Sprint("node", id))})
		if err != nil {
			return err
		}
		defer store.Close()
		resources := map[string]txn.Resource{"rows": rows}
		if id == 2 {
			resources = map[string]txn.Resource{"sheets": sheets}
		}
		managers[id], err = txn.Start(ctx, txn.Config{Cluster: "torture", Node: id, Transport: transport, Store: store, Resources: resources,
			ResendInterval: 100 * time.Millisecond, InquireInterval: 100 * time.Millisecond, PrepareTimeout: 3 * time.Second})
		if err != nil {
			return err
		}
		defer managers[id].Close()
	}
	if settle {
		return settled(ctx, managers)
	}
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				transfer(ctx, managers, rows, sheets)
			}
		})
	}
	clients.Wait()
	return nil
}

// settled waits until nothing is under way.
func settled(ctx context.Context, managers []*txn.Manager) error {
	for {
		var all []string
		for _, m := range managers[1:] {
			s, err := m.Status(ctx)
			if err != nil {
				return err
			}
			if len(s.Damages) > 0 {
				fmt.Println("damaged settled")
				return fmt.Errorf("damage: %+v", s.Damages)
			}
			if len(s.Transactions)+len(s.InDoubt)+len(s.Stuck) > 0 {
				all = append(all, fmt.Sprintf("%+v", s))
			}
		}
		if all == nil {
			fmt.Println("settled settled")
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("not settled: %v", all)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func move(ctx context.Context, tx *Tx, account, amount int) error {
	for _, sql := range []string{"SET LOCAL lock_timeout = '500ms'", sprint("UPDATE accounts SET balance = balance + %d WHERE id = %d", amount, account),
		sprint("INSERT INTO transfers SELECT '%v' WHERE NOT EXISTS (SELECT FROM transfers WHERE id = '%v')", tx.ID(), tx.ID())} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// transfer moves an amount, and says what became of it.
func transfer(ctx context.Context, managers []*txn.Manager, rows *Resource, sheets *files.Resource) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tx, err := managers[1+rand.IntN(2)].Begin(ctx)
	if err != nil {
		time.Sleep(10 * time.Millisecond)
		return
	}
	amount := 1 + rand.IntN(50)
	if rand.IntN(2) == 0 {
		amount = -amount
	}
	here := txn.Participant{Node: 1, Resource: "rows"}
	there := txn.Participant{Node: 2, Resource: "sheets"}
	all := []txn.Participant{here, there}
	word := "committed"
	err = func() error {
		if rand.IntN(5) == 0 {
			// Between two rows: one phase.
			word, all = "alone", all[:1]
			fmt.Printf("single %v\n", tx.ID())
			t, err := rows.Begin(ctx, tx.ID())
			if err != nil {
				return err
			}
			from, to := rand.IntN(tortureAccounts), rand.IntN(tortureAccounts)
			return errors.Join(move(ctx, t, min(from, to), amount), move(ctx, t, max(from, to), -amount))
		}
		if account := rand.IntN(tortureAccounts); rand.IntN(2) == 0 {
			all[0].Work = fmt.Append(nil, account, " ", amount)
		} else {
			t, err := rows.Begin(ctx, tx.ID())
			if err != nil {
				return err
			}
			if err := move(ctx, t, account, amount); err != nil {
				return err
			}
		}
		f, err := sheets.Begin(ctx, tx.ID())
		if err != nil {
			return err
		}
		name := strconv.Itoa(rand.IntN(tortureAccounts))
		content, err := f.ReadFile(name)
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(content))
		if err != nil {
			return err
		}
		if rand.IntN(10) == 0 {
			_ = f.Remove("..") // which makes it a no
		}
		return errors.Join(f.WriteFile(name, fmt.Append(nil, n-amount)), f.WriteFile("transfers/"+tx.ID().String(), nil))
	}()
	if err != nil {
		_ = tx.Abort(ctx, all...)
		fmt.Printf("aborted %v\n", tx.ID())
		time.Sleep(5 * time.Millisecond)
		return
	}
	err = tx.Commit(ctx, all...)
	switch {
	case err == nil:
		fmt.Printf("%s %v\n", word, tx.ID())
	case errors.Is(err, txn.ErrAborted):
		fmt.Printf("aborted %v\n", tx.ID())
	}
}
