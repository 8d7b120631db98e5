package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/txn/kv"
)

// Every engine, with faults and without, beside each other: they wait most of the time.
func TestDemonstration(t *testing.T) {
	t.Parallel()
	for engine := range engines {
		for _, faults := range []bool{false, true} {
			name := engine
			if faults {
				name += " with faults"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := defaults()
				s.engine, s.faults, s.duration, s.clients = engine, faults, 3*time.Second, 6
				var out, progress bytes.Buffer
				ok := demonstrate(t.Context(), &out, &progress, s, true)
				require.True(t, ok, "%s\n%s", &progress, &out)
				var r record
				require.NoError(t, json.Unmarshal(out.Bytes(), &r))
				require.True(t, r.OK)
				require.Empty(t, r.Violations)
				require.Equal(t, s.accounts*opening, r.Total)
				require.Positive(t, r.Transfers)
				require.Positive(t, r.Checked)
				require.Equal(t, r.Unknown, r.Happened+r.Vanished)
				require.GreaterOrEqual(t, r.Aborted, r.Refused)
				if faults {
					require.Positive(t, r.Stops+r.Cuts)
					require.Positive(t, r.Deaths)
				} else {
					require.Zero(t, r.Stops+r.Cuts+r.GaveUp+r.Deaths)
				}
			})
		}
	}
}

func TestOneLine(t *testing.T) {
	t.Parallel()
	s := defaults()
	s.duration, s.clients, s.groups = 200*time.Millisecond, 2, 1
	var out bytes.Buffer
	require.True(t, demonstrate(t.Context(), &out, io.Discard, s, false), &out)
	require.Regexp(t, `^ok: transfers=\d+ aborted=\d+ unknown=\d+ total=60000 violations=0\n$`, out.String())
}

func TestWhatCannotBe(t *testing.T) {
	t.Parallel()
	for flag, change := range map[string]func(*settings){
		"-duration": func(s *settings) { s.duration = 0 },
		"-clients":  func(s *settings) { s.clients = 0 },
		"-accounts": func(s *settings) { s.accounts = 1 },
		"-groups":   func(s *settings) { s.groups = 0 },
		"-engine":   func(s *settings) { s.engine = "zab" },
	} {
		s := defaults()
		change(&s)
		var out bytes.Buffer
		require.False(t, demonstrate(t.Context(), &out, io.Discard, s, false))
		require.Regexp(t, `^FAILED: transfers=0 aborted=0 unknown=0 total=0 violations=1: `+flag+`[^\n]*\n$`, out.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	require.False(t, demonstrate(ctx, &out, io.Discard, defaults(), false))
	require.True(t, strings.HasPrefix(out.String(), "FAILED: "), &out)
}

// alone is a node of a cluster of its own, with two groups.
func alone(t *testing.T, accounts int) *bank {
	network, err := inproc.New(t.Context(), inproc.Config{})
	require.NoError(t, err)
	tr, err := network.Open(1)
	require.NoError(t, err)
	n, err := startNode(t.Context(), "raft", 1, []uint64{1}, 2, tr, t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.close()) })
	b := &bank{settings: settings{accounts: accounts, groups: 2}, out: io.Discard, network: newNetwork()}
	b.record.Expected = opening * accounts
	b.slots[0] = slot{node: n, ctx: t.Context()}
	require.NoError(t, b.open(t.Context()))
	return b
}

// What became of a transfer is found out once and for all; and it happens at most once.
func TestSettle(t *testing.T) {
	t.Parallel()
	b := alone(t, 3)
	db, ctx := b.at(1).db, t.Context()
	made := transfer{"made", 0, 1, 10}
	require.Equal(t, confirmed, b.try(ctx, db, made))
	for range 2 {
		happened, err := made.settle(ctx, db)
		require.NoError(t, err)
		require.True(t, happened)
	}
	late := transfer{"late", 0, 2, 10}
	for range 2 {
		happened, err := late.settle(ctx, db)
		require.NoError(t, err)
		require.False(t, happened)
	}
	for _, again := range []transfer{made, late} {
		var mismatch *kv.MismatchError
		require.ErrorAs(t, db.Update(ctx, func(tx *kv.Tx) error {
			_, _, err := again.move(tx, 1)
			return err
		}), &mismatch)
	}
	require.Equal(t, aborted, b.try(ctx, db, transfer{"poor", 0, 1, opening}))
	require.Equal(t, 1, b.record.Refused)
	require.Zero(t, b.record.violations)
	require.Equal(t, "node 1 sees 3000", b.view(ctx, 1))
}

