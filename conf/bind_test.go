package conf

import (
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"testing"
)

// A knownKey is one key that the binder knows, with a path such as pool.*.backends[].weight.
type knownKey struct {
	path string
	t    reflect.Type
	tag  reflect.StructTag
	field
}

// knownKeys lists all keys inside a table, the tables among them too.
func knownKeys(t reflect.Type, path string) []knownKey {
	var keys []knownKey
	for _, f := range fieldsOf(t) {
		k := knownKey{join(path, f.key), t.Field(f.index).Type, t.Field(f.index).Tag, f}
		keys = append(keys, k)
		switch {
		case f.named:
			keys = append(keys, knownKeys(k.t.Elem(), k.path+".*")...)
		case k.t.Kind() == reflect.Slice:
			keys = append(keys, knownKeys(k.t.Elem(), k.path+"[]")...)
		case k.t.Kind() == reflect.Pointer:
			keys = append(keys, knownKeys(k.t.Elem(), k.path)...)
		case k.t.Kind() == reflect.Struct:
			keys = append(keys, knownKeys(k.t, k.path)...)
		}
	}
	return keys
}

func (k knownKey) isScalar() bool {
	return k.t.Kind() != reflect.Slice && k.t.Kind() != reflect.Pointer && k.t.Kind() != reflect.Struct
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
		if !k.isScalar() {
			continue
		}
		v := reflect.New(k.t).Elem()
		_, isText := v.Addr().Interface().(encoding.TextUnmarshaler)
		isNumber := isText || v.CanInt() || v.CanFloat()
		if isNumber && (k.min == "" || k.max == "") {
			complain("no bounds")
			continue
		}
		_, hasDefault := k.tag.Lookup("default")
		if hasDefault == k.isRequired {
			complain("neither or both of default and required")
		}
		if isNumber && k.def != "" && !k.within(fromTag(k.t, k.def)) {
			complain("the default %s is out of bounds", k.def)
		}
		if k.oneof != nil && !slices.Contains(k.oneof, k.def) {
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
		Plain int     `toml:"plain" default:"1"`
		Both  string  `toml:"both" default:"x" required:"y"`
		None  bool    `toml:"none"`
		Out   Size    `toml:"out" default:"1B" min:"2B" max:"3B"`
		Of    string  `toml:"of" default:"c" oneof:"a,b"`
		Upper float64 `toml:"Upper" default:"1" min:"0" max:"2"`
	}
	type sample struct {
		T []table `toml:"t"`
	}
	want := []string{"t[].plain: no bounds", "t[].both: neither or both of default and required",
		"t[].none: neither or both of default and required", "t[].out: the default 1B is out of bounds",
		`t[].of: the default "c" is not allowed`, "t[].Upper: the name is not in lower case"}
	if got := wrongTags(reflect.TypeFor[sample]()); !slices.Equal(got, want) {
		t.Fatalf("this test cannot fail: of a bad sample it says %q, want %q", got, want)
	}
	for _, w := range wrongTags(reflect.TypeFor[Config]()) {
		t.Error(w)
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
		r := newReport("f", map[string]int{})
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
