package paxos_test

import (
	"testing"

	"github.com/synod-go/synod/internal/simulate/systemtest"
)

// A bounded sweep through simulated clusters.
func TestSimulation(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() || racing {
		seeds = 3
	}
	systemtest.Sweep(t, "paxos", seeds)
}

// The checks find mistakes: those that take a few seeds, here.
func TestPlantedBugs(t *testing.T) {
	seeds, want := uint64(5), 5
	if racing {
		seeds, want = 1, 1
	}
	systemtest.PlantedBugs(t, "paxos", seeds, want)
}

// The lists of bugs and sites are those of the code.
func TestProbes(t *testing.T) {
	systemtest.Probes(t, "paxos", ".", "../internal/multipaxos", "../internal/replica", "../storage", "../transport")
}