// A client that dies leaves others to find out what it has done.
func TestMortal(t *testing.T) {
	t.Parallel()
	b := alone(t, 2)
	ctx := t.Context()
	for calls := range int64(4) {
		m := new(mortal)
		m.left.Store(calls)
		db, err := openDatabase(ctx, m.groups(b.at(1).groups), b.at(1).clock)
		require.NoError(t, err)
		order := transfer{string(rune('a' + calls)), 0, 1, 1}
		f := b.try(ctx, db, order)
		require.NoError(t, db.Close())
		happened, err := order.settle(ctx, b.at(1).db)
		require.NoError(t, err)
		switch f {
		case confirmed:
			require.True(t, happened)
		case aborted:
			require.False(t, happened)
		}
	}
	require.NoError(t, b.quiet(ctx))
}

// The audit finds what is wrong.
func TestExamine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(b *bank, accounts map[string]account, entries map[string]map[int]string)
		want   string
	}{
		"nothing": {func(*bank, map[string]account, map[string]map[int]string) {}, ""},
		"lost": {func(_ *bank, _ map[string]account, entries map[string]map[int]string) {
			delete(entries, "yes")
		}, "transfer yes is lost"},
		"in part": {func(_ *bank, _ map[string]account, entries map[string]map[int]string) {
			entries["no"] = map[int]string{1: "5"}
		}, "transfer no has happened in part"},
		"half": {func(_ *bank, _ map[string]account, entries map[string]map[int]string) {
			delete(entries["yes"], 1)
		}, "transfer yes of 5 from 0 to 1 has entries"},
		"not aborted": {func(b *bank, _ map[string]account, _ map[string]map[int]string) {
			b.fates[0] = aborted
		}, "its client was told that it had not"},
		"lost update": {func(_ *bank, accounts map[string]account, _ map[string]map[int]string) {
			accounts["account/000000"] = account{opening, 7}
		}, "account 0 has 1000, and its entries make 995"},
		"below zero": {func(b *bank, accounts map[string]account, entries map[string]map[int]string) {
			b.transfers[0].amount = 2 * opening
			entries["yes"] = map[int]string{0: "-2000", 1: "2000"}
			accounts["account/000000"], accounts["account/000001"] = account{-opening, 1}, account{3 * opening, 1}
		}, "account 0 has -1000"},
		"from nowhere": {func(_ *bank, _ map[string]account, entries map[string]map[int]string) {
			entries["who"] = map[int]string{0: "1"}
		}, "nobody has made transfer who"},
		"total": {func(b *bank, _ map[string]account, _ map[string]map[int]string) {
			b.record.Total--
		}, "the total is 1999"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bank{settings: settings{accounts: 2}, out: io.Discard}
			b.record.Total, b.record.Expected = 2*opening, 2*opening
			b.transfers = []transfer{{"yes", 0, 1, 5}, {"no", 0, 1, 5}, {"void", 1, 0, 5}}
			b.fates = []fate{confirmed, aborted, aborted}
			accounts := map[string]account{"account/000000": {opening - 5, 1}, "account/000001": {opening + 5, 1}}
			entries := map[string]map[int]string{"yes": {0: "-5", 1: "5"}, "void": {1: void}}
			c.change(b, accounts, entries)
			b.examine(accounts, entries)
			if c.want == "" {
				require.Empty(t, b.record.Violations)
			} else {
				require.Contains(t, strings.Join(b.record.Violations, "\n"), c.want)
			}
		})
	}
}

func TestRoute(t *testing.T) {
	t.Parallel()
	r := route(3)
	for n := range 10 {
		require.Equal(t, n%3, r(accountKey(n)))
		require.Equal(t, n%3, r(entryKey(n, "c001-000004")))
	}
	require.Equal(t, 0, r([]byte("something else")))
	ranges := routeRange(3)
	require.Equal(t, []int{1}, ranges([]byte("entry/000004/"), []byte("entry/000004/z")))
	require.Equal(t, []int{0, 1, 2}, ranges([]byte("account/"), []byte("account0")))
	require.Equal(t, []int{0, 1, 2}, ranges([]byte("account/000004"), []byte("entry/000004")))
	require.Equal(t, []int{0, 1, 2}, ranges([]byte("entry/000004/"), nil))
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	n := newNetwork()
	require.False(t, n.loses(1, 2))
	n.lose(1, 2, 1)
	require.True(t, n.loses(1, 2))
	require.False(t, n.loses(2, 1))
	n.around(2, 0)
	require.False(t, n.loses(1, 2))
	require.ErrorIs(t, errDead, synod.ErrClosed)
	require.False(t, errors.Is(errDead, synod.ErrUnknownOutcome))
}
