package raft

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// said returns the messages of one kind that the core has sent since it was last asked.
func (v *victim) said(kind raftpb.MessageType) (found []*raftpb.Message) {
	for _, m := range v.sent {
		d, _, err := decodeMessage(7, 1, m.To, append(m.Head, m.Tail...))
		require.NoError(v.t, err)
		if d.GetType() == kind {
			found = append(found, d)
		}
	}
	v.sent = nil
	return found
}

func (v *victim) tick(n int) {
	for range n {
		v.core.Tick()
		v.work()
	}
}

// A member that starts may have forgotten whose lease it has confirmed.
func TestStartedMemberGivesNoVote(t *testing.T) {
	ask := func(v *victim, kind raftpb.MessageType, force bool) {
		m := &raftpb.Message{Type: kind.Enum(), Term: new(uint64(9)), Index: new(uint64(50)), LogTerm: new(uint64(8))}
		if force {
			m.Context = []byte("CampaignTransfer")
		}
		require.NoError(t, v.step(3, encodeMessage(m)))
	}
	for _, leases := range []bool{false, true} {
		for after := range 12 {
			v := newVictim(t, false)
			v.leases = leases
			v.open(1, 2, 3)
			v.tick(after)
			v.sent = nil
			may := !leases || after >= 10
			ask(v, raftpb.MsgPreVote, false)
			require.Equal(t, may, len(v.said(raftpb.MsgPreVoteResp)) == 1, "after %d ticks", after)
			ask(v, raftpb.MsgVote, after%2 == 0)
			votes := v.said(raftpb.MsgVoteResp)
			require.Equal(t, may, len(votes) == 1, "after %d ticks", after)
			if may {
				require.False(t, votes[0].GetReject())
				continue
			}
			require.EqualValues(t, 3, v.core.Status().Term)
			require.NoError(t, v.step(2, encodeMessage(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Term: new(uint64(3))})))
			require.Len(t, v.said(raftpb.MsgHeartbeatResp), 1, "it follows")
			require.NoError(t, v.step(2, encodeMessage(&raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), Term: new(uint64(3))})))
			v.core.Campaign()
			v.work()
			require.Empty(t, v.sent, "it does not stand for election")
		}
	}
	v := bootVictim(t, 1)
	v.leases = true
	v.open(1)
	v.core.Campaign()
	v.work()
	require.True(t, v.core.leading, "the only voter has nobody to wait for")

	// It was the only voter when it last took a snapshot. There are others since.
	v = newVictim(t, false)
	v.leases = true
	v.open(1)
	ask(v, raftpb.MsgVote, false)
	require.Empty(t, v.said(raftpb.MsgVoteResp))
}

// A node that stood for election, with a term of its own, answers what another one sent
// when it led or stood for election itself, long ago. That says nothing of a leader, and
// a member that has one goes on to follow it: or it would vote for that node at once,
// though its leader counts on a lease.
func TestAnswersOfALaterTerm(t *testing.T) {
	for _, kind := range []raftpb.MessageType{raftpb.MsgAppResp, raftpb.MsgVoteResp, raftpb.MsgPreVoteResp} {
		for _, leases := range []bool{false, true} {
			v := newVictim(t, false)
			v.leases = leases
			v.open(1, 2, 3)
			v.tick(10)
			require.NoError(t, v.step(2, encodeMessage(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Term: new(uint64(3))})))
			answer := &raftpb.Message{Type: kind.Enum(), Term: new(uint64(5)), Reject: new(true)}
			require.NoError(t, v.step(3, encodeMessage(answer)))
			vote := &raftpb.Message{Type: raftpb.MsgVote.Enum(), Term: new(uint64(5)), Index: new(uint64(6)), LogTerm: new(uint64(3))}
			require.NoError(t, v.step(3, encodeMessage(vote)))
			if !leases { // as etcd's raft has it
				require.Len(t, v.said(raftpb.MsgVoteResp), 1, "%v", kind)
				continue
			}
			require.Empty(t, v.said(raftpb.MsgVoteResp), "%v", kind)
			require.EqualValues(t, 2, v.core.Status().Leader)
			// Its leader takes notice, or that node could never come back.
			l := newVictim(t, true)
			l.core.votes.leases = true
			require.NoError(t, l.step(3, encodeMessage(answer)))
			require.False(t, l.core.leading)
		}
	}
}

// The runtime hears of a transfer before the other member does, and until the term ends.
func TestHandedOver(t *testing.T) {
	v := newVictim(t, true)
	heard := func() (over, asked bool) {
		for {
			var b storage.Batch
			out := replica.Output{Batch: &b}
			if !v.core.Ready(&out) {
				return over, asked
			}
			over = out.HandedOver
			for _, m := range out.Messages {
				d, _, err := decodeMessage(7, 1, m.To, append(m.Head, m.Tail...))
				require.NoError(t, err)
				if d.GetType() == raftpb.MsgTimeoutNow {
					require.True(t, out.HandedOver)
					asked = true
				}
			}
			require.NoError(t, v.store.Commit(&b))
			if out.Token != 0 {
				v.core.Persisted(out.Token)
			}
		}
	}
	// The other member lacks an entry: it is asked once it has that.
	v.core.Transfer(3)
	_, asked := heard()
	require.False(t, asked)
	require.NoError(t, v.core.Step(3, encodeMessage(&raftpb.Message{Type: raftpb.MsgAppResp.Enum(), Term: new(uint64(4)), Index: new(uint64(7))}), 1))
	over, asked := heard()
	require.True(t, asked)
	require.True(t, over)
	// The transfer is given up, but what was sent may yet arrive.
	for range 15 {
		v.core.Tick()
		require.NoError(t, v.core.Step(2, encodeMessage(&raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), Term: new(uint64(4))}), 1))
		over, _ = heard()
		require.True(t, over)
	}
	require.Zero(t, v.core.raft.BasicStatus().LeadTransferee)
	require.NoError(t, v.core.Step(3, encodeMessage(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Term: new(uint64(5))}), 1))
	over, _ = heard()
	require.False(t, over)
}
