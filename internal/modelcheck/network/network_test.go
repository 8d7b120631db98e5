package network

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/modelcheck/explore"
)

// toy is a node that keeps a word, and does what its functions say.
type toy struct {
	word    string
	inputs  func(word string) []Input
	take    func(t *toy, in Input, used int, out *Output)
	deliver func(t *toy, from int, body string, late bool, out *Output)
	deaf    func(word, body string) Deafness
	running func(word string) string // what of the word matters if it never restarts; nil: all
}

func (t *toy) Clone() Node                   { c := *t; return &c }
func (t *toy) Fingerprint(dst []byte) []byte { return append(dst, t.word...) }

func (t *toy) FingerprintRunning(dst []byte) []byte {
	if t.running == nil {
		return t.Fingerprint(dst)
	}
	return append(dst, t.running(t.word)...)
}

func (t *toy) Inputs() []Input {
	if t.inputs == nil {
		return nil
	}
	return t.inputs(t.word)
}

func (t *toy) Take(in Input, used int, out *Output) { t.take(t, in, used, out) }

func (t *toy) Deliver(from int, body []byte, late bool, out *Output) {
	if t.deliver != nil {
		t.deliver(t, from, string(body), late, out)
	}
}

func (t *toy) Deaf(_ int, body []byte) Deafness {
	if t.deaf == nil {
		return Hears
	}
	return t.deaf(t.word, string(body))
}

// words remembers which words it was told, and does not like one of them.
type words struct {
	told    []string
	dislike string
}

var errDisliked = errors.New("disliked")

func (w *words) Clone() Observer { return &words{slices.Clone(w.told), w.dislike} }
func (w *words) Fingerprint(dst []byte) []byte {
	return append(dst, strings.Join(w.told, " ")...)
}
func (w *words) Observe(fact any) error {
	word := fact.(string)
	if word == w.dislike && word != "" {
		return fmt.Errorf("%w: %s", errDisliked, word)
	}
	if i, found := slices.BinarySearch(w.told, word); !found {
		w.told = slices.Insert(w.told, i, word)
	}
	return nil
}

// once is an input that happens while a node has no word.
func once(word string) []Input {
	if word == "" {
		return []Input{{}}
	}
	return nil
}

// speaker says some messages to node 1, at once.
func speaker(bodies ...string) *toy {
	return &toy{inputs: once, take: func(t *toy, _ Input, _ int, out *Output) {
		t.word = "said"
		for _, b := range bodies {
			out.Messages = append(out.Messages, Message{1, []byte(b)})
		}
	}}
}

// listener writes down what it hears, up to a length, and tells of it.
func listener(length int) *toy {
	return &toy{deliver: func(t *toy, _ int, body string, _ bool, out *Output) {
		if len(t.word) < length {
			t.word += body
			out.Facts = append(out.Facts, t.word)
		}
	}}
}

// reached explores a system, and returns all states and all that its observers were told.
func reached(t *testing.T, c Config) (explore.Result, *Network) {
	t.Helper()
	n, err := New(c)
	require.NoError(t, err)
	r, err := explore.Run(n, explore.Options{})
	require.NoError(t, err)
	return r, n
}

func told(n *Network) (list []string) {
	for i := range n.observer.len() {
		for _, word := range n.observer.at(uint32(i)).observer.(*words).told {
			if !slices.Contains(list, word) {
				list = append(list, word)
			}
		}
	}
	slices.Sort(list)
	return list
}

// Messages are lost, repeated, late and out of order.
func TestMessages(t *testing.T) {
	r, n := reached(t, Config{Nodes: []Node{speaker("a", "b"), listener(3)}, Observer: &words{}, Late: -1})
	require.True(t, r.Complete)
	require.Equal(t, []string{"a", "aa", "aaa", "aab", "ab", "aba", "abb", "b", "ba", "baa", "bab", "bb", "bba", "bbb"}, told(n))
	require.EqualValues(t, 1+1+14, r.States)
	require.Equal(t, []uint64{1, 1, 2, 4, 8}, r.Levels)
	locals, messages, observers := n.Sizes()
	require.Equal(t, 2+1+14, locals)
	require.Equal(t, 2, messages)
	require.Equal(t, 1+14, observers)
}

