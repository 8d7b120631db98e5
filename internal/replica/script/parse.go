package script

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Command is one command of a script.
type Command struct {
	Name string
	Args []Arg
}

// Arg is an argument: a bare word, which has no Values, or a name with some.
type Arg struct {
	Name   string
	Values []string
}

// ParseCommand reads a command from its line.
func ParseCommand(line string) (Command, error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return Command{}, fmt.Errorf("script: a command is missing")
	}
	c := Command{Name: words[0]}
	for i := 1; i < len(words); i++ {
		word := words[i]
		if strings.Contains(word, "=(") {
			for !strings.HasSuffix(word, ")") {
				if i++; i == len(words) {
					return c, fmt.Errorf("script: %q: a parenthesis is not closed", line)
				}
				word += words[i]
			}
		}
		name, value, named := strings.Cut(word, "=")
		a := Arg{Name: name}
		if named {
			a.Values = strings.Split(strings.Trim(value, "()"), ",")
		}
		c.Args = append(c.Args, a)
	}
	return c, nil
}

// malformed is the panic of a command that can't be carried out.
type malformed struct{ error }

func (c *Command) fail(format string, args ...any) {
	panic(malformed{fmt.Errorf("script: %s: %s", c.Name, fmt.Sprintf(format, args...))})
}

// words returns the bare words but for the flags.
func (c *Command) words(flags ...string) []string {
	var list []string
	for _, a := range c.Args {
		if a.Values == nil && !slices.Contains(flags, a.Name) {
			list = append(list, a.Name)
		}
	}
	return list
}

// Has reports whether a bare word stands among the arguments.
func (c *Command) Has(word string) bool {
	return slices.ContainsFunc(c.Args, func(a Arg) bool { return a.Name == word && a.Values == nil })
}

// List returns the values of a named argument.
func (c *Command) List(name string) []string {
	for _, a := range c.Args {
		if a.Name == name {
			return a.Values
		}
	}
	return nil
}

// Numbers returns the values of a named argument as numbers.
func (c *Command) Numbers(name string) []uint64 {
	var list []uint64
	for _, v := range c.List(name) {
		list = append(list, c.parse(v))
	}
	return list
}

// Number returns the value of a named argument as a number, or the default.
func (c *Command) Number(name string, value uint64) uint64 {
	if list := c.Numbers(name); len(list) > 0 {
		return list[0]
	}
	return value
}

func (c *Command) parse(word string) uint64 {
	v, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		c.fail("%v", err)
	}
	return v
}

// bare returns the n-th bare argument as a number.
func (c *Command) bare(n int) uint64 {
	words := c.words()
	if n >= len(words) {
		c.fail("an argument is missing")
	}
	return c.parse(words[n])
}

// Play plays a script and returns it with what is printed now in the place of what is written there. The
// error says which command can't be carried out; what is behind it is left out then.
func Play(r *Runner, text string) (string, error) {
	var out strings.Builder
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if trimmed := strings.TrimSpace(line); trimmed == "" || strings.HasPrefix(trimmed, "#") {
			out.WriteString(line + "\n")
			continue
		}
		printed, err := r.Exec(line)
		if err != nil {
			return out.String(), fmt.Errorf("line %d: %w", i+1, err)
		}
		fmt.Fprintf(&out, "%s\n----\n%s\n", line, printed)
		if i+1 < len(lines) && lines[i+1] == "----" {
			for i++; i+1 < len(lines) && lines[i+1] != ""; i++ {
			}
		}
		if i+1 < len(lines) && lines[i+1] == "" {
			i++
		}
	}
	return strings.TrimRight(out.String(), "\n") + "\n", nil
}
