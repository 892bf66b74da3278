package conf

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/limeload/limeload-l4/algo"
)

// The binder fills structs from the tree of values that the TOML library decoded. It knows no keys, only the fields'
// types and tags.
//
//	toml:"key"        the key's name; a field without this tag is none of the binder's business
//	toml:"key,named"  a table of tables, []T; each one's key becomes its Name, the order is the file's
//	default:"3s"      what a key left out stands for, for a list of texts "a,b"; each key has this,
//	                  required or alone, but for tables
//	depends:""        what a key left out stands for may be something else, by what other keys say:
//	                  validate decides, and report.absent says that the file leaves it out
//	required:"..."    the key must stand in the file, a list or a table of tables must hold
//	                  something; the text says what is wanted
//	plain:""          a text in place of the table is this key's value
//	unless:"other"    the key is not required where that other key of the same table stands
//	if:"type=a"       of a key with when: it is required only where the deciding key says one of these
//	when:"type=a,b"   the key is one of those tables alone whose key type says a or b: elsewhere it
//	                  is a mistake, and not required
//	alone:""          of the keys with this tag exactly one stands in the table, and is not empty
//	min, max          the bounds, both allowed; each number, duration and size has them (a Rate has its own), and for a
//	                  list they are how many elements it may have, if any
//	zero:""           zero, or an empty list, is allowed besides, where it means "off" or the like;
//	                  a list that is required or has a default is not empty otherwise
//	step:"1s"         durations: only whole multiples
//	oneof:"a,b"       the texts allowed, also in a list
//	oneof:"algorithms" the names of algo.Kinds
//	note:"..."        is added to what the error says is allowed
//
// A struct is a table, and has its keys' defaults if it is left out; a pointer to one stays nil if it is left out; a
// slice is a list of tables, or of texts. A text in place of Addresses is its only element. The keys of an embedded
// struct are keys of the table itself.
type field struct {
	index          []int // see reflect.Value.FieldByIndex
	key            string
	named          bool
	def, required  string
	depends        bool
	isRequired     bool
	unless         string
	alone          bool
	when           string   // the key that decides
	whenOneof      []string // what it has to say
	requiredIf     []string // what it has to say for the key to be required; nil is whatever it allows
	min, max, step string
	zeroAllowed    bool
	oneof          []string
	note           string
}

// fieldsOf returns the keys of a table in the order of t's fields.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		if t.Field(i).Anonymous {
			for _, f := range fieldsOf(t.Field(i).Type) {
				f.index = append([]int{i}, f.index...)
				fields = append(fields, f)
			}
			continue
		}
		name, isKey := tag.Lookup("toml")
		if !isKey {
			continue
		}
		key, option, _ := strings.Cut(name, ",")
		f := field{
			index: []int{i}, key: key, named: option == "named",
			def: tag.Get("default"), min: tag.Get("min"), max: tag.Get("max"), step: tag.Get("step"),
			unless: tag.Get("unless"), note: tag.Get("note"),
		}
		if decides, oneof, ok := strings.Cut(tag.Get("when"), "="); ok {
			f.when, f.whenOneof = decides, strings.Split(oneof, ",")
		}
		if _, oneof, ok := strings.Cut(tag.Get("if"), "="); ok {
			f.requiredIf = strings.Split(oneof, ",")
		}
		f.required, f.isRequired = tag.Lookup("required")
		_, f.depends = tag.Lookup("depends")
		_, f.alone = tag.Lookup("alone")
		_, f.zeroAllowed = tag.Lookup("zero")
		switch oneof := tag.Get("oneof"); oneof {
		case "":
		case "algorithms":
			f.oneof = algorithms(func(algo.Kind) bool { return true })
		default:
			f.oneof = strings.Split(oneof, ",")
		}
		fields = append(fields, f)
	}
	return fields
}

