package network

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Command is a line of a script: bare words, the first of which says what is to be done, and names with values.
type Command struct {
	words []string
	named map[string][]string
}

// ParseCommand reads a command from its line. Values are those behind the sign of equality, in parentheses if there are several.
func ParseCommand(line string) *Command {
	c := &Command{named: map[string][]string{}}
	for word := range strings.FieldsSeq(line) {
		if name, value, ok := strings.Cut(word, "="); ok {
			c.named[name] = strings.Split(strings.Trim(value, "()"), ",")
		} else {
			c.words = append(c.words, word)
		}
	}
	return c
}

// Len returns how many bare words there are.
func (c *Command) Len() int { return len(c.words) }

// Word returns a bare word, of which 0 is the first; "": there is none.
func (c *Command) Word(i int) string {
	if i >= len(c.words) {
		return ""
	}
	return c.words[i]
}

// WordNumber returns a bare word as a number; 0: there is none.
func (c *Command) WordNumber(i int) uint64 { return number(c.Word(i)) }

// Has reports whether a bare word is there.
func (c *Command) Has(word string) bool { return slices.Contains(c.words, word) }

// Values returns the values of a name; nil: it is not there.
func (c *Command) Values(name string) []string { return c.named[name] }

// Numbers returns the values of a name as numbers; 0 stands for what is none.
func (c *Command) Numbers(name string) (list []uint64) {
	for _, v := range c.named[name] {
		list = append(list, number(v))
	}
	return list
}

// Number returns the first value of a name as a number; 0: there is none.
func (c *Command) Number(name string) uint64 {
	for _, n := range c.Numbers(name) {
		return n
	}
	return 0
}

// Int is Number for what is counted: what is beyond 32 bits is taken for the largest that is not.
func (c *Command) Int(name string) int { return int(min(c.Number(name), math.MaxInt32)) }

func number(word string) uint64 {
	n, _ := strconv.ParseUint(word, 10, 64)
	return n
}

// List shows numbers as the values of a name, for ParseCommand to read: without the parentheses.
func List[N uint32 | uint64](numbers []N) string {
	var words []string
	for _, n := range numbers {
		words = append(words, strconv.FormatUint(uint64(n), 10))
	}
	return strings.Join(words, ",")
}

// Describe says what a message is: its first word is its type. It is that of a Model.
type Describe = func(from, to int, body []byte) string

// Show tells of a message as scripts do, which number nodes from 1 on.
func (w *Waiting) Show(describe Describe) string {
	return fmt.Sprintf("%d to %d: %s", w.From+1, w.To+1, describe(w.From, w.To, w.Body))
}

// Stage is what a script is played on, beside the nodes: what is on its way between them, and who observes them.
type Stage struct {
	Describe Describe
	Observer Observer
	Waiting  []Waiting // in the order in which it was sent
}

// Carry carries out what can be asked of messages on their way:
//
//	deliver [from=N] [to=N] [type=WORD] [nth=K]
//	duplicate [from=N] [to=N] [type=WORD] [nth=K]
//	drop [from=N] [to=N] [type=WORD]               all such messages
//
// deliver brings one to its receiver. known is false if the command is another one; err says that it can't be carried out.
func (s *Stage) Carry(c *Command, deliver func(w Waiting) (violation error)) (known bool, violation, err error) {
	switch c.Word(0) {
	case "drop":
		s.Waiting = slices.DeleteFunc(s.Waiting, func(w Waiting) bool { return s.fits(&w, c) })
		return true, nil, nil
	case "deliver", "duplicate":
		i := s.pick(c)
		if i < 0 {
			return true, nil, errors.New("no such message is on its way")
		}
		w := s.Waiting[i]
		if c.Word(0) == "duplicate" {
			s.Waiting = append(s.Waiting, w)
			return true, nil, nil
		}
		s.Waiting = slices.Delete(s.Waiting, i, i+1)
		return true, deliver(w), nil
	}
	return false, nil, nil
}

// pick returns the place of the message that a command names; -1: there is none.
func (s *Stage) pick(c *Command) int {
	nth := max(c.Number("nth"), 1)
	for i := range s.Waiting {
		if s.fits(&s.Waiting[i], c) {
			if nth--; nth == 0 {
				return i
			}
		}
	}
	return -1
}

// fits reports whether a message is one of those that a command names.
func (s *Stage) fits(w *Waiting, c *Command) bool {
	kind, _, _ := strings.Cut(s.Describe(w.From, w.To, w.Body), " ")
	is := func(name, value string) bool { return c.named[name] == nil || slices.Contains(c.named[name], value) }
	return is("from", strconv.Itoa(w.From+1)) && is("to", strconv.Itoa(w.To+1)) && is("type", kind)
}

// PrintSent prints what a node sends.
func PrintSent(text *strings.Builder, describe Describe, from int, sent []Message) {
	for _, m := range sent {
		fmt.Fprintf(text, "send %s\n", (&Waiting{from, m.To, m.Body}).Show(describe))
	}
}

// Take takes over what a node has done: its messages are on their way, and the observer is told what it is to know. What is violated
// is printed.
func (s *Stage) Take(from int, out *Output, text *strings.Builder) (violation error) {
	for _, m := range out.Messages {
		s.Waiting = append(s.Waiting, Waiting{from, m.To, m.Body})
	}
	violation = out.Violation
	for _, fact := range out.Facts {
		if violation == nil {
			violation = s.Observer.Observe(fact)
		}
	}
	if violation != nil {
		printViolation(text, violation)
	}
	return violation
}

// printViolation prints the first line of what is violated: a panic's others are about where it was.
func printViolation(text *strings.Builder, violation error) {
	first, _, _ := strings.Cut(violation.Error(), "\n")
	fmt.Fprintf(text, "VIOLATION: %s\n", first)
}

// Exec plays a command of a system's script: do carries it out, and prints what happens. violation says what is violated; err, that it
// can't be carried out, and which one.
func Exec(system, line string, do func(c *Command, text *strings.Builder) (violation, err error)) (printed string, violation, err error) {
	c := ParseCommand(line)
	if c.Len() == 0 {
		return "", nil, fmt.Errorf("%s: %q: a command is missing", system, line)
	}
	var text strings.Builder
	if violation, err = do(c, &text); err != nil {
		err = fmt.Errorf("%s: %q: %w", system, line, err)
	}
	return text.String(), violation, err
}

// Play plays a script up to what is violated, and returns it with what exec prints for each command. err of exec says that a command
// can't be carried out, and is returned. After the last command end, if it is not nil, looks whether everything ends once nothing
// fails any more, and prints what happens on the way there.
func Play(lines []string, exec func(line string) (printed string, violation, err error), end func(text *strings.Builder) (violation error)) (string, error) {
	var text strings.Builder
	for i, line := range lines {
		if strings.HasPrefix(line, "#") {
			fmt.Fprintf(&text, "%s\n", line)
			continue
		}
		printed, violation, err := exec(line)
		if err != nil {
			return text.String(), err
		}
		fmt.Fprintf(&text, "%s\n----\n%s", line, printed)
		if violation == nil && i == len(lines)-1 && end != nil {
			var how strings.Builder
			if violation = end(&how); violation != nil {
				fmt.Fprintf(&text, "From here on nothing fails:\n%s", &how)
				printViolation(&text, violation)
			}
		}
		text.WriteString("\n")
		if violation != nil {
			break
		}
	}
	return strings.TrimRight(text.String(), "\n") + "\n", nil
}
