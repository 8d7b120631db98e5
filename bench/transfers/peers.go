package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"github.com/synod-go/synod/bench/work"
)

// etcd is embedded members, with a client in the process of the leader, which spares it gRPC.
type etcd struct {
	members []*embed.Etcd
	client  *clientv3.Client
}

func openEtcd(members int) func(ctx context.Context, dir string) (bank, error) {
	return func(ctx context.Context, dir string) (bank, error) {
		free, err := work.FreeAddresses(2 * members)
		if err != nil {
			return nil, err
		}
		e := &etcd{}
		var peers, clients []url.URL
		var initial []string
		for i := range members {
			peers, clients = append(peers, url.URL{Scheme: "http", Host: free[2*i]}), append(clients, url.URL{Scheme: "http", Host: free[2*i+1]})
			initial = append(initial, fmt.Sprintf("m%d=%s", i, peers[i].String()))
		}
		for i := range members {
			c := embed.NewConfig()
			c.Name = fmt.Sprintf("m%d", i)
			c.Dir = filepath.Join(dir, fmt.Sprint(i))
			c.ListenPeerUrls, c.AdvertisePeerUrls = peers[i:i+1], peers[i:i+1]
			c.ListenClientUrls, c.AdvertiseClientUrls = clients[i:i+1], clients[i:i+1]
			c.InitialCluster = strings.Join(initial, ",")
			c.LogLevel = "fatal"
			c.TickMs, c.ElectionMs = 50, 500
			c.QuotaBackendBytes = 8 << 30
			m, err := embed.StartEtcd(c)
			if err != nil {
				return nil, errors.Join(err, e.close())
			}
			e.members = append(e.members, m)
		}
		for _, m := range e.members {
			select {
			case <-m.Server.ReadyNotify():
			case <-ctx.Done():
				return nil, errors.Join(ctx.Err(), e.close())
			}
		}
		for ; ; time.Sleep(10 * time.Millisecond) {
			for _, m := range e.members {
				if m.Server.Leader() == m.Server.MemberID() {
					e.client = v3client.New(m.Server)
					return e, nil
				}
			}
			if ctx.Err() != nil {
				return nil, errors.Join(ctx.Err(), e.close())
			}
		}
	}
}

func (e *etcd) load(ctx context.Context) error {
	const some = 100 // a transaction takes 128 at most
	for first := 0; first < accounts; first += some {
		var puts []clientv3.Op
		for n := first; n < first+some; n++ {
			puts = append(puts, clientv3.OpPut(string(key(n)), string(value(opening))))
		}
		if _, err := e.client.Txn(ctx).Then(puts...).Commit(); err != nil {
			return err
		}
	}
	return nil
}

func (e *etcd) transfer(ctx context.Context, from, to int) (attempts int, err error) {
	source, target := string(key(from)), string(key(to))
	_, err = concurrency.NewSTM(e.client, func(stm concurrency.STM) error {
		attempts++
		a, b, err := moved([]byte(stm.Get(source)), []byte(stm.Get(target)))
		if err != nil {
			return err
		}
		stm.Put(source, string(a))
		stm.Put(target, string(b))
		return nil
	}, concurrency.WithAbortContext(ctx), concurrency.WithPrefetch(source, target))
	return attempts, err
}

func (e *etcd) total(ctx context.Context) (sum int64, err error) {
	r, err := e.client.Get(ctx, "account/", clientv3.WithPrefix())
	if err != nil {
		return 0, err
	}
	for _, pair := range r.Kvs {
		b, err := balance(pair.Value)
		if err != nil {
			return 0, err
		}
		sum += b
	}
	return sum, nil
}

func (e *etcd) close() error {
	var all sync.WaitGroup
	for _, m := range e.members {
		all.Go(m.Close)
	}
	all.Wait()
	return nil
}

// bolt is a bbolt file. Its batches put transactions together that wait at the same time.
type bolt struct{ db *bbolt.DB }

var bucket = []byte("accounts")

func openBolt(_ context.Context, dir string) (bank, error) {
	db, err := bbolt.Open(filepath.Join(dir, "bolt"), 0o600, nil)
	if err != nil {
		return nil, err
	}
	return &bolt{db}, nil
}

func (b *bolt) load(context.Context) error {
	return b.db.Update(func(tx *bbolt.Tx) error {
		all, err := tx.CreateBucket(bucket)
		if err != nil {
			return err
		}
		for n := range accounts {
			if err := all.Put(key(n), value(opening)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *bolt) transfer(_ context.Context, from, to int) (attempts int, err error) {
	source, target := key(from), key(to)
	err = b.db.Batch(func(tx *bbolt.Tx) error {
		attempts++
		all := tx.Bucket(bucket)
		x, y, err := moved(all.Get(source), all.Get(target))
		if err != nil {
			return err
		}
		return errors.Join(all.Put(source, x), all.Put(target, y))
	})
	return attempts, err
}

func (b *bolt) total(context.Context) (sum int64, err error) {
	err = b.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(_, v []byte) error {
			n, err := balance(v)
			sum += n
			return err
		})
	})
	return sum, err
}

func (b *bolt) close() error { return b.db.Close() }

// badgerBank is a badger directory, whose transactions are serializable snapshots.
type badgerBank struct{ db *badger.DB }

func openBadger(_ context.Context, dir string) (bank, error) {
	db, err := badger.Open(badger.DefaultOptions(filepath.Join(dir, "badger")).WithSyncWrites(true).WithLogger(nil))
	if err != nil {
		return nil, err
	}
	return &badgerBank{db}, nil
}

func (b *badgerBank) load(context.Context) error {
	return b.db.Update(func(tx *badger.Txn) error {
		for n := range accounts {
			if err := tx.Set(key(n), value(opening)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *badgerBank) transfer(ctx context.Context, from, to int) (attempts int, err error) {
	source, target := key(from), key(to)
	for {
		attempts++
		err = b.db.Update(func(tx *badger.Txn) error {
			var values [2][]byte
			for i, k := range [][]byte{source, target} {
				item, err := tx.Get(k)
				if err != nil {
					return err
				}
				if values[i], err = item.ValueCopy(nil); err != nil {
					return err
				}
			}
			x, y, err := moved(values[0], values[1])
			if err != nil {
				return err
			}
			return errors.Join(tx.Set(source, x), tx.Set(target, y))
		})
		if !errors.Is(err, badger.ErrConflict) || ctx.Err() != nil {
			return attempts, err
		}
	}
}

func (b *badgerBank) total(context.Context) (sum int64, err error) {
	err = b.db.View(func(tx *badger.Txn) error {
		i := tx.NewIterator(badger.DefaultIteratorOptions)
		defer i.Close()
		for i.Rewind(); i.Valid(); i.Next() {
			if err := i.Item().Value(func(v []byte) error {
				n, err := balance(v)
				sum += n
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return sum, err
}

func (b *badgerBank) close() error { return b.db.Close() }
