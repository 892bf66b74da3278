package conf

import (
	"bytes"
	"strings"

	"github.com/BurntSushi/toml"
)

// The TOML library does not say where a key stands. The scanner below does: it reads as much
// of TOML as it takes to find keys and the starts of list elements, and builds a tree of them
// beside the library's tree of values. It accepts more than TOML; whatever it does not
// understand ends it silently, since the library stops there too and says why.
// FuzzPositions holds the two together: what the library accepts, the scanner has in full.

// maxDepth bounds how deep tables and lists stand in each other. The library recurses for each
// level of brackets, and walks all parents of each part of a dotted key: a few MB of "[" would
// overflow its stack. The deepest key of ours stands 8 deep.
const maxDepth = 32

// A place is where one key or one element of a list stands, with those inside it.
type place struct {
	line  int // of the key, of the element's start, or of a table's own [header] if it has one
	order int // counts places in the order of the file
	given int // the line of its own [header] or of its value; 0 if it has neither yet
	table map[string]*place
	items []*place
}

// child returns the place of a key inside p. If there is none, which is a bug of the scanner, it returns p: an error on
// an earlier line is better than none.
func (p *place) child(key string) *place {
	if c := p.table[key]; c != nil {
		return c
	}
	return p
}

// item is child for the elements of a list.
func (p *place) item(i int) *place {
	if i < len(p.items) {
		return p.items[i]
	}
	return p
}

type scanner struct {
	data  []byte
	pos   int
	line  int
	order int
	deep  int                // the line where maxDepth was exceeded, 0 if none
	again map[int]secondTime // by line
}

// A secondTime is a key or table that is defined again, which TOML does not allow.
type secondTime struct {
	name  string // as on that line: "retries", "[pool.redis]"
	first int    // the line where it was given first
}

// scan maps every key of data to its place. deep is the line on which data exceeds maxDepth,
// or 0; then, as after a syntax error, the tree ends there.
func scan(data []byte) (root *place, deep int) {
	s := newScanner(data)
	return s.run(), s.deep
}

// secondTimeOn returns the key or table that is defined again on that line of data, if there is one.
func secondTimeOn(data []byte, line int) (secondTime, bool) {
	s := newScanner(data)
	s.run()
	again, ok := s.again[line]
	return again, ok
}

func newScanner(data []byte) *scanner {
	return &scanner{data: bytes.TrimPrefix(data, []byte(byteOrderMark)), line: 1, again: map[int]secondTime{}}
}

// run reads up to the end or the first syntax error.
func (s *scanner) run() *place {
	root := &place{line: 1}
	table, depth := root, 0
	for {
		s.space(true)
		switch {
		case s.pos == len(s.data):
			return root
		case s.peek() == '[':
			if table, depth = s.header(root); table == nil {
				return root
			}
		case !s.pair(table, depth):
			return root
		}
	}
}

// give records that p is defined on a line, under that name.
func (s *scanner) give(p *place, name string, line int) {
	if p.given == 0 {
		p.given = line
		return
	}
	if _, known := s.again[line]; !known {
		s.again[line] = secondTime{name, p.given}
	}
}

// header reads [a.b] or [[a.b]] and returns its table and depth, or nil if it cannot be read.
func (s *scanner) header(root *place) (*place, int) {
	line := s.line
	s.pos++
	list := s.accept('[')
	keys := s.keys(0)
	if keys == nil || !s.accept(']') || list && !s.accept(']') {
		return nil, 0
	}
	table := root
	for _, k := range keys[:len(keys)-1] {
		table = s.enter(table, k, line).lastItem()
	}
	table = s.enter(table, keys[len(keys)-1], line)
	if !list {
		s.give(table, "["+Path(keys...)+"]", line)
		table.line = line // not that of an earlier [a.b.c]
		return table, len(keys)
	}
	if table.given > 0 { // as a single table, or as an inline list
		s.give(table, "[["+Path(keys...)+"]]", line)
	}
	s.enterItem(table, len(table.items), line)
	return table.lastItem(), len(keys)
}

// pair reads `key = value` into table, which stands depth deep.
func (s *scanner) pair(table *place, depth int) bool {
	line := s.line
	keys := s.keys(depth)
	if keys == nil || !s.accept('=') {
		return false
	}
	for _, k := range keys {
		table = s.enter(table, k, line)
	}
	s.give(table, Path(keys...), line)
	return s.value(table, depth+len(keys))
}

// keys reads the parts of a dotted key that starts at depth, or returns nil if it cannot.
func (s *scanner) keys(depth int) []string {
	var keys []string
	for {
		s.space(false)
		k, ok := s.key()
		if !ok {
			return nil
		}
		keys = append(keys, k)
		if depth+len(keys) > maxDepth {
			s.deep = s.line
			return nil
		}
		s.space(false)
		if !s.accept('.') {
			return keys
		}
	}
}

