package kv_test

import (
	"testing"

	"github.com/synod-go/synod/internal/simulate/systemtest"
)

// A bounded sweep through simulated clusters.
func TestSimulation(t *testing.T) {
	seeds := uint64(8)
	if testing.Short() || racing {
		seeds = 2
	}
	systemtest.Sweep(t, "txn", seeds)
}

// The checks find mistakes: those that take a few seeds, here.
func TestPlantedBugs(t *testing.T) {
	seeds, want := uint64(1), 5
	if racing {
		seeds, want = 1, 1
	}
	systemtest.PlantedBugs(t, "txn", seeds, want)
}

// The lists of bugs and sites are those of the code.
func TestProbes(t *testing.T) {
	systemtest.Probes(t, "txn", ".", "../../internal/paxoscommit", "../forward.go")
}
