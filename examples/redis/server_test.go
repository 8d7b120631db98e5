package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// three starts three nodes in this process, and returns the addresses at which they serve.
func three(t *testing.T, engine string) []string {
	ports, err := freePorts(3)
	require.NoError(t, err)
	peers := make(map[uint64]string)
	for i, port := range ports {
		peers[uint64(i+1)] = "127.0.0.1:" + port
	}
	var addresses []string
	for id := uint64(1); id <= 3; id++ {
		n, err := start(t.Context(), config{engine: engine, id: id, peers: peers, dir: filepath.Join(t.TempDir(), "data"), log: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		s := serve(n, l)
		t.Cleanup(func() {
			require.NoError(t, s.close())
			require.NoError(t, n.close())
		})
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

func TestClients(t *testing.T) { onEach(t, testClients) }

func testClients(t *testing.T, engine string) {
	ctx := t.Context()
	for _, protocol := range []int{2, 3} { // 3 is refused, and the client goes on with 2
		addresses := three(t, engine)
		var clients []*redis.Client
		for _, a := range addresses {
			c := redis.NewClient(&redis.Options{Addr: a, Protocol: protocol, ClientName: "test"})
			defer c.Close()
			clients = append(clients, c)
		}
		require.NoError(t, clients[0].Set(ctx, "a", "1", 0).Err())
		for _, c := range clients {
			require.NoError(t, c.Ping(ctx).Err())
			require.Equal(t, "1", c.Get(ctx, "a").Val(), "what was answered is read everywhere")
			require.Equal(t, "x", c.Echo(ctx, "x").Val())
		}
		_, err := clients[1].Pipelined(ctx, func(p redis.Pipeliner) error {
			for i := range 1000 {
				p.RPush(ctx, "l", i)
				if i%100 == 0 {
					p.LLen(ctx, "l")
				}
			}
			return nil
		})
		require.NoError(t, err)
		items := clients[2].LRange(ctx, "l", 0, -1).Val()
		require.Len(t, items, 1000)
		for i, item := range items {
			require.Equal(t, strconv.Itoa(i), item, "pipelined commands are executed in order")
		}
		commands, err := clients[2].TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.Incr(ctx, "a")
			p.HSet(ctx, "h", "f", "v")
			p.HGetAll(ctx, "h")
			p.Ping(ctx)
			p.Echo(ctx, "x")
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, map[string]string{"f": "v"}, commands[2].(*redis.MapStringStringCmd).Val())
		require.Equal(t, "PONG", commands[3].(*redis.StatusCmd).Val())
		require.Equal(t, "x", commands[4].(*redis.StringCmd).Val())
		require.Equal(t, "test", clients[1].ClientGetName(ctx).Val())
		require.NotZero(t, clients[1].ClientID(ctx).Val())
		require.Contains(t, clients[1].Info(ctx, "replication").Val(), "synod_node:2")
		require.Equal(t, map[string]string{"save": ""}, clients[1].ConfigGet(ctx, "sa*").Val())
		require.NoError(t, clients[1].Command(ctx).Err())

		// Of those who watch and increment nobody is lost.
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				c := clients[w%3]
				for range 10 {
					for {
						err := c.Watch(ctx, func(tx *redis.Tx) error {
							n, err := tx.Get(ctx, "w").Int()
							if err != nil && err != redis.Nil {
								return err
							}
							_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error { return p.Set(ctx, "w", n+1, 0).Err() })
							return err
						}, "w")
						if err == nil {
							break
						}
						if err != redis.TxFailedErr {
							t.Error(err)
							return
						}
					}
				}
			})
		}
		wg.Wait()
		require.Equal(t, "40", clients[0].Get(ctx, "w").Val())
	}
}

// talk sends bytes and returns what comes until the server closes the connection, or enough came.
func talk(t *testing.T, address, send string, lines int) []string {
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	_, err = io.WriteString(conn, send)
	require.NoError(t, err)
	var got []string
	in := bufio.NewScanner(conn)
	for len(got) < lines && in.Scan() {
		got = append(got, in.Text())
	}
	return got
}

func TestBadInput(t *testing.T) { onEach(t, testBadInput) }

