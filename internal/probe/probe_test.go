package probe_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/probe"
)

type recorder struct{ said []string }

func (r *recorder) Sometimes(name string, condition bool) {
	r.said = append(r.said, fmt.Sprint("sometimes ", name, " ", condition))
}

func (r *recorder) Buggify(name string) bool {
	r.said = append(r.said, "buggify "+name)
	return true
}

func (r *recorder) Bug(name string) bool {
	r.said = append(r.said, "bug "+name)
	return true
}

func (r *recorder) Observe(what any) { r.said = append(r.said, fmt.Sprint("observe ", what)) }

func ask() (buggify, bug bool) {
	probe.Sometimes("place", true)
	probe.Observe(7)
	return probe.Buggify("branch"), probe.Bug("mistake")
}

func TestNobodyListens(t *testing.T) {
	require.False(t, probe.Active())
	buggify, bug := ask()
	require.False(t, buggify)
	require.False(t, bug)
	require.Zero(t, testing.AllocsPerRun(100, func() { ask() }))
}

func TestSomebodyListens(t *testing.T) {
	r := &recorder{}
	remove := probe.Install(r)
	require.True(t, probe.Active())
	buggify, bug := ask()
	require.True(t, buggify)
	require.True(t, bug)
	remove()
	ask()
	require.False(t, probe.Active())
	require.Equal(t, []string{"sometimes place true", "observe 7", "buggify branch", "bug mistake"}, r.said)
}

func BenchmarkNobodyListens(b *testing.B) {
	for b.Loop() {
		probe.Sometimes("place", true)
	}
}
