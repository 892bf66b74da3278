package convert

import (
	"strings"
)

// maxWords bounds the words of a line; HAProxy takes 64.
const maxWords = 1000

// A line is the words of a line. raw is the line as it stands, without its comment.
type line struct {
	at    place
	words []string
	raw   string
}

// word returns the i-th word; "" if there is none.
func (l *line) word(i int) string {
	if i < len(l.words) {
		return l.words[i]
	}
	return ""
}

// haproxyLines splits a configuration into lines of words, as HAProxy 2.6 does: quotes, escapes, variables of the
// environment, comments. A line that is empty is left out.
func haproxyLines(text []byte, file string) (lines []line) {
	number := 0
	for one := range strings.Lines(strings.ToValidUTF8(string(text), "?")) {
		number++
		words, raw := haproxyWords(strings.TrimRight(one, "\r\n"))
		if len(words) > 0 {
			lines = append(lines, line{place{file, number}, words, raw})
		}
	}
	return lines
}

// haproxyWords splits one line into words, and returns it without its comment.
func haproxyWords(s string) (words []string, raw string) {
	s = strings.Map(func(r rune) rune {
		if r == variableBegins || r == variableEnds {
			return '?'
		}
		return r
	}, s)
	var word strings.Builder
	begun := false
	quoted := byte(0)
	i := 0
	for ; i < len(s) && len(words) < maxWords; i++ {
		c := s[i]
		switch {
		case quoted == '\'' && c != '\'':
			word.WriteByte(c)
		case c == quoted && quoted != 0:
			quoted = 0
		case quoted == 0 && (c == '\'' || c == '"'):
			quoted, begun = c, true
		case c == '\\':
			i += escaped(s[i:], &word)
			begun = true
		case c == '$':
			if n := variable(s[i:], &word); n > 0 {
				i += n - 1
			} else {
				word.WriteByte(c)
			}
			begun = true
		case quoted == 0 && c == '#':
			if begun {
				words = append(words, word.String())
			}
			return words, strings.TrimSpace(s[:i])
		case quoted == 0 && (c == ' ' || c == '\t'):
			if begun {
				words = append(words, word.String())
				word.Reset()
				begun = false
			}
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	if begun {
		words = append(words, word.String())
	}
	return words, strings.TrimSpace(s[:min(i, len(s))])
}

// escaped writes the character that an escape at the beginning of s stands for, and returns how many bytes follow the
// backslash.
func escaped(s string, word *strings.Builder) int {
	if len(s) < 2 {
		return 0
	}
	switch c := s[1]; c {
	case 'r':
		word.WriteByte('\r')
	case 'n':
		word.WriteByte('\n')
	case 't':
		word.WriteByte('\t')
	case 'x':
		if len(s) >= 4 && isHex(s[2]) && isHex(s[3]) {
			word.WriteByte(unhex(s[2])<<4 | unhex(s[3]))
			return 3
		}
		word.WriteString(`\x`)
	case ' ', '#', '\\', '"', '\'', '$':
		word.WriteByte(c)
	default: // as in regular expressions
		word.WriteByte('\\')
		word.WriteByte(c)
	}
	return 1
}

// variable writes the variable of the environment at the beginning of s, $NAME, ${NAME} or ${NAME-TEXT}, and returns
// its length; 0 if there is none.
func variable(s string, word *strings.Builder) int {
	inside, length := "", 0
	if rest, braces := strings.CutPrefix(s, "${"); braces {
		end := strings.IndexByte(rest, '}')
		if end < 0 {
			return 0
		}
		inside, length = rest[:end], end+3
	} else {
		end := 1
		for end < len(s) && isNameByte(s[end]) {
			end++
		}
		inside, length = s[1:end], end
	}
	name, otherwise, has := strings.Cut(inside, "-")
	name = strings.TrimSuffix(name, "[*]")
	if name == "" || name[0] >= '0' && name[0] <= '9' || strings.TrimFunc(name, func(r rune) bool {
		return r < 0x80 && isNameByte(byte(r))
	}) != "" {
		return 0
	}
	word.WriteRune(variableBegins)
	word.WriteString(name)
	if has {
		word.WriteString(":-" + otherwise)
	}
	word.WriteRune(variableEnds)
	return length
}

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}
