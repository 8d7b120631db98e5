package probe

// What the Multi-Paxos core shows with Observe, for the invariants of Lamport's "Paxos Made
// Simple" (section 2.2). Slices are read at once and not kept.

// PaxosBallot is a ballot.
type PaxosBallot struct {
	Round    uint64
	Priority uint8
	Node     uint64
}

// PaxosOpened says what a core finds on its disk. The log begins after Start; the state machine has
// what is decided up to Applied. Lost says that a record is missing. Accepted returns the ballot in which
// the value of a slot is accepted, or, if that is not known, up to which it may be; zero: there is none.
type PaxosOpened struct {
	Group          uint64
	Promised       PaxosBallot
	Start, Applied uint64
	Last           uint64 // no later slot has a value
	Lost           bool
	Accepted       func(slot uint64) (ballot PaxosBallot, known bool)
}

// PaxosConfigured says who votes as of a slot: one set of voters, or two that decide together.
type PaxosConfigured struct {
	Group, Slot uint64
	Sets        [][]uint64
}

// PaxosState says what a core is now. It is shown when something of it has changed.
type PaxosState struct {
	Group   uint64
	Ballot  PaxosBallot
	Leader  uint64
	Leading bool
	Decided uint64
}

// PaxosPrepared says that a candidate begins a ballot, which is not durable yet.
type PaxosPrepared struct {
	Group  uint64
	Ballot PaxosBallot
}

// PaxosPromised says that a promise leaves, or a candidate's own counts. All: with it, all that was accepted is
// told. Lost says that some of that is forgotten, so that the promise counts for no quorum.
type PaxosPromised struct {
	Group     uint64
	Ballot    PaxosBallot
	All, Lost bool
}

// PaxosProposed says that values are proposed in a ballot, from First on. Config is the slot of a
// configuration among them; 0: there is none.
type PaxosProposed struct {
	Group  uint64
	Ballot PaxosBallot
	First  uint64
	Hashes []uint64
	Config uint64
}

// PaxosStored says that values are accepted in a ballot, from First on, and on their way to the
// disk. Chosen: they are known to be chosen.
type PaxosStored struct {
	Group  uint64
	Ballot PaxosBallot
	Chosen bool
	First  uint64
	Hashes []uint64
}

// PaxosAccepted says that a promise leaves, or that of the leader itself counts, that all up to a slot, and
// the ranges, are durable: decided, or accepted in the ballot.
type PaxosAccepted struct {
	Group   uint64
	Ballot  PaxosBallot
	Through uint64
	Ranges  []PaxosSlots
}

// PaxosSlots is a range of slots.
type PaxosSlots struct{ First, Last uint64 }

// PaxosDecided says that the leader of a ballot takes slots for decided.
type PaxosDecided struct {
	Group       uint64
	Ballot      PaxosBallot
	First, Last uint64
}

// PaxosLearned says that a core takes a value for the decided one of a slot. The next one is in the
// next slot, but after a snapshot.
type PaxosLearned struct{ Group, Slot, Hash uint64 }

// PaxosSnapshot says that a snapshot takes the place of the log up to a slot.
type PaxosSnapshot struct{ Group, Slot uint64 }

// PaxosChosen says that the leader of a ballot has heard that a slot's value is chosen: slots before it
// may not be.
type PaxosChosen struct {
	Group  uint64
	Ballot PaxosBallot
	Slot   uint64
}