// In which order messages were sent is no part of a state.
func TestOrderIsNoPartOfAState(t *testing.T) {
	letters := &toy{
		inputs: func(word string) (list []Input) {
			for i, letter := range "abc" {
				if !strings.ContainsRune(word, letter) {
					list = append(list, Input{Kind: i})
				}
			}
			return list
		},
		take: func(t *toy, in Input, _ int, out *Output) {
			b := append([]byte(t.word), "abc"[in.Kind])
			slices.Sort(b)
			t.word = string(b)
			out.Messages = []Message{{1, []byte{"abc"[in.Kind]}}}
		},
	}
	r, _ := reached(t, Config{Nodes: []Node{letters, &toy{}}, Observer: &words{}, Late: -1})
	require.EqualValues(t, 8, r.States)
}

func TestViolations(t *testing.T) {
	// What the observer says.
	r, n := reached(t, Config{Nodes: []Node{speaker("a", "b"), listener(3)}, Observer: &words{dislike: "bab"}, Late: -1})
	require.ErrorIs(t, r.Violation, errDisliked)
	require.Len(t, r.Path, 4) // both are sent, and three are delivered
	_, err := explore.Replay(n, r.Path)
	require.ErrorIs(t, err, errDisliked)

	// What the node says; a panic.
	for _, deliver := range []func(*toy, int, string, bool, *Output){
		func(_ *toy, _ int, _ string, _ bool, out *Output) { out.Violation = errDisliked },
		func(*toy, int, string, bool, *Output) { panic(errDisliked) },
	} {
		r, _ = reached(t, Config{Nodes: []Node{speaker("a"), &toy{deliver: deliver}}, Observer: &words{}, Late: -1})
		require.ErrorContains(t, r.Violation, "disliked")
		require.Len(t, r.Path, 2)
	}
}

// Nothing happens more often than its budget says; and of two states that are the same but for what is left, the one with
// more is explored.
func TestBudgets(t *testing.T) {
	grow := func(numbered bool) *toy {
		return &toy{
			inputs: func(string) []Input { return []Input{{Costs: []int{0}, Numbered: numbered}, {Kind: 1}} },
			take: func(t *toy, in Input, used int, out *Output) {
				switch {
				case in.Kind == 1:
					t.word = ""
				case len(t.word) == 3:
					out.Beyond = errors.New("long")
				case numbered:
					t.word += fmt.Sprint(used)
				default:
					t.word += "x"
				}
				out.Facts = append(out.Facts, t.word)
			},
		}
	}
	r, n := reached(t, Config{Nodes: []Node{grow(true)}, Observer: &words{}, Budgets: []Budget{{Name: "letters", Limit: 4}}, Late: -1})
	require.True(t, r.Complete, "%v", r.Violation)
	require.Equal(t, []string{"", "0", "01", "012", "1", "12", "123", "2", "23", "3"}, told(n))
	require.Positive(t, r.Beyond)
	require.Zero(t, r.Within)

	r, n = reached(t, Config{Nodes: []Node{grow(false)}, Observer: &words{}, Budgets: []Budget{{Name: "letters", Limit: 4, Free: true}}, Late: -1})
	require.True(t, r.Complete)
	require.Equal(t, []string{"", "x", "xx", "xxx"}, told(n))
	require.Positive(t, r.Within)

	_, err := New(Config{Nodes: []Node{grow(false)}, Observer: &words{}, Budgets: []Budget{{Name: "letters", Limit: 256}}})
	require.ErrorContains(t, err, `"letters"`)
	_, err = New(Config{Observer: &words{}})
	require.ErrorContains(t, err, "at least one node")
}

// A late delivery is another step, of a budget of its own.
func TestLate(t *testing.T) {
	hears := &toy{deliver: func(t *toy, _ int, _ string, late bool, out *Output) {
		if t.word += "n"; late {
			t.word = t.word[:len(t.word)-1] + "l"
		}
		if len(t.word) > 2 {
			out.Beyond = errors.New("long")
		}
		out.Facts = append(out.Facts, t.word)
	}}
	r, n := reached(t, Config{Nodes: []Node{speaker("a"), hears}, Observer: &words{}, Budgets: []Budget{{Name: "late", Limit: 1, Free: true}}})
	require.True(t, r.Complete)
	require.Equal(t, []string{"l", "ln", "n", "nl", "nn"}, told(n))
}

