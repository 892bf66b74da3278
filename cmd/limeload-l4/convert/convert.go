// Package convert translates configurations of HAProxy and of nginx's stream module into lb.toml.
//
// It works on texts: it opens no socket, looks nothing up, and reads a file only through the function that it is given,
// for nginx's include. What it cannot carry over it lists, line by line, and never drops silently. The result is a
// configuration, but whether it is a good one package conf decides, which this package does not know. Its functions may
// be called from any goroutine.
//
// Each kind has a tokeniser, which accepts any bytes, and a table of words. A word that is in no table is listed as
// unknown. What a text can cost is bounded: its size, its nesting, the files that it includes, and the notes.
package convert

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	// MaxBytes bounds a text, with all files that it includes: as much as a configuration of limeload-l4 may have.
	MaxBytes = 4 << 20

	maxNotes = 1000 // of one configuration; what is beyond is counted
	maxShown = 120  // bytes of a line in a note
)

// A Kind is a program whose configurations can be converted.
type Kind string

// The kinds.
const (
	HAProxy Kind = "haproxy"
	Nginx   Kind = "nginx"
)

// Kinds returns all kinds, in the order of their names.
func Kinds() []Kind { return []Kind{HAProxy, Nginx} }

// Detect returns the kind of a configuration by its words; "" if it is neither.
func Detect(text []byte) Kind {
	if regexp.MustCompile(`(?m)^[ \t]*(stream|http|events|upstream[ \t]+\S+|server)[ \t]*\{`).Match(text) {
		return Nginx
	}
	if regexp.MustCompile(`(?m)^(global|defaults|frontend|backend|listen)([ \t]|\r?$)`).Match(text) {
		return HAProxy
	}
	return ""
}

// A Note is about one line of the configuration.
type Note struct {
	File string // as it was given to Convert, or as include names it
	Line int    // from 1
	What string // the words of the line
	Why  string // why they are not carried over, or what is different
	// Remedy says what to do; "" if nothing needs to be done
	Remedy string
	// Left says that something that the line asked for is missing in the result. Otherwise it is there, or is not needed,
	// and only done in another way.
	Left bool
}

// String returns the note as one line, FILE:LINE: WHAT: WHY; REMEDY. Text of the configuration may contain anything but
// line breaks.
func (n *Note) String() string {
	text := fmt.Sprintf("%s:%d: %s: %s", n.File, n.Line, n.What, n.Why)
	if n.Remedy != "" {
		text += "; " + n.Remedy
	}
	return text
}

// A Result is a converted configuration. It is read-only.
type Result struct {
	TOML  []byte
	Notes []Note // in the order of the files' lines
	// Listeners and Pools are how many tables the result has. Without a listener it is no configuration.
	Listeners, Pools int
}

// Left returns how many notes say that something is missing.
func (r *Result) Left() (n int) {
	for i := range r.Notes {
		if r.Notes[i].Left {
			n++
		}
	}
	return n
}

// Options of Convert. Its zero value is of no use: File and Kind are needed.
type Options struct {
	Kind Kind
	File string // what notes call the text
	// Read returns the text of each file that an include of nginx names, by the names that they have in notes; nil if
	// there is no way to read them.
	Read func(pattern string) (map[string][]byte, error)
}

// Convert translates a configuration. It returns an error only for a text that is too large, or whose result would be,
// or that has a kind which it does not know; everything else becomes a note.
func Convert(text []byte, o Options) (*Result, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("%s: more than %d bytes, which is no configuration", o.File, MaxBytes)
	}
	notes := &notes{known: map[Note]bool{}, order: map[string]int{o.File: 0}}
	var doc *document
	switch o.Kind {
	case HAProxy:
		doc = convertHAProxy(text, o.File, notes)
	case Nginx:
		doc = convertNginx(text, o, notes)
	default:
		return nil, fmt.Errorf("kind %q: needs haproxy or nginx", o.Kind)
	}
	doc.from = o.File
	doc.finish(notes)
	text, err := doc.text()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.File, err)
	}
	return &Result{TOML: text, Notes: notes.sorted(), Listeners: len(doc.listeners), Pools: len(doc.pools)}, nil
}

// A place is a line of a file.
type place struct {
	file string
	line int
}

// notes collects the notes of one conversion.
type notes struct {
	all   []Note
	known map[Note]bool  // all, since a line of defaults is read for each section
	more  int            // that are beyond maxNotes
	order map[string]int // of the files
}

// left notes that something is missing in the result.
func (n *notes) left(at place, what, why, remedy string) { n.add(at, what, why, remedy, true) }

// differs notes that something is done in another way.
func (n *notes) differs(at place, what, why, remedy string) { n.add(at, what, why, remedy, false) }

func (n *notes) add(at place, what, why, remedy string, left bool) {
	one := Note{File: at.file, Line: at.line, What: shorten(what, maxShown), Why: shorten(why, 3*maxShown),
		Remedy: shorten(remedy, 3*maxShown), Left: left}
	if n.known[one] {
		return
	}
	if len(n.all) == maxNotes {
		n.more++
		return
	}
	n.known[one] = true
	n.all = append(n.all, one)
}

// sorted returns the notes in the order of the files' lines.
func (n *notes) sorted() []Note {
	slices.SortStableFunc(n.all, func(a, b Note) int {
		return cmp.Or(cmp.Compare(n.order[a.File], n.order[b.File]), cmp.Compare(a.Line, b.Line))
	})
	if n.more > 0 {
		last := n.all[len(n.all)-1]
		n.all = append(n.all, Note{File: last.File, Line: last.Line, What: "...",
			Why: strconv.Itoa(n.more) + " more notes are not listed", Left: true})
	}
	return n.all
}

// shorten returns a text on one line, and not too long.
func shorten(text string, most int) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	text = strings.Map(func(r rune) rune {
		if r == variableBegins || r == variableEnds {
			return '$'
		}
		return r
	}, text)
	if len(text) <= most {
		return text
	}
	cut := most
	for cut > 0 && text[cut]&0xc0 == 0x80 { // inside of a character
		cut--
	}
	return text[:cut] + "..."
}
