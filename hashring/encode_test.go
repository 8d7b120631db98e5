package hashring

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "write the golden vectors anew: only with a new format version")

// goldenRings are rings with a bit of everything, and a bit of history where it counts.
func goldenRings(t *testing.T) map[string]*Ring[string] {
	rings := make(map[string]*Ring[string])
	for _, a := range append(slices.Clone(everyAlgorithm), Points{}, Maglev{}) {
		nodes := inZones(6, 2)
		if weighty(a) {
			nodes[1].Weight, nodes[4].Weight = 2.5, 0.25
		}
		r, err := New(Config{Algorithm: a, MaxPerZone: 2}, nodes...)
		require.NoError(t, err)
		r, err = r.Remove("node-0002")
		require.NoError(t, err)
		r, err = r.Add(Node[string]{ID: "löwe", Weight: 1, Zone: "zone-0/rack-9"}, Node[string]{ID: "extra", Weight: 1, Zone: "zone-2"})
		require.NoError(t, err)
		r, err = r.Drain("node-0005")
		require.NoError(t, err)
		label := fmt.Sprintf("%T", r.Config().Algorithm)[len("hashring."):]
		if slices.Contains([]Algorithm{Points{}, Maglev{}}, a) {
			label += "Default"
		}
		rings[label] = r
	}
	return rings
}

// The vectors in testdata say what every implementation and every later version must
// answer: hashes, encodings, fingerprints, owners and replicas.
func TestGoldenVectors(t *testing.T) {
	keys := []string{"", "a", "ab", "abc", "abcd", "user:17", "12345678", "123456789", "0123456789abcdef", "0123456789abcdefg",
		"a key of more than thirty-two bytes, which takes several rounds", "größe"}
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, "hash %q %016x\n", k, HashString(k))
	}
	for _, k := range []uint64{0, 1, 2, 1 << 32, math.MaxUint64} {
		fmt.Fprintf(&b, "hash-uint64 %d %016x\n", k, HashUint64(k))
	}
	rings := goldenRings(t)
	for _, label := range slices.Sorted(func(yield func(string) bool) {
		for k := range rings {
			if !yield(k) {
				return
			}
		}
	}) {
		r := rings[label]
		fmt.Fprintf(&b, "\nring %s %#v\n", label, r.Config().Algorithm)
		fmt.Fprintf(&b, "version %d\nfingerprint %016x\nencoding %x\n", r.Version(), r.Fingerprint(), encode(t, r))
		for _, k := range keys {
			owners, err := r.Owners(k, 4)
			require.NoError(t, err)
			fmt.Fprintf(&b, "owners %q %s\n", k, strings.Join(owners, " "))
		}
		for _, h := range []uint64{0, 1, 1 << 63, math.MaxUint64} {
			fmt.Fprintf(&b, "owner-of-hash %016x %s\n", h, r.OwnerHash(h))
		}
		subset, err := r.Subset("a tenant", 3)
		require.NoError(t, err)
		fmt.Fprintf(&b, "subset %q %s\n", "a tenant", strings.Join(subset, " "))
	}
	path := filepath.Join("testdata", "golden.txt")
	if *rewrite {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String(), "the format has changed: rings of other versions would disagree")

	// What was written then is read now, and gives the same answers.
	label, encodings := "", 0
	for line := range strings.Lines(string(want)) {
		f := strings.Fields(line)
		if len(f) > 1 && f[0] == "ring" {
			label = f[1]
		}
		if len(f) > 1 && f[0] == "encoding" {
			data, err := hex.DecodeString(f[1])
			require.NoError(t, err)
			r, err := Decode(data, DecodeConfig[string]{})
			require.NoError(t, err, label)
			samePlaces(t, rings[label], r, label)
			require.Equal(t, rings[label].Nodes(), r.Nodes())
			require.Equal(t, rings[label].Config(), r.Config())
			require.Equal(t, rings[label].Fingerprint(), r.Fingerprint())
			encodings++
		}
	}
	require.Equal(t, len(everyAlgorithm)+2, encodings)
}

