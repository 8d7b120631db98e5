package kv

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/wire"
	"github.com/synod-go/synod/txn"
)

// ErrLocked says that a key belongs to a transaction of a Resource that is not over.
var ErrLocked = errors.New("kv: a key is locked")

// ResourceConfig says what a Resource works on. DB, Prefix and Name are required.
type ResourceConfig struct {
	// DB is where the keys are. It is not closed.
	DB *DB

	// Prefix begins the keys that resources keep for themselves: what is locked, and what is to be written. It is the same for all
	// resources over the same keys; no other key begins with it, and Config.Route must say where such keys belong. 1 to 64 bytes.
	Prefix []byte

	// Name is that of this resource among those: each belongs to one manager, on one node, and lists its own transactions in
	// InDoubt. 1 to 255 bytes.
	Name string
}

// Resource makes replicated keys a participant in transactions of a txn.Manager, beside a database or a directory: what it has
// prepared is in the groups, and survives what they survive. The keys that a transaction has read and written there are locked
// until it is over; a transaction of the DB that uses one of them otherwise must ask Guard. All methods may be called concurrently.
type Resource struct {
	cfg ResourceConfig
}

var _ txn.Resource = (*Resource)(nil)

// NewResource returns a resource. The error is a *synod.ConfigError.
func NewResource(cfg ResourceConfig) (*Resource, error) {
	bad := func(field, reason string) error {
		return &synod.ConfigError{Package: "kv", Field: field, Reason: reason}
	}
	switch {
	case cfg.DB == nil:
		return nil, bad("DB", "missing")
	case len(cfg.Prefix) == 0 || len(cfg.Prefix) > 64:
		return nil, bad("Prefix", "1 to 64 bytes")
	case len(cfg.Name) == 0 || len(cfg.Name) > 255:
		return nil, bad("Name", "1 to 255 bytes")
	case cfg.DB.cfg.MaxKeyBytes < 512:
		return nil, bad("DB", "its Config.MaxKeyBytes is below 512, which a resource's own keys need")
	}
	cfg.Prefix = bytes.Clone(cfg.Prefix)
	return &Resource{cfg}, nil
}

// The keys of resources, behind the prefix: 'l' and a key, with the branch that holds it; 'b', the resource's name and an ID, with what
// is to be written.
func (r *Resource) lockKey(key string) []byte {
	return append(append(slices.Clone(r.cfg.Prefix), 'l'), key...)
}

func (r *Resource) branches() []byte {
	return wire.AppendBytes(append(slices.Clone(r.cfg.Prefix), 'b'), r.cfg.Name)
}

