package system

import "slices"

// Mistakes: each is one line of the code, behind probe.Bug.

// runtimeBugs are mistakes in internal/replica and in the store's records, that every engine has.
var runtimeBugs = []Bug{
	{"records are not checked", "the checksums of what is stored are ignored"},
	{"frames are not checked", "the checksums of what arrives are ignored"},
	{"a term's own proposals are taken for lost", "the fence is off by one"},
	{"what a deposed leader proposed is said not to be executed", "unknown is told as no"},
	{"a read does not wait for the state machine", "a confirmed index is enough"},
	{"a read joins an attempt under way", "it was asked before the last write was acknowledged"},
	{"a lease is counted from the answer", "to a read, which may have been under way for long"},
	{"a lease counts on the random part of the election timeout", "followers may be quicker"},
	{"a lease survives a transfer", "which makes another member stand for election at once"},
	{"what a restored state holds beyond the log is applied again", "a state machine with a disk of its own is ahead of the log that it replays"},
	{"no space is taken for success", "a refused commit counts as durable"},
	{"a failed sync is ignored", "so does a failed one"},
	{"a snapshot forgets how many commands it holds", "indexes begin anew after it"},
	{"the log is cut before the snapshot is stored", "a crash in between leaves neither"},
	{"a snapshot's transfer is never over", "its receiver gets no other one"},
	{"a wiped node is trusted", "its disk was lost, and with it what it promised"},
	{"a new group does not wait for its members", "one of them takes a wiped node for a new one"},
	{"a snapshot that broke off is waited for", "and another one not taken, though its sender is gone"},
	{"a wiped node takes the place of its predecessor", "without having left, and with the vote that that one had"},
	{"an old copy of a disk is trusted", "and what was promised since it was made, forgotten"},
	{"a retry is applied again", "a session does not know its own requests"},
	{"the sessions are not in the snapshot", "who is restored from it takes a retry for something new"},
	{"a start forgets the sessions of a state machine that has a disk", "it stores no snapshots, and its log is cut"},
	{"sessions expire by each node's own clock", "and so here and not there"},
}

// raftOwnBugs are mistakes in raft.
var raftOwnBugs = []Bug{
	{"promises leave before they are durable", "votes and acknowledgements do not wait for their record"},
	{"votes are asked for before the term is durable", "as etcd's core has it with asynchronous writes"},
	{"the vote is not stored", "a node votes again after a restart"},
	{"overwritten entries stay on the disk", "a shorter log keeps the tail of the longer one"},
	{"a leader counts its entries before they are durable", "its own vote for an entry does not wait for the disk"},
	{"a bad record ends the log", "an altered record is taken for a torn tail"},
	{"a restarted member votes at once", "and has forgotten whose lease it confirmed"},
	{"a replica that leaves forgets its vote", "and joins again, to vote twice in a term"},
	{"a repair forgets what follows its snapshot", "which was acknowledged"},
	{"a leader answers reads without asking", "a lease that no clock bounds"},
	{"a new leader answers reads at once", "the only voter of a group, before it has decided anything"},
}

// paxosOwnBugs are mistakes in paxos, and in the core of it.
var paxosOwnBugs = []Bug{
	{"a promise leaves before it is durable", "so does what it says of the values accepted"},
	{"a promise is not stored", "a node promises less after a restart"},
	{"a promise is forgotten", "a prepare of a lower ballot is answered as well"},
	{"an accept does not raise the promise", "promised and accepted are taken for one and the same"},
	{"an accept of a lower ballot is taken", "whatever was promised"},
	{"an accept is acknowledged before it is durable", "the acceptor's vote does not wait for the disk"},
	{"a leader counts its accept before it is durable", "nor does its own"},
	{"the round is not durable before the prepare", "it is used again after a restart"},
	{"a round is used twice", "one leader, two attempts"},
	{"a partial promise counts", "the first piece is taken for all of it"},
	{"a trimmed acceptor says empty", "what is not in the log is taken for never accepted"},
	{"an unreadable slot is empty", "a damaged record is passed over at the start"},
	{"the lowest ballot's value taken", "of several that were reported for a slot"},
	{"a gap is filled where there is a value", "a new leader gives up what may be chosen"},
	{"accepts of another ballot counted", "late ones, of this node's last time in office"},
	{"decided marks slots of other ballots", "what is accepted there is taken for what is chosen"},
	{"a quorum of one half decides", "while two sets of voters decide together"},
	{"phase 1 of the old configuration only", "nobody asks the new voters what they have accepted"},
	{"the window open behind a configuration", "slots are decided by voters who may not be the ones"},
	{"a replica that leaves forgets its promise", "and joins again, to promise less"},
	{"a filled gap is a fence", "what may be chosen yet is said to be lost"},
	{"a read looks at one member only", "where there is no leader"},
	{"a read takes what is accepted for decided", "the second look is left out"},
	{"a leader answers reads without asking", "a lease that no clock bounds"},
	{"a new leader answers reads at once", "before what it found is decided"},
	{"a repair forgets what follows its snapshot", "which was acknowledged"},
	{"a lease binds nobody", "members promise to another one at once"},
	{"a restarted member promises at once", "and has forgotten whose lease it confirmed"},
}

// A leader of Multi-Paxos knows after a restart what is decided, and is hardly ever asked for a snapshot while it still replays
// its log: the first seed that shows this is 1919. A rule of internal/replica/grouptest shows it each time.
var paxosReplays = Bug{"what a restored state holds beyond the log is applied again", "a state machine with a disk of its own is ahead of the log that it replays"}

