package test

import (
	"regexp"
	"strings"
)

// volatile is what differs from one run to the next.
var volatile = []struct {
	pattern *regexp.Regexp
	word    string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`\b[0-9a-f]{16}\b`), "SESSION"},
	{regexp.MustCompile(`(?m)^(version|process) .*`), "$1 ..."},
	{regexp.MustCompile(`\b(\d+(\.\d+)?(ns|us|µs|ms|s|m|h|d))+( ago)?(\s|,|$)`), "AGE$5"},
	{regexp.MustCompile(`\d+(\.\d+)? (B|KiB|MiB|GiB)\b`), "SIZE"},
	{regexp.MustCompile(`(loops +\d+, sessions) [0-9 ]+`), "$1 N"},
	{regexp.MustCompile(`(weight_changed \S+ \S+) \d+ -> \d+`), "$1 N -> N"},
	{regexp.MustCompile(`\d+\.\d+% of the hash keys`), "N% of the hash keys"},
	{regexp.MustCompile(`(?m)^(backend \S+ of pool \S+ drains: .*\n)(?:backend \S+ of pool \S+ drains: .*\n)+`), "$1"}, // they end one after the other
	{regexp.MustCompile(`[ \t]+`), " "},
	{regexp.MustCompile(`(?m) $`), ""},
}

// steady is a text without what is volatile.
func steady(text string) string {
	for _, v := range volatile {
		text = v.pattern.ReplaceAllString(text, v.word)
	}
	return strings.TrimSpace(text)
}
