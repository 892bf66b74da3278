package convert

import (
	"slices"
	"strings"
)

// The bounds of a configuration of nginx.
const (
	maxNested   = 32      // blocks in one another
	maxIncluded = 200     // files and patterns
	maxTokens   = 500_000 // of all files
)

// A directive is words up to a semicolon, or up to a block.
type directive struct {
	at    place
	words []string
	block []*directive
	// hasBlock says that there is a block, which may be empty.
	hasBlock bool
}

// word returns the i-th word; "" if there is none.
func (d *directive) word(i int) string {
	if i < len(d.words) {
		return d.words[i]
	}
	return ""
}

// raw returns the words of a directive, for a note.
func (d *directive) raw() string {
	text := strings.Join(d.words, " ")
	if d.hasBlock {
		text += " { ... }"
	}
	return text
}

// An nginxReader reads directives, and the files that they include.
type nginxReader struct {
	notes    *notes
	read     func(pattern string) (map[string][]byte, error)
	included int      // files and patterns
	open     []string // the files that are being read, each included by the one before
	bytes    int
	tokens   int
	full     bool // a bound was met, which is noted once
}

// An nginxFile is one file that is being read.
type nginxFile struct {
	name string
	text string
	pos  int
	line int
}

// file returns the directives of one file.
func (r *nginxReader) file(name string, text []byte, depth int) []*directive {
	if _, known := r.notes.order[name]; !known {
		r.notes.order[name] = len(r.notes.order)
	}
	r.bytes += len(text)
	r.open = append(r.open, name)
	defer func() { r.open = r.open[:len(r.open)-1] }()
	f := &nginxFile{name: name, text: strings.ToValidUTF8(string(text), "?"), line: 1}
	var all []*directive
	for {
		more, closed := r.block(f, depth)
		all = append(all, more...)
		if !closed {
			return all
		}
		r.notes.left(f.at(), "}", "no block is open here", "")
	}
}

func (f *nginxFile) at() place { return place{f.name, f.line} }

// block returns the directives up to the end of the file or, if closed is true, up to the brace that ends the block.
func (r *nginxReader) block(f *nginxFile, depth int) (all []*directive, closed bool) {
	for {
		d := &directive{}
		end := r.words(f, d)
		switch end {
		case ';', 0:
		case '}':
			if len(d.words) > 0 {
				r.notes.left(d.at, d.raw(), `a ";" is missing`, "")
			}
			return all, true
		case '{':
			d.hasBlock = true
			if depth == maxNested || r.full {
				r.stop(f, "blocks are nested too deep")
				return all, false
			}
			var ended bool
			if d.block, ended = r.block(f, depth+1); !ended && !r.full {
				r.notes.left(d.at, d.raw(), "its block does not end", "")
			}
		}
		if len(d.words) > 0 {
			if d.words[0] == "include" && !d.hasBlock {
				all = append(all, r.include(f, d, depth)...)
			} else {
				all = append(all, d)
			}
		} else if d.hasBlock {
			r.notes.left(f.at(), "{", "a block needs a name", "")
		}
		if end == 0 {
			return all, false
		}
	}
}

// stop ends the reading of everything, with a note.
func (r *nginxReader) stop(f *nginxFile, why string) {
	if !r.full {
		r.full = true
		r.notes.left(f.at(), "...", why+": the rest is not read", "")
	}
	f.pos = len(f.text)
}

// words reads the words of a directive, and returns what ends them: ';', '{', '}', or 0 for the end of the file.
func (r *nginxReader) words(f *nginxFile, d *directive) byte {
	for {
		f.blanks()
		if f.pos >= len(f.text) {
			return 0
		}
		if len(d.words) == 0 {
			d.at = f.at()
		}
		switch c := f.text[f.pos]; c {
		case ';', '{', '}':
			f.pos++
			return c
		}
		if r.tokens++; r.tokens > maxTokens || len(d.words) >= maxWords {
			r.stop(f, "there are too many words")
			return 0
		}
		d.words = append(d.words, f.word())
	}
}

// blanks goes to the next word, past comments.
func (f *nginxFile) blanks() {
	for f.pos < len(f.text) {
		switch c := f.text[f.pos]; {
		case c == '\n':
			f.line++
		case c == '#':
			for f.pos < len(f.text) && f.text[f.pos] != '\n' {
				f.pos++
			}
			continue
		case c != ' ' && c != '\t' && c != '\r':
			return
		}
		f.pos++
	}
}

// word reads a word, which may be quoted.
func (f *nginxFile) word() string {
	quoted := byte(0)
	if c := f.text[f.pos]; c == '"' || c == '\'' {
		quoted = c
		f.pos++
	}
	var b strings.Builder
	for ; f.pos < len(f.text); f.pos++ {
		c := f.text[f.pos]
		if c == '\n' {
			if quoted == 0 {
				break
			}
			f.line++
		}
		if c == '\\' && f.pos+1 < len(f.text) {
			next := f.text[f.pos+1]
			f.pos++
			switch {
			case next == '\n':
				f.line++
				b.WriteByte('\n')
			case strings.IndexByte("\"' ;{}\\", next) < 0: // as in regular expressions
				b.WriteByte('\\')
				b.WriteByte(next)
			default:
				b.WriteByte(next)
			}
			continue
		}
		if quoted != 0 && c == quoted {
			f.pos++
			break
		}
		// "${NAME}" is a variable of nginx
		if quoted == 0 && c == '{' && strings.HasSuffix(b.String(), "$") {
			end := strings.IndexByte(f.text[f.pos:], '}')
			if end > 0 && end < 100 && !strings.ContainsAny(f.text[f.pos:f.pos+end], " \t\r\n;") {
				b.WriteString(f.text[f.pos+1 : f.pos+end])
				f.pos += end
				continue
			}
		}
		if quoted == 0 && (c == ' ' || c == '\t' || c == '\r' || c == ';' || c == '{' || c == '}') {
			break
		}
		b.WriteByte(c)
	}
	return strings.Map(func(r rune) rune {
		if r == variableBegins || r == variableEnds {
			return '?'
		}
		return r
	}, b.String())
}

// include returns the directives of the files that an include names.
func (r *nginxReader) include(f *nginxFile, d *directive, depth int) (all []*directive) {
	pattern := d.word(1)
	if r.read == nil || pattern == "" || depth >= maxNested {
		r.notes.left(d.at, d.raw(), "it cannot be read", "")
		return nil
	}
	if r.included >= maxIncluded || r.bytes >= MaxBytes || r.full {
		r.notes.left(d.at, d.raw(), "these are too many files, or too large ones", "")
		return nil
	}
	r.included++ // also if there are none: to look for files takes time
	files, err := r.read(pattern)
	if err != nil {
		r.notes.left(d.at, d.raw(), err.Error(), "")
		return nil
	}
	if len(files) == 0 {
		if !strings.ContainsAny(pattern, "*?[") {
			r.notes.left(d.at, d.raw(), "there is no such file", "")
		}
		return nil
	}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if r.included > maxIncluded || r.bytes+len(files[name]) > MaxBytes || r.full {
			r.notes.left(d.at, d.raw(), "these are too many files, or too large ones", "")
			return all
		}
		if slices.Contains(r.open, name) {
			r.notes.left(d.at, d.raw(), "it includes itself", "")
			continue
		}
		r.included++
		all = append(all, r.file(name, files[name], depth+1)...)
	}
	return all
}
