package conf

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// The TOML library says what it expected instead of what it found. People who write such a file for the first time need to hear
// what to write: that a text has quotes, and that a line is KEY = VALUE. What is said here is a guess at a line of which the
// library says that it is wrong.

// maxRemedied is how long a line may be for a remedy: what is longer is no slip of a hand.
const maxRemedied = 512 // bytes

// lineOf returns a line of data, counted from 1, without its end.
func lineOf(data []byte, n int) string {
	for range n - 1 {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return strings.TrimSuffix(string(line), "\r")
}

// syntaxRemedy says what a line should be that is not valid TOML; "" if there is no telling.
func syntaxRemedy(line string) string {
	if len(line) > maxRemedied {
		return ""
	}
	line = strings.TrimSpace(line)
	if m := pairs().FindAllStringSubmatch(line, -1); m != nil {
		for _, pair := range m {
			if remedy := valueRemedy(pair[1], strings.TrimSpace(pair[2])); remedy != "" {
				return remedy
			}
		}
	}
	if m := grouped().FindStringSubmatch(line); m != nil {
		return "needs " + m[1] + " = " + strings.ReplaceAll(m[2], ",", "_")
	}
	if m := anotherPair().FindStringSubmatch(line); m != nil {
		return "needs KEY = VALUE, such as " + m[1] + ` = "..."`
	}
	if anotherTable().MatchString(line) {
		return "needs KEY = VALUE, or a table as in [listener.NAME]; `limeload-l4 example` has them all"
	}
	return ""
}

// pairs finds KEY = VALUE where VALUE has no quotes, in lists of tables too.
func pairs() *regexp.Regexp {
	return regexp.MustCompile(`([A-Za-z0-9_.-]+)\s*=\s*([^\s"'\[{}\],#=][^,}\]#]*)`)
}

// grouped is a number with its digits in groups.
func grouped() *regexp.Regexp {
	return regexp.MustCompile(`^([A-Za-z0-9_-]+)\s*=\s*([0-9]{1,3}(?:,[0-9]{3})+)\b`)
}

// number is a number that is wrong for another reason than that it has no quotes.
func number() *regexp.Regexp { return regexp.MustCompile(`^[+-]?[0-9_]+$`) }

// anotherPair is a pair as YAML, or a program without a mark between the two, has it.
func anotherPair() *regexp.Regexp {
	return regexp.MustCompile(`^([A-Za-z0-9_-]+)(?:\s*:\s*|\s+)["'\[{]`)
}

// anotherTable is a line as HAProxy or nginx has it: words, perhaps with a brace.
func anotherTable() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][^=\["']*$`) }

// valueRemedy says how the value of a key has to be written that stands there without quotes; "" if it is good as it is.
func valueRemedy(key, value string) string {
	unprintable := func(c rune) bool { return !strconv.IsPrint(c) }
	if _, err := toml.Decode("k = "+value, new(map[string]any)); err == nil || number().MatchString(value) || strings.ContainsFunc(value, unprintable) {
		return ""
	}
	switch strings.ToLower(value) {
	case "true", "yes", "on":
		return "needs " + key + " = true"
	case "false", "no", "off":
		return "needs " + key + " = false"
	}
	if value = strings.Trim(value, "\u201c\u201d\u2018\u2019\u201e"); value == "" || strings.ContainsAny(value, "\"'") {
		return "needs straight quotes around a text"
	}
	return "a text needs quotes: " + key + " = " + quote(value)
}
