package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// run executes commands, a line each, one after the other.
func run(s *store, lines ...string) (replies []string) {
	for _, line := range lines {
		args, err := inline([]byte(line))
		if err != nil {
			panic(err)
		}
		s.index++
		replies = append(replies, strings.ReplaceAll(string(s.execute(args, nil)), "\r\n", " "))
	}
	return replies
}

func TestCommands(t *testing.T) {
	for _, test := range []struct{ commands, replies string }{
		{"GET a; SET a 1; GET a; SET a 2 NX; SET a 2 XX; GET a; SET b 1 XX; SET b 1 NX; GET b", "$-1 |+OK |$1 1 |$-1 |+OK |$1 2 |$-1 |+OK |$1 1 "},
		{"SET a 1 GET; SET a 2 GET; SET a 3 NX GET; GET a; SET b 1 XX GET; GET b; SET a 1 NX XX; SET a 1 EX", "$-1 |$1 1 |$1 2 |$1 2 |$-1 |$-1 |-ERR syntax error |-ERR syntax error "},
		{"MSET a 1 b 2; MGET a x b; MSET a; MSET a 1 b", "+OK |*3 $1 1 $-1 $1 2 |-ERR wrong number of arguments for 'mset' command |-ERR wrong number of arguments for 'mset' command "},
		{"INCR a; INCR a; INCRBY a 40; INCRBY a -43; SET a x; INCR a; INCRBY a y", ":1 |:2 |:42 |:-1 |+OK |-ERR value is not an integer or out of range |-ERR value is not an integer or out of range "},
		{"SET a 9223372036854775807; INCR a; SET a -9223372036854775808; INCRBY a -1; SET a ' 1'; INCR a; SET a 01; INCR a",
			"+OK |-ERR increment or decrement would overflow |+OK |-ERR increment or decrement would overflow |+OK |-ERR value is not an integer or out of range |+OK |-ERR value is not an integer or out of range "},
		{"APPEND a foo; APPEND a bar; GET a; STRLEN a; STRLEN b; DEL a b; EXISTS a; SET a 1; EXISTS a a b; TYPE a; TYPE b", ":3 |:6 |$6 foobar |:6 |:0 |:1 |:0 |+OK |:2 |+string |+none "},
		{"RPUSH l a b c; LPUSH l x y; LRANGE l 0 -1; LRANGE l -2 -1; LRANGE l 1 1; LRANGE l 5 9; LRANGE l 3 1; LRANGE l -9 0; LRANGE l a 1; LLEN l; LLEN m; LRANGE m 0 -1",
			":3 |:5 |*5 $1 y $1 x $1 a $1 b $1 c |*2 $1 b $1 c |*1 $1 x |*0 |*0 |*1 $1 y |-ERR value is not an integer or out of range |:5 |:0 |*0 "},
		{"HSET h f 1 g 2; HSET h f 3 i 4; HGET h f; HGET h x; HGET m x; HGETALL h; HGETALL m; HDEL h f x; HDEL h g i; EXISTS h; HDEL h f; HSET h f",
			":2 |:1 |$1 3 |$-1 |$-1 |*6 $1 f $1 3 $1 g $1 2 $1 i $1 4 |*0 |:1 |:2 |:0 |:0 |-ERR wrong number of arguments for 'hset' command "},
		{"SET a 1; LPUSH a 1; RPUSH l 1; GET l; INCR l; APPEND l 1; STRLEN l; HGET l f; HSET l f 1; SET l x GET; MGET l; LLEN a; LRANGE a 0 1; HDEL a f; HGETALL a",
			"+OK |-WRONG |:1 |-WRONG |-WRONG |-WRONG |-WRONG |-WRONG |-WRONG |-WRONG |*1 $-1 |-WRONG |-WRONG |-WRONG |-WRONG "},
		{"MSET one 1 two 2 three 3; KEYS t*; KEYS *; KEYS [ot]*e; KEYS ?; DBSIZE; FLUSHALL; DBSIZE; FLUSHALL NOW", "+OK |*2 $5 three $3 two |*3 $3 one $5 three $3 two |*2 $3 one $5 three |*0 |:3 |+OK |:0 |-ERR syntax error "},
		{"SCAN x; SCAN 0 COUNT; SCAN 0 COUNT x; SCAN 0 COUNT 0; SCAN 0 FOO 1; SCAN 0", "-ERR invalid cursor |-ERR syntax error |-ERR value is not an integer or out of range |-ERR syntax error |-ERR syntax error |*2 $1 0 *0 "},
		{"NONSENSE a; GET; GET a b", "-ERR unknown command 'NONSENSE', with args beginning with: 'a'  |-ERR wrong number of arguments for 'get' command |-ERR wrong number of arguments for 'get' command "},
	} {
		want := strings.ReplaceAll(test.replies, "-WRONG ", "-WRONGTYPE Operation against a key holding the wrong kind of value ")
		require.Equal(t, strings.Split(want, "|"), run(newStore(), strings.Split(test.commands, ";")...), test.commands)
	}
}

