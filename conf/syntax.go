package conf

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// The TOML library reports which character it did not expect. A beginner in TOML needs to know what to write instead:
// quotes around a text, or KEY = VALUE. The functions here guess that from the line that the library has refused.

// maxRemedied is the longest line that gets a remedy. Nobody writes a longer one by hand.
const maxRemedied = 512 // bytes

// lineOf returns a line of data, counted from 1, without its end.
func lineOf(data []byte, n int) string {
	for range n - 1 {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return strings.TrimSuffix(string(line), "\r")
}

// syntaxRemedy suggests how to correct a line that is not valid TOML; "" if it has no suggestion.
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
		return "needs KEY = VALUE, or a table as in [listener.NAME]; `limeload-l4 example all` has them all"
	}
	return ""
}

// pairs matches each KEY = VALUE without quotes, also inside inline tables.
func pairs() *regexp.Regexp {
	return regexp.MustCompile(`([A-Za-z0-9_.-]+)\s*=\s*([^\s"'\[{}\],#=][^,}\]#]*)`)
}

// grouped matches a number with commas between groups of digits.
func grouped() *regexp.Regexp {
	return regexp.MustCompile(`^([A-Za-z0-9_-]+)\s*=\s*([0-9]{1,3}(?:,[0-9]{3})+)\b`)
}

// number matches a whole number, which needs no quotes.
func number() *regexp.Regexp { return regexp.MustCompile(`^[+-]?[0-9_]+$`) }

// anotherPair matches KEY: VALUE and KEY VALUE, as in YAML and in nginx.
func anotherPair() *regexp.Regexp {
	return regexp.MustCompile(`^([A-Za-z0-9_-]+)(?:\s*:\s*|\s+)["'\[{]`)
}

// anotherTable matches a line of plain words, as in HAProxy and nginx, perhaps with a brace.
func anotherTable() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][^=\["']*$`) }

// valueRemedy says how to write a value that has no quotes; "" if it is valid as it is.
func valueRemedy(key, value string) string {
	unprintable := func(c rune) bool { return !strconv.IsPrint(c) }
	if _, err := toml.Decode("k = "+value, new(map[string]any)); err == nil || number().MatchString(value) ||
		strings.ContainsFunc(value, unprintable) {
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
