package system

// txnBugs are mistakes in txn/kv, in internal/paxoscommit, and in what they stand on.
var txnBugs = []Bug{
	{"kv: a vote below the clock", "a group's timestamp is the client's"},
	{"kv: reads are not validated", "when the group votes"},
	{"kv: what was read ahead is not validated", "a version that the group did not have yet, of a transaction that was certain to be committed"},
	{"kv: ranges are not validated", "what was put into them since is not looked for"},
	{"kv: read what is being written", "by a transaction that has voted"},
	{"kv: scan what is being written", "by a transaction that has voted"},
	{"kv: write what is being written", "by a transaction that has voted"},
	{"kv: write what is read", "by a transaction that has voted"},
	{"kv: write into a range that is read", "by a transaction that has voted"},
	{"kv: commit at this group's own timestamp", "instead of the highest of all groups'"},
	{"kv: the clock stays behind a commit", "later votes get lower timestamps"},
	{"kv: read past a prepared write", "which may be committed at or below the timestamp of the read"},
	{"kv: views are not validated", "over several groups"},
	{"kv: the floor passes what is open", "groups forget votes that count"},
	{"kv: a group votes twice", "a request that comes again is a new one"},
	{"kv: an unknown outcome is taken for none", "and told as no"},
	{"kv: nobody ends what is left behind", "by a client that has gone"},
	{"kv: a read as of a timestamp does not wait for it", "the replica is behind, or commits come below"},
	{"kv: replicas are read without a barrier", "and may be behind"},
	{"kv: a snapshot forgets what is prepared", "and with it the locks"},
	{"kv: a snapshot forgets the time", "votes after it get timestamps below earlier ones"},
	{"paxoscommit: commit at the timestamp of the last vote", "instead of the highest of all groups'"},
	{"paxoscommit: commit without all votes", "those that are there are yes"},
	{"paxoscommit: closing leaves no record", "the group may vote yes later"},
	{"paxoscommit: expire what is unfinished", "in another group"},
	{"paxoscommit: expire without a horizon", "a late command opens the session again"},
}

var (
	// Tests of txn/kv show them, or the model checker (-system paxoscommit); the simulation in too few seeds.
	txnBareBugs = []Bug{
		{"forwarder: serve what was asked of an earlier process", "which may have done it"},
		{"kv: read what is collected", "and take it for what was never there"},
		{"kv: now is what the clock says", "and may be below what was committed here"},
		{"paxoscommit: a commit keeps the timestamp of the vote", "instead of the highest of all groups'"},
		{"paxoscommit: a recoverer presumes an abort", "where votes are missing that it has not closed"},
		{"paxoscommit: an abort of what has no vote leaves no record", "and the group votes yes later"},
		{"paxoscommit: an outcome is overwritten", "by another one"},
		{"paxoscommit: finish before all know", "the outcome"},
		{"paxoscommit: wait for who has forgotten", "and has no vote to give any more"},
		{"paxoscommit: what is over is open", "and is voted for anew"},
		{"paxoscommit: forget a vote without an outcome", "because the client says that it is over"},
		{"kv: a view misses a commit above its timestamp", "which had voted before, and was answered before the view"},
		{"kv: locks stay", "when a transaction is over"},
		{"kv: nothing is kept for who waits", "for one after the other that has come after it"},
		{"kv: what was expected is not locked", "until the outcome is known"},
		{"kv: a session that was forgotten has not voted", "so that the transaction is tried again"},
		{"kv: a resource takes what is locked", "a group that takes part in a transaction of package txn"},
	}
	txnBareSites []string
)

// txnSites are places that a sweep must reach.
var txnSites = []string{
	"forwarder: a request is for an earlier process",
	"kv: a client's session has expired",
	"kv: a snapshot brings what is prepared",
	"kv: a transaction is ended by another client",
	"kv: a transaction is run again when it is its turn",
	"kv: a transaction over several groups gives way to an older one",
	"kv: a transaction reads what is certain ahead of its group",
	"kv: a transaction waits for another",
	"kv: a transaction waits for one that has lost too often",
	"kv: a view locks what it reads",
	"kv: keys are kept for a transaction that has lost",
	"kv: keys are kept for a transaction that has waited",
	"kv: many outcomes are told at once",
	"kv: the outcome of a commit is not known to its caller",
	"kv: versions are collected",
	"kv: what was read has changed when the group votes",
	"paxoscommit: a session is forgotten",
	"paxoscommit: a transaction that is over is forgotten",
	"paxoscommit: a vote is closed",
}
