package paxos_test

import (
	"context"
	"reflect"
	"testing"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/internal/replica/grouptest"
	"github.com/synod-go/synod/paxos"
	"github.com/synod-go/synod/storage"
)

// TestGroup holds Paxos to what every engine promises.
func TestGroup(t *testing.T) { grouptest.Run(t, engine{}) }

// engine is package paxos, as the suite sees it.
type engine struct{}

func (engine) Name() string { return "paxos" }

// config returns settings as they stand in a Config.
func config(s replica.Settings) (c paxos.Config) {
	from, to := reflect.ValueOf(s), reflect.ValueOf(&c).Elem()
	for i := range from.NumField() {
		to.FieldByName(from.Type().Field(i).Name).Set(from.Field(i))
	}
	return c
}

func (engine) Start(ctx context.Context, s replica.Settings) (grouptest.Node, error) {
	n, err := paxos.Start(ctx, config(s))
	if err != nil {
		return nil, err
	}
	return node{n}, nil
}

func (engine) Recover(ctx context.Context, c replica.RecoverConfig) error {
	return paxos.Recover(ctx, paxos.RecoverConfig(c))
}

func (engine) Inspect(ctx context.Context, store storage.Store) ([]replica.Remains, error) {
	return paxos.Inspect(ctx, store)
}

type node struct{ *paxos.Node }

func (n node) StartGroup(ctx context.Context, c replica.GroupConfig) (grouptest.Group, error) {
	g, err := n.Node.StartGroup(ctx, paxos.GroupConfig(c))
	if err != nil {
		return nil, err // not a nil *paxos.Group in an interface
	}
	return g, nil
}
