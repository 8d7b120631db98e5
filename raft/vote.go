package raft

//synod:core

import (
	etcd "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
)

// votes is what a core knows about whether it may help to elect a leader. One that does not
// take part yet must not, and time does not pass for it. And where leaders
// count on leases it must not while a leader may hold one that this node has
// confirmed: replica.Core.Read says what is promised, internal/replica/lease.go what
// is made of it. etcd's raft does most of it (with CheckQuorum): a member that knows a
// leader ignores requests for votes until ElectionTicks ticks after it last heard from
// that, and stands for election no earlier, unless that leader asks it to take over
// (then everybody votes at once). Three things are left to do here.
//
//   - A restart makes a member forget whom it heard. So it helps nobody in the first
//     ElectionTicks ticks: see mayVote.
//   - A member that knows a leader takes any answer of a later term for the end of its
//     leader, also one that did not come from a leader: to what it sent when it led, or
//     stood for election, itself, long ago. Then it would vote for whoever is in that
//     term. So it ignores such answers: see ignores.
//   - The runtime is told of transfers (replica.Output.HandedOver).
type votes struct {
	held       bool // until the others have been asked what they know of this node
	leases     bool
	quiet      int    // ticks that are left until the node may vote
	handedOver uint64 // the last term in which Transfer was called
}

func (v *votes) init(o replica.OpenOptions) {
	v.held = o.Held
	if v.leases = o.Leases; v.leases && !probe.Bug("a restarted member votes at once") {
		v.quiet = o.ElectionTicks
	}
}

func (v *votes) tick() {
	if v.quiet > 0 {
		v.quiet--
	}
}

// takesPart reports whether the replica is more than one that follows. One that is held is
// not (replica.Core.Trust); nor is one that was told nothing yet of the group that it joins:
// it is no member, or one that nobody needs before it has caught up.
func (c *core) takesPart() bool { return !c.votes.held && c.member }

// mayVote reports whether this node may give votes, and stand for election. etcd's raft needs
// no leave for the latter when it does so by itself: that is after ElectionTicks ticks at
// the earliest.
func (c *core) mayVote() bool { return c.takesPart() && c.votes.quiet == 0 }

// mayCampaign reports whether this node may stand for election now. The only voter may in its
// first ticks, too: there is nobody else who could lead. That is so as far as it knows.
// Its log may hold that there are others since; then it does not give them its vote yet,
// nor does etcd's raft let it stand for election before that part of the log is applied.
func (c *core) mayCampaign() bool {
	voters := c.raft.Status().Config.Voters.IDs()
	_, votes := voters[c.node]
	return c.mayVote() || c.takesPart() && votes && len(voters) == 1
}

// ignores reports whether a message is to be dropped.
func (c *core) ignores(m *raftpb.Message) bool {
	switch m.GetType() {
	case raftpb.MsgVote, raftpb.MsgPreVote, raftpb.MsgTimeoutNow:
		if c.mayVote() {
			return false
		}
		probe.Sometimes("raft: a node that has just started gives no vote", !c.takesPart())
		probe.Sometimes("raft: a node that may have forgotten a lease gives no vote", c.takesPart())
		return true
	case raftpb.MsgAppResp, raftpb.MsgVoteResp, raftpb.MsgPreVoteResp:
		if !c.votes.leases {
			return false
		}
		s := c.raft.BasicStatus()
		return m.GetTerm() > s.GetTerm() && s.RaftState == etcd.StateFollower && s.Lead != etcd.None
	}
	return false
}
