package check

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// History is what the clients of a database asked, and what they were told: plain data,
// to be made by a [Recorder] or by hand. It marshals as JSON; [History.WriteTo] and
// [ReadHistory] keep it as one line a transaction.
//
// Transactions are named by where they stand: T0, T1 and so on.
type History struct {
	// Transactions stand in the order in which they began. For those of one process, this
	// is the order that counts where times are missing; otherwise any order does.
	Transactions []Transaction `json:"transactions"`
}

// Transaction is one attempt to execute a transaction. A client that tries again begins
// another one.
type Transaction struct {
	// Process is the session that it belongs to, a number from 1 on: transactions of one
	// process run one after the other. 0: none, and nothing follows from the session.
	Process int `json:"process,omitempty"`

	// Begin and End are times, in any unit, on one clock for the whole history, from 1
	// on: Begin before the first request was sent, End after the last answer came.
	// 0: not known; then nothing follows from real time. End says something only of what
	// has committed.
	Begin int64 `json:"begin,omitempty"`
	End   int64 `json:"end,omitempty"`

	// Outcome is what the client knows. The zero value is Unknown.
	Outcome Outcome `json:"outcome"`

	// Operations stand in the order in which they were executed. Writes and appends
	// belong here once they may have been sent, reads and scans once they were answered.
	Operations []Operation `json:"operations"`
}

// Outcome is what a client knows of the end of its transaction.
type Outcome int

// Unknown is for transactions that may have committed, or may still do so. Committed
// and Aborted are for what is certain: an aborted transaction never has an effect.
const (
	Unknown Outcome = iota
	Committed
	Aborted
)

// String returns "unknown", "committed" or "aborted".
func (o Outcome) String() string {
	switch o {
	case Unknown:
		return "unknown"
	case Committed:
		return "committed"
	case Aborted:
		return "aborted"
	}
	return "Outcome(" + strconv.Itoa(int(o)) + ")"
}

