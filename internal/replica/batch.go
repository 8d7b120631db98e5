package replica

import (
	"encoding/binary"
)

// A value in the log is a batch: commands that one node proposed together. It
// begins with who proposed it, so that each node finds its own callers when the
// batch is decided:
//
//	version  1 byte
//	boot     8 bytes: drawn at random whenever a node opens a group
//	first    number of the first command among those of that boot
//	count
//	commands, each a length and its bytes
const batchVersion = 1

// batchOverhead is an upper bound of the bytes before the first command.
const batchOverhead = 1 + 8 + 2*binary.MaxVarintLen64

func appendBatchHeader(dst []byte, boot, first uint64, count int) []byte {
	dst = append(dst, batchVersion)
	dst = binary.LittleEndian.AppendUint64(dst, boot)
	dst = binary.AppendUvarint(dst, first)
	return binary.AppendUvarint(dst, uint64(count))
}

type batchHeader struct {
	boot, first uint64
	count       int
}

// readBatchHeader takes the header off b; the commands are left in the reader.
func readBatchHeader(r *Reader) (batchHeader, error) {
	if v := r.Byte(); v != batchVersion {
		r.fail()
		return batchHeader{}, r.err
	}
	h := batchHeader{boot: r.Uint64(), first: r.Uvarint()}
	h.count = r.Count(1)
	return h, r.err
}
