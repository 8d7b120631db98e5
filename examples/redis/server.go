package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/synod-go/synod"
)

// server answers the Redis protocol with what a node has.
type server struct {
	node     *node
	listener net.Listener
	began    time.Time

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	last  int64 // ID of a client
	done  sync.WaitGroup
}

// maxConns is how many clients there may be at one time, as in Redis.
const maxConns = 10_000

func serve(n *node, l net.Listener) *server {
	s := &server{node: n, listener: l, began: time.Now(), conns: make(map[net.Conn]struct{})}
	s.done.Go(s.accept)
	return s
}

func (s *server) accept() {
	for {
		c, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many open files, say: others may go
			time.Sleep(10 * time.Millisecond)
			continue
		}
		s.mu.Lock()
		full := len(s.conns) >= maxConns
		if !full {
			s.conns[c] = struct{}{}
			s.last++
		}
		id := s.last
		s.mu.Unlock()
		if full {
			_, _ = c.Write(appendError(nil, "ERR max number of clients reached"))
			_ = c.Close()
			continue
		}
		s.done.Go(func() {
			(&client{server: s, node: s.node, conn: c, in: newReader(c), id: id}).run()
			_ = c.Close()
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.conns, c)
		})
	}
}

func (s *server) close() error {
	err := s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.done.Wait()
	return err
}

// client is one connection.
type client struct {
	server *server
	node   *node
	conn   net.Conn
	in     *reader
	out    []byte

	// What has arrived and is not executed: writes, or reads, never both.
	writes  [][][]byte
	reads   [][][]byte
	pending int // bytes of them

	id   int64
	name []byte

	multi   [][][]byte        // nil: not in a transaction
	failed  bool              // a command of it was refused
	watch   map[string]uint64 // versions of keys
	watched int               // bytes of the keys
	quit    bool
	broken  bool // what the client sends has no meaning any more
}

// Limits of what is executed together.
const (
	maxTogether      = 1 << 10
	maxTogetherBytes = 1 << 20
	maxWatched       = 1 << 20 // bytes of the keys that a connection watches
	idleTimeout      = time.Hour
	writeTimeout     = time.Minute
	lingering        = time.Second
)

// run answers commands until the connection ends. All that has arrived is taken up at once:
// writes that follow each other go into the log together, reads that do share a barrier.
func (c *client) run() {
	for !c.quit {
		_ = c.conn.SetReadDeadline(time.Now().Add(idleTimeout))
		args, err := c.in.command()
		var wrong protocolError
		var large sizeError
		switch {
		case errors.As(err, &large):
			c.flush()
			c.refuse(large.Error())
		case errors.As(err, &wrong):
			c.flush()
			c.out = appendError(c.out, "ERR "+wrong.Error())
			c.quit, c.broken = true, true
		case err != nil:
			c.flush() // what was sent before is executed
			c.send()
			return
		case len(args) > 0:
			c.take(args)
		}
		if !c.in.buffered() || c.quit {
			c.flush()
		}
		if (!c.in.buffered() || len(c.out) > maxTogetherBytes || c.quit) && !c.send() {
			return
		}
	}
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok && c.broken {
		// A connection that is closed while its client sends may lose what was answered.
		_ = half.CloseWrite()
		_ = c.conn.SetReadDeadline(time.Now().Add(lingering))
		_, _ = io.CopyN(io.Discard, c.conn, maxTogetherBytes)
	}
}

