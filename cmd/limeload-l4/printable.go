package main

import (
	"bytes"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// A printableWriter escapes characters that a terminal or an editor would not show as they are, above all those that
// change the direction of text and so hide what it says (U+202E and the like): strangers choose names and addresses in
// the log. It uses the escapes of JSON, where such characters can only be in strings. It leaves control characters of
// ASCII alone: JSON escapes them, and the colours of the console consist of them.
//
// One goroutine at a time may use it, and writes whole lines. Its zero value is of no use.
type printableWriter struct {
	to  io.Writer
	out []byte // reused by each Write
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

// appendPrintable appends text to out, and escapes unprintable characters as JSON does.
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
