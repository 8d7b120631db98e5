package system

// txnBugs are mistakes in txn/kv, in internal/paxoscommit, and in what they stand on.
var txnBugs = []Bug{
	{"kv: a vote below the clock", "a group's timestamp is the client's"},
	{"kv: read what is collected", "and take it for what was never there"},
	{"kv: reads are not validated", "when the group votes"},
	{"kv: ranges are not validated", "what was put into them since is not looked for"},
	{"kv: read what is being written", "by a transaction that has voted"},
	{"kv: scan what is being written", "by a transaction that has voted"},
	{"kv: write what is being written", "by a transaction that has voted"},
	{"kv: write what is read", "by a transaction that has voted"},
	{"kv: write into a range that is read", "by a transaction that has voted"},
	{"kv: locks stay", "when a transaction is over"},
	{"kv: commit at this group's own timestamp", "instead of the highest of all groups'"},
	{"kv: the clock stays behind a commit", "later votes get lower timestamps"},
	{"kv: read past a prepared write", "which may be committed at or below the timestamp of the read"},
	{"kv: views are not validated", "over several groups"},
	{"kv: the floor passes what is open", "groups forget votes that count"},
	{"paxoscommit: commit without all votes", "those that are there are yes"},
	{"paxoscommit: forget a vote without an outcome", "because the client says that it is over"},
	{"paxoscommit: closing leaves no record", "the group may vote yes later"},
	{"paxoscommit: expire what is unfinished", "in another group"},
	{"paxoscommit: expire without a horizon", "a late command opens the session again"},
}

var (
	txnBareBugs  []Bug
	txnBareSites []string
)

// txnSites are places that a sweep must reach.
var txnSites = []string{
	"kv: a transaction is ended by another client",
	"kv: a transaction waits for another",
	"kv: a view locks what it reads",
	"kv: the outcome of a commit is not known to its caller",
}