func (c *client) send() bool {
	if len(c.out) == 0 {
		return true
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := c.conn.Write(c.out)
	if c.out = c.out[:0]; cap(c.out) > maxTogetherBytes {
		c.out = nil
	}
	return err == nil
}

// take takes up one command.
func (c *client) take(args [][]byte) {
	name := upper(args[0])
	if run := connection[string(name)]; run != nil {
		c.flush()
		if c.multi == nil || immediate[string(name)] {
			run(c, args)
		} else {
			c.answer(run, args)
		}
		return
	}
	known := commands[string(name)]
	problem := ""
	switch {
	case known == nil:
		problem = unknownCommand(args)
	case !known.arity(len(args)):
		problem = wrongArity(args[0])
	}
	if problem != "" {
		c.flush()
		c.refuse(problem)
		return
	}
	if c.multi != nil {
		c.queue(args)
		return
	}
	if known.write && len(c.reads) > 0 || !known.write && len(c.writes) > 0 || len(c.reads)+len(c.writes) >= maxTogether || c.pending >= maxTogetherBytes {
		c.flush()
	}
	c.pending += size(args)
	if known.write {
		c.writes = append(c.writes, args)
	} else {
		c.reads = append(c.reads, args)
	}
}

// queue takes a command into the transaction.
func (c *client) queue(args [][]byte) {
	if c.pending += size(args); c.pending > maxSize || len(c.multi) >= maxArgs {
		c.refuse("ERR the transaction is too large")
		return
	}
	c.multi = append(c.multi, args)
	c.out = appendSimple(c.out, "QUEUED")
}

// answer takes a command that the store does not know into the transaction: its answer is found out now.
func (c *client) answer(run func(*client, [][]byte), args [][]byte) {
	out, failed := c.out, c.failed
	c.out, c.failed = nil, false
	run(c, args)
	reply, refused := c.out, c.failed
	if c.out, c.failed = out, failed || refused; refused {
		c.out = append(c.out, reply...)
		return
	}
	c.queue(answered(reply))
}

func size(args [][]byte) (n int) {
	for _, a := range args {
		n += len(a) + 8
	}
	return n
}

// refuse answers a command that is not executed. A transaction with one is not, either.
func (c *client) refuse(problem string) {
	c.out = appendError(c.out, problem)
	c.failed = c.failed || c.multi != nil
}

// flush executes what was taken up.
func (c *client) flush() {
	switch {
	case len(c.writes) > 0:
		writes := c.writes
		c.write(&request{commands: writes}, len(writes))
	case len(c.reads) > 0:
		if err := c.barrier(); err != nil {
			for range c.reads {
				c.out = appendError(c.out, explain(err))
			}
		} else {
			for _, args := range c.reads {
				if c.out = c.node.store.read(args, c.out); len(c.out) > maxTogetherBytes && !c.send() {
					c.quit = true
					break
				}
			}
		}
	}
	c.writes, c.reads = c.writes[:0], c.reads[:0]
	if c.multi == nil {
		c.pending = 0
	}
}

// write executes a request, and appends as many replies.
func (c *client) write(r *request, replies int) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	result, err := c.node.propose(ctx, r.encode())
	if err == nil {
		c.out = append(c.out, result...)
		return
	}
	for range replies {
		c.out = appendError(c.out, explain(err))
	}
}

// barrier waits until what is read here is what a read anywhere must see.
func (c *client) barrier() error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return c.node.log.Barrier(ctx)
}

// explain says what became of a request, in words that begin with what a client can tell apart:
// UNKNOWN for one that may have been executed or not, TRYAGAIN for one that certainly was not, and
// would be later.
func explain(err error) string {
	var failed *synod.FailedError
	var told replyError
	switch {
	case errors.Is(err, synod.ErrResultLost):
		return "UNKNOWN the command was executed, and its reply is lost"
	case errors.Is(err, synod.ErrUnknownOutcome):
		return "UNKNOWN the command may or may not have been executed: " + err.Error()
	case errors.Is(err, synod.ErrRemoved):
		return "CLUSTERDOWN this node is not a member any more"
	case errors.As(err, &failed):
		return "CLUSTERDOWN this node has stopped: " + err.Error()
	case errors.Is(err, synod.ErrTooLarge):
		return "ERR " + err.Error()
	case errors.As(err, &told):
		return string(told)
	case errors.Is(err, errIncarnation):
		return "MEMBER " + err.Error()
	case errors.As(err, new(*synod.ConfigError)):
		return "ERR " + err.Error()
	}
	return "TRYAGAIN not executed: " + err.Error()
}

// replyError is an error in the words in which a client is told.
type replyError string

// Error implements error.
func (e replyError) Error() string { return string(e) }

// connection are the commands that are about the connection, or the cluster; immediate those that are
// executed in the middle of a transaction.
var (
	connection = newConnectionCommands()
	immediate  = map[string]bool{"MULTI": true, "EXEC": true, "DISCARD": true, "WATCH": true, "QUIT": true, "RESET": true}
)

// problem answers a command that was executed with an error.
func (c *client) problem(text string) { c.out = appendError(c.out, text) }

// exact wraps a command with an arity.
func exact(from, to int, run func(c *client, args [][]byte)) func(*client, [][]byte) {
	return func(c *client, args [][]byte) {
		if len(args) < from || to > 0 && len(args) > to {
			c.refuse(wrongArity(args[0]))
			return
		}
		run(c, args)
	}
}