// A node that only answers does so at once; the script tells of the answer where it is needed.
func TestEchoes(t *testing.T) {
	asks := &toy{
		inputs: once,
		take: func(t *toy, _ Input, _ int, out *Output) {
			t.word = "asked"
			out.Messages = []Message{{1, []byte("question")}}
		},
		deliver: func(t *toy, _ int, body string, _ bool, out *Output) {
			t.word = body
			out.Facts = append(out.Facts, body)
		},
	}
	answers := &toy{deliver: func(_ *toy, from int, body string, _ bool, out *Output) {
		out.Messages = []Message{{from, []byte("answer to " + body)}}
	}}
	r, n := reached(t, Config{Nodes: []Node{asks, answers}, Observer: &words{dislike: "answer to question"}, Late: -1})
	require.ErrorIs(t, r.Violation, errDisliked)
	require.Len(t, r.Path, 2)
	script, err := n.Script(toyModel{}, r.Path)
	require.NoError(t, err)
	require.Equal(t, []string{"begin", "deliver from=1 to=2 type=question", "deliver from=2 to=1 type=answer"}, script)
}

// toyModel is what a script needs of a model.
type toyModel struct{ Model }

func (toyModel) Begin() []string                       { return []string{"begin"} }
func (toyModel) Describe(_, _ int, body []byte) string { return string(body) }

// A script repeats a message that is delivered twice, and tells apart those of the same type.
func TestScript(t *testing.T) {
	r, n := reached(t, Config{Nodes: []Node{speaker("a 1", "a 2", "b"), listener(9)}, Observer: &words{dislike: "a 2ba 2"}, Late: -1})
	require.ErrorIs(t, r.Violation, errDisliked)
	script, err := n.Script(toyModel{}, r.Path)
	require.NoError(t, err)
	require.Equal(t, []string{
		"begin",
		"duplicate from=1 to=2 type=a nth=2",
		"deliver from=1 to=2 type=a nth=2",
		"deliver from=1 to=2 type=b",
		"deliver from=1 to=2 type=a nth=2",
	}, script)

	require.Equal(t, []string{"# why", "begin", "next"}, Lines("# why\nbegin\n----\nprinted\nmore\n\nnext\n----\n\n"))
}

// What a node is deaf for is no part of a state, and if it lies it is found out.
func TestDeafness(t *testing.T) {
	// Node 1 takes no message but the first. Which others it was sent does not matter then.
	chatter := func() *toy {
		return &toy{
			inputs: func(word string) (list []Input) {
				for i := range 3 {
					if !strings.ContainsRune(word, rune('0'+i)) {
						list = append(list, Input{Kind: i})
					}
				}
				return list
			},
			take: func(t *toy, in Input, _ int, out *Output) {
				t.word = "0" // it forgets what it has said
				if in.Kind == 0 {
					t.word = ""
				}
				out.Messages = []Message{{1, []byte{byte('0' + in.Kind)}}}
			},
		}
	}
	first := func(deaf Deafness) *toy {
		return &toy{
			deliver: func(t *toy, _ int, body string, _ bool, _ *Output) {
				if t.word == "" {
					t.word = "one"
				}
			},
			deaf: func(string, string) Deafness { return deaf },
		}
	}
	all, _ := reached(t, Config{Nodes: []Node{chatter(), first(Hears)}, Observer: &words{}, Late: -1})
	some, _ := reached(t, Config{Nodes: []Node{chatter(), first(DeafForever)}, Observer: &words{}, Late: -1})
	require.True(t, all.Complete)
	require.True(t, some.Complete)
	require.Less(t, some.States, all.States)

	// It says that it will never hear anything any more, and it does once it is tired of that.
	liar := first(DeafForever)
	liar.inputs = func(word string) []Input {
		if word == "one" {
			return []Input{{}}
		}
		return nil
	}
	liar.take = func(t *toy, _ Input, _ int, _ *Output) { t.word = "" }
	r, n := reached(t, Config{Nodes: []Node{speaker("a"), liar}, Observer: &words{}, Late: -1, Describe: func(_, _ int, body []byte) string { return "message " + string(body) }})
	require.ErrorIs(t, r.Violation, ErrDeaf)
	require.ErrorContains(t, r.Violation, "node 1, from node 0: message a")
	_, err := explore.Replay(n, r.Path)
	require.ErrorIs(t, err, ErrDeaf)

	// With a restart that is no lie.
	honest := *liar
	honest.deaf = func(string, string) Deafness { return DeafUntilRestart }
	honest.inputs = func(word string) []Input {
		if word == "one" {
			return []Input{{Costs: []int{0}}}
		}
		return nil
	}
	r, _ = reached(t, Config{Nodes: []Node{speaker("a"), &honest}, Observer: &words{}, Late: -1, Budgets: []Budget{{Name: "restarts", Limit: 2, Free: true}}, Restarts: []int{0}})
	require.NoError(t, r.Violation)
	require.True(t, r.Complete)
}

