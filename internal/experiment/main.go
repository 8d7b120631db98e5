package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// experiments are all of them, in the order in which they run.
var experiments = []struct {
	name string
	run  func(seeds int, p *printer) error
}{
	{"partial", partial},
	{"stale", stale},
	{"slow", slow},
	{"loss", loss},
	{"replace", replace},
}

func main() {
	seeds := flag.Int("seeds", 20, "how many runs of each")
	only := flag.String("only", "", "experiments, by name, with commas between; empty: all")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	if err := runAll(os.Stdout, *seeds, *only, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "experiment:", err)
		os.Exit(1)
	}
}

func runAll(w io.Writer, seeds int, only string, asJSON bool) error {
	if seeds < 1 {
		return fmt.Errorf("-seeds is %d: at least 1", seeds)
	}
	var names []string
	for _, x := range experiments {
		names = append(names, x.name)
	}
	chosen := names
	if only != "" {
		chosen = strings.Split(only, ",")
	}
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			return fmt.Errorf("-only: there is no experiment called %q: there are %s", name, strings.Join(names, ", "))
		}
	}
	p := &printer{w: w, json: asJSON}
	for _, x := range experiments {
		if slices.Contains(chosen, x.name) {
			if err := x.run(seeds, p); err != nil {
				return err
			}
		}
	}
	return p.end()
}

// each runs seeds 1 to n. A simulation has the process for itself.
func each[T any](n int, fn func(seed uint64) (T, error)) ([]T, error) {
	list := make([]T, 0, n)
	for seed := uint64(1); seed <= uint64(n); seed++ {
		v, err := fn(seed)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}
