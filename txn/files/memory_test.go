package files

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
)

var errCrashed = errors.New("crashed")

// node is a file or a directory.
type node struct {
	dir     bool
	data    []byte
	synced  []byte
	entries map[string]*node
	durable map[string]*node
	pending []edit
}

// edit is a change of the names in a directory that is not synced. What a rename does within a directory is one.
type edit struct {
	order int
	names []string
	nodes []*node // nil: the name goes
}

func newDirectory() *node {
	return &node{dir: true, entries: map[string]*node{}, durable: map[string]*node{}}
}

// memoryFiles is a fileSystem that crashes before a call, and loses what was not synced: names and contents, each for itself. A
// rename from one directory to another is two changes.
type memoryFiles struct {
	mu      sync.Mutex
	root    *node
	calls   int // that change something
	crashAt int // 0: never
	crashed bool
	order   int
	noLinks bool
	failing func(call, name string) error
	locked  bool
}

func newMemoryFiles() *memoryFiles { return &memoryFiles{root: newDirectory()} }

// step counts a call that changes something.
func (m *memoryFiles) step(call, name string) error {
	m.calls++
	if m.crashAt > 0 && m.calls >= m.crashAt {
		m.crashed = true
	}
	return m.look(call, name)
}

func (m *memoryFiles) look(call, name string) error {
	if m.crashed {
		return errCrashed
	}
	if m.failing != nil {
		return m.failing(call, name)
	}
	return nil
}

func (m *memoryFiles) find(name string) *node {
	n := m.root
	if name == "." {
		return n
	}
	for len(name) > 0 && n != nil {
		var part string
		part, name, _ = cut(name)
		if !n.dir {
			return nil
		}
		n = n.entries[part]
	}
	return n
}

func cut(name string) (first, rest string, more bool) {
	for i := range len(name) {
		if name[i] == '/' {
			return name[:i], name[i+1:], true
		}
	}
	return name, "", false
}

func missing(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist} }

// edit changes names in a directory.
func (m *memoryFiles) edit(dir *node, names []string, nodes []*node) {
	m.order++
	dir.pending = append(dir.pending, edit{m.order, names, nodes})
	apply(dir.entries, names, nodes)
}

func apply(entries map[string]*node, names []string, nodes []*node) {
	for i, name := range names {
		if nodes[i] == nil {
			delete(entries, name)
		} else {
			entries[name] = nodes[i]
		}
	}
}

func (m *memoryFiles) create(name string) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.step("create", name); err != nil {
		return nil, err
	}
	dir := m.find(path.Dir(name))
	if dir == nil || !dir.dir {
		return nil, missing("create", name)
	}
	if dir.entries[path.Base(name)] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	n := &node{}
	m.edit(dir, []string{path.Base(name)}, []*node{n})
	return &memoryFile{m, n, name}, nil
}

type memoryFile struct {
	m    *memoryFiles
	n    *node
	name string
}

func (f *memoryFile) Write(p []byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.m.step("write", f.name); err != nil {
		return 0, err
	}
	f.n.data = append(f.n.data, p...)
	return len(p), nil
}

func (f *memoryFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.m.step("sync", f.name); err != nil {
		return err
	}
	f.n.synced = bytes.Clone(f.n.data)
	return nil
}

func (f *memoryFile) Close() error { return nil }

func (m *memoryFiles) open(name string) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.look("open", name); err != nil {
		return nil, err
	}
	n := m.find(name)
	if n == nil {
		return nil, missing("open", name)
	}
	return io.NopCloser(bytes.NewReader(bytes.Clone(n.data))), nil
}

func (m *memoryFiles) list(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.look("list", dir); err != nil {
		return nil, err
	}
	n := m.find(dir)
	if n == nil {
		return nil, missing("list", dir)
	}
	return slices.Sorted(maps.Keys(n.entries)), nil
}

func (m *memoryFiles) stat(name string) (kind, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.look("stat", name); err != nil {
		return kindNothing, 0, err
	}
	switch n := m.find(name); {
	case n == nil:
		return kindNothing, 0, nil
	case n.dir:
		return kindDirectory, 0, nil
	default:
		return kindFile, int64(len(n.data)), nil
	}
}

func (m *memoryFiles) mkdir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.step("mkdir", name); err != nil {
		return err
	}
	dir := m.find(path.Dir(name))
	switch {
	case dir == nil || !dir.dir:
		return missing("mkdir", name)
	case dir.entries[path.Base(name)] != nil:
		return &fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrExist}
	}
	m.edit(dir, []string{path.Base(name)}, []*node{newDirectory()})
	return nil
}