// table fills the struct dst from the table found, which is at path and at. If found is nil, there is no table: all
// keys get their defaults and none is missing.
func (r *report) table(dst reflect.Value, found map[string]any, at *place, path string) {
	fields := r.fields[dst.Type()]
	if fields == nil {
		fields = fieldsOf(dst.Type())
		r.fields[dst.Type()] = fields
	}
	known := make([]string, len(fields))
	var here []string // the known keys that this table may have
	for i, f := range fields {
		known[i] = f.key
		sub := join(path, f.key)
		v, present := found[f.key]
		subAt := at
		if present {
			subAt = at.child(f.key)
		}
		fits, foreign := f.fits(fields, found)
		if foreign == "" {
			here = append(here, f.key)
		}
		if foreign == "" || present { // of checks, most keys are neither
			r.lines[sub] = subAt.line
		}
		switch {
		case present && foreign != "":
			r.leftOut(dst.FieldByIndex(f.index), f, at, sub)
			r.add(sub, Error{Found: describe(v), Message: foreign, Allowed: fmt.Sprintf("allowed if %s is %s", f.when,
				either(f.whenOneof))})
		case present:
			r.given[sub] = true
			f.isRequired = f.isRequired && fits // for a list, which may then be empty
			r.value(dst.FieldByIndex(f.index), f, v, subAt, sub)
		case f.isRequired && found == nil:
			r.seen[sub] = true // the table itself is the mistake
		case f.isRequired && fits:
			r.add(sub, Error{Message: "missing", Allowed: "needs " + f.required})
		default:
			r.leftOut(dst.FieldByIndex(f.index), f, at, sub)
		}
	}
	r.unknownKeys(dst.Type(), found, known, here, at, path)
	r.alone(fields, found, path)
}

// alone reports a table that has none or several of the keys of which it needs exactly one. A table with only unknown
// keys has a typo, which is reported already.
func (r *report) alone(fields []field, found map[string]any, path string) {
	var choice, present []string
	for _, f := range fields {
		if !f.alone {
			continue
		}
		choice = append(choice, f.key)
		if _, ok := found[f.key]; ok {
			present = append(present, f.key)
		}
	}
	e := Error{Allowed: "needs exactly one of " + strings.Join(choice, ", ")}
	switch {
	case found == nil || len(choice) == 0 || len(present) == 1:
		return
	case len(present) > 1:
		e.Found = strings.Join(present, ", ")
	case len(found) > 0:
		return
	default:
		e.Found = "an empty table"
	}
	r.add(path, e)
}

// fits reports whether the other keys of the table found allow f to be required. If they forbid f, foreign says which
// one does. A deciding key that is itself a mistake decides nothing.
func (f field) fits(fields []field, found map[string]any) (fits bool, foreign string) {
	if f.unless != "" {
		_, instead := found[f.unless]
		return !instead, ""
	}
	if f.when == "" {
		return true, ""
	}
	decider := fields[slices.IndexFunc(fields, func(d field) bool { return d.key == f.when })]
	is, _ := found[f.when].(string)
	if _, present := found[f.when]; !present {
		is = decider.def
	}
	if !slices.Contains(decider.oneof, is) {
		return false, ""
	}
	if !decides(is, f.whenOneof) {
		return false, fmt.Sprintf("%s is %q", f.when, is)
	}
	return f.requiredIf == nil || slices.Contains(f.requiredIf, is), ""
}

// decides reports whether a value of a deciding key allows a key that is for these values only. "a+b" allows the keys
// that "a" allows, and those that "b" allows.
func decides(value string, oneof []string) bool {
	return slices.ContainsFunc(strings.Split(value, "+"), func(one string) bool { return slices.Contains(oneof, one) })
}

// isTable reports whether a value of type t is a table in the file, and not a text.
func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// leftOut sets dst to the default of an omitted key, or of each key of an omitted table.
func (r *report) leftOut(dst reflect.Value, f field, at *place, path string) {
	switch {
	case isTable(dst.Type()):
		r.table(dst, nil, at, path)
	case dst.Kind() == reflect.Pointer:
	default:
		dst.Set(fromTag(dst.Type(), f.def))
		if f.depends {
			r.absent[path] = true
		}
	}
}

// value fills dst with the value found at path. After a mistake dst has its default.
func (r *report) value(dst reflect.Value, f field, v any, at *place, path string) {
	switch {
	case dst.Kind() == reflect.Pointer:
		dst.Set(reflect.New(dst.Type().Elem()))
		r.value(dst.Elem(), f, v, at, path)
	case isTable(dst.Type()):
		found, ok := v.(map[string]any)
		if text, is := v.(string); is {
			if key := plainKey(dst.Type()); key != "" {
				found, ok = map[string]any{key: text}, true
			}
		}
		if !ok {
			r.add(path, Error{Found: describe(v), Allowed: "needs a table"})
		}
		r.table(dst, found, at, path)
	case dst.Kind() == reflect.Slice:
		if f.named {
			r.named(dst, f, v, at, path)
		} else {
			r.list(dst, f, v, at, path)
		}
	default:
		r.scalar(dst, f, v, path)
	}
}

