package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/bench/work"
)

// childMode is the environment variable by which the tests run this very program as
// a system of its own.
const childMode = "SYNOD_BENCH_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childMode) {
	case "":
		os.Exit(m.Run())
	case "works":
		work.Main(nil, func(system string) string { return "settings of " + system }, openInstant)
	default:
		os.Stderr.WriteString("out of order\n")
		os.Exit(1)
	}
}

// instant is a system without replicas.
type instant struct{ *work.State }

func openInstant(context.Context, work.Job) (work.System, error) {
	return instant{work.NewState()}, nil
}

func (i instant) Write(_ context.Context, command []byte) error {
	i.Apply(command)
	return nil
}

func (i instant) Read(_ context.Context, key uint64) (int, error) { return i.Get(key), nil }
func (i instant) Close()                                          {}

// buildNothing lets every system be this program.
func buildNothing(_ context.Context, names []string, _ io.Writer) (map[string]string, func(), error) {
	paths := make(map[string]string)
	for _, name := range names {
		path, err := os.Executable()
		if err != nil {
			return nil, nil, err
		}
		paths[name] = path
	}
	return paths, func() {}, nil
}

// disk returns an empty directory that is not in memory.
func disk(t *testing.T) string {
	dir, err := os.MkdirTemp(".", "test-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if work.OnDisk(dir) != nil {
		t.Skip("the working directory is in memory")
	}
	return dir
}

func TestRunWritesTheResults(t *testing.T) {
	t.Setenv(childMode, "works")
	t.Setenv("GORACE", "atexit_sleep_ms=0") // each program would sleep for a second at its end
	dir := disk(t)
	args := []string{"-systems", "synod, etcd", "-clients", "1,2", "-sizes", "64", "-reads", "2", "-warmup", "0", "-seconds", "0.05", "-rounds", "2", "-out", dir}
	require.NoError(t, run(t.Context(), args, io.Discard, buildNothing))

	var r report
	content, err := os.ReadFile(filepath.Join(dir, "results.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(content, &r))
	require.Contains(t, r.Command, `go run . -systems "synod, etcd" -clients 1,2 `)
	require.Len(t, r.Results, 2*2*3, "rounds, systems, kinds of work")
	require.Equal(t, 2, r.Rounds)
	require.Empty(t, r.Failures)
	for _, result := range r.Results {
		require.NotZero(t, result.Ops)
		require.Zero(t, result.Errors)
		require.Equal(t, "settings of "+result.System, result.Settings)
	}
	for _, name := range []string{"results.md", "results.svg"} {
		require.FileExists(t, filepath.Join(dir, name))
	}
	data, err := filepath.Glob(filepath.Join(dir, "data-*"))
	require.NoError(t, err)
	require.Empty(t, data, "data directories are removed")
}

func TestRunGoesOnAfterAFailure(t *testing.T) {
	t.Setenv(childMode, "fails")
	dir := disk(t)
	err := run(t.Context(), []string{"-systems", "synod,etcd", "-clients", "1", "-sizes", "64", "-reads", "", "-rounds", "2", "-out", dir}, io.Discard, buildNothing)
	require.ErrorContains(t, err, "4 runs failed")
	content, err := os.ReadFile(filepath.Join(dir, "results.json"))
	require.NoError(t, err)
	require.Contains(t, string(content), "round 2: etcd: 1 client, 64 B: exit status 1: out of order")
	content, err = os.ReadFile(filepath.Join(dir, "results.md"))
	require.NoError(t, err)
	require.Contains(t, string(content), "out of order", "a table without these runs says so")
}

func TestRunEndsWhenInterrupted(t *testing.T) {
	t.Setenv(childMode, "works")
	dir := disk(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, run(ctx, []string{"-out", dir}, io.Discard, buildNothing), context.Canceled)
}

func TestEachSystemBeginsOnceInTurn(t *testing.T) {
	p, err := parse([]string{"-systems", "synod,etcd,hashicorp", "-clients", "1", "-sizes", "128", "-reads", ""})
	require.NoError(t, err)
	firsts := make(map[string]int)
	for round := range 3 {
		order := p.order(round)
		names := make(map[string]bool)
		for _, job := range order {
			names[job.System] = true
		}
		require.Len(t, names, 3, "each system runs once a round")
		require.Len(t, order, 3)
		firsts[order[0].System]++
	}
	require.Equal(t, map[string]int{"synod": 1, "etcd": 1, "hashicorp": 1}, firsts)
}

func TestParseRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"unknown system": {[]string{"-systems", "synod,zookeeper"}, `no system "zookeeper": choose among synod, synod-paxos, hashicorp`},
		"no clients":     {[]string{"-clients", "0"}, `"0" is not a number of clients`},
		"small size":     {[]string{"-sizes", "7"}, `"7" is not a size`},
		"no time":        {[]string{"-seconds", "0"}, "-seconds is above 0"},
		"no rounds":      {[]string{"-rounds", "0"}, "-rounds at least 1"},
		"no work":        {[]string{"-clients", "", "-reads", ""}, "nothing to do"},
		"stray argument": {[]string{"synod"}, `unexpected argument "synod"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(test.args)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestParseDefaults(t *testing.T) {
	p, err := parse(nil)
	require.NoError(t, err)
	require.Len(t, p.systems, len(systems))
	require.Len(t, p.jobs, 3*2+1)
	require.Equal(t, "out", p.dir)
}

func TestMemoryIsRefused(t *testing.T) {
	const memory = "/dev/shm"
	var s syscall.Statfs_t
	if err := syscall.Statfs(memory, &s); err != nil || s.Type != 0x01021994 {
		t.Skip("no file system in memory to try with")
	}
	dir, err := os.MkdirTemp(memory, "synod-bench-")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(dir)
	err = run(t.Context(), []string{"-out", t.TempDir(), "-dir", dir}, io.Discard, func(context.Context, []string, io.Writer) (map[string]string, func(), error) {
		t.Error("built the programs all the same")
		return nil, func() {}, nil
	})
	require.ErrorContains(t, err, dir+" is in memory")
	require.ErrorContains(t, err, "-dir")
}

func TestTailIsBounded(t *testing.T) {
	var end tail
	for range 1000 {
		_, _ = end.Write([]byte("a line of a log\n"))
	}
	_, _ = end.Write([]byte("the last one\n"))
	require.LessOrEqual(t, len(end), 4096)
	require.Contains(t, end.String(), "the last one")
}