// A version does not enter the fingerprint, and everything else does.
func TestFingerprint(t *testing.T) {
	seen := make(map[uint64]string)
	for label, r := range goldenRings(t) {
		require.Empty(t, seen[r.Fingerprint()])
		seen[r.Fingerprint()] = label
	}
	r := mustNew(t, Points{}, inZones(4, 2))
	next, err := r.Rebalance()
	require.NoError(t, err)
	require.Equal(t, r.Fingerprint(), next.Fingerprint())
	for _, config := range []Config{{WeightUnit: 2}, {MaxPerZone: 2}, {Algorithm: Points{PerNode: 161}}} {
		other, err := New(config, inZones(4, 2)...)
		require.NoError(t, err)
		require.NotEqual(t, r.Fingerprint(), other.Fingerprint())
	}
}

// sealed completes an encoding that was tampered with.
func sealed(b []byte) []byte { return binary.LittleEndian.AppendUint64(b, HashBytes(b)) }

// allocated returns how many bytes a call allocates.
func allocatedBy(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Truncated at every byte, and with every byte changed, with and without a checksum
// that matches: a typed error or a sound ring, and no memory that the input does not
// justify.
func TestDamagedEncodings(t *testing.T) {
	for label, r := range goldenRings(t) {
		if strings.HasSuffix(label, "Default") {
			continue
		}
		data := encode(t, r)
		for n := range data {
			_, err := Decode(data[:n], DecodeConfig[string]{})
			var typed *DecodeError
			require.ErrorAs(t, err, &typed)
			require.ErrorIs(t, err, ErrCorrupt)
			if n >= 8 {
				_, err = Decode(sealed(slices.Clone(data[:n-8])), DecodeConfig[string]{})
				if n != len(data) {
					require.Error(t, err, "%s: the first %d bytes", label, n-8)
				}
			}
		}
		step := max(1, len(data)/60)
		for i := 0; i < len(data)-8; i += step {
			bad := slices.Clone(data[:len(data)-8])
			for _, x := range []byte{0x01, 0x80, 0xff} {
				bad[i] ^= x
				_, err := Decode(append(slices.Clone(bad), data[len(data)-8:]...), DecodeConfig[string]{})
				require.ErrorIs(t, err, ErrCorrupt)
				tampered := sealed(slices.Clone(bad))
				ring, err := Decode(tampered, DecodeConfig[string]{MaxTableBytes: 1 << 20})
				if err == nil {
					require.Equal(t, tampered, encode(t, ring))
				} else {
					require.True(t, errors.Is(err, ErrCorrupt) || errors.Is(err, ErrTooLarge), "%v", err)
				}
				bad[i] ^= x
			}
		}
	}
}

// Encodings that claim what they do not hold.
func TestHostileEncodings(t *testing.T) {
	head := func(algorithm ...byte) []byte {
		b := append([]byte(magic), formatVersion, 1)
		b = append(b, algorithm...)
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(1))
		return append(b, 1) // MaxPerZone
	}
	huge := binary.AppendUvarint(nil, math.MaxUint64)
	million := binary.AppendUvarint(nil, 1<<20)
	node := []byte{0, 1, 'a', 0}
	heavy := binary.LittleEndian.AppendUint64([]byte{0, 1, 'a', flagWeight}, math.Float64bits(1024))
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, c := range []struct {
		what string
		body []byte
		want error
	}{
		{"nothing", nil, ErrCorrupt},
		{"more zones than fit", cat(head(3), huge), ErrCorrupt},
		{"a million zones", cat(head(3), million, make([]byte, 100)), ErrCorrupt},
		{"more nodes than fit", cat(head(3), []byte{0}, million, node), ErrCorrupt},
		{"no nodes", cat(head(3), []byte{0, 0}), ErrCorrupt},
		{"a long name", cat(head(3), []byte{0, 1, 0}, huge), ErrCorrupt},
		{"an empty name", cat(head(3), []byte{0, 1, 0, 0, 0, 0}), ErrCorrupt},
		{"a name in common with nothing", cat(head(3), []byte{0, 1, 1, 1, 'a', 0}), ErrCorrupt},
		{"twice", cat(head(3), []byte{0, 2}, node, node), ErrCorrupt},
		{"unknown flags", cat(head(3), []byte{0, 1, 0, 1, 'a', 4}), ErrCorrupt},
		{"all draining", cat(head(3), []byte{0, 1, 0, 1, 'a', 1}), ErrCorrupt},
		{"a zone that is not there", cat(head(3), []byte{1, 1, 'z', 1}, node, []byte{1}), ErrCorrupt},
		{"a zone that nobody is in", cat(head(3), []byte{2, 1, 'z', 1, 'y', 1}, node, []byte{0}), ErrCorrupt},
		{"NaN", cat(head(3), []byte{0, 1, 0, 1, 'a', flagWeight}, binary.LittleEndian.AppendUint64(nil, math.Float64bits(math.NaN()))), ErrCorrupt},
		{"a weight of 1, written out", cat(head(3), []byte{0, 1, 0, 1, 'a', flagWeight}, binary.LittleEndian.AppendUint64(nil, math.Float64bits(1))), ErrCorrupt},
		{"a long varint", cat(head(3), []byte{0x80, 0}, []byte{1}, node), ErrCorrupt},
		{"an unknown algorithm", cat(head(99), []byte{0, 1}, node), ErrCorrupt},
		{"more after the end", cat(head(3), []byte{0, 1}, node, []byte{0}), ErrCorrupt},
		{"many points", cat(head(append([]byte{1}, binary.AppendUvarint(nil, 1<<16)...)...), []byte{0, 1}, heavy), ErrTooLarge},
		{"too many points", cat(head(append([]byte{1}, million...)...), []byte{0, 1}, node), ErrCorrupt},
		{"huge points", cat(head(append([]byte{1}, huge...)...), []byte{0, 1}, node), ErrCorrupt},
		{"a table of no prime", cat(head(4, 4), []byte{0, 1}, node), ErrCorrupt},
		{"a large table", cat(head(append([]byte{5}, binary.AppendUvarint(nil, 1<<22)...)...), []byte{0, 1}, node), ErrTooLarge},
		{"Asura: many slots", cat(head(6), []byte{0, 1}, node, []byte{1}, million, []byte{0}), ErrTooLarge},
		{"Asura: no levels", cat(head(6), []byte{0, 1}, node, []byte{0, 0}), ErrCorrupt},
		{"Asura: an empty level", cat(head(6), []byte{0, 1}, node, []byte{2, 1, 0, 0}), ErrCorrupt},
		{"Asura: a slot that is not there", cat(head(6), []byte{0, 1}, node, []byte{1, 1, 1}), ErrCorrupt},
		{"Asura: more weight than slots", cat(head(6), []byte{0, 1}, heavy, []byte{1, 1, 0}), ErrCorrupt},
		{"Jump: a bucket of nobody", cat(head(2), []byte{0, 1}, node, []byte{1}), ErrCorrupt},
		{"Jump: weights", cat(head(2), []byte{0, 2}, heavy, []byte{0, 1, 'b', 0}, []byte{0, 1}), ErrCorrupt},
		{"Allocated: many points", cat(head(append([]byte{8, 2}, binary.AppendUvarint(nil, math.Float64bits(0.01))...)...), []byte{0, 1}, node, million), ErrCorrupt},
		{"Allocated: no points", cat(head(append([]byte{8, 2}, binary.AppendUvarint(nil, math.Float64bits(0.01))...)...), []byte{0, 1}, node, []byte{0}), ErrCorrupt},
		{"Allocated: one place twice", cat(head(append([]byte{8, 2}, binary.AppendUvarint(nil, math.Float64bits(0.01))...)...), []byte{0, 1}, node, []byte{2, 1, 0, 0, 0}), ErrCorrupt},
		{"Allocated: a stranger's point", cat(head(append([]byte{8, 2}, binary.AppendUvarint(nil, math.Float64bits(0.01))...)...), []byte{0, 1}, node, []byte{2, 1, 0, 1, 1}), ErrCorrupt},
		{"Allocated: a tolerance of nothing", cat(head(append([]byte{8, 2}, binary.AppendUvarint(nil, math.Float64bits(math.NaN()))...)...), []byte{0, 1}, node, []byte{2, 1, 0, 1, 0}), ErrCorrupt},
	} {
		data := sealed(c.body)
		var err error
		used := allocatedBy(func() { _, err = Decode(data, DecodeConfig[string]{MaxTableBytes: 1 << 20}) })
		require.ErrorIs(t, err, c.want, c.what)
		require.Less(t, used, uint64(16<<10+64*len(data)), c.what)
	}
}

