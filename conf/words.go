package conf

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// The words in mistakes for values and choices.

// either lists texts as a choice: `"json" or "console"`.
func either(texts []string) string {
	text := `"` + strings.Join(texts, `", "`) + `"`
	if i := strings.LastIndex(text, ", "); i >= 0 {
		text = text[:i] + " or " + text[i+2:]
	}
	return text
}

// describe names the type and value of v, for a value of the wrong type: `the integer 15`.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return "the string " + quote(v)
	case int64:
		return "the integer " + literal(v)
	case float64:
		return "the number " + literal(v)
	case bool:
		return literal(v)
	case nil:
		return "null"
	case time.Time:
		return "a date or time"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	}
	return "a list"
}

// literal writes a value of the right type as the file does, `300` or `"udp"`.
func literal(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case float64:
		if s := strconv.FormatFloat(v, 'g', -1, 64); math.Trunc(v) != v || strings.Contains(s, "e") {
			return s
		}
		return strconv.FormatFloat(v, 'f', 1, 64) // "1.0" is not the integer 1
	}
	return fmt.Sprint(v)
}
