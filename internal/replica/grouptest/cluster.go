package grouptest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage/memory"
)

const (
	clusterName = "grouptest"
	heartbeat   = slower * 20 * time.Millisecond
	election    = 10 * heartbeat

	// patience is how long a test waits for what must happen, on a machine that does much else.
	patience = slower * 2 * time.Minute

	// attempt bounds a call that may have gone to the wrong node.
	attempt = 5 * election
)

// cluster is the nodes of a test, with all that they stand on.
type cluster struct {
	*testing.T
	engine  Engine
	network *network
	ctx     context.Context
	options options
	history history
	log     lastLines // of all nodes: printed if the test fails

	mu           sync.Mutex
	members      map[uint64]*member // those that run
	disks        map[uint64]*disk
	machineDisks map[link]*machineDisk // by node and group
	names        atomic.Uint64
}

// options say how a cluster is made.
type options struct {
	size    uint64 // nodes; default: 3
	spare   uint64 // nodes that are no members at first, above the others; none of them is started
	groups  uint64 // groups on each of them; default: 1
	kind    kind
	config  func(*replica.Settings)
	group   func(*replica.GroupConfig)
	machine func(node, group uint64, m *machine)
	stopped bool // start no node yet
}

// member is a node that runs.
type member struct {
	id       uint64
	cluster  *cluster
	node     Node
	disk     *disk
	endpoint *endpoint
	events   eventLog
	reader   chan struct{} // closed when the events have ended

	mu       sync.Mutex
	groups   map[uint64]Group
	machines map[uint64]*machine
}

func newCluster(t *testing.T, engine Engine, o options) *cluster {
	if o.size == 0 {
		o.size = 3
	}
	if o.groups == 0 {
		o.groups = 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	c := &cluster{
		T:            t,
		engine:       engine,
		network:      newNetwork(o.size + o.spare + 1), // one more, for strangers
		ctx:          ctx,
		options:      o,
		members:      make(map[uint64]*member),
		disks:        make(map[uint64]*disk),
		machineDisks: make(map[link]*machineDisk),
	}
	c.history.init()
	t.Cleanup(func() {
		if t.Failed() {
			c.describe()
		}
		for _, m := range c.running() {
			c.stop(m.id)
		}
		cancel()
	})
	if !o.stopped {
		for id := uint64(1); id <= o.size; id++ {
			c.start(id)
		}
	}
	return c
}

// lastLines keeps the end of what is written to it.
type lastLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *lastLines) Write(b []byte) (int, error) {
	const most = 200
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == 2*most {
		l.lines = slices.Delete(l.lines, 0, most)
	}
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "")
}

// ids returns the IDs of the members.
func (c *cluster) ids() []uint64 {
	ids := make([]uint64, c.options.size)
	for i := range ids {
		ids[i] = uint64(i + 1)
	}
	return ids
}

// start starts a node with all its groups, from its disk, which it makes if there
// is none.
func (c *cluster) start(id uint64) *member {
	c.Helper()
	m, err := c.open(id, nil)
	require.NoError(c, err)
	for group := uint64(1); group <= c.options.groups; group++ {
		err := m.node.Bootstrap(c.ctx, group, c.ids())
		if !errors.Is(err, replica.ErrBootstrapped) {
			require.NoError(c, err)
		}
		require.NoError(c, m.startGroup(group))
	}
	return m
}

// join starts a node that is to become a member of all groups.
func (c *cluster) join(id uint64) *member {
	c.Helper()
	m, err := c.open(id, nil)
	require.NoError(c, err)
	for group := uint64(1); group <= c.options.groups; group++ {
		require.NoError(c, m.node.Join(c.ctx, group))
		require.NoError(c, m.startGroup(group))
	}
	return m
}

// restart starts a node that was a member before, from its disk.
func (c *cluster) restart(id uint64) *member {
	c.Helper()
	m, err := c.open(id, nil)
	require.NoError(c, err)
	for group := uint64(1); group <= c.options.groups; group++ {
		require.NoError(c, m.startGroup(group))
	}
	return m
}

// open starts a node without groups.
func (c *cluster) open(id uint64, change func(*replica.Settings)) (*member, error) {
	c.mu.Lock()
	d := c.disks[id]
	if d == nil {
		d = newDisk(memory.Open(memory.Config{}))
		c.disks[id] = d
	}
	c.mu.Unlock()
	m, err := c.openOn(id, d, change)
	if err == nil {
		c.mu.Lock()
		c.members[id] = m
		c.mu.Unlock()
	}
	return m, err
}

