package memory

import "bytes"

// node is a treap: a binary search tree by key, and a heap by priority, which
// is a hash of the key. So the shape depends on the set of keys alone. Nodes are
// never changed: every operation returns a new root, and copies the path to it.
type node struct {
	key, value  []byte
	priority    uint64
	left, right *node
}

// priorityOf is FNV-1a with its bits mixed once more, because keys that differ
// in their last byte alone would get similar priorities otherwise.
func priorityOf(key []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range key {
		h = (h ^ uint64(c)) * 1099511628211
	}
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	h ^= h >> 32
	return h
}

// with returns a copy of n with other children.
func (n *node) with(left, right *node) *node {
	c := *n
	c.left, c.right = left, right
	return &c
}

func get(n *node, key []byte) *node {
	for n != nil {
		switch c := bytes.Compare(key, n.key); {
		case c < 0:
			n = n.left
		case c > 0:
			n = n.right
		default:
			return n
		}
	}
	return nil
}

// split returns the keys below key, and those that are not.
func split(n *node, key []byte) (below, rest *node) {
	if n == nil {
		return nil, nil
	}
	if bytes.Compare(n.key, key) < 0 {
		below, rest = split(n.right, key)
		return n.with(n.left, below), rest
	}
	below, rest = split(n.left, key)
	return below, n.with(rest, n.right)
}

// join is the reverse of split: all keys of a are below those of b.
func join(a, b *node) *node {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority >= b.priority:
		return a.with(a.left, join(a.right, b))
	default:
		return b.with(join(a, b.left), b.right)
	}
}

// set adds m, or puts it into the place of the node with the same key.
func set(n, m *node) *node {
	if n == nil {
		return m
	}
	c := bytes.Compare(m.key, n.key)
	switch {
	case c == 0:
		return m.with(n.left, n.right)
	case m.priority > n.priority:
		// The key is not below n, where no priority is as high.
		return m.with(split(n, m.key))
	case c < 0:
		return n.with(set(n.left, m), n.right)
	default:
		return n.with(n.left, set(n.right, m))
	}
}

func remove(n *node, key []byte) *node {
	if n == nil {
		return nil
	}
	switch c := bytes.Compare(key, n.key); {
	case c < 0:
		return n.with(remove(n.left, key), n.right)
	case c > 0:
		return n.with(n.left, remove(n.right, key))
	default:
		return join(n.left, n.right)
	}
}

// removeRange removes the keys in [from, to); an empty to means no upper bound.
func removeRange(n *node, from, to []byte) *node {
	below, rest := split(n, from)
	if len(to) == 0 {
		return below
	}
	if bytes.Compare(from, to) >= 0 {
		return n
	}
	_, above := split(rest, to)
	return join(below, above)
}

// cursor walks through the nodes from a key on, ascending. path holds the nodes
// that are yet to be visited, each before its right subtree, the next one last.
type cursor struct{ path []*node }

func newCursor(n *node, from []byte) cursor {
	var c cursor
	for n != nil {
		if bytes.Compare(n.key, from) >= 0 {
			c.path = append(c.path, n)
			n = n.left
		} else {
			n = n.right
		}
	}
	return c
}

// next returns nil after the last node.
func (c *cursor) next() *node {
	if len(c.path) == 0 {
		return nil
	}
	n := c.path[len(c.path)-1]
	c.path = c.path[:len(c.path)-1]
	for m := n.right; m != nil; m = m.left {
		c.path = append(c.path, m)
	}
	return n
}
