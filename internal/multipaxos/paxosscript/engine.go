package paxosscript

import (
	"slices"
	"strconv"
	"strings"

	"github.com/synod-go/synod/internal/multipaxos"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/internal/replica/script"
)

// Engine returns Multi-Paxos for one Runner.
func Engine() script.Engine {
	keys := replica.GroupKeys(script.Group)
	w := &watch{}
	return script.Engine{
		Protocol: func(bootstrap *script.Command, node uint64) (replica.Protocol, error) {
			if node == 1 { // of a new group
				*w = watch{values: map[string]string{}, promised: map[uint64]multipaxos.Ballot{}}
			}
			return protocol(bootstrap, node)
		},
		Message: func(from, _ uint64, body []byte) string {
			return multipaxos.Describe(script.Group, from, body)
		},
		Key:    func(key []byte) string { return multipaxos.DescribeKey(keys, key) },
		Record: func(key, value []byte) string { return multipaxos.DescribeRecord(keys, key, value) },
		State:  func(c replica.Core, _ *replica.Output) string { return c.(*multipaxos.Core).State() },
		Status: func(c replica.Core, _ uint64) string { return c.(*multipaxos.Core).Describe() },
		Sent:   sent,
		Check:  w.check,
	}
}

// protocol makes that of a node.
func protocol(c *script.Command, node uint64) (replica.Protocol, error) {
	var p multipaxos.Protocol
	if only := c.Number("quorums-of", 0); only == 0 || only == node {
		p.Quorums = multipaxos.Quorums{
			Phase1: int(c.Number("phase1", 0)), Phase2: int(c.Number("phase2", 0)),
			Sets1: sets(c.List("sets1")), Sets2: sets(c.List("sets2")),
		}
	}
	if priorities := c.Numbers("priority"); node <= uint64(len(priorities)) {
		p.Priority = uint8(priorities[node-1])
	}
	return p, p.Quorums.Check("paxos")
}

// sets reads sets of nodes that are written as 1+2+3.
func sets(words []string) (sets [][]uint64) {
	for _, word := range words {
		var set []uint64
		for _, node := range strings.Split(word, "+") {
			n, _ := strconv.ParseUint(node, 10, 64) // 0 is refused by Check
			set = append(set, n)
		}
		sets = append(sets, set)
	}
	return sets
}

// sent holds what a message claims against its sender's disk.
func sent(r *script.Runner, m script.Message) {
	ballot, slots, ok := multipaxos.Claims(script.Group, m.From, m.Body)
	if !ok {
		return
	}
	promised, accepted, err := multipaxos.ReadRecords(replica.GroupKeys(script.Group), r.Store(m.From))
	if err != nil {
		return
	}
	if promised.Less(ballot) {
		r.Violation("node %d says that it has promised %v, and on its disk is %v", m.From, ballot, promised)
	}
	for _, s := range slots {
		for slot := s[0]; slot <= s[1]; slot++ {
			if !slices.ContainsFunc(accepted, func(a multipaxos.Accepted) bool { return a.Slot == slot && (a.Ballot == ballot || a.Chosen) }) {
				r.Violation("node %d says that it has accepted slot %d in %v, and it is not on its disk", m.From, slot, ballot)
			}
		}
	}
}

// watch remembers what must not change.
type watch struct {
	values   map[string]string // by ballot and slot
	promised map[uint64]multipaxos.Ballot
}

func (w *watch) check(r *script.Runner) {
	for _, id := range r.Nodes() {
		promised, accepted, err := multipaxos.ReadRecords(replica.GroupKeys(script.Group), r.Store(id))
		if err != nil {
			continue // damaged
		}
		if promised.Less(w.promised[id]) {
			r.Violation("node %d has promised %v, and on its disk is %v", id, w.promised[id], promised)
		}
		w.promised[id] = promised
		for _, a := range accepted {
			if !a.Chosen && promised.Less(a.Ballot) {
				r.Violation("node %d has accepted slot %d in %v, and has promised only %v", id, a.Slot, a.Ballot, promised)
			}
		}
		if c, ok := r.Core(id).(*multipaxos.Core); ok {
			accepted = append(accepted, c.View().Accepted...)
		}
		for _, a := range accepted {
			if a.Chosen {
				continue
			}
			key := a.Ballot.String() + "/" + strconv.FormatUint(a.Slot, 10)
			if before, ok := w.values[key]; !ok {
				w.values[key] = a.Shown
			} else if before != a.Shown {
				r.Violation("slot %d in ballot %v: %s, and %s at node %d", a.Slot, a.Ballot, before, a.Shown, id)
			}
		}
	}
}