func (m *memoryFiles) link(old, new string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.step("link", new); err != nil {
		return err
	}
	n, dir := m.find(old), m.find(path.Dir(new))
	switch {
	case m.noLinks:
		return errors.ErrUnsupported
	case n == nil || dir == nil:
		return missing("link", old)
	case dir.entries[path.Base(new)] != nil:
		return &fs.PathError{Op: "link", Path: new, Err: fs.ErrExist}
	}
	m.edit(dir, []string{path.Base(new)}, []*node{n})
	return nil
}

func (m *memoryFiles) rename(old, new string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.step("rename", new); err != nil {
		return err
	}
	n, from, to := m.find(old), m.find(path.Dir(old)), m.find(path.Dir(new))
	switch {
	case n == nil || to == nil:
		return missing("rename", old)
	case to.entries[path.Base(new)] == n:
		return nil // as POSIX has it: both names stay
	case to.entries[path.Base(new)] != nil && to.entries[path.Base(new)].dir:
		return &fs.PathError{Op: "rename", Path: new, Err: fs.ErrExist}
	case from == to:
		m.edit(to, []string{path.Base(old), path.Base(new)}, []*node{nil, n})
		return nil
	}
	m.edit(from, []string{path.Base(old)}, []*node{nil})
	m.edit(to, []string{path.Base(new)}, []*node{n})
	return nil
}

func (m *memoryFiles) remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.step("remove", name); err != nil {
		return err
	}
	n, dir := m.find(name), m.find(path.Dir(name))
	switch {
	case n == nil:
		return missing("remove", name)
	case len(n.entries) > 0:
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrExist}
	}
	m.edit(dir, []string{path.Base(name)}, []*node{nil})
	return nil
}

func (m *memoryFiles) syncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.step("sync directory", name); err != nil {
		return err
	}
	n := m.find(name)
	if n == nil {
		return missing("sync", name)
	}
	n.durable, n.pending = maps.Clone(n.entries), nil
	return nil
}

type unlock struct{ m *memoryFiles }

func (u unlock) Close() error { u.m.locked = false; return nil }

func (m *memoryFiles) lock(string) (io.Closer, error) {
	if m.locked {
		return nil, errLocked
	}
	m.locked = true
	return unlock{m}, nil
}

func (m *memoryFiles) close() error { return nil }

// The variants of what a crash leaves of what was not synced.
const (
	loseAll = iota
	keepAll
	keepContents // and no names
	keepNames    // and no contents
	firstVariant // from here on: each change for itself, at random
)

// crash returns what is found after a crash.
func (m *memoryFiles) crash(variant int) *memoryFiles {
	r := rand.New(rand.NewPCG(uint64(variant), 1))
	seen := map[*node]*node{}
	var revive func(n *node) *node
	revive = func(n *node) *node {
		if seen[n] != nil {
			return seen[n]
		}
		c := &node{dir: n.dir}
		seen[n] = c
		if !n.dir {
			switch {
			case bytes.Equal(n.data, n.synced) || variant == keepAll || variant == keepContents:
				c.data = bytes.Clone(n.data)
			case variant == loseAll || variant == keepNames:
				c.data = bytes.Clone(n.synced)
			default:
				c.data = torn(r, n)
			}
			c.synced = bytes.Clone(c.data)
			return c
		}
		names := maps.Clone(n.durable)
		for _, e := range n.pending {
			if variant == keepAll || variant == keepNames || variant >= firstVariant && r.IntN(2) == 0 {
				apply(names, e.names, e.nodes)
			}
		}
		c.entries = map[string]*node{}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			c.entries[name] = revive(names[name])
		}
		c.durable = maps.Clone(c.entries)
		return c
	}
	return &memoryFiles{root: revive(m.root), noLinks: m.noLinks}
}

// torn is what may be there of a content that was not synced.
func torn(r *rand.Rand, n *node) []byte {
	switch r.IntN(4) {
	case 0:
		return bytes.Clone(n.synced)
	case 1:
		return bytes.Clone(n.data[:r.IntN(len(n.data)+1)])
	case 2:
		return make([]byte, len(n.data)) // the size was written
	}
	return bytes.Clone(n.data)
}

// files returns what the application sees.
func (m *memoryFiles) files() map[string]string {
	all := map[string]string{}
	var walk func(prefix string, n *node)
	walk = func(prefix string, n *node) {
		for name, c := range n.entries {
			switch {
			case prefix == "" && name == home:
			case c.dir:
				walk(prefix+name+"/", c)
			default:
				all[prefix+name] = string(c.data)
			}
		}
	}
	walk("", m.root)
	return all
}
