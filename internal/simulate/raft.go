package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/sim"
)

// journal is the state machine under test: it keeps a hash of all commands and their
// order, and a counter. Commands are unique.
type journal struct {
	system *raftSystem
	node   uint64
	count  uint64
	hash   uint64
	max    uint64 // the highest command that was applied
}

func (j *journal) Apply(index uint64, command []byte) []byte {
	s := j.system
	if index != j.count+1 {
		s.w.Fail(fmt.Errorf("node %d: index %d follows %d", j.node, index, j.count))
	}
	id := binary.LittleEndian.Uint64(command)
	h := fnv.New64a()
	h.Write(binary.LittleEndian.AppendUint64(nil, j.hash))
	h.Write(command)
	j.count, j.hash, j.max = index, h.Sum64(), max(j.max, id)
	// State-machine safety: one history for all.
	if known, ok := s.hashes[index]; ok && known != j.hash {
		s.w.Fail(fmt.Errorf("node %d: other commands than another node up to index %d", j.node, index))
	}
	s.hashes[index] = j.hash
	if at, ok := s.appliedAt[id]; ok && at != index {
		s.w.Fail(fmt.Errorf("node %d: command %d is applied at index %d and at %d", j.node, id, at, index))
	}
	s.appliedAt[id] = index
	return binary.LittleEndian.AppendUint64(nil, id)
}

type state [24]byte

func (s state) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(s[:])
	return int64(n), err
}

func (j *journal) Snapshot() (io.WriterTo, error) {
	var b state
	binary.LittleEndian.PutUint64(b[0:], j.count)
	binary.LittleEndian.PutUint64(b[8:], j.hash)
	binary.LittleEndian.PutUint64(b[16:], j.max)
	return b, nil
}

func (j *journal) Restore(r io.Reader) error {
	var b state
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	j.count = binary.LittleEndian.Uint64(b[0:])
	j.hash = binary.LittleEndian.Uint64(b[8:])
	j.max = binary.LittleEndian.Uint64(b[16:])
	if known, ok := j.system.hashes[j.count]; ok && known != j.hash {
		j.system.w.Fail(fmt.Errorf("node %d: a snapshot at index %d holds other commands", j.node, j.count))
	}
	return nil
}

// raftSystem is one simulated cluster and what is known of it.
type raftSystem struct {
	w         *sim.World
	groups    map[uint64]*raft.Group
	machines  map[uint64]*journal
	hashes    map[uint64]uint64 // of the history up to an index
	appliedAt map[uint64]uint64 // where each command was applied
	acked     map[uint64]bool
	refused   map[uint64]bool // certainly not executed
	next      uint64
	highest   uint64 // the highest command that was acknowledged
	unknown   int
	barriers  int
}

const election = 500 * time.Millisecond

func (s *raftSystem) start(ctx context.Context, env *sim.Env) (func(), error) {
	delete(s.groups, env.ID)
	node, err := raft.Start(ctx, raft.Config{Cluster: "sim", Node: env.ID, Transport: env.Transport, Store: env.Store, Loops: 1,
		HeartbeatInterval: election / 10, ElectionTimeout: election, MaxBatchBytes: 256, CacheBytes: 2048})
	if err != nil {
		return nil, err
	}
	var members []uint64
	for id := uint64(1); id <= s.size(); id++ {
		members = append(members, id)
	}
	if err := node.Bootstrap(ctx, 1, members); err != nil && !errors.Is(err, raft.ErrBootstrapped) {
		return nil, err
	}
	machine := &journal{system: s, node: env.ID}
	group, err := node.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: machine, SnapshotEntries: 200, RetainEntries: 100})
	if err != nil {
		return nil, err
	}
	s.groups[env.ID], s.machines[env.ID] = group, machine
	return func() { _ = node.Close() }, nil
}

func (s *raftSystem) size() uint64 { return 3 + 2*(s.w.Seed()%2) }