// openOn starts a node on a disk that may not be the cluster's.
func (c *cluster) openOn(id uint64, d *disk, change func(*replica.Settings)) (*member, error) {
	m := &member{id: id, cluster: c, disk: d, endpoint: c.network.open(id), reader: make(chan struct{}),
		groups: make(map[uint64]Group), machines: make(map[uint64]*machine)}
	m.events.changed = make(chan struct{})
	cfg := replica.Settings{Cluster: clusterName, Node: id, Transport: m.endpoint, Store: d,
		HeartbeatInterval: heartbeat, ElectionTimeout: election, Loops: 2,
		Logger: slog.New(slog.NewTextHandler(&c.log, nil)).With("at", id)}
	if c.options.config != nil {
		c.options.config(&cfg)
	}
	if change != nil {
		change(&cfg)
	}
	node, err := c.engine.Start(c.ctx, cfg)
	if err != nil {
		_ = m.endpoint.Close()
		return nil, err
	}
	m.node = node
	seq := node.Events(context.Background())
	go func() {
		defer close(m.reader)
		for e := range seq {
			m.events.add(e)
		}
	}()
	return m, nil
}

// startGroup starts a group with a new state machine.
func (m *member) startGroup(group uint64) error {
	c := m.cluster
	machine, sm := c.newMachine(m.id, group)
	return m.startGroupOn(group, machine, sm)
}

func (m *member) startGroupOn(group uint64, machine *machine, sm synod.StateMachine) error {
	cfg := replica.GroupConfig{ID: group, StateMachine: sm}
	if fn := m.cluster.options.group; fn != nil {
		fn(&cfg)
	}
	g, err := m.node.StartGroup(m.cluster.ctx, cfg)
	if err != nil {
		machine.close()
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.groups[group], m.machines[group] = g, machine
	return nil
}

func (c *cluster) newMachine(node, group uint64) (*machine, synod.StateMachine) {
	m := newMachine(fmt.Sprintf("node %d, group %d", node, group), c.Errorf)
	var sm synod.StateMachine = m
	switch c.options.kind {
	case batched:
		sm = batchMachine{m}
	case durable:
		c.mu.Lock()
		d := c.machineDisks[link{node, group}]
		if d == nil {
			d = &machineDisk{}
			c.machineDisks[link{node, group}] = d
		}
		c.mu.Unlock()
		m.disk = d
		m.commands = slices.Clone(d.load())
		sm = durableMachine{m}
	}
	if c.options.machine != nil {
		c.options.machine(node, group, m)
	}
	return m, sm
}

func (m *member) group(id uint64) Group {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.groups[id]
}

func (m *member) machine(id uint64) *machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.machines[id]
}

// closeGroup closes a group; its state machine must not be used from then on.
func (m *member) closeGroup(id uint64) error {
	m.mu.Lock()
	g, machine := m.groups[id], m.machines[id]
	delete(m.groups, id)
	delete(m.machines, id)
	m.mu.Unlock()
	err := g.Close()
	machine.close()
	return err
}

// close closes the node, and sees that it uses nothing any more.
func (m *member) close() {
	c := m.cluster
	if err := m.node.Close(); err != nil {
		c.Errorf("close node %d: %v", m.id, err)
	}
	m.endpoint.complain(func(what string) { c.Errorf("node %d: %s after Close", m.id, what) })
	for _, machine := range m.machines {
		machine.close()
	}
	<-m.reader
	_ = m.endpoint.Close()
}

// running returns the members that run, ascending.
func (c *cluster) running() []*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []*member
	for id := uint64(0); id <= c.network.size; id++ {
		if m := c.members[id]; m != nil {
			list = append(list, m)
		}
	}
	return list
}

// others returns the members that run, but for one.
func (c *cluster) others(m *member) []*member {
	return slices.DeleteFunc(c.running(), func(o *member) bool { return o == m })
}

func (c *cluster) member(id uint64) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members[id]
}

func (c *cluster) forget(id uint64) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.members[id]
	delete(c.members, id)
	return m
}

// stop closes nodes in good order.
func (c *cluster) stop(ids ...uint64) {
	for _, id := range ids {
		m := c.forget(id)
		m.disk.ReleaseSync()
		m.close()
	}
}

// crash ends nodes as the end of their processes and machines would: what they had
// not made durable is lost.
func (c *cluster) crash(ids ...uint64) { c.kill(ids...)() }

