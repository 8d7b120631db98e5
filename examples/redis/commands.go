package main

import (
	"bytes"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// command is one that the store executes.
type command struct {
	min, max int // arguments, with the name; max 0: any number
	step     int // further ones come in groups of so many
	write    bool
	run      func(s *store, args [][]byte, out []byte) []byte
}

func (c *command) arity(n int) bool {
	return n >= c.min && (c.max == 0 || n <= c.max) && (c.step < 2 || (n-c.min)%c.step == 0)
}

// commands are all that the store executes. Their replies are those of Redis 7, in RESP2.
var commands = map[string]*command{
	"GET":      {min: 2, max: 2, run: runGet},
	"SET":      {min: 3, write: true, run: runSet},
	"MGET":     {min: 2, run: runMGet},
	"MSET":     {min: 3, step: 2, write: true, run: runMSet},
	"INCR":     {min: 2, max: 2, write: true, run: runIncr},
	"INCRBY":   {min: 3, max: 3, write: true, run: runIncr},
	"APPEND":   {min: 3, max: 3, write: true, run: runAppend},
	"STRLEN":   {min: 2, max: 2, run: runStrlen},
	"DEL":      {min: 2, write: true, run: runDel},
	"EXISTS":   {min: 2, run: runExists},
	"TYPE":     {min: 2, max: 2, run: runType},
	"RPUSH":    {min: 3, write: true, run: runRPush},
	"LPUSH":    {min: 3, write: true, run: runLPush},
	"LRANGE":   {min: 4, max: 4, run: runLRange},
	"LLEN":     {min: 2, max: 2, run: runLLen},
	"HSET":     {min: 4, step: 2, write: true, run: runHSet},
	"HGET":     {min: 3, max: 3, run: runHGet},
	"HGETALL":  {min: 2, max: 2, run: runHGetAll},
	"HDEL":     {min: 3, write: true, run: runHDel},
	"KEYS":     {min: 2, max: 2, run: runKeys},
	"SCAN":     {min: 2, run: runScan},
	"DBSIZE":   {min: 1, max: 1, run: runDBSize},
	"FLUSHALL": {min: 1, write: true, run: runFlushAll},
}

const (
	errInteger = "ERR value is not an integer or out of range"
	errSyntax  = "ERR syntax error"
)

func unknownCommand(args [][]byte) string {
	text := "ERR unknown command '" + clip(args[0], 128) + "', with args beginning with: "
	for _, a := range args[1:] {
		if len(text) > 128 {
			break
		}
		text += "'" + clip(a, 128) + "' "
	}
	return text
}

func wrongArity(name []byte) string {
	return "ERR wrong number of arguments for '" + strings.ToLower(clip(name, 128)) + "' command"
}

// clip makes of what came from outside something that fits on a line.
func clip(b []byte, limit int) string {
	b = b[:min(len(b), limit)]
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, string(b))
}

func upper(b []byte) []byte { return bytes.ToUpper(b) }

// number reads a number as Redis does: without a plus, without zeros before it.
func number(b []byte) (int64, bool) {
	n, err := strconv.ParseInt(string(b), 10, 64)
	return n, err == nil && strconv.FormatInt(n, 10) == string(b)
}

func runGet(s *store, args [][]byte, out []byte) []byte {
	v, err := s.get(args[0], text)
	switch {
	case err != nil:
		return appendError(out, err.Error())
	case v == nil:
		return appendNull(out)
	}
	return appendBulk(out, v.text)
}

