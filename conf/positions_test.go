package conf

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// flatten lists the line of each path below n.
func flatten(n *place, path string, into map[string]int) map[string]int {
	for k, c := range n.table {
		into[join(path, k)] = c.line
		flatten(c, join(path, k), into)
	}
	for i, c := range n.items {
		into[element(path, i)] = c.line
		flatten(c, element(path, i), into)
	}
	return into
}

func TestScan(t *testing.T) {
	for _, tt := range []struct {
		name, doc string
		want      map[string]int
	}{
		{"empty", "", map[string]int{}},
		{"byte order mark", "\ufeffa = 1", map[string]int{"a": 1}},
		{"carriage returns", "# c\r\na = 1\r\n\r\n[b]\r\nc = 2", map[string]int{"a": 2, "b": 4, "b.c": 5}},
		{"headers", "[a.b]\nc = 1\n[a]\nd = 2\n[ a . 'e' ] # ]\n",
			map[string]int{"a": 3, "a.b": 1, "a.b.c": 2, "a.d": 4, "a.e": 5}},
		{"lists of tables", "[[a]]\nb = 1\n[[a]]\n[a.c]\nd = 1\n[[a.e]]\n[[a.e]]\n", map[string]int{
			"a": 1, "a[0]": 1, "a[0].b": 2, "a[1]": 3, "a[1].c": 4, "a[1].c.d": 5, "a[1].e": 6, "a[1].e[0]": 6,
			"a[1].e[1]": 7}},
		{"dotted keys", "a . b.c = 1\na.d = 2\n", map[string]int{"a": 1, "a.b": 1, "a.b.c": 1, "a.d": 2}},
		{"quoted keys", "\"a.b\" = 1\n'c#\\' = 2\n\"\\u0064\\x65\\e\" = 3\n\"\" = 4\n",
			map[string]int{`"a.b"`: 1, `"c#\\"`: 2, `"de\x1b"`: 3, `""`: 4}},
		{"inline tables", "a = { b = 1, c.d = { e = 2 } }\n", map[string]int{"a": 1, "a.b": 1, "a.c": 1, "a.c.d": 1,
			"a.c.d.e": 1}},
		{"inline tables over lines", "a = { # {\n b = 1, # ,\n\n c = 2,\n}\nd = 1",
			map[string]int{"a": 1, "a.b": 2, "a.c": 4, "d": 6}},
		{"lists", "a = [ 1,\n 'x', # ]\n { b = 1 },\n [ ], [\n 2 ],\n]\nc = 1", map[string]int{
			"a": 1, "a[0]": 1, "a[1]": 2, "a[2]": 3, "a[2].b": 3, "a[3]": 4, "a[4]": 4, "a[4][0]": 5, "c": 7}},
		{"strings", "a = \"[#\\\"\"\nb = 'it\\'\nc = \"\"\nd = '' # x\ne = 1",
			map[string]int{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}},
		{"long strings", "a = \"\"\"\nb = 1\n\\\"\"\"\\\n\"\"\"\"\"\nc = '''\n''\n'''''\nd = [ \"\"\"\"\"\", '''\n''' ]\ne = 1", map[string]int{
			"a": 1, "c": 5, "d": 8, "d[0]": 8, "d[1]": 8, "e": 10}},
		{"times", "a = 1979-05-27 07:32:00\nb = [07:32:00, 1979-05-27 ]\n",
			map[string]int{"a": 1, "b": 2, "b[0]": 2, "b[1]": 2}},
		{"after a syntax error", "a = 1\nb = \"\nc = 1", map[string]int{"a": 1, "b": 2}},
	} {
		root, deep := scan([]byte(tt.doc))
		if deep != 0 {
			t.Errorf("%s: too deep on line %d", tt.name, deep)
		}
		if diff := cmp.Diff(tt.want, flatten(root, "", map[string]int{})); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, diff)
		}
	}
}

