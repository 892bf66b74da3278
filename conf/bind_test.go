package conf

import (
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A knownKey is one key that the binder knows, with a path such as pool.*.backends[].weight.
type knownKey struct {
	path string
	t    reflect.Type
	tag  reflect.StructTag
	field
	table []field // all of the table's
}

// knownKeys lists all keys inside a table, the tables among them too.
func knownKeys(t reflect.Type, path string) []knownKey {
	var keys []knownKey
	table := fieldsOf(t)
	for _, f := range table {
		sf := t.FieldByIndex(f.index)
		k := knownKey{join(path, f.key), sf.Type, sf.Tag, f, table}
		keys = append(keys, k)
		switch {
		case f.named:
			keys = append(keys, knownKeys(k.t.Elem(), k.path+".*")...)
		case k.isTexts() || embeds(t, k.t): // in the latter's elements the same keys stand as here
		case k.t.Kind() == reflect.Slice:
			keys = append(keys, knownKeys(k.t.Elem(), k.path+"[]")...)
		case k.t.Kind() == reflect.Pointer:
			keys = append(keys, knownKeys(k.t.Elem(), k.path)...)
		case isTable(k.t):
			keys = append(keys, knownKeys(k.t, k.path)...)
		}
	}
	return keys
}

func (k knownKey) isScalar() bool {
	return k.t.Kind() != reflect.Slice && k.t.Kind() != reflect.Pointer && !isTable(k.t)
}

// isTexts reports whether the key is a list of texts.
func (k knownKey) isTexts() bool {
	return k.t.Kind() == reflect.Slice && k.t.Elem().Kind() == reflect.String
}

// embeds reports whether list is of the tables whose keys the table t has too.
func embeds(t, list reflect.Type) bool {
	return list.Kind() == reflect.Slice && slices.ContainsFunc(reflect.VisibleFields(t),
		func(f reflect.StructField) bool {
			return f.Anonymous && f.Type == list.Elem()
		})
}

var keyName = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// wrongTags says which tags break the rules that stand above field.
func wrongTags(t reflect.Type) (wrong []string) {
	for _, k := range knownKeys(t, "") {
		complain := func(format string, args ...any) {
			wrong = append(wrong, k.path+": "+fmt.Sprintf(format, args...))
		}
		if !keyName.MatchString(k.key) {
			complain("the name is not in lower case")
		}
		beside := func(key string) (field, bool) {
			i := slices.IndexFunc(k.table, func(f field) bool { return f.key == key })
			if i < 0 || key == k.key {
				return field{}, false
			}
			return k.table[i], true
		}
		if _, ok := beside(k.unless); k.unless != "" && (!ok || !k.isRequired || k.when != "") {
			complain("unless %s is of no use", k.unless)
		}
		if decides, ok := beside(k.when); k.when != "" && (!ok || decides.when != "") {
			complain("%s decides nothing", k.when)
		} else if i := slices.IndexFunc(k.whenOneof,
			func(s string) bool { return !slices.Contains(decides.oneof, s) }); i >= 0 {
			complain("%s is never %q", k.when, k.whenOneof[i])
		}
		if i := slices.IndexFunc(k.requiredIf,
			func(s string) bool { return !k.isRequired || !slices.Contains(k.whenOneof, s) }); i >= 0 {
			complain("if %q is of no use", k.requiredIf[i])
		}
		if _, plain := k.tag.Lookup("plain"); plain && k.t.Kind() != reflect.String {
			complain("plain is for texts")
		}
		isList := k.t.Kind() == reflect.Slice
		if isList && (k.min == "") != (k.max == "") {
			complain("only one bound")
		}
		_, hasDefault := k.tag.Lookup("default")
		if kinds := []bool{hasDefault, k.isRequired, k.alone}; (k.isScalar() || k.isTexts()) &&
			len(slices.DeleteFunc(kinds, func(is bool) bool { return !is })) != 1 {
			complain("not one of default, required and alone")
		}
		if k.alone && k.t.Kind() != reflect.String {
			complain("alone is for texts")
		}
		if k.isTexts() && k.oneof != nil && hasDefault {
			for _, s := range fromTag(k.t, k.def).Interface().([]string) {
				if !slices.Contains(k.oneof, s) {
					complain("the default %q is not allowed", s)
				}
			}
		}
		if !k.isScalar() {
			continue
		}
		v := reflect.New(k.t).Elem()
		_, isText := v.Addr().Interface().(encoding.TextUnmarshaler)
		_, isRate := v.Interface().(Rate) // it has bounds of its own
		isNumber := isText && !isRate || v.CanInt() || v.CanFloat()
		if isNumber && (k.min == "" || k.max == "") {
			complain("no bounds")
			continue
		}
		if isNumber && k.def != "" && !k.within(fromTag(k.t, k.def)) {
			complain("the default %s is out of bounds", k.def)
		}
		if k.oneof != nil && hasDefault && !slices.Contains(k.oneof, k.def) {
			complain("the default %q is not allowed", k.def)
		}
		if k.step != "" && fromTag(k.t, k.min).Int()%fromTag(k.t, k.step).Int() != 0 {
			complain("the bound %s is no multiple of %s", k.min, k.step)
		}
	}
	return wrong
}

func TestTags(t *testing.T) {
	type table struct {
		Plain int      `toml:"plain" default:"1"`
		Both  string   `toml:"both" default:"x" required:"y"`
		None  bool     `toml:"none"`
		Out   Size     `toml:"out" default:"1B" min:"2B" max:"3B"`
		Of    string   `toml:"of" default:"c" oneof:"a,b"`
		Upper float64  `toml:"Upper" default:"1" min:"0" max:"2"`
		Less  string   `toml:"less" default:"" unless:"of"`
		Lost  string   `toml:"lost" required:"y" unless:"plian"`
		When  string   `toml:"when" default:"" when:"of=a,d"`
		Then  string   `toml:"then" default:"" when:"fo=a"`
		Self  string   `toml:"self" default:"" when:"self=a"`
		Chain string   `toml:"chain" default:"" when:"when=a"`
		Texts []string `toml:"texts" default:"a,c" oneof:"a,b" min:"1"`
		Some  []string `toml:"some"`
		Alone string   `toml:"alone" default:"" alone:""`
		Apart int      `toml:"apart" min:"1" max:"2" alone:""`
		If    string   `toml:"if" required:"y" when:"of=a" if:"of=b"`
		Bare  bool     `toml:"bare" default:"false" plain:""`
	}
	type sample struct {
		T []table `toml:"t"`
	}
	want := []string{"t[].plain: no bounds", "t[].both: not one of default, required and alone",
		"t[].none: not one of default, required and alone", "t[].out: the default 1B is out of bounds",
		`t[].of: the default "c" is not allowed`, "t[].Upper: the name is not in lower case",
		"t[].less: unless of is of no use", "t[].lost: unless plian is of no use", `t[].when: of is never "d"`,
		"t[].then: fo decides nothing",
		"t[].self: self decides nothing", "t[].chain: when decides nothing",
		"t[].texts: only one bound", `t[].texts: the default "c" is not allowed`,
		"t[].some: not one of default, required and alone",
		"t[].alone: not one of default, required and alone", "t[].apart: alone is for texts",
		`t[].if: if "b" is of no use`, "t[].bare: plain is for texts"}
	if got := wrongTags(reflect.TypeFor[sample]()); !slices.Equal(got, want) {
		t.Fatalf("this test cannot fail: of a bad sample it says %q, want %q", got, want)
	}
	for _, known := range []reflect.Type{reflect.TypeFor[Config](), reflect.TypeFor[backendFile]()} {
		for _, w := range wrongTags(known) {
			t.Error(w)
		}
	}
}

// TestBindWhen: a key that decides by its default, and one that stands only beside a list.
func TestBindWhen(t *testing.T) {
	type one struct {
		A int `toml:"a" default:"3" min:"1" max:"9"`
	}
	type sample struct {
		Kind string `toml:"kind" default:"x" oneof:"x,y,z"`
		A    int    `toml:"a" required:"a number" min:"1" max:"9" when:"kind=x"`
		B    string `toml:"b" default:"q" when:"kind=y,z"`
		Ones []one  `toml:"ones" required:"a one" unless:"more"`
		More *one   `toml:"more"`
	}
	list, empty := []any{map[string]any{}}, []any{}
	for _, tt := range []struct {
		found map[string]any
		want  string
	}{
		{map[string]any{"a": int64(1), "ones": list}, ""},
		{map[string]any{"ones": list}, "f:1: a: missing; needs a number"},
		{map[string]any{"ones": list, "kind": "y"}, ""},
		{map[string]any{"ones": list, "kind": "w"}, `f:1: kind: found "w"; allowed is "x", "y" or "z"`},
		{map[string]any{"ones": list, "kind": int64(1), "b": "q"},
			`f:1: kind: found the integer 1; needs "x", "y" or "z"`},
		{map[string]any{"ones": list, "kind": "z", "a": "two"},
			`f:1: a: found the string "two"; kind is "z"; allowed if kind is "x"`},
		{map[string]any{"ones": list, "a": int64(1), "b": nil},
			`f:1: b: found null; kind is "x"; allowed if kind is "y" or "z"`},
		{map[string]any{"a": int64(1)}, `f:1: ones: missing; needs a one`},
		{map[string]any{"a": int64(1), "ones": empty}, `f:1: ones: found an empty list; needs a one`},
		{map[string]any{"a": int64(1), "ones": empty, "more": map[string]any{}}, ``},
		{map[string]any{"a": int64(1), "more": nil}, `f:1: more: found null; needs a table`},
	} {
		r := newReport(whole("f"), map[string]int{})
		var s sample
		r.table(reflect.ValueOf(&s).Elem(), tt.found, &place{line: 1}, "")
		if got := r.sorted().Error(); got != tt.want {
			t.Errorf("%v gives %q, want %q", tt.found, got, tt.want)
		}
		if s.B != "q" {
			t.Errorf("%v leaves b as %q", tt.found, s.B)
		}
	}
}

// TestBindTexts: lists of texts, tables of keys that stand alone, and keys of an embedded struct.
func TestBindTexts(t *testing.T) {
	type Choice struct {
		X string `toml:"x" alone:""`
		Y string `toml:"y" alone:""`
	}
	type Shared struct {
		Plain []string `toml:"plain" default:""`
		Some  []string `toml:"some" default:"b,c" oneof:"a,b,c"`
		Kind  string   `toml:"kind" default:"x" oneof:"x,y"`
	}
	type sample struct {
		Shared
		Need []string `toml:"need" required:"two words or three" min:"2" max:"3" when:"kind=y"`
		List []Choice `toml:"list" min:"1" max:"2"`
	}
	list := func(elems ...any) []any { return elems }
	one := func(keys ...string) map[string]any {
		m := map[string]any{}
		for _, k := range keys {
			m[k] = k
		}
		return m
	}
	rest := Shared{Some: []string{"b", "c"}, Kind: "x"}
	for _, tt := range []struct {
		key   string
		value any
		want  string
	}{
		{"plain", list(), ""},
		{"plain", list("", "q"), ""},
		{"plain", "q", `plain: found the string "q"; needs a list of strings`},
		{"plain", nil, `plain: found null; needs a list of strings`},
		{"plain", []map[string]any{{}}, `plain[0]: found a table; needs a string`},
		{"plain", list("q", int64(1), list()),
			"plain[1]: found the integer 1; needs a string\nf:1: plain[2]: found a list; needs a string"},
		{"some", list("a"), ""},
		{"some", list(), `some: found an empty list; needs a list of "a", "b" or "c", at least one`},
		{"some", int64(1), `some: found the integer 1; needs a list of "a", "b" or "c"`},
		{"some", list("a", "A"), `some[1]: found "A"; allowed is "a", "b" or "c", did you mean "a"?`},
		{"some", list(true), `some[0]: found true; needs "a", "b" or "c"`},
		{"need", list("a", "b"), `need: found a list; kind is "x"; allowed if kind is "y"`},
		{"kind", "y", `need: missing; needs two words or three`},
		{"list", list(), ""},
		{"list", list(one("x"), one("y")), ""},
		{"list", list(one("x"), one("y"), one()), `list: found a list of 3; allowed is 1 to 2`},
		{"list", int64(1), `list: found the integer 1; needs a list of tables`},
		{"list", list("x"), `list[0]: found the string "x"; needs a table`},
		{"list", list(one(), one("x", "y")),
			"list[0]: found an empty table; needs exactly one of x, y\nf:1: list[1]: found x, y; needs exactly one of x, y"},
		{"list", list(one("q"), map[string]any{"y": ""}),
			"list[0].q: unknown key; allowed here: x, y\nf:1: list[1].y: found \"\"; needs a text that is not empty"},
		{"q", "", `q: unknown key; allowed here: plain, some, kind, list`},
	} {
		r := newReport(whole("f"), map[string]int{})
		var s sample
		r.table(reflect.ValueOf(&s).Elem(), map[string]any{tt.key: tt.value}, &place{line: 1}, "")
		want := tt.want
		if want != "" {
			want = "f:1: " + want
		}
		if got := r.sorted().Error(); got != want {
			t.Errorf("%s = %v gives %q, want %q", tt.key, tt.value, got, want)
		}
		if tt.want != "" && tt.key != "kind" && !strings.HasPrefix(tt.want, tt.key+"[") && !reflect.DeepEqual(s.Shared,
			rest) {
			t.Errorf("%s = %v leaves %+v", tt.key, tt.value, s.Shared)
		}
	}
	for n, want := range []string{"found an empty list; needs two words or three",
		"found a list of 1; allowed is 2 to 3", "", "", "found a list of 4; allowed is 2 to 3"} {
		r := newReport(whole("f"), map[string]int{})
		var s sample
		r.table(reflect.ValueOf(&s).Elem(), map[string]any{"kind": "y", "need": slices.Repeat(list("w"), n)},
			&place{line: 1}, "")
		if want != "" {
			want = "f:1: need: " + want
		} else if len(s.Need) != n {
			t.Errorf("%d words become %q", n, s.Need)
		}
		if got := r.sorted().Error(); got != want {
			t.Errorf("%d words give %q, want %q", n, got, want)
		}
	}
}

// TestBindSize binds a Size, which no key is yet.
func TestBindSize(t *testing.T) {
	type sample struct {
		Z Size `toml:"z" default:"64KiB" min:"1KiB" max:"1GiB"`
	}
	for _, tt := range []struct {
		found any
		want  Size
		err   string
	}{
		{nil, 64 << 10, ""},
		{"10MB", 10e6, ""},
		{"1B", 64 << 10, `f:1: z: found "1B"; allowed is 1KiB to 1GiB`},
		{int64(10), 64 << 10, `f:1: z: found the integer 10; needs a size with a unit, such as "64KiB" or "10MB"`},
	} {
		r := newReport(whole("f"), map[string]int{})
		var s sample
		found := map[string]any{}
		if tt.found != nil {
			found["z"] = tt.found
		}
		r.table(reflect.ValueOf(&s).Elem(), found, &place{line: 1}, "")
		if s.Z != tt.want || r.sorted().Error() != tt.err {
			t.Errorf("%v gives %v, %q; want %v, %q", tt.found, s.Z, r.errs, tt.want, tt.err)
		}
	}
}