func runSet(s *store, args [][]byte, out []byte) []byte {
	var onlyNew, onlyOld, get bool
	for _, option := range args[2:] {
		switch string(upper(option)) {
		case "NX":
			onlyNew = true
		case "XX":
			onlyOld = true
		case "GET":
			get = true
		default:
			return appendError(out, errSyntax)
		}
	}
	if onlyNew && onlyOld {
		return appendError(out, errSyntax)
	}
	old := s.keys[string(args[0])]
	reply := func(done bool) []byte {
		switch {
		case get && old == nil, !get && !done:
			return appendNull(out)
		case get:
			return appendBulk(out, old.text)
		}
		return appendOK(out)
	}
	if get && old != nil && old.kind != text {
		return appendError(out, errWrongType.Error())
	}
	if get && old != nil && len(out)+len(old.text) > maxReply {
		return appendError(out, errReply)
	}
	if onlyNew && old != nil || onlyOld && old == nil {
		return reply(false)
	}
	s.put(args[0], args[1])
	return reply(true)
}

func runMGet(s *store, args [][]byte, out []byte) []byte {
	out = appendArray(out, len(args))
	for _, key := range args {
		if v := s.keys[string(key)]; v != nil && v.kind == text {
			out = appendBulk(out, v.text)
		} else {
			out = appendNull(out)
		}
		if len(out) > maxReply {
			break // it is refused
		}
	}
	return out
}

func runMSet(s *store, args [][]byte, out []byte) []byte {
	for pair := range slices.Chunk(args, 2) {
		s.put(pair[0], pair[1])
	}
	return appendOK(out)
}

func runIncr(s *store, args [][]byte, out []byte) []byte {
	by, ok := int64(1), true
	if len(args) == 2 {
		if by, ok = number(args[1]); !ok {
			return appendError(out, errInteger)
		}
	}
	v, err := s.get(args[0], text)
	if err != nil {
		return appendError(out, err.Error())
	}
	var n int64
	if v != nil {
		if n, ok = number(v.text); !ok {
			return appendError(out, errInteger)
		}
	}
	if by > 0 && n > math.MaxInt64-by || by < 0 && n < math.MinInt64-by {
		return appendError(out, "ERR increment or decrement would overflow")
	}
	s.put(args[0], strconv.AppendInt(nil, n+by, 10))
	return appendInt(out, n+by)
}

func runAppend(s *store, args [][]byte, out []byte) []byte {
	v, err := s.get(args[0], text)
	switch {
	case err != nil:
		return appendError(out, err.Error())
	case v != nil && len(v.text)+len(args[1]) > maxValue:
		return appendError(out, errValue)
	}
	if v, err = s.change(args[0], text); err != nil {
		return appendError(out, err.Error())
	}
	v.text = append(v.text, args[1]...)
	return appendInt(out, int64(len(v.text)))
}

func runStrlen(s *store, args [][]byte, out []byte) []byte {
	v, err := s.get(args[0], text)
	switch {
	case err != nil:
		return appendError(out, err.Error())
	case v == nil:
		return appendInt(out, 0)
	}
	return appendInt(out, int64(len(v.text)))
}

func runDel(s *store, args [][]byte, out []byte) []byte {
	n := int64(0)
	for _, key := range args {
		if s.remove(string(key)) {
			n++
		}
	}
	return appendInt(out, n)
}

func runExists(s *store, args [][]byte, out []byte) []byte {
	n := int64(0)
	for _, key := range args {
		if s.keys[string(key)] != nil {
			n++
		}
	}
	return appendInt(out, n)
}

func runType(s *store, args [][]byte, out []byte) []byte {
	return appendSimple(out, s.typeOf(string(args[0])))
}

func (s *store) typeOf(key string) string {
	v := s.keys[key]
	if v == nil {
		return "none"
	}
	return map[kind]string{text: "string", listing: "list", hash: "hash"}[v.kind]
}

func runRPush(s *store, args [][]byte, out []byte) []byte {
	return push(s, args, out, (*list).pushBack)
}

func runLPush(s *store, args [][]byte, out []byte) []byte {
	return push(s, args, out, (*list).pushFront)
}

func push(s *store, args [][]byte, out []byte, add func(*list, []byte)) []byte {
	v, err := s.change(args[0], listing)
	if err != nil {
		return appendError(out, err.Error())
	}
	for _, item := range args[1:] {
		add(&v.list, bytes.Clone(item))
	}
	return appendInt(out, int64(v.list.n))
}