func TestScanDepth(t *testing.T) {
	for _, tt := range []struct {
		doc  func(n int) string
		name string
	}{
		{func(n int) string { return "a" + strings.Repeat(".a", n-1) + " = 1" }, "dotted key"},
		{func(n int) string { return "[a" + strings.Repeat(".a", n-1) + "]" }, "header"},
		{func(n int) string { return "[a.a]\na.a=" + strings.Repeat("[", n-4) + "1" + strings.Repeat("]", n-4) },
			"lists"},
		{func(n int) string { return "[[a]]\n" + strings.Repeat("a={", n-1) + strings.Repeat("}", n-1) },
			"inline tables"},
	} {
		if _, deep := scan([]byte(tt.doc(maxDepth))); deep != 0 {
			t.Errorf("%s: %d levels are refused", tt.name, maxDepth)
		}
		if _, deep := scan([]byte(tt.doc(maxDepth + 1))); deep == 0 {
			t.Errorf("%s: %d levels are accepted", tt.name, maxDepth+1)
		}
	}
}

// FuzzPositions: of what the library accepts, every key and element has a place, on a line of
// the file.
func FuzzPositions(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		if checkText(data) != nil {
			return
		}
		root, deep := scan(data)
		if deep > 0 {
			return
		}
		found := map[string]any{}
		if _, err := toml.Decode(string(data), &found); err != nil {
			return
		}
		// The library takes lists out of each other where an empty key stands inside: it gives
		// [{"" = 1}] for [[{"" = 1}]]. Nothing of ours has such a key.
		if hasEmptyKey(found) {
			return
		}
		checkPlaces(t, found, root, "", bytes.Count(data, []byte("\n"))+1)
	})
}

func hasEmptyKey(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for k, sub := range v {
			if k == "" || hasEmptyKey(sub) {
				return true
			}
		}
	case []map[string]any:
		return slices.ContainsFunc(v, func(sub map[string]any) bool { return hasEmptyKey(sub) })
	case []any:
		return slices.ContainsFunc(v, hasEmptyKey)
	}
	return false
}

func checkPlaces(t *testing.T, v any, n *place, path string, lines int) {
	t.Helper()
	if n == nil || n.line < 1 || n.line > lines {
		t.Errorf("%s has the place %+v in a file of %d lines", path, n, lines)
		return
	}
	switch v := v.(type) {
	case map[string]any:
		for k, sub := range v {
			checkPlaces(t, sub, n.table[k], join(path, k), lines)
		}
	case []map[string]any:
		if len(v) > len(n.items) {
			t.Fatalf("%s has %d elements but %d places", path, len(v), len(n.items))
		}
		for i, sub := range v {
			checkPlaces(t, sub, n.items[i], element(path, i), lines)
		}
	case []any:
		if len(v) > len(n.items) {
			t.Fatalf("%s has %d elements but %d places", path, len(v), len(n.items))
		}
		for i, sub := range v {
			checkPlaces(t, sub, n.items[i], element(path, i), lines)
		}
	}
}

// TestScanGenerated: in generated documents, whose lines are known, the scanner finds exactly
// the keys that are there on exactly their lines.
func TestScanGenerated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &document{t: t, lines: map[string]int{}, line: 1}
		d.pairs("", 2)
		d.headers("", "", 2)
		text := d.text.String()
		if _, err := toml.Decode(text, new(map[string]any)); err != nil {
			t.Fatalf("the generator is wrong: %v\n%s", err, text)
		}
		root, _ := scan([]byte(text))
		if got := flatten(root, "", map[string]int{}); !maps.Equal(got, d.lines) {
			t.Errorf("-want +got\n%s\n%s", cmp.Diff(d.lines, got), text)
		}
	})
}

// A document is text, and the line of each path in it.
type document struct {
	t     *rapid.T
	text  strings.Builder
	line  int
	keys  int // so many were used: no key comes twice
	lines map[string]int
}