// kill is crash, but for what closes the nodes, which it returns: after it nothing
// that they do counts.
func (c *cluster) kill(ids ...uint64) (bury func()) {
	members := make([]*member, len(ids))
	for i, id := range ids {
		members[i] = c.forget(id)
		members[i].endpoint.detach()
	}
	for _, m := range members {
		rest := m.disk.crash()
		c.mu.Lock()
		c.disks[m.id] = rest
		// A machine's disk is written to by whoever applies until it is closed.
		for group := range m.machines {
			link := link{m.id, group}
			if d := c.machineDisks[link]; d != nil {
				c.machineDisks[link] = &machineDisk{commands: d.load()}
			}
		}
		c.mu.Unlock()
	}
	return func() {
		for _, m := range members {
			m.close()
		}
	}
}

// leader waits until a node leads a group, and returns it. It may lose its office at
// any time.
func (c *cluster) leader(group uint64, among ...*member) *member {
	c.Helper()
	for {
		list := among
		if len(list) == 0 {
			list = c.running()
		}
		for _, m := range list {
			g := m.group(group)
			if g == nil || g.Status().Leader != m.id {
				continue
			}
			if barrier(c.ctx, g) == nil && g.Status().Leader == m.id {
				return m
			}
		}
		require.NoError(c, c.ctx.Err(), "nobody leads group %d", group)
		c.waitForLeader(group, list)
	}
}

// waitForLeader waits for something to change about who leads.
func (c *cluster) waitForLeader(group uint64, list []*member) {
	for _, m := range list {
		if g := m.group(group); g != nil && barrier(c.ctx, g) == nil {
			return
		}
	}
}

// barrier is a Barrier for an attempt.
func barrier(ctx context.Context, g Group) error {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	return g.Barrier(ctx)
}

// newCommand returns a command that nobody proposed before.
func (c *cluster) newCommand(group uint64) string {
	return fmt.Sprintf("g%d c%d", group, c.names.Add(1))
}

// propose proposes on one node, and notes in the history what came of it.
func (c *cluster) propose(ctx context.Context, m *member, group uint64, command string) (uint64, error) {
	g := m.group(group)
	if g == nil {
		return 0, synod.ErrClosed
	}
	answer, err := g.Propose(ctx, []byte(command))
	return c.history.record(c.T, command, answer, err), err
}

// write proposes new commands until one is acknowledged, wherever the leader is, and
// returns its index.
func (c *cluster) write(group uint64, among ...*member) uint64 {
	index, err := c.tryWrite(c.ctx, group, among...)
	require.NoError(c, err)
	return index
}

func (c *cluster) tryWrite(ctx context.Context, group uint64, among ...*member) (uint64, error) {
	var hint uint64
	var last error
	for i := 0; ; i++ {
		list := among
		if len(list) == 0 {
			list = c.running()
		}
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("group %d: no write was acknowledged: %w; the last one: %w", group, err, last)
		}
		if len(list) == 0 {
			return 0, fmt.Errorf("group %d: no node runs", group)
		}
		m := list[i%len(list)]
		for _, o := range list {
			if o.id == hint {
				m = o
			}
		}
		hint = 0
		one, cancel := context.WithTimeout(ctx, attempt)
		index, err := c.propose(one, m, group, c.newCommand(group))
		cancel()
		if err == nil {
			return index, nil
		}
		last = err
		var elsewhere *synod.NotLeaderError
		if errors.As(err, &elsewhere) && elsewhere.Leader != 0 && elsewhere.Leader != m.id {
			hint = elsewhere.Leader
		} else {
			c.waitForLeader(group, []*member{list[(i+1)%len(list)]})
		}
	}
}

// writes makes writes by several callers at once and returns the highest index.
func (c *cluster) writes(group uint64, callers, each int, among ...*member) uint64 {
	c.Helper()
	var highest atomic.Uint64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				index, err := c.tryWrite(c.ctx, group, among...)
				if err != nil {
					c.Error(err)
					return
				}
				for have := highest.Load(); index > have && !highest.CompareAndSwap(have, index); have = highest.Load() {
				}
			}
		})
	}
	wg.Wait()
	require.False(c, c.Failed())
	return highest.Load()
}

// check waits until all members that run have the same state, and holds the history
// against it.
func (c *cluster) check(group uint64) {
	c.Helper()
	var live []*member
	for _, m := range c.running() {
		if g := m.group(group); g != nil && g.Err() == nil {
			live = append(live, m)
		}
	}
	require.NotEmpty(c, live)
	end := c.write(group, live...)
	var states [][]string
	for _, m := range live {
		require.NoError(c, m.machine(group).await(c.ctx, end))
		states = append(states, m.machine(group).state())
	}
	for i, m := range live {
		require.Equal(c, states[0][:end], states[i][:end], "nodes %d and %d differ", live[0].id, m.id)
		c.history.check(c.T, group, m.id, states[i])
	}
}

