//synod:core

package twophase

import (
	"fmt"

	"github.com/synod-go/synod/internal/wire"
)

// Reader is a wire.Reader that knows what a transaction's ID is, for this core, and for others that write what this one
// writes. After the first failure it returns zeros; End says whether there was one.
type Reader struct{ wire.Reader }

// NewReader returns a reader of b. What Bytes and Rest return aliases it.
func NewReader(b []byte) *Reader { return &Reader{wire.NewReader(b)} }

// ID reads the ID of a transaction.
func (r *Reader) ID() ID { return ID{r.Uint64(), r.Uint64(), r.Uint64()} }

// End returns an error that wraps ErrMalformed if something could not be read, or is left over. what names it.
func (r *Reader) End(what string) error {
	if r.Reader.End() != nil {
		return fmt.Errorf("%w: %s", ErrMalformed, what)
	}
	return nil
}

// AppendFlags appends up to eight flags, the first as the lowest bit.
func AppendFlags(b []byte, list ...bool) []byte { return append(b, flags(list...)) }
