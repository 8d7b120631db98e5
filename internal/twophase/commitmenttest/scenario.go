package commitmenttest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/twophase"
)

// Scenario is a run whose every crash is tried.
type Scenario[C Core[M, P], M, P fmt.Stringer] struct {
	Name    string
	Down    int // ticks that a node is down
	World   func() *World[C, M, P]
	Prepare func(w *World[C, M, P]) twophase.ID // begins the transaction
}

// Runs is what was tried.
type Runs struct {
	Actions int // without a crash
	Single  int // runs with one crash
	Pairs   int // and with two
}

// start makes a world in which nothing is to be done.
func (s Scenario[C, M, P]) start(crashes []Crash, loud bool) *World[C, M, P] {
	w := s.World()
	w.DownFor, w.Crashes, w.Loud = s.Down, crashes, loud
	w.Open()
	w.Finish()
	w.Points, w.Sends = 0, nil
	return w
}

// Play runs it with crashes, and returns the number of actions.
func (s Scenario[C, M, P]) Play(crashes []Crash, loud bool) (points int, w *World[C, M, P]) {
	w = s.start(crashes, loud)
	w.Commit(s.Prepare(w))
	w.Finish()
	return w.Points, w
}

// Fails runs it with crashes, and reports whether something is broken. It says so to t, unless that is nil.
func (s Scenario[C, M, P]) Fails(t *testing.T, crashes ...Crash) bool {
	_, w := s.Play(crashes, false)
	if len(w.Broken) == 0 {
		return false
	}
	if t != nil {
		_, w = s.Play(crashes, true)
		t.Errorf("%s: crashes %v:\n%s\n%s", s.Name, crashes, strings.Join(w.Broken, "\n"), strings.Join(w.Trace, "\n"))
	}
	return true
}

// crashes returns all crashes from an action on, of so many.
func crashes(from, points int) (list []Crash) {
	for at := from; at < points; at++ {
		list = append(list, Crash{at, false}, Crash{at, true})
	}
	return list
}

// EveryCrash tries a crash before and after every action of every node, alone and, with pairs, together with every other one that follows.
// It stops at the first that breaks something.
func (s Scenario[C, M, P]) EveryCrash(t *testing.T, pairs bool) (runs Runs) {
	points, w := s.Play(nil, false)
	require.Empty(t, w.Broken)
	runs.Actions = points
	for _, first := range crashes(0, points) {
		if runs.Single++; s.Fails(t, first) {
			return runs
		}
		if !pairs {
			continue
		}
		after, _ := s.Play([]Crash{first}, false)
		for _, second := range crashes(first.At+1, after) {
			if runs.Pairs++; s.Fails(t, first, second) {
				return runs
			}
		}
	}
	return runs
}

// EveryMessage has every message lost once, or come again when all is over; alone, and, with crashes, together with every crash of every
// node. It returns how many runs that were.
func (s Scenario[C, M, P]) EveryMessage(t *testing.T, withCrashes bool) (runs int) {
	run := func(lose, repeat int, list ...Crash) (points int, w *World[C, M, P]) {
		w = s.start(list, false)
		w.Lose, w.Repeat = map[int]bool{lose: true}, map[int]bool{repeat: true}
		w.Commit(s.Prepare(w))
		w.Finish()
		points = w.Points
		w.Net = append(w.Net, w.Again...)
		w.Finish()
		runs++
		require.Empty(t, w.Broken, "%s: message %d is lost, %d comes again, crashes %v", s.Name, lose, repeat, list)
		return points, w
	}
	_, w := run(-1, -1)
	for _, m := range w.Sends {
		for _, one := range [][2]int{{m, -1}, {-1, m}} {
			points, _ := run(one[0], one[1])
			if !withCrashes {
				continue
			}
			for _, c := range crashes(0, points) {
				run(one[0], one[1], c)
			}
		}
	}
	return runs
}
