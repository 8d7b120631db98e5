package main

import (
	"fmt"
	"math/bits"
	"slices"
	"sync"

	"github.com/synod-go/synod/hashring"
)

// anchor is AnchorHash as its authors give it in pseudo-code (Mendelson, Vargaftik,
// Barabash, Lorenz, Keslassy and Orda, IEEE/ACM Transactions on Networking, 2021,
// the version in place), since none of its modules can be had through the module
// proxy. The letters are theirs.
type anchor struct {
	mu    sync.RWMutex
	names []string // of the buckets

	A, K, W, L []uint32
	R          []uint32
	N          uint32
}

func newAnchor(nodes []string) (subject, error) {
	size := 2 * len(nodes)
	a := &anchor{names: make([]string, size), A: make([]uint32, size), N: uint32(len(nodes))}
	copy(a.names, nodes)
	for b := range uint32(size) {
		a.W = append(a.W, b)
	}
	a.L, a.K = slices.Clone(a.W), slices.Clone(a.W)
	for b := uint32(size) - 1; b >= a.N; b-- {
		a.R = append(a.R, b)
		a.A[b] = b
	}
	return a, nil
}

// within spreads a hash over the numbers below n.
func within(hash uint64, n uint32) uint32 {
	high, _ := bits.Mul64(hash, uint64(n))
	return uint32(high)
}

func (a *anchor) get(key string) string {
	hash := hashring.HashString(key)
	a.mu.RLock()
	defer a.mu.RUnlock()
	b := within(hash, uint32(len(a.A)))
	for a.A[b] > 0 {
		h := within(hashring.HashUint64(hash+uint64(b)), a.A[b])
		for a.A[h] >= a.A[b] {
			h = a.K[h]
		}
		b = h
	}
	return a.names[b]
}

func (a *anchor) add(node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.R) == 0 {
		panic(fmt.Sprintf("AnchorHash has no room for more than %d nodes", len(a.A)))
	}
	b := a.R[len(a.R)-1]
	a.R = a.R[:len(a.R)-1]
	a.names[b] = node
	a.A[b] = 0
	a.L[a.W[a.N]] = a.N
	a.W[a.L[b]], a.K[b] = b, b
	a.N++
}

func (a *anchor) remove(node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := uint32(slices.Index(a.names, node))
	a.names[b] = ""
	a.R = append(a.R, b)
	a.N--
	a.A[b] = a.N
	a.W[a.L[b]], a.K[b] = a.W[a.N], a.W[a.N]
	a.L[a.W[a.N]] = a.L[b]
}
