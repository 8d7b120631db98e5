package txntest_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/txn"
	"github.com/synod-go/synod/txn/txntest"
)

// disk is what a tally has written. It survives.
type disk struct {
	prepared  map[txn.ID]int
	committed map[txn.ID]int
	count     map[int]int
}

// tally is a resource that counts how often things were done, with a mistake.
type tally struct {
	mistake string

	mu   sync.Mutex
	disk *disk
	open map[txn.ID]int // what is not prepared; -1: something that it refuses, -2: it only reads
	lock map[int]txn.ID
}

func openTally(d *disk, mistake string) *tally {
	y := &tally{mistake: mistake, disk: d, open: map[txn.ID]int{}, lock: map[int]txn.ID{}}
	for id, n := range d.prepared {
		y.lock[n] = id
	}
	return y
}

func (y *tally) do(_ context.Context, id txn.ID, n int) ([]byte, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if _, locked := y.lock[n]; locked && n >= 0 {
		return nil, errors.New("it is locked")
	}
	y.open[id] = n
	if n >= 0 {
		y.lock[n] = id
	}
	return nil, nil
}

func (y *tally) done(_ context.Context, n int) (int, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.disk.count[n], nil
}

func (y *tally) release(id txn.ID) {
	maps.DeleteFunc(y.lock, func(_ int, holder txn.ID) bool { return holder == id })
	delete(y.open, id)
}

func (y *tally) Prepare(_ context.Context, r txn.PrepareRequest) (txn.Vote, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if _, prepared := y.disk.prepared[r.ID]; prepared {
		if y.mistake == "a second request is refused" {
			return txn.No, nil
		}
		return txn.Yes, nil
	}
	n, open := y.open[r.ID]
	switch {
	case !open && y.mistake == "it prepares what it does not know":
		n = 99
	case !open:
		return txn.No, errors.New("nothing is known of it")
	case n == -1:
		if y.mistake != "a no keeps its locks" {
			y.release(r.ID)
		}
		return txn.No, errors.New("no")
	case n == -2:
		if y.mistake == "a read-only transaction is prepared" {
			y.disk.prepared[r.ID] = 98
		}
		delete(y.open, r.ID)
		return txn.ReadOnly, nil
	}
	if y.mistake == "it commits at once" {
		y.disk.count[n]++
	}
	if y.mistake != "prepared in memory" {
		y.disk.prepared[r.ID] = n
	}
	delete(y.open, r.ID)
	return txn.Yes, nil
}

func (y *tally) Commit(_ context.Context, id txn.ID) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	n, prepared := y.disk.prepared[id]
	if !prepared && y.mistake == "a second commit is an error" {
		return errors.New("it is not prepared")
	}
	if old, done := y.disk.committed[id]; done && y.mistake == "a second commit does it again" {
		y.disk.count[old]++
	}
	if prepared && y.mistake != "it commits at once" {
		y.disk.count[n]++
	}
	if prepared {
		y.disk.committed[id] = n
	}
	if y.mistake != "a commit stays in doubt" {
		delete(y.disk.prepared, id)
	}
	if y.mistake != "a commit keeps its locks" {
		y.release(id)
	}
	return nil
}

func (y *tally) Abort(_ context.Context, id txn.ID) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	_, prepared := y.disk.prepared[id]
	_, open := y.open[id]
	switch {
	case !prepared && !open && y.mistake == "an abort of what is not known is an error":
		return errors.New("it is not known")
	case y.mistake == "an abort takes all with it":
		clear(y.disk.prepared)
	case !prepared && y.mistake == "what is not prepared is not given up":
		return nil
	}
	if y.mistake != "an abort is in memory" {
		delete(y.disk.prepared, id)
	}
	y.release(id)
	return nil
}

func (y *tally) InDoubt(context.Context) ([]txn.ID, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	list := slices.Collect(maps.Keys(y.disk.prepared))
	if y.mistake == "what is open is in doubt" {
		list = slices.AppendSeq(list, maps.Keys(y.open))
	}
	if y.mistake == "only one is in doubt" {
		list = list[:min(len(list), 1)]
	}
	return list, nil
}

