package fleet

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The beginnings of keys.
const (
	Nodes   = "nodes/"
	Tables  = "tables/"
	Checks  = "checks/"
	Changes = "changes/"
	Tickets = "tickets"

	owners = "owners/"
)

const (
	// MaxKeyBytes bounds a key, without the fleet's prefix. The longest ones have the names of a pool, a backend and a
	// node, of up to 64 bytes each, and an address.
	MaxKeyBytes = 1024
	// maxParts bounds the parts of a key, since each of them may take some hundred bytes of memory (see tree). Keys of this
	// version have up to 5.
	maxParts = 8
	// MaxValueBytes bounds the value of a key. A transaction of several values stays far below the 1.5 MiB that etcd
	// allows by default.
	MaxValueBytes = 64 << 10
	// maxKeys bounds the keys of a fleet: 10,000 backends with two verdicts and two changes each, and as much again.
	maxKeys = 100_000
	// maxBytes bounds all that a node keeps of a fleet, as Session.Read of package etcd does at the start of a session.
	maxBytes = 64 << 20
	// weighEvery is how much etcd delivers until a node looks again how much it keeps.
	weighEvery = 8 << 20
	// maxTextBytes bounds the name of a node, and other texts that people read.
	maxTextBytes = 256
)

// The reasons to refuse a value. Errors of Allowed wrap them.
var (
	ErrTooLarge = errors.New("too large for a fleet")
	ErrBadKey   = errors.New("no key of a fleet")
)

// Allowed returns why a value cannot be said or be the value of a record; nil if it can.
func Allowed(key string, value []byte) error {
	switch {
	case !ours(key):
		return fmt.Errorf("%q: %w", shortened(key), ErrBadKey)
	case len(value) > MaxValueBytes:
		return fmt.Errorf("the value of %q: %w: it has %d bytes, allowed are %d", key, ErrTooLarge, len(value), MaxValueBytes)
	}
	return nil
}

// Key returns the key of these parts, which may have any bytes.
func Key(parts ...string) string {
	escaped := make([]string, len(parts))
	for i, p := range parts {
		escaped[i] = url.PathEscape(p)
	}
	return strings.Join(escaped, "/")
}

// Parts returns the parts of a key that Key has made; false if it cannot have made it. They may have any bytes.
func Parts(key string) ([]string, bool) {
	parts := strings.Split(key, "/")
	for i, p := range parts {
		plain, err := url.PathUnescape(p)
		if err != nil || url.PathEscape(plain) != p {
			return nil, false
		}
		parts[i] = plain
	}
	return parts, true
}

// IsRecord reports whether a key is one of records.
func IsRecord(key string) bool { return strings.HasPrefix(key, Changes) || key == Tickets }

// ours reports whether a key can be one of this package. Others below the prefix, such as those of a later version of
// this program, are ignored.
func ours(key string) bool {
	if key == Tickets {
		return true
	}
	if len(key) > MaxKeyBytes || strings.Count(key, "/") >= maxParts {
		return false
	}
	for _, beginning := range [...]string{Nodes, Tables, Checks, Changes} {
		if rest, is := strings.CutPrefix(key, beginning); is {
			_, is = Parts(rest)
			return is && rest != ""
		}
	}
	return false
}

// isPlain reports whether a text from etcd is short and can be printed as it is.
func isPlain(s string) bool { return s == plain(s) }

// plain returns a text from etcd in a form that can be printed: not too long, and without what controls a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, strings.ToValidUTF8(shortened(s), string(utf8.RuneError)))
}

// shortened returns the beginning of a text that is too long.
func shortened(s string) string { return s[:min(len(s), maxTextBytes)] }
