// Package storage is the seam between the library and what keeps its data: an
// ordered map of byte strings with atomic, durable batches ([Store]). Packages
// memory (for tests) and pebble (for real use) implement it; package
// storagetest proves an implementation of your own.
//
// # Usage
//
//	store, err := pebble.Open(pebble.Config{Dir: "/var/lib/app"})
//	…
//	var b storage.Batch
//	b.Set([]byte("k"), []byte("v"))
//	b.DeleteRange([]byte("old/"), []byte("old0"))
//	err = store.Commit(&b)
//
// Several users share one store, and so its syncs, each under a prefix of its
// own ([Prefix]). Whoever has other work to do while the disk is syncing uses
// [CommitAsync]. What must not be believed after bits have flipped, or after it
// was put in the wrong place, is sealed with [AppendRecord] and read back with
// [OpenRecord].
//
// # Guarantees
//
// A batch is applied whole or not at all, also across a crash. What Commit
// answered with nil is durable. Batches of one goroutine take effect in the
// order in which they were committed, and none survives a crash unless all
// those before it do. A reader sees a batch whole or not at all, possibly
// before it is durable.
//
// "Not there" and "there, but not to be believed" are different errors:
// [ErrNotFound] and [ErrCorrupt], the latter as a [*CorruptError] that names what
// it can: file, key, group and index.
//
// # Failures
//
// After a write or a sync has failed, what is on the disk is unknown, and to try
// again is to believe a page cache that may have dropped the data. So the first
// failure is the last: it and every later commit return an error that wraps
// [ErrFailed], nothing is retried, and the store has to be opened again, usually
// after somebody has looked at the disk. An error that wraps [ErrNoSpace] is
// milder: nothing was written, and the store works again when there is room.
// So is [ErrInvalidBatch].
//
// # Limits
//
// There are no transactions over reads and writes: whoever needs one serializes
// its writers. A key is compared byte by byte, there is no other order. Keys and
// values are held in memory while they are committed: large objects belong into
// chunks, of some hundred KiB each.
package storage
