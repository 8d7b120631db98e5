package multipaxos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// victim is a core of a group of three that gets messages that nobody sent.
type victim struct {
	t       testing.TB
	n       *node
	stopped any // what the core panicked with: the runtime stops the group then
	decided []replica.Entry
	promise Ballot
	held    uint64
	sent    []replica.Message
}

// newVictim returns a core that leads, or that follows node 2, with some values decided and some accepted.
func newVictim(t testing.TB, leads bool) *victim {
	c := newCluster(t, Protocol{}, 3, 0)
	c.start()
	id := uint64(1)
	if !leads {
		id = 2
	}
	c.nodes[id].core.Campaign()
	c.nodes[id].ready()
	l := c.elect()
	require.Equal(t, id, l.id)
	for i := range 5 {
		require.NoError(t, l.propose(fmt.Sprint("v", i)))
	}
	c.settle()
	c.tick()
	c.settle()
	require.NoError(t, l.propose("open"))
	if !leads {
		for len(c.network) > 0 {
			c.deliver(0, false)
		}
		for c.nodes[1].persist() {
		}
	}
	v := &victim{t: t, n: c.nodes[1]}
	v.promise, v.held = v.n.core.promised, v.n.core.held
	return v
}

func (v *victim) guard(fn func()) {
	defer func() {
		if p := recover(); p != nil {
			var runtime interface{ RuntimeError() }
			if err, ok := p.(error); !ok || errors.As(err, &runtime) {
				panic(p) // a mistake, and not a refusal
			}
			v.stopped = p
		}
	}()
	fn()
}

func (v *victim) step(from uint64, message []byte) (err error) {
	v.guard(func() { err = v.n.core.Step(from, message, len(message)) })
	v.work()
	return err
}

func (v *victim) tick() {
	v.guard(v.n.core.Tick)
	v.work()
}

// work does what a runtime does, and checks what no message may do.
func (v *victim) work() {
	for v.stopped == nil {
		var out replica.Output
		var b storage.Batch
		out.Batch = &b
		busy := false
		v.guard(func() { busy = v.n.core.Ready(&out) })
		if !busy || v.stopped != nil {
			break
		}
		if out.Restore != nil { // no snapshot was received: here the runtime stops the group
			v.stopped = "a snapshot that was not received"
			break
		}
		require.NoError(v.t, v.n.store.Commit(&b))
		for _, m := range out.Messages {
			require.GreaterOrEqual(v.t, len(m.Head)+len(m.Tail), replica.MinMessage)
			v.sent = append(v.sent, m)
		}
		for _, e := range out.Committed {
			if n := len(v.decided); n > 0 {
				require.Equal(v.t, v.decided[n-1].Index+1, e.Index)
			}
			v.decided = append(v.decided, e)
		}
		v.guard(func() {
			if out.Token != 0 {
				v.n.core.Persisted(out.Token)
			}
			if n := len(out.Committed); n > 0 {
				v.n.core.Applied(out.Committed[n-1].Index)
			}
		})
	}
	c := v.n.core
	require.False(v.t, c.promised.Less(v.promise), "promises do not fall")
	require.GreaterOrEqual(v.t, c.held, v.held)
	v.promise, v.held = c.promised, c.held
	log, hard, _, err := openLog(v.n.keys, v.n.store, 0)
	require.NoError(v.t, err)
	require.False(v.t, hard.promised.Less(c.durable))
	for _, e := range v.decided {
		if have, _ := log.at(e.Index); have != nil {
			require.Equal(v.t, string(e.Data), string(have.data), "decided slot %d has changed", e.Index)
		}
	}
}

// encode makes a message as it travels.
func encode(m message, runs ...*run) []byte {
	if m.kind.fields()&hasRuns != 0 {
		m.runs = runs
		return m.append(nil)
	}
	b := m.append(nil)
	for _, r := range runs {
		b = append(b, r.bytes...)
	}
	for len(b) < replica.MinMessage {
		b = append(b, 0)
	}
	return b
}