// A node of package paxos repairs what it can't read of its log before it takes part, and keeps in memory what
// is not decided. So an acceptor that does not know what it accepted in some slot is seen where bare cores run, in
// the tests of internal/multipaxos.
var (
	paxosBareBugs = []Bug{
		{"an unknown slot taken for an empty one", "a leader fills a slot of which an acceptor has forgotten the value"},
		{"a fence is about its own round, too", "values that two leaders of one round proposed are said to be lost"},
		{"a node that hears a leader stands for election", "and takes its office"},
		{"a node that may not be the only voter leads at once", "and decides alone"},
		{"a replica that joins again takes what it accepted for nothing", "what it had is empty instead of unknown"},
		{"quorums need not intersect", "a phase 1 that misses what was decided"},
		paxosReplays,
	}
	paxosBareSites = []string{
		"paxos: a late promise knows more",
		"paxos: a leader finds nobody who knows what is decided",
		"paxos: a leader waits for somebody who knows a slot",
		"paxos: a member has forgotten what it accepted",
		"paxos: a node promises again, since it knows all now",
		"paxos: an acceptor does not know what it accepted",
		"paxos: what was lost does not matter any more",
	}
)

// What can be planted in each engine.
var (
	raftBugs  = slices.Concat(raftOwnBugs, runtimeBugs)
	paxosBugs = slices.DeleteFunc(slices.Concat(paxosOwnBugs, runtimeBugs), func(b Bug) bool { return b.Name == paxosReplays.Name })
)

// Places that a sweep must reach: all probe.Sometimes in what a group runs on.

// runtimeSites are those of internal/replica and of the store's records.
var runtimeSites = []string{
	"replica: a batch holds many commands",
	"replica: a change waits for its voters",
	"replica: a checkpoint waits for the state machine",
	"replica: a chunk is sent again",
	"replica: a group refuses an incarnation that it has not admitted",
	"replica: a leader that leaves hands over",
	"replica: a lease is renewed",
	"replica: a member is removed",
	"replica: a member that was removed is told so",
	"replica: a node learns that its disk is an old copy",
	"replica: a node votes though some have not answered",
	"replica: a proposal is lost to a later term",
	"replica: a read is answered by the lease",
	"replica: a read is asked again",
	"replica: a read under a lease waits for the state machine",
	"replica: a read waits for the state machine",
	"replica: a record is repaired",
	"replica: a request finds no session",
	"replica: a request is stale",
	"replica: a retry comes before the first result",
	"replica: a retry finds its result lost",
	"replica: a retry gets the first result",
	"replica: a session expires",
	"replica: a snapshot brings sessions",
	"replica: a snapshot can't be sent",
	"replica: a snapshot has many chunks",
	"replica: a snapshot is sent",
	"replica: a snapshot takes the place of damaged records",
	"replica: a start finds sessions in a checkpoint",
	"replica: a start removes the chunks of an unfinished snapshot",
	"replica: a transfer waits for its turn",
	"replica: a wiped node is refused",
	"replica: an altered frame is refused",
	"replica: an installed snapshot leaves an outcome unknown",
	"replica: an old copy of a disk is refused",
	"replica: records gather while a commit is under way",
	"replica: the log is kept for a snapshot's receiver",
	"replica: the store has failed",
	"replica: the store has no space",
	"replica: there are too many sessions",
	"storage: an altered record is refused",
}

// runtimeRareSites are reached in so few seeds that a sweep of some hundreds may miss them; of 1,000, seven and forty
// reached them (paxos, from seed 1 on). Rules of internal/replica/grouptest reach both each time.
var runtimeRareSites = []string{
	"replica: a node's own snapshot covers damaged entries",
	"replica: a transfer is resumed",
}

// raftOwnSites are those of raft.
var raftOwnSites = []string{
	"raft: a node that has just started gives no vote",
	"raft: a node that may have forgotten a lease gives no vote",
	"raft: a read waits for a new leader's first decision",
	"raft: altered entries are refused",
	"raft: an answer leaves without a write",
	"raft: an answer waits for an earlier record",
	"raft: entries are overwritten",
	"raft: entries are read from the store",
	"raft: entries are stored as they came or left",
	"raft: the log begins inside a run",
	"raft: two sets of voters decide together",
	"raft: vote requests wait for the term",
}

// paxosOwnSites are those of paxos, and of the core of it.
var paxosOwnSites = []string{
	"paxos: a candidate lacks a configuration",
	"paxos: a candidate tries again",
	"paxos: a change waits for those who are to decide",
	"paxos: a gap is filled",
	"paxos: a leader is told of a higher ballot",
	"paxos: a leader lacks decided values",
	"paxos: a leader promises to another one",
	"paxos: a leader that hears too few steps down",
	"paxos: a member takes over",
	"paxos: a member that hears a leader says no",
	"paxos: a missing record is named",
	"paxos: a node that could not decide does not stand for election",
	"paxos: a promise comes in pieces",
	"paxos: a promise is refused for a lease",
	"paxos: a read is answered without a leader",
	"paxos: a read waits for the second look",
	"paxos: a read waits for what a new leader found",
	"paxos: a record can't be read",
	"paxos: a record is missing",
	"paxos: a replica that was told nothing yet promises nothing",
	"paxos: a snapshot takes the place of the log",
	"paxos: a value is accepted out of order",
	"paxos: a value that was given up is not proposed again",
	"paxos: altered values are refused",
	"paxos: an accept is sent again",
	"paxos: others know more to be decided than the leader",
	"paxos: the log begins inside a run",
	"paxos: two sets of voters decide together",
	"paxos: values are fetched from another member",
	"paxos: values are read from the store",
	"paxos: what is decided waits for the state machine",
}

// What a sweep of each engine must reach.
var (
	raftSites  = slices.Sorted(slices.Values(slices.Concat(raftOwnSites, runtimeSites)))
	paxosSites = slices.Sorted(slices.Values(slices.Concat(paxosOwnSites, runtimeSites)))
)
