package fleet

import (
	"iter"
	"strings"
)

// A tree is a map of keys that finds those with a prefix without a look at all others: each part of a key is one level.
// The zero value is an empty tree. It is not safe for concurrent use.
type tree[V any] struct {
	below  map[string]*tree[V] // by the next part of the key, which others follow
	leaves map[string]leaf[V]  // by the last part of the key
	size   int                 // leaves here and below
}

type leaf[V any] struct {
	key   string // the whole
	value V
}

// get returns the value of a key; the zero value if there is none.
func (t *tree[V]) get(key string) V {
	rest := key
	for t != nil {
		part, further, more := strings.Cut(rest, "/")
		if !more {
			return t.leaves[part].value
		}
		t, rest = t.below[part], further
	}
	var none V
	return none
}

// set sets the value of a key.
func (t *tree[V]) set(key string, value V) { t.setBelow(key, key, value) }

// setBelow sets the value of a key whose rest is below t. It reports whether the key is new.
func (t *tree[V]) setBelow(key, rest string, value V) (isNew bool) {
	part, further, more := strings.Cut(rest, "/")
	if more {
		next := t.below[part]
		if next == nil {
			if next = new(tree[V]); t.below == nil {
				t.below = make(map[string]*tree[V])
			}
			t.below[part] = next
		}
		isNew = next.setBelow(key, further, value)
	} else {
		if t.leaves == nil {
			t.leaves = make(map[string]leaf[V])
		}
		_, known := t.leaves[part]
		t.leaves[part] = leaf[V]{key, value}
		isNew = !known
	}
	if isNew {
		t.size++
	}
	return isNew
}

// remove removes a key. It reports whether there was one.
func (t *tree[V]) remove(key string) bool {
	part, further, more := strings.Cut(key, "/")
	if !more {
		if _, known := t.leaves[part]; !known {
			return false
		}
		delete(t.leaves, part)
		t.size--
		return true
	}
	next := t.below[part]
	if next == nil || !next.remove(further) {
		return false
	}
	if t.size--; next.size == 0 {
		delete(t.below, part)
	}
	return true
}

// under returns the keys that begin with prefix, in no order. The tree must not change meanwhile.
func (t *tree[V]) under(prefix string) iter.Seq2[string, V] {
	for t != nil {
		part, further, more := strings.Cut(prefix, "/")
		if !more {
			break
		}
		t, prefix = t.below[part], further
	}
	return func(yield func(string, V) bool) {
		if t != nil {
			t.each(prefix, yield)
		}
	}
}

// each calls yield for the keys whose part here begins with prefix, until it returns false.
func (t *tree[V]) each(prefix string, yield func(string, V) bool) bool {
	for part, l := range t.leaves {
		if strings.HasPrefix(part, prefix) && !yield(l.key, l.value) {
			return false
		}
	}
	for part, next := range t.below {
		if strings.HasPrefix(part, prefix) && !next.each("", yield) {
			return false
		}
	}
	return true
}
