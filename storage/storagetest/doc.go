// Package storagetest proves that an implementation of [storage.Store] keeps
// what that interface promises. Each rule is a subtest whose name states the
// rule.
//
// # Usage
//
//	func TestStore(t *testing.T) {
//		storagetest.Run(t, func(t *testing.T, dir string) storage.Store {
//			store, err := mystore.Open(dir)
//			require.NoError(t, err)
//			return store
//		})
//	}
//
// A store whose crash can be simulated passes [WithCrash] too. The optional
// interfaces, [storage.AsyncCommitter] and [storage.Snapshotter], are tested
// exactly if the store has them. Run it with the race detector.
//
// # Guarantees
//
// Every rule follows from the comments of package storage. A store that passes
// serves every package of the library.
//
// # Limits
//
// Durability across a loss of power is tested only as far as the simulated
// crash goes. Failing disks are for the implementation's own tests: how to make
// one fail is its own affair.
package storagetest
