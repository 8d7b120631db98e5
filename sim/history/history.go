package history

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/anishathalye/porcupine"
)

// Model describes a machine that executes one call after the other: what the system
// under test pretends to be.
type Model[State comparable, Input any, Output comparable] struct {
	// Key tells the parts apart that do not know of each other. nil: there is one.
	Key func(Input) string
	// Init returns the state in which a part begins. nil: the zero State.
	Init func() State
	// Step executes one call. It has no effects beyond what it returns.
	Step func(State, Input) (State, Output)
}

// History is what clients asked and were told. It belongs to one thread at a time.
type History[State comparable, Input any, Output comparable] struct {
	model Model[State, Input, Output]
	clock int64
	calls []*Call[Output]
	input []Input
}

// New returns an empty history, to be held against a model.
func New[State comparable, Input any, Output comparable](m Model[State, Input, Output]) *History[State, Input, Output] {
	return &History[State, Input, Output]{model: m}
}

// Call is one call of a client.
type Call[Output comparable] struct {
	clock       *int64
	client      int
	begin, end  int64
	output      Output
	has, absent bool
}

// unknown is the end of a call that may take effect at any time.
const unknown = math.MaxInt64

func (h *History[State, Input, Output]) now() int64 {
	h.clock++
	return h.clock
}

// Begin records that a client, numbered from 0 on, calls. A call whose outcome remains
// unknown needs nothing more; its client goes on under another number, since it may
// still be under way.
func (h *History[State, Input, Output]) Begin(client int, input Input) *Call[Output] {
	c := &Call[Output]{clock: &h.clock, client: client, begin: h.now(), end: unknown}
	h.calls = append(h.calls, c)
	h.input = append(h.input, input)
	return c
}

// Return records the answer.
func (c *Call[Output]) Return(output Output) {
	*c.clock++
	c.end, c.output, c.has = *c.clock, output, true
}

// Refused records that the call certainly had no effect, and will have none; also that a
// read had no answer, which says nothing about anybody.
func (c *Call[Output]) Refused() { c.absent = true }

// Len returns how many calls were recorded, and how many of them have no known outcome.
func (h *History[State, Input, Output]) Len() (calls, open int) {
	for _, c := range h.calls {
		if !c.has && !c.absent {
			open++
		}
	}
	return len(h.calls), open
}

// Errors of Check, to be tested with errors.Is.
var (
	// ErrNotLinearizable says that no order explains what clients saw.
	ErrNotLinearizable = errors.New("history: not linearizable")
	// ErrInconclusive says that there was no answer in time.
	ErrInconclusive = errors.New("history: inconclusive: more time, more keys, or fewer unknown outcomes are needed")
)

// Violation is the error of a history that is not linearizable. It wraps
// ErrNotLinearizable.
type Violation struct {
	Key   string // of the part
	Calls int    // of the part

	model porcupine.Model
	info  porcupine.LinearizationInfo
}

// Error implements error.
func (v *Violation) Error() string {
	return fmt.Sprintf("%v: %d calls on key %q", ErrNotLinearizable, v.Calls, v.Key)
}

// Unwrap returns ErrNotLinearizable.
func (v *Violation) Unwrap() error { return ErrNotLinearizable }

// WritePicture writes a page of HTML that shows the calls of all clients over time, and
// how far the longest explanations go.
func (v *Violation) WritePicture(w io.Writer) error { return porcupine.Visualize(v.model, v.info, w) }

// answer is the output of a call in porcupine's history.
type answer[Output comparable] struct {
	output Output
	known  bool
}

// Check looks for an order that explains the history, for at most so long, on the
// clock and not in virtual time. nil says that there is one; the error is a *Violation or wraps
// ErrInconclusive.
func (h *History[State, Input, Output]) Check(limit time.Duration) error {
	var keys []string
	parts := make(map[string][]porcupine.Operation)
	for i, c := range h.calls {
		if c.absent {
			continue
		}
		key := ""
		if h.model.Key != nil {
			key = h.model.Key(h.input[i])
		}
		if parts[key] == nil {
			keys = append(keys, key)
		}
		parts[key] = append(parts[key], porcupine.Operation{ClientId: c.client, Input: h.input[i], Call: c.begin,
			Output: answer[Output]{c.output, c.has}, Return: c.end})
	}
	model := porcupine.Model{
		Init: func() any {
			if h.model.Init == nil {
				var zero State
				return zero
			}
			return h.model.Init()
		},
		Step: func(state, input, output any) (bool, any) {
			next, out := h.model.Step(state.(State), input.(Input))
			told := output.(answer[Output])
			return !told.known || told.output == out, next
		},
		DescribeOperation: func(input, output any) string {
			if told := output.(answer[Output]); told.known {
				return fmt.Sprintf("%v → %v", input, told.output)
			}
			return fmt.Sprintf("%v → ?", input)
		},
	}
	for _, key := range keys {
		part := parts[key]
		result, info := porcupine.CheckOperationsVerbose(model, part, limit)
		switch result {
		case porcupine.Illegal:
			return &Violation{Key: key, Calls: len(part), model: model, info: info}
		case porcupine.Unknown:
			return fmt.Errorf("%w: %d calls on key %q in %v", ErrInconclusive, len(part), key, limit)
		}
	}
	return nil
}

// Access is a call of a register: see [Registers].
type Access struct {
	Key     string
	Value   uint64 // what is written
	Reading bool
}

// Read reads a register.
func Read(key string) Access { return Access{Key: key, Reading: true} }

// Write puts a value into a register. Values that are written only once make the check
// sharper.
func Write(key string, value uint64) Access { return Access{Key: key, Value: value} }

// String says what the call does.
func (a Access) String() string {
	if a.Reading {
		return "read " + a.Key
	}
	return fmt.Sprintf("write %s %d", a.Key, a.Value)
}

// Registers is the model of a map from keys to numbers, all 0 at first: a read returns
// the value, a write the one that was there before.
var Registers = Model[uint64, Access, uint64]{
	Key: func(a Access) string { return a.Key },
	Step: func(value uint64, a Access) (uint64, uint64) {
		if a.Reading {
			return value, value
		}
		return a.Value, value
	},
}
