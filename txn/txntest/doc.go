// Package txntest tests implementations of txn.DecisionLog and of txn.Resource, a subtest a rule, each with the rule in words. The
// library's own pass it: decisions in a store, and in groups of raft and of paxos; files, and a PostgreSQL database.
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
// A resource needs some more than to be opened: how to have it do something, and how to see whether it has.
//
//	func TestResource(t *testing.T) {
//		txntest.RunResource(t, func(t *testing.T, dir string) (txntest.Subject, func()) {
//			queue := …
//			return txntest.Subject{Resource: queue, Do: …, Done: …}, func() { … } // closes it, or kills it
//		})
//	}
//
// # Limits
//
// What survives a crash is tested as far as closing and opening again shows it: durability is the business of what stands
// below, a store that passes storagetest or a group that passes the suite of its engine.
package txntest