func TestScanFindsAll(t *testing.T) {
	s := newStore()
	for i := range 1000 {
		s.put([]byte{byte('a' + i%26), byte('a' + i/26%26), byte('a' + i/676)}, nil)
	}
	want := len(s.keys)
	found, cursor := make(map[string]int), "0"
	for first := true; first || cursor != "0"; first = false {
		reply := run(s, "SCAN "+cursor+" COUNT 7")[0]
		fields := strings.Fields(reply)
		cursor = fields[2]
		for i := 5; i < len(fields); i += 2 {
			found[fields[i]]++
		}
	}
	require.Len(t, found, want)
	for key, n := range found {
		require.Equal(t, 1, n, key)
	}
}

func TestMatches(t *testing.T) {
	for pattern, keys := range map[string]string{
		"*": "+ +a +abc", "a*": "+a +ab -b -", "*a": "+a +ba -ab", "a*b*c": "+abc +aXbYc +abbcc -ab", "?": "+a - -ab",
		"[a-c]x": "+ax +cx -dx -x", "[^a]": "+b -a -", `\*`: "+* -a", `a\?`: "+a? -ab", "[": "-a", "[a": "+a -b", "h[ae]llo": "+hallo +hello -hillo", "**": "+ +x",
	} {
		for _, k := range strings.Split(keys, " ") {
			require.Equal(t, k[0] == '+', matches([]byte(pattern), []byte(k[1:])), "%s %s", pattern, k)
		}
	}
}

