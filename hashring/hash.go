package hashring

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// Odd constants without structure: digits of the fractional parts of the square
// roots of 2, 3, 5 and 7, with the lowest bit set.
const (
	k0 uint64 = 0x6a09e667f3bcc909
	k1 uint64 = 0xbb67ae8584caa73b
	k2 uint64 = 0x3c6ef372fe94f82b
	k3 uint64 = 0xa54ff53a5f1d36f1
)

// HashString returns the hash of a key. It is part of the format: it never changes
// within a version of the encoding, and is the same on every platform. It is not
// meant to withstand somebody who chooses keys in order to overload one node; where
// that matters, hash with a secret and use [Ring.OwnerHash].
func HashString(key string) uint64 {
	return HashBytes(unsafe.Slice(unsafe.StringData(key), len(key)))
}

// HashBytes is [HashString] for bytes: equal contents have equal hashes. The key is
// neither changed nor retained.
func HashBytes(key []byte) uint64 {
	n := len(key)
	var x, y uint64
	h := k0
	switch {
	case n > 16:
		rest := key
		for len(rest) > 16 {
			h = fold(binary.LittleEndian.Uint64(rest)^k1, binary.LittleEndian.Uint64(rest[8:])^h)
			rest = rest[16:]
		}
		x = binary.LittleEndian.Uint64(key[n-16:])
		y = binary.LittleEndian.Uint64(key[n-8:])
	case n >= 8:
		x = binary.LittleEndian.Uint64(key)
		y = binary.LittleEndian.Uint64(key[n-8:])
	case n >= 4:
		x = uint64(binary.LittleEndian.Uint32(key))
		y = uint64(binary.LittleEndian.Uint32(key[n-4:]))
	case n > 0:
		x = uint64(key[0])<<16 | uint64(key[n>>1])<<8 | uint64(key[n-1])
	}
	high, low := bits.Mul64(x^k1, y^h)
	return fold(low^k2^uint64(n), high^k3)
}

// HashUint64 spreads a number over the hash space, for keys that are numbers: user
// IDs and the like. [Ring.OwnerHash] takes its argument as it is, and needs hashes
// that are spread evenly. Different numbers have different hashes.
func HashUint64(key uint64) uint64 {
	key ^= key >> 32
	key *= k1
	key ^= key >> 29
	key *= k3
	key ^= key >> 32
	return key
}

// fold multiplies to 128 bits and folds them to 64.
func fold(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

// mix is the hash of two numbers.
func mix(a, b uint64) uint64 {
	high, low := bits.Mul64(a^k0, b*k3^k1)
	return fold(low^k2, high^k3)
}