// plainKey returns the key whose plain value may replace the whole table; "" if there is none.
func plainKey(t reflect.Type) string {
	for i := range t.NumField() {
		if _, plain := t.Field(i).Tag.Lookup("plain"); plain {
			return t.Field(i).Tag.Get("toml")
		}
	}
	return ""
}

// named fills the slice dst from a table of tables.
func (r *report) named(dst reflect.Value, f field, v any, at *place, path string) {
	found, ok := v.(map[string]any)
	if !ok {
		r.add(path, Error{Found: describe(v), Allowed: fmt.Sprintf("needs tables with names, such as [%s.NAME]", path)})
		return
	}
	if len(found) == 0 && f.isRequired {
		r.add(path, Error{Found: "an empty table", Allowed: "needs " + f.required})
	}
	if len(found) > maxTables {
		r.add(path, Error{Found: fmt.Sprintf("%d tables", len(found)),
			Allowed: fmt.Sprintf("needs %d at most", maxTables)})
		return
	}
	names := slices.SortedFunc(maps.Keys(found), func(a, b string) int {
		return cmp.Compare(at.child(a).order, at.child(b).order)
	})
	elems := reflect.MakeSlice(dst.Type(), len(names), len(names))
	for i, name := range names {
		sub := join(path, name)
		r.lines[sub] = at.child(name).line
		if !validName(name) {
			r.add(sub, Error{Found: "the name " + quote(name), Allowed: nameNeeds})
		}
		elems.Index(i).FieldByName("Name").SetString(name)
		r.value(elems.Index(i), field{}, found[name], at.child(name), sub)
	}
	dst.Set(elems)
}

// list fills the slice dst from a list of texts or of tables, in either way of writing.
func (r *report) list(dst reflect.Value, f field, v any, at *place, path string) {
	dst.Set(fromTag(dst.Type(), f.def))
	var found []any
	switch v := v.(type) {
	case string:
		if isAddresses(dst.Type()) {
			dst.Set(reflect.ValueOf(Addresses{v}))
			return
		}
		r.add(path, Error{Found: describe(v), Allowed: f.needs(dst)})
		return
	case []any: // [{ ... }, { ... }]
		found = v
	case []map[string]any: // [[ ... ]]
		for _, t := range v {
			found = append(found, t)
		}
	default:
		r.add(path, Error{Found: describe(v), Allowed: f.needs(dst)})
		return
	}
	switch n := len(found); {
	case n == 0 && f.isRequired && !f.zeroAllowed:
		r.add(path, Error{Found: "an empty list", Allowed: f.needs(dst)})
	case n == 0 && f.def != "" && !f.zeroAllowed:
		r.add(path, Error{Found: "an empty list", Allowed: f.needs(dst) + ", at least one"})
		return
	case n > 0 && f.max != "" && !f.within(reflect.ValueOf(n)):
		// It is not bound, since the number of mistakes and the memory for its elements would be unbounded too.
		r.add(path, Error{Found: fmt.Sprintf("a list of %d", n), Allowed: "allowed is " + f.allowed(reflect.TypeOf(n))})
		return
	}
	elems := reflect.MakeSlice(dst.Type(), len(found), len(found))
	for i, one := range found {
		sub := element(path, i)
		r.lines[sub] = at.item(i).line
		r.value(elems.Index(i), field{key: f.key, oneof: f.oneof}, one, at.item(i), sub)
	}
	dst.Set(elems)
}

// scalar fills dst from a value that is neither a table nor a list.
func (r *report) scalar(dst reflect.Value, f field, v any, path string) {
	dst.Set(fromTag(dst.Type(), f.def))
	got := reflect.New(dst.Type()).Elem()
	if err := assign(got, v); err != nil {
		r.add(path, f.unassigned(got, v, err))
		return
	}
	e := Error{Found: literal(v), Allowed: "allowed is " + f.allowed(got.Type())}
	switch {
	case f.oneof != nil && !slices.Contains(f.oneof, got.String()):
		e.Nearest = cmp.Or(foreignValue(f.key, got.String(), f.oneof), nearest(got.String(), f.oneof))
	case f.alone && got.IsZero():
		e.Allowed = "needs a text that is not empty"
	case f.min != "" && !f.within(got):
	case f.step != "" && got.Int()%fromTag(got.Type(), f.step).Int() != 0:
		e.Allowed = fmt.Sprintf("needs a multiple of %v", fromTag(got.Type(), f.step))
	default:
		dst.Set(got)
		return
	}
	r.add(path, e)
}

