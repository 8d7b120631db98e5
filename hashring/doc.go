// Package hashring says which node a key belongs to, and moves as few keys as can be
// when nodes come and go: consistent hashing. A ring is an immutable value; a change
// makes the next version of it. All good algorithms stand behind one type, and share
// weights, draining, replicas over failure domains, exact differences between
// versions, bounded loads, tenants and an encoding. It needs the standard library only.
//
// # Usage
//
//	ring, err := hashring.New(hashring.Config{}, hashring.Nodes("a", "b", "c")...)
//	node := ring.Owner("user:17")            // no error: a ring always has an answer
//	owners, err := ring.Owners("user:17", 2) // replicas, in different zones if there are
//	next, err := ring.Add(hashring.Node[string]{ID: "d", Weight: 2})
//	diff, err := hashring.Diff(ring, next)   // which hashes move, from whom to whom
//
// A process that serves while nodes change holds its ring in a [Live]: readers load
// the version in use without a lock. Processes agree by exchanging encodings
// ([Ring.MarshalBinary], [Decode]) and comparing versions and fingerprints.
//
// [Bounded] is for keys that are assigned and released, such as connections, so that
// no node gets more than its bound; [Ring.Choose] takes the least loaded of a few;
// [Ring.Subset] gives each tenant nodes of its own (shuffle sharding).
//
// # Which algorithm
//
//	                  look-up  tables  one     largest  moves beyond  weights  removal  ranges  replicas
//	                  ns       KiB     more    share    the need                                stable
//	Points            20       2,391   0.2 ms  1.24     none          rounded  any      yes     yes
//	Allocated         16       1,006   1.7 ms  1.00     none          exact    any      yes     yes
//	Maglev            4.5      128     1.6 ms  1.01     × 6.8         exact    any      yes     no
//	Asura             4.3      12      0.1 ms  1.00 ±   none          exact    any      no      yes
//	RendezvousTable   4.5      136     1.3 ms  1.40     none          ±        any      yes     yes
//	Rendezvous        800      8       0.1 ms  1.00 ±   none          exact    any      no      yes
//	Jump              32       4       0.1 ms  1.00 ±   × 1; × 2      equal    last     no      no
//	MultiProbe        195      16      0.1 ms  1.06 ±   none          equal    any      no      yes
//
// Measured with 1,000 nodes and the defaults on one core, string keys of 16 bytes,
// hash included, nothing allocated (go test -bench . ./hashring).
// With half of the nodes gone, Asura takes 10 ns. Largest share is that of the busiest
// node as a multiple of the mean, counted out for a new ring; ± says that each key, or
// slot, draws on its own, so that counts vary as chance would have it, by √(nodes/keys).
// Moves are over what anybody must move when one node leaves; Jump's are × 1 if it is
// the last, × 2 else. Where removal is for the last only, another one costs that.
//
//   - [Points], the default, is what everybody knows, and follows from the members
//     alone. Its shares are uneven: take more points, or
//   - [Allocated] where shares are to be even and each change to be known as ranges:
//     stores that move data. Its points depend on the order of additions: one process
//     makes the versions, and the others decode them. After removals, Rebalance.
//   - [Asura] where nodes come and go in any order, at any weights: the fastest with
//     minimal movement. Slots of newcomers depend on history; removals in any order
//     agree.
//   - [RendezvousTable] for the same where every process builds the ring by itself and
//     all must agree without exchanging a byte: it depends on the members alone. More
//     slots make it evener: 1,000 a node for 3 %.
//   - [Maglev] where balance and speed count for more than keys that move without need:
//     balancers of connections. When one of 100 nodes leaves, 1.5 times the need moves;
//     when one of 1,000 does, 6.8 times: larger tables move less.
//   - [Rendezvous] for up to about 30 nodes: the simplest thing that is exactly right.
//   - [Jump] for buckets that are numbered and only ever grow; it is compatible with
//     other implementations, given the same 64-bit key.
//   - [MultiProbe] where memory counts and time does not. It bounds the largest share
//     only: others are as small as chance has it.
//
// # Guarantees
//
// Look-ups: Owner and its like never fail, and allocate nothing. Nothing panics on
// names, weights, zones, keys, hashes and encodings, whatever they are.
//
// Movement: with all algorithms but Maglev and Jump, a change moves keys only to a node
// that comes or gains weight, and only from one that leaves or loses weight.
//
// History: Points, Maglev, Rendezvous, RendezvousTable and MultiProbe depend on
// the members alone. Asura, Allocated and Jump depend on the order of additions (Jump
// on that of removals, too), which is encoded; New puts nodes in the order of their
// names first.
//
// No two nodes have one place: of two points at one place, the first node's by name
// counts, and the other's is back when that one goes. Nodes whose names have the same
// 64-bit hash are refused.
//
// Replicas: [Ring.Owners] returns distinct nodes, the owner first, spread evenly over
// the outermost zones, within each over the zones inside it, and so on, never more than
// [Config.MaxPerZone] in an outermost one. With the algorithms that are marked, one
// change of one node replaces at most one of them, at any number of replicas.
//
// Shares and differences are exact for the algorithms that make ranges: they add up to
// the whole and to each other to the last of the 2^64 hashes.
//
// # Names
//
// A node's places follow from its name: of a string, itself; of an integer, its
// decimal digits; of what is [Named], what that says; of a struct or array of such and
// of booleans, its parts, each after its length. Anything else is refused, since
// addresses and formats differ between processes. The IDs that look-ups return may
// carry more, an address for example: only the name is hashed and encoded.
//
// # Format
//
// The hash, the places, the draws and the encoding are one format, version 1:
// testdata/golden.txt holds vectors for other implementations. It is the same on every
// platform: what is not integer arithmetic is IEEE 754 without fused operations. The
// hash folds 128-bit products, like the wyhash family, with constants and rounds of its
// own; it is fast and even, and not meant to withstand an adversary who chooses keys.
//
// # Literature
//
// Points: Karger, Lehman, Leighton, Panigrahy, Levine and Lewin, Consistent Hashing and
// Random Trees (STOC 1997), section 4. Where they search a tree, the highest bits of a
// hash choose a leaf of some 24 points here, and the next ones where to look in it:
// constant time. A change merges into the leaves that it touches; versions share the
// others.
//
// Allocated: Lambov, New token allocation algorithm in Cassandra 3.0 (2016), and
// Miranda, Effert, Kang, Miller, Popov, Brinkmann, Friedetzky and Cortes, Random
// Slicing (ACM Transactions on Storage, 2014). Lambov tries candidates and keeps the
// best for the replicated ownership of a node; here, New divides the circle exactly,
// additions cut what is owed from the fullest nodes, and it is primary ownership that
// is evened out. Unlike Random Slicing, ranges of a node that leaves go to the next
// point, without which sets of replicas would change by more than one member.
//
// Maglev: Eisenbud and others, Maglev: A Fast and Reliable Software Network Load
// Balancer (NSDI 2016), section 3.4; the bound of 1 % in section 5.3. Weights are turns
// in proportion, which they mention and do not spell out.
//
// Rendezvous: Thaler and Ravishankar, Using Name-Based Mappings to Increase Hit Rates
// (IEEE/ACM Transactions on Networking, 1998); weights by the logarithmic method of
// Schindelhauer and Schomaker, Weighted Distributed Hash Tables (SPAA 2005), here with
// a bound that avoids almost all logarithms. RendezvousTable applies it to slots.
//
// Asura: Ishikawa, ASURA: Scalable and Uniform Data Distribution Algorithm for Storage
// Clusters (arXiv:1309.7720): nested sequences of draws; the same idea with one level
// in Chawla, Reed, Juhnke and Syed, Semantics of Caching with SPOCA (USENIX ATC 2011).
// Levels here are of any size, a draw that falls through is not drawn anew from the
// whole, and after 255 misses rendezvous hashing decides, so that time is bounded.
// AnchorHash (Mendelson and others, IEEE/ACM Transactions on Networking, 2021) and
// MementoHash (Coluzzi, Brocco, Antonucci and Leidi, 2023) solve the same problem, but
// where their keys go depends on the order of removals.
//
// Jump: Lamping and Veach, A Fast, Minimal Memory, Consistent Hash Algorithm
// (arXiv:1406.2294): the published function. Their standard error of 7.64e-9 is that of
// 1,000 buckets of 2^64 keys at random; the 31-bit fractions of the function are off by
// more, 2.4e-7, counted out in a test.
//
// MultiProbe: Appleton and O'Reilly, Multi-Probe Consistent Hashing (arXiv:1505.00062),
// with independent probes.
//
// Bounded: Mirrokni, Thorup and Zadimoghaddam, Consistent Hashing with Bounded Loads
// (SODA 2018). They keep every key where a fresh assignment would have it, which moves
// a multiple of 1/ε² of the need; here, a key stays where it is until a bound or a
// better node asks for it, and the assignment is remembered. Choose: Mitzenmacher, The
// Power of Two Choices in Randomized Load Balancing (IEEE Transactions on Parallel and
// Distributed Systems, 2001).
//
// # Limits
//
// A million nodes; 65,535 with Maglev and RendezvousTable; weights between 1/1024 and
// 1,024 times [Config.WeightUnit]. With Points, low weights are rounded to whole points:
// one of 0.01 has 2 of 160. Asura takes draws for empty slots: a ring that shrank to a
// tenth for good, or that grew by many levels, is faster when New makes it anew, at the
// price of moving keys. Allocated gains a few points a node with each addition, and
// drifts out of its tolerance as nodes leave, until Rebalance. Rendezvous, and replicas
// of RendezvousTable, take time in proportion to the nodes. Zones are strict by default:
// more replicas than zones are refused until Config.MaxPerZone allows them. The share of
// a node as a replica, unlike as an owner, is not evened out. Bounded keeps every key in
// memory, and takes a lock.
package hashring
