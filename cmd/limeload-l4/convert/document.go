package convert

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A document is the lb.toml that a conversion builds. Its zero value is empty.
type document struct {
	from      string // the file that it is made from
	tables    []*table
	listeners []*listener
	pools     []*pool

	listenerNames, poolNames names
	poolsByName              map[string]*pool
}

// names are names that are taken. The zero value has none.
type names struct {
	taken map[string]bool
	next  map[string]int // the number to try next behind a name
}

// unused returns a valid name like that one, and takes it.
func (n *names) unused(like string) string {
	if n.taken == nil {
		n.taken, n.next = map[string]bool{}, map[string]int{}
	}
	plain := validName(like)
	name := plain
	for i := max(n.next[plain], 2); n.taken[name]; i++ {
		end := "-" + strconv.Itoa(i)
		name = plain[:min(len(plain), 64-len(end))] + end
		n.next[plain] = i + 1
	}
	n.taken[name] = true
	return name
}

// A table is a table of TOML: keys in the order in which they were set, and tables below it.
type table struct {
	header string
	keys   []key
	below  []*table
}

// A key is a key with its value as TOML has it.
type key struct{ name, value, comment string }

// set gives a key a value, which replaces an earlier one.
func (t *table) set(name, value string) { t.setWith(name, value, "") }

// setWith is set with a comment beside it.
func (t *table) setWith(name, value, comment string) {
	for i := range t.keys {
		if t.keys[i].name == name {
			t.keys[i] = key{name, value, comment}
			return
		}
	}
	t.keys = append(t.keys, key{name, value, comment})
}

// has reports whether a key has a value.
func (t *table) has(name string) bool { return t.value(name) != "" }

// value returns the value of a key as TOML has it; "" if it has none.
func (t *table) value(name string) string {
	for _, k := range t.keys {
		if k.name == name {
			return k.value
		}
	}
	return ""
}

// in returns the table below t with that name.
func (t *table) in(name string) *table {
	if b := t.find(name); b != nil {
		return b
	}
	b := &table{header: t.header + "." + name}
	t.below = append(t.below, b)
	return b
}

// find is in, but returns nil if there is no such table.
func (t *table) find(name string) *table {
	for _, b := range t.below {
		if b.header == t.header+"."+name {
			return b
		}
	}
	return nil
}

// write writes a table, and those below it.
func (t *table) write(w *bytes.Buffer, comments []string) {
	if len(t.keys) > 0 || len(comments) > 0 {
		fmt.Fprintf(w, "\n[%s]\n", t.header)
	}
	for _, c := range comments {
		fmt.Fprintf(w, "# %s\n", c)
	}
	width := 0
	for _, k := range t.keys {
		width = max(width, len(k.name))
	}
	for _, k := range t.keys {
		fmt.Fprintf(w, "%-*s = %s", width, k.name, k.value)
		if k.comment != "" {
			fmt.Fprintf(w, " # %s", k.comment)
		}
		w.WriteByte('\n')
	}
	for _, b := range t.below {
		b.write(w, nil)
	}
}

// A listener is a table [listener.NAME].
type listener struct {
	table
	name      string
	at        place
	what      string // the words of the line that made it
	addresses []string
	pool      string // "" until it is known
	routes    []route
	comments  []string
	broken    bool // it would not do what it should, and a note says so
}

// A route sends clients that ask for one of these names to a pool.
type route struct {
	sni  []string
	pool string
}

// A pool is a table [pool.NAME].
type pool struct {
	table
	name     string
	at       place
	what     string
	backends []*backend
	found    bool // it has a discovery, and may be without backends
	comments []string

	addresses    map[string]*backend
	backendNames names

	// of an upstream of nginx: by what servers say about connections to it, and what it is without that
	variants map[string]*pool
	plain    *pool
}

// A backend is an element of a pool's list.
type backend struct {
	table   // without a header
	address string
}

// top returns a table at the top of the document, such as global.
func (d *document) top(name string) *table {
	for _, t := range d.tables {
		if t.header == name {
			return t
		}
	}
	t := &table{header: name}
	d.tables = append(d.tables, t)
	return t
}

// addListener adds a listener with a name like that one.
func (d *document) addListener(like string, at place, what string) *listener {
	name := d.listenerNames.unused(like)
	l := &listener{name: name, at: at, what: what}
	l.header = "listener." + quoteKey(name)
	d.listeners = append(d.listeners, l)
	return l
}

// addPool adds a pool with a name like that one.
func (d *document) addPool(like string, at place, what string) *pool {
	name := d.poolNames.unused(like)
	p := &pool{name: name, at: at, what: what}
	p.header = "pool." + quoteKey(name)
	d.pools = append(d.pools, p)
	if d.poolsByName == nil {
		d.poolsByName = map[string]*pool{}
	}
	d.poolsByName[name] = p
	return p
}

// copyTo gives a pool without keys those of p, and returns it.
func (p *pool) copyTo(c *pool) *pool {
	c.keys = slices.Clone(p.keys)
	c.backends, c.found, c.comments = p.backends, p.found, p.comments
	for _, b := range p.below {
		c.in(b.header[strings.LastIndexByte(b.header, '.')+1:]).keys = slices.Clone(b.keys)
	}
	return c
}

