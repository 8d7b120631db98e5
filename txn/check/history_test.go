package check_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/txn/check"
)

func someHistory() check.History {
	var r check.Recorder
	a := r.Begin(1)
	a.Append("x", 1)
	a.Write("y", -7)
	b := r.Begin(0)
	b.Read("y")
	b.Read(`k"<é>`, math.MaxInt64, math.MinInt64)
	a.Commit()
	b.Abort()
	c := r.Begin(2)
	c.Scan("a", "", map[string][]int64{"x": {1}, "y": {-7}})
	c.Scan("", "b", nil)
	c.Unknown()
	r.Begin(2) // and never ends
	return r.History()
}

func TestEncoding(t *testing.T) {
	h := someHistory()
	var b bytes.Buffer
	n, err := h.WriteTo(&b)
	require.NoError(t, err)
	require.EqualValues(t, b.Len(), n)
	require.Equal(t, `{"process":1,"begin":1,"end":3,"outcome":"committed","operations":[["append","x",1],["write","y",-7]]}
{"begin":2,"end":4,"outcome":"aborted","operations":[["read","y",[]],["read","k\"\u003cé\u003e",[9223372036854775807,-9223372036854775808]]]}
{"process":2,"begin":5,"outcome":"unknown","operations":[["scan","a","",{"x":[1],"y":[-7]}],["scan","","b",{}]]}
{"process":2,"begin":7,"outcome":"unknown","operations":null}
`, b.String())

	again, err := check.ReadHistory(&b)
	require.NoError(t, err)
	var once bytes.Buffer
	_, err = again.WriteTo(&once)
	require.NoError(t, err)
	var whole check.History
	text, err := json.Marshal(h)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &whole))
	var twice bytes.Buffer
	_, err = whole.WriteTo(&twice)
	require.NoError(t, err)
	require.Equal(t, once.String(), twice.String())

	// The reports are the same, too.
	want, err := h.Check(check.Config{})
	require.NoError(t, err)
	got, err := again.Check(check.Config{})
	require.NoError(t, err)
	require.Equal(t, want.String(), got.String())
}

func TestReportsAreData(t *testing.T) {
	var r check.Recorder
	for range 2 {
		a, b := r.Begin(1), r.Begin(2)
		x, y := r.Unique(), r.Unique()
		a.Append("x", x)
		a.Read("y", y)
		b.Append("y", y)
		b.Read("x", x)
		a.Commit()
		b.Commit()
	}
	report, err := r.History().Check(check.Config{Model: check.ReadCommitted})
	require.NoError(t, err)
	text, err := json.Marshal(report)
	require.NoError(t, err)
	var again check.Report
	require.NoError(t, json.Unmarshal(text, &again))
	require.Equal(t, report.String(), again.String())
	require.Equal(t, report.Anomalies, again.Anomalies)
	var violation *check.ViolationError
	require.ErrorAs(t, report.Err(), &violation)
	require.Same(t, report, violation.Report)
	require.Equal(t, report.String(), violation.Error())
}

