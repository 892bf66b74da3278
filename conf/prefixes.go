package conf

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"unicode/utf8"
)

// The bounds of a file of prefixes.
const (
	MaxPrefixes       = 10_000_000
	maxPrefixLine     = 256 // bytes, of which a prefix has up to 49; the rest is for a comment
	maxPrefixMistakes = 10  // that are reported one by one
)

// ReadPrefixes reads the text of an allow_file or deny_file from from, and calls add for each prefix in the order of
// the file: one prefix or address a line, perhaps with a comment that begins with "#". IPv4-mapped prefixes are passed
// as IPv4. It keeps no more of the text than a line.
//
// Mistakes are Errors, which call the text by the name file: the first ten, and how many more there are. After a
// mistake add is not called again. Other errors are those of from.
func ReadPrefixes(file string, from io.Reader, add func(netip.Prefix)) error {
	p := prefixReader{file: file, text: bufio.NewReaderSize(from, 64<<10), add: add}
	for {
		line, err := p.next()
		if len(line) > 0 || err == nil {
			p.line++
			if e := p.take(line); e != nil {
				p.report(e)
			}
		}
		switch {
		case err == io.EOF:
			return p.err()
		case err != nil:
			return err
		case p.prefixes > MaxPrefixes:
			p.report(&Error{Found: fmt.Sprintf("more than %d prefixes", MaxPrefixes), Allowed: "needs fewer in one file"})
			return p.err()
		}
	}
}

// A prefixReader is the state of one call of ReadPrefixes.
type prefixReader struct {
	file string
	text *bufio.Reader
	add  func(netip.Prefix)

	line     int // the number of the line read last
	prefixes int // how many there were
	errs     Errors
	more     int // mistakes that are not in errs
}

// next returns the next line with its end, and io.EOF with the last one. It cuts a line that is too long.
func (p *prefixReader) next() (line []byte, err error) {
	line, err = p.text.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	line = bytes.Clone(line[:maxPrefixLine+1])
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = p.text.ReadSlice('\n')
	}
	return line, err
}

// take takes the prefix of a line, if it has one. The error has neither file nor line.
func (p *prefixReader) take(line []byte) *Error {
	const utf8Needs = "needs a text file in UTF-8"
	line = bytes.TrimRight(line, "\r\n")
	if p.line == 1 {
		line = bytes.TrimPrefix(line, []byte(byteOrderMark))
	}
	switch {
	case len(line) > maxPrefixLine:
		return &Error{Found: fmt.Sprintf("a line of more than %d bytes, %s", maxPrefixLine, quote(string(line))),
			Allowed: "needs one prefix a line"}
	case bytes.IndexByte(line, 0) >= 0:
		return &Error{Found: quote(string(line)), Message: "it has a NUL byte", Allowed: utf8Needs}
	case !utf8.Valid(line):
		return &Error{Found: quote(string(line)), Message: "it is not UTF-8", Allowed: utf8Needs}
	}
	line, _, _ = bytes.Cut(line, []byte("#"))
	if line = bytes.Trim(line, " \t"); len(line) == 0 {
		return nil
	}
	text := string(line)
	prefix, e := readPrefix(text)
	if e != nil {
		e.Found = quote(text)
		if bytes.IndexByte(line, ';') >= 0 { // as in the lists of Spamhaus, and in the configuration of nginx
			e.Message, e.Allowed, e.Nearest = `a comment begins with "#"`, prefixNeeds, ""
		}
		return e
	}
	p.prefixes++
	if p.errs == nil && p.prefixes <= MaxPrefixes {
		p.add(prefix)
	}
	return nil
}

// report notes a mistake on the line read last.
func (p *prefixReader) report(e *Error) {
	if len(p.errs) == maxPrefixMistakes {
		p.more++
		return
	}
	e.File, e.Line = p.file, p.line
	p.errs = append(p.errs, e)
}

// err returns the mistakes as an error, nil if there are none.
func (p *prefixReader) err() error {
	switch {
	case len(p.errs) == 0:
		return nil
	case p.more > 0:
		p.errs = append(p.errs, &Error{File: p.file, Line: p.errs[len(p.errs)-1].Line,
			Message: fmt.Sprintf("and %d more mistakes", p.more)})
	}
	return p.errs
}
