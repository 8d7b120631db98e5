package probe

// What raft's core shows with Observe, for the invariants of Ongaro and Ousterhout ("In
// Search of an Understandable Consensus Algorithm", figure 3). Slices are read at once and
// not kept.

// RaftOpened says what a core found on its disk.
type RaftOpened struct {
	Group, Term, Vote   uint64
	Commit, First, Last uint64
	TermAt              func(index uint64) uint64 // of an entry from First-1 to Last
}

// RaftState says what a core is now. It is shown when something of it has changed.
type RaftState struct {
	Group, Term, Leader uint64
	Leading             bool
	Commit              uint64
}

// RaftEntries says that entries go into the log, from First on, in the place of what
// stands there.
type RaftEntries struct {
	Group, Term uint64
	Leading     bool
	First       uint64
	Entries     []RaftEntry
}

// RaftEntry is one of them.
type RaftEntry struct{ Term, Hash uint64 }

// RaftSnapshot says that a snapshot takes the place of the log.
type RaftSnapshot struct{ Group, Index, Term uint64 }

// RaftVoted says that a vote leaves: for oneself, in a request, or for another, in the
// answer to one.
type RaftVoted struct{ Group, Term, For uint64 }

// Sessions says what a group remembers of its sessions after an entry, and how many
// commands were applied: a hash of both. It is shown by the runtime, for any engine.
type Sessions struct{ Group, Index, Hash uint64 }

// RaftAccepted says that a promise leaves that the log up to an index is durable.
type RaftAccepted struct{ Group, Term, Index uint64 }

// Configured says that a configuration is in effect, as of an index.
type Configured struct {
	Group, Index uint64
	Joint        bool
	Members      []ConfiguredMember
}

// ConfiguredMember is one of its members.
type ConfiguredMember struct {
	Node, Incarnation uint64
	Voter, Outgoing   bool
}