func testBadInput(t *testing.T, engine string) {
	a := three(t, engine)[0]
	require.Equal(t, []string{"+OK"}, talk(t, a, "SET a 1\r\n", 1))
	for send, want := range map[string]string{
		"*1\r\n$600000000\r\n":               "-ERR Protocol error: invalid bulk length",
		"*1\r\n$-5\r\n":                      "-ERR Protocol error: invalid bulk length",
		"*1\r\n$x\r\n":                       "-ERR Protocol error: invalid bulk length",
		"*1\r\nGET\r\n":                      "-ERR Protocol error: expected '$', got 'G'",
		"*x\r\n":                             "-ERR Protocol error: invalid multibulk length",
		"*2000000\r\n":                       "-ERR Protocol error: invalid multibulk length",
		"*1\r\n$3\r\nGETxx":                  "-ERR Protocol error: a bulk string does not end where it should",
		"SET a \"b\r\n":                      "-ERR Protocol error: unbalanced quotes in request",
		strings.Repeat("x", 70_000) + "\r\n": "-ERR Protocol error: too big inline request",
	} {
		// What was sent before is executed, and nothing after: the connection ends.
		require.Equal(t, []string{"$1", "1", want}, talk(t, a, "GET a\r\n"+send+"GET a\r\n", 9), "%.40q", send)
	}
	require.Equal(t, []string{
		"-ERR unknown command 'NONSENSE', with args beginning with: ", "-ERR wrong number of arguments for 'get' command", "-ERR DB index is out of range", "-ERR EXEC without MULTI", "-ERR DISCARD without MULTI",
		"+OK", "-ERR MULTI calls can not be nested", "*0",
		"+OK", "+QUEUED", "-ERR unknown command 'NO', with args beginning with: ", "-EXECABORT Transaction discarded because of previous errors.",
		"+OK", "-ERR WATCH inside MULTI is not allowed", "+OK", "-NOPROTO unsupported protocol version", "+PONG",
	}, talk(t, a, "NONSENSE\r\nGET\r\nSELECT 1\r\nEXEC\r\nDISCARD\r\nMULTI\r\nMULTI\r\nEXEC\r\nMULTI\r\nSET a 2\r\nNO\r\nEXEC\r\nMULTI\r\nWATCH a\r\nDISCARD\r\nHELLO 3\r\nPING\r\n", 17))
	// What is merely too large for this program is refused, and the connection goes on.
	for send, want := range map[string]string{
		"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5000000\r\n" + strings.Repeat("x", 5_000_000) + "\r\n": "-ERR an argument of 5000000 bytes: at most 4194304",
		"*3\r\n" + strings.Repeat("$3000000\r\n"+strings.Repeat("x", 3_000_000)+"\r\n", 3):     "-ERR a command of more than 6291456 bytes",
		"*70000\r\n" + strings.Repeat("$1\r\nx\r\n", 70_000):                                   "-ERR a command of 70000 arguments: at most 65536",
	} {
		require.Equal(t, []string{"$1", "1", want, "$1", "1"}, talk(t, a, "GET a\r\n"+send+"GET a\r\n", 5), "%.40q", send)
		require.Equal(t, []string{"+OK", "+QUEUED", want, "-EXECABORT Transaction discarded because of previous errors.", "+PONG"}, talk(t, a, "MULTI\r\nSET a 2\r\n"+send+"EXEC\r\nPING\r\n", 5), "%.40q", send)
	}
	require.Equal(t, []string{"$1", "1"}, talk(t, a, "GET a\r\n", 2))
}

// tools fails, or skips, without Debian's redis-tools.
func tools(t *testing.T) {
	if _, err := exec.LookPath("redis-benchmark"); err == nil {
		return
	}
	if os.Getenv("SYNOD_REDIS_TOOLS") != "" {
		t.Fatal("redis-benchmark is missing: install redis-tools")
	}
	t.Skip("redis-benchmark is not installed; with SYNOD_REDIS_TOOLS=1 this fails")
}

func TestRedisCLI(t *testing.T) { onEach(t, testRedisCLI) }

func testRedisCLI(t *testing.T, engine string) {
	tools(t)
	a := three(t, engine)[1]
	_, port, err := net.SplitHostPort(a)
	require.NoError(t, err)
	cli := func(args ...string) string {
		out, err := exec.Command("redis-cli", append([]string{"-p", port}, args...)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return strings.TrimSpace(string(out))
	}
	require.Equal(t, "OK", cli("set", "greeting", "hello"))
	require.Equal(t, "hello", cli("get", "greeting"))
	require.Equal(t, "2", cli("rpush", "l", "1", "2"))
	require.Equal(t, "1\n2", cli("lrange", "l", "0", "-1"))
	require.Contains(t, cli("info"), "synod_node:2")
	require.Equal(t, "greeting\nl", cli("keys", "*"))
	require.ElementsMatch(t, []string{"greeting", "l"}, strings.Fields(cli("--scan")))
	require.Equal(t, "PONG", cli("ping"))
	require.Contains(t, cli("get"), "wrong number of arguments")
}

// redis-benchmark goes on when the leader is killed: against a node that stays.
func TestRedisBenchmark(t *testing.T) { onEach(t, testRedisBenchmark) }

func testRedisBenchmark(t *testing.T, engine string) {
	tools(t)
	list := launch(t, engine, 3)
	p := leader(t, list)
	stays := list[p.id%3]
	_, port, err := net.SplitHostPort(stays.redis)
	require.NoError(t, err)
	for round := range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		bench := exec.CommandContext(ctx, "redis-benchmark", "-p", port, "-t", "set,get,incr,lpush", "-P", "16", "-c", "64", "-n", "50000", "--csv")
		killed := make(chan struct{})
		if round == 0 {
			close(killed)
		} else {
			go func() {
				defer close(killed)
				time.Sleep(100 * time.Millisecond) // when it is under way
				_ = p.end(syscall.SIGKILL)
			}()
		}
		out, err := bench.CombinedOutput()
		cancel()
		<-killed
		// It takes no notice of an UNKNOWN, and goes on.
		require.NoError(t, err, "%s", out)
		require.NotContains(t, string(out), "rror", "%s", out)
		for _, name := range []string{"SET", "GET", "INCR", "LPUSH"} {
			require.Contains(t, string(out), fmt.Sprintf("%q", name))
		}
	}
	clients := connect(t, []*process{stays})
	require.Eventually(t, func() bool { return clients[0].Set(t.Context(), "after", 1, 0).Err() == nil }, time.Minute, 100*time.Millisecond)
	require.Equal(t, "1", clients[0].Get(t.Context(), "after").Val())
}
