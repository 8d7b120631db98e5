package raft

import (
	"context"
	"fmt"
	"log/slog"

	etcd "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// protocol makes the runtime's groups Raft groups.
type protocol struct{}

var _ replica.Protocol = protocol{}

// The position that a new group's log begins after. Every member of it writes the
// same, so that they agree on the configuration without a first entry.
var bootPosition = replica.Position{Index: 1, Term: 1}

// Name implements replica.Protocol.
func (protocol) Name() string { return "raft" }

// Bootstrap implements replica.Protocol.
func (protocol) Bootstrap(keys replica.Keys, voters []uint64, batch *storage.Batch) error {
	start, hard := keys.Protocol(tagStart), keys.Protocol(tagHard)
	config := encodeConf(&raftpb.ConfState{Voters: voters})
	batch.Set(start, storage.AppendRecord(nil, start, encodeStart(bootPosition, config)))
	state := &raftpb.HardState{Term: new(bootPosition.Term), Commit: new(bootPosition.Index)}
	batch.Set(hard, storage.AppendRecord(nil, hard, encodeHard(state, bootPosition)))
	return nil
}

// Open implements replica.Protocol.
func (protocol) Open(o replica.OpenOptions) (replica.Core, error) {
	c, err := newCore(o, &logger{to: o.Logger})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Start implements replica.Protocol.
func (protocol) Start(keys replica.Keys, store storage.Store) (replica.Position, []byte, error) {
	return readStart(keys, store)
}

// Members implements replica.Protocol.
func (protocol) Members(config []byte) (voters, learners []uint64, err error) {
	c, err := decodeConf(config)
	if err != nil {
		return nil, nil, err
	}
	return c.GetVoters(), c.GetLearners(), nil
}

// logger passes etcd's log lines on. Its panics are how etcd's raft says that
// something can't be; the runtime stops the group then.
type logger struct{ to *slog.Logger }

var _ etcd.Logger = (*logger)(nil)

func (l *logger) log(level slog.Level, v []any) {
	if ctx := context.Background(); l.to.Enabled(ctx, level) {
		l.to.Log(ctx, level, fmt.Sprint(v...))
	}
}

func (l *logger) logf(level slog.Level, format string, v []any) {
	if ctx := context.Background(); l.to.Enabled(ctx, level) {
		l.to.Log(ctx, level, fmt.Sprintf(format, v...))
	}
}

func (l *logger) Debug(v ...any)                 { l.log(slog.LevelDebug, v) }
func (l *logger) Debugf(format string, v ...any) { l.logf(slog.LevelDebug, format, v) }

// What etcd's raft tells as information (each election step, each old message) is
// of interest when one looks for something.
func (l *logger) Info(v ...any)                    { l.log(slog.LevelDebug, v) }
func (l *logger) Infof(format string, v ...any)    { l.logf(slog.LevelDebug, format, v) }
func (l *logger) Warning(v ...any)                 { l.log(slog.LevelInfo, v) }
func (l *logger) Warningf(format string, v ...any) { l.logf(slog.LevelInfo, format, v) }
func (l *logger) Error(v ...any)                   { l.log(slog.LevelError, v) }
func (l *logger) Errorf(format string, v ...any)   { l.logf(slog.LevelError, format, v) }
func (l *logger) Fatal(v ...any)                   { panic("raft: " + fmt.Sprint(v...)) }
func (l *logger) Fatalf(format string, v ...any)   { panic("raft: " + fmt.Sprintf(format, v...)) }
func (l *logger) Panic(v ...any)                   { panic("raft: " + fmt.Sprint(v...)) }
func (l *logger) Panicf(format string, v ...any)   { panic("raft: " + fmt.Sprintf(format, v...)) }
