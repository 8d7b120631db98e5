package tcp

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
)

func requireConfigError(t *testing.T, err error, field string) {
	t.Helper()
	var bad *synod.ConfigError
	require.ErrorAs(t, err, &bad)
	require.Equal(t, "tcp", bad.Package)
	require.Equal(t, field, bad.Field)
}

// appendSum ends an envelope.
func appendSum(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// issueAt makes an identity whose certificate was made at some time.
func issueAt(t *testing.T, a *DevelopmentAuthority, cluster string, node uint64, at time.Time) *Identity {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	template := certificateTemplate("a node")
	template.NotBefore, template.NotAfter = at, at.AddDate(1, 0, 0)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	uri, err := url.Parse(NodeURI(cluster, node))
	require.NoError(t, err)
	template.URIs = []*url.URL{uri}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, public, a.key)
	require.NoError(t, err)
	i, err := a.Issue(cluster, node)
	require.NoError(t, err)
	i.Certificate = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return i
}

func TestBadConfig(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"Cluster":          func(c *Config) { c.Cluster = "" },
		"Node":             func(c *Config) { c.Node = 0 },
		"Address":          func(c *Config) { c.Address = "" },
		"Identity":         func(c *Config) { c.Insecure = false },
		"Insecure":         func(c *Config) { c.Identity = &Identity{} },
		"Peers":            func(c *Config) { c.Peers = map[uint64]string{2: "no port"} },
		"QueueMessages":    func(c *Config) { c.QueueMessages = -1 },
		"QueueBytes":       func(c *Config) { c.QueueBytes = -1 },
		"MaxMessageBytes":  func(c *Config) { c.MaxMessageBytes = 1 << 31 },
		"MaxHandshakes":    func(c *Config) { c.MaxHandshakes = -1 },
		"MaxConnections":   func(c *Config) { c.MaxConnections = -1 },
		"StaleAfter":       func(c *Config) { c.StaleAfter = -1 },
		"PeerTimeout":      func(c *Config) { c.PeerTimeout = time.Millisecond },
		"DialTimeout":      func(c *Config) { c.DialTimeout = -1 },
		"HandshakeTimeout": func(c *Config) { c.HandshakeTimeout = -1 },
		"MinBackoff":       func(c *Config) { c.MinBackoff, c.MaxBackoff = 2, 1 },
		"MaxBackoff":       func(c *Config) { c.MaxBackoff = -1 },
	} {
		t.Run(field, func(t *testing.T) {
			c := Config{Cluster: ours, Node: 1, Address: "127.0.0.1:0", Insecure: true}
			change(&c)
			_, err := Listen(c)
			requireConfigError(t, err, field)
		})
	}
	_, err := Listen(Config{Cluster: strings.Repeat("x", 256), Node: 1, Address: "127.0.0.1:0", Insecure: true})
	requireConfigError(t, err, "Cluster")
}

func TestPlaintextNeedsInsecure(t *testing.T) {
	_, err := Listen(Config{Cluster: ours, Node: 7, Address: "127.0.0.1:0"})
	requireConfigError(t, err, "Identity")
	for _, remedy := range []string{"tcp.LoadIdentity", "tcp.WriteDevelopmentFiles", NodeURI(ours, 7), "Insecure"} {
		require.ErrorContains(t, err, remedy)
	}
}

func TestIdentityForAnyClusterName(t *testing.T) {
	a, err := NewDevelopmentAuthority()
	require.NoError(t, err)
	for _, cluster := range []string{"a", "a.b-c_d", "two words", "a/b", "ä%20ö", "..", "a?b#c", "\x00\xff", "[::1]:80", strings.Repeat("é", 127)} {
		i, err := a.Issue(cluster, 1<<63)
		require.NoErrorf(t, err, "cluster %q", cluster)
		require.NoErrorf(t, i.check(cluster, 1<<63), "cluster %q", cluster)
		require.ErrorIsf(t, i.check(cluster, 1), ErrCertificate, "cluster %q", cluster)
		require.ErrorIsf(t, i.check(cluster+"x", 1<<63), ErrCertificate, "cluster %q", cluster)
	}
	require.NotEqual(t, NodeURI("a/node/1", 1), NodeURI("a", 1))
}

