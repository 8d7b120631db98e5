package raft

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// The only voter of a group knows after a restart what it has acknowledged only once
// it has decided an entry in its new term: the commit index in its records lags.
func TestReadOfTheOnlyVoterAfterRestart(t *testing.T) {
	keys := replica.GroupKeys(7)
	v := bootVictim(t, 1)
	v.core.Campaign()
	v.work()
	const acknowledged = 5 // the term's first entry stands at index 2
	require.NoError(t, v.core.Propose([]byte("one")))
	v.work()
	require.NoError(t, v.core.Propose([]byte("two")))
	v.work()
	require.NoError(t, v.core.Propose([]byte("three")))
	v.work()
	require.Equal(t, uint64(acknowledged), v.core.Status().Commit)
	log, err := openLog(keys, v.store, 0)
	require.NoError(t, err)
	require.Less(t, log.hard.GetCommit(), uint64(acknowledged), "the records lag")

	v.open(1)
	c := v.core
	c.Campaign()
	id := replica.ReadID{Boot: 1}
	var reads []replica.ReadResult
	for round := 0; ; round++ { // a round later each record is durable
		require.Less(t, round, 20)
		id.Attempt++
		c.Read(id)
		var tokens []uint64
		for {
			var b storage.Batch
			out := replica.Output{Batch: &b}
			if !c.Ready(&out) {
				break
			}
			require.NoError(t, v.store.Commit(&b))
			if out.Token != 0 {
				tokens = append(tokens, out.Token)
			}
			reads = append(reads, out.Reads...)
		}
		if len(reads) > 0 {
			break
		}
		for _, token := range tokens {
			c.Persisted(token)
		}
	}
	require.GreaterOrEqual(t, reads[0].Index, uint64(acknowledged), "the answer is older than what was acknowledged")
	require.Equal(t, replica.ReadResult{ID: id, Index: acknowledged + 1}, reads[0])
	require.Len(t, reads, 1, "earlier attempts are not answered")
}

// A leader that can't decide its first entry, since its followers' disks are full, say,
// keeps of each node the newest read and no more.
func TestReadsBeforeTheFirstDecision(t *testing.T) {
	ask := func(v *victim, from uint64, id replica.ReadID) {
		m := &raftpb.Message{Type: raftpb.MsgReadIndex.Enum(), Entries: []*raftpb.Entry{{Data: encodeReadID(id)}}}
		require.NoError(t, v.step(from, encodeMessage(m)))
	}
	fill := func(v *victim) {
		for attempt := uint64(1); attempt <= 100; attempt++ {
			v.core.Read(replica.ReadID{Boot: 1, Attempt: attempt})
			ask(v, 2, replica.ReadID{Boot: attempt, Attempt: 200 - attempt}) // restarts
			ask(v, 3, replica.ReadID{Boot: 3, Attempt: attempt})
			ask(v, 3, replica.ReadID{Boot: 3, Attempt: attempt / 2}) // an old one arrives late
			if attempt%5 == 0 {
				v.core.Tick()
				for peer := uint64(2); peer <= 3; peer++ { // who answer, so that it goes on to lead
					require.NoError(t, v.step(peer, encodeMessage(&raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), Term: new(uint64(4))})))
				}
			}
		}
		require.Len(t, v.core.reads, 3)
		require.Empty(t, v.reads)
	}
	decode := func(m replica.Message) *raftpb.Message {
		d, _, err := decodeMessage(7, 1, m.To, append(m.Head, m.Tail...))
		require.NoError(t, err)
		return d
	}
	t.Run("decided", func(t *testing.T) {
		v := newVictim(t, true)
		fill(v)
		v.sent = nil
		require.NoError(t, v.step(2, encodeMessage(&raftpb.Message{Type: raftpb.MsgAppResp.Enum(), Term: new(uint64(4)), Index: new(uint64(7))})))
		require.Empty(t, v.core.reads)
		var context []byte
		for _, m := range v.sent {
			if d := decode(m); d.GetType() == raftpb.MsgHeartbeat {
				context = d.GetContext()
			}
		}
		require.NotEmpty(t, context)
		v.sent = nil
		require.NoError(t, v.step(2, encodeMessage(&raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), Term: new(uint64(4)), Context: context})))
		require.Equal(t, []replica.ReadResult{{ID: replica.ReadID{Boot: 1, Attempt: 100}, Index: 7}}, v.reads)
		answers := make(map[uint64][]replica.ReadID)
		for _, m := range v.sent {
			if d := decode(m); d.GetType() == raftpb.MsgReadIndexResp {
				require.Equal(t, uint64(7), d.GetIndex())
				id, ok := decodeReadID(d.GetEntries()[0].GetData())
				require.True(t, ok)
				answers[m.To] = append(answers[m.To], id)
			}
		}
		require.Equal(t, map[uint64][]replica.ReadID{2: {{Boot: 100, Attempt: 100}}, 3: {{Boot: 3, Attempt: 100}}}, answers)
	})
	t.Run("deposed", func(t *testing.T) {
		v := newVictim(t, true)
		fill(v)
		v.sent = nil
		require.NoError(t, v.step(3, encodeMessage(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Term: new(uint64(5))})))
		require.Empty(t, v.core.reads)
		require.Empty(t, v.reads)
	})
}
