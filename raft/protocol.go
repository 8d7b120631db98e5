package raft

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"

	etcd "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/synod-go/synod/internal/probe"
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
func (protocol) Bootstrap(keys replica.Keys, config []byte, batch *storage.Batch) error {
	begin(keys, bootPosition, config, &raftpb.HardState{Term: new(bootPosition.Term), Commit: new(bootPosition.Index)}, batch)
	return nil
}

// Begin implements replica.Protocol.
func (protocol) Begin(keys replica.Keys, at replica.Position, config []byte, batch *storage.Batch) error {
	begin(keys, at, config, &raftpb.HardState{Term: new(at.Term), Commit: new(at.Index)}, batch)
	return nil
}

// begin writes the records of a log without entries.
func begin(keys replica.Keys, at replica.Position, config []byte, state *raftpb.HardState, batch *storage.Batch) {
	start, hard := keys.Protocol(tagStart), keys.Protocol(tagHard)
	batch.Set(start, storage.AppendRecord(nil, start, encodeStart(at, config)))
	batch.Set(hard, storage.AppendRecord(nil, hard, encodeHard(state, at)))
}

// Join implements replica.Protocol. The log is empty: a leader sends a snapshot first,
// which says what the group's configuration is.
func (protocol) Join(keys replica.Keys, store storage.Store, batch *storage.Batch) error {
	state := &raftpb.HardState{Term: new(bootPosition.Term)}
	left, err := replica.GetRecord(store, keys.Protocol(tagLeft), keys.Group())
	if err != nil {
		return err
	}
	if left != nil {
		r := replica.NewReader(left)
		state.Term, state.Vote = new(r.Uvarint()), new(r.Uvarint())
		if r.Err() != nil || state.GetTerm() == 0 {
			return &storage.CorruptError{Group: keys.Group(), Key: keys.Protocol(tagLeft), Reason: "the record of term and vote is malformed"}
		}
		batch.Delete(keys.Protocol(tagLeft))
	}
	begin(keys, replica.Position{}, replica.Configuration{}.Append(nil), state, batch)
	return nil
}

// Leave implements replica.Protocol. Term and vote stay: a replica that joins again must
// not vote twice in a term.
func (protocol) Leave(keys replica.Keys, store storage.Store, batch *storage.Batch) error {
	state, _, err := readHard(keys, store)
	if err != nil {
		return err
	}
	from, _ := keys.ProtocolRange(0)
	_, to := keys.ProtocolRange(^byte(0) - 1)
	batch.DeleteRange(from, to)
	key := keys.Protocol(tagLeft)
	if probe.Bug("a replica that leaves forgets its vote") {
		state = &raftpb.HardState{Term: new(bootPosition.Term)}
	}
	left := binary.AppendUvarint(nil, state.GetTerm())
	batch.Set(key, storage.AppendRecord(nil, key, binary.AppendUvarint(left, state.GetVote())))
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
