package replica

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
)

// apply is what the applier does with a request whose command it has.
func (t *sessionTable) apply(r synod.Request, result string) (verdict, string) {
	v, k := t.request(r)
	switch v {
	case requestNew:
		t.keep(k, []byte(result))
		return v, result
	case requestRepeated:
		return v, string(k.result)
	}
	return v, ""
}

func request(session, sequence, floor uint64) synod.Request {
	return synod.Request{Session: session, Sequence: sequence, Floor: floor}
}

// check holds a table against itself, and against its encoded form.
func (t *sessionTable) check(test *testing.T) {
	var bytes uint64
	n := 0
	var before *keptResult
	for k := t.oldest; k != nil; k = k.after {
		require.Same(test, k, t.results[k.resultKey])
		require.True(test, before == k.before)
		require.NotNil(test, t.sessions[k.session])
		require.True(test, t.sessions[k.session].has(k.sequence))
		bytes += resultOverhead + uint64(len(k.result))
		before = k
		n++
	}
	require.True(test, before == t.newest)
	require.Len(test, t.results, n)
	require.Equal(test, bytes, t.bytes)
	require.LessOrEqual(test, t.bytes, t.limit)
	require.Len(test, t.expiry, len(t.sessions))
	for i, s := range t.expiry {
		require.Equal(test, i, s.at)
		require.Same(test, s, t.sessions[s.id])
		require.LessOrEqual(test, s.deadline, s.last+s.ttl)
		require.LessOrEqual(test, t.time, s.last+s.ttl, "it has expired")
	}
	for _, results := range []bool{true, false} {
		b := t.append(nil, results)
		again, err := decodeSessionTable(b)
		require.NoError(test, err)
		require.Equal(test, b, again.append(nil, results))
		require.Equal(test, t.append(nil, false), again.append(nil, false))
	}
}

// A session expires by the time that leaders have seen pass, and by no clock.
func TestSessionTime(t *testing.T) {
	const ttl = 1000
	table := newSessionTable()
	require.True(t, table.unused())
	require.Empty(t, table.append(nil, true))
	require.Zero(t, table.advance(1, 50_000)) // a leader whose clock is far ahead
	require.EqualValues(t, 7, table.open(7, ttl, 10, 1000))
	require.False(t, table.unused())
	for _, step := range []struct {
		boot, clock uint64
		expired     int
		time        uint64
	}{
		{1, 50_400, 0, 400},
		{1, 50_300, 0, 400}, // goes back: does not count
		{1, 50_500, 0, 500},
		{2, 9_000_000, 0, 500}, // another leader: what lies between them does not count
		{2, 9_000_500, 0, 1000},
		{1, 60_000, 0, 1000}, // the first one again
		{1, 60_000, 0, 1000},
		{1, 60_001, 1, 1001},
	} {
		require.Equal(t, step.expired, table.advance(step.boot, step.clock), "%+v", step)
		require.Equal(t, step.time, table.time, "%+v", step)
		table.check(t)
	}
	v, _ := table.apply(request(7, 1, 1), "")
	require.Equal(t, requestExpired, v)
	// One that is used lives on.
	table.open(8, ttl, 10, 1000)
	table.open(9, 10*ttl, 10, 1000)
	for i := range uint64(50) {
		v, _ = table.apply(request(8, i+1, i+1), "")
		require.Equal(t, requestNew, v)
		require.LessOrEqual(t, table.advance(1, 60_001+ttl*(i+1)), 1)
		require.NotNil(t, table.sessions[8])
		table.check(t)
	}
	require.Nil(t, table.sessions[9])
	require.Equal(t, 1, table.advance(1, 1<<63)) // as far as time goes
	table.advance(1, 1<<64-1)
	table.check(t)
}

func TestSessionIDs(t *testing.T) {
	table := newSessionTable()
	table.advance(1, 0)
	require.EqualValues(t, 5, table.open(5, 1, 4, 0))
	require.EqualValues(t, 6, table.open(5, 1, 4, 0), "an ID that is taken")
	require.Equal(t, uint64(1<<64-1), table.open(1<<64-1, 1, 4, 0))
	require.EqualValues(t, 1, table.open(1<<64-1, 1, 4, 0), "0 is none")
	require.Zero(t, table.open(77, 1, 4, 0), "too many")
	table.close(5)
	table.close(5)
	require.EqualValues(t, 77, table.open(77, 1, 4, 0))
	table.check(t)
}

