package memory

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tree answers as a map does, keeps its old versions, and stays flat.
func TestTree(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	type version struct {
		root  *node
		model map[string]string
	}
	versions := []version{{nil, map[string]string{}}}
	for i := range 3000 {
		old := versions[random.IntN(len(versions))]
		root, model := old.root, map[string]string{}
		for k, v := range old.model {
			model[k] = v
		}
		key := fmt.Append(nil, random.IntN(200))
		switch random.IntN(10) {
		default:
			root = set(root, &node{key: key, value: fmt.Append(nil, i), priority: priorityOf(key)})
			model[string(key)] = fmt.Sprint(i)
		case 0, 1:
			root = remove(root, key)
			delete(model, string(key))
		case 2:
			to := fmt.Append(nil, random.IntN(200))
			if random.IntN(10) == 0 {
				to = nil
			}
			root = removeRange(root, key, to)
			for k := range model {
				if k >= string(key) && (to == nil || k < string(to)) {
					delete(model, k)
				}
			}
		}
		versions = append(versions, version{root, model})
		if len(versions) > 30 {
			versions = slices.Delete(versions, 0, 1)
		}
		for _, v := range []version{old, {root, model}} {
			c, n := newCursor(v.root, nil), 0
			var last []byte
			for m := c.next(); m != nil; m = c.next() {
				require.Equal(t, v.model[string(m.key)], string(m.value))
				require.True(t, n == 0 || bytes.Compare(last, m.key) < 0)
				last = m.key
				n++
			}
			require.Len(t, v.model, n)
		}
		require.NoError(t, checkHeap(root))
	}

	var root *node
	for i := range 100_000 {
		key := fmt.Appendf(nil, "%08d", i)
		root = set(root, &node{key: key, priority: priorityOf(key)})
	}
	require.Less(t, depth(root), 60)
}

func checkHeap(n *node) error {
	if n == nil {
		return nil
	}
	for _, c := range []*node{n.left, n.right} {
		if c != nil && c.priority > n.priority {
			return fmt.Errorf("%q is above %q", n.key, c.key)
		}
		if err := checkHeap(c); err != nil {
			return err
		}
	}
	return nil
}

func depth(n *node) int {
	if n == nil {
		return 0
	}
	return 1 + max(depth(n.left), depth(n.right))
}
