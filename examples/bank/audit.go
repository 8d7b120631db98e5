package main

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/synod-go/synod/txn/check"
	"github.com/synod-go/synod/txn/kv"
)

// audit looks at everything, once nobody works any more and nothing is broken.
func (b *bank) audit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := b.settleAll(ctx); err != nil {
		return err
	}
	if err := b.quiet(ctx); err != nil {
		return err
	}

	var first map[string]account
	for id := uint64(1); id <= members; id++ {
		var accounts map[string]account
		var entries map[string]map[int]string
		err := b.at(id).db.View(ctx, func(tx *kv.Tx) (err error) {
			if accounts, err = readAccounts(tx); err == nil {
				entries, err = readEntries(tx)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("read node %d: %w", id, err)
		}
		b.say("node %d has a total of %d in %d accounts, and entries of %d transfers", id, total(accounts), len(accounts), len(entries))
		if first == nil {
			first = accounts
			b.record.Total = int(total(accounts))
			b.examine(accounts, entries)
		} else if !maps.Equal(first, accounts) {
			b.violation("node %d has other accounts than node 1", id)
		}
	}

	history := b.history.History()
	b.record.Checked = len(history.Transactions)
	b.say("checking a history of %d transactions for strict serializability", b.record.Checked)
	report, err := history.Check(check.Config{})
	if err != nil {
		return fmt.Errorf("check the history: %w", err)
	}
	if !report.OK() {
		b.violation("%v", report)
	}
	return nil
}

// settleAll finds out what became of the transfers whose outcome is unknown.
func (b *bank) settleAll(ctx context.Context) error {
	for i, t := range b.transfers {
		if b.fates[i] != unknown {
			continue
		}
		happened, err := t.settle(ctx, b.at(uint64(i%members+1)).db)
		if err != nil {
			return fmt.Errorf("find out what became of transfer %s: %w", t.id, err)
		}
		b.fates[i] = aborted
		if happened {
			b.fates[i] = confirmed
			b.record.Happened++
		} else {
			b.record.Vanished++
		}
	}
	if b.record.Unknown > 0 {
		b.say("of the %d transfers of unknown outcome %d have happened, and %d never will", b.record.Unknown, b.record.Happened, b.record.Vanished)
	}
	return nil
}

// quiet waits until no transaction holds anything any more, on any node: what dead clients have left behind is ended by
// whoever finds it.
func (b *bank) quiet(ctx context.Context) error {
	for {
		held := 0
		for id := uint64(1); id <= members; id++ {
			n := b.at(id)
			if n.node == nil {
				continue
			}
			for g, s := range n.db.Status().Groups {
				held += s.Prepared + s.Locks
				if s.Contradicted > 0 {
					b.violation("node %d, group %d: %d outcomes contradict others", id, g+1, s.Contradicted)
				}
			}
		}
		if held == 0 {
			return nil
		}
		if !pause(ctx, 10*time.Millisecond) {
			return fmt.Errorf("after %v there are still %d transactions and locks", patience, held)
		}
	}
}

// examine holds the accounts and the entries against each other, and against what the clients know.
func (b *bank) examine(accounts map[string]account, entries map[string]map[int]string) {
	if b.record.Total != b.record.Expected {
		b.violation("the total is %d, and should be %d", b.record.Total, b.record.Expected)
	}
	if len(accounts) != b.accounts {
		b.violation("there are %d accounts, and should be %d", len(accounts), b.accounts)
	}
	sums := make([]int64, b.accounts)
	for i, t := range b.transfers {
		found := entries[t.id]
		delete(entries, t.id)
		switch happened := found[t.from] != "" && found[t.from] != void; {
		case happened && b.fates[i] != confirmed:
			b.violation("transfer %s has happened, and its client was told that it had not", t.id)
		case !happened && b.fates[i] == confirmed:
			b.violation("transfer %s is lost: it was confirmed, and there is no entry of it", t.id)
		case happened:
			if found[t.from] != strconv.FormatInt(-t.amount, 10) || found[t.to] != strconv.FormatInt(t.amount, 10) || len(found) != 2 {
				b.violation("transfer %s of %d from %d to %d has entries %v", t.id, t.amount, t.from, t.to, found)
			}
			sums[t.from] -= t.amount
			sums[t.to] += t.amount
		case found[t.to] != "":
			b.violation("transfer %s has happened in part: its entries are %v", t.id, found)
		}
	}
	for id, found := range entries {
		b.violation("nobody has made transfer %s, with entries %v", id, found)
	}
	for n, sum := range sums {
		if a := accounts[string(accountKey(n))]; a.balance != opening+sum {
			b.violation("account %d has %d, and its entries make %d", n, a.balance, opening+sum)
		} else if a.balance < 0 {
			b.violation("account %d has %d", n, a.balance)
		}
	}
}
