package conf

import (
	"fmt"
	"reflect"
	"strings"
)

// A Difference is a key with different values in two configurations. It is a plain value.
type Difference struct {
	// Keys is the path to the key, such as "pool", "redis", "retries". For a table or backend that only one
	// configuration has, it ends with the name. Elements of other lists are not distinguished.
	Keys     []string
	From, To string // as written in a file; "" if there is none
}

// someTable stands for a table, or a list of tables, in a Difference.
const someTable = "{...}"

// Compare returns the differences between c and next, in the order of c and then of next. It compares only keys, with
// their defaults, and neither the addresses of host names nor the order of listeners, pools and backends.
func (c *Config) Compare(next *Config) []Difference {
	d := comparison{fields: make(map[reflect.Type][]field)}
	d.tables(reflect.ValueOf(c).Elem(), reflect.ValueOf(next).Elem(), nil)
	return d.found
}

// A comparison is the state of one call of Compare.
type comparison struct {
	found  []Difference
	fields map[reflect.Type][]field // of the tables compared so far: reading the tags took most of the time
}

func (d *comparison) add(keys []string, from, to string) {
	d.found = append(d.found, Difference{Keys: append([]string(nil), keys...), From: from, To: to})
}

// tables compares two structs key by key.
func (d *comparison) tables(a, b reflect.Value, keys []string) {
	fields, known := d.fields[a.Type()]
	if !known {
		fields = fieldsOf(a.Type())
		d.fields[a.Type()] = fields
	}
	for _, f := range fields {
		d.values(a.FieldByIndex(f.index), b.FieldByIndex(f.index), append(keys, f.key))
	}
}

func (d *comparison) values(a, b reflect.Value, keys []string) {
	switch {
	case isTable(a.Type()):
		d.tables(a, b, keys)
	case a.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil():
		d.tables(a.Elem(), b.Elem(), keys)
	case a.Kind() == reflect.Pointer:
		if a.IsNil() != b.IsNil() {
			d.add(keys, tableText(a), tableText(b))
		}
	case isNamed(a.Type()):
		d.named(a, b, keys)
	case a.Kind() == reflect.Slice && a.Type().Elem().Kind() == reflect.Struct:
		if !d.sameLists(a, b) {
			d.add(keys, tableText(a), tableText(b))
		}
	default:
		if from, to := valueText(a), valueText(b); from != to {
			d.add(keys, from, to)
		}
	}
}

// isNamed reports whether t is a list of tables that have names.
func isNamed(t reflect.Type) bool {
	if t.Kind() != reflect.Slice || t.Elem().Kind() != reflect.Struct {
		return false
	}
	_, named := t.Elem().FieldByName("Name")
	return named
}

// named compares two lists of tables by their names.
func (d *comparison) named(a, b reflect.Value, keys []string) {
	there := make(map[string]reflect.Value, b.Len())
	for i := range b.Len() {
		there[b.Index(i).FieldByName("Name").String()] = b.Index(i)
	}
	for i := range a.Len() {
		name := a.Index(i).FieldByName("Name").String()
		if other, ok := there[name]; ok {
			d.tables(a.Index(i), other, append(keys, name))
			delete(there, name)
		} else {
			d.add(append(keys, name), someTable, "")
		}
	}
	for i := range b.Len() {
		if name := b.Index(i).FieldByName("Name").String(); there[name].IsValid() {
			d.add(append(keys, name), "", someTable)
		}
	}
}

// sameLists reports whether two lists of tables without names are equal.
func (d *comparison) sameLists(a, b reflect.Value) bool {
	if a.Len() != b.Len() {
		return false
	}
	elements := comparison{fields: d.fields}
	for i := range a.Len() {
		elements.tables(a.Index(i), b.Index(i), nil)
	}
	return len(elements.found) == 0
}

func tableText(v reflect.Value) string {
	if v.IsNil() || v.Kind() == reflect.Slice && v.Len() == 0 {
		return ""
	}
	return someTable
}

// valueText writes a value as a file has it.
func valueText(v reflect.Value) string {
	if isAddresses(v.Type()) && v.Len() == 1 {
		return quote(v.Index(0).String())
	}
	if v.Kind() == reflect.Slice {
		texts := make([]string, v.Len())
		for i := range texts {
			texts[i] = quote(v.Index(i).String())
		}
		return "[" + strings.Join(texts, ", ") + "]"
	}
	if text, ok := v.Interface().(fmt.Stringer); ok { // a duration, a size or a rate
		return quote(text.String())
	}
	return literal(v.Interface())
}
