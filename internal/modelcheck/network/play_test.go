package network

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCommands(t *testing.T) {
	c := ParseCommand("  move 3 x fast by=(1,2,x) to=18446744073709551615 none=()")
	require.Equal(t, 4, c.Len())
	require.Equal(t, "move", c.Word(0))
	require.Equal(t, uint64(3), c.WordNumber(1))
	require.Zero(t, c.WordNumber(2))
	require.Empty(t, c.Word(4))
	require.Zero(t, c.WordNumber(4))
	require.True(t, c.Has("fast"))
	require.False(t, c.Has("by"))
	require.Equal(t, []string{"1", "2", "x"}, c.Values("by"))
	require.Equal(t, []uint64{1, 2, 0}, c.Numbers("by"))
	require.Equal(t, uint64(1), c.Number("by"))
	require.Equal(t, 1<<31-1, c.Int("to"))
	require.Equal(t, []uint64{0}, c.Numbers("none"))
	require.Nil(t, c.Values("fast"))
	require.Nil(t, c.Numbers("fast"))
	require.Zero(t, c.Number("fast"))

	require.Equal(t, []uint64{7, 1<<64 - 1}, ParseCommand("by=("+List([]uint64{7, 1<<64 - 1})+")").Numbers("by"))
	require.Equal(t, "3", List([]uint32{3}))
	require.Empty(t, List[uint64](nil))

	require.Zero(t, ParseCommand(" ").Len())
	require.Empty(t, ParseCommand("").Word(0))
}

// stage is one with messages of some kinds on their way, and an observer that does not like the word "bad".
func stage() *Stage {
	return &Stage{Describe: toyModel{}.Describe, Observer: &words{dislike: "bad"},
		Waiting: []Waiting{{0, 1, []byte("ping a")}, {0, 2, []byte("ping b")}, {1, 0, []byte("pong c")}, {0, 1, []byte("ping d")}}}
}

// What is delivered, repeated and dropped is what a command names.
func TestWhatIsOnItsWay(t *testing.T) {
	for _, c := range []struct {
		line string
		left string // of the messages, their last letters
		got  string
		err  string
	}{
		{line: "deliver", left: "bcd", got: "1 to 2: ping a"},
		{line: "deliver nth=4", left: "abc", got: "1 to 2: ping d"},
		{line: "deliver from=1 to=2 type=ping nth=2", left: "abc", got: "1 to 2: ping d"},
		{line: "deliver from=2", left: "abd", got: "2 to 1: pong c"},
		{line: "deliver type=pong", left: "abd", got: "2 to 1: pong c"},
		{line: "deliver to=3", left: "acd", got: "1 to 3: ping b"},
		{line: "deliver from=1 to=3 nth=2", left: "abcd", err: "no such message is on its way"},
		{line: "deliver from=()", left: "abcd", err: "no such message is on its way"},
		{line: "duplicate type=pong", left: "abcdc"},
		{line: "duplicate type=pon", left: "abcd", err: "no such message is on its way"},
		{line: "drop to=(2,3)", left: "c"},
		{line: "drop from=1 to=2", left: "bc"},
		{line: "drop", left: ""},
		{line: "drop to=5", left: "abcd"},
	} {
		s := stage()
		var got string
		known, violation, err := s.Carry(ParseCommand(c.line), func(w Waiting) error {
			got = w.Show(s.Describe)
			return errors.New("violated")
		})
		require.True(t, known, c.line)
		require.Equal(t, c.got, got, c.line)
		if c.got != "" {
			require.EqualError(t, violation, "violated", c.line)
		} else {
			require.NoError(t, violation, c.line)
		}
		if c.err != "" {
			require.EqualError(t, err, c.err, c.line)
		} else {
			require.NoError(t, err, c.line)
		}
		var left string
		for _, w := range s.Waiting {
			left += string(w.Body[len(w.Body)-1])
		}
		require.Equal(t, c.left, left, c.line)
	}
	known, _, err := stage().Carry(ParseCommand("crash 1"), nil)
	require.False(t, known)
	require.NoError(t, err)
}

