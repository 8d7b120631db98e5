package commit

import "github.com/synod-go/synod/internal/modelcheck/network"

// bugs are the mistakes that can be put into the core and into the decision log, and the models that find them, the fastest
// first. Missing is "2pc: what is refused is not given up": what a resource did before it was asked to prepare is in no model.
// And "2pc: a no is told that comes after a forgotten read-only vote": resources vote alike each time. Tests of internal/twophase find
// both.
var bugs = []network.Bug{
	{Name: "2pc: a coordinator presumes commit", Models: []string{"base"}},
	{Name: "2pc: a coordinator presumes what it has lost", Models: []string{"lost"}},
	{Name: "2pc: a floor that stands for a record is not written", Models: []string{"forgetful"}},
	{Name: "2pc: a no is not counted", Models: []string{"base"}},
	{Name: "2pc: a participant in doubt aborts alone", Models: []string{"base"}},
	{Name: "2pc: a prepare of a transaction that is over is accepted", Models: []string{"base"}},
	{Name: "2pc: a read-only participant is not told of an abort", Models: []string{"staying"}},
	{Name: "2pc: a register is written twice", Models: []string{"slow-log"}},
	{Name: "2pc: a register that was collected is made again", Models: []string{"slow-log"}},
	{Name: "2pc: a tombstone is not looked at", Models: []string{"base"}},
	{Name: "2pc: an abort that is not durable is told to others", Models: []string{"remote"}},
	{Name: "2pc: an old progress takes the place of a newer one", Models: []string{"progress"}},
	{Name: "2pc: ignorance is taken for a no", Models: []string{"read-only"}},
	{Name: "2pc: one phase begins without a record", Models: []string{"one-phase"}},
	{Name: "2pc: read-only participants leave while locks are taken", Models: []string{"staying"}},
	{Name: "2pc: read-only votes are forgotten in a crash", Models: []string{"read-only"}},
	{Name: "2pc: the acknowledgement leaves before its record is durable", Models: []string{"base"}},
	{Name: "2pc: the commit is told before it is durable", Models: []string{"base"}},
	{Name: "2pc: the last agent is asked before the record of it is durable", Models: []string{"agent"}},
	{Name: "2pc: the vote leaves before its record is durable", Models: []string{"base"}},
	{Name: "2pc: what is below the floor is acknowledged at once", Models: []string{"forgetful"}},
}