func TestTransactions(t *testing.T) {
	s := newStore()
	apply := func(r request) string {
		return strings.ReplaceAll(string(s.Apply(s.index+1, r.encode())), "\r\n", " ")
	}
	of := func(lines ...string) (list [][][]byte) {
		for _, line := range lines {
			args, _ := inline([]byte(line))
			list = append(list, args)
		}
		return list
	}
	require.Equal(t, "*2 :1 :2 ", apply(request{transaction: true, commands: of("INCR a", "INCR a")}))
	// watch notes what keys are now; exec executes a transaction if they are that still.
	watch := func(keys ...string) (list []watched) {
		for _, key := range keys {
			list = append(list, watched{key, s.version(key)})
		}
		return list
	}
	exec := func(list []watched, lines ...string) string {
		return apply(request{transaction: true, watched: list, commands: of(lines...)})
	}
	since := watch("a", "b")
	require.Equal(t, "*1 $1 2 ", exec(since, "GET a"))
	apply(request{commands: of("SET c 1", "DEL c", "HSET h f 1", "HDEL h nope")})
	require.Equal(t, "*1 $1 2 ", exec(since, "GET a"), "other keys do not count")
	apply(request{commands: of("SET b 1")})
	require.Equal(t, "*-1 ", exec(since, "SET a 9"), "b is there now")
	for _, change := range []string{"SET b 1", "APPEND b x", "DEL b", "FLUSHALL", "RPUSH b 1", "HSET b f 1", "INCR b"} {
		s.Apply(s.index+1, (&request{commands: of("DEL b", "SET b 5")}).encode())
		since = watch("b")
		if strings.HasPrefix(change, "RPUSH") || strings.HasPrefix(change, "HSET") {
			apply(request{commands: of("DEL b")})
			require.Equal(t, "*-1 ", exec(since, "SET a 9"), "it has gone")
		}
		apply(request{commands: of(change)})
		require.Equal(t, "*-1 ", exec(since, "SET a 9"), change)
	}
	s.Apply(s.index+1, (&request{commands: of("FLUSHALL", "SET a 2", "HSET h f 1", "SET b 1")}).encode())
	since = watch("h", "b", "nope")
	apply(request{commands: of("HDEL h nope", "SET b 2 NX", "INCR h", "GET h", "DEL nope")})
	require.Equal(t, "*1 $1 2 ", exec(since, "GET a"), "nothing has changed")
	// Errors within a transaction do not end it, as in Redis.
	require.Equal(t, "*2 -WRONGTYPE Operation against a key holding the wrong kind of value :3 ", apply(request{transaction: true, commands: of("LPUSH a 1", "INCR a")}))
	require.Equal(t, "-ERR malformed request in the log ", strings.ReplaceAll(string(s.Apply(99, []byte("nonsense"))), "\r\n", " "))
}

func TestSnapshot(t *testing.T) {
	s := newStore()
	run(s, "SET a 1", "RPUSH l a b", "LPUSH l c", "HSET h f 1 g 2", "SET b 1", "DEL b")
	versions := make(map[string]uint64)
	for _, key := range []string{"a", "l", "h", "b"} {
		versions[key] = s.version(key)
	}
	image, err := s.Snapshot()
	require.NoError(t, err)
	var first, second bytes.Buffer
	_, err = image.WriteTo(&first)
	require.NoError(t, err)
	// What changes later is not in it, and it writes the same again.
	run(s, "APPEND a 2", "RPUSH l x", "LPUSH l y", "HSET h f 9", "HDEL h g", "SET new 1")
	_, err = image.WriteTo(&second)
	require.NoError(t, err)
	require.Equal(t, first.Bytes(), second.Bytes())
	other := newStore()
	require.NoError(t, other.Restore(&first))
	require.Equal(t, []string{"$1 1 ", "*3 $1 c $1 a $1 b ", "*4 $1 f $1 1 $1 g $1 2 ", ":3 "}, run(other, "GET a", "LRANGE l 0 -1", "HGETALL h", "DBSIZE"))
	for _, key := range []string{"a", "l", "h", "b"} {
		require.Equal(t, versions[key], other.version(key), key)
	}
	require.Error(t, other.Restore(strings.NewReader("")))
	require.Error(t, other.Restore(io.LimitReader(&second, int64(second.Len())-1)))
}

func FuzzRequest(f *testing.F) {
	args, _ := inline([]byte("SET a 1"))
	f.Add((&request{transaction: true, watched: []watched{{"a", 7}}, commands: [][][]byte{args, args}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err != nil {
			return
		}
		again, err := decodeRequest(r.encode())
		require.NoError(t, err)
		require.Equal(t, r, again)
		newStore().Apply(1, b)
	})
}

func FuzzReader(f *testing.F) {
	for _, s := range []string{"*1\r\n$4\r\nPING\r\n", "PING\r\n", "SET a \"b c\"\r\n", "*2\r\n$3\r\nGET\r\n$1\r\na\r\n", "*1\r\n$600000000\r\n", "*-1\r\n", "*9999999\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newReader(bytes.NewReader(b))
		for {
			args, err := r.command()
			if err != nil {
				return
			}
			for _, a := range args {
				require.LessOrEqual(t, len(a), maxBulk)
			}
		}
	})
}