func TestIdentityFiles(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, WriteDevelopmentFiles(dir, ours, 1, 2))
	file := func(name string) string { return filepath.Join(dir, name) }
	for node, names := range map[uint64][2]string{1: {"node-1.pem", "node-1-key.pem"}, 2: {"node-2.pem", "node-2-key.pem"}} {
		i, err := LoadIdentity(file("ca.pem"), file(names[0]), file(names[1]))
		require.NoError(t, err)
		require.NoError(t, i.check(ours, node))
		info, err := os.Stat(file(names[1]))
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, "others can read the key")
	}
	_, err := LoadIdentity(file("none.pem"), file("node-1.pem"), file("node-1-key.pem"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "none.pem")
	_, err = LoadIdentity(file("node-1-key.pem"), file("node-1.pem"), file("node-1-key.pem"))
	require.ErrorContains(t, err, "holds no certificate")
	_, err = LoadIdentity(file("ca.pem"), file("node-1.pem"), file("node-2-key.pem"))
	require.ErrorContains(t, err, "node-2-key.pem")
	require.Error(t, WriteDevelopmentFiles(file("ca.pem"), ours, 1))
}

// connTo returns a connection whose other end is read into the channel.
func connTo(t *testing.T, secure bool) (net.Conn, <-chan []byte) {
	t.Helper()
	received := make(chan []byte, 1)
	l := listenRaw(t)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		b, _ := io.ReadAll(conn)
		_ = conn.Close()
		received <- b
	}()
	conn := dialRaw(t, l.Addr().String())
	if secure {
		conn = struct{ net.Conn }{conn} // no *net.TCPConn: written as TLS is
	}
	return conn, received
}

func TestFramesSurviveTheTrip(t *testing.T) {
	for name, secure := range map[string]bool{"vectored": false, "buffered": true} {
		t.Run(name, func(t *testing.T) {
			random := mathrand.New(mathrand.NewPCG(1, 2))
			var payloads [][]byte
			bytesOf := mathrand.NewChaCha8([32]byte{})
			size := func(n int) {
				p := make([]byte, n)
				_, _ = bytesOf.Read(p)
				payloads = append(payloads, p)
			}
			for _, n := range []int{0, 1, inlineBytes - 1, inlineBytes, inlineBytes + 1, readBufferBytes - 8, readBufferBytes - 1,
				readBufferBytes, readBufferBytes + 1, firstBytes - 1, firstBytes, firstBytes + 1, 4*firstBytes + 3, 0} {
				size(n)
			}
			for range 1000 {
				size(random.IntN(3 * inlineBytes))
			}
			for range maxVectors {
				size(inlineBytes + 1 + random.IntN(100))
			}
			conn, received := connTo(t, secure)
			w := newFrameWriter(conn)
			for rest := payloads; len(rest) > 0; {
				n := min(len(rest), 1+random.IntN(700))
				written, err := w.write(rest[:n])
				require.NoError(t, err)
				require.Equal(t, n, written)
				require.NoError(t, w.ping())
				rest = rest[n:]
			}
			require.NoError(t, conn.Close())
			stream := <-received
			for name, source := range map[string]io.Reader{"whole": bytes.NewReader(stream), "late": iotest.DataErrReader(bytes.NewReader(stream))} {
				r := newFrameReader(source, 8<<20)
				for i := range payloads {
					payload, ping, err := r.next()
					for ping {
						payload, ping, err = r.next()
					}
					require.NoErrorf(t, err, "%s: frame %d", name, i)
					require.NotNil(t, payload)
					require.Truef(t, bytes.Equal(payloads[i], payload), "%s: frame %d", name, i)
				}
				_, ping, err := r.next()
				require.NoError(t, err)
				require.True(t, ping)
				_, _, err = r.next()
				require.Equal(t, io.EOF, err)
			}
		})
	}
}

func TestWriterCountsWhatWasWritten(t *testing.T) {
	for _, secure := range []bool{false, true} {
		conn, _ := connTo(t, secure)
		w := newFrameWriter(conn)
		require.NoError(t, conn.Close())
		n, err := w.write([][]byte{make([]byte, 10), make([]byte, 10)})
		require.Error(t, err)
		require.Zero(t, n)
	}
}

