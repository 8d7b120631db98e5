package probe

// What the Multi-Paxos core shows with Observe, for the invariants of Lamport's "Paxos Made
// Simple" (section 2.2). Slices are read at once and not kept.

// PaxosBallot is a ballot.
type PaxosBallot struct {
	Round    uint64
	Priority uint8
	Node     uint64
}

// PaxosOpened says what a core found on its disk. Held is the last slot of those that are decided
// and here; Lost, that a record is missing.
type PaxosOpened struct {
	Group       uint64
	Promised    PaxosBallot
	Start, Held uint64
	Lost        bool
}

// PaxosState says what a core is now. It is shown when something of it has changed.
type PaxosState struct {
	Group   uint64
	Ballot  PaxosBallot
	Leader  uint64
	Leading bool
	Decided uint64
}

// PaxosPromised says that a promise leaves.
type PaxosPromised struct {
	Group  uint64
	Ballot PaxosBallot
}

// PaxosProposed says that values are proposed in a ballot, from First on.
type PaxosProposed struct {
	Group  uint64
	Ballot PaxosBallot
	First  uint64
	Hashes []uint64
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

// PaxosAccepted says that a promise leaves that all up to a slot, and the ranges, are durable: decided, or
// accepted in the ballot.
type PaxosAccepted struct {
	Group   uint64
	Ballot  PaxosBallot
	Through uint64
}

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
