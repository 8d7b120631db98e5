package storage

import (
	"errors"
	"fmt"
)

// ErrInvalidBatch says that a batch holds an operation that means nothing.
// Nothing of it was written, and the store still works.
var ErrInvalidBatch = errors.New("storage: invalid batch")

// Validate returns an error that wraps ErrInvalidBatch and names the operation
// if b sets or deletes an empty key, or holds an operation of unknown kind. It
// is for implementations of [Store], whose Commit begins with it.
func Validate(b *Batch) error {
	for i := range b.ops {
		op := &b.ops[i]
		switch op.Kind {
		case KindSet, KindDelete:
			if len(op.Key) == 0 {
				return fmt.Errorf("%w: operation %d has an empty key", ErrInvalidBatch, i)
			}
		case KindDeleteRange:
		default:
			return fmt.Errorf("%w: operation %d is of unknown kind %d", ErrInvalidBatch, i, op.Kind)
		}
	}
	return nil
}
