package raft

//synod:core

import (
	"errors"
	"fmt"
	"slices"

	etcd "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
)

// A change of the configuration is an entry of etcd's kind, by which its core finds out
// whom to count. Its context is the encoded replica.Configuration that results: what
// etcd's core has no place for (addresses, incarnations, the aim of a change) travels
// there, and what it makes of the change is held against it.

// confState says to etcd's core who is in a configuration.
func confState(c replica.Configuration) *raftpb.ConfState {
	return &raftpb.ConfState{
		Voters:         c.Nodes(func(p replica.Participant) bool { return p.Voter }),
		VotersOutgoing: c.Nodes(func(p replica.Participant) bool { return p.Outgoing }),
		Learners:       c.Nodes(func(p replica.Participant) bool { return p.Learner && !p.Outgoing }),
		LearnersNext:   c.Nodes(func(p replica.Participant) bool { return p.Learner && p.Outgoing }),
		AutoLeave:      new(false),
	}
}

// encodeConf encodes a configuration of which no more than etcd's part is known.
func encodeConf(s *raftpb.ConfState) []byte {
	var c replica.Configuration
	for _, id := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(s.GetVoters(), s.GetVotersOutgoing(), s.GetLearners(), s.GetLearnersNext())))) {
		p := replica.Participant{Member: synod.Member{Node: id}, Voter: slices.Contains(s.GetVoters(), id), Outgoing: slices.Contains(s.GetVotersOutgoing(), id)}
		p.Learner = slices.Contains(s.GetLearners(), id) || slices.Contains(s.GetLearnersNext(), id)
		c.Members = append(c.Members, p)
	}
	return c.Append(nil)
}

// decodeConf returns etcd's part of an encoded configuration.
func decodeConf(b []byte) (*raftpb.ConfState, error) {
	c, err := replica.DecodeConfiguration(b)
	if err != nil {
		return nil, err
	}
	return confState(c), nil
}

var errChange = errors.New("raft: malformed change of the configuration")

// changeTo returns the change that leads from a configuration to one that is a step away.
func changeTo(from, to replica.Configuration, encoded []byte) *raftpb.ConfChangeV2 {
	cc := &raftpb.ConfChangeV2{Context: encoded}
	add := func(kind raftpb.ConfChangeType, node uint64) {
		cc.Changes = append(cc.Changes, &raftpb.ConfChangeSingle{Type: kind.Enum(), NodeId: new(node)})
	}
	if from.Joint() {
		return cc // an empty change ends the time of two sets
	}
	for _, p := range from.Members {
		next, stays := to.Find(p.Node)
		switch {
		case !stays || !next.Voter && !next.Learner:
			add(raftpb.ConfChangeRemoveNode, p.Node)
		case next.Voter && !p.Voter:
			add(raftpb.ConfChangeAddNode, p.Node)
		case next.Learner && !p.Learner:
			add(raftpb.ConfChangeAddLearnerNode, p.Node)
		}
	}
	for _, p := range to.Members {
		if _, old := from.Find(p.Node); old {
			continue
		}
		kind := raftpb.ConfChangeAddLearnerNode
		if p.Voter {
			kind = raftpb.ConfChangeAddNode
		}
		add(kind, p.Node)
	}
	switch {
	case to.Joint():
		cc.Transition = raftpb.ConfChangeTransitionJointExplicit.Enum()
	case len(cc.Changes) == 0:
		// Nothing changes for etcd's core, which must be told that in words of its own.
		for _, p := range from.Members {
			if p.Voter {
				add(raftpb.ConfChangeAddNode, p.Node)
				break
			}
		}
	}
	return cc
}

// decodeChange reads the data of an entry with a change.
func decodeChange(data []byte) (*raftpb.ConfChangeV2, replica.Configuration, error) {
	cc := &raftpb.ConfChangeV2{}
	if err := proto.Unmarshal(data, cc); err != nil {
		return nil, replica.Configuration{}, fmt.Errorf("%w: %w", errChange, err)
	}
	c, err := replica.DecodeConfiguration(cc.GetContext())
	switch {
	case err != nil:
		return nil, c, fmt.Errorf("%w: %w", errChange, err)
	case len(c.Members) == 0:
		return nil, c, fmt.Errorf("%w: nobody is left", errChange)
	}
	return cc, c, nil
}

// Reconfigure implements replica.Core.
func (c *core) Reconfigure(config []byte) error {
	if !c.leading {
		return replica.ErrNotLeading
	}
	from, err := replica.DecodeConfiguration(c.config)
	if err != nil {
		return err
	}
	to, err := replica.DecodeConfiguration(config)
	if err != nil {
		return err
	}
	if err := c.raft.ProposeConfChange(changeTo(from, to, config)); err != nil {
		if errors.Is(err, etcd.ErrProposalDropped) {
			return replica.ErrNotLeading
		}
		return err
	}
	return nil
}

// Check implements replica.Core: a majority there always is.
func (c *core) Check(config []byte) error {
	_, err := replica.DecodeConfiguration(config)
	return err
}

// reconfigured puts a change that is decided into effect, and returns the configuration.
func (c *core) reconfigured(e *raftpb.Entry) []byte {
	cc, next, err := decodeChange(e.GetData())
	if err != nil {
		panic(fmt.Errorf("raft: group %d: entry %d: %w", c.group, e.GetIndex(), err))
	}
	before, err := replica.DecodeConfiguration(c.config)
	if err != nil {
		panic(err)
	}
	state := c.raft.ApplyConfChange(cc)
	if err := confState(next).Equivalent(state); err != nil {
		panic(fmt.Errorf("raft: group %d: entry %d leads to another configuration than it says: %w", c.group, e.GetIndex(), err))
	}
	for _, p := range next.Members {
		if _, old := before.Find(p.Node); !old {
			c.log.since = e.GetIndex()
		}
	}
	probe.Sometimes("raft: two sets of voters decide together", next.Joint())
	c.config, c.member = cc.GetContext(), true
	return c.config
}

// Trust implements replica.Core.
func (c *core) Trust() { c.votes.held = false }
