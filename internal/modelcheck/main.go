// Command modelcheck goes through all states that a protocol can reach within bounds, by the code that ships, and checks in each
// of them that what it promises is kept.
//
//	go run ./internal/modelcheck -system paxos
//	go run ./internal/modelcheck -system 2pc
//	go run ./internal/modelcheck -system paxoscommit
//
// explores the first model of Multi-Paxos: three nodes, two slots, two values, three ballots, and a crash that loses what
// was not durable; or that of two-phase commit: two participants, one of them beside the coordinator, and two crashes; or that of commitment over
// consensus groups: two groups, a client, and those who end what it leaves behind. It prints the bounds, how many states there are,
// and whether that is all of them. Other models look at what that one leaves out:
//
//	go run ./internal/modelcheck -system paxos -list
//	go run ./internal/modelcheck -system paxos -model all
//
// If something is violated, the shortest way there is printed as a script, with what each step does; -save writes it into a
// folder, and
//
//	go run ./internal/modelcheck -system paxos -play FILE [-bug NAME]
//
// plays it again. Whether the checks find anything is shown by mistakes that are put into the code, each in a model that is
// known to find it:
//
//	go run ./internal/modelcheck -system paxos -bugs
//
// Package explore is the search, network what is common to protocols whose nodes send messages, paxos the models of Multi-Paxos,
// commit those of two-phase commit, paxoscommit those of commitment over consensus groups.
// What a model does not bound is bounded by -memory, -states, -depth and -time: then "not complete" is printed, which says nothing
// of the states that were not reached.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/synod-go/synod/internal/modelcheck/commit"
	"github.com/synod-go/synod/internal/modelcheck/explore"
	"github.com/synod-go/synod/internal/modelcheck/network"
	"github.com/synod-go/synod/internal/modelcheck/paxos"
	"github.com/synod-go/synod/internal/modelcheck/paxoscommit"
	"github.com/synod-go/synod/internal/modelcheck/threephase"
	"github.com/synod-go/synod/internal/probe"
)

// systems are what can be explored, by name: each is some models, and the mistakes that they find. One more is a line here.
var systems = map[string]func() network.System{
	"2pc":         commit.System,
	"paxos":       paxos.System,
	"paxoscommit": paxoscommit.System,
	"e3pc":        threephase.Enhanced,
	"3pc":         threephase.Skeen,
}

func main() {
	if err := command(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "modelcheck:", err)
		os.Exit(1)
	}
}

// run is one call of the command.
type run struct {
	out, progress io.Writer
	system        network.System
	options       explore.Options
	save          string
	json          bool
}

func command(args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("modelcheck", flag.ContinueOnError)
	flags.SetOutput(progress)
	name := flags.String("system", "paxos", "what to explore: "+strings.Join(slices.Sorted(maps.Keys(systems)), ", "))
	which := flags.String("model", "", "within which bounds, and what is looked at: a name, or all. Default: the first")
	list := flags.Bool("list", false, "list the models, and the mistakes that they find")
	planted := flags.String("bug", "", "put this mistake into the code")
	hunt := flags.Bool("bugs", false, "put each known mistake into the code in turn, and look for a counterexample in its models")
	workers := flags.Int("workers", runtime.NumCPU(), "how many goroutines")
	states := flags.Uint64("states", 0, "explore no more states than that; 0: no bound")
	depth := flags.Int("depth", 0, "take no more steps than that from the first state; 0: no bound")
	memory := flags.Uint64("memory", 8<<10, "use no more MiB of memory than that, about")
	limit := flags.Duration("time", 0, "take no longer than that for a model; 0: no bound")
	save := flags.String("save", "", "write counterexamples into this folder")
	play := flags.String("play", "", "play the script in this file, as it is written with -save, or by hand, and print what happens")
	asJSON := flags.Bool("json", false, "print the results in JSON")
	if err := flags.Parse(args); err != nil {
		return err
	}
	system, ok := systems[*name]
	if !ok {
		return fmt.Errorf("no system %q", *name)
	}
	r := &run{out: out, progress: progress, system: system(), save: *save, json: *asJSON,
		options: explore.Options{Workers: *workers, MaxStates: *states, MaxDepth: *depth, MaxBytes: *memory << 20, MaxTime: *limit}}
	models := r.system.Models[:1]
	switch {
	case *which == "all":
		models = r.system.Models
	case *which != "":
		m, ok := r.model(*which)
		if !ok {
			return fmt.Errorf("no model %q: -list lists them", *which)
		}
		models = []network.Model{m}
	}
	if *planted != "" && !slices.ContainsFunc(r.system.Bugs, func(b network.Bug) bool { return b.Name == *planted }) {
		return fmt.Errorf("no bug %q: -list lists them", *planted)
	}
	switch {
	case *list:
		for _, m := range r.system.Models {
			fmt.Fprintf(out, "%-12s %s\n%12s %s\n", m.Label(), m.About(), "", m.Bounds())
		}
		for _, b := range r.system.Bugs {
			fmt.Fprintf(out, "bug: %s (%s)\n", b.Name, strings.Join(b.Models, ", "))
		}
		return nil
	case *hunt:
		return r.hunt(*which)
	case *play != "":
		return r.play(models[0], *play, *planted)
	}
	var violations []string
	for _, m := range models {
		o, err := r.explore(m, *planted)
		if errors.Is(err, network.ErrRefused) {
			fmt.Fprintf(out, "%s: %v\n", m.Label(), err)
			continue
		}
		if err != nil {
			return err
		}
		r.report(m, o)
		if o.Violation != nil {
			violations = append(violations, m.Label())
		}
	}
	if len(violations) > 0 {
		return fmt.Errorf("%w: %s", errViolated, strings.Join(violations, ", "))
	}
	return nil
}

