package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// unescape makes bytes of a line of testdata/dialogues.txt.
func unescape(line string) []byte {
	var b []byte
	for line != `\` && line != "" {
		switch {
		case strings.HasPrefix(line, `\x`):
			n, _ := strconv.ParseUint(line[2:4], 16, 8)
			b, line = append(b, byte(n)), line[4:]
		case strings.HasPrefix(line, `\\`):
			b, line = append(b, '\\'), line[2:]
		default:
			b, line = append(b, line[0]), line[1:]
		}
	}
	return b
}

// TestDialogues holds the replies to what Redis answers, which this file has.
func TestDialogues(t *testing.T) {
	file, err := os.ReadFile("testdata/dialogues.txt")
	require.NoError(t, err)
	_, text, _ := strings.Cut(string(file), "\n\n")
	dialogues := strings.Split(strings.TrimSuffix(text, "\n"), "\n\n")
	require.Greater(t, len(dialogues), 100)
	try := func(t *testing.T, address string) {
		for _, d := range dialogues {
			said, answered, found := strings.Cut(d+"\n", "----\n")
			require.True(t, found, d)
			var send, want []byte
			for line := range strings.Lines(said) {
				send = append(append(send, unescape(strings.TrimSuffix(line, "\n"))...), "\r\n"...)
			}
			answered, closed := strings.CutSuffix(answered, "(closed)\n")
			for line := range strings.Lines(answered) {
				want = append(append(want, unescape(strings.TrimSuffix(line, "\n"))...), "\r\n"...)
			}
			got, ended := converse(t, address, send)
			require.Equal(t, string(want), string(got), d)
			require.Equal(t, closed, ended, d)
		}
	}
	onEach(t, func(t *testing.T, engine string) { try(t, three(t, engine)[1]) })
	t.Run("redis-server", func(t *testing.T) {
		// The model is not what is tested: without it, the file is what it was held against where there was one. With
		// SYNOD_REDIS_SERVER it must be there.
		if _, err := exec.LookPath("redis-server"); err != nil && os.Getenv("SYNOD_REDIS_SERVER") == "" {
			t.Skip("redis-server is not installed: whether the file is right is not found out here")
		}
		ports, err := freePorts(1)
		require.NoError(t, err)
		server := exec.Command("redis-server", "--port", ports[0], "--dir", t.TempDir(), "--save", "")
		require.NoError(t, server.Start())
		t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
		address := net.JoinHostPort("127.0.0.1", ports[0])
		require.Eventually(t, func() bool {
			answer, err := ask(t.Context(), address, "PING")
			return err == nil && answer == "+PONG"
		}, 30*time.Second, 10*time.Millisecond)
		try(t, address)
	})
}

// converse sends commands to a store without keys, and returns what comes, until all are answered or
// the connection is closed.
func converse(t *testing.T, address string, send []byte) (got []byte, closed bool) {
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	_, err = io.WriteString(conn, "FLUSHALL\r\n")
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, len("+OK\r\n")))
	require.NoError(t, err)
	const over = "it-is-over"
	_, err = conn.Write(append(send, "ECHO "+over+"\r\n"...))
	require.NoError(t, err)
	end := []byte("$10\r\n" + over + "\r\n")
	for buf := make([]byte, 4096); !bytes.HasSuffix(got, end); {
		n, err := conn.Read(buf)
		if got = append(got, buf[:n]...); err != nil {
			return got, true
		}
	}
	return bytes.TrimSuffix(got, end), false
}