func runLRange(s *store, args [][]byte, out []byte) []byte {
	from, ok1 := number(args[1])
	to, ok2 := number(args[2])
	if !ok1 || !ok2 {
		return appendError(out, errInteger)
	}
	v, err := s.get(args[0], listing)
	if err != nil {
		return appendError(out, err.Error())
	}
	var items [][]byte
	if v != nil {
		items = v.list.items()
	}
	n := int64(len(items))
	if from < 0 {
		from = max(n+from, 0)
	}
	if to < 0 {
		to = n + to
	}
	to = min(to, n-1)
	if from > to {
		return appendArray(out, 0)
	}
	items = items[from : to+1]
	out = appendArray(out, len(items))
	for _, item := range items {
		out = appendBulk(out, item)
	}
	return out
}

func runLLen(s *store, args [][]byte, out []byte) []byte {
	v, err := s.get(args[0], listing)
	switch {
	case err != nil:
		return appendError(out, err.Error())
	case v == nil:
		return appendInt(out, 0)
	}
	return appendInt(out, int64(v.list.n))
}

func runHSet(s *store, args [][]byte, out []byte) []byte {
	v, err := s.change(args[0], hash)
	if err != nil {
		return appendError(out, err.Error())
	}
	n := int64(0)
	for pair := range slices.Chunk(args[1:], 2) {
		if _, ok := v.hash[string(pair[0])]; !ok {
			n++
		}
		v.hash[string(pair[0])] = bytes.Clone(pair[1])
	}
	return appendInt(out, n)
}

func runHGet(s *store, args [][]byte, out []byte) []byte {
	v, err := s.get(args[0], hash)
	if err != nil {
		return appendError(out, err.Error())
	}
	if v != nil {
		if b, ok := v.hash[string(args[1])]; ok {
			return appendBulk(out, b)
		}
	}
	return appendNull(out)
}

func runHGetAll(s *store, args [][]byte, out []byte) []byte {
	v, err := s.get(args[0], hash)
	switch {
	case err != nil:
		return appendError(out, err.Error())
	case v == nil:
		return appendArray(out, 0)
	}
	out = appendArray(out, 2*len(v.hash))
	for _, field := range slices.Sorted(maps.Keys(v.hash)) {
		out = appendBulk(appendBulk(out, []byte(field)), v.hash[field])
	}
	return out
}

func runHDel(s *store, args [][]byte, out []byte) []byte {
	v, err := s.get(args[0], hash)
	switch {
	case err != nil:
		return appendError(out, err.Error())
	case v == nil || !slices.ContainsFunc(args[1:], func(field []byte) bool { _, ok := v.hash[string(field)]; return ok }):
		return appendInt(out, 0) // and nothing has changed
	}
	if v, err = s.change(args[0], hash); err != nil {
		return appendError(out, err.Error())
	}
	n := int64(0)
	for _, field := range args[1:] {
		if _, ok := v.hash[string(field)]; ok {
			delete(v.hash, string(field))
			n++
		}
	}
	if len(v.hash) == 0 {
		s.remove(string(args[0]))
	}
	return appendInt(out, n)
}

func runKeys(s *store, args [][]byte, out []byte) []byte {
	var found []string
	for key := range s.keys {
		if matches(args[0], []byte(key)) {
			found = append(found, key)
		}
	}
	slices.Sort(found)
	return appendStrings(out, found)
}

