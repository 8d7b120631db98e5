package work

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBucketsAreContiguous(t *testing.T) {
	for b := range 1500 {
		require.Equal(t, b, bucket(low(b)), "the least value of a bucket is in it")
		require.Equal(t, b, bucket(low(b+1)-1), "so is the value before the next")
		if b > 32 {
			require.LessOrEqual(t, float64(low(b+1)-low(b)), float64(low(b))/32)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var a, b Histogram
	for i := 1; i <= 1000; i++ {
		h := &a
		if i%2 == 0 {
			h = &b
		}
		h.Add(time.Duration(i) * time.Microsecond)
	}
	a.Merge(&b)
	require.Equal(t, uint64(1000), a.Count())
	require.InEpsilon(t, 500e3, float64(a.Quantile(0.5)), 0.04)
	require.InEpsilon(t, 990e3, float64(a.Quantile(0.99)), 0.04)
	require.InEpsilon(t, 1000e3, float64(a.Quantile(1)), 0.04)
}

type instant struct {
	writes, reads atomic.Int64
	fail          bool
	length        int
}

func (s *instant) Write(_ context.Context, command []byte) error {
	if s.fail {
		return errors.New("broken")
	}
	s.writes.Add(1)
	return nil
}

func (s *instant) Read(context.Context, uint64) (int, error) {
	s.reads.Add(1)
	return s.length, nil
}

func (s *instant) Close() {}

func TestMeasure(t *testing.T) {
	s := &instant{}
	job := Job{System: "instant", Work: "write", Clients: 4, Size: 64, Warmup: 50 * time.Millisecond, Time: 50 * time.Millisecond}
	r, err := Measure(t.Context(), job, s)
	require.NoError(t, err)
	require.NotZero(t, r.Ops)
	require.Less(t, r.Ops, uint64(s.writes.Load()), "warming up is not counted")
	require.Zero(t, s.reads.Load())

	job.Work, s.length = "read", 56
	s.writes.Store(0)
	r, err = Measure(t.Context(), job, s)
	require.NoError(t, err)
	require.EqualValues(t, Keys, s.writes.Load(), "each key is written before any is read")
	require.LessOrEqual(t, r.Ops, uint64(s.reads.Load()))
	require.Zero(t, r.Errors)

	s.length = 0
	_, err = Measure(t.Context(), job, s)
	require.ErrorContains(t, err, "a value of 0 bytes instead of 56", "a system that lost the value does not count")

	s.fail = true
	_, err = Measure(t.Context(), job, s)
	require.ErrorContains(t, err, "write what is to be read: broken")
	job.Work = "write"
	_, err = Measure(t.Context(), job, s)
	require.ErrorContains(t, err, "no operation succeeded: broken")
}

func TestStateKeepsTheLastValue(t *testing.T) {
	s := NewState()
	command := make([]byte, 100)
	Command(command, 5)
	s.Apply(command)
	require.Equal(t, 92, s.Get(5))
	short := append([]byte(nil), command[:20]...)
	s.ApplyAll(func(yield func([]byte) bool) { yield(short) })
	require.Equal(t, 12, s.Get(5))
	require.Zero(t, s.Get(6))
	s.Apply(command[:30])
	require.Equal(t, 22, s.Get(5))
}

func TestBusyLeavesIdlingOut(t *testing.T) {
	const line = "cpu  100 20 3 40000 5000 6 7 8 900 1000\n"
	require.Equal(t, 1440*time.Millisecond, parseBusy(line+"cpu0 100 20 3 40000 5000 6 7 8 900 1000\n"))
	for name, stat := range map[string]string{
		"nothing":        "",
		"another line":   "intr 1 2 3 4 5 6 7 8 9\n",
		"too few fields": "cpu 1 2 3 4 5 6 7\n",
		"no number":      "cpu 1 2 3 4 5 6 x 8\n",
	} {
		require.Zero(t, parseBusy(stat), name)
	}
}
