package fleet

import (
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestTree: a tree is a map, and finds exactly the keys with a prefix.
func TestTree(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.StringMatching(`[ab/]{0,5}`)
		tr, want := new(tree[int]), make(map[string]int)
		for i := range rapid.IntRange(0, 40).Draw(t, "steps") {
			key := keys.Draw(t, "key")
			if rapid.Bool().Draw(t, "set") {
				tr.set(key, i+1)
				want[key] = i + 1
			} else {
				_, known := want[key]
				if removed := tr.remove(key); removed != known {
					t.Fatalf("remove %q: %v, want %v", key, removed, known)
				}
				delete(want, key)
			}
			if got := tr.get(key); got != want[key] {
				t.Fatalf("%q is %d, want %d", key, got, want[key])
			}
		}
		prefix := keys.Draw(t, "prefix")
		all := maps.Clone(want)
		maps.DeleteFunc(want, func(key string, _ int) bool { return !strings.HasPrefix(key, prefix) })
		if got := maps.Collect(tr.under(prefix)); !maps.Equal(got, want) {
			t.Fatalf("below %q: %v, want %v", prefix, got, want)
		}
		if tr.size != len(all) {
			t.Fatalf("size %d, want %d", tr.size, len(all))
		}
		for key := range all {
			tr.remove(key)
		}
		if tr.size != 0 || len(tr.below) != 0 || len(tr.leaves) != 0 {
			t.Fatalf("an empty tree has %d keys, %d branches", tr.size, len(tr.below))
		}
	})
}