// MarshalText implements encoding.TextMarshaler. It fails for what is no outcome.
func (o Outcome) MarshalText() ([]byte, error) {
	if o < Unknown || o > Aborted {
		return nil, fmt.Errorf("%w: %v is no outcome", ErrHistory, o)
	}
	return []byte(o.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *Outcome) UnmarshalText(text []byte) error {
	for _, known := range []Outcome{Unknown, Committed, Aborted} {
		if string(text) == known.String() {
			*o = known
			return nil
		}
	}
	return fmt.Errorf("%w: %q is no outcome: unknown, committed or aborted", ErrHistory, text)
}

// OperationKind is what an operation does.
type OperationKind string

const (
	// Append puts Value at the end of the list Key.
	Append OperationKind = "append"
	// Write makes Value the content of the register Key.
	Write OperationKind = "write"
	// Read reads Key. What it saw is Seen: the elements of a list, or the one value of a
	// register; empty if there was nothing.
	Read OperationKind = "read"
	// Scan reads all keys from Key on, up to and without To; "" is the end of all keys.
	// What it saw is Found. A key that is not in it held nothing.
	Scan OperationKind = "scan"
)

// Operation is one step of a transaction. A key is either a list, to which values are
// appended, or a register, into which they are written; at first it holds nothing. The
// values that are appended or written to one key differ, whatever became of their
// transactions: that is what makes a read say whom it saw.
//
// As JSON, an operation is an array:
//
//	["append", "x", 3]
//	["write", "y", 4]
//	["read", "x", [1, 2, 3]]
//	["read", "y", [4]]
//	["scan", "a", "n", {"b": [7]}]
type Operation struct {
	Kind  OperationKind
	Key   string             // of a scan: where it begins
	To    string             // of a scan: where it ends; "": nowhere
	Value int64              // that is appended or written
	Seen  []int64            // by a read
	Found map[string][]int64 // by a scan, by key: as Seen
}

// String returns the operation in words, with long lists cut.
func (o Operation) String() string {
	switch o.Kind {
	case Append, Write:
		return fmt.Sprintf("%s %s %d", o.Kind, word(o.Key), o.Value)
	case Read:
		return fmt.Sprintf("%s %s %s", o.Kind, word(o.Key), list(o.Seen))
	case Scan:
		var b strings.Builder
		fmt.Fprintf(&b, "scan %s {", span(o.Key, o.To))
		for i, key := range slices.Sorted(maps.Keys(o.Found)) {
			if i == 8 {
				fmt.Fprintf(&b, ", and %d more", len(o.Found)-i)
				break
			}
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%s %s", word(key), list(o.Found[key]))
		}
		return b.String() + "}"
	}
	return fmt.Sprintf("%q", string(o.Kind))
}

// word returns a key as it is, if it can be told from what stands around it.
func word(key string) string {
	plain := key != "" && len(key) <= 64
	for _, r := range key {
		plain = plain && r > ' ' && r != 0x7f && r != '"' && strconv.IsPrint(r) && !strings.ContainsRune("[]{},;", r)
	}
	if plain {
		return key
	}
	if len(key) > 64 {
		key = key[:64] + "…"
	}
	return strconv.Quote(key)
}

// span returns the range of a scan.
func span(from, to string) string {
	if to == "" {
		return "from " + word(from)
	}
	return word(from) + " to " + word(to)
}

// list returns the end of what was read: it is what differs from one read to the next.
func list(values []int64) string {
	const most = 8
	var b strings.Builder
	b.WriteByte('[')
	if len(values) > most {
		values = values[len(values)-most:]
		b.WriteString("… ")
	}
	for i, v := range values {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(strconv.FormatInt(v, 10))
	}
	return b.String() + "]"
}

// MarshalJSON implements json.Marshaler. It fails for an operation of no kind, and for
// keys that are not UTF-8, which JSON can't hold.
func (o Operation) MarshalJSON() ([]byte, error) {
	for _, key := range append(sortedKeys(o.Found), o.Key, o.To) {
		if !utf8.ValidString(key) {
			return nil, fmt.Errorf("%w: key %q is not UTF-8: record it as hexadecimal digits, for example", ErrHistory, key)
		}
	}
	values := func(v []int64) []int64 {
		if v == nil {
			return []int64{}
		}
		return v
	}
	switch o.Kind {
	case Append, Write:
		return json.Marshal([]any{o.Kind, o.Key, o.Value})
	case Read:
		return json.Marshal([]any{o.Kind, o.Key, values(o.Seen)})
	case Scan:
		found := make(map[string][]int64, len(o.Found))
		for key, seen := range o.Found {
			found[key] = values(seen)
		}
		return json.Marshal([]any{o.Kind, o.Key, o.To, found})
	}
	return nil, fmt.Errorf("%w: %q is no kind of operation", ErrHistory, o.Kind)
}

// UnmarshalJSON implements json.Unmarshaler.
func (o *Operation) UnmarshalJSON(b []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return fmt.Errorf("%w: an operation is an array: %v", ErrHistory, err)
	}
	if len(parts) == 0 {
		return fmt.Errorf("%w: an operation is an array that begins with its kind", ErrHistory)
	}
	var op Operation
	if err := json.Unmarshal(parts[0], &op.Kind); err != nil {
		return fmt.Errorf("%w: the kind of an operation: %v", ErrHistory, err)
	}
	var fields []any
	switch op.Kind {
	case Append, Write:
		fields = []any{&op.Key, &op.Value}
	case Read:
		fields = []any{&op.Key, &op.Seen}
	case Scan:
		fields = []any{&op.Key, &op.To, &op.Found}
	default:
		return fmt.Errorf("%w: %q is no kind of operation: append, write, read or scan", ErrHistory, op.Kind)
	}
	if len(parts) != 1+len(fields) {
		return fmt.Errorf("%w: %s has %d fields and not %d", ErrHistory, op.Kind, len(fields), len(parts)-1)
	}
	for i, field := range fields {
		if string(parts[i+1]) == "null" {
			return fmt.Errorf("%w: %s, field %d: null says nothing: leave out a read without an answer; one that saw nothing has []", ErrHistory, op.Kind, i+1)
		}
		if err := json.Unmarshal(parts[i+1], field); err != nil {
			return fmt.Errorf("%w: %s, field %d: %v", ErrHistory, op.Kind, i+1, err)
		}
	}
	*o = op
	return nil
}

// WriteTo writes the history as JSON, one line a transaction, and returns how many bytes
// were written. The error is the writer's, or says which transaction can't be encoded.
func (h History) WriteTo(w io.Writer) (int64, error) {
	counted := &counter{w: w}
	buffered := bufio.NewWriter(counted)
	encoder := json.NewEncoder(buffered)
	for i := range h.Transactions {
		if err := encoder.Encode(&h.Transactions[i]); err != nil {
			return counted.n, fmt.Errorf("check: T%d: %w", i, err)
		}
	}
	if err := buffered.Flush(); err != nil {
		return counted.n, fmt.Errorf("check: writing a history: %w", err)
	}
	return counted.n, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// ReadHistory reads what [History.WriteTo] wrote, to the end of r. Several histories one
// after the other are one, so that each client may keep a file of its own, if their
// clocks are one. What is no history gives a [DecodeError]; whether it makes sense is
// for [History.Check] to say.
func ReadHistory(r io.Reader) (History, error) {
	var h History
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	for {
		var t *Transaction
		err := decoder.Decode(&t)
		if errors.Is(err, io.EOF) {
			return h, nil
		}
		if err == nil && t == nil {
			err = errors.New("null is no transaction")
		}
		if err != nil {
			return History{}, &DecodeError{Transaction: len(h.Transactions), Err: err}
		}
		h.Transactions = append(h.Transactions, *t)
	}
}