// A table does what a simpler one does that forgets nothing, also when it is encoded and
// decoded in between.
func TestSessionTableModel(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		type model struct {
			floor   uint64
			applied map[uint64]string
		}
		table, sessions := newSessionTable(), make(map[uint64]*model)
		limit := uint64(200) << r.IntN(9)
		lost, repeated, clock := 0, 0, uint64(0)
		for step := range 600 {
			clock += r.Uint64N(3)
			table.advance(seed+1, clock)
			id := 1 + r.Uint64N(4)
			m := sessions[id]
			switch r.IntN(30) {
			case 0:
				if m == nil {
					require.Equal(t, id, table.open(id, 1<<40, 10, limit))
					sessions[id] = &model{floor: 1, applied: make(map[uint64]string)}
				}
				continue
			case 1:
				if r.IntN(4) == 0 {
					table.close(id)
					delete(sessions, id)
				}
				continue
			case 2:
				var err error
				table, err = decodeSessionTable(table.append(nil, true))
				require.NoError(t, err)
			}
			q := request(id, 1+r.Uint64N(60), 1)
			if m != nil {
				q.Sequence = max(1, m.floor+r.Uint64N(40)-min(m.floor, r.Uint64N(4)))
				q.Floor = q.Sequence - min(q.Sequence-1, r.Uint64N(40))
				if r.IntN(20) == 0 {
					q.Sequence += r.Uint64N(3000)
					q.Floor = q.Sequence - min(q.Sequence-1, r.Uint64N(synod.SessionWindow))
				}
			}
			require.NoError(t, checkRequest(&q))
			result := fmt.Sprint("result of step ", step)
			v, have := table.apply(q, result)
			switch {
			case m == nil:
				require.Equal(t, requestExpired, v)
			default:
				m.floor = max(m.floor, q.Floor)
				first, applied := m.applied[q.Sequence]
				switch {
				case q.Sequence < m.floor:
					require.Equal(t, requestStale, v)
				case !applied:
					require.Equal(t, requestNew, v)
					m.applied[q.Sequence] = result
				case v == requestLost:
					lost++
				default:
					require.Equal(t, requestRepeated, v)
					require.Equal(t, first, have)
					repeated++
				}
			}
			table.check(t)
		}
		if limit > 25_000 {
			require.Zero(t, lost, "seed %d: a result was lost without need", seed)
		}
		require.Positive(t, lost+repeated)
	}
}

// What is remembered is bounded, whatever the clients do.
func TestSessionTableSize(t *testing.T) {
	const sessions, limit = 20, 10_000
	table := newSessionTable()
	table.advance(1, 0)
	for id := range uint64(sessions + 5) {
		table.open(id+1, 1<<40, sessions, limit)
	}
	for n := range uint64(3 * synod.SessionWindow) {
		for id := range uint64(sessions) {
			floor := n + 1 - min(n, synod.SessionWindow-1)
			v, _ := table.apply(request(id+1, n+1, floor), string(make([]byte, n%200)))
			require.Equal(t, requestNew, v)
		}
	}
	table.check(t)
	require.Len(t, table.sessions, sessions)
	require.LessOrEqual(t, len(table.results), limit/resultOverhead)
	require.Less(t, len(table.append(nil, true)), limit+sessions*(synod.SessionWindow/8+40)+50)
	v, _ := table.apply(request(1, 3*synod.SessionWindow, 1), "")
	require.Equal(t, requestRepeated, v)
	v, _ = table.apply(request(1, 2*synod.SessionWindow+1, 1), "")
	require.Equal(t, requestLost, v)
	v, _ = table.apply(request(1, 2*synod.SessionWindow, 1), "")
	require.Equal(t, requestStale, v)
	for id := range table.sessions {
		table.close(id)
	}
	table.check(t)
	require.Empty(t, table.results)
}

// Results come back as they were, nil too.
func TestSessionResults(t *testing.T) {
	table := newSessionTable()
	table.advance(1, 0)
	table.open(1, 1000, 1, 10_000)
	for n, result := range [][]byte{nil, {}, []byte("x")} {
		_, k := table.request(request(1, uint64(n+1), 1))
		table.keep(k, result)
	}
	table, err := decodeSessionTable(table.append(nil, true))
	require.NoError(t, err)
	for n, want := range [][]byte{nil, {}, []byte("x")} {
		v, k := table.request(request(1, uint64(n+1), 1))
		require.Equal(t, requestRepeated, v)
		require.Equal(t, want, k.result)
	}
	// One that its client has no use for any more when it comes.
	_, k := table.request(request(1, 10, 4))
	v, again := table.request(request(1, 10, 4))
	require.Equal(t, requestRepeated, v)
	require.True(t, again.waiting)
	table.close(1)
	table.keep(k, []byte("late"))
	table.check(t)
	require.Zero(t, table.bytes)
}

func BenchmarkSessionRequest(b *testing.B) {
	table := newSessionTable()
	table.advance(1, 0)
	table.open(1, 1<<40, 1, 1<<20)
	result := make([]byte, 16)
	n := uint64(0)
	for b.Loop() {
		n++
		_, k := table.request(request(1, n, n-min(n-1, 64)))
		table.keep(k, result)
	}
}

// What a snapshot's capture costs for many sessions.
func BenchmarkSessionTableAppend(b *testing.B) {
	table := newSessionTable()
	table.advance(1, 0)
	for id := range uint64(10_000) {
		table.open(id<<32+1, 1<<40, 1<<20, 1<<30)
		for n := range uint64(8) {
			table.apply(request(id<<32+1, n+1, 1), "a result of some bytes")
		}
	}
	var size int
	for b.Loop() {
		size = len(table.append(nil, true))
	}
	b.ReportMetric(float64(size), "bytes")
}
