package dnscache

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// ErrInvalidName says that a text is not a domain name.
var ErrInvalidName = errors.New("dnscache: invalid domain name")

// lowerName copies a name in wire format, in lower case, and returns its length. It returns 0 if from does not begin
// with a complete uncompressed name of at most maxNameLen bytes. to has room for maxNameLen bytes.
func lowerName(to, from []byte) int {
	to = to[:min(len(from), maxNameLen)]
	for at := 0; at < len(to); {
		size := int(from[at])
		to[at] = from[at]
		at++
		if size == 0 {
			return at
		}
		if size > 63 || at+size >= len(to) {
			return 0
		}
		label, lower := from[at:at+size], to[at:at+size]
		for i, c := range label {
			lower[i] = lowercase[c]
		}
		at += size
	}
	return 0
}

// lowercase maps A to Z to a to z and everything else to itself: only ASCII has case (RFC 4343).
var lowercase = func() (table [256]byte) {
	for i := range table {
		table[i] = byte(i)
		if i >= 'A' && i <= 'Z' {
			table[i] |= 0x20
		}
	}
	return table
}()

// A spelling says which bytes of a name are capitals. Together with the lower-case name it gives the client's name
// (draft-vixie-dnsext-dns0x20).
type spelling [(maxNameLen + 63) / 64]uint64

// spellingOf returns the spelling of a name. Label lengths are at most 63, so they are never mistaken for capitals.
func spellingOf(name []byte) (s spelling) {
	for i, c := range name {
		if c >= 'A' && c <= 'Z' {
			s[i/64] |= 1 << (i % 64)
		}
	}
	return s
}

// apply changes a lower-case name into this spelling.
func (s *spelling) apply(name []byte) {
	for i := range name {
		if s[i/64]>>(i%64)&1 != 0 {
			name[i] &^= 0x20
		}
	}
}

// parseName converts a name in text form (RFC 1035, 5.1, with or without the final dot) into wire format in lower case.
// Its error is an ErrInvalidName.
func parseName(text string) ([]byte, error) {
	name := make([]byte, 1, len(text)+2)
	if text == "." || text == "" {
		return name, nil
	}
	label := 0 // offset of the current label's length
	end := func() bool {
		size := len(name) - label - 1
		name[label] = byte(size)
		label = len(name)
		name = append(name, 0)
		return size > 0 && size <= 63
	}
	rest := text
	for len(rest) > 0 {
		c := rest[0]
		rest = rest[1:]
		switch {
		case c == '.':
			if !end() {
				return nil, fmt.Errorf("%w: %q: a label has 1 to 63 bytes", ErrInvalidName, text)
			}
			continue
		case c == '\\' && len(rest) >= 3 && strings.Trim(rest[:3], "0123456789") == "":
			value := int(rest[0]-'0')*100 + int(rest[1]-'0')*10 + int(rest[2]-'0')
			if value > 255 {
				return nil, fmt.Errorf("%w: %q: \\%s is no byte", ErrInvalidName, text, rest[:3])
			}
			c, rest = byte(value), rest[3:]
		case c == '\\' && len(rest) > 0:
			c, rest = rest[0], rest[1:]
		}
		name = append(name, lowercase[c])
	}
	if label != len(name)-1 && !end() {
		return nil, fmt.Errorf("%w: %q: a label has 1 to 63 bytes", ErrInvalidName, text)
	}
	if len(name) > maxNameLen {
		return nil, fmt.Errorf("%w: %q is longer than %d bytes", ErrInvalidName, text, maxNameLen)
	}
	return name, nil
}

// under reports whether a name is suffix or below it. Both are in wire format and in lower case.
func under(name, suffix []byte) bool {
	for len(name) > len(suffix) {
		name = name[1+int(name[0]):]
	}
	return bytes.Equal(name, suffix)
}
