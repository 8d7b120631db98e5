package txn_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/txn"
)

// accounts is a resource: accounts in a store. What a transaction is to do comes as its work.
type accounts struct {
	store storage.Store

	mu     sync.Mutex
	locked map[string]txn.ID
	calls  []string
	fail   map[string]error // what a method returns
}

// change is a part of a transaction's work.
type change struct {
	Account string
	Amount  int
}

func work(changes ...change) []byte {
	b, err := json.Marshal(changes)
	if err != nil {
		panic(err)
	}
	return b
}

func openAccounts(store storage.Store) (*accounts, error) {
	a := &accounts{store: store, locked: map[string]txn.ID{}, fail: map[string]error{}}
	return a, a.each("p", func(id txn.ID, changes []change) {
		for _, c := range changes {
			a.locked[c.Account] = id
		}
	})
}

func (a *accounts) each(tag string, fn func(id txn.ID, changes []change)) error {
	it, err := a.store.Scan([]byte(tag), []byte(tag+"\xff"))
	if err != nil {
		return err
	}
	keys, values, err := storage.Collect(it)
	if err != nil {
		return err
	}
	for i, k := range keys {
		id, err := txn.ParseID(string(k[1:]))
		if err != nil {
			return err
		}
		var changes []change
		if err := json.Unmarshal(values[i], &changes); err != nil {
			return err
		}
		fn(id, changes)
	}
	return nil
}

func (a *accounts) balance(account string) (n int) {
	b, err := a.store.Get([]byte("a" + account))
	if err == nil {
		_, err = fmt.Sscan(string(b), &n)
	}
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		panic(err)
	}
	return n
}

func (a *accounts) called(name string, id txn.ID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = append(a.calls, name)
	return a.fail[name]
}

// take locks the accounts, or says why not. It does not wait: whoever meets a lock aborts.
func (a *accounts) take(id txn.ID, changes []change) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range changes {
		if holder, locked := a.locked[c.Account]; locked && holder != id {
			return fmt.Errorf("account %s is locked by %v", c.Account, holder)
		}
	}
	for _, c := range changes {
		a.locked[c.Account] = id
	}
	return nil
}

func (a *accounts) release(id txn.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for account, holder := range a.locked {
		if holder == id {
			delete(a.locked, account)
		}
	}
}

func (a *accounts) Prepare(_ context.Context, r txn.PrepareRequest) (txn.Vote, error) {
	if err := a.called("prepare", r.ID); err != nil {
		return txn.No, err
	}
	if _, err := a.store.Get([]byte("c" + r.ID.String())); err == nil {
		return txn.No, errors.New("prepared after it was committed")
	}
	var changes []change
	if err := json.Unmarshal(r.Work, &changes); err != nil {
		return txn.No, err
	}
	if len(changes) == 0 {
		return txn.ReadOnly, nil
	}
	if err := a.take(r.ID, changes); err != nil {
		return txn.No, err
	}
	for _, c := range changes {
		if a.balance(c.Account)+c.Amount < 0 {
			a.release(r.ID)
			return txn.No, fmt.Errorf("account %s has only %d", c.Account, a.balance(c.Account))
		}
	}
	b := new(storage.Batch)
	b.Set([]byte("p"+r.ID.String()), r.Work)
	if err := a.store.Commit(b); err != nil {
		return txn.No, err
	}
	return txn.Yes, nil
}

func (a *accounts) Commit(_ context.Context, id txn.ID) error {
	if err := a.called("commit", id); err != nil {
		return err
	}
	return a.commit(id)
}

// commit moves what is prepared, once, and leaves a marker.
func (a *accounts) commit(id txn.ID) error {
	prepared, err := a.store.Get([]byte("p" + id.String()))
	if errors.Is(err, storage.ErrNotFound) {
		return nil // it was done before
	}
	if err != nil {
		return err
	}
	var changes []change
	if err := json.Unmarshal(prepared, &changes); err != nil {
		return err
	}
	b := new(storage.Batch)
	for _, c := range changes {
		b.Set([]byte("a"+c.Account), fmt.Append(nil, a.balance(c.Account)+c.Amount))
	}
	b.Delete([]byte("p" + id.String()))
	b.Set([]byte("c"+id.String()), prepared)
	if err := a.store.Commit(b); err != nil {
		return err
	}
	a.release(id)
	return nil
}

func (a *accounts) Abort(_ context.Context, id txn.ID) error {
	if err := a.called("abort", id); err != nil {
		return err
	}
	b := new(storage.Batch)
	b.Delete([]byte("p" + id.String()))
	if err := a.store.Commit(b); err != nil {
		return err
	}
	a.release(id)
	return nil
}

func (a *accounts) InDoubt(context.Context) (list []txn.ID, err error) {
	if err := a.called("in doubt", txn.ID{}); err != nil {
		return nil, err
	}
	err = a.each("p", func(id txn.ID, _ []change) { list = append(list, id) })
	return list, err
}

func (a *accounts) locks() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.locked)
}

func (a *accounts) count(call string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Count(strings.Join(a.calls, ","), call)
}

// direct is a resource that commits in one phase, and cannot prepare.
type direct struct{ *accounts }

func (d direct) Prepare(context.Context, txn.PrepareRequest) (txn.Vote, error) {
	return txn.No, errors.New("it can't prepare")
}

func (d direct) InDoubt(context.Context) ([]txn.ID, error) { return nil, nil }

func (d direct) CommitOnePhase(_ context.Context, id txn.ID, work []byte) (txn.Outcome, error) {
	if err := d.called("one", id); err != nil {
		return txn.Unknown, err
	}
	var changes []change
	if err := json.Unmarshal(work, &changes); err != nil {
		return txn.Aborted, err
	}
	if err := d.take(id, changes); err != nil {
		return txn.Aborted, err
	}
	defer d.release(id)
	b := new(storage.Batch)
	for _, c := range changes {
		n := d.balance(c.Account) + c.Amount
		if n < 0 {
			return txn.Aborted, fmt.Errorf("account %s has only %d", c.Account, d.balance(c.Account))
		}
		b.Set([]byte("a"+c.Account), fmt.Append(nil, n))
	}
	b.Set([]byte("c"+id.String()), work)
	if err := d.store.Commit(b); err != nil {
		return txn.Unknown, err
	}
	return txn.Committed, nil
}

func (d direct) Outcome(_ context.Context, id txn.ID) (txn.Outcome, error) {
	if err := d.called("outcome", id); err != nil {
		return txn.Unknown, err
	}
	_, err := d.store.Get([]byte("c" + id.String()))
	if errors.Is(err, storage.ErrNotFound) {
		return txn.Aborted, nil
	}
	if err != nil {
		return txn.Unknown, err
	}
	return txn.Committed, nil
}

var (
	_ txn.Resource          = (*accounts)(nil)
	_ txn.OnePhaseCommitter = direct{}
)
