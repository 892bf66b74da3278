package conf

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"reflect"
	"slices"
	"strings"
)

// Sum returns a short text that is the same for two configurations that mean the same on two nodes of a fleet, and
// another one if they differ. It covers the values in force, however the files say them: those of variables and of
// included files too. A key that has its default counts as one that is left out, so that versions of the program with
// different keys agree.
//
// What belongs to one node does not count, see ownKeys, nor the host of a listener's address, nor the order of pools and
// listeners. The contents of files that keys name are not part of a configuration.
func (c *Config) Sum() string {
	s := summing{to: sha256.New()}
	s.table(reflect.ValueOf(c).Elem(), "")
	return hex.EncodeToString(s.to.Sum(nil))[:sumDigits]
}

// sumDigits is short enough to be compared by eye, and one of 2^48.
const sumDigits = 12

// ownKeys returns the keys and tables that belong to one node: how it is controlled and watched, who it is in the fleet,
// and what depends on its machine.
func ownKeys() []string {
	return []string{
		"include", "admin", "metrics", "global.workers", "global.state_file", "fleet.node", "fleet.cert", "fleet.key",
		"pool.*.source", "pool.*.zone",
	}
}

// A summing is the state of one call of Sum.
type summing struct{ to hash.Hash }

// table adds the keys of the table that has this path, in which "*" stands for names.
func (s *summing) table(v reflect.Value, path string) {
	for _, f := range fieldsOf(v.Type()) {
		sub := f.key
		if path != "" {
			sub = path + "." + f.key
		}
		if !slices.Contains(ownKeys(), sub) {
			s.value(v.FieldByIndex(f.index), f, sub)
		}
	}
}

func (s *summing) value(v reflect.Value, f field, path string) {
	switch {
	case isTable(v.Type()):
		s.table(v, path)
	case v.Kind() == reflect.Pointer:
		if !v.IsNil() {
			s.write(path, "a table")
			s.table(v.Elem(), path)
		}
	case f.named:
		s.named(v, path)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		for i := range v.Len() {
			s.write(path, fmt.Sprint("element ", i))
			s.table(v.Index(i), path)
		}
	case isAddresses(v.Type()):
		for i := range v.Len() {
			s.write(path, withoutHost(v.Index(i).String()))
		}
	default:
		if text := valueText(v); text != valueText(fromTag(v.Type(), f.def)) {
			s.write(path, text)
		}
	}
}

// named adds tables in the order of their names.
func (s *summing) named(v reflect.Value, path string) {
	tables := make([]reflect.Value, v.Len())
	for i := range tables {
		tables[i] = v.Index(i)
	}
	name := func(v reflect.Value) string { return v.FieldByName("Name").String() }
	slices.SortFunc(tables, func(a, b reflect.Value) int { return cmp.Compare(name(a), name(b)) })
	for _, t := range tables {
		s.write(path, name(t))
		s.table(t, path+".*")
	}
}

// write adds a value so that no other values give the same text.
func (s *summing) write(path, text string) { fmt.Fprintf(s.to, "%s = %q\n", path, text) }

// withoutHost returns the port or ports of a listener's address, or its path.
func withoutHost(address string) string {
	if strings.HasPrefix(address, "unix:") {
		return address
	}
	return address[strings.LastIndex(address, ":")+1:]
}