// sample returns one message of each kind, of node 2.
func sample() map[string][]byte {
	b := Ballot{9, 0, 2}
	r := func(ballot Ballot, first uint64, data ...string) *run {
		var values []value
		for _, d := range data {
			values = append(values, value{origin: Ballot{1, 0, 2}, kind: valueCommand, data: []byte(d)})
		}
		return encodeRun(7, ballot, first, values)
	}
	id := replica.ReadID{Boot: 1, Attempt: 1}
	conf := members(1, 2, 3).Append(nil)
	return map[string][]byte{
		"canvass":    encode(message{kind: kindCanvass, number: 1}),
		"canvassed":  encode(message{kind: kindCanvassed, flag: true, ballot: b, number: 1, decided: 3}),
		"prepare":    encode(message{kind: kindPrepare, ballot: b, from: 3}),
		"promise":    encode(message{kind: kindPromise, flag: true, ballot: b, from: 9, decided: 7, ranges: []slots{{11, 11, b}}}, r(b, 9, "a", "b")),
		"accept":     encode(message{kind: kindAccept, ballot: b, number: 3, decided: 7}, r(b, 8, "x", "y")),
		"heartbeat":  encode(message{kind: kindHeartbeat, ballot: b, number: 3, decided: 7, through: 7}),
		"accepted":   encode(message{kind: kindAccepted, ballot: b, number: 3, decided: 7, through: 8, ranges: []slots{{first: 10, last: 12}}}),
		"refused":    encode(message{kind: kindRefused, ballot: Ballot{10, 0, 3}}),
		"learn":      encode(message{kind: kindLearn, from: 2}),
		"learned":    encode(message{kind: kindLearned, from: 8, decided: 9}, r(chosen(), 8, "x", "y")),
		"read":       encode(message{kind: kindRead, id: id}),
		"read index": encode(message{kind: kindReadIndex, id: id, through: 5}),
		"look":       encode(message{kind: kindLook, id: id}),
		"looked":     encode(message{kind: kindLooked, id: id, decided: 5, through: 5}),
		"take over":  encode(message{kind: kindTakeOver, ballot: b}),
		"snapshot":   encode(message{kind: kindSnapshot, position: replica.Position{Index: 50, Term: 3, Leader: 2, Commands: 40}, config: conf}),
	}
}

// What a peer may not say is refused, and has no effect.
func TestRefusedMessages(t *testing.T) {
	b, far := Ballot{9, 0, 2}, uint64(math.MaxUint64/4)
	run := func(ballot Ballot, first uint64) *run {
		return encodeRun(7, ballot, first, []value{{origin: Ballot{1, 0, 1}, kind: valueCommand, data: []byte("long enough")}})
	}
	altered := encode(message{kind: kindAccept, ballot: b, decided: 7}, run(b, 8))
	altered[len(altered)-1] ^= 1
	other := encodeRun(8, b, 8, []value{{origin: b, kind: valueFence}})
	cases := map[string][]byte{
		"nothing":                      {},
		"one byte":                     {byte(kindAccept)},
		"a flag where there is none":   append([]byte{byte(kindHeartbeat), 1}, sample()["heartbeat"][2:]...),
		"an unknown flag":              append([]byte{byte(kindPrepare), 2}, sample()["prepare"][2:]...),
		"a run with a wrong checksum":  altered,
		"a run of another group":       encode(message{kind: kindAccept, ballot: b, decided: 7}, other),
		"an accept without values":     encode(message{kind: kindAccept, ballot: b, decided: 7}),
		"an accept in another ballot":  encode(message{kind: kindAccept, ballot: b, decided: 7}, run(Ballot{8, 0, 2}, 8)),
		"an accept of another node's":  encode(message{kind: kindAccept, ballot: Ballot{9, 0, 3}, decided: 7}, run(Ballot{9, 0, 3}, 8)),
		"an accept far away":           encode(message{kind: kindAccept, ballot: b, decided: 7}, run(b, far)),
		"a heartbeat of no ballot":     encode(message{kind: kindHeartbeat, decided: 7}),
		"a ballot beyond all":          encode(message{kind: kindPrepare, ballot: Ballot{maxRound + 1, 0, 2}, from: 1}),
		"a ballot of round 0":          encode(message{kind: kindRefused, ballot: Ballot{0, 0, 2}}),
		"a promise from no slot on":    encode(message{kind: kindPromise, flag: true, ballot: b}),
		"a promise that goes back":     encode(message{kind: kindPromise, ballot: b, from: 9, next: 9}),
		"a promise far away":           encode(message{kind: kindPromise, flag: true, ballot: b, from: 9, decided: 7}, run(b, far)),
		"a promise that forgot much":   encode(message{kind: kindPromise, flag: true, ballot: b, from: 9, decided: 7, ranges: []slots{{9, far, b}}}),
		"a promise out of order":       encode(message{kind: kindPromise, flag: true, ballot: b, from: 9, decided: 7}, run(b, 12), run(b, 10)),
		"a promise of a higher ballot": encode(message{kind: kindPromise, flag: true, ballot: b, from: 9, decided: 7}, run(Ballot{10, 0, 2}, 9)),
		"ranges out of order":          encode(message{kind: kindAccepted, ballot: b, ranges: []slots{{first: 9, last: 9}, {first: 8, last: 8}}}),
		"ranges that wrap around":      encode(message{kind: kindAccepted, ballot: b, ranges: []slots{{first: 9, last: 8}}}),
		"too many ranges": encode(message{kind: kindAccepted, ballot: b, ranges: slices.Collect(func(yield func(slots) bool) {
			for i := range uint64(9) {
				if !yield(slots{first: 2*i + 1, last: 2*i + 1}) {
					return
				}
			}
		})}),
		"learned but not chosen":      encode(message{kind: kindLearned, from: 8, decided: 9}, run(b, 8)),
		"learned from elsewhere":      encode(message{kind: kindLearned, from: 8, decided: 9}, run(chosen(), 9)),
		"learned and not decided":     encode(message{kind: kindLearned, from: 8, decided: 7}, run(chosen(), 8)),
		"a question for no slot":      encode(message{kind: kindLearn}),
		"a snapshot of nothing":       encode(message{kind: kindSnapshot, config: members(1).Append(nil)}),
		"a snapshot without members":  encode(message{kind: kindSnapshot, position: replica.Position{Index: 9, Term: 1}, config: replica.Configuration{}.Append(nil)}),
		"a snapshot with no config":   encode(message{kind: kindSnapshot, position: replica.Position{Index: 9, Term: 1}}),
		"no slot":                     encode(message{kind: kindAccepted, ballot: b, through: maxSlot + 1}),
		"nor that":                    encode(message{kind: kindAccepted, ballot: b, ranges: []slots{{first: 9, last: maxSlot + 1}}}),
		"bytes behind it":             append(sample()["prepare"], 0),
		"padding that says something": append(encode(message{kind: kindLearn, from: 2})[:7], 1),
	}
	for kind := range 256 {
		if kind == 0 || kind >= int(messageKinds) {
			cases[fmt.Sprint("kind ", kind)] = append([]byte{byte(kind), 0}, make([]byte, 20)...)
		}
	}
	for _, leads := range []bool{false, true} {
		v := newVictim(t, leads)
		v.work()
		before := v.n.core.Fingerprint(nil, false, false)
		for what, message := range cases {
			require.ErrorIs(t, v.step(2, slices.Clone(message)), errMessage, what)
			require.Nil(t, v.stopped, what)
			require.Equal(t, before, v.n.core.Fingerprint(nil, false, false), what)
		}
		for what, message := range sample() {
			_, err := decodeMessage(7, 2, message)
			require.NoError(t, err, what)
		}
	}
}

