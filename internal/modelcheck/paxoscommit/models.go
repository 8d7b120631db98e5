package paxoscommit

import "github.com/synod-go/synod/internal/modelcheck/network"

// System returns the models of commitment over consensus groups, and the mistakes that they find.
func System() network.System {
	s := network.System{Bugs: bugs}
	for _, m := range models() {
		s.Models = append(s.Models, m)
	}
	return s
}

// over returns groups.
func over(groups ...uint32) []uint32 { return groups }

// models returns all of them. The first is the one that is meant by "the protocol is right": the others each look at
// something that it leaves out.
func models() []*Model {
	both := []Transaction{{1, over(1, 2)}}
	return []*Model{
		{
			Name: "base", For: "two groups, a client, and two recoverers that come across what is unfinished at any time, and race",
			Groups: 2, Transactions: both, Refusing: over(1, 2), Recoverers: 2, Short: true,
		},
		{
			Name: "three", For: "three groups",
			Groups: 3, Transactions: []Transaction{{1, over(1, 2, 3)}}, Refusing: over(3), Recoverers: 1,
		},
		{
			Name: "floor", For: "two transactions of a session, the second of which says that the first is over",
			Groups: 2, Transactions: []Transaction{{1, over(1, 2)}, {1, over(1, 2)}}, Refusing: over(2),
		},
		{
			Name: "late", For: "a transaction that is over, and whatever was sent comes again, while a second one says that it is over",
			Groups: 2, Transactions: []Transaction{{1, over(1, 2)}, {1, over(1, 2)}}, Recoverers: 1, Seen: 1,
			Before: []string{"begin by=(1,2) session=1", "settle again"},
		},
		{
			Name: "expiry", For: "a group forgets sessions, and all comes late",
			Groups: 2, Transactions: both, Refusing: over(2), Recoverers: 2, Short: true, Expirations: 1,
		},
		{
			Name: "sessions", For: "two sessions over two groups, one of which a group forgets",
			Groups: 2, Transactions: []Transaction{{2, over(1, 2)}, {1, over(1, 2)}}, Recoverers: 1, Seen: 1, Expirations: 1, Patient: true,
		},
		{
			Name: "full", For: "a group has no room for a session when it hears of an abort, and is asked for its vote later",
			Groups: 2, Transactions: []Transaction{{1, over(1, 2)}, {1, over(1, 2)}}, Refusing: over(1), Full: 1, Patient: true,
			Before: []string{"begin by=(1,2) session=1", "deliver from=3 to=1 type=prepare nth=2", "deliver from=1 to=3 type=vote"},
		},
		{
			Name: "apart", For: "two transactions of a session over different groups, one of which has a part in both",
			Groups: 3, Transactions: []Transaction{{1, over(1, 2)}, {1, over(2, 3)}}, Refusing: over(2), Recoverers: 1, Seen: 1, Patient: true,
		},
		{
			Name: "forgotten", For: "a transaction that was over long ago: a group forgets its session, others' sessions, and all comes late",
			Groups: 2, Transactions: []Transaction{{1, over(1, 2)}, {2, over(1, 2)}}, Recoverers: 1, Expirations: 2, Patient: true, Seen: 1,
			Before: []string{"begin by=(1,2) session=1", "settle again"},
		},
		{
			Name: "single", For: "transactions of one group, which need no second round, beside one of two",
			Groups: 2, Transactions: []Transaction{{1, over(1)}, {1, over(1, 2)}}, Refusing: over(1), Recoverers: 1, Expirations: 1,
		},
	}
}