func reply(b []byte) func(*client, [][]byte) {
	return func(c *client, _ [][]byte) { c.out = append(c.out, b...) }
}

func newConnectionCommands() map[string]func(c *client, args [][]byte) {
	ok := reply(appendOK(nil))
	return map[string]func(c *client, args [][]byte){
		"PING":    exact(1, 2, (*client).ping),
		"ECHO":    exact(2, 2, func(c *client, args [][]byte) { c.out = appendBulk(c.out, args[1]) }),
		"QUIT":    func(c *client, _ [][]byte) { c.out, c.quit = appendOK(c.out), true },
		"RESET":   exact(1, 1, (*client).reset),
		"SELECT":  exact(2, 2, (*client).selectDB),
		"HELLO":   (*client).hello,
		"AUTH":    exact(2, 3, func(c *client, _ [][]byte) { c.problem(errAuth) }),
		"CLIENT":  exact(2, 0, (*client).client),
		"COMMAND": (*client).command,
		"CONFIG":  exact(2, 0, (*client).config),
		"INFO":    (*client).info,
		"MULTI":   exact(1, 1, (*client).begin),
		"EXEC":    exact(1, 1, (*client).exec),
		"DISCARD": exact(1, 1, (*client).discard),
		"WATCH":   exact(2, 0, (*client).watchKeys),
		"UNWATCH": exact(1, 1, func(c *client, args [][]byte) {
			if c.multi == nil { // or it comes after the watched keys were looked at
				c.unwatch()
			}
			ok(c, args)
		}),
		"SYNOD": exact(2, 0, (*client).synod),
	}
}

func (c *client) ping(args [][]byte) {
	if len(args) == 2 {
		c.out = appendBulk(c.out, args[1])
		return
	}
	c.out = appendSimple(c.out, "PONG")
}

func (c *client) reset([][]byte) {
	c.multi, c.failed, c.name = nil, false, nil
	c.unwatch()
	c.out = appendSimple(c.out, "RESET")
}

func (c *client) unwatch() { c.watch, c.watched = nil, 0 }

func (c *client) selectDB(args [][]byte) {
	switch n, ok := number(args[1]); {
	case !ok:
		c.problem(errInteger)
	case n != 0:
		c.problem("ERR DB index is out of range")
	default:
		c.out = appendOK(c.out)
	}
}

const errAuth = "ERR AUTH called without any password configured: this server has none"

func (c *client) hello(args [][]byte) {
	if len(args) > 1 {
		switch n, ok := number(args[1]); {
		case !ok:
			c.problem("ERR Protocol version is not an integer or out of range")
			return
		case n != 2:
			c.problem("NOPROTO unsupported protocol version")
			return
		}
	}
	for i := 2; i < len(args); i++ {
		switch option := string(upper(args[i])); {
		case option == "AUTH" && i+2 < len(args):
			c.problem(errAuth)
			return
		case option == "SETNAME" && i+1 < len(args):
			if i++; !c.setName(args[i]) {
				return
			}
		default:
			c.problem("ERR Syntax error in HELLO option '" + clip(args[i], 128) + "'")
			return
		}
	}
	role := "replica"
	if s := c.node.log.Status(); s.Leader == c.node.id {
		role = "master"
	}
	c.out = appendArray(c.out, 14)
	for _, p := range [][2]string{{"server", "synod"}, {"version", "7.0.0"}, {"proto", ""}, {"id", ""}, {"mode", "standalone"}, {"role", role}} {
		c.out = appendBulk(c.out, []byte(p[0]))
		switch p[0] {
		case "proto":
			c.out = appendInt(c.out, 2)
		case "id":
			c.out = appendInt(c.out, c.id)
		default:
			c.out = appendBulk(c.out, []byte(p[1]))
		}
	}
	c.out = appendArray(appendBulk(c.out, []byte("modules")), 0)
}

// setName names the connection, or answers why it can't.
func (c *client) setName(name []byte) bool {
	if slices.ContainsFunc(name, func(b byte) bool { return b < '!' || b > '~' }) {
		c.problem("ERR Client names cannot contain spaces, newlines or special characters.")
		return false
	}
	c.name = name
	return true
}

