package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/bench/work"
)

// The tests run this very program as the one that measures.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args, "-measure") {
		main()
		return
	}
	os.Exit(m.Run())
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

// Every system keeps the money together.
func TestAllSystems(t *testing.T) {
	if testing.Short() {
		t.Skip("starts clusters")
	}
	dir := disk(t)
	require.NoError(t, run(t.Context(), []string{"-clients", "4", "-distributions", "zipf", "-warmup", "0", "-seconds", "0.3", "-rounds", "1", "-out", dir}, io.Discard))
	var r report
	content, err := os.ReadFile(filepath.Join(dir, "results.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(content, &r))
	require.Len(t, r.Results, len(systems))
	for _, x := range r.Results {
		require.Positive(t, x.Ops, x.System)
		require.NotEmpty(t, x.Version, x.System)
		require.GreaterOrEqual(t, x.Retries, 0.0, x.System)
	}
	table, err := os.ReadFile(filepath.Join(dir, "results.md"))
	require.NoError(t, err)
	require.Contains(t, string(table), "| zipf, 4 clients |")
	left, err := filepath.Glob(filepath.Join(dir, "data-*"))
	require.NoError(t, err)
	require.Empty(t, left, "data of the runs")
}

// leaky is a system that loses money.
type leaky struct{ lost bool }

func (l *leaky) load(context.Context) error { return nil }
func (l *leaky) transfer(context.Context, int, int) (int, error) {
	return 2, nil
}

func (l *leaky) total(context.Context) (int64, error) {
	if l.lost {
		return accounts*opening - 1, nil
	}
	return accounts * opening, nil
}
func (l *leaky) close() error { return nil }

func TestMeasure(t *testing.T) {
	old := systems
	t.Cleanup(func() { systems = old })
	l := new(leaky)
	systems = []system{{name: "leaky", open: func(context.Context, string) (bank, error) { return l, nil }}}
	p, err := parse([]string{"-measure", "leaky", "-clients", "1", "-distributions", "uniform", "-seconds", "0.01", "-warmup", "0"})
	require.NoError(t, err)
	job := p.jobs[0]
	job.System = p.measured
	files := profiles{filepath.Join(t.TempDir(), "cpu"), filepath.Join(t.TempDir(), "memory")}
	x, err := measure(t.Context(), job, files)
	require.NoError(t, err)
	require.InDelta(t, 1, x.Retries, 1e-9, "each transfer was run twice")
	require.FileExists(t, files.cpu)
	require.FileExists(t, files.memory)
	l.lost = true
	_, err = measure(t.Context(), job, profiles{})
	require.ErrorContains(t, err, "leaky has lost or made money: 9999999 instead of 10000000")
	systems[0].open = func(context.Context, string) (bank, error) { return nil, errors.New("no room") }
	_, err = measure(t.Context(), job, profiles{})
	require.ErrorContains(t, err, "open leaky: no room")
}

func TestParse(t *testing.T) {
	p, err := parse(nil)
	require.NoError(t, err)
	require.Len(t, p.systems, len(systems))
	require.Len(t, p.jobs, 6)
	first, second := p.order(0), p.order(1)
	require.Len(t, first, 6*len(systems))
	require.NotEqual(t, first[0].System, second[0].System, "another one begins")
	for want, args := range map[string][]string{
		`no system "zab"`:        {"-systems", "zab"},
		`no distribution "x"`:    {"-distributions", "x"},
		"not a number":           {"-clients", "0"},
		"nothing to do":          {"-clients", ""},
		"-seconds is above 0":    {"-seconds", "0"},
		"unexpected argument":    {"now"},
		"-measure takes one":     {"-measure", "synod"},
		"go with -measure":       {"-cpuprofile", "x"},
		`no system "etcd-three"`: {"-measure", "etcd-three"},
	} {
		_, err := parse(args)
		require.ErrorContains(t, err, want)
	}
}

func TestPair(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, make := range distributions {
		draw := make()
		for _, across := range []bool{false, true} {
			for range 10_000 {
				from, to := pair(random, draw, across)
				require.NotEqual(t, from, to, name)
				require.True(t, from >= 0 && from < accounts && to >= 0 && to < accounts)
				require.False(t, across && from%2 == to%2)
			}
		}
	}
}

// The first is drawn twice as often as the second, nearly, and about a tenth of all times.
func TestZipf(t *testing.T) {
	draw, random := zipf(accounts, 0.99), rand.New(rand.NewPCG(1, 2))
	var counts [accounts]int
	const n = 200_000
	for range n {
		counts[draw(random)]++
	}
	require.InDelta(t, 1.986, float64(counts[0])/float64(counts[1]), 0.1)
	require.InDelta(t, 0.1, float64(counts[0])/n, 0.01)
	require.Positive(t, counts[0])
}

func TestMarkdown(t *testing.T) {
	at := func(system string, rate float64) result {
		return result{work.Result{Job: work.Job{System: system, Work: "uniform", Clients: 16}, PerSecond: rate, Version: "v", Settings: "s"}, 0.25}
	}
	text := markdown(report{Rounds: 2, Cores: 2, Results: []result{at("synod", 30_000), at("etcd", 10_000), at("synod", 10_000), at("synod-two", 5_000)}, Failures: []string{"a\nfailure"}})
	require.Contains(t, text, "| work | synod | synod-two | etcd | synod / etcd | synod-two / synod |")
	require.Contains(t, text, "| uniform, 16 clients | 20,000 | 5,000 | 10,000 | 2.00 | 0.25 |")
	require.Contains(t, text, "| 10,000 – 30,000 | 0.250 |")
	require.Contains(t, text, "- a failure")
	require.NotContains(t, text, "NaN")
	require.NotContains(t, strings.ReplaceAll(text, "%%", ""), "%!")
}
