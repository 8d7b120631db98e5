package main

import "context"

// bank is a system with accounts in it. All methods but close may be called concurrently.
type bank interface {
	// load makes the accounts.
	load(ctx context.Context) error
	// transfer moves 1 from one account to another, reading both in the same transaction, and is durable when it returns. It says how often
	// the transaction was run.
	transfer(ctx context.Context, from, to int) (attempts int, err error)
	// total adds up all accounts.
	total(ctx context.Context) (int64, error)
	close() error
}

// system is what is compared.
type system struct {
	name     string
	open     func(ctx context.Context, dir string) (bank, error)
	across   bool // every transfer is over two groups
	modules  []string
	settings string
}

// The names of what is ours, and of the peer that is held against it.
const (
	ours       = "synod"
	oursTwo    = "synod-two"
	replicated = "etcd"
)

var systems = func() []system {
	synod, etcd := []string{"github.com/synod-go/synod"}, []string{"go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/client/v3"}
	const kvOver = "txn/kv over three replicas of "
	const defaults = ", transport/tcp (plaintext), storage/pebble, txn.Forwarder, hlc with peers; default settings; clients beside the leader of the first group"
	const stm = "; concurrency.NewSTM, serializable snapshot, both accounts prefetched; client in process; election timeout 500 ms, heartbeat 50 ms, quota 8 GiB"
	return []system{
		{ours, openSynod(startRaft, 1, false), false, synod, kvOver + "one raft group" + defaults},
		{oursTwo, openSynod(startRaft, 2, false), true, synod, kvOver + "two raft groups, every transfer over both" + defaults},
		{"synod-two-apart", openSynod(startRaft, 2, true), true, synod, kvOver + "two raft groups, every transfer over both; their leaders on two nodes" + defaults},
		{"synod-paxos", openSynod(startPaxos, 1, false), false, synod, kvOver + "one paxos group" + defaults},
		{"synod-paxos-two", openSynod(startPaxos, 2, false), true, synod, kvOver + "two paxos groups, every transfer over both" + defaults},
		{replicated, openEtcd(3), false, etcd, "embedded, three members, client of the leader" + stm},
		{"etcd-one", openEtcd(1), false, etcd, "embedded, one member" + stm},
		{"bbolt", openBolt, false, []string{"go.etcd.io/bbolt"}, "one file, not replicated; Batch, default settings: synced"},
		{"badger", openBadger, false, []string{"github.com/dgraph-io/badger/v4"}, "one directory, not replicated; SyncWrites, conflicts detected; the rest default"},
	}
}()
