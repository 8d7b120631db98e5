package sim

import "slices"

// Shrink runs a failure again with fewer faults, while it stays the same one: the same
// invariant is broken, or, where it has no name, there is a failure without one. It returns
// the smallest that it found, with Config.Keep set, and how many runs that took: no more
// than runs. It is the delta debugging of Zeller and Hildebrandt ("Simplifying and
// Isolating Failure-Inducing Input", 2002, section 4) over the plan of faults.
func Shrink(failed Result, runs int, fn func(w *World)) (smallest Result, took int) {
	smallest = failed
	keep := failed.Config.Keep
	if keep == nil {
		for i := range failed.Plan {
			keep = append(keep, i)
		}
	}
	fails := func(keep []int) bool {
		took++
		c := failed.Config
		c.Keep = append([]int{}, keep...)
		r := Execute(c, fn)
		if r.Err == nil || r.Check != failed.Check {
			return false
		}
		smallest = r
		return true
	}
	if took < runs && fails(nil) {
		return smallest, took
	}
	for parts := 2; len(keep) > 0 && took < runs; {
		size := max(1, (len(keep)+parts-1)/parts)
		found := false
		for from := 0; from < len(keep) && took < runs; from += size {
			rest := slices.Concat(keep[:from], keep[min(len(keep), from+size):])
			if fails(rest) {
				keep, found = rest, true
				parts = max(2, parts-1)
				break
			}
		}
		if found {
			continue
		}
		if size == 1 {
			break
		}
		parts = min(len(keep), 2*parts)
	}
	return smallest, took
}
