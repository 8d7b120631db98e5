package main

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/bench/work"
)

func sample() report {
	r := report{Date: "2026-01-02", Command: "go run . -rounds 3", Revision: "abc", Go: "go1.26 <devel>", Cores: 2, Rounds: 3}
	for round, speed := range []float64{100, 300, 200} {
		for i, system := range []string{"synod", "slow", "quick"} {
			job := work.Job{System: system, Work: "write", Clients: 64, Size: 128}
			r.Results = append(r.Results, work.Result{Job: job, PerSecond: speed * 1000 / float64(3*i+1), P50Micros: 100 * float64(round+1), P99Micros: 2000, Allocs: 3, Errors: 5, OtherCores: speed / 1000, Version: "v" + system})
		}
	}
	return r
}

func TestMedian(t *testing.T) {
	require.Equal(t, 2.0, median([]float64{3, 1, 2}))
	require.Equal(t, 2.5, median([]float64{4, 1, 3, 2}))
	require.Equal(t, 7.0, median([]float64{7}))
}

func TestMarkdown(t *testing.T) {
	table := markdown(sample())
	require.Contains(t, table, "| 64 clients, 128 B | **200,000** | 50,000 | 28,571 | 4.00 |")
	require.Contains(t, table, "| 64 clients, 128 B | synod | 200,000 | 100,000 – 300,000 | 0.20 | 2.00 | 0.0 | 0 | 3.0 | 15 |")
	require.Contains(t, table, "| quick | vquick |  |")
	require.NotContains(t, table, "without a result")
	require.Contains(t, table, "at most 0.3 of its 2 cores busy during a run (synod: 64 clients, 128 B)")
	require.Contains(t, table, "`go run . -rounds 3`, 2026-01-02, revision abc, go1.26")
}

func TestMarkdownWithoutAPeerOrWithoutUs(t *testing.T) {
	r := sample()
	r.Results = slices.DeleteFunc(r.Results, func(result work.Result) bool { return result.System != "synod" })
	require.Contains(t, markdown(r), "| 64 clients, 128 B | **200,000** | – |")
	r = sample()
	r.Results = slices.DeleteFunc(r.Results, func(result work.Result) bool { return result.System == "synod" })
	require.Contains(t, markdown(r), "| 64 clients, 128 B | 50,000 | 28,571 | – |")
}

// The other engine is no peer, and stands beside ours.
func TestMarkdownWithBothEngines(t *testing.T) {
	r := sample()
	for i := range r.Results {
		if r.Results[i].System == "slow" {
			r.Results[i].System = "synod-paxos"
		}
	}
	table := markdown(r)
	require.Contains(t, table, "| synod / best peer | synod-paxos / synod |\n|---|---:|---:|---:|---:|---:|\n")
	require.Contains(t, table, "| 64 clients, 128 B | **200,000** | 50,000 | 28,571 | 7.00 | 0.25 |\n")
	r.Results = slices.DeleteFunc(r.Results, func(result work.Result) bool { return result.System == "synod-paxos" })
	require.NotContains(t, markdown(r), "synod-paxos")
}

func TestCellNames(t *testing.T) {
	for want, c := range map[string]cell{
		"1 client, 128 B":    {"write", 1, 128},
		"64 clients, 1 KiB":  {"write", 64, 1024},
		"512 clients, reads": {"read", 512, 128},
	} {
		require.Equal(t, want, c.String())
	}
}

func TestChartIsWellFormed(t *testing.T) {
	d := xml.NewDecoder(strings.NewReader(string(chart(sample()))))
	bars := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	require.Equal(t, 1+3, bars, "the background and a bar for each system")
}

func TestThousands(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		require.Equal(t, want, thousands(v))
	}
}
