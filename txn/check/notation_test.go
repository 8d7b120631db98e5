package check

import (
	"fmt"
	"strconv"
	"strings"
)

// parseHistory reads a history as people write it, one transaction a line:
//
//	T0 p1 3-9: append x 1; read x [1]
//	T1 aborted: write y 2
//	T2 unknown p2 4-: scan a to n {b [1 2], c [3]}; scan from a {}
//
// p1 is the process, 3-9 the times; what is not said is committed, of no process and at
// no time.
func parseHistory(text string) (History, error) {
	var h History
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		head, operations, ok := strings.Cut(line, ":")
		words := strings.Fields(head)
		if want := fmt.Sprintf("T%d", len(h.Transactions)); !ok || len(words) == 0 || words[0] != want {
			return h, fmt.Errorf("%q: a line begins with %s, and a colon follows", line, want)
		}
		t := Transaction{Outcome: Committed}
		for _, word := range words[1:] {
			begin, end, times := strings.Cut(word, "-")
			var err error
			switch {
			case word == "aborted":
				t.Outcome = Aborted
			case word == "unknown":
				t.Outcome = Unknown
			case times:
				if t.Begin, err = parseTime(begin); err == nil {
					t.End, err = parseTime(end)
				}
			case word[0] == 'p':
				t.Process, err = strconv.Atoi(word[1:])
			default:
				err = fmt.Errorf("%q: aborted, unknown, a process or times", word)
			}
			if err != nil {
				return h, fmt.Errorf("%q: %w", line, err)
			}
		}
		for text := range strings.SplitSeq(operations, ";") {
			if text = strings.TrimSpace(text); text == "" {
				continue
			}
			op, err := parseOperation(text)
			if err != nil {
				return h, fmt.Errorf("%q: %w", text, err)
			}
			t.Operations = append(t.Operations, op)
		}
		h.Transactions = append(h.Transactions, t)
	}
	return h, nil
}

func parseTime(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	return strconv.ParseInt(text, 10, 64)
}

func parseOperation(text string) (op Operation, err error) {
	kind, rest, _ := strings.Cut(text, " ")
	op.Kind = OperationKind(kind)
	switch op.Kind {
	case Append, Write:
		var value string
		op.Key, value, _ = strings.Cut(rest, " ")
		op.Value, err = strconv.ParseInt(value, 10, 64)
	case Read:
		var values string
		op.Key, values, _ = strings.Cut(rest, " ")
		op.Seen, err = parseValues(values)
	case Scan:
		span, found, ok := strings.Cut(rest, "{")
		found, closed := strings.CutSuffix(found, "}")
		if !ok || !closed {
			return op, fmt.Errorf("no {…}")
		}
		op.Key, op.To, _ = strings.Cut(strings.TrimSpace(strings.TrimPrefix(span, "from ")), " to ")
		op.Found = make(map[string][]int64)
		for entry := range strings.SplitSeq(found, ",") {
			if entry = strings.TrimSpace(entry); entry == "" {
				continue
			}
			key, values, _ := strings.Cut(entry, " ")
			if op.Found[key], err = parseValues(values); err != nil {
				return op, err
			}
		}
	default:
		err = fmt.Errorf("append, write, read or scan")
	}
	return op, err
}

func parseValues(text string) (values []int64, err error) {
	text, ok := strings.CutPrefix(text, "[")
	text, closed := strings.CutSuffix(text, "]")
	if !ok || !closed {
		return nil, fmt.Errorf("no […]")
	}
	for _, word := range strings.Fields(text) {
		v, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

// notation writes a history as parseHistory reads it.
func notation(h History) string {
	var b strings.Builder
	for i, t := range h.Transactions {
		fmt.Fprintf(&b, "T%d", i)
		if t.Outcome != Committed {
			fmt.Fprintf(&b, " %v", t.Outcome)
		}
		if t.Process != 0 {
			fmt.Fprintf(&b, " p%d", t.Process)
		}
		if t.Begin != 0 || t.End != 0 {
			zero := func(n int64) string {
				if n == 0 {
					return ""
				}
				return fmt.Sprint(n)
			}
			fmt.Fprintf(&b, " %s-%s", zero(t.Begin), zero(t.End))
		}
		words := make([]string, len(t.Operations))
		for i, op := range t.Operations {
			words[i] = op.String()
		}
		fmt.Fprintf(&b, ": %s\n", strings.Join(words, "; "))
	}
	return b.String()
}
