package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/synod-go/synod/txn/kv"
)

// The bank has a row for each account, and, as every bank, an entry for each change of one:
//
//	account/000017        balance, and a number that each change replaces
//	entry/000017/ID       by how much transfer ID has changed it, or void
//
// Both are in the group of the account, so that a transfer is over two groups at most.

const (
	opening = 1000 // what is in an account at first
	void    = "void"
)

var errFunds = errors.New("bank: there is not enough in the account")

func accountKey(n int) []byte          { return fmt.Appendf(nil, "account/%06d", n) }
func entryKey(n int, id string) []byte { return fmt.Appendf(nil, "entry/%06d/%s", n, id) }

// route says in which group a key is: that of its account. It may never change.
func route(groups int) func(key []byte) int {
	return func(key []byte) int {
		n, _ := accountOf(key)
		return n % groups
	}
}

// routeRange says in which groups a range is: that of one account's entries is in one, and any other one in all.
func routeRange(groups int) func(from, to []byte) []int {
	return func(from, to []byte) []int {
		one, ok := accountOf(from)
		other, ok2 := accountOf(to)
		if ok && ok2 && one == other && bytes.HasPrefix(from, []byte("entry/")) && bytes.HasPrefix(to, []byte("entry/")) {
			return []int{one % groups}
		}
		all := make([]int, groups)
		for i := range all {
			all[i] = i
		}
		return all
	}
}

// accountOf returns the number of the account that a key belongs to.
func accountOf(key []byte) (int, bool) {
	_, rest, _ := bytes.Cut(key, []byte("/"))
	number, _, _ := bytes.Cut(rest, []byte("/"))
	n, err := strconv.Atoi(string(number))
	return max(n, 0), err == nil && n >= 0
}

// account is what is in an account's row.
type account struct{ balance, version int64 }

func (a account) bytes() []byte { return fmt.Appendf(nil, "%d %d", a.balance, a.version) }

func parseAccount(row []byte) (a account, err error) {
	if _, err := fmt.Sscanf(string(row), "%d %d", &a.balance, &a.version); err != nil {
		return a, fmt.Errorf("bank: an account's row is %q: %w", row, err)
	}
	return a, nil
}

func readAccount(tx *kv.Tx, n int) (account, error) {
	row, err := tx.Get(accountKey(n))
	if err != nil {
		return account{}, fmt.Errorf("bank: account %d: %w", n, err)
	}
	return parseAccount(row)
}

// transfer is an order to move money. Its ID is its own: who sends it again sends the same one.
type transfer struct {
	id       string
	from, to int
	amount   int64
}

// move is the transaction of a transfer. It commits at most once: a second time, or after settle has said that it did not happen, its
// entry is there, and Update returns a *kv.MismatchError. It returns the accounts as they were.
func (t transfer) move(tx *kv.Tx, version int64) (from, to account, err error) {
	if err := tx.ExpectAbsent(entryKey(t.from, t.id)); err != nil {
		return from, to, err
	}
	if from, err = readAccount(tx, t.from); err != nil {
		return from, to, err
	}
	if to, err = readAccount(tx, t.to); err != nil {
		return from, to, err
	}
	if from.balance < t.amount {
		return from, to, errFunds
	}
	return from, to, errors.Join(
		tx.Put(accountKey(t.from), account{from.balance - t.amount, version}.bytes()),
		tx.Put(accountKey(t.to), account{to.balance + t.amount, version}.bytes()),
		tx.Put(entryKey(t.from, t.id), strconv.AppendInt(nil, -t.amount, 10)),
		tx.Put(entryKey(t.to, t.id), strconv.AppendInt(nil, t.amount, 10)),
	)
}

// settle finds out what became of a transfer whose outcome is unknown, for good: if it did not happen, it never will. It may be
// called until it has an answer, and by anybody.
func (t transfer) settle(ctx context.Context, db *kv.DB) (happened bool, err error) {
	err = db.Update(ctx, func(tx *kv.Tx) error {
		entry, err := tx.Get(entryKey(t.from, t.id))
		if errors.Is(err, kv.ErrNotFound) {
			happened = false
			return tx.Put(entryKey(t.from, t.id), []byte(void))
		}
		happened = string(entry) != void
		return err
	})
	return happened, err
}

// readAccounts returns all accounts, by key.
func readAccounts(tx *kv.Tx) (map[string]account, error) {
	rows, err := tx.Scan([]byte("account/"), []byte("account0"), 0)
	if err != nil {
		return nil, err
	}
	all := make(map[string]account, len(rows))
	for _, row := range rows {
		if all[string(row.Key)], err = parseAccount(row.Value); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// readEntries returns all entries, by transfer and account.
func readEntries(tx *kv.Tx) (map[string]map[int]string, error) {
	rows, err := tx.Scan([]byte("entry/"), []byte("entry0"), 0)
	if err != nil {
		return nil, err
	}
	all := make(map[string]map[int]string)
	for _, row := range rows {
		n, ok := accountOf(row.Key)
		id := string(row.Key[strings.LastIndexByte(string(row.Key), '/')+1:])
		if !ok {
			return nil, fmt.Errorf("bank: an entry's key is %q", row.Key)
		}
		if all[id] == nil {
			all[id] = make(map[int]string, 2)
		}
		all[id][n] = string(row.Value)
	}
	return all, nil
}

// total adds up balances.
func total(accounts map[string]account) (sum int64) {
	for _, a := range accounts {
		sum += a.balance
	}
	return sum
}