// What is well formed and can't be is ignored, or stops the one group; it never changes what was decided or
// promised, nor makes the core work for ever.
func TestHostileMessages(t *testing.T) {
	huge := uint64(maxSlot)
	for _, c := range []struct {
		what  string
		leads bool
		make  func(own Ballot) message
		stops string
	}{
		{what: "decided far beyond the log", make: func(b Ballot) message { return message{kind: kindHeartbeat, ballot: b, decided: huge} }},
		{what: "an acknowledgement that this node never gave", make: func(b Ballot) message { return message{kind: kindHeartbeat, ballot: b, decided: 7, through: huge} }, stops: "old copy"},
		{what: "a promise that nobody asked for", make: func(b Ballot) message {
			return message{kind: kindPromise, flag: true, ballot: b, from: 9, decided: huge, conf: huge}
		}},
		{what: "a promise that knows all", leads: true, make: func(b Ballot) message {
			return message{kind: kindPromise, flag: true, ballot: b, from: 2, decided: huge, conf: huge, fence: Ballot{maxRound, 255, huge}}
		}},
		{what: "accepted far beyond the log", leads: true, make: func(b Ballot) message {
			return message{kind: kindAccepted, ballot: b, number: 1, decided: huge, through: huge}
		}},
		{what: "accepted elsewhere", leads: true, make: func(b Ballot) message {
			return message{kind: kindAccepted, ballot: b, number: 1, ranges: []slots{{first: 1 << 40, last: huge - 1}}}
		}},
		{what: "refused for the highest ballot", leads: true, make: func(Ballot) message { return message{kind: kindRefused, ballot: Ballot{maxRound, 0, 3}} }},
		{what: "an answer to a read that nobody asked", make: func(Ballot) message { return message{kind: kindReadIndex, through: huge} }},
		{what: "an answer to a look that nobody took", make: func(Ballot) message { return message{kind: kindLooked, decided: huge, through: huge} }},
		{what: "learned what nobody asked for", make: func(Ballot) message { return message{kind: kindLearned, from: 3, decided: huge} }},
		{what: "a question far beyond the log", make: func(Ballot) message { return message{kind: kindLearn, from: huge} }},
		{what: "a prepare far beyond the log", make: func(Ballot) message { return message{kind: kindPrepare, ballot: Ballot{9, 0, 2}, from: huge} }},
		{what: "an order that the leader did not give", make: func(Ballot) message { return message{kind: kindTakeOver, ballot: Ballot{9, 0, 2}} }},
		{what: "a snapshot that did not come", make: func(Ballot) message {
			return message{kind: kindSnapshot, position: replica.Position{Index: 50, Term: 3, Commands: 4}, config: members(1, 2, 3).Append(nil)}
		}, stops: "not received"},
	} {
		t.Run(c.what, func(t *testing.T) {
			v := newVictim(t, c.leads)
			v.work()
			m := c.make(v.n.core.promised)
			for range 40 { // also through elections
				if v.stopped != nil {
					break
				}
				require.NoError(t, v.step(2, encode(m)))
				v.tick()
			}
			if c.stops == "" {
				require.Nil(t, v.stopped)
			} else {
				require.Contains(t, fmt.Sprint(v.stopped), c.stops)
			}
		})
	}
}