// subcommand looks a subcommand up, and holds it to its arity, with the command's name.
func (c *client) subcommand(args [][]byte, arities map[string][2]int) (name string, ok bool) {
	name = string(upper(args[1]))
	arity, known := arities[name]
	switch {
	case !known:
		c.refuse("ERR unknown subcommand '" + clip(args[1], 128) + "'. Try " + string(upper(args[0])) + " HELP.")
	case len(args) < arity[0] || arity[1] > 0 && len(args) > arity[1]:
		c.refuse(wrongArity([]byte(clip(args[0], 64) + "|" + clip(args[1], 64))))
	default:
		return name, true
	}
	return "", false
}

func (c *client) client(args [][]byte) {
	name, ok := c.subcommand(args, map[string][2]int{"SETNAME": {3, 3}, "SETINFO": {4, 4}, "NO-EVICT": {3, 3}, "NO-TOUCH": {3, 3}, "GETNAME": {2, 2}, "ID": {2, 2}})
	switch {
	case !ok:
	case name == "ID":
		c.out = appendInt(c.out, c.id)
	case name == "GETNAME" && len(c.name) == 0:
		c.out = appendNull(c.out)
	case name == "GETNAME":
		c.out = appendBulk(c.out, c.name)
	case name != "SETNAME" || c.setName(args[2]):
		c.out = appendOK(c.out)
	}
}

func (c *client) command(args [][]byte) {
	if len(args) == 1 {
		c.out = appendArray(c.out, 0) // clients do without
		return
	}
	switch name, ok := c.subcommand(args, map[string][2]int{"COUNT": {2, 2}, "DOCS": {2, 0}, "INFO": {2, 0}, "LIST": {2, 2}}); {
	case !ok:
	case name == "COUNT":
		c.out = appendInt(c.out, int64(len(commands)))
	case name == "LIST":
		names := slices.Sorted(maps.Keys(commands))
		for i, name := range names {
			names[i] = strings.ToLower(name)
		}
		c.out = appendStrings(c.out, names)
	default:
		c.out = appendArray(c.out, 0)
	}
}

func (c *client) config(args [][]byte) {
	if _, ok := c.subcommand(args, map[string][2]int{"GET": {3, 0}}); !ok {
		return
	}
	var found []string
	for _, p := range [][2]string{{"appendfsync", "always"}, {"appendonly", "yes"}, {"databases", "1"}, {"save", ""}} {
		for _, pattern := range args[2:] {
			if matches(bytes.ToLower(pattern), []byte(p[0])) {
				found = append(found, p[0], p[1])
				break
			}
		}
	}
	c.out = appendStrings(c.out, found)
}

func (c *client) info(args [][]byte) {
	wanted := func(section string) bool {
		return len(args) == 1 || slices.ContainsFunc(args[1:], func(a []byte) bool {
			name := strings.ToLower(string(a))
			return name == section || name == "all" || name == "default" || name == "everything"
		})
	}
	var b strings.Builder
	if wanted("server") {
		fmt.Fprintf(&b, "# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\nuptime_in_seconds:%d\r\n", int(time.Since(c.server.began).Seconds()))
	}
	if wanted("replication") {
		s := c.node.log.Status()
		role := "slave"
		if s.Leader == c.node.id {
			role = "master"
		}
		fmt.Fprintf(&b, "# Replication\r\nrole:%s\r\nsynod_node:%d\r\nsynod_incarnation:%d\r\nsynod_leader:%d\r\nsynod_term:%d\r\nsynod_commit:%d\r\nsynod_applied:%d\r\nsynod_members:%v\r\n",
			role, c.node.id, c.node.incarnation, s.Leader, s.Term, s.Commit, s.Applied, s.Members)
	}
	c.out = appendBulk(c.out, []byte(b.String()))
}

func (c *client) begin([][]byte) {
	if c.multi != nil {
		c.problem("ERR MULTI calls can not be nested")
		return
	}
	c.multi, c.failed, c.pending = make([][][]byte, 0, 8), false, 0
	c.out = appendOK(c.out)
}

func (c *client) exec([][]byte) {
	queued, failed, watch := c.multi, c.failed, c.watch
	if queued == nil {
		c.problem("ERR EXEC without MULTI")
		return
	}
	c.multi, c.failed = nil, false
	c.unwatch()
	if failed {
		c.out = appendError(c.out, "EXECABORT Transaction discarded because of previous errors.")
		return
	}
	r := &request{transaction: true, commands: queued}
	for key, version := range watch {
		r.watched = append(r.watched, watched{key, version})
	}
	c.write(r, 1)
}

func (c *client) discard([][]byte) {
	if c.multi == nil {
		c.problem("ERR DISCARD without MULTI")
		return
	}
	c.multi, c.failed = nil, false
	c.unwatch()
	c.out = appendOK(c.out)
}