func (r *run) model(name string) (network.Model, bool) {
	i := slices.IndexFunc(r.system.Models, func(m network.Model) bool { return m.Label() == name })
	if i < 0 {
		return nil, false
	}
	return r.system.Models[i], true
}

var errViolated = errors.New("violated")

// play plays a script.
func (r *run) play(m network.Model, file, bug string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	defer probe.Install(&planter{bug: bug, reached: map[string]bool{}})()
	played, err := m.Play(network.Lines(string(text)))
	fmt.Fprint(r.out, played)
	if err == nil && strings.Contains(played, "\nVIOLATION: ") {
		return errViolated
	}
	return err
}

// planter is the probe of an exploration: it plants one mistake, and takes down which places are reached.
type planter struct {
	bug     string
	mu      sync.Mutex
	made    bool
	reached map[string]bool
}

func (p *planter) Sometimes(name string, condition bool) {
	p.mu.Lock()
	p.reached[name] = p.reached[name] || condition
	p.mu.Unlock()
}
func (p *planter) Buggify(string) bool { return false }
func (p *planter) Bug(name string) bool {
	if name != p.bug {
		return false
	}
	p.mu.Lock()
	p.made = true
	p.mu.Unlock()
	return true
}
func (p *planter) Observe(any) {}

// outcome is what an exploration has found.
type outcome struct {
	explore.Result
	Locals, Messages, Histories int
	Checked                     int // states that were looked at as a whole
	Reached, Missed             []string
	Asked                       bool // whether the code was asked for the bug
	Script                      []string
	Played                      string
}

// explore explores a model, with a mistake or without.
func (r *run) explore(m network.Model, bug string) (*outcome, error) {
	p := &planter{bug: bug, reached: map[string]bool{}}
	defer probe.Install(p)()
	defer debug.SetGCPercent(debug.SetGCPercent(200))
	n, err := m.New(bug != "")
	if err != nil {
		return nil, err
	}
	o := &outcome{}
	options := r.options
	last := time.Now()
	options.Progress = func(now explore.Result) {
		if time.Since(last) > 10*time.Second {
			last = time.Now()
			locals, messages, _ := n.Sizes()
			fmt.Fprintf(r.progress, "%s: %d states, depth %d, %d transitions, %d states of single nodes, %d messages, %d MiB, %v\n",
				m.Label(), now.States, now.Depth, now.Transitions, locals, messages, now.HeapBytes>>20, now.Time.Round(time.Second))
		}
	}
	if o.Result, err = explore.Run(n, options); err != nil {
		return nil, err
	}
	o.Locals, o.Messages, o.Histories = n.Sizes()
	o.Checked = n.Checked()
	o.Asked = p.made
	for _, name := range slices.Sorted(maps.Keys(p.reached)) {
		if p.reached[name] {
			o.Reached = append(o.Reached, name)
		} else {
			o.Missed = append(o.Missed, name)
		}
	}
	if o.Violation == nil {
		return o, nil
	}
	if o.Script, err = n.Script(m, o.Path); err != nil {
		return nil, err
	}
	if bug != "" {
		o.Script = slices.Insert(o.Script, 0, "# Planted: "+bug)
	}
	o.Script = slices.Insert(o.Script, 0, fmt.Sprintf("# Found by the model %s: %s", m.Label(), m.Bounds()))
	if o.Played, err = m.Play(o.Script); err != nil {
		return nil, fmt.Errorf("%s: the counterexample can't be played: %w\n%s", m.Label(), err, strings.Join(o.Script, "\n"))
	}
	if r.save != "" {
		name := m.Label()
		if bug != "" {
			name += "_" + strings.NewReplacer(" ", "_", "'", "", ":", "").Replace(bug)
		}
		return o, os.WriteFile(filepath.Join(r.save, name+".txt"), []byte(o.Played), 0o666)
	}
	return o, nil
}

