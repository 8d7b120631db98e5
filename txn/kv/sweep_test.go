package kv

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
)

// deadLog is a log without a majority.
type deadLog struct{}

func (deadLog) Propose(ctx context.Context, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (deadLog) Barrier(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

var _ synod.Log = deadLog{}

// TestVersionsAreCollectedThoughAnotherGroupIsDown: a group that takes no commands has something to collect; the others are collected still.
func TestVersionsAreCollectedThoughAnotherGroupIsDown(t *testing.T) {
	db, logs := openSolo(t, 2, 0, func(c *Config) {
		down := NewMachine()
		for i := range 3 {
			down.Apply(uint64(i+1), appendPrepare(nil, &prepare{id: client(9, uint64(i+1)), floor: 1, groups: []uint32{0}, writes: []write{{key: "x0", value: []byte{1}}}}))
		}
		c.Groups[0] = Group{deadLog{}, down}
		c.RecoverAfter, c.Retention = time.Millisecond, time.Millisecond
	})
	for range 3 {
		put(t, db, "x1", "1")
	}
	collected, err := logs[1].machine.await(t.Context(), executor.Real(), 10*time.Second, func(s *state) bool { return s.collected > 0 })
	require.NoError(t, err)
	require.True(t, collected)
}
