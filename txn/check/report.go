package check

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Report is what was found in a history. It marshals as JSON.
type Report struct {
	// Model is what the history was held against.
	Model Model `json:"model"`

	// Committed, Aborted and Unknown count transactions by outcome. Observed is how many
	// of unknown outcome were read from, and so taken to have committed.
	Committed int `json:"committed"`
	Aborted   int `json:"aborted"`
	Unknown   int `json:"unknown"`
	Observed  int `json:"observed"`

	// Anomalies contradict the model: the worst kinds first, and of each kind as many
	// as Config.MaxPerKind allows, as they stand in the history.
	Anomalies []Anomaly `json:"anomalies"`

	// Found counts all of them, by kind. Cycles overlap without end: one is counted of each kind
	// in each set of transactions that depend on each other.
	Found map[Kind]int `json:"found,omitempty"`

	// RuledOut is the models that the history excludes, the strictest first. There may be
	// more: what does not contradict Model was not looked for.
	RuledOut []Model `json:"ruled_out,omitempty"`

	// Involved is the transactions that the anomalies name.
	Involved map[int]Transaction `json:"involved,omitempty"`

	excluded map[Model]bool
}

// Anomaly is one thing that should not be.
type Anomaly struct {
	// Kind is what it is.
	Kind Kind `json:"kind"`

	// RulesOut is the models that it excludes, the strictest first.
	RulesOut []Model `json:"rules_out"`

	// Key is the key that it is about; "" for cycles of transactions.
	Key string `json:"key,omitempty"`

	// Transactions is who takes part, by number: of a cycle all, in their order; else
	// the one that shows it first.
	Transactions []int `json:"transactions"`

	// Cycle is the dependencies of a cycle: each begins where the one before ends.
	Cycle []Edge `json:"cycle,omitempty"`

	// Shortest says that there is no shorter cycle of its kind among the transactions
	// that depend on each other. Else the search was ended: they were too many.
	Shortest bool `json:"shortest,omitempty"`

	// Reason says in words why it is one, if it is no cycle of transactions: a line or
	// more.
	Reason string `json:"reason,omitempty"`
}

// Dependency is why a transaction comes before another one.
type Dependency string

const (
	// WriteWrite: the second one overwrote what the first one wrote, or appended after it.
	WriteWrite Dependency = "ww"
	// WriteRead: the second one read what the first one wrote.
	WriteRead Dependency = "wr"
	// ReadWrite: the second one overwrote what the first one read: an anti-dependency.
	ReadWrite Dependency = "rw"
	// Process: both belong to one process.
	Process Dependency = "process"
	// Realtime: the first one had ended when the second one began.
	Realtime Dependency = "realtime"
)

// Edge is one dependency on a cycle.
type Edge struct {
	From       int        `json:"from"` // comes first
	To         int        `json:"to"`
	Dependency Dependency `json:"dependency"`
	Key        string     `json:"key,omitempty"` // of ww, wr, rw
	Reason     string     `json:"reason"`        // in words
}

// maxListed is how many transactions an anomaly names that is no cycle.
const maxListed = 10

func newReport(m Model) *Report {
	return &Report{Model: m, Found: make(map[Kind]int), Involved: make(map[int]Transaction), excluded: make(map[Model]bool)}
}

// add takes in an anomaly, if it contradicts the model. It reports whether it is listed.
func (r *Report) add(c *checker, a Anomaly, broken isolation, known level) bool {
	if broken&c.isolation == 0 || known > c.level {
		return false
	}
	a.RulesOut = excluded(broken, known)
	for _, m := range a.RulesOut {
		r.excluded[m] = true
	}
	r.Found[a.Kind]++
	if r.Found[a.Kind] > c.config.MaxPerKind {
		return false
	}
	r.Anomalies = append(r.Anomalies, a)
	return true
}

// cycle takes in an anomaly that is a cycle.
func (r *Report) cycle(c *checker, a Anomaly, hops []hop, broken isolation, known level) {
	if !r.add(c, a, broken, known) {
		return
	}
	listed := &r.Anomalies[len(r.Anomalies)-1]
	for _, h := range hops {
		listed.Cycle = append(listed.Cycle, c.explain(h))
	}
}

// finish counts, sorts, and gathers what is involved.
func (r *Report) finish(c *checker) {
	for i := range c.history {
		switch c.history[i].Outcome {
		case Committed:
			r.Committed++
		case Aborted:
			r.Aborted++
		default:
			r.Unknown++
			if c.in[i] {
				r.Observed++
			}
		}
	}
	slices.SortStableFunc(r.Anomalies, func(a, b Anomaly) int { return cmp.Compare(a.Kind.rank(), b.Kind.rank()) })
	for _, m := range Models() {
		if r.excluded[m] {
			r.RuledOut = append(r.RuledOut, m)
		}
	}
	for _, a := range r.Anomalies {
		for _, t := range a.Transactions {
			r.Involved[t] = c.history[t]
		}
	}
}