func TestWhatIsNoHistory(t *testing.T) {
	for text, want := range map[string]string{
		`{`:                                    "unexpected EOF",
		`null`:                                 "null is no transaction",
		`[]`:                                   "cannot unmarshal",
		`{"outcome":"perhaps"}`:                `"perhaps" is no outcome`,
		`{"outcome":1}`:                        "cannot unmarshal",
		`{"ended":1}`:                          "unknown field",
		`{"begin":1.5}`:                        "cannot unmarshal",
		`{"operations":[{}]}`:                  "an operation is an array",
		`{"operations":[[]]}`:                  "begins with its kind",
		`{"operations":[[1]]}`:                 "the kind of an operation",
		`{"operations":[["delete"]]}`:          `"delete" is no kind of operation`,
		`{"operations":[["append"]]}`:          "append has 2 fields and not 0",
		`{"operations":[["append","x","1"]]}`:  "append, field 2",
		`{"operations":[["append","x",null]]}`: "null says nothing",
		`{"operations":[["read","x",null]]}`:   "null says nothing",
		`{"operations":[["read","x",1]]}`:      "read, field 2",
		`{"operations":[["scan","a","b",[]]]}`: "scan, field 3",
		`{"operations":[["append","x",99999999999999999999]]}`:  "append, field 2",
		`{"operations":[["append","x",1]]}{"operations":[[2]]}`: "after 1 transactions",
	} {
		h, err := check.ReadHistory(strings.NewReader(text))
		require.ErrorContains(t, err, want, text)
		require.ErrorIs(t, err, check.ErrHistory, text)
		var decode *check.DecodeError
		require.ErrorAs(t, err, &decode, text)
		require.Empty(t, h.Transactions)
	}
	broken := errors.New("broken")
	_, err := check.ReadHistory(io.MultiReader(strings.NewReader(`{}`), failing{broken}))
	require.ErrorIs(t, err, broken)
	_, err = someHistory().WriteTo(failing{broken})
	require.ErrorIs(t, err, broken)

	_, err = (check.History{Transactions: []check.Transaction{{Outcome: 7}}}).WriteTo(io.Discard)
	require.ErrorIs(t, err, check.ErrHistory)
	require.ErrorContains(t, err, "Outcome(7)")
	_, err = (check.History{Transactions: []check.Transaction{{Operations: []check.Operation{{Kind: check.Read, Key: "\xff"}}}}}).WriteTo(io.Discard)
	require.ErrorIs(t, err, check.ErrHistory)
	require.ErrorContains(t, err, "is not UTF-8")
	_, err = (check.History{Transactions: []check.Transaction{{Operations: []check.Operation{{Kind: "get"}}}}}).WriteTo(io.Discard)
	require.ErrorIs(t, err, check.ErrHistory)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

// What can't be is refused, and names the place. The rest of what is refused is in
// testdata/anomalies/errors.
func TestWhatCanNotBe(t *testing.T) {
	one := func(t check.Transaction) check.History { return check.History{Transactions: []check.Transaction{t}} }
	for want, h := range map[string]check.History{
		"Outcome(9) is no outcome":     one(check.Transaction{Outcome: 9}),
		"its time is negative":         one(check.Transaction{Begin: -1}),
		"process -1":                   one(check.Transaction{Process: -1}),
		`"get" is no kind`:             one(check.Transaction{Operations: []check.Operation{{Kind: "get"}}}),
		"operation 1: append x 1, and": one(check.Transaction{Operations: []check.Operation{{Kind: check.Append, Key: "x", Value: 1}, {Kind: check.Append, Key: "x", Value: 1}}}),
	} {
		_, err := h.Check(check.Config{})
		require.ErrorIs(t, err, check.ErrHistory)
		require.ErrorContains(t, err, want)
		var bad *check.HistoryError
		require.ErrorAs(t, err, &bad)
	}
	var config *check.ConfigError
	_, err := check.History{}.Check(check.Config{Model: "perfect"})
	require.ErrorAs(t, err, &config)
	require.Equal(t, "Config.Model", config.Field)
	_, err = check.History{}.Check(check.Config{MaxPerKind: -1})
	require.ErrorAs(t, err, &config)
	require.Equal(t, "Config.MaxPerKind", config.Field)
}

// A recorder is used by many, and the first end of a transaction counts.
func TestRecorder(t *testing.T) {
	var r check.Recorder
	var all sync.WaitGroup
	for client := range 8 {
		all.Go(func() {
			for range 50 {
				tx := r.Begin(client + 1)
				var parts sync.WaitGroup
				for range 2 {
					parts.Go(func() { tx.Append("x", r.Unique()) })
				}
				parts.Wait()
				tx.Commit()
				tx.Abort()
				r.History()
			}
		})
	}
	all.Wait()
	h := r.History()
	require.Len(t, h.Transactions, 400)
	for _, tx := range h.Transactions {
		require.Equal(t, check.Committed, tx.Outcome)
		require.Len(t, tx.Operations, 2)
		require.Less(t, tx.Begin, tx.End)
	}
	report, err := h.Check(check.Config{})
	require.NoError(t, err)
	require.NoError(t, report.Err())

	// What is recorded later changes nothing of a history.
	tx := r.Begin(0)
	seen := []int64{1}
	tx.Read("y", seen...)
	found := map[string][]int64{"y": seen}
	tx.Scan("a", "", found)
	h = r.History()
	seen[0] = 2
	delete(found, "y")
	tx.Read("y")
	tx.Commit()
	last := h.Transactions[len(h.Transactions)-1]
	require.Equal(t, check.Unknown, last.Outcome)
	require.Equal(t, []check.Operation{{Kind: check.Read, Key: "y", Seen: []int64{1}}, {Kind: check.Scan, Key: "a", Found: map[string][]int64{"y": {1}}}}, last.Operations)
}

func TestModels(t *testing.T) {
	require.Equal(t, check.StrictSerializable, check.Models()[0])
	for _, m := range check.Models() {
		require.NotEqual(t, string(m), m.String()+"-")
		_, err := check.History{}.Check(check.Config{Model: m})
		require.NoError(t, err)
	}
	require.Equal(t, "perfect", check.Model("perfect").String())
	require.Equal(t, check.Kind("G-single-realtime"), check.GSingle.Process().Realtime())
}

// FuzzReadHistory looks for what crashes the decoder or the check, for histories that change
// when they are written and read again, and for reports that contradict each other.
func FuzzReadHistory(f *testing.F) {
	var b bytes.Buffer
	if _, err := someHistory().WriteTo(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"outcome":"committed","operations":[["append","x",1],["read","y",[2]]]}{"outcome":"committed","operations":[["append","y",2],["read","x",[1]]]}`))
	f.Add([]byte(`{"outcome":"committed","process":1,"operations":[["write","x",1],["read","x",[1,1]],["scan","","",{"x":[2]}]]}{"operations":[["write","x",2]]}`))
	f.Add([]byte(`{"outcome":"committed","begin":1,"end":2,"operations":[["read","x",[1]],["write","x",2]]}{"outcome":"committed","begin":3,"operations":[["read","x",[2]],["write","x",1]]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := check.ReadHistory(bytes.NewReader(text))
		if err != nil {
			require.ErrorIs(t, err, check.ErrHistory)
			return
		}
		var once, twice bytes.Buffer
		_, err = h.WriteTo(&once)
		require.NoError(t, err)
		again, err := check.ReadHistory(bytes.NewReader(once.Bytes()))
		require.NoError(t, err)
		_, err = again.WriteTo(&twice)
		require.NoError(t, err)
		require.Equal(t, once.String(), twice.String())

		strict, err := h.Check(check.Config{})
		if err != nil {
			require.ErrorIs(t, err, check.ErrHistory)
			return
		}
		_ = strict.String()
		for _, m := range check.Models() {
			r, err := h.Check(check.Config{Model: m, LinearizableKeys: len(text)%2 == 0, MaxPerKind: 1})
			require.NoError(t, err)
			if _, excluded := find(strict.RuledOut, m); excluded {
				require.False(t, r.OK(), "%s\n%s", strict, r)
			}
		}
	})
}

func find(models []check.Model, m check.Model) (int, bool) {
	for i := range models {
		if models[i] == m {
			return i, true
		}
	}
	return 0, false
}