// client proposes commands and reads, wherever it is led.
func (s *raftSystem) client(ctx context.Context, until func() bool) {
	at := uint64(1)
	for !until() {
		_ = s.w.Sleep(ctx, time.Duration(s.w.Rand().Int64N(int64(20*time.Millisecond))))
		g := s.groups[at]
		if g == nil {
			at = at%s.size() + 1
			continue
		}
		short, cancel := s.w.WithTimeout(ctx, time.Duration(s.w.Rand().Int64N(int64(3*election))))
		if s.w.Rand().IntN(3) == 0 {
			before := s.highest
			machine := s.machines[at]
			if err := g.Barrier(short); err == nil && s.groups[at] == g {
				s.barriers++
				if machine.max < before {
					s.w.Fail(fmt.Errorf("node %d: a read after a barrier sees %d, but %d was acknowledged before", at, machine.max, before))
				}
			}
			cancel()
			at = 1 + s.w.Rand().Uint64N(s.size())
			continue
		}
		s.next++
		id := s.next
		result, err := g.Propose(short, binary.LittleEndian.AppendUint64(nil, id))
		cancel()
		var elsewhere *synod.NotLeaderError
		switch {
		case err == nil:
			if binary.LittleEndian.Uint64(result) != id {
				s.w.Fail(fmt.Errorf("command %d got the result of another", id))
			}
			if s.appliedAt[id] == 0 {
				s.w.Fail(fmt.Errorf("command %d was acknowledged and not applied", id))
			}
			s.acked[id] = true
			s.highest = max(s.highest, id)
		case errors.Is(err, synod.ErrUnknownOutcome):
			s.unknown++
			at = 1 + s.w.Rand().Uint64N(s.size())
		default:
			s.refused[id] = true
			at = 1 + s.w.Rand().Uint64N(s.size())
			if errors.As(err, &elsewhere) && elsewhere.Leader != 0 {
				at = elsewhere.Leader
			}
		}
	}
}

// runRaft is one seed.
func runRaft(w *sim.World) {
	s := &raftSystem{
		w:         w,
		groups:    make(map[uint64]*raft.Group),
		machines:  make(map[uint64]*journal),
		hashes:    make(map[uint64]uint64),
		appliedAt: make(map[uint64]uint64),
		acked:     make(map[uint64]bool),
		refused:   make(map[uint64]bool),
	}
	ctx := w.Context()
	for id := uint64(1); id <= s.size(); id++ {
		w.AddNode(id, s.start)
	}
	over, clients := false, 0
	for range 1 + w.Rand().IntN(5) {
		clients++
		w.Go(func(ctx context.Context) {
			s.client(ctx, func() bool { return over })
			clients--
		})
	}
	w.Check("certainly not executed", func() error {
		for id := range s.refused {
			if s.appliedAt[id] != 0 {
				return fmt.Errorf("command %d was refused and is applied", id)
			}
			if uint64(len(s.appliedAt)) > 0 && len(s.refused) > 512 {
				delete(s.refused, id) // what was not applied for long is not looked at for ever
			}
		}
		return nil
	})
	w.Trouble(ctx, 30*time.Second)
	// Everything is whole now: there must be progress.
	healed := w.Now()
	acked := len(s.acked)
	for len(s.acked) < acked+5 {
		_ = w.Sleep(ctx, 10*time.Millisecond)
		if w.Now()-healed > 20*election {
			w.Fail(fmt.Errorf("no progress within %v after everything healed", w.Now()-healed))
			return
		}
	}
	over = true
	for clients > 0 {
		_ = w.Sleep(ctx, 10*time.Millisecond)
	}
	// Every node catches up, and every acknowledged command is there.
	for id := uint64(1); id <= s.size(); id++ {
		for {
			short, cancel := w.WithTimeout(ctx, 20*election)
			g := s.groups[id]
			if g == nil {
				w.Fail(fmt.Errorf("node %d: its group does not run: %v", id, w.Nodes()[id-1].Err()))
				return
			}
			err := g.Barrier(short)
			cancel()
			if err == nil {
				break
			}
			w.Fail(fmt.Errorf("node %d does not catch up: %w", id, err))
			return
		}
		if j := s.machines[id]; j.hash != s.hashes[j.count] {
			w.Fail(fmt.Errorf("node %d: another state at index %d", id, j.count))
		}
	}
	last := s.machines[1].count
	for id := range s.acked {
		if at := s.appliedAt[id]; at == 0 || at > last {
			w.Fail(fmt.Errorf("command %d was acknowledged and is lost", id))
		}
	}
}
