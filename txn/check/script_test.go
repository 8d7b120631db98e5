package check

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
)

// TestScripts holds the histories of testdata/anomalies against models, and compares what is said
// of them. Run with -rewrite to write it into the scripts, and read the difference.
//
//	check [model=NAME] [most=NUMBER] [linearizable-keys]   the report of the history below
//	again [the same]                                       of the history of the check before
//	models                                                 which models the history before excludes
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/anomalies", func(t *testing.T, path string) {
		var h History
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			config := Config{}
			for _, arg := range d.CmdArgs {
				switch arg.Key {
				case "model":
					config.Model = Model(arg.Vals[0])
				case "most":
					arg.Scan(t, 0, &config.MaxPerKind)
				case "linearizable-keys":
					config.LinearizableKeys = true
				default:
					d.Fatalf(t, "%s: no such argument", arg.Key)
				}
			}
			if d.Cmd == "check" {
				var err error
				if h, err = parseHistory(d.Input); err != nil {
					d.Fatalf(t, "%v", err)
				}
			}
			switch d.Cmd {
			case "check", "again":
				r, err := h.Check(config)
				if err != nil {
					return err.Error() + "\n"
				}
				verify(t, h, r)
				return r.String()
			case "models":
				var b strings.Builder
				for _, m := range Models() {
					config.Model = m
					r, err := h.Check(config)
					require.NoError(t, err)
					verify(t, h, r)
					verdict := "ok"
					if !r.OK() {
						verdict = fmt.Sprint(r.kinds())
					}
					fmt.Fprintf(&b, "%v: %s\n", m, verdict)
				}
				return b.String()
			}
			d.Fatalf(t, "%s: no such command", d.Cmd)
			return ""
		})
	})
}

// kinds returns what was found, the worst first.
func (r *Report) kinds() (all []Kind) {
	for _, a := range r.Anomalies {
		if len(all) == 0 || all[len(all)-1] != a.Kind {
			all = append(all, a.Kind)
		}
	}
	return all
}

// verify holds a report against what must be so of every report.
func verify(t *testing.T, h History, r *Report) {
	t.Helper()
	total := 0
	for _, n := range r.Found {
		total += n
	}
	require.GreaterOrEqual(t, total, len(r.Anomalies))
	require.Equal(t, r.OK(), total == 0)
	if !r.OK() {
		require.Contains(t, r.RuledOut, r.Model)
		require.ErrorIs(t, r.Err(), ErrViolation)
	} else {
		require.NoError(t, r.Err())
	}
	for _, a := range r.Anomalies {
		require.Contains(t, a.RulesOut, r.Model, "%s", r)
		require.NotEmpty(t, a.Transactions, "%s", r)
		require.NotEqual(t, a.Cycle == nil, a.Reason == "", "%s", r)
		require.GreaterOrEqual(t, a.Kind.rank(), 0)
		for _, txn := range a.Transactions {
			require.Equal(t, h.Transactions[txn], r.Involved[txn])
			require.True(t, len(a.Cycle) == 0 || h.Transactions[txn].Outcome != Aborted, "%s", r)
		}
		for i, e := range a.Cycle {
			next := a.Cycle[(i+1)%len(a.Cycle)]
			require.Equal(t, e.To, next.From)
			require.Equal(t, a.Transactions[i], e.From)
			require.NotEmpty(t, e.Reason)
			require.NotContains(t, e.Reason, "it follows", "%s", r)
			from, to := h.Transactions[e.From], h.Transactions[e.To]
			switch e.Dependency {
			case Realtime:
				require.Less(t, from.End, to.Begin)
				require.NotZero(t, from.End)
			case Process:
				require.Equal(t, from.Process, to.Process)
				require.Less(t, e.From, e.To)
			case WriteWrite:
				require.True(t, writes(from, e.Key) && writes(to, e.Key), "%s", r)
			case WriteRead:
				require.True(t, writes(from, e.Key) && reads(to, e.Key), "%s", r)
			case ReadWrite:
				require.True(t, reads(from, e.Key) && writes(to, e.Key), "%s", r)
			}
		}
	}
}

func writes(t Transaction, key string) bool {
	for _, op := range t.Operations {
		if (op.Kind == Append || op.Kind == Write) && op.Key == key {
			return true
		}
	}
	return false
}

func reads(t Transaction, key string) bool {
	for _, op := range t.Operations {
		if op.Kind == Read && op.Key == key || op.Kind == Scan && key >= op.Key && (op.To == "" || key < op.To) {
			return true
		}
	}
	return false
}
