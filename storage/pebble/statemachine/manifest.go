package statemachine

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	engine "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble takes a record of its manifest that it can't read for the end, and forgets
// what follows: the state would go back to what it was long ago. But each record is
// synced before the next one is written. So only the last one can be cut off by a
// crash, and where a record begins behind a bad one, a bit was flipped.
//
// A manifest is made of blocks of 32 KiB, in which chunks lie: checksum (4 bytes, little
// endian), length (2), type (1), bytes. A record is a full chunk, or a first, middle
// ones and a last.
const (
	manifestBlock = 32 << 10
	chunkHeader   = 7
	fullChunk     = 1
	firstChunk    = 2
	lastChunkType = 4
)

// checkManifest returns a *storage.CorruptError if the manifest in the directory was
// altered. That there is none is left to Pebble.
func checkManifest(fs vfs.FS, dir string) error {
	desc, err := engine.Peek(dir, fs)
	if err != nil || !desc.Exists {
		return engineError(dir, "look for the manifest", err)
	}
	f, err := fs.Open(desc.ManifestFilename, vfs.SequentialReadsOption)
	if err != nil {
		return engineError(dir, "open the manifest", err)
	}
	defer f.Close()
	var block [manifestBlock]byte
	bad := false
	for start := int64(0); ; start += manifestBlock {
		n, err := io.ReadFull(f, block[:])
		for at := 0; at+chunkHeader <= n; {
			size := chunk(block[at:n])
			switch {
			case size == 0:
				bad = true
				at++
				continue
			case bad && (block[at+6] == fullChunk || block[at+6] == firstChunk):
				return corrupt(desc.ManifestFilename, "it was altered before byte %d", start+int64(at))
			}
			at += size
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return engineError(dir, "read the manifest", err)
		}
	}
}

// chunk returns the size of the chunk that b begins with, or 0 if there is none.
func chunk(b []byte) int {
	size := chunkHeader + int(binary.LittleEndian.Uint16(b[4:]))
	if b[6] < fullChunk || b[6] > lastChunkType || size > len(b) {
		return 0
	}
	sum := crc32.Checksum(b[6:size], castagnoli)
	if binary.LittleEndian.Uint32(b) != (sum>>15|sum<<17)+0xa282ead8 {
		return 0
	}
	return size
}
