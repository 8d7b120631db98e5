package commit

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sort"

	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/storage"
)

// disk is what is durable of a core's records. It is not changed, but replaced.
type disk struct {
	keys, values [][]byte // ascending
	records      *twophase.Records
	sum          [sha256.Size]byte
}

func newDisk() *disk { return &disk{records: new(twophase.Records)} }

// commit returns the disk with a batch in it.
func (d *disk) commit(b *storage.Batch) (*disk, error) {
	if err := storage.Validate(b); err != nil {
		return nil, err
	}
	c := &disk{keys: slices.Clone(d.keys), values: slices.Clone(d.values)}
	for _, op := range b.Ops() {
		key := string(op.Key)
		i := sort.Search(len(c.keys), func(i int) bool { return string(c.keys[i]) >= key })
		if i < len(c.keys) && string(c.keys[i]) == key {
			c.keys, c.values = slices.Delete(c.keys, i, i+1), slices.Delete(c.values, i, i+1)
		}
		if op.Kind == storage.KindSet {
			c.keys, c.values = slices.Insert(c.keys, i, op.Key), slices.Insert(c.values, i, op.Value)
		}
	}
	var all []byte
	for i := range c.keys {
		all = appendBytes(appendBytes(all, c.keys[i]), c.values[i])
	}
	c.sum = sha256.Sum256(all)
	var err error
	c.records, err = twophase.ReadRecords(c.keys, c.values)
	return c, err
}

func appendBytes(b, v []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}
