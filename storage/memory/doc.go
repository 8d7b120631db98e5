// Package memory keeps a [storage.Store] in memory, for tests. It tells what is
// visible from what is durable, can lose the difference, and fails where a test
// wants it to.
//
// # Usage
//
//	store := memory.Open(memory.Config{})
//	…
//	store = store.Crash() // what a process finds that starts after a crash
//
// With [Store.HoldSync] commits take effect but do not become durable, until
// [Store.ReleaseSync]: what a protocol says in between, it says too early.
// [Store.FailCommit], [Store.FailSync] and [Store.SetFull] make the store fail.
//
// # Guarantees
//
// All of package storage; the store is a [storage.AsyncCommitter] and a
// [storage.Snapshotter]. It starts no goroutine, reads no clock, and answers
// equal calls equally, so that it runs in a simulation. A snapshot or an iterator
// costs no copy: the tree is immutable, and a commit makes a new one that shares
// most of it. To catch those who keep what they must not, an iterator overwrites
// the key and the value that it returned before.
//
// # Limits
//
// Everything is in memory and gone with the process. A batch is durable or not,
// never torn: what half a write does to a disk is for package pebble's tests.
// Commit, unlike CommitAsync, blocks its goroutine while syncs are held.
package memory
