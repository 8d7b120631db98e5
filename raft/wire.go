package raft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/synod-go/synod/internal/replica"
)

// A message on the wire:
//
//	type, flags        1 byte each
//	term, log term, index, commit, reject hint
//	context            length and bytes
//	the rest           of an append: a run, or nothing
//	                   of a snapshot: index, term, number of commands, configuration
//
// Sender and receiver stand in the frame around it.
const flagReject = 1

var errMessage = errors.New("raft: malformed message")

// appendMessage encodes m but for its entries, which follow as a run.
func appendMessage(dst []byte, m *raftpb.Message) []byte {
	var flags byte
	if m.GetReject() {
		flags |= flagReject
	}
	dst = append(dst, byte(m.GetType()), flags)
	dst = binary.AppendUvarint(dst, m.GetTerm())
	dst = binary.AppendUvarint(dst, m.GetLogTerm())
	dst = binary.AppendUvarint(dst, m.GetIndex())
	dst = binary.AppendUvarint(dst, m.GetCommit())
	dst = binary.AppendUvarint(dst, m.GetRejectHint())
	switch m.GetType() {
	case raftpb.MsgReadIndex, raftpb.MsgReadIndexResp:
		// The request's identity travels as the data of an entry.
		dst = replica.AppendBytes(dst, m.GetEntries()[0].GetData())
	default:
		dst = replica.AppendBytes(dst, m.GetContext())
	}
	if m.GetType() == raftpb.MsgSnap {
		at := snapshotPosition(m.GetSnapshot())
		dst = binary.AppendUvarint(dst, at.Index)
		dst = binary.AppendUvarint(dst, at.Term)
		dst = binary.AppendUvarint(dst, at.Commands)
		dst = append(dst, snapshotConfig(m.GetSnapshot())...)
	}
	return dst
}

// makeSnapshot describes a snapshot to etcd's raft, which passes the data on as they
// are: the number of commands up to its position, and the configuration there. That must
// be well-formed.
func makeSnapshot(at replica.Position, config []byte) *raftpb.Snapshot {
	conf, err := decodeConf(config)
	if err != nil {
		panic(err)
	}
	return &raftpb.Snapshot{
		Data:     append(binary.AppendUvarint(nil, at.Commands), config...),
		Metadata: &raftpb.SnapshotMetadata{ConfState: conf, Index: new(at.Index), Term: new(at.Term)},
	}
}

func snapshotPosition(s *raftpb.Snapshot) replica.Position {
	commands, _ := binary.Uvarint(s.GetData())
	return replica.Position{Index: s.GetMetadata().GetIndex(), Term: s.GetMetadata().GetTerm(), Commands: commands}
}

func snapshotConfig(s *raftpb.Snapshot) []byte {
	_, n := binary.Uvarint(s.GetData())
	return s.GetData()[max(n, 0):]
}

// holdsRun reports whether a message looks like one with entries.
func holdsRun(b []byte) bool {
	return len(b) >= runHeader+minEntryBytes && raftpb.MessageType(b[0]) == raftpb.MsgApp
}

// decoded is a message and all that it points to, in one allocation.
type decoded struct {
	message                                      raftpb.Message
	kind                                         raftpb.MessageType
	from, to, term, logTerm, index, commit, hint uint64
	reject                                       bool
}

// decodeMessage decodes what appendMessage and a run make up. The message aliases
// b. Only what a peer may say is let through: etcd's raft believes in its own
// local messages.
func decodeMessage(group, from, to uint64, b []byte) (*raftpb.Message, []byte, error) {
	r := replica.NewReader(b)
	d := &decoded{kind: raftpb.MessageType(r.Byte()), from: from, to: to}
	kind, flags := d.kind, r.Byte()
	d.term, d.logTerm, d.index, d.commit, d.hint = r.Uvarint(), r.Uvarint(), r.Uvarint(), r.Uvarint(), r.Uvarint()
	term, logTerm, index := d.term, d.logTerm, d.index
	context := r.Bytes()
	rest := r.Rest()
	if err := r.Err(); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	bad := func(format string, args ...any) (*raftpb.Message, []byte, error) {
		return nil, nil, fmt.Errorf("%w: %v: %s", errMessage, kind, fmt.Sprintf(format, args...))
	}
	m := &d.message
	m.Type, m.From, m.To, m.Term, m.LogTerm, m.Index, m.Commit = &d.kind, &d.from, &d.to, &d.term, &d.logTerm, &d.index, &d.commit
	if d.reject = flags&flagReject != 0; d.reject {
		m.Reject = &d.reject
	}
	if d.hint != 0 {
		m.RejectHint = &d.hint
	}
	if flags > flagReject {
		return bad("flags %#x", flags)
	}
	switch kind {
	case raftpb.MsgApp, raftpb.MsgSnap:
	default:
		if len(rest) != 0 {
			return bad("%d bytes too many", len(rest))
		}
	}
	switch kind {
	case raftpb.MsgReadIndex, raftpb.MsgReadIndexResp:
		if len(context) != readIDBytes {
			return bad("identity of %d bytes", len(context))
		}
		if kind == raftpb.MsgReadIndex {
			m.Term = nil // etcd's raft knows it as a message that has none
		} else if term == 0 {
			return bad("no term")
		}
		m.Entries = []*raftpb.Entry{{Data: context}}
		return m, nil, nil
	case raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp:
		if len(context) != 0 && len(context) != 8 {
			return bad("context of %d bytes", len(context))
		}
	case raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp,
		raftpb.MsgTimeoutNow, raftpb.MsgSnap:
	default:
		return bad("not a message between peers")
	}
	if term == 0 {
		return bad("no term")
	}
	if len(context) > 0 {
		m.Context = context
	}
	switch kind {
	case raftpb.MsgApp:
		if len(rest) == 0 {
			break
		}
		entries, before, err := openRun(group, rest)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", errMessage, err)
		}
		if entries[0].GetIndex() != index+1 || before != logTerm {
			return bad("entries from index %d on, after term %d, follow index %d, term %d", entries[0].GetIndex(), before, index, logTerm)
		}
		for before, i := logTerm, 0; i < len(entries); i++ {
			t := entries[i].GetTerm()
			if t < before || t > term {
				return bad("entry %d has term %d, between %d and %d", entries[i].GetIndex(), t, before, term)
			}
			before = t
		}
		m.Entries = entries
	case raftpb.MsgSnap:
		r := replica.NewReader(rest)
		at := replica.Position{Index: r.Uvarint(), Term: r.Uvarint(), Commands: r.Uvarint()}
		config := r.Rest()
		conf, err := decodeConf(config)
		if err != nil || len(conf.GetVoters()) == 0 || at.Index == 0 || at.Term == 0 || at.Term > term {
			return bad("its description can't be read")
		}
		m.Snapshot = makeSnapshot(at, bytes.Clone(config))
		rest = nil
	}
	return m, rest, nil
}

// readIDBytes is the size of an encoded replica.ReadID.
const readIDBytes = 16

func encodeReadID(id replica.ReadID) []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, readIDBytes), id.Boot)
	return binary.LittleEndian.AppendUint64(b, id.Attempt)
}

func decodeReadID(b []byte) (id replica.ReadID, ok bool) {
	if len(b) != readIDBytes {
		return id, false
	}
	return replica.ReadID{Boot: binary.LittleEndian.Uint64(b), Attempt: binary.LittleEndian.Uint64(b[8:])}, true
}
