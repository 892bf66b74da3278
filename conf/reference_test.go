package conf

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/BurntSushi/toml"
)

// TestReference: the reference is a valid configuration, and so every key in it exists.
func TestReference(t *testing.T) {
	c, err := Parse("reference.toml", Reference)
	if err != nil {
		t.Fatal(err)
	}
	if w := c.Warnings(); len(w) > 0 {
		t.Error(w)
	}
}

// TestReferenceIsComplete: every key the binder knows stands in the reference, where it stands
// first with its default.
func TestReferenceIsComplete(t *testing.T) {
	bad := []byte("[global]\nworkers = 1\n[pool.a]\nretries = 2\nbackends = [{}, { weight = 2 }]\n[pool.b]\nretries = 3\n")
	wrong := wrongReference(t, bad)
	for _, want := range []string{"global.workers stands first as 1, its default is 0",
		"pool.*.backends[].weight stands first as 2, its default is 1",
		"log.level is missing", "listener is missing", "pool.*.health.rise is missing"} {
		if !slices.Contains(wrong, want) {
			t.Fatalf("this test cannot fail: of a bad sample it says %q, not %q", wrong, want)
		}
	}
	if slices.ContainsFunc(wrong,
		func(s string) bool { return s == "pool.*.retries stands first as 3, its default is 2" }) {
		t.Fatal("this test looks at more than the first")
	}
	for _, w := range wrongReference(t, Reference) {
		t.Error(w)
	}
}

func wrongReference(t *testing.T, data []byte) (wrong []string) {
	t.Helper()
	found := map[string]any{}
	if _, err := toml.Decode(string(data), &found); err != nil {
		t.Fatal(err)
	}
	root, _ := scan(data)
	first := map[string]firstValue{}
	firstValues(found, root, "", reflect.TypeFor[Config](), first)
	for _, k := range knownKeys(reflect.TypeFor[Config](), "") {
		v, ok := first[k.path]
		if !ok {
			wrong = append(wrong, k.path+" is missing")
			continue
		}
		if k.isTexts() && !k.isRequired {
			if got, want := fmt.Sprint(v.value), fmt.Sprint(fromTag(k.t, k.def)); got != want {
				wrong = append(wrong, fmt.Sprintf("%s stands first as %v, its default is %v", k.path, got, want))
			}
			continue
		}
		if !k.isScalar() || k.isRequired || k.alone {
			continue
		}
		got, want := reflect.New(k.t).Elem(), fromTag(k.t, k.def)
		if assign(got, v.value) != nil || !got.Equal(want) {
			wrong = append(wrong, fmt.Sprintf("%s stands first as %v, its default is %v", k.path, v.value, want))
		}
	}
	return wrong
}

type firstValue struct {
	value any
	order int
}

// firstValues finds the first value in the file of each path that knownKeys knows.
func firstValues(v any, n *place, path string, t reflect.Type, into map[string]firstValue) {
	if old, seen := into[path]; !seen || n.order < old.order {
		into[path] = firstValue{v, n.order}
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := v.(type) {
	case map[string]any:
		if t.Kind() == reflect.Slice { // named
			for k, sub := range v {
				firstValues(sub, n.child(k), path+".*", t.Elem(), into)
			}
			return
		}
		for _, f := range fieldsOf(t) {
			if sub, ok := v[f.key]; ok {
				sf := t.FieldByIndex(f.index)
				at := join(path, f.key)
				if list, ok := sub.([]any); ok && embeds(t, sf.Type) { // see knownKeys
					for i, one := range list {
						firstValues(one, n.child(f.key).item(i), path, sf.Type.Elem(), into)
					}
				}
				firstValues(sub, n.child(f.key), at, sf.Type, into)
			}
		}
	case []any:
		for i, sub := range v {
			firstValues(sub, n.item(i), path+"[]", t.Elem(), into)
		}
	}
}
