package raft

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/internal/replica/script"
	"github.com/synod-go/synod/storage"
)

// TestScripts plays the scripts of testdata, in the language of internal/replica/script. Run with
// -rewrite to write what the cores do into the scripts, and read the difference.
//
// An entry is written index/term:value, with - for none. After each command, these invariants are
// checked, too: one leader a term, and the same value wherever index and term are the same.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.Contains(path, "fuzz") {
			return
		}
		r := script.New(scriptEngine())
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			line := d.Cmd
			for _, a := range d.CmdArgs {
				line += " " + a.String()
			}
			out, err := r.Exec(line)
			if err != nil {
				d.Fatalf(t, "%v", err)
			}
			return out
		})
		require.Empty(t, r.Violations())
	})
}

// scriptEngine returns raft for one script.
func scriptEngine() script.Engine {
	w := &scriptWatch{leaders: map[uint64]uint64{}, entries: map[position]string{}}
	return script.Engine{
		Protocol: func(*script.Command, uint64) (replica.Protocol, error) { return protocol{}, nil },
		Manual:   true,
		Message:  describeMessage,
		Key:      keyName,
		Record:   record,
		State: func(_ replica.Core, out *replica.Output) string {
			return fmt.Sprintf("term %d, leader %d", out.Term, out.Leader)
		},
		Status: describeStatus,
		Log:    describeLog,
		Check:  w.check,
	}
}

// scriptWatch remembers what must not change.
type scriptWatch struct {
	leaders map[uint64]uint64   // by term
	entries map[position]string // that were ever in any log
}

type position struct{ index, term uint64 }

func (w *scriptWatch) check(r *script.Runner) {
	for _, id := range r.Nodes() {
		c, _ := r.Core(id).(*core)
		if c == nil {
			continue
		}
		if s := c.Status(); s.Leader == id {
			if other := w.leaders[s.Term]; other != 0 && other != id {
				r.Violation("nodes %d and %d both lead in term %d", other, id, s.Term)
			}
			w.leaders[s.Term] = id
		}
		if r.Visible(id) {
			continue // the store is ahead of the log
		}
		entries, err := readEntries(c, c.log.start.Index+1, c.log.last)
		if err != nil {
			continue
		}
		for _, e := range entries {
			p := position{e.GetIndex(), e.GetTerm()}
			if old, ok := w.entries[p]; ok && old != value(e.GetData()) {
				r.Violation("entry %d/%d is %s in one log, and %s in that of node %d", p.index, p.term, old, value(e.GetData()), id)
			}
			w.entries[p] = value(e.GetData())
		}
	}
}

func describeStatus(rc replica.Core, applied uint64) string {
	c := rc.(*core)
	s := c.Status()
	role := c.raft.BasicStatus()
	var peers strings.Builder
	for _, p := range s.Peers {
		fmt.Fprintf(&peers, ", %d: %s match=%d", p.Node, p.State, p.Match)
	}
	return fmt.Sprintf("%s, term=%d vote=%d leader=%d first=%d last=%d commit=%d applied=%d%s",
		strings.ToLower(strings.TrimPrefix(role.RaftState.String(), "State")), s.Term, role.GetVote(), s.Leader,
		s.First, s.Last, s.Commit, applied, &peers)
}

func describeLog(rc replica.Core) []string {
	c := rc.(*core)
	first, _ := c.log.FirstIndex()
	last, _ := c.log.LastIndex()
	lines := []string{fmt.Sprintf("after %d/%d", c.log.start.Index, c.log.start.Term)}
	entries, err := readEntries(c, first, last)
	if err != nil {
		lines = append(lines, fmt.Sprintf("can't be read: %v", err))
	}
	if len(entries) > 0 {
		lines = append(lines, words(entries))
	}
	return lines
}

// readEntries reads the log as etcd's raft does.
func readEntries(c *core, first, last uint64) (entries []*raftpb.Entry, err error) {
	for next := first; next <= last; {
		some, err := c.log.Entries(next, last+1, 1<<20)
		if err != nil {
			return entries, err
		}
		entries = append(entries, some...)
		next += uint64(len(some))
	}
	return entries, nil
}

// keyName names a key of the group's own records.
func keyName(key []byte) string {
	prefix := replica.GroupKeys(1).Protocol(tagLog)
	end := replica.GroupKeys(1).Protocol(tagLog + 1)
	switch {
	case bytes.Equal(key, prefix):
		return "the first entry"
	case bytes.Equal(key, end):
		return "the end"
	case bytes.HasPrefix(key, prefix) && len(key) == len(prefix)+8:
		return fmt.Sprintf("entry %d", binary.BigEndian.Uint64(key[len(prefix):]))
	}
	return fmt.Sprintf("%q", key)
}

