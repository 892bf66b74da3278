package conf

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strconv"
	"strings"
)

// The schema is made from the same fields and tags as the binder, and from the comments of the reference. It is JSON
// Schema draft 4, the draft whose keywords all editors for TOML know: Taplo and so Even Better TOML support no later
// one in full.
//
// It is weaker than Parse, on purpose. A key that is for some types only is allowed with every type, as its description
// says. Bounds of durations and sizes, and rules between keys, are only in descriptions. No table is required, since a
// file that another one includes has only some of them.

// variablePattern is a string with a variable of the environment, which may stand wherever a string may.
const variablePattern = `\$\{`

// namePattern is validName as a regular expression.
const namePattern = `^[A-Za-z0-9_.-]{1,64}$`

// Schema returns the JSON Schema of a configuration, for editors, with a line break at its end.
func Schema() []byte {
	s := &schema{texts: schemaTexts(), reference: referenceTexts()}
	root := s.table(reflect.TypeFor[Config](), "")
	root["$schema"] = "http://json-schema.org/draft-04/schema#"
	root["title"] = "lb.toml, the configuration of limeload-l4"
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(root); err != nil {
		panic("conf: the schema is no JSON: " + err.Error())
	}
	return text.Bytes()
}

// A schema is the state of one call of Schema.
type schema struct {
	// by path
	texts     map[string]string // of this package
	reference map[string]string // comments
}

// describe returns what the key at path is for; "" if nothing says it.
func (s *schema) describe(path string) string {
	path = strings.Replace(path, ".health.checks[].", ".health.", 1) // the same keys
	return cmp.Or(s.texts[path], s.reference[path])
}

// table returns the schema of a table of type t.
func (s *schema) table(t reflect.Type, path string) map[string]any {
	properties, required := map[string]any{}, []string{}
	table := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	fields := fieldsOf(t)
	for _, f := range fields {
		sub := join(path, f.key)
		one := s.key(t.FieldByIndex(f.index).Type, f, sub)
		if text := s.describe(sub); text != "" {
			one["description"] = text + onlyWith(f)
		}
		properties[f.key] = one
		switch {
		case f.alone:
			table["minProperties"], table["maxProperties"] = 1, 1
		case f.unless != "":
			table["anyOf"] = []any{
				map[string]any{"required": []string{f.key}}, map[string]any{"required": []string{f.unless}},
			}
		case f.isRequired && f.when == "" && !f.named: // see above: no table is
			required = append(required, f.key)
		}
	}
	if len(required) > 0 { // draft 4 allows no empty list
		table["required"] = required
	}
	return table
}

// onlyWith says with which other key a key is allowed, as text behind a description.
func onlyWith(f field) string {
	if f.when == "" {
		return ""
	}
	return fmt.Sprintf(" [Only where %s is %s.]", f.when, either(f.whenOneof))
}

// key returns the schema of the value of a key, without its description.
func (s *schema) key(t reflect.Type, f field, path string) map[string]any {
	switch {
	case f.named:
		return map[string]any{
			"type":                 "object",
			"patternProperties":    map[string]any{namePattern: s.table(t.Elem(), path+".*")},
			"additionalProperties": false,
		}
	case t.Kind() == reflect.Pointer:
		return s.table(t.Elem(), path)
	case isTable(t):
		return s.table(t, path)
	case t.Kind() == reflect.Slice:
		return s.list(t, f, path)
	}
	one := scalarSchema(t, f)
	if !f.isRequired && !f.alone {
		one["default"] = schemaDefault(t, f)
	}
	return one
}

// list returns the schema of a list.
func (s *schema) list(t reflect.Type, f field, path string) map[string]any {
	var elem map[string]any
	if t.Elem().Kind() == reflect.Struct {
		elem = s.table(t.Elem(), path+"[]")
		if plainKey(t.Elem()) != "" {
			elem = map[string]any{"anyOf": []any{map[string]any{"type": "string"}, elem}}
		}
	} else {
		elem = scalarSchema(t.Elem(), field{oneof: f.oneof})
	}
	list := map[string]any{"type": "array", "items": elem}
	if f.max != "" {
		list["maxItems"] = schemaNumber(f.max)
	}
	if f.isRequired && !f.zeroAllowed {
		list["minItems"] = schemaNumber(cmp.Or(f.min, "1"))
	}
	if isAddresses(t) {
		return map[string]any{"anyOf": []any{map[string]any{"type": "string"}, list}}
	}
	return list
}

// scalarSchema returns the schema of a value that is neither a list nor a table.
func scalarSchema(t reflect.Type, f field) map[string]any {
	if pattern := patternOf(t); pattern != "" {
		one := map[string]any{"type": "string", "pattern": pattern + "|" + variablePattern}
		if t == reflect.TypeFor[AccessLines]() { // true and false stand for two of its words
			return map[string]any{"anyOf": []any{one, map[string]any{"type": "boolean"}}}
		}
		return one
	}
	switch t.Kind() {
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int:
		return bounded("integer", f)
	case reflect.Float64:
		return bounded("number", f)
	}
	if f.oneof != nil {
		return map[string]any{"type": "string", "anyOf": []any{
			map[string]any{"enum": f.oneof}, map[string]any{"pattern": variablePattern},
		}}
	}
	return map[string]any{"type": "string"}
}