// report prints the outcome of a model.
func (r *run) report(m network.Model, o *outcome) {
	if r.json {
		e := json.NewEncoder(r.out)
		e.SetIndent("", "  ")
		violation := ""
		if o.Violation != nil {
			violation = o.Violation.Error()
		}
		_ = e.Encode(map[string]any{"model": m.Label(), "bounds": m.Bounds(), "complete": o.Complete, "stopped": o.Stopped, "violation": violation, "script": o.Script,
			"states": o.States, "transitions": o.Transitions, "idle": o.Idle, "beyond": o.Beyond, "within": o.Within, "depth": o.Depth, "levels": o.Levels,
			"locals": o.Locals, "messages": o.Messages, "histories": o.Histories, "checked": o.Checked, "seconds": o.Time.Seconds(), "table": o.TableBytes, "memory": o.HeapBytes, "reached": o.Reached})
		return
	}
	w := r.out
	if o.Violation != nil {
		fmt.Fprintf(w, "%s\n\n", o.Played)
	}
	verdict := "complete, no violation"
	switch {
	case o.Violation != nil:
		first, _, _ := strings.Cut(o.Violation.Error(), "\n")
		verdict = fmt.Sprintf("VIOLATED after %d steps: %s", len(o.Path), first)
	case !o.Complete:
		verdict = "not complete, no violation: stopped at " + o.Stopped
	}
	fmt.Fprintf(w, "%s: %s\n", m.Label(), verdict)
	fmt.Fprintf(w, "  bounds       %s\n", m.Bounds())
	fmt.Fprintf(w, "  states       %d, the farthest %d steps away, up to %d held at once\n", o.States, o.Depth, o.Frontier)
	fmt.Fprintf(w, "  transitions  %d: %d change nothing, %d lead to less of what is known; %d more lead beyond the bounds\n", o.Transitions, o.Idle, o.Within, o.Beyond)
	fmt.Fprintf(w, "  made of      %d states of single nodes, %d messages, %d histories; %d places reached\n", o.Locals, o.Messages, o.Histories, len(o.Reached))
	if o.Checked > 0 {
		fmt.Fprintf(w, "  checked      %d combinations of nodes and history as a whole\n", o.Checked)
	}
	fmt.Fprintf(w, "  time         %v, memory %d MiB, %d of them for the set of states (%d bytes each)\n", o.Time.Round(time.Millisecond), o.HeapBytes>>20, o.TableBytes>>20, o.TableBytes/max(o.States, 1))
}

var errNotFound = errors.New("not all mistakes were found")

// hunt plants all mistakes, one after the other.
func (r *run) hunt(which string) error {
	fmt.Fprintf(r.out, "| mistake | model | states | steps | seconds | violated |\n|---|---|---|---|---|---|\n")
	missed := 0
	for _, b := range r.system.Bugs {
		for _, name := range b.Models {
			if which != "" && which != "all" && name != which {
				continue
			}
			m, ok := r.model(name)
			if !ok {
				return fmt.Errorf("bug %q: no model %q", b.Name, name)
			}
			o, err := r.explore(m, b.Name)
			if err != nil {
				return fmt.Errorf("bug %q: %w", b.Name, err)
			}
			verdict := "not found"
			switch {
			case o.Violation != nil:
				verdict, _, _ = strings.Cut(o.Violation.Error(), "\n")
			case !o.Asked:
				verdict = "NOT FOUND: the code does not ask for it"
				missed++
			case o.Stopped != "":
				verdict = "NOT FOUND: stopped at " + o.Stopped
				missed++
			default:
				verdict = "NOT FOUND: complete"
				missed++
			}
			fmt.Fprintf(r.out, "| %s | %s | %d | %d | %.1f | %s |\n", b.Name, name, o.States, len(o.Path), o.Time.Seconds(), verdict)
			runtime.GC()
			debug.FreeOSMemory()
		}
	}
	if missed > 0 {
		return fmt.Errorf("%w: %d", errNotFound, missed)
	}
	return nil
}
