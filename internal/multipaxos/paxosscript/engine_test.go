package paxosscript_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/multipaxos/paxosscript"
	"github.com/synod-go/synod/internal/replica/script"
)

func play(t *testing.T, r *script.Runner, lines ...string) string {
	var printed strings.Builder
	for _, line := range lines {
		out, err := r.Exec(line)
		require.NoError(t, err, line)
		printed.WriteString(out)
	}
	return printed.String()
}

func TestPlay(t *testing.T) {
	text, err := script.Play(script.New(paxosscript.Engine()), `# A group of one.
bootstrap voters=1

campaign 1
----
it writes something else here

# Comments stay.
settle 1
propose 1 a
settle 1`)
	require.NoError(t, err)
	require.Equal(t, `# A group of one.
bootstrap voters=1
----

campaign 1
----
preparing, promised 2.1
write state promised=2.1 decided=1 last=1 runs=0
token 1

# Comments stay.
settle 1
----
node 1: leading promised=2.1 decided=2 voters=1 after=1 [2:fence@2.1]

propose 1 a
----
write run 3:"a"@2.1
write state promised=2.1 decided=2 last=3 runs=2
token 3

settle 1
----
node 1: leading promised=2.1 decided=3 voters=1 after=1 [2:fence@2.1 3:"a"@2.1]
`, text)
	again, err := script.Play(script.New(paxosscript.Engine()), text)
	require.NoError(t, err)
	require.Equal(t, text, again)
}

func TestMalformed(t *testing.T) {
	for _, line := range []string{"", "fly", "campaign", "campaign x", "campaign 9", "compact 1 7", "compact 1", "damage 1 slot=9", "join 1", "start 1", "tick 4",
		"reconfigure 1 voters=(1,", "settle 9", "snapshot 9", "log 1", "read 1"} {
		r := script.New(paxosscript.Engine())
		play(t, r, "bootstrap voters=3")
		_, err := r.Exec(line)
		require.ErrorContains(t, err, "script: ", line)
	}
	_, err := script.New(paxosscript.Engine()).Exec("campaign 1")
	require.ErrorContains(t, err, "it begins with bootstrap")
	_, err = script.Play(script.New(paxosscript.Engine()), "bootstrap\n\nfly\n")
	require.ErrorContains(t, err, "line 3")
}

func TestFilters(t *testing.T) {
	r := script.New(paxosscript.Engine())
	play(t, r, "bootstrap voters=3", "campaign 1", "settle 1 2 3", "propose 1 a", "propose 1 b")
	count := func(line string) int {
		out := play(t, r, line)
		if strings.HasPrefix(out, "nothing") {
			return 0
		}
		return strings.Count(out, " to ")
	}
	require.Equal(t, 4, count("net"))
	require.Equal(t, 0, count("drop type=prepare"))
	require.Equal(t, 0, count("drop slot=5"))
	require.Equal(t, 0, count("drop nth=5"))
	require.Equal(t, 0, count("drop ballot=3.1"))
	play(t, r, "duplicate type=accept to=2 slot=4")
	require.Equal(t, 5, count("net"))
	require.Equal(t, 1, count("drop slot=4 to=2 nth=2"))
	require.Equal(t, 2, count("drop slot=4"))
	require.Equal(t, 1, count("drop ballot=2.1 accept n=1"))
	require.Equal(t, 1, count("drop"))
}

// TestSelector wants a filter for each message on its way that picks that one.
func TestSelector(t *testing.T) {
	r := script.New(paxosscript.Engine())
	play(t, r, "bootstrap voters=3", "campaign 1", "settle 1 2 3", "propose 1 a", "propose 1 b", "tick 1", "duplicate to=2")
	for len(r.Messages()) > 0 {
		before := r.Messages()
		at := len(before) / 2
		m := before[at]
		out := play(t, r, "drop "+r.Selector(at))
		require.Contains(t, out, fmt.Sprintf("%d to %d: %s", m.From, m.To, r.Kind(m)))
		after := r.Messages()
		require.Len(t, after, len(before)-1)
		require.True(t, slices.EqualFunc(slices.Delete(before, at, at+1), after, func(a, b script.Message) bool {
			return a.From == b.From && a.To == b.To && bytes.Equal(a.Body, b.Body)
		}))
	}
}

// TestStateMachinesOnDisk keeps what is applied across a crash that loses the log's records of it.
func TestStateMachinesOnDisk(t *testing.T) {
	for _, durable := range []string{"", " durable"} {
		r := script.New(paxosscript.Engine())
		play(t, r, "bootstrap voters=1"+durable, "campaign 1", "settle 1", "propose 1 a", "settle 1", "crash 1")
		commands, index := r.Applied(1)
		if durable == "" {
			require.Empty(t, commands)
			continue
		}
		require.Equal(t, []string{"a"}, commands)
		require.EqualValues(t, 3, index)
	}
}