// record says what a record holds.
func record(key, value []byte) string {
	keys := replica.GroupKeys(1)
	if bytes.HasPrefix(key, keys.Protocol(tagLog)) {
		entries, _, err := openRun(1, value)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("run %s", words(entries))
	}
	payload, err := storage.OpenRecord(key, value)
	if err != nil {
		return err.Error()
	}
	r := replica.NewReader(payload)
	switch key[len(key)-1] {
	case tagHard:
		return fmt.Sprintf("state term=%d vote=%d commit=%d end=%d/%d", r.Uvarint(), r.Uvarint(), r.Uvarint(), r.Uvarint(), r.Uvarint())
	case tagStart:
		return fmt.Sprintf("start after %d/%d, %d commands", r.Uvarint(), r.Uvarint(), r.Uvarint())
	}
	return fmt.Sprintf("%q", key)
}

func value(data []byte) string {
	if bytes.ContainsFunc(data, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Sprintf("(change %x)", replica.Checksum(data))
	}
	return cmp.Or(string(data), "-")
}

func words(entries []*raftpb.Entry) string {
	var b []string
	for _, e := range entries {
		b = append(b, fmt.Sprintf("%d/%d:%s", e.GetIndex(), e.GetTerm(), value(e.GetData())))
	}
	return strings.Join(b, " ")
}

// describeMessage says in words what a message holds.
func describeMessage(from, to uint64, body []byte) string {
	d, _, err := decodeMessage(1, from, to, body)
	if err != nil {
		return err.Error()
	}
	refused := ""
	if d.GetReject() {
		refused = " refused"
	}
	at := func(index, term uint64) string { return fmt.Sprintf("%d/%d", index, term) }
	var text string
	switch d.GetType() {
	case raftpb.MsgPreVote:
		text = fmt.Sprintf("pre-vote? term=%d last=%s", d.GetTerm(), at(d.GetIndex(), d.GetLogTerm()))
	case raftpb.MsgPreVoteResp:
		text = fmt.Sprintf("pre-vote%s term=%d", refused, d.GetTerm())
	case raftpb.MsgVote:
		text = fmt.Sprintf("vote? term=%d last=%s", d.GetTerm(), at(d.GetIndex(), d.GetLogTerm()))
	case raftpb.MsgVoteResp:
		text = fmt.Sprintf("vote%s term=%d", refused, d.GetTerm())
	case raftpb.MsgApp:
		text = fmt.Sprintf("append term=%d after=%s [%s] commit=%d", d.GetTerm(), at(d.GetIndex(), d.GetLogTerm()), words(d.GetEntries()), d.GetCommit())
	case raftpb.MsgAppResp:
		text = fmt.Sprintf("appended%s term=%d index=%d", refused, d.GetTerm(), d.GetIndex())
		if d.GetReject() {
			text += " hint=" + at(d.GetRejectHint(), d.GetLogTerm())
		}
	case raftpb.MsgHeartbeat:
		text = fmt.Sprintf("heartbeat? term=%d commit=%d", d.GetTerm(), d.GetCommit())
	case raftpb.MsgHeartbeatResp:
		text = fmt.Sprintf("heartbeat term=%d", d.GetTerm())
	case raftpb.MsgReadIndex:
		id, _ := decodeReadID(d.GetEntries()[0].GetData())
		text = fmt.Sprintf("read? %d.%d", id.Boot, id.Attempt)
	case raftpb.MsgReadIndexResp:
		id, _ := decodeReadID(d.GetEntries()[0].GetData())
		text = fmt.Sprintf("read %d.%d term=%d index=%d", id.Boot, id.Attempt, d.GetTerm(), d.GetIndex())
	case raftpb.MsgTimeoutNow:
		text = fmt.Sprintf("campaign! term=%d", d.GetTerm())
	case raftpb.MsgSnap:
		meta := d.GetSnapshot().GetMetadata()
		text = fmt.Sprintf("snapshot term=%d at=%s", d.GetTerm(), at(meta.GetIndex(), meta.GetTerm()))
	}
	if c := d.GetContext(); len(c) == 8 {
		text += fmt.Sprintf(" confirm=%d", binary.LittleEndian.Uint64(c))
	} else if len(c) > 0 {
		text += fmt.Sprintf(" %s", c)
	}
	return text
}