// addBackend adds a backend with a name like that one. It returns nil if the pool has the address already, which
// limeload-l4 refuses.
func (p *pool) addBackend(like, address string) *backend {
	if p.addresses[address] != nil {
		return nil
	}
	b := &backend{address: address}
	if p.addresses == nil {
		p.addresses = map[string]*backend{}
	}
	p.addresses[address] = b
	if like != "" {
		b.set("name", quote(p.backendNames.unused(like)))
	}
	b.set("address", quote(address))
	p.backends = append(p.backends, b)
	return b
}

// finish removes pools without backends, and listeners without a pool, with a note about each.
func (d *document) finish(n *notes) {
	empty := map[string]bool{}
	d.pools = slices.DeleteFunc(d.pools, func(p *pool) bool {
		empty[p.name] = len(p.backends) == 0 && !p.found
		if empty[p.name] {
			n.left(p.at, p.what, "nothing of it could be carried over that traffic can be sent to", "")
		}
		return empty[p.name]
	})
	d.listeners = slices.DeleteFunc(d.listeners, func(l *listener) bool {
		l.routes = slices.DeleteFunc(l.routes, func(r route) bool { return empty[r.pool] })
		if empty[l.pool] {
			l.pool = ""
		}
		switch {
		case l.broken:
		case len(l.addresses) == 0:
			n.left(l.at, l.what, "it has no address that could be carried over", "")
		case l.pool == "" && len(l.routes) == 0:
			n.left(l.at, l.what, "there is no pool that all its clients could be sent to", "")
		default:
			return false
		}
		return true
	})
}

// maxResult bounds the result: limeload-l4 reads no file of more than MaxBytes.
const maxResult = MaxBytes

// text returns the document, or an error if it is larger than limeload-l4 would read.
func (d *document) text() ([]byte, error) {
	w := new(bytes.Buffer)
	fmt.Fprintf(w, "#:schema ./lb.schema.json\n# Made by limeload-l4 convert from %s.\n",
		strings.Trim(quote(d.from), `"`))
	for _, t := range d.tables {
		t.write(w, nil)
	}
	for _, l := range d.listeners {
		if l.write(w); w.Len() > maxResult {
			return nil, errTooLarge
		}
	}
	for _, p := range d.pools {
		if p.write(w); w.Len() > maxResult {
			return nil, errTooLarge
		}
	}
	return w.Bytes(), nil
}

var errTooLarge = fmt.Errorf("the lb.toml would have more than %d bytes, which limeload-l4 does not read", maxResult)

func (l *listener) write(w *bytes.Buffer) {
	address := quote(l.addresses[0])
	if len(l.addresses) > 1 {
		address = quoteList(l.addresses)
	}
	first := []key{{name: "address", value: address}, {name: "pool", value: quote(l.pool)}}
	if l.pool == "" {
		first[1].comment = "clients that no route fits are refused"
	}
	l.keys = append(first, l.keys...)
	if len(l.routes) > 0 {
		var b strings.Builder
		for _, r := range l.routes {
			fmt.Fprintf(&b, "\n  { sni = %s, pool = %s },", quoteList(r.sni), quote(r.pool))
		}
		l.set("routes", "["+b.String()+"\n]")
	}
	l.table.write(w, l.comments)
}

func (p *pool) write(w *bytes.Buffer) {
	if len(p.backends) > 0 {
		var b strings.Builder
		for _, one := range p.backends {
			b.WriteString("\n  {")
			for i, k := range one.keys {
				if i > 0 {
					b.WriteByte(',')
				}
				fmt.Fprintf(&b, " %s = %s", k.name, k.value)
			}
			b.WriteString(" },")
		}
		p.set("backends", "["+b.String()+"\n]")
	}
	p.table.write(w, p.comments)
}

// validName returns the name, with "-" for what names of listeners, pools and backends may not have.
func validName(s string) string {
	name := strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("_-.", r)) {
			return r
		}
		return '-'
	}, s)
	if name == "" {
		return "unnamed"
	}
	return name[:min(len(name), 64)]
}

// quoteKey quotes a name where TOML needs that.
func quoteKey(name string) string {
	if strings.Contains(name, ".") {
		return quote(name)
	}
	return name
}

// A variable of the environment stands between these characters in the words of a configuration. They are of the
// private use area, and the tokenisers let none of them in from a text.
const (
	variableBegins = '\ue000'
	variableEnds   = '\ue001'
)

// quote returns a text as a string of TOML. A variable of the environment becomes "${NAME}", and any other "${" is
// escaped, since it would become one.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "${", "$${") {
		switch {
		case c == variableBegins:
			b.WriteString("${")
		case c == variableEnds:
			b.WriteByte('}')
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c < ' ' || c >= 0x7f && c < 0xa0 || c == 0x2028 || c == 0x2029 || c >= 0x202a && c <= 0x202e:
			fmt.Fprintf(&b, `\u%04X`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func quoteList(texts []string) string {
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = quote(text)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