// OK reports whether nothing contradicts the model.
func (r *Report) OK() bool { return len(r.Anomalies) == 0 }

// Err returns a [ViolationError] with the report, or nil if nothing contradicts the model.
func (r *Report) Err() error {
	if r.OK() {
		return nil
	}
	return &ViolationError{r}
}

// String returns the report in words, of many lines if something was found.
func (r *Report) String() string {
	var b strings.Builder
	verdict := "no contradiction to"
	if !r.OK() {
		verdict = "not"
	}
	fmt.Fprintf(&b, "%s %v: %d transactions committed, %d aborted, %d unknown", verdict, r.Model, r.Committed, r.Aborted, r.Unknown)
	if r.Observed > 0 {
		fmt.Fprintf(&b, " (%d of them observed)", r.Observed)
	}
	b.WriteByte('\n')
	listed := make(map[Kind]int)
	for i := range r.Anomalies {
		a := &r.Anomalies[i]
		listed[a.Kind]++
		fmt.Fprintf(&b, "\n%s: %s\n", a.Kind, a.Kind.words())
		r.describe(&b, a)
	}
	for _, k := range slices.SortedFunc(maps.Keys(r.Found), func(a, b Kind) int { return cmp.Compare(a.rank(), b.rank()) }) {
		if more := r.Found[k] - listed[k]; more > 0 {
			fmt.Fprintf(&b, "\n%s: %d more\n", k, more)
		}
	}
	if len(r.RuledOut) > 0 {
		fmt.Fprintf(&b, "\nruled out: %s\n", models(r.RuledOut))
	}
	return b.String()
}

// describe writes an anomaly in words.
func (r *Report) describe(b *strings.Builder, a *Anomaly) {
	for _, n := range slices.Compact(slices.Sorted(slices.Values(a.Transactions))) {
		t, ok := r.Involved[n]
		if !ok {
			continue
		}
		var words []string
		for i, op := range t.Operations {
			if i == 20 {
				words = append(words, fmt.Sprintf("%d more", len(t.Operations)-i))
				break
			}
			words = append(words, op.String())
		}
		fmt.Fprintf(b, "  T%d%s: %s\n", n, t.circumstances(), strings.Join(words, "; "))
	}
	for _, e := range a.Cycle {
		fmt.Fprintf(b, "  T%d before T%d: %s\n", e.From, e.To, e.Reason)
	}
	if len(a.Cycle) > 0 {
		b.WriteString("  so: ")
		for _, e := range a.Cycle {
			fmt.Fprintf(b, "T%d -%s-> ", e.From, e.Dependency)
		}
		fmt.Fprintf(b, "T%d", a.Cycle[0].From)
		if !a.Shortest {
			b.WriteString(" (there may be a shorter cycle)")
		}
		b.WriteByte('\n')
	}
	for line := range strings.Lines(a.Reason) {
		fmt.Fprintf(b, "  %s\n", strings.TrimSuffix(line, "\n"))
	}
}

// circumstances says when a transaction ran, where, and how it ended, as far as that is
// known and not as usual.
func (t *Transaction) circumstances() string {
	var words []string
	if t.Process != 0 {
		words = append(words, fmt.Sprintf("process %d", t.Process))
	}
	switch {
	case t.Begin != 0 && t.End != 0:
		words = append(words, fmt.Sprintf("%d to %d", t.Begin, t.End))
	case t.Begin != 0:
		words = append(words, fmt.Sprintf("from %d", t.Begin))
	case t.End != 0:
		words = append(words, fmt.Sprintf("to %d", t.End))
	}
	if t.Outcome != Committed {
		words = append(words, t.Outcome.String())
	}
	if len(words) == 0 {
		return ""
	}
	return " (" + strings.Join(words, ", ") + ")"
}

// names returns transactions in words.
func names(txns []int) string {
	var b strings.Builder
	for i, t := range txns {
		switch {
		case i == 0:
		case i == len(txns)-1:
			b.WriteString(" and ")
		default:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "T%d", t)
	}
	return b.String()
}

// models returns models in words.
func models(all []Model) string {
	words := make([]string, len(all))
	for i, m := range all {
		words[i] = m.String()
	}
	return strings.Join(words, ", ")
}

var _ json.Marshaler = Operation{}
