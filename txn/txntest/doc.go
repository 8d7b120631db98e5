// Package txntest tests implementations of txn.DecisionLog, a subtest a rule, each with the rule in words. The library's
// own pass it: in a store, and in groups of raft and of paxos.
//
// # Usage
//
//	func TestLog(t *testing.T) {
//		txntest.Run(t, func(t *testing.T, dir string) (txn.DecisionLog, func()) {
//			log := …
//			return log, func() { … } // closes it
//		})
//	}
//
// # Limits
//
// What survives a crash is tested as far as closing and opening again shows it: durability is the business of what stands
// below, a store that passes storagetest or a group that passes the suite of its engine.
package txntest
