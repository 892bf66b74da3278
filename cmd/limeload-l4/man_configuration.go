package main

import "strings"

// configurationPage is lb.toml(5), made from the reference configuration: each key stands there first with its default, and
// a comment tells its meaning.
func configurationPage(reference []byte, date string) []byte {
	intro, tables := parseReference(string(reference))
	p := new(roff)
	p.title("lb.toml", 5, date, "limeload-l4")
	p.section("name")
	p.text.WriteString("lb.toml \\- configuration of limeload\\-l4\n")
	p.section("description")
	p.prose(intro)
	p.text.WriteString(".PP\n")
	p.prose(`The tables below are those of one example. The second word of [listener.NAME] and [pool.NAME] is a name of your choice; redis, postgres and so on are only examples. "limeload-l4 example" prints them all as a file, "limeload-l4 check" tells each mistake in one, and "limeload-l4 plan" what it would change.`)
	p.section("tables")
	for _, t := range tables {
		p.subsection("[" + t.name + "]")
		if t.note != "" {
			p.fill(noted(t.note))
		}
		writeEntries(p, t.entries)
	}
	p.section("see also")
	p.text.WriteString(".BR limeload\\-l4 (8)\n")
	return p.text.Bytes()
}

func writeEntries(p *roff, entries []referenceEntry) {
	for _, e := range entries {
		key, value, isKey := strings.Cut(e.text, "=")
		tag := roffEscape(e.text)
		if isKey && !strings.HasPrefix(e.text, "{") {
			tag = bold(strings.TrimSpace(key)) + " = " + roffEscape(strings.TrimSpace(value))
		}
		p.item(tag, noted(e.note))
		if len(e.elements) > 0 {
			p.indented(func() { writeEntries(p, e.elements) })
		}
	}
}

// noted is a comment as a sentence. It may begin with a value, and so keeps its first letter.
func noted(comment string) string {
	if comment == "" || strings.HasSuffix(comment, ".") {
		return comment
	}
	return comment + "."
}

// A referenceTable is one table of the reference configuration.
type referenceTable struct {
	name, note string
	entries    []referenceEntry
	news       bool // something in it has a comment, or did not stand under the same key before
}

// A referenceEntry is a key with its value, or an element of a list of several lines.
type referenceEntry struct {
	text, note string
	elements   []referenceEntry
}

// parseReference reads the reference configuration as a person does: the comment that it begins with, and the tables with
// the comments behind their keys. A table that says nothing new, and has none under it, is left out.
func parseReference(text string) (intro string, tables []referenceTable) {
	var (
		introLines []string
		seen       = map[string]bool{}
		ahead      string  // a comment that stands before what it is about
		last       *string // the note that a comment on a line of its own goes on
		lastAt     int     // its column
		list       *referenceEntry
	)
	for line := range strings.SplitSeq(text, "\n") {
		code, comment, at := splitComment(line)
		switch {
		case code == "" && comment == "":
			last = nil
			if len(tables) == 0 && line == "#" {
				introLines = append(introLines, "")
			}
		case strings.HasPrefix(comment, "----"): // a rule between parts
			last = nil
		case code == "" && len(tables) == 0:
			introLines = append(introLines, comment)
		case code == "" && last != nil && at == lastAt:
			*last += " " + comment
		case code == "":
			ahead = comment
		case list == nil && code[0] == '[':
			tables = append(tables, referenceTable{name: strings.Trim(code, "[]"), note: comment, news: comment != ""})
			last, lastAt = &tables[len(tables)-1].note, at
		case code == "]":
			list, last = nil, nil
		default:
			e := referenceEntry{text: strings.TrimSuffix(code, ","), note: strings.TrimSpace(ahead + " " + comment)}
			ahead, last = "", nil
			t := &tables[len(tables)-1]
			into := &t.entries
			if list != nil {
				into = &list.elements
			} else {
				key, _, _ := strings.Cut(code, " ")
				path := anyName(t.name) + "." + key
				t.news = t.news || e.note != "" || !seen[path]
				seen[path] = true
			}
			*into = append(*into, e)
			added := &(*into)[len(*into)-1]
			last, lastAt = &added.note, at
			if strings.HasSuffix(code, "= [") {
				added.text += " ... ]"
				list = added
			}
		}
	}
	var kept []referenceTable
	for i, t := range tables {
		followed := i+1 < len(tables) && strings.HasPrefix(tables[i+1].name, t.name+".")
		if t.news || followed {
			kept = append(kept, t)
		}
	}
	return strings.Join(introLines, "\n"), kept
}

// splitComment parts a line of TOML, and tells the column where its comment begins.
func splitComment(line string) (code, comment string, at int) {
	var quote rune
	for i, r := range line {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'':
			quote = r
		case r == '#':
			return strings.TrimSpace(line[:i]), strings.TrimSpace(line[i+1:]), i
		}
	}
	return strings.TrimSpace(line), "", 0
}

// anyName is the name of a table without the part that its owner chose.
func anyName(table string) string {
	parts := strings.SplitN(table, ".", 3)
	if len(parts) > 1 {
		parts[1] = "NAME"
	}
	return strings.Join(parts, ".")
}
