// Command etcd measures three embedded etcd members, with a client in process.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"github.com/synod-go/synod/bench/work"
)

func main() {
	work.Main([]string{"go.etcd.io/etcd/server/v3"}, func(string) string {
		return "embedded, three members, in-process client of the leader; election timeout 500 ms, heartbeat 50 ms, quota 8 GiB; its own key-value store"
	}, open)
}

type cluster struct{ client *clientv3.Client }

func open(ctx context.Context, job work.Job) (work.System, error) {
	free, err := work.FreeAddresses(6)
	if err != nil {
		return nil, err
	}
	var peers, clients []url.URL
	var initial []string
	for i := range 3 {
		peers, clients = append(peers, url.URL{Scheme: "http", Host: free[i]}), append(clients, url.URL{Scheme: "http", Host: free[3+i]})
		initial = append(initial, fmt.Sprintf("m%d=%s", i, peers[i].String()))
	}
	var members []*embed.Etcd
	for i, peer := range peers {
		c := embed.NewConfig()
		c.Name = fmt.Sprintf("m%d", i)
		c.Dir = filepath.Join(job.Dir, fmt.Sprint(i))
		c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		c.ListenClientUrls, c.AdvertiseClientUrls = clients[i:i+1], clients[i:i+1]
		c.InitialCluster = strings.Join(initial, ",")
		c.LogLevel = "fatal"
		c.TickMs, c.ElectionMs = 50, 500
		c.QuotaBackendBytes = 8 << 30
		m, err := embed.StartEtcd(c)
		if err != nil {
			return nil, err
		}
		members = append(members, m)
	}
	for _, m := range members {
		select {
		case <-m.Server.ReadyNotify():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for ; ; time.Sleep(10 * time.Millisecond) {
		for _, m := range members {
			if m.Server.Leader() == m.Server.MemberID() {
				return &cluster{v3client.New(m.Server)}, nil
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

func key(n uint64) string { return fmt.Sprintf("key-%06d", n) }

func (c *cluster) Write(ctx context.Context, command []byte) error {
	_, err := c.client.Put(ctx, key(binary.LittleEndian.Uint64(command)), string(command[8:]))
	return err
}

func (c *cluster) Read(ctx context.Context, k uint64) (int, error) {
	r, err := c.client.Get(ctx, key(k))
	if err != nil || len(r.Kvs) == 0 {
		return 0, err
	}
	return len(r.Kvs[0].Value), nil
}

func (c *cluster) Close() {}