// history is what the callers were told.
type history struct {
	mu           sync.Mutex
	acknowledged map[string]uint64
	never        map[string]error
	unknown      map[string]error
}

func (h *history) init() {
	h.acknowledged = make(map[string]uint64)
	h.never = make(map[string]error)
	h.unknown = make(map[string]error)
}

// record notes the answer to a proposal and returns its index.
func (h *history) record(t *testing.T, command string, answer []byte, err error) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case errors.Is(err, synod.ErrUnknownOutcome):
		h.unknown[command] = err
		return 0
	case err != nil:
		h.never[command] = err
		return 0
	}
	var index uint64
	number, rest, _ := strings.Cut(string(answer), " ")
	if _, err := fmt.Sscan(number, &index); err != nil || rest != digest([]byte(command)) {
		t.Errorf("%q was answered by the result %q of another command", command, answer)
	}
	h.acknowledged[command] = index
	return index
}

// counts returns how many commands had each outcome.
func (h *history) counts() (acknowledged, never, unknown int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.acknowledged), len(h.never), len(h.unknown)
}

// check holds a node's state against what callers were told.
func (h *history) check(t *testing.T, group, node uint64, state []string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	prefix := fmt.Sprintf("g%d ", group)
	mine := func(command string) bool { return strings.HasPrefix(command, prefix) }
	count := make(map[string]int)
	for _, command := range state {
		count[command]++
	}
	for command, index := range h.acknowledged {
		if !mine(command) {
			continue
		}
		if index > uint64(len(state)) || state[index-1] != digest([]byte(command)) {
			t.Errorf("node %d: %q was acknowledged at index %d and is lost", node, command, index)
		}
		if n := count[digest([]byte(command))]; n != 1 {
			t.Errorf("node %d: %q was acknowledged and applied %d times", node, command, n)
		}
	}
	for command, err := range h.never {
		if mine(command) && count[digest([]byte(command))] != 0 {
			t.Errorf("node %d: %q was applied, but its caller was told that it was not: %v", node, command, err)
		}
	}
	for command, err := range h.unknown {
		if n := count[digest([]byte(command))]; mine(command) && n > 1 {
			t.Errorf("node %d: %q was applied %d times (%v)", node, command, n, err)
		}
	}
}

// eventLog keeps a node's events.
type eventLog struct {
	mu      sync.Mutex
	list    []synod.Event
	changed chan struct{}
}

func (l *eventLog) add(e synod.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, e)
	close(l.changed)
	l.changed = make(chan struct{})
}

// now returns a position in the log: await looks from there on.
func (l *eventLog) now() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.list)
}

// all returns the events from a position on.
func (l *eventLog) all(from int) []synod.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list[from:])
}

// await waits for an event from a position on.
func (m *member) await(from int, what string, ok func(synod.Event) bool) synod.Event {
	m.cluster.Helper()
	l := &m.events
	for {
		l.mu.Lock()
		list, changed := l.list[from:], l.changed
		l.mu.Unlock()
		for _, e := range list {
			if ok(e) {
				return e
			}
		}
		from += len(list)
		select {
		case <-changed:
		case <-m.cluster.ctx.Done():
			require.FailNow(m.cluster, fmt.Sprintf("node %d: no event: %s", m.id, what), "%v", l.all(0))
		}
	}
}

// awaitKind waits for an event of one kind of a group.
func (m *member) awaitKind(from int, kind synod.EventKind, group uint64) synod.Event {
	m.cluster.Helper()
	return m.await(from, kind.String(), func(e synod.Event) bool { return e.Kind == kind && e.Group == group })
}

// receive waits for a value, or for the end of a channel.
func receive[T any](c *cluster, from <-chan T, what string) T {
	c.Helper()
	select {
	case v := <-from:
		return v
	case <-c.ctx.Done():
		require.FailNow(c, "still waiting: "+what)
	}
	panic("not reached")
}

// describe logs what the members say of themselves.
func (c *cluster) describe() {
	for _, m := range c.running() {
		for _, s := range m.node.Status().Groups {
			c.Logf("node %d: %+v", m.id, s)
		}
		c.Logf("node %d: %v", m.id, m.events.all(0))
	}
	c.Logf("the last lines of the logs:\n%s", c.log.String())
}

// background runs a call and returns where its error arrives.
func background(fn func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	return done
}

// eventually repeats what may fail when the leader changes in the middle of it.
func (c *cluster) eventually(what string, fn func() bool) {
	c.Helper()
	for !fn() {
		require.NoError(c, c.ctx.Err(), what)
	}
}

// contextFor returns a context that ends with the test's, or before.
func contextFor(c *cluster, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.ctx, d)
}
