package system

// raftBugs are mistakes in raft, in internal/replica and in the store's records. Each
// is one line of the code, behind probe.Bug; numbers are those of the mistakes that others
// have made and that this library has a test against.
var raftBugs = []Bug{
	{"promises leave before they are durable", "votes and acknowledgements do not wait for their record"},
	{"votes are asked for before the term is durable", "as etcd's core has it with asynchronous writes"},
	{"the vote is not stored", "a node votes again after a restart"},
	{"overwritten entries stay on the disk", "a shorter log keeps the tail of the longer one"},
	{"a leader counts its entries before they are durable", "its own vote for an entry does not wait for the disk"},
	{"a leader answers reads without asking", "a lease that no clock bounds"},
	{"a bad record ends the log", "an altered record is taken for a torn tail"},
	{"records are not checked", "the checksums of what is stored are ignored"},
	{"frames are not checked", "the checksums of what arrives are ignored"},
	{"a term's own proposals are taken for lost", "the fence is off by one"},
	{"what a deposed leader proposed is said not to be executed", "unknown is told as no"},
	{"a read does not wait for the state machine", "a confirmed index is enough"},
	{"a read joins an attempt under way", "it was asked before the last write was acknowledged"},
	{"a new leader answers reads at once", "the only voter of a group, before it has decided anything"},
	{"what a restored state holds beyond the log is applied again", "a state machine with a disk of its own is ahead of the log that it replays"},
	{"no space is taken for success", "a refused commit counts as durable"},
	{"a failed sync is ignored", "so does a failed one"},
	{"a snapshot forgets how many commands it holds", "indexes begin anew after it"},
	{"the log is cut before the snapshot is stored", "a crash in between leaves neither"},
	{"a snapshot's transfer is never over", "its receiver gets no other one"},
	{"a wiped node is trusted", "its disk was lost, and with it what it promised"},
	{"a new group does not wait for its members", "one of them takes a wiped node for a new one"},
}

// raftSites are the places that a sweep must reach: all probe.Sometimes in what a raft group
// runs on.
var raftSites = []string{
	"raft: a read waits for a new leader's first decision",
	"raft: altered entries are refused",
	"raft: an answer leaves without a write",
	"raft: an answer waits for an earlier record",
	"raft: entries are overwritten",
	"raft: entries are read from the store",
	"raft: entries are stored as they came or left",
	"raft: the log begins inside a run",
	"raft: vote requests wait for the term",
	"replica: a batch holds many commands",
	"replica: a chunk is sent again",
	"replica: a proposal is lost to a later term",
	"replica: a read is asked again",
	"replica: a read waits for the state machine",
	"replica: a snapshot can't be sent",
	"replica: a snapshot has many chunks",
	"replica: a snapshot is sent",
	"replica: a start removes the chunks of an unfinished snapshot",
	"replica: a wiped node is refused",
	"replica: an altered frame is refused",
	"replica: an installed snapshot leaves an outcome unknown",
	"replica: records gather while a commit is under way",
	"replica: the log is kept for a snapshot's receiver",
	"replica: the store has failed",
	"replica: the store has no space",
	"storage: an altered record is refused",
}
