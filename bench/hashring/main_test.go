package main

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// Every adapter answers with nodes of the ring, and forgets those that left.
func TestSystems(t *testing.T) {
	names, keys := nodeNames(12), keyNames(3000)
	for _, y := range systems {
		t.Run(y.name, func(t *testing.T) {
			ring, err := y.build(names)
			if err != nil {
				t.Fatal(err)
			}
			members := slices.Clone(names)
			check := func(step string) {
				seen := make(map[string]bool)
				for _, k := range keys {
					node := ring.get(k)
					if !slices.Contains(members, node) {
						t.Fatalf("%s: %q belongs to %q, which is no member", step, k, node)
					}
					seen[node] = true
				}
				if len(seen) != len(members) {
					t.Fatalf("%s: %d of %d nodes have keys", step, len(seen), len(members))
				}
			}
			check("new")
			ring.remove(names[4])
			members = slices.Delete(members, 4, 5)
			check("one left")
			ring.add("another")
			members = append(members, "another")
			check("one joined")
			ring.remove("another")
			members = members[:len(members)-1]
			check("it left again")
		})
	}
}

func TestReport(t *testing.T) {
	var out bytes.Buffer
	s := settings{nodes: []int{3, 5}, keys: 2000, slice: time.Millisecond, systems: "synod,AnchorHash"}
	if err := run(s, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"### 3 nodes", "### 5 nodes", "| synod Asura | this tree |", "| AnchorHash |"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "panics") {
		t.Error(out.String())
	}
	if err := run(settings{systems: "nobody"}, &out, io.Discard); err == nil {
		t.Error("nobody was measured")
	}
}

// A package that panics does not take the others along.
func TestPanicsAreReported(t *testing.T) {
	r := measure(system{name: "bad", build: func([]string) (subject, error) { panic("out of order") }}, 3, settings{keys: 10, slice: time.Millisecond})
	if r.note != "panics: out of order" {
		t.Errorf("%q", r.note)
	}
}
