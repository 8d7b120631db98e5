package system

import (
	"fmt"
	"maps"
	"slices"
)

// Summary is what a sweep found.
type Summary struct {
	System       string         `json:"system"`
	Start        uint64         `json:"start"`
	Seeds        uint64         `json:"seeds"`
	Hours        float64        `json:"simulated_hours"`
	CPUMinutes   float64        `json:"cpu_minutes"`
	Speed        float64        `json:"simulated_hours_a_cpu_minute"`
	Events       uint64         `json:"events"`
	Kinds        int            `json:"kinds_of_faults"`
	Faults       map[string]int `json:"faults"`
	Effects      map[string]int `json:"effects"`
	Reached      map[string]int `json:"sites_reached"`
	Missed       []string       `json:"sites_not_reached"`
	Forced       map[string]int `json:"rare_branches_taken"`
	Transactions map[string]int `json:"transactions,omitempty"`
	Histories    int            `json:"histories_checked"`
	Calls        int            `json:"calls_checked"`
	Mismatches   uint64         `json:"hash_mismatches"`
	Violations   []string       `json:"violations"`
}

// enough is how many seeds must reach every site.
const enough = 400

// Verdict is the error of a sweep that found something, or did not look everywhere.
func (s *Summary) Verdict() error {
	switch {
	case len(s.Violations) > 0:
		return fmt.Errorf("%d violations", len(s.Violations))
	case s.Mismatches > 0:
		return fmt.Errorf("%d seeds gave another trace the second time", s.Mismatches)
	case s.Seeds >= enough && len(s.Missed) > 0:
		return fmt.Errorf("sites that were not reached: %q", s.Missed)
	}
	return nil
}

// NewSummary returns one of nothing yet.
func NewSummary(name string, start uint64) *Summary {
	return &Summary{System: name, Start: start, Faults: make(map[string]int), Effects: make(map[string]int), Reached: make(map[string]int),
		Forced: make(map[string]int), Transactions: make(map[string]int), Missed: []string{}, Violations: []string{}}
}

// Add counts one more outcome.
func (s *Summary) Add(o Outcome) {
	s.Seeds++
	s.Hours += o.Hours
	s.CPUMinutes += o.CPU.Minutes()
	s.Events += o.Events
	s.Histories += o.Histories
	s.Calls += o.Calls
	for _, m := range []struct{ from, to map[string]int }{{o.Faults, s.Faults}, {o.Effects, s.Effects}, {o.Sites, s.Reached}, {o.Forced, s.Forced}, {o.Transactions, s.Transactions}} {
		for k, n := range m.from {
			m.to[k] += n
		}
	}
	if o.Differs {
		s.Mismatches++
	}
	if o.Failure != "" {
		s.Violations = append(s.Violations, fmt.Sprintf("seed %d: %s", o.Seed, o.Failure))
	}
}

// End completes the summary: sites are those that were to be reached.
func (s *Summary) End(sites []string) {
	s.Speed = s.Hours / s.CPUMinutes
	s.Kinds = len(s.Faults)
	for _, site := range sites {
		if s.Reached[site] == 0 {
			s.Missed = append(s.Missed, site)
		}
	}
	maps.DeleteFunc(s.Reached, func(site string, n int) bool {
		if n == 0 && !slices.Contains(s.Missed, site) {
			s.Missed = append(s.Missed, site) // one that nobody has listed
		}
		return n == 0
	})
	slices.Sort(s.Missed)
	slices.Sort(s.Violations)
}