func (d *document) write(s string) {
	d.text.WriteString(s)
	d.line += strings.Count(s, "\n")
}

func (d *document) oneOf(texts ...string) string { return rapid.SampledFrom(texts).Draw(d.t, "text") }
func (d *document) upTo(n int) int               { return rapid.IntRange(0, n).Draw(d.t, "n") }

// blank returns what may stand between lines, and inside the brackets of a list or inline table.
func (d *document) blank() string {
	return d.oneOf("", "", " ", "\t", "\n", "\r\n", " # [x] = { \"\n", "\n\n")
}

// key returns a new key as it is and as it may be written.
func (d *document) key() (key, written string) {
	d.keys++
	key = fmt.Sprintf("k%d", d.keys)
	switch d.upTo(4) {
	case 0:
		key += "." // needs quotes
		return key, `"` + key + `"`
	case 1:
		return key, "'" + key + "'"
	case 2:
		return key, `"\u006b` + key[1:] + `"`
	case 3:
		key += "]=#\""
		return key, "'" + key + "'"
	}
	return key, key
}

func (d *document) space() string { return d.oneOf("", " ", "\t ") }

// pair writes a key and its value into the table at path.
func (d *document) pair(path string, depth int) {
	for {
		key, written := d.key()
		path = join(path, key)
		d.lines[path] = d.line
		d.write(written + d.space())
		if d.upTo(3) > 0 {
			break
		}
		d.write("." + d.space())
	}
	d.write("=" + d.space())
	d.value(path, depth)
}

func (d *document) value(path string, depth int) {
	kind := d.upTo(7)
	if depth == 0 {
		kind = 7
	}
	switch kind {
	case 0, 1:
		d.write("[")
		for i := range d.upTo(3) {
			if i > 0 {
				d.write(",")
			}
			d.write(d.blank())
			d.lines[element(path, i)] = d.line
			d.value(element(path, i), depth-1)
			d.write(d.blank())
		}
		d.write("]")
	case 2, 3:
		d.write("{")
		for i := range d.upTo(3) {
			if i > 0 {
				d.write(",")
			}
			d.write(d.blank())
			d.pair(path, depth-1)
			d.write(d.blank())
		}
		d.write("}")
	default:
		d.write(d.oneOf("1", "-1.5e3", "0xff", "true", "nan", "1979-05-27 07:32:00Z", "07:32:00",
			`""`, `"a # b"`, `"\"]"`, `"\\"`, `''`, `'\'`, `'{"'`,
			`""""""`, "\"\"\"\n[a]\nb = 1\"\"\"", "\"\"\"\\\n  x\\\"\"\"\"\"", "\"\"\"a \"\" b\"\"\"\"\"",
			"''''''", "'''\n\n'' \\'''", "'''a'''''"))
	}
}

// pairs writes the pairs that follow a header.
func (d *document) pairs(path string, depth int) {
	for range d.upTo(3) {
		d.write(d.blank())
		d.pair(path, depth)
		d.write(d.space() + d.oneOf("\n", "\r\n", "# ]\n"))
	}
}

// headers writes tables, and lists of tables, inside the one at path; written is its header.
func (d *document) headers(path, written string, depth int) {
	if depth == 0 {
		return
	}
	for range d.upTo(2) {
		key, w := d.key()
		sub := join(path, key)
		if written != "" {
			w = written + d.space() + "." + d.space() + w
		}
		if d.upTo(1) == 0 {
			d.lines[sub] = d.line
			d.write("[" + d.space() + w + d.space() + "]" + d.space() + "\n")
			d.pairs(sub, depth)
			d.headers(sub, w, depth-1)
			continue
		}
		d.lines[sub] = d.line
		for i := range 1 + d.upTo(2) {
			d.lines[element(sub, i)] = d.line
			d.write("[[" + d.space() + w + d.space() + "]] # [[\n")
			d.pairs(element(sub, i), depth)
			d.headers(element(sub, i), w, depth-1)
		}
	}
}
