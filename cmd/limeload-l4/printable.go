package main

import (
	"bytes"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// A printableWriter escapes what a terminal or an editor would not show as it is, above all the controls that turn the direction
// of writing and so show one text for another (U+202E and its like): names and addresses in a log are a stranger's choice. The
// escapes are those of JSON, where such characters stand within strings alone. Control characters of ASCII are left: JSON has them
// escaped, and the console's colours are made of them.
//
// It is written to by one goroutine at a time, and takes whole lines. Its zero value is of no use.
type printableWriter struct {
	to  io.Writer
	out []byte // is used again
}

// Write writes lines.
func (w *printableWriter) Write(lines []byte) (int, error) {
	if !bytes.ContainsFunc(lines, unprintable) {
		return w.to.Write(lines)
	}
	w.out = appendPrintable(w.out[:0], lines)
	if _, err := w.to.Write(w.out); err != nil {
		return 0, err
	}
	return len(lines), nil
}

func unprintable(r rune) bool { return r > '~' && !unicode.IsPrint(r) }

// appendPrintable appends text to out, with what is not printable escaped as in JSON.
func appendPrintable(out, text []byte) []byte {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if unprintable(r) {
			for _, unit := range utf16.Encode([]rune{r}) {
				out = fmt.Appendf(out, `\u%04x`, unit)
			}
		} else {
			out = append(out, text[:n]...)
		}
		text = text[n:]
	}
	return out
}