// What a core keeps of a message must not keep a frame that is much larger.
func TestStepKeepsNoFrame(t *testing.T) {
	for _, extra := range []struct {
		frame int
		keeps bool
	}{{0, true}, {1 << 20, false}} {
		v := newVictim(t, false)
		v.work()
		b := v.n.core.promised
		slot := v.n.core.log.last() + 1
		r := encodeRun(7, b, slot, []value{{origin: b, kind: valueCommand, data: []byte("small value of a message")}})
		m := encode(message{kind: kindAccept, ballot: b, decided: v.n.core.held}, r)
		require.NoError(t, v.n.core.Step(2, m, len(m)+extra.frame))
		v.work()
		have, _ := v.n.core.log.at(slot)
		require.NotNil(t, have)
		clear(m)
		require.Equal(t, extra.keeps, have.data[0] == 0)
	}
}

// allocated returns how many bytes fn allocates.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// No more than some bytes are allocated for one that was received, and a constant.
func TestDecodersAllocateLittle(t *testing.T) {
	const constant = 4 << 10
	b := Ballot{9, 0, 2}
	gaps := make([]value, 20_000)
	for i := range gaps {
		gaps[i] = value{origin: b, kind: valueGap}
	}
	dense := encodeRun(7, b, 8, gaps)
	claims := [][]byte{dense.bytes}
	for _, claim := range []uint64{3, 1 << 10, 1 << 40, 1 << 60, math.MaxUint64} {
		run := append([]byte{0, 0, 0, 0, runVersion}, binary.LittleEndian.AppendUint64(nil, 7)...)
		run = binary.AppendUvarint(b.append(run), 8)
		run = append(binary.AppendUvarint(run, claim), make([]byte, 8<<10)...)
		binary.LittleEndian.PutUint32(run, replica.Checksum(run[4:]))
		claims = append(claims, run)
	}
	for _, c := range claims {
		got := allocated(func() { _, _ = openRun(7, c) })
		require.LessOrEqual(t, got, 4*uint64(len(c))+constant)
		m := message{kind: kindAccept, ballot: b, decided: 7}
		message := append(m.append(nil), c...)
		got = allocated(func() { _, _ = decodeMessage(7, 2, message) })
		require.LessOrEqual(t, got, 4*uint64(len(message))+constant)
	}
	for kind := range messageKinds {
		for _, claim := range []uint64{1 << 10, 1 << 40, math.MaxUint64} {
			m := message{kind: kind}
			body := m.append(nil)
			body = append(binary.AppendUvarint(body[:max(2, len(body)-1)], claim), make([]byte, 8<<10)...)
			got := allocated(func() { _, _ = decodeMessage(7, 2, body) })
			require.LessOrEqual(t, got, 16*uint64(len(body))+constant, "%v", kind)
		}
	}
}

// FuzzStep gives a core any messages, and ticks between them.
func FuzzStep(f *testing.F) {
	var all []byte
	for _, m := range sample() {
		f.Add(false, replica.AppendBytes(nil, m))
		f.Add(true, replica.AppendBytes(nil, m))
		all = replica.AppendBytes(all, m)
	}
	f.Add(false, all)
	f.Add(true, all)
	f.Fuzz(func(t *testing.T, leads bool, script []byte) {
		v := newVictim(t, leads)
		v.work()
		r := replica.NewReader(script)
		for n := 0; n < 20 && r.Len() > 0 && v.stopped == nil; n++ {
			m := slices.Clone(r.Bytes())
			// Runs have the checksum that they should: or nothing gets past it.
			for at := 2; at+runHeader < len(m); at++ {
				if m[at+4] == runVersion && binary.LittleEndian.Uint64(m[at+5:]) == 7 {
					binary.LittleEndian.PutUint32(m[at:], replica.Checksum(m[at+4:]))
					break
				}
			}
			v.tick()
			_ = v.step(uint64(2+n%2), m)
		}
	})
}