func (r *Resource) branchKey(id txn.ID) []byte {
	b := r.branches()
	for _, v := range [...]uint64{id.Node, id.Incarnation, id.Counter} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

// branch is what a transaction has done here.
type branch struct {
	prepared bool
	keys     []string // locked
	writes   []write
}

func (b *branch) encode() []byte {
	out := []byte{0}
	if b.prepared {
		out[0] = 1
	}
	return appendPart(out, &prepare{reads: b.keys, writes: b.writes})
}

func decodeBranch(b []byte) (*branch, error) {
	r := wire.NewReader(b)
	var p prepare
	out := &branch{prepared: r.Byte(1) == 1}
	readPart(&r, &p)
	out.keys, out.writes = p.reads, p.writes
	if r.End() != nil {
		return nil, fmt.Errorf("kv: the record of a resource's transaction is damaged: %w", ErrCorrupt)
	}
	return out, nil
}

// Work is what a transaction is to do, for txn.Participant.Work.
type Work struct {
	Expect []Pair   // keys that must have these values
	Absent [][]byte // keys that must have none
	Put    []Pair
	Delete [][]byte
}

// Encode returns the work's bytes.
func (w *Work) Encode() []byte {
	var p prepare
	for _, e := range w.Expect {
		p.expected = append(p.expected, expectation{key: string(e.Key), value: e.Value})
	}
	for _, k := range w.Absent {
		p.expected = append(p.expected, expectation{key: string(k), absent: true})
	}
	for _, e := range w.Put {
		p.writes = append(p.writes, write{key: string(e.Key), value: e.Value})
	}
	for _, k := range w.Delete {
		p.writes = append(p.writes, write{key: string(k), deleted: true})
	}
	return appendPart(nil, &p)
}

// Do runs fn under a transaction of the manager, once in its life, before it is asked to prepare: what fn reads and writes is locked when Do
// returns nil, and its writes are there when the transaction is committed. fn may be run again, as Update's is, and must not Scan:
// ranges can't be locked. A key that is locked already is ErrLocked: abort the transaction. Errors are Update's.
func (r *Resource) Do(ctx context.Context, id txn.ID, fn func(*Tx) error) error {
	return r.cfg.DB.Update(ctx, func(tx *Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return r.keep(tx, id, false)
	})
}

// keep turns what a transaction of the DB has read and would write into locks, and a branch.
func (r *Resource) keep(tx *Tx, id txn.ID, prepared bool) error {
	b := &branch{prepared: prepared, writes: tx.writes}
	tx.writes = nil
	for _, w := range b.writes {
		b.keys = append(b.keys, w.key)
	}
	for _, p := range tx.parts {
		if len(p.ranges) > 0 {
			return fmt.Errorf("%w: a resource's transaction can't scan", ErrInvalid)
		}
		b.keys = append(b.keys, p.prepare.reads...)
		for _, e := range p.exact {
			b.keys = append(b.keys, e.key)
		}
		for _, e := range p.expected {
			b.keys = append(b.keys, e.key)
		}
	}
	slices.Sort(b.keys)
	b.keys = slices.Compact(b.keys)
	for _, k := range b.keys {
		lock := r.lockKey(k)
		holder, err := tx.Get(lock)
		switch {
		case err == nil && !probe.Bug("kv: a resource takes what is locked"):
			return fmt.Errorf("%w: %q, by %x", ErrLocked, k, holder)
		case err != nil && !errors.Is(err, ErrNotFound):
			return err
		}
		if err := tx.Put(lock, r.branchKey(id)); err != nil {
			return err
		}
	}
	key := r.branchKey(id)
	if _, err := tx.Get(key); !errors.Is(err, ErrNotFound) {
		if err == nil {
			err = fmt.Errorf("%w: transaction %v has done something here already", ErrInvalid, id)
		}
		return err
	}
	return tx.Put(key, b.encode())
}

// Guard makes a transaction of the DB one that commits only if nobody holds a key: ErrLocked if somebody does, and a conflict if somebody
// does meanwhile. Whoever uses keys that a Resource also uses calls it for each of them.
func (r *Resource) Guard(tx *Tx, key []byte) error {
	holder, err := tx.Get(r.lockKey(string(key)))
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%w: %q, by %x", ErrLocked, key, holder)
}

// Prepare implements txn.Resource: it does what Do has done for work that is handed over, if there is any. Yes is durable in a majority of
// each group.
func (r *Resource) Prepare(ctx context.Context, request txn.PrepareRequest) (txn.Vote, error) {
	vote := txn.Yes
	err := r.settle(ctx, func(tx *Tx) error {
		vote = txn.Yes
		key := r.branchKey(request.ID)
		value, err := tx.Get(key)
		switch {
		case err == nil:
			b, err := decodeBranch(value)
			if err != nil {
				return err
			}
			b.prepared = true
			return tx.Put(key, b.encode())
		case !errors.Is(err, ErrNotFound):
			return err
		case len(request.Work) == 0:
			return fmt.Errorf("%w: transaction %v has done nothing here, and has no work", ErrInvalid, request.ID)
		}
		return r.perform(tx, request.ID, request.Work)
	})
	if err != nil {
		return txn.No, err
	}
	return vote, nil
}

// perform does the work that is handed over.
func (r *Resource) perform(tx *Tx, id txn.ID, work []byte) error {
	reader := wire.NewReader(work)
	var p prepare
	readPart(&reader, &p)
	if reader.End() != nil || p.hasRead() {
		return fmt.Errorf("%w: the work is no Work", ErrInvalid)
	}
	for _, e := range p.expected {
		value, err := tx.Get([]byte(e.key))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if (err != nil) != e.absent || err == nil && !bytes.Equal(value, e.value) {
			return &MismatchError{Key: []byte(e.key)}
		}
	}
	for _, w := range p.writes {
		w.value = bytes.Clone(w.value)
		if err := tx.write([]byte(w.key), w); err != nil {
			return err
		}
	}
	return r.keep(tx, id, true)
}

// settle runs an Update until its outcome is certain, or ctx ends: what it does may be done again.
func (r *Resource) settle(ctx context.Context, fn func(*Tx) error) error {
	for {
		err := r.cfg.DB.Update(ctx, fn)
		if !errors.Is(err, synod.ErrUnknownOutcome) || ctx.Err() != nil {
			return err
		}
	}
}

// Commit implements txn.Resource.
func (r *Resource) Commit(ctx context.Context, id txn.ID) error { return r.end(ctx, id, true) }

// Abort implements txn.Resource.
func (r *Resource) Abort(ctx context.Context, id txn.ID) error { return r.end(ctx, id, false) }

func (r *Resource) end(ctx context.Context, id txn.ID, commit bool) error {
	return r.settle(ctx, func(tx *Tx) error {
		key := r.branchKey(id)
		value, err := tx.Get(key)
		if errors.Is(err, ErrNotFound) {
			return nil // it is over, or was never here
		}
		if err != nil {
			return err
		}
		b, err := decodeBranch(value)
		if err != nil {
			return err
		}
		if commit && !b.prepared {
			return fmt.Errorf("%w: transaction %v is not prepared", ErrInvalid, id)
		}
		if err := tx.Delete(key); err != nil {
			return err
		}
		for _, k := range b.keys {
			if err := tx.Delete(r.lockKey(k)); err != nil {
				return err
			}
		}
		for _, w := range b.writes {
			if !commit {
				break
			}
			w.value = bytes.Clone(w.value)
			if err := tx.write([]byte(w.key), w); err != nil {
				return err
			}
		}
		return nil
	})
}

// InDoubt implements txn.Resource. What an earlier run has begun and not prepared is given up: nobody will ask for it.
func (r *Resource) InDoubt(ctx context.Context) (prepared []txn.ID, err error) {
	from := r.branches()
	to := append(slices.Clone(from), bytes.Repeat([]byte{0xff}, 24)...)
	var open []txn.ID
	err = r.cfg.DB.View(ctx, func(tx *Tx) error {
		prepared, open = nil, nil
		pairs, err := tx.Scan(from, append(to, 0), 0)
		if err != nil {
			return err
		}
		for _, p := range pairs {
			rest := p.Key[len(from):]
			if len(rest) != 24 {
				return fmt.Errorf("kv: a key %q below ResourceConfig.Prefix is not the resource's: %w", p.Key, ErrCorrupt)
			}
			id := txn.ID{Node: binary.BigEndian.Uint64(rest), Incarnation: binary.BigEndian.Uint64(rest[8:]), Counter: binary.BigEndian.Uint64(rest[16:])}
			b, err := decodeBranch(p.Value)
			switch {
			case err != nil:
				return err
			case b.prepared:
				prepared = append(prepared, id)
			default:
				open = append(open, id)
			}
		}
		return nil
	})
	for _, id := range open {
		err = errors.Join(err, r.Abort(ctx, id))
	}
	return prepared, err
}