// What a node has done is taken over up to what is violated.
func TestWhatANodeHasDone(t *testing.T) {
	var text strings.Builder
	s := stage()
	s.Waiting = nil
	out := Output{Messages: []Message{{2, []byte("ping x")}}, Facts: []any{"good"}}
	require.NoError(t, s.Take(0, &out, &text))
	require.Empty(t, text.String())
	require.Equal(t, []Waiting{{0, 2, []byte("ping x")}}, s.Waiting)
	PrintSent(&text, s.Describe, 0, out.Messages)
	require.Equal(t, "send 1 to 3: ping x\n", text.String())

	text.Reset()
	out = Output{Facts: []any{"good", "bad"}}
	require.ErrorIs(t, s.Take(0, &out, &text), errDisliked)
	require.Equal(t, 1, strings.Count(text.String(), "VIOLATION: "))

	text.Reset()
	out = Output{Facts: []any{"bad"}, Violation: errors.New("panic\nand where it was")}
	require.Equal(t, out.Violation, s.Take(0, &out, &text))
	require.Equal(t, "VIOLATION: panic\n", text.String())
}

// A script is played up to what is violated, or up to its end, and that is looked at, too.
func TestPlay(t *testing.T) {
	violated := errors.New("wrong\nin detail")
	exec := func(line string) (string, error, error) {
		switch line {
		case "wrong":
			return "VIOLATION: wrong\n", violated, nil
		case "none":
			return "", nil, errors.New("unknown")
		case "quiet":
			return "", nil, nil
		}
		return fmt.Sprintf("did %s\n", line), nil, nil
	}
	sound := func(text *strings.Builder) error { text.WriteString("tick\n"); return nil }
	stuck := func(text *strings.Builder) error { text.WriteString("tick\n"); return violated }
	played, err := Play([]string{"# why", "a", "quiet", "b"}, exec, nil)
	require.NoError(t, err)
	require.Equal(t, "# why\na\n----\ndid a\n\nquiet\n----\n\nb\n----\ndid b\n", played)
	same, err := Play([]string{"# why", "a", "quiet", "b"}, exec, sound)
	require.NoError(t, err)
	require.Equal(t, played, same)
	played, err = Play([]string{"a", "wrong", "b"}, exec, stuck)
	require.NoError(t, err)
	require.Equal(t, "a\n----\ndid a\n\nwrong\n----\nVIOLATION: wrong\n", played)
	played, err = Play([]string{"a"}, exec, stuck)
	require.NoError(t, err)
	require.Equal(t, "a\n----\ndid a\nFrom here on nothing fails:\ntick\nVIOLATION: wrong\n", played)
	played, err = Play([]string{"a", "none", "b"}, exec, stuck)
	require.EqualError(t, err, "unknown")
	require.Equal(t, "a\n----\ndid a\n\n", played)
	require.Equal(t, []string{"a"}, Lines(played))
}

// A command that can't be carried out is named, with the reason.
func TestExec(t *testing.T) {
	violated, refused := errors.New("violated"), errors.New("no such node")
	do := func(c *Command, text *strings.Builder) (error, error) {
		switch c.Word(0) {
		case "crash":
			return nil, refused
		case "split":
			text.WriteString("VIOLATION: violated\n")
			return violated, nil
		}
		fmt.Fprintf(text, "did %s\n", c.Word(0))
		return nil, nil
	}
	printed, violation, err := Exec("toy", "tick 1", do)
	require.Equal(t, "did tick\n", printed)
	require.NoError(t, violation)
	require.NoError(t, err)
	printed, violation, err = Exec("toy", "split", do)
	require.Equal(t, "VIOLATION: violated\n", printed)
	require.Equal(t, violated, violation)
	require.NoError(t, err)
	_, violation, err = Exec("toy", "crash 9", do)
	require.NoError(t, violation)
	require.ErrorIs(t, err, refused)
	require.EqualError(t, err, `toy: "crash 9": no such node`)
	_, _, err = Exec("toy", " by=1", do)
	require.EqualError(t, err, `toy: " by=1": a command is missing`)
}