// patternOf returns the pattern of the texts of a type with units; "" for other types.
func patternOf(t reflect.Type) string {
	const sizes = `(B|kB|KB|KiB|MB|MiB|GB|GiB|TB|TiB)`
	switch t {
	case reflect.TypeFor[Duration]():
		return `^\+?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`
	case reflect.TypeFor[Size]():
		return `^[0-9]+` + sizes + `$`
	case reflect.TypeFor[Bandwidth]():
		return `^([0-9]+` + sizes + `/s)?$`
	case reflect.TypeFor[Rate]():
		return `^([0-9]+/[smh]( burst [0-9]+)?)?$`
	case reflect.TypeFor[AccessLines]():
		return `^(all|errors|none|1/[1-9][0-9]*)$`
	case reflect.TypeFor[Percent]():
		return `^[0-9]*\.?[0-9]*%/s$`
	}
	return ""
}

// bounded returns the schema of a number. Zero may be allowed besides its bounds.
func bounded(kind string, f field) map[string]any {
	one := map[string]any{"type": kind}
	if f.min == "" {
		return one
	}
	bounds := map[string]any{"minimum": schemaNumber(f.min), "maximum": schemaNumber(f.max)}
	if f.zeroAllowed {
		one["anyOf"] = []any{bounds, map[string]any{"enum": []int{0}}}
	} else {
		maps.Copy(one, bounds)
	}
	return one
}

// schemaNumber is a number of a tag.
func schemaNumber(tag string) any {
	if n, err := strconv.ParseInt(tag, 0, 64); err == nil {
		return n
	}
	return fromTag(reflect.TypeFor[float64](), tag).Float()
}

// schemaDefault returns the default of a key as JSON has it.
func schemaDefault(t reflect.Type, f field) any {
	v := fromTag(t, f.def)
	if text, ok := v.Interface().(fmt.Stringer); ok {
		return text.String()
	}
	return v.Interface()
}

// referenceTexts returns the comments of the reference, by the path of the key that they are about, such as
// pool.*.health.rise. A comment counts for the first key on its line, and only the first key of each path has one.
func referenceTexts() map[string]string {
	found, root, e := readTOML(Reference)
	if e != nil {
		panic("conf: the reference is no TOML: " + e.Error())
	}
	r := &referenceReader{lines: strings.Split(string(Reference), "\n"), texts: map[string]string{},
		orders: map[string]int{}}
	r.read(found, root, reflect.TypeFor[Config](), "")
	return r.texts
}

// A referenceReader collects the comments of the reference.
type referenceReader struct {
	lines  []string
	texts  map[string]string
	orders map[string]int // of the place that a text is from
}

// read collects the comments of the keys of the table v, of type t.
func (r *referenceReader) read(v map[string]any, at *place, t reflect.Type, path string) {
	for _, f := range fieldsOf(t) {
		value, present := v[f.key]
		if !present {
			continue
		}
		sub, sort, where := join(path, f.key), t.FieldByIndex(f.index).Type, at.child(f.key)
		r.note(sub, f.key, where)
		if sort.Kind() == reflect.Pointer {
			sort = sort.Elem()
		}
		switch value := value.(type) {
		case map[string]any:
			if !f.named {
				r.read(value, where, sort, sub)
				continue
			}
			for name, one := range value {
				r.read(one.(map[string]any), where.child(name), sort.Elem(), sub+".*")
			}
		case []any:
			for i, one := range value {
				if table, is := one.(map[string]any); is {
					r.read(table, where.item(i), sort.Elem(), sub+"[]")
				}
			}
		}
	}
}

// note keeps the comment of the line of a key, if the line begins with the key and its path has no earlier one.
func (r *referenceReader) note(path, key string, at *place) {
	line := strings.TrimSpace(r.lines[at.line-1])
	isKey := strings.HasPrefix(line, key) && strings.HasPrefix(strings.TrimLeft(line[len(key):], " "), "=")
	isHeader := strings.HasPrefix(line, "[") && strings.Contains(line, "."+key+"]")
	if old, seen := r.orders[path]; !isKey && !isHeader || seen && old < at.order {
		return
	}
	comment := commentOf(line)
	for _, next := range r.lines[at.line:] { // a comment may continue on lines of its own
		if more, is := strings.CutPrefix(strings.TrimLeft(next, " "), "# "); is && strings.HasPrefix(next, "      ") {
			comment += " " + more
			continue
		}
		break
	}
	if comment != "" {
		r.texts[path], r.orders[path] = comment, at.order
	}
}

// commentOf returns the comment at the end of a line; "" if it has none.
func commentOf(line string) string {
	var quote rune
	for i, c := range line {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '#':
			return strings.TrimSpace(line[i+1:])
		}
	}
	return ""
}
