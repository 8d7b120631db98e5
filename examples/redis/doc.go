// Command redis is a replicated store that speaks the Redis protocol: a program to copy. It serves
// strings, lists and hashes, and MULTI/EXEC/WATCH, to unmodified clients.
//
//	go run .
//
// runs three nodes in one process, on the Redis ports 6381 to 6383. Then
//
//	redis-cli -p 6381 set greeting hello
//	redis-cli -p 6383 get greeting
//
// write and read, on any of them. -engine paxos runs them, and what follows, on Multi-Paxos instead of Raft.
//
//	redis -id 1 -peers 1=host1:7001,2=host2:7001,3=host3:7001 -dir /var/lib/redis -redis host1:6379 -tls-ca ca.pem -tls-cert node.pem -tls-key node-key.pem
//
// runs one node of three machines. -insecure in the place of the -tls flags is for networks that nobody
// else reaches. A node that is to join a cluster later has its own address in -peers, and the Redis
// address of a member in -join. It prints a line, "ready", once it serves.
//
// All nodes of a cluster have the same -engine, and keep it: a node refuses a directory that the other engine has
// written, and does not listen to nodes that run it.
//
// # Guarantees
//
// A write is answered once a majority of the nodes has it on disk, and is executed once. Reads see
// all that was answered before, on any node. EXEC is one entry of the log: it is executed as
// a whole, with nothing in between. What is pipelined is executed in its order, many commands at a
// time. An error that begins with UNKNOWN says that a command may have been executed, or may yet be;
// TRYAGAIN, that it certainly was not; CLUSTERDOWN, that this node has stopped or was removed.
//
// A node that does not lead passes writes on in a session: when the leader dies its successor is asked for the same,
// and executes it once. So it is the clients of the leader that learn of its death, and the others wait.
//
// # Operators
//
//	SYNOD MEMBERS                        who they are
//	SYNOD LEADER                         who leads
//	SYNOD TRANSFER id                    have another one lead
//	SYNOD JOIN id address incarnation engine
//	                                     what -join asks
//	SYNOD REMOVE id                      remove a member, which must run until the answer
//
// # Where it differs from Redis
//
// One database; no expiry, no blocking commands, no scripts, no publish and subscribe; RESP2 only.
// Arguments are limited to 4 MiB, commands to 6 MiB and 65,536 arguments, strings to 32 MiB, the reply
// to a command to 48 MiB, and those to a transaction together: what does not fit is refused. SCAN goes through the keys
// in the order of a hash, so that it needs no state; KEYS and HGETALL answer in order. A key that did not exist when
// it was watched, and does not when EXEC comes, has not changed, whatever was in between. What else is answered is
// held to Redis 7: testdata/dialogues.txt.
//
// # Speed
//
//	go run . -compare -engine raft,paxos
//
// measures both engines, and a redis-server that syncs each write, with redis-benchmark in turn, and prints a table.
//
// # Files
//
// store.go is the state machine, commands.go what it executes; resp.go is the protocol, server.go the
// connections; node.go starts a node, and passes requests on to the leader; engine.go has what -engine
// chooses from.
package main
