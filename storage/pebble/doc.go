// Package pebble keeps a [storage.Store] on disk, with the Pebble engine. It is
// the store for real use, and the only package that imports Pebble.
//
// # Usage
//
//	store, err := pebble.Open(pebble.Config{Dir: "/var/lib/app"})
//
// One store serves all groups of a process, so that they share its syncs.
//
// # How it works
//
// It is tuned for logs: written once, read rarely, cut from the front. A batch
// goes to Pebble's write-ahead log and to a table in memory; a range that is
// deleted before that table is full never reaches another file. All commits that
// wait share one sync. CommitAsync returns once a batch is in the table and
// queued for the log; one goroutine calls the dones, in order.
//
// To sync a file that has grown costs about half as much again as to sync one
// that has not, because its length has to be written too. So a write-ahead log
// is filled with zeros a little ahead of where it is written, and used again
// when it is no longer needed.
//
// # Failures
//
// Pebble ends the process when it can't write its log or its manifest. Here,
// between Pebble and the files stands a guard instead. The first write or sync
// that fails freezes the directory as it is: nothing is written, renamed or
// removed any more, Pebble goes on above a mirage in memory, and every commit
// that was not acknowledged before fails with an error that wraps
// storage.ErrFailed and the cause. Reads still work. Opened again, the store
// holds everything that was acknowledged.
//
// A full disk is kept from becoming such a failure: below
// [Config].MinFreeBytes, commits are refused with storage.ErrNoSpace before
// anything is written, and accepted again when there is room. Batches that only
// delete are let through down to a quarter of it, since they make room. Pebble's
// own writes in the background wait for room. Where the disk fills up within
// moments and the log itself can't be written, the store fails as above.
//
// A table file that is corrupt makes reads of its range return a
// *storage.CorruptError that names the file; the store goes on for other ranges.
// A corrupt record in a write-ahead log makes Open return one. Everything in
// the background is logged.
//
// # Limits
//
// A flipped bit in the very last record of a log can't be told from a write that
// a crash cut off, and is taken for one. Who must know keeps what it promised in
// more than one place, as a replicated log does.
//
// A key must not begin with 256 bytes of 0xff, and a batch must be smaller than
// 1 GiB; such batches are refused with storage.ErrInvalidBatch. A done must not
// commit: it runs on the goroutine that calls the dones, and a commit may wait
// for it.
//
// Pebble itself stalls a commit where its work in the background can't keep up.
package pebble