func TestClaimedFrameCostsLittle(t *testing.T) {
	frame := binary.LittleEndian.AppendUint32(nil, 1<<30)
	frame = append(frame, make([]byte, 1000)...)
	var before, after runtime.MemStats
	r := newFrameReader(bytes.NewReader(frame), 1<<30)
	runtime.ReadMemStats(&before)
	_, _, err := r.next()
	runtime.ReadMemStats(&after)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2*firstBytes))
}

func TestTruncatedFrames(t *testing.T) {
	whole := append(appendHeader(nil, []byte("payload")), "payload"...)
	for n := range len(whole) {
		_, _, err := newFrameReader(bytes.NewReader(whole[:n]), 100).next()
		if n == 0 {
			require.Equal(t, io.EOF, err)
		} else {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		}
	}
	ping := appendPing(nil)
	ping[7] ^= 1
	_, _, err := newFrameReader(bytes.NewReader(ping), 100).next()
	require.ErrorIs(t, err, ErrFrame)
}

func TestHandshakeSurvivesTheTrip(t *testing.T) {
	h := hello{lane: bulkLane, sender: 1, receiver: 1 << 63, instance: 3, timeout: time.Second, cluster: strings.Repeat("x", 255)}
	r := bytes.NewReader(append(h.append(nil), "rest"...))
	got, err := readHello(r)
	require.NoError(t, err)
	require.Equal(t, h, got)
	require.Equal(t, 4, r.Len(), "it read beyond its end")
	a := answer{code: codeBusy, node: 1, instance: 2, maxMessage: 3}
	answered, err := readAnswer(bytes.NewReader(a.append(nil)))
	require.NoError(t, err)
	require.Equal(t, a, answered)
	for n := range len(h.append(nil)) {
		_, err := readHello(bytes.NewReader(h.append(nil)[:n]))
		require.Error(t, err)
	}
	for at := range h.append(nil) {
		b := h.append(nil)
		b[at] ^= 0x40
		_, err := readHello(bytes.NewReader(b))
		require.Errorf(t, err, "byte %d flipped", at)
	}
}

func TestEveryCodeHasAReason(t *testing.T) {
	for c := codeVersion; c <= codeBusy; c++ {
		got, ok := codeOf(reasons[c])
		require.True(t, ok)
		require.Equal(t, c, got)
	}
	_, ok := codeOf(errors.New("other"))
	require.False(t, ok)
}

func FuzzReadHello(f *testing.F) {
	h := hello{sender: 1, receiver: 2, instance: 3, timeout: time.Second, cluster: "c"}
	f.Add(h.append(nil))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, appendSum(bytes.Clone(b))} {
			got, err := readHello(bytes.NewReader(b))
			if err != nil {
				continue
			}
			again, err := readHello(bytes.NewReader(got.append(nil)))
			require.NoError(t, err)
			require.Equal(t, got, again)
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	a := answer{node: 1, instance: 2, maxMessage: 3}
	f.Add(a.append(nil))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, appendSum(bytes.Clone(b))} {
			got, err := readAnswer(bytes.NewReader(b))
			if err != nil {
				continue
			}
			require.True(t, bytes.HasPrefix(b, got.append(nil)), "what was read is not what is written")
		}
	})
}

func FuzzFrameReader(f *testing.F) {
	f.Add(append(appendHeader(nil, []byte("payload")), "payload"...))
	f.Add(appendPing(appendHeader(nil, nil)))
	f.Add(binary.LittleEndian.AppendUint32(nil, 1<<31))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newFrameReader(bytes.NewReader(b), 1<<20)
		for rest := b; ; {
			payload, ping, err := r.next()
			if err != nil {
				return
			}
			frame := appendPing(nil)
			if !ping {
				frame = append(appendHeader(nil, payload), payload...)
			}
			require.True(t, bytes.HasPrefix(rest, frame), "what was read is not what is there")
			rest = rest[len(frame):]
		}
	})
}