func TestDecodeMembersOfEveryKind(t *testing.T) {
	numbers, err := New(Config{Algorithm: Asura{}}, Nodes[int16](-5, 2, 300)...)
	require.NoError(t, err)
	back, err := Decode(encode(t, numbers), DecodeConfig[int16]{})
	require.NoError(t, err)
	require.Equal(t, numbers.Nodes(), back.Nodes())
	_, err = Decode(encode(t, numbers), DecodeConfig[int8]{})
	require.Error(t, err, "300 is no int8")
	unsigned, err := New(Config{}, Nodes[uint64](7, math.MaxUint64)...)
	require.NoError(t, err)
	backUnsigned, err := Decode(encode(t, unsigned), DecodeConfig[uint64]{})
	require.NoError(t, err)
	require.Equal(t, unsigned.Nodes(), backUnsigned.Nodes())

	servers, err := New(Config{}, Nodes(&server{"a"}, &server{"b"})...)
	require.NoError(t, err)
	var bad *ConfigError
	_, err = Decode(encode(t, servers), DecodeConfig[*server]{})
	require.ErrorAs(t, err, &bad)
	_, err = Decode(encode(t, servers), DecodeConfig[string]{MaxTableBytes: -1})
	require.ErrorAs(t, err, &bad)
	known, err := Decode(encode(t, servers), DecodeConfig[*server]{Parse: func(name string) (*server, error) { return &server{name}, nil }})
	require.NoError(t, err)
	require.Equal(t, servers.Owner("k").name, known.Owner("k").name)
	refused := errors.New("refused")
	_, err = Decode(encode(t, servers), DecodeConfig[*server]{Parse: func(string) (*server, error) { return nil, refused }})
	require.ErrorIs(t, err, refused)
	_, err = Decode(encode(t, servers), DecodeConfig[*server]{Parse: func(string) (*server, error) { return &server{"c"}, nil }})
	require.ErrorIs(t, err, ErrName, "another name")
	_, err = Decode(encode(t, mustNew(t, Points{}, Nodes("x"))), DecodeConfig[int]{})
	require.Error(t, err, "x is no int")
}

