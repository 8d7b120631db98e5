package paxos

import "github.com/synod-go/synod/internal/replica"

// position returns that of an entry, up to which so many commands stand in the log.
func position(e *replica.Entry, commands uint64) replica.Position {
	return replica.Position{Index: e.Index, Term: e.Term, Commands: commands}
}
