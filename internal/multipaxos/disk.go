package multipaxos

import (
	"errors"
	"io"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// What a simulation looks at on the disk of a node that may be running.

// ReadPromised decodes what a store holds of what was promised.
func ReadPromised(keys replica.Keys, store storage.Store) (Ballot, error) {
	h, err := readHard(keys, store)
	return h.promised, err
}

// EachRun calls fn for each record of values that a store holds, with its slots and the ballot in which
// they are accepted, until that returns false. Chosen: they are known to be chosen. The values are not read.
func EachRun(keys replica.Keys, store storage.Store, fn func(first, last uint64, ballot Ballot, chosen bool) bool) error {
	from, to := keys.ProtocolRange(tagRun)
	it, err := store.Scan(from, to)
	if err != nil {
		return err
	}
	defer it.Close()
	for {
		key, _, err := it.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if r, ok := openRunKey(from, key); ok && !fn(r.first, r.last, r.ballot, r.ballot.isChosen()) {
			return nil
		}
	}
}
