package paxos

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"slices"
	"sort"

	"github.com/synod-go/synod/internal/multipaxos"
	"github.com/synod-go/synod/storage"
)

// disk is a store of few keys, of which a copy costs nothing: what it holds is not changed, but replaced.
type disk struct{ content *content }

// content is what a disk holds.
type content struct {
	keys, values [][]byte // ascending
	sum          [sha256.Size]byte

	// What a core would find.
	promised multipaxos.Ballot
	accepted []multipaxos.Accepted
}

var _ storage.Store = (*disk)(nil)

func newDisk() *disk { return &disk{content: &content{}} }

func (d *disk) clone() *disk { return &disk{content: d.content} }

func seal(k, values [][]byte) (*content, error) {
	c := &content{keys: k, values: values}
	var all []byte
	for i := range k {
		all = binary.AppendUvarint(all, uint64(len(k[i])))
		all = append(all, k[i]...)
		all = binary.AppendUvarint(all, uint64(len(values[i])))
		all = append(all, values[i]...)
	}
	c.sum = sha256.Sum256(all)
	if _, ok := c.get(keys.Protocol('h')); !ok {
		return c, nil // a replica that has left
	}
	var err error
	c.promised, c.accepted, err = multipaxos.ReadRecords(keys, &disk{c})
	return c, err
}

// runs returns the places of the runs of values.
func (c *content) runs() (list []int) {
	from, to := keys.ProtocolRange('l')
	for i := c.search(from); i < len(c.keys) && bytes.Compare(c.keys[i], to) < 0; i++ {
		list = append(list, i)
	}
	return list
}

func (c *content) search(key []byte) int {
	return sort.Search(len(c.keys), func(i int) bool { return bytes.Compare(c.keys[i], key) >= 0 })
}

// Get implements storage.Store.
func (d *disk) Get(key []byte) ([]byte, error) {
	if value, ok := d.content.get(key); ok {
		return bytes.Clone(value), nil
	}
	return nil, storage.ErrNotFound
}

func (c *content) get(key []byte) ([]byte, bool) {
	if i := c.search(key); i < len(c.keys) && bytes.Equal(c.keys[i], key) {
		return c.values[i], true
	}
	return nil, false
}

// Scan implements storage.Store.
func (d *disk) Scan(from, to []byte) (storage.Iterator, error) {
	c := d.content
	end := len(c.keys)
	if len(to) > 0 {
		end = c.search(to)
	}
	return &iterator{c: c, next: c.search(from), end: end}, nil
}

// Commit implements storage.Store.
func (d *disk) Commit(b *storage.Batch) error {
	if err := storage.Validate(b); err != nil {
		return err
	}
	c := &content{keys: slices.Clone(d.content.keys), values: slices.Clone(d.content.values)}
	for _, op := range b.Ops() {
		i := c.search(op.Key)
		j := i
		switch {
		case op.Kind == storage.KindDeleteRange && len(op.End) == 0:
			j = len(c.keys)
		case op.Kind == storage.KindDeleteRange:
			j = max(i, c.search(op.End))
		case i < len(c.keys) && bytes.Equal(c.keys[i], op.Key):
			j = i + 1
		}
		c.keys, c.values = slices.Delete(c.keys, i, j), slices.Delete(c.values, i, j)
		if op.Kind == storage.KindSet {
			c.keys, c.values = slices.Insert(c.keys, i, bytes.Clone(op.Key)), slices.Insert(c.values, i, bytes.Clone(op.Value))
		}
	}
	c, err := seal(c.keys, c.values)
	if err == nil {
		d.content = c
	}
	return err
}

// Close implements storage.Store.
func (d *disk) Close() error { return nil }

type iterator struct {
	c         *content
	next, end int
}

// Next implements storage.Iterator.
func (it *iterator) Next() (key, value []byte, err error) {
	if it.next >= it.end {
		return nil, nil, io.EOF
	}
	it.next++
	return it.c.keys[it.next-1], it.c.values[it.next-1], nil
}

// Close implements storage.Iterator.
func (it *iterator) Close() error { return nil }