// watchKeys notes what keys there are now, which is what a barrier is for.
func (c *client) watchKeys(args [][]byte) {
	if c.multi != nil {
		c.problem("ERR WATCH inside MULTI is not allowed")
		return
	}
	if err := c.barrier(); err != nil {
		c.problem(explain(err))
		return
	}
	if c.watch == nil {
		c.watch = make(map[string]uint64)
	}
	for _, arg := range args[1:] {
		key := string(arg)
		if _, already := c.watch[key]; already {
			continue // as it was then
		}
		if c.watched += len(key) + 16; c.watched > maxWatched {
			c.unwatch()
			c.problem("ERR too many watched keys: none is watched any more")
			return
		}
		c.watch[key] = c.node.store.version(key)
	}
	c.out = appendOK(c.out)
}

// synod is what operators use: who are the members, and who is to be.
func (c *client) synod(args [][]byte) {
	if c.multi != nil {
		c.refuse("ERR SYNOD inside MULTI is not allowed")
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), changeTimeout)
	defer cancel()
	node := uint64(0)
	if len(args) > 2 {
		var err error
		if node, err = strconv.ParseUint(string(args[2]), 10, 64); err != nil || node == 0 {
			c.problem("ERR a node's ID is a number above 0")
			return
		}
	}
	ask := func(kind byte, payload []byte) {
		result, err := c.node.ask(ctx, kind, payload)
		if err != nil {
			c.out = appendError(c.out, explain(err))
			return
		}
		c.out = append(c.out, result...)
	}
	id := binary.LittleEndian.AppendUint64(nil, node)
	switch verb := string(upper(args[1])); {
	case verb == "MEMBERS" && len(args) == 2:
		members := c.node.log.Status().Configuration
		c.out = appendArray(c.out, len(members))
		for _, m := range members {
			role := "voter"
			if m.Learner {
				role = "learner"
			}
			c.out = appendStrings(c.out, []string{strconv.FormatUint(m.Node, 10), m.Address, role})
		}
	case verb == "LEADER" && len(args) == 2:
		c.out = appendInt(c.out, int64(c.node.log.Status().Leader))
	case verb == "TRANSFER" && len(args) == 3:
		ask(kindTransfer, id)
	case verb == "REMOVE" && len(args) == 3:
		ask(kindMembers, binary.LittleEndian.AppendUint64(id, 0))
	case verb == "JOIN" && len(args) == 6:
		incarnation, err := strconv.ParseUint(string(args[4]), 10, 64)
		switch {
		case err != nil || len(args[3]) == 0:
			c.problem("ERR SYNOD JOIN id address incarnation engine")
			return
		case string(args[5]) != c.node.engine: // nobody would listen to it, and nobody to us
			c.problem(fmt.Sprintf("MEMBER this cluster runs on %s, not on %s: use -engine %s, and an empty -dir", c.node.engine, clip(args[5], 32), c.node.engine))
			return
		}
		ask(kindMembers, append(binary.LittleEndian.AppendUint64(id, incarnation), args[3]...))
	default:
		c.problem("ERR SYNOD MEMBERS | LEADER | TRANSFER id | JOIN id address incarnation engine | REMOVE id")
	}
}

// join asks a member, by its Redis address, to make this node one.
func join(ctx context.Context, member string, n *node) error {
	var d net.Dialer
	for {
		err := func() error {
			conn, err := d.DialContext(ctx, "tcp", member)
			if err != nil {
				return err
			}
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			if _, err := fmt.Fprintf(conn, "SYNOD JOIN %d %s %d %s\r\n", n.id, n.address, n.incarnation, n.engine); err != nil {
				return err
			}
			line, err := newReader(conn).line()
			switch {
			case err != nil:
				return fmt.Errorf("%s does not answer: %w", member, err)
			case string(line) == "+OK":
				return nil
			case bytes.HasPrefix(line, []byte("-TRYAGAIN")), bytes.HasPrefix(line, []byte("-UNKNOWN")):
				return errors.New(string(line)) // asked again, it is the same
			}
			return &joinError{string(line)}
		}()
		var refused *joinError
		if err == nil || errors.As(err, &refused) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// joinError says that the cluster does not want a node.
type joinError struct{ reply string }

// Error implements error.
func (e *joinError) Error() string { return "the cluster refuses this node: " + e.reply }