func (s *scanner) key() (string, bool) {
	start := s.pos
	if q := s.peek(); q == '"' || q == '\'' {
		if !s.quoted(q) {
			return "", false
		}
		raw := string(s.data[start:s.pos])
		if q == '\'' || !strings.Contains(raw, `\`) {
			return raw[1 : len(raw)-1], true
		}
		// Escapes in keys are rare, so the library reads them.
		var escaped struct{ K string }
		_, err := toml.Decode("k = "+raw, &escaped)
		return escaped.K, err == nil
	}
	for strings.IndexByte(bareKeyChars, s.peek()) >= 0 {
		s.pos++
	}
	return string(s.data[start:s.pos]), s.pos > start
}

// value reads any value; at is its place, which is depth deep.
func (s *scanner) value(at *place, depth int) bool {
	s.space(false)
	switch c := s.peek(); c {
	case '[':
		if depth == maxDepth {
			s.deep = s.line
			return false
		}
		s.pos++
		return s.list(at, depth+1)
	case '{':
		s.pos++
		return s.inline(at, depth)
	case '"', '\'':
		if bytes.HasPrefix(s.data[s.pos:], []byte{c, c, c}) {
			return s.multiline(c)
		}
		return s.quoted(c)
	}
	start := s.pos // a number, a boolean or a time, which may hold a space
	for s.pos < len(s.data) && strings.IndexByte(",]}#\r\n", s.peek()) < 0 {
		s.pos++
	}
	return s.pos > start
}

// list reads the elements of a list, which stand depth deep, and its closing bracket.
func (s *scanner) list(at *place, depth int) bool {
	for i := 0; ; i++ {
		s.space(true)
		if s.accept(']') {
			return true
		}
		if !s.value(s.enterItem(at, i, s.line), depth) {
			return false
		}
		s.space(true)
		if !s.accept(',') {
			return s.accept(']')
		}
	}
}

// inline reads the pairs of an inline table, which stands depth deep, and its closing brace. As
// TOML 1.1 allows, it may span lines.
func (s *scanner) inline(at *place, depth int) bool {
	for {
		s.space(true)
		if s.accept('}') {
			return true
		}
		if !s.pair(at, depth) {
			return false
		}
		s.space(true)
		if !s.accept(',') {
			return s.accept('}')
		}
	}
}

// quoted reads a string of one line in quotes q.
func (s *scanner) quoted(q byte) bool {
	for s.pos++; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; {
		case c == '\n':
			return false
		case c == '\\' && q == '"':
			s.pos++
		case c == q:
			s.pos++
			return true
		}
	}
	s.pos = len(s.data) // an escape may have moved it past the end
	return false
}

// multiline reads a string in three quotes q. The first three quotes or more in a row end it:
// up to two of them are its last characters.
func (s *scanner) multiline(q byte) bool {
	for s.pos += 3; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; {
		case c == '\n':
			s.line++
		case c == '\\' && q == '"' && s.pos+1 < len(s.data) && s.data[s.pos+1] != '\n':
			s.pos++
		case c == q && bytes.HasPrefix(s.data[s.pos:], []byte{q, q, q}):
			for s.accept(q) {
			}
			return true
		}
	}
	return false
}

// space skips blanks and, if lines is set, comments and ends of lines too.
func (s *scanner) space(lines bool) {
	for ; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; {
		case c == ' ' || c == '\t':
		case lines && c == '\r':
		case lines && c == '\n':
			s.line++
		case lines && c == '#':
			if end := bytes.IndexByte(s.data[s.pos:], '\n'); end >= 0 {
				s.pos += end - 1 // the loop's step leads to the end of the line
				continue
			}
			s.pos = len(s.data)
			return
		default:
			return
		}
	}
}

// peek returns the next byte, or 0 at the end; Parse refuses files that contain a 0.
func (s *scanner) peek() byte {
	if s.pos == len(s.data) {
		return 0
	}
	return s.data[s.pos]
}

// accept skips the next byte if it is c, and reports whether it was.
func (s *scanner) accept(c byte) bool {
	if s.pos == len(s.data) || s.data[s.pos] != c {
		return false
	}
	s.pos++
	return true
}

// enter returns the place of a key in a table, and creates it if it is new.
func (s *scanner) enter(table *place, key string, line int) *place {
	if known := table.table[key]; known != nil {
		return known
	}
	if table.table == nil {
		table.table = map[string]*place{}
	}
	table.table[key] = s.newPlace(line)
	return table.table[key]
}

// enterItem returns the i-th element of a list, and appends it if it is new.
func (s *scanner) enterItem(list *place, i, line int) *place {
	if i == len(list.items) {
		list.items = append(list.items, s.newPlace(line))
	}
	return list.items[i]
}

func (s *scanner) newPlace(line int) *place {
	s.order++
	return &place{line: line, order: s.order}
}

// lastItem returns the table that a header's keys belong to: p, or the last table of a list of tables.
func (p *place) lastItem() *place {
	if len(p.items) == 0 {
		return p
	}
	return p.items[len(p.items)-1]
}

// bareKeyChars are the characters of keys without quotes (TOML 1.0, Keys).
const bareKeyChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// bare reports whether s, which may be empty, has no other characters than bareKeyChars.
func bare(s string) bool {
	for i := range len(s) {
		if strings.IndexByte(bareKeyChars, s[i]) < 0 {
			return false
		}
	}
	return true
}
