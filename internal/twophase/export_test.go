package twophase

import (
	"fmt"
)

// What package twophase_test sees of a core beside what all see. It is not in this package, since commitmenttest, with which it tests, imports
// it.

// ReadOnlyBlock is of how many transactions a mark says that there may be read-only votes.
const ReadOnlyBlock = readOnlyBlock

// Pending returns how many transactions the core coordinates, and how many branches it has.
func (c *Core) Pending() (transactions, branches int) { return len(c.transactions), len(c.entries) }

// ForEver says what is under way, for a test in which nothing should be.
func (c *Core) ForEver() (list []string) {
	for _, t := range c.transactions {
		list = append(list, fmt.Sprintf("transaction %v is %v for ever", t.id, t.phase))
	}
	for _, e := range c.entries {
		list = append(list, fmt.Sprintf("branch %v %s is in state %d for ever, asked %d", e.id, e.resource, e.state, e.age))
	}
	return list
}

// Marks returns the marks of the incarnation that a transaction is of.
func (c *Core) Marks(id ID) (floor, doubtful uint64) {
	h := c.horizon(originOf(id))
	return h.floor, h.doubtful
}

// Raise forgets what is below a floor, as when too much is remembered.
func (c *Core) Raise(id ID, floor uint64) { c.raise(c.horizon(originOf(id)), floor) }

// ForgetPast forgets what is remembered of transactions that are over, and how many there were.
func (c *Core) ForgetPast() {
	clear(c.finished)
	clear(c.horizons)
	c.upcoming = 0
}
