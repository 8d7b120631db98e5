package paxoscommit

import "github.com/synod-go/synod/internal/modelcheck/network"

// bugs are the mistakes that can be put into the cores, and the models that find them, the fastest first. The last one is in what
// txn/kv keeps of a session, which the models' client does as well.
var bugs = []network.Bug{
	{Name: "paxoscommit: a commit keeps the timestamp of the vote", Models: []string{"base"}},
	{Name: "paxoscommit: a recoverer presumes an abort", Models: []string{"base"}},
	{Name: "paxoscommit: an abort of what has no vote leaves no record", Models: []string{"base"}},
	{Name: "paxoscommit: an outcome is overwritten", Models: []string{"late"}},
	{Name: "paxoscommit: closing leaves no record", Models: []string{"base"}},
	{Name: "paxoscommit: commit at the timestamp of the last vote", Models: []string{"base"}},
	{Name: "paxoscommit: commit without all votes", Models: []string{"base"}},
	{Name: "paxoscommit: expire what is unfinished", Models: []string{"expiry"}},
	{Name: "paxoscommit: expire without a horizon", Models: []string{"expiry"}},
	{Name: "paxoscommit: finish before all know", Models: []string{"base"}},
	{Name: "paxoscommit: forget a vote without an outcome", Models: []string{"full"}},
	{Name: "paxoscommit: wait for who has forgotten", Models: []string{"expiry"}},
	{Name: "paxoscommit: what is over is open", Models: []string{"floor"}},
	{Name: "kv: the floor passes what is open", Models: []string{"floor"}},
}