// The encoding is compact: a few bytes a node.
func TestEncodingIsCompact(t *testing.T) {
	r := mustNew(t, Points{}, inZones(1000, 3))
	require.Less(t, len(encode(t, r)), 1000*10)
	appended, err := r.AppendBinary([]byte("before"))
	require.NoError(t, err)
	require.Equal(t, "before"+string(encode(t, r)), string(appended))
}

// Whatever the input: no panic, a typed error or a sound ring, whose encoding is the
// input.
func FuzzDecode(f *testing.F) {
	for _, a := range everyAlgorithm {
		nodes := numbered(3)
		if weighty(a) {
			nodes[1].Weight = 1.5
		}
		r, err := New(Config{Algorithm: a}, nodes...)
		if err != nil {
			f.Fatal(err)
		}
		b, _ := r.MarshalBinary()
		f.Add(b[:len(b)-8])
		b, _ = mustNew(f, a, inZones(4, 2)).MarshalBinary()
		f.Add(b[:len(b)-8])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = sealed(data)
		r, err := Decode(data, DecodeConfig[string]{MaxTableBytes: 1 << 16})
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("an error without a type: %v", err)
			}
			return
		}
		if !bytes.Equal(encode(t, r), data) {
			t.Fatal("not the encoding of what was decoded")
		}
		for _, h := range []uint64{0, 1 << 40, 1 << 63, math.MaxUint64} {
			owners, err := r.OwnersHash(h, 1)
			if err != nil || owners[0] != r.OwnerHash(h) {
				t.Fatal("the first of the replicas is not the owner")
			}
		}
		if next, err := r.Add(Nodes("a further node")...); err == nil {
			if _, err := next.Remove("a further node"); err != nil {
				t.Fatal(err)
			}
		}
	})
}
