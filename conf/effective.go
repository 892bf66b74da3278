package conf

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Effective returns c as a file with all keys that apply, defaults included. It means the same as the file that c was
// read from. A key that is not in that file has a comment that says where its value is from.
func (c *Config) Effective() []byte {
	e := effective{config: c}
	e.table(reflect.ValueOf(c).Elem(), "", "")
	return bytes.TrimLeft(e.out.Bytes(), "\n")
}

// An effective is the state of one call of Effective.
type effective struct {
	config *Config
	out    bytes.Buffer
}

// table writes the keys of the table at path, and then the tables in it.
func (e *effective) table(v reflect.Value, path, header string) {
	fields := fieldsOf(v.Type())
	var tables []field
	if header != "" {
		fmt.Fprintf(&e.out, "\n[%s]\n", header)
	}
	for _, f := range fields {
		value := v.FieldByIndex(f.index)
		switch {
		case !applies(f, fields, v):
		case isTable(value.Type()), value.Kind() == reflect.Pointer, f.named:
			tables = append(tables, f)
		default:
			sub := join(path, f.key)
			fmt.Fprintf(&e.out, "%s = %s%s\n", f.key, inline(value), e.origin(sub))
		}
	}
	for _, f := range tables {
		value, sub := v.FieldByIndex(f.index), join(path, f.key)
		switch {
		case f.named:
			for i := range value.Len() {
				one := join(sub, value.Index(i).FieldByName("Name").String())
				e.table(value.Index(i), one, tomlPath(sub, value.Index(i).FieldByName("Name").String()))
			}
		case isTable(value.Type()):
			e.table(value, sub, tomlPath(header, f.key))
		case !value.IsNil():
			e.table(value.Elem(), sub, tomlPath(header, f.key))
		}
	}
}

// tomlPath adds a key to the header of a table.
func tomlPath(header, key string) string {
	if !bare(key) {
		key = `"` + key + `"` // names have nothing to escape
	}
	if header == "" {
		return key
	}
	return header + "." + key
}

// origin says where the value of the key at path is from, if that is not the file.
func (e *effective) origin(path string) string {
	switch from, derived := e.config.origin[path]; {
	case derived:
		return " # " + from
	case e.config.given[path]:
		return ""
	}
	return " # default"
}

// applies reports whether a table may have a key, and the key has a value.
func applies(f field, fields []field, table reflect.Value) bool {
	if f.when != "" {
		i := slices.IndexFunc(fields, func(d field) bool { return d.key == f.when })
		if !decides(table.FieldByIndex(fields[i].index).String(), f.whenOneof) {
			return false
		}
	}
	v := table.FieldByIndex(f.index)
	switch {
	case !v.IsZero() && (v.Kind() != reflect.Slice || v.Len() > 0):
		return true
	case v.Kind() == reflect.Slice:
		return f.zeroAllowed || !f.isRequired && v.Type().Elem().Kind() == reflect.String && f.def == ""
	case f.alone || f.isRequired:
		return false
	}
	return v.Kind() != reflect.Pointer
}

// inline writes a value on one line, but for a list of tables, which has one line for each.
func inline(v reflect.Value) string {
	if v.Kind() != reflect.Slice {
		return tomlText(v)
	}
	if isAddresses(v.Type()) && v.Len() == 1 {
		return tomlText(v.Index(0))
	}
	tables := v.Type().Elem().Kind() == reflect.Struct
	texts := make([]string, v.Len())
	for i := range texts {
		if tables {
			texts[i] = inlineTable(v.Index(i))
		} else {
			texts[i] = tomlText(v.Index(i))
		}
	}
	if tables {
		return "[\n  " + strings.Join(texts, ",\n  ") + ",\n]"
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// inlineTable writes a table between braces.
func inlineTable(v reflect.Value) string {
	fields := fieldsOf(v.Type())
	var texts []string
	for _, f := range fields {
		value := v.FieldByIndex(f.index)
		if !applies(f, fields, v) {
			continue
		}
		text := inline(value)
		if value.Kind() == reflect.Slice {
			text = strings.ReplaceAll(strings.ReplaceAll(text, "\n  ", " "), ",\n]", "]")
		}
		texts = append(texts, f.key+" = "+text)
	}
	return "{ " + strings.Join(texts, ", ") + " }"
}

// tomlText writes a value that is no list and no table.
func tomlText(v reflect.Value) string {
	switch text := v.Interface().(type) {
	case fmt.Stringer: // a duration, a size or a rate
		return tomlString(text.String())
	case string:
		return tomlString(escape(text))
	}
	return literal(v.Interface())
}

// tomlString quotes a text as TOML does (TOML 1.0, "String").
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0:
			fmt.Fprintf(&b, `\u%04X`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
