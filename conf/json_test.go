package conf

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadJSON(t *testing.T) {
	for _, tt := range []struct {
		name, doc string
		want      map[string]any
		lines     map[string]int
	}{
		{"empty", "{}", map[string]any{}, map[string]int{}},
		{"a list", "\ufeff [\n1,\n\n\"x\"]", map[string]any{"backends": []any{int64(1), "x"}},
			map[string]int{"backends": 1, "backends[0]": 2, "backends[1]": 4}},
		{"values behind their keys", "{\"a\"\n:\n{\"b\":\n1}}", map[string]any{"a": map[string]any{"b": int64(1)}},
			map[string]int{"a": 1, "a.b": 3}},
		{"carriage returns", "{\r\n\"a\": 1,\r\n\"b\": 2\r\n}\r\n", map[string]any{"a": int64(1), "b": int64(2)},
			map[string]int{"a": 2, "b": 3}},
		{"each kind", `{"a": [true, false, null, "\n\u0041", [], {}]}`,
			map[string]any{"a": []any{true, false, nil, "\nA", []any{}, map[string]any{}}},
			map[string]int{"a": 1, "a[0]": 1, "a[1]": 1, "a[2]": 1, "a[3]": 1, "a[4]": 1, "a[5]": 1}},
		{"numbers", `{"a": [0, -0, -7, 9223372036854775807, 9223372036854775808, 1.0, 1e2, 1e-999]}`,
			map[string]any{"a": []any{int64(0), int64(0), int64(-7), int64(9223372036854775807), 9223372036854775808.0,
				1.0, 100.0, 0.0}},
			map[string]int{"a": 1, "a[0]": 1, "a[1]": 1, "a[2]": 1, "a[3]": 1, "a[4]": 1, "a[5]": 1, "a[6]": 1,
				"a[7]": 1}},
		{"the first of two keys", "{\"a\": {\"b\": 1},\n\"a\": {\"c\": 2},\n\"\\u0061\": 3}",
			map[string]any{"a": map[string]any{"b": int64(1)}},
			map[string]int{"a": 1, "a.b": 1}},
	} {
		r := newReport(whole("f"), map[string]int{})
		found, root, e := r.readJSON([]byte(tt.doc))
		if e != nil {
			t.Errorf("%s: %v", tt.name, e)
			continue
		}
		if diff := cmp.Diff(tt.want, found); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, diff)
		}
		if diff := cmp.Diff(tt.lines, flatten(root, "", map[string]int{})); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, diff)
		}
	}
}

func TestReadJSONDepth(t *testing.T) {
	for _, doc := range []func(n int) string{
		func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) },
		func(n int) string { return strings.Repeat(`{"a":`, n-1) + "{}" + strings.Repeat("}", n-1) },
	} {
		r := newReport(whole("f"), map[string]int{})
		if _, _, e := r.readJSON([]byte(doc(maxDepth))); e != nil {
			t.Errorf("%d levels give %v", maxDepth, e)
		}
		if _, _, e := r.readJSON([]byte(doc(maxDepth + 1))); e == nil {
			t.Errorf("%d levels are accepted", maxDepth+1)
		}
	}
}

// FuzzReadJSON: what the library accepts, the reader has in full, of the library's values, each
// with a place on a line of the file; of keys that stand twice only one is there.
func FuzzReadJSON(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		if checkText(data) != nil {
			return
		}
		r := newReport(whole("f"), map[string]int{})
		found, root, e := r.readJSON(data)
		text := bytes.TrimPrefix(data, []byte(byteOrderMark))
		if refused := e != nil && strings.HasPrefix(e.Message, "not valid JSON"); refused == json.Valid(text) &&
			(e == nil || refused) {
			t.Fatalf("valid JSON is %v, and the mistake %v", json.Valid(text), e)
		}
		if e != nil || r.err() != nil {
			return
		}
		checkPlaces(t, found, root, "", bytes.Count(data, []byte("\n"))+1)
		want, err := decode(text)
		if err != nil {
			t.Fatal(err)
		}
		if list, ok := want.([]any); ok {
			want = map[string]any{"backends": list}
		}
		if diff := cmp.Diff(want, any(found)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}

// decode is the library's reading, with TOML's numbers.
func decode(text []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	err = d.Decode(&v)
	return numbers(v), err
}

func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, sub := range v {
			v[k] = numbers(sub)
		}
	case []any:
		for i, sub := range v {
			v[i] = numbers(sub)
		}
	case json.Number:
		return new(jsonReader).number(v, "")
	}
	return v
}