// What only matters after a restart is no part of a state once a node does not restart any more, or if it never does.
func TestRunning(t *testing.T) {
	// A letter that is durable, and one that is not.
	node := func() *toy {
		return &toy{
			word: "..",
			inputs: func(string) []Input {
				return []Input{{Kind: 'a'}, {Kind: 'b'}, {Kind: '.', Costs: []int{0}}}
			},
			take: func(t *toy, in Input, _ int, _ *Output) {
				switch {
				case in.Kind == '.':
					t.word = t.word[:1] + "."
				case t.word[0] == '.':
					t.word = string([]byte{byte(in.Kind), byte(in.Kind)})
				default:
					t.word = t.word[:1] + string(rune(in.Kind))
				}
			},
			running: func(word string) string { return word[1:] },
		}
	}
	budget := []Budget{{Name: "restarts", Limit: 1, Free: true}}
	with, _ := reached(t, Config{Nodes: []Node{node()}, Observer: &words{}, Late: -1, Budgets: budget, Restarts: []int{0}})
	never, _ := reached(t, Config{Nodes: []Node{node()}, Observer: &words{}, Late: -1, Budgets: budget, Restarts: []int{0}, Restarting: func(int) bool { return false }})
	require.True(t, with.Complete)
	require.True(t, never.Complete)
	require.Less(t, never.States, with.States)
}

// A node that is not a function of what it is and is given is none.
func TestNodesThatAreNone(t *testing.T) {
	calls := 0
	_, err := New(Config{Nodes: []Node{&toy{}}, Late: -1})
	require.Error(t, err) // no observer
	r, _ := reached(t, Config{Nodes: []Node{speaker("a"), &toy{deliver: func(t *toy, _ int, _ string, _ bool, _ *Output) {
		calls++
		t.word = fmt.Sprint(calls)
	}}}, Observer: &words{}, Late: -1})
	require.ErrorIs(t, r.Violation, explore.ErrNondeterministic)

	// One that shares what it is with its copies.
	shared := &sharing{word: []byte("....")}
	r, _ = reached(t, Config{Nodes: []Node{speaker("a"), shared}, Observer: &words{}, Late: -1})
	require.ErrorIs(t, r.Violation, explore.ErrNondeterministic)
}

type sharing struct{ word []byte }

func (s *sharing) Clone() Node                   { c := *s; return &c }
func (s *sharing) Fingerprint(dst []byte) []byte { return append(dst, s.word...) }
func (s *sharing) Inputs() []Input               { return nil }
func (s *sharing) Take(Input, int, *Output)      {}
func (s *sharing) Deliver(_ int, body []byte, _ bool, _ *Output) {
	copy(s.word, bytes.ToUpper(body))
}

// A state as a whole is looked at once, wherever it comes from, and what is wrong with it ends the exploration.
func TestCheck(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	look := func(bad string) Config {
		clear(seen)
		return Config{Nodes: []Node{speaker("a", "b"), listener(9)}, Observer: &words{}, Late: -1, Check: func(nodes []Node, _ Observer) error {
			mu.Lock()
			defer mu.Unlock()
			word := nodes[1].(*toy).word
			seen[word]++
			if word == bad {
				return errors.New("a bad word")
			}
			return nil
		}}
	}
	c := look("none")
	r, n := reached(t, c)
	require.True(t, r.Complete)
	require.NoError(t, r.Violation)
	require.Greater(t, len(seen), 5)
	require.Equal(t, len(seen), n.Checked())
	all := n.Checked()

	r, n = reached(t, look("ab"))
	require.ErrorContains(t, r.Violation, "a bad word")
	_, err := explore.Replay(n, r.Path)
	require.ErrorContains(t, err, "a bad word")

	c = look("none")
	c.Sample = 3
	_, n = reached(t, c)
	require.Less(t, n.Checked(), all)
}
