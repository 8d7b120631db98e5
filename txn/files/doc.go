// Package files is a resource of package txn: the files below a directory. A transaction replaces, creates and removes any
// number of them, together with what its other participants do, or not at all, whatever crashes.
//
// # Usage
//
//	documents, err := files.Open(ctx, files.Config{Dir: dir})
//	manager, err := txn.Start(ctx, txn.Config{…, Resources: map[string]txn.Resource{"documents": documents}})
//
//	tx, err := manager.Begin(ctx)
//	f, err := documents.Begin(ctx, tx.ID())
//	err = f.WriteFile("invoices/17.txt", invoice)
//	err = f.Remove("drafts/17.txt")
//	err = tx.Commit(ctx, txn.Participant{Node: 1, Resource: "documents"}, …)
//
// What a resource on another node is to do goes with the request: txn.Participant.Work, made by [Work].
//
// # How
//
// New contents are written into a staging place, and synced. Prepare writes a manifest, which says where they belong, syncs
// it, and gives it its name: from then on the transaction is in doubt until it is decided. Commit gives each content its
// name by a rename, in the order of the transaction, syncs the directories, and leaves an empty file as a marker, so that a second
// Commit finds that it is done. Abort removes the manifest. All of this is in the directory .synod.
//
// A content keeps its name in the staging place until the new one is durable, and gets that through a second name in the
// same directory: a rename from one directory to another is two changes, and nobody promises that a crash leaves both or none.
//
// # Guarantees
//
// After a crash at any moment each file has its old content, or its new one, whole; what was prepared can be committed, and can
// be aborted; what was committed is. Tests interrupt everything before each call of the file system, once and twice, and
// lose in many ways what was not synced.
//
// One transaction at a time has to do with a file: whoever meets its lock gets ErrLocked, and is voted No. Locks are held while a
// transaction is in doubt, and are there again after a crash.
//
// A sync that failed stops the resource until it is opened again: ErrFailed. A prepared transaction that cannot be read any
// more is an error of Open, or of Commit, and never taken for one that was not there.
//
// Paths are relative, and lead nowhere else: not by dots, and not by symbolic links, which are refused on the way and at its
// end, also when they come after Prepare.
//
// # Cost
//
// A transaction with N files in D directories makes N+4 syncs until it is prepared, and one for each of the D, and for the
// directories that they are in, and one more, when it is committed. In one phase it is the same: several files don't change at once.
//
// # Limits
//
// Files change one after the other: whoever reads them past the resource may see some new and some old, each of them whole. What is
// changed past the resource is overwritten.
//
// A directory belongs to one resource of one process, which a lock sees to, on Unix. Directories must be such that they can be synced, which
// those of Windows can't. Two paths that the file system takes for one, as they differ in case, are locked as two.
//
// A replaced file has Config.FileMode, and is another file: its owner, links and attributes are not kept. Directories that are
// made stay. ReadFile holds a file in memory, of at most Config.MaxBytes.
//
// Of the transactions that are over, Config.MaxMarkers of each run are remembered. A Commit that is asked again later is
// ErrNotPrepared, and recorded as damage: the manager asks again only until it has written down that it is done, which is
// a matter of milliseconds, unless its node crashes just then and its coordinator is away for long.
package files
