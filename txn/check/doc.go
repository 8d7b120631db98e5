// Package check says whether what the clients of a database saw can be so, if the database
// keeps to its isolation level: strict serializability, snapshot isolation and others. It takes
// a history of transactions over lists and registers, infers which ones must have come before
// which, and looks for cycles, in the manner of Elle (Kingsbury and Alvaro, "Elle: Inferring
// Isolation Anomalies from Experimental Observations", VLDB 2020), with the phenomena of Adya
// ("Weak Consistency", 1999; Adya, Liskov and O'Neil, "Generalized Isolation Level
// Definitions", ICDE 2000). What it finds, it explains in words, by the few transactions that
// it takes. It needs the standard library only, and works for any database.
//
// # Usage
//
//	var recorder check.Recorder
//	… // every client, for every transaction that it tries:
//	tx := recorder.Begin(client)
//	value := recorder.Unique()
//	tx.Append("x", value) // before it is sent
//	…
//	tx.Read("y", list...) // once it is answered
//	switch err := …; {
//	case err == nil:
//		tx.Commit()
//	case …: // certainly not executed
//		tx.Abort()
//	default:
//		tx.Unknown()
//	}
//	…
//	report, err := recorder.History().Check(check.Config{Model: check.Serializable})
//	if err != nil { … } // the history was not recorded as it should be
//	if !report.OK() {
//		fmt.Println(report)
//	}
//
// Where a library executes a function again until it commits, each execution is a transaction
// of its own, with values of its own: begin one when the function begins, and abort the one
// before.
//
// A good workload has few keys at a time, so that transactions meet, and gives each one up
// after a hundred writes or so, since a list is recorded in full with every read of it. Its
// transactions are short, read and write several keys each, and some only read. Take lists
// where you can: one read of a list tells in which order all its elements came. Of registers,
// whose reads tell one value each, much less is known.
//
// A [History] is plain data. It is saved with [History.WriteTo] and read again with
// [ReadHistory], or made by hand.
//
// # What is found
//
//	                                                      excludes
//	garbage-read, duplicate-elements, own-write-unseen    everything
//	G0        write cycle                                 read uncommitted
//	G1a, G1b  aborted read, intermediate read             read committed
//	G1c       circular information flow                   read committed
//	dirty-update, future-read, incompatible-order,
//	cyclic-versions                                       read committed
//	internal, lost-update                                 snapshot isolation, repeatable read
//	G-single       read skew                              snapshot isolation, repeatable read
//	G-nonadjacent  long fork and the like                 snapshot isolation, repeatable read
//	G2-item        write skew                             serializable, repeatable read
//	G2             write skew by phantoms                 serializable
//	…-process      the same, with the order of a process  the same of a strong session
//	…-realtime     the same, with real time               strict serializable, strong snapshot isolation
//
// Each excludes what is stronger, too. Of scans and phantoms, repeatable read forbids nothing.
// [Report] has all of it as data, and its String in words:
//
//	G-single-realtime: read skew, or a stale read, by real time
//	  T0 (1 to 2): append x 1
//	  T1 (3 to 4): read x []
//	  T0 before T1: T0 had ended, at 2, when T1 began, at 3
//	  T1 before T0: T1 saw nothing in x, and not the 1 that T0 appended (T2 read [1])
//	  so: T0 -realtime-> T1 -rw-> T0
//
// # Guarantees
//
// What is reported contradicts the model: no database that keeps to it can have produced the
// history, if the history says what happened. That rests on what is recorded being so: writes
// recorded before they are sent, reads as they were answered, Committed and Aborted only where
// that is certain, times of one clock, and keys that held nothing before. An append must be one
// step of the database: one that is made of a read and a write may lose what another one
// appended between, by right, at levels below repeatable read and snapshot isolation.
//
// The models of an anomaly, [Anomaly.RulesOut], are certain; its name is the best that can be
// said. If a database returns what was aborted, for example, other things can look like what
// they are not; they exclude the same models.
//
// A transaction of unknown outcome counts once somebody has read from it who counts: then it
// has committed, or there is an aborted read. It may take effect at any time after it began. As
// long as nobody has, it says nothing.
//
// Of each set of transactions that depend on each other, and each kind, one cycle is reported
// that is a shortest one, unless [Anomaly.Shortest] says otherwise. A kind that follows from
// another one that was found in the same set is left out: who has G-single has G2-item. The
// report is the same for the same history, to the byte.
//
// Time and memory are linear in the history, all recorded values counted, but for logarithms:
// 20,000 transactions take about half a second on one core (go test -bench Check). Where much
// is wrong, a search for shorter cycles is cut off after a fixed number of steps. Reports are
// bounded by [Config.MaxPerKind].
//
// # What is not found
//
// Histories of lists are held against the serializable models, strict or not, without leaving
// anything out: every read says which appends came before it and which came after, and where
// there is no cycle, every order that agrees with that explains all reads.
//
// Of registers, only a part of the order is known: that nothing comes before what was there at
// first; what a transaction read before it wrote; and, where the model includes them, what
// processes and real time tell. It would take more to also conclude the order of writes from
// that of their transactions, and from that further orders; deciding the question is
// NP-complete (Papadimitriou, 1979). So some histories of registers pass that no order
// explains. Those of strict serializability that do are rare, since real time orders most
// writes.
//
// Nothing is said of what aborted transactions read, of keys that are deleted or that held
// something before (let a first transaction write them), nor of predicates other than ranges of
// keys.
//
// # Differences from the paper
//
// Its formal part infers from one observation what holds in all interpretations; the inferences
// here are the same for lists and for the sound part of registers, and are tested against all
// orders of small histories rather than proved. In the order of the paper's topics:
//
//   - Recoverability. Values must differ per key, and histories in which they do not are
//     refused, the ones of aborted transactions included.
//   - Traceability. Where reads of a list do not agree, the paper takes the longest one; here,
//     the order ends where they begin to differ. What an aborted transaction appended is taken
//     out first: it is an anomaly of its own. A read after the transaction's own appends counts
//     as a read of what stands before these. Elements of one transaction must be in its order,
//     and all there.
//   - Registers. The paper offers orders from writes that follow reads, from processes and from
//     real time as assumptions. Here, the first always holds where read committed does; the
//     others are used where the model implies them, and the anomaly is named after them
//     (-process, -realtime); real time is an assumption only in [Config.LinearizableKeys].
//     Beyond the paper, who finds nothing and writes is taken for the first one to write,
//     unless an update was lost.
//   - Phenomena. G0 excludes read uncommitted only where all of its transactions have committed
//     for certain, and the versions on it are final. G-nonadjacent is not in the paper; see
//     Cerone and Gotsman, "Analysing Snapshot Isolation" (PODC 2016), for why snapshot
//     isolation excludes it. Lost updates are found as such, without an order of their writes.
//   - Predicates. The paper leaves them out. Here, a scan reads each key of its range, and
//     those that it did not find held nothing: that is sound, as nothing is ever deleted.
//   - Real time and processes. The paper links each transaction with the latest ones that had
//     ended, some per client; here, a chain of junctions stands for time, one edge in and one
//     out a transaction. On a cycle, a way through the chain counts as one step.
//   - Search. Cycles without adjacent anti-dependencies are found in a graph with two copies of
//     each transaction, for having been come to by one and not. Where no cycle is, one pass of
//     Tarjan's algorithm is all that it takes.
//
// # Limits
//
// Histories are kept in memory, and a check takes some kilobytes a transaction more. A history
// has at most 2^26 transactions and operations.
package check