// errType is the error of assign for a value of the wrong type.
var errType = errors.New("a value of another type")

// assign sets dst to v, and returns an error if v has another type or cannot be parsed as dst's.
func assign(dst reflect.Value, v any) error {
	if v == nil { // JSON's null
		return errType
	}
	if text, ok := dst.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if is, ok := v.(bool); ok {
			if switches, ok := text.(interface{ setBool(is bool) }); ok {
				switches.setBool(is)
				return nil
			}
		}
		s, ok := v.(string)
		if !ok {
			return errType
		}
		return text.UnmarshalText([]byte(s))
	}
	got := reflect.ValueOf(v)
	if dst.Kind() == reflect.Float64 && got.CanInt() { // jitter = 0
		got = got.Convert(dst.Type())
	}
	// The library's integers are 64 bits wide, and so are ours wherever the data plane runs.
	if dst.Kind() == reflect.Int && got.CanInt() && !dst.OverflowInt(got.Int()) {
		got = got.Convert(dst.Type())
	}
	if got.Type() != dst.Type() {
		return errType
	}
	dst.Set(got)
	return nil
}

// unassigned says what is wrong with v, which assign did not assign to dst.
func (f field) unassigned(dst reflect.Value, v any, err error) Error {
	if rate, ok := dst.Interface().(Rate); ok && errors.Is(err, errRateBounds) {
		return Error{Found: literal(v), Allowed: rate.bounds()}
	}
	e := Error{Found: describe(v), Allowed: f.needs(dst)}
	if unit, ok := dst.Interface().(interface{ meant(v any) string }); ok {
		e.Nearest = unit.meant(v)
	}
	return e
}

// within reports whether a number is in the field's bounds. NaN never is.
func (f field) within(v reflect.Value) bool {
	low, high := fromTag(v.Type(), f.min), fromTag(v.Type(), f.max)
	switch {
	case f.zeroAllowed && v.IsZero():
		return true
	case v.CanFloat():
		return v.Float() >= low.Float() && v.Float() <= high.Float()
	}
	return v.Int() >= low.Int() && v.Int() <= high.Int()
}

// allowed says what values the tags allow: `0 to 256`, or `"json" or "console"`.
func (f field) allowed(t reflect.Type) string {
	var text string
	switch {
	case f.oneof != nil:
		text = either(f.oneof)
	case f.min != "":
		text = fmt.Sprintf("%v to %v", fromTag(t, f.min), fromTag(t, f.max))
	}
	if f.zeroAllowed {
		zero := fmt.Sprint(reflect.Zero(t))
		if zero == "" { // a bandwidth
			zero = `""`
		}
		text += ", or " + zero
	}
	if f.note != "" {
		text += "; " + f.note
	}
	return text
}

// needs says what type a value of the field must have.
func (f field) needs(v reflect.Value) string {
	if unit, ok := v.Interface().(interface{ needs() string }); ok {
		return unit.needs()
	}
	switch {
	case f.required != "":
		return "needs " + f.required
	case v.Kind() == reflect.Slice && f.oneof != nil:
		return "needs a list of " + either(f.oneof)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String:
		return "needs a list of strings"
	case v.Kind() == reflect.Slice:
		return "needs a list of tables"
	case f.oneof != nil:
		return "needs " + f.allowed(v.Type())
	case v.Kind() == reflect.Bool:
		return "needs true or false"
	case v.CanInt():
		return "needs a whole number, " + f.allowed(v.Type())
	case v.CanFloat():
		return "needs a number, " + f.allowed(v.Type())
	}
	return "needs a string"
}

// fromTag reads a default or a bound, and panics if the tag is wrong: TestTags reads them all.
func fromTag(t reflect.Type, tag string) reflect.Value {
	v := reflect.New(t).Elem()
	var got any = tag
	var err error
	if _, isText := v.Addr().Interface().(encoding.TextUnmarshaler); !isText && tag != "" {
		switch t.Kind() {
		case reflect.Int:
			got, err = strconv.ParseInt(tag, 0, 64)
		case reflect.Float64:
			got, err = strconv.ParseFloat(tag, 64)
		case reflect.Bool:
			got, err = strconv.ParseBool(tag)
		case reflect.Slice:
			got = strings.Split(tag, ",")
		}
	}
	if tag == "" { // the default of a required key, "", or an empty list
		return v
	}
	if err == nil {
		err = assign(v, got)
	}
	if err != nil {
		panic(fmt.Sprintf("conf: tag %q is no %v", tag, t))
	}
	return v
}