func (y *tally) CommitOnePhase(ctx context.Context, id txn.ID, work []byte) (txn.Outcome, error) {
	if vote, err := y.Prepare(ctx, txn.PrepareRequest{ID: id, Work: work}); vote != txn.Yes {
		if y.mistake == "one phase: a refusal is a success" {
			return txn.Committed, nil
		}
		return txn.Aborted, err
	}
	return txn.Committed, y.Commit(ctx, id)
}

func (y *tally) Outcome(_ context.Context, id txn.ID) (txn.Outcome, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if _, done := y.disk.committed[id]; done && y.mistake != "one phase: the outcome is forgotten" {
		return txn.Committed, nil
	}
	if y.mistake == "one phase: it can't tell" {
		return txn.Unknown, nil
	}
	return txn.Aborted, nil
}

var _ txn.OnePhaseCommitter = (*tally)(nil)

func runTally(t *testing.T, mistake string) {
	disks := map[string]*disk{}
	txntest.RunResource(t, func(t *testing.T, name string) (txntest.Subject, func()) {
		if disks[name] == nil {
			disks[name] = &disk{map[txn.ID]int{}, map[txn.ID]int{}, map[int]int{}}
		}
		y := openTally(disks[name], mistake)
		return txntest.Subject{Resource: y, Do: y.do, Done: y.done,
			Read: func(ctx context.Context, id txn.ID) ([]byte, error) { return y.do(ctx, id, -2) },
			Refuse: func(ctx context.Context, id txn.ID, n int) ([]byte, error) {
				if _, err := y.do(ctx, id, n); err != nil {
					return nil, err
				}
				return y.do(ctx, id, -1)
			}}, func() {}
	})
}

func TestResource(t *testing.T) { runTally(t, "") }

const plantedMistake = "SYNOD_PLANTED_MISTAKE"

// TestMistakenResource is run by TestResourceMistakesAreFound, in a process of its own.
func TestMistakenResource(t *testing.T) { runTally(t, os.Getenv(plantedMistake)) }

// Each mistake is found, by its rule.
func TestResourceMistakesAreFound(t *testing.T) {
	for mistake, rule := range map[string]string{
		"it commits at once":                        "nothing is to be seen before Commit",
		"prepared in memory":                        "Prepare is durable before Yes: the transaction is in doubt after a crash, and can be committed",
		"it prepares what it does not know":         "what it was never told of",
		"a no keeps its locks":                      "after No it holds nothing",
		"a read-only transaction is prepared":       "after ReadOnly there is nothing in doubt",
		"a second request is refused":               "a request to prepare that comes twice",
		"a second commit is an error":               "Commit is idempotent",
		"a second commit does it again":             "Commit does what was prepared once",
		"a commit stays in doubt":                   "in doubt is what is prepared",
		"a commit keeps its locks":                  "what is over holds nothing",
		"an abort of what is not known is an error": "Abort of what it knows nothing of",
		"an abort takes all with it":                "transactions are apart",
		"what is not prepared is not given up":      "Abort takes back what was not prepared yet",
		"an abort is in memory":                     "Abort takes back what was prepared",
		"what is open is in doubt":                  "in doubt is what is prepared",
		"only one is in doubt":                      "Prepare is durable before Yes",
		"one phase: a refusal is a success":         "one phase: what was not committed",
		"one phase: the outcome is forgotten":       "one phase: what it says",
		"one phase: it can't tell":                  "one phase: what was not committed",
	} {
		t.Run(mistake, func(t *testing.T) {
			words := strings.ReplaceAll(rule, " ", "_")
			cmd := exec.Command(os.Args[0], "-test.run=^TestMistakenResource$/^"+words)
			cmd.Env = append(os.Environ(), plantedMistake+"="+mistake)
			out, err := cmd.CombinedOutput()
			require.Error(t, err, "not found:\n%s", out)
			require.Contains(t, string(out), "--- FAIL: TestMistakenResource/"+words)
		})
	}
}
