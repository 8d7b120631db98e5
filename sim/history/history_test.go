package history_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/sim/history"
)

func TestHistories(t *testing.T) {
	for name, c := range map[string]struct {
		calls func(begin func(client int, a history.Access) *history.Call[uint64])
		want  error
	}{
		"nothing": {func(func(int, history.Access) *history.Call[uint64]) {}, nil},
		"one after the other": {func(begin func(int, history.Access) *history.Call[uint64]) {
			begin(0, history.Write("a", 1)).Return(0)
			begin(1, history.Read("a")).Return(1)
			begin(1, history.Read("b")).Return(0)
		}, nil},
		"a stale read": {func(begin func(int, history.Access) *history.Call[uint64]) {
			begin(0, history.Write("a", 1)).Return(0)
			begin(0, history.Write("a", 2)).Return(1)
			begin(1, history.Read("a")).Return(1)
		}, history.ErrNotLinearizable},
		"a read beside a write sees either": {func(begin func(int, history.Access) *history.Call[uint64]) {
			w := begin(0, history.Write("a", 1))
			begin(1, history.Read("a")).Return(0)
			begin(1, history.Read("a")).Return(1)
			w.Return(0)
		}, nil},
		"back and forth": {func(begin func(int, history.Access) *history.Call[uint64]) {
			w := begin(0, history.Write("a", 1))
			begin(1, history.Read("a")).Return(1)
			begin(1, history.Read("a")).Return(0)
			w.Return(0)
		}, history.ErrNotLinearizable},
		"an unknown write takes effect late": {func(begin func(int, history.Access) *history.Call[uint64]) {
			begin(0, history.Write("a", 1))
			begin(1, history.Read("a")).Return(0)
			begin(1, history.Write("a", 2)).Return(0)
			begin(1, history.Read("a")).Return(1)
		}, nil},
		"an unknown write takes effect twice": {func(begin func(int, history.Access) *history.Call[uint64]) {
			begin(0, history.Write("a", 1))
			begin(1, history.Read("a")).Return(1)
			begin(1, history.Write("a", 2)).Return(1)
			begin(1, history.Read("a")).Return(1)
		}, history.ErrNotLinearizable},
		"a refused write is seen": {func(begin func(int, history.Access) *history.Call[uint64]) {
			begin(0, history.Write("a", 1)).Refused()
			begin(1, history.Read("a")).Return(1)
		}, history.ErrNotLinearizable},
		"a lost write": {func(begin func(int, history.Access) *history.Call[uint64]) {
			begin(0, history.Write("a", 1)).Return(0)
			begin(1, history.Write("a", 2)).Return(0)
		}, history.ErrNotLinearizable},
		"an unknown read says nothing": {func(begin func(int, history.Access) *history.Call[uint64]) {
			begin(0, history.Read("a")).Refused()
			begin(0, history.Read("a"))
			begin(0, history.Read("a")).Return(0)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := history.New(history.Registers)
			c.calls(h.Begin)
			err := h.Check(time.Minute)
			if c.want == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, c.want)
			var v *history.Violation
			require.ErrorAs(t, err, &v)
			require.Equal(t, "a", v.Key)
			var page strings.Builder
			require.NoError(t, v.WritePicture(&page))
			require.Contains(t, page.String(), "<html")
		})
	}
}

// Histories of a register that is one pass; with one answer changed they do not.
func TestRandomHistories(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	caught := 0
	const runs = 100
	for range runs {
		for _, lie := range []bool{false, true} {
			h := history.New(history.Registers)
			values := make(map[string]uint64)
			type open struct {
				call *history.Call[uint64]
				does history.Access
			}
			var pending []open
			lied := false
			for i := range 200 {
				a := history.Read(fmt.Sprint(r.IntN(3)))
				if r.IntN(2) == 0 {
					a = history.Write(a.Key, uint64(i+1))
				}
				pending = append(pending, open{h.Begin(i, a), a})
				for len(pending) > r.IntN(5) {
					k := r.IntN(len(pending))
					p := pending[k]
					pending = append(pending[:k], pending[k+1:]...)
					if r.IntN(20) == 0 {
						if r.IntN(2) == 0 && !p.does.Reading {
							values[p.does.Key] = p.does.Value
						}
						continue // its client never hears of it
					}
					answer := values[p.does.Key]
					if !p.does.Reading {
						values[p.does.Key] = p.does.Value
					}
					if lie && !lied && i > 100 {
						answer, lied = 1_000_000, true
					}
					p.call.Return(answer)
				}
			}
			err := h.Check(time.Minute)
			if !lie {
				require.NoError(t, err)
			} else if errors.Is(err, history.ErrNotLinearizable) {
				caught++
			}
		}
	}
	require.Equal(t, runs, caught)
}

func TestInconclusive(t *testing.T) {
	h := history.New(history.Registers)
	for i := range 400 { // all at once, and nothing fits
		h.Begin(i, history.Write("a", uint64(i+1)))
	}
	h.Begin(1000, history.Read("a")).Return(1_000_000)
	require.ErrorIs(t, h.Check(time.Millisecond), history.ErrInconclusive)
	calls, unknown := h.Len()
	require.Equal(t, 401, calls)
	require.Equal(t, 400, unknown)
}

func ExampleHistory() {
	// A counter: adding returns the new sum.
	h := history.New(history.Model[int, int, int]{Step: func(sum, add int) (int, int) { return sum + add, sum + add }})
	h.Begin(0, 2).Return(2)
	lost := h.Begin(1, 5) // its answer never comes
	h.Begin(2, 3).Return(10)
	fmt.Println(h.Check(time.Minute))
	lost.Refused()
	fmt.Println(h.Check(time.Minute))
	// Output:
	// <nil>
	// history: not linearizable: 2 calls on key ""
}
