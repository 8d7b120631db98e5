package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
)

const (
	accounts = 10_000
	opening  = 1_000
)

// key is the key of an account, the same everywhere.
func key(account int) []byte { return fmt.Appendf(nil, "account/%05d", account) }

// value is a balance, which may be below 0: a transfer is never refused.
func value(balance int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(balance)) }

func balance(value []byte) (int64, error) {
	if len(value) != 8 {
		return 0, fmt.Errorf("an account has a value of %d bytes", len(value))
	}
	return int64(binary.BigEndian.Uint64(value)), nil
}

// moved returns the values of two accounts after a transfer of 1.
func moved(from, to []byte) (newFrom, newTo []byte, err error) {
	a, err := balance(from)
	if err != nil {
		return nil, nil, err
	}
	b, err := balance(to)
	if err != nil {
		return nil, nil, err
	}
	return value(a - 1), value(b + 1), nil
}

// pair draws two accounts. across: one has an even number, and the other one an odd one, which is another group.
func pair(random *rand.Rand, draw func(*rand.Rand) int, across bool) (from, to int) {
	from = draw(random)
	for {
		to = draw(random)
		if to != from && (!across || to%2 != from%2) {
			return from, to
		}
	}
}

// zipf returns a function that draws from 0 to n-1, the k-th with a probability in proportion to 1/k^s. That of math/rand has s above 1 only.
func zipf(n int, s float64) func(*rand.Rand) int {
	sums := make([]float64, n)
	sum := 0.0
	for i := range sums {
		sum += math.Pow(float64(i+1), -s)
		sums[i] = sum
	}
	return func(random *rand.Rand) int { return sort.SearchFloat64s(sums, random.Float64()*sum) }
}