// runScan goes through the keys in the order of a hash, so that a cursor is a place in that
// order: a key that is there all the time is found once, whatever comes and goes.
func runScan(s *store, args [][]byte, out []byte) []byte {
	cursor, err := strconv.ParseUint(string(args[0]), 10, 64)
	if err != nil {
		return appendError(out, "ERR invalid cursor")
	}
	pattern, count, kind, ok := []byte("*"), int64(10), "", true
	for i := 1; i < len(args); i += 2 {
		if i+1 == len(args) {
			return appendError(out, errSyntax)
		}
		switch string(upper(args[i])) {
		case "MATCH":
			pattern = args[i+1]
		case "COUNT":
			if count, ok = number(args[i+1]); !ok {
				return appendError(out, errInteger)
			}
			if count < 1 {
				return appendError(out, errSyntax)
			}
		case "TYPE":
			kind = strings.ToLower(string(args[i+1]))
		default:
			return appendError(out, errSyntax)
		}
	}
	type place struct {
		hash uint64
		key  string
	}
	var rest []place
	for key := range s.keys {
		if h := placeOf(key); h > cursor {
			rest = append(rest, place{h, key})
		}
	}
	slices.SortFunc(rest, func(a, b place) int {
		if a.hash != b.hash {
			return map[bool]int{true: -1, false: 1}[a.hash < b.hash]
		}
		return strings.Compare(a.key, b.key)
	})
	next := uint64(0)
	if n := int(min(count, int64(len(rest)))); n < len(rest) {
		for n < len(rest) && rest[n].hash == rest[n-1].hash {
			n++ // keys of one place go together
		}
		if n < len(rest) {
			next = rest[n-1].hash
		}
		rest = rest[:n]
	}
	var found []string
	for _, p := range rest {
		if matches(pattern, []byte(p.key)) && (kind == "" || kind == s.typeOf(p.key)) {
			found = append(found, p.key)
		}
	}
	out = appendArray(out, 2)
	out = appendBulk(out, strconv.AppendUint(nil, next, 10))
	return appendStrings(out, found)
}

// placeOf returns a key's place for SCAN, above 0.
func placeOf(key string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	return h.Sum64()>>1 | 1
}

func runDBSize(s *store, _ [][]byte, out []byte) []byte { return appendInt(out, int64(len(s.keys))) }

func runFlushAll(s *store, args [][]byte, out []byte) []byte {
	if len(args) > 1 || len(args) == 1 && !bytes.EqualFold(args[0], []byte("SYNC")) && !bytes.EqualFold(args[0], []byte("ASYNC")) {
		return appendError(out, errSyntax)
	}
	s.keys = make(map[string]*value)
	return appendOK(out)
}

// matches reports whether b matches a pattern of Redis: * ? [a-c] [^x] and \ before any of them.
func matches(pattern, b []byte) bool {
	// Where the last * stood, and how much of b it has taken.
	star, taken := -1, 0
	p, i := 0, 0
	for i < len(b) {
		if p < len(pattern) {
			if pattern[p] == '*' {
				star, taken = p, i
				p++
				continue
			}
			if n, ok := matchOne(pattern[p:], b[i]); ok {
				p, i = p+n, i+1
				continue
			}
		}
		if star < 0 {
			return false
		}
		taken++
		p, i = star+1, taken
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne matches one byte, and returns how much of the pattern that took.
func matchOne(pattern []byte, b byte) (n int, ok bool) {
	switch pattern[0] {
	case '?':
		return 1, true
	case '\\':
		if len(pattern) > 1 {
			return 2, pattern[1] == b
		}
	case '[':
		i, not, found := 1, false, false
		if i < len(pattern) && pattern[i] == '^' {
			not = true
			i++
		}
		for ; i < len(pattern) && pattern[i] != ']'; i++ {
			switch {
			case pattern[i] == '\\' && i+1 < len(pattern):
				i++
				found = found || pattern[i] == b
			case i+2 < len(pattern) && pattern[i+1] == '-' && pattern[i+2] != ']':
				lo, hi := min(pattern[i], pattern[i+2]), max(pattern[i], pattern[i+2])
				found = found || lo <= b && b <= hi
				i += 2
			default:
				found = found || pattern[i] == b
			}
		}
		return min(i+1, len(pattern)), found != not
	}
	return 1, pattern[0] == b
}
