package conf

import (
	"fmt"
	"strconv"
	"strings"
)

// AccessLines say which sessions and flows have a line in the log when they end. In a file they are "all", "errors",
// "1/100" or "none", and true and false stand for "all" and "none". The zero value is "none".
//
// Those that did not end in order have a line unless it is "none". Of the others, every n-th has one: n is the number,
// 1 for "all", and never for a negative one, "errors".
type AccessLines int

// The values of AccessLines that have names.
const (
	AccessErrors AccessLines = -1
	AccessNone   AccessLines = 0
	AccessAll    AccessLines = 1
)

// maxAccessEvery bounds the number of "1/100": with fewer lines, a sample is of no use.
const maxAccessEvery = 1_000_000

// UnmarshalText reads a word or "1/" and a number.
func (a *AccessLines) UnmarshalText(text []byte) error {
	switch s := string(text); s {
	case "all":
		*a = AccessAll
	case "errors":
		*a = AccessErrors
	case "none":
		*a = AccessNone
	default:
		digits, ok := strings.CutPrefix(s, "1/")
		n, err := strconv.Atoi(digits)
		if !ok || err != nil || n < 1 || n > maxAccessEvery || strings.Trim(digits, "0123456789") != "" {
			return fmt.Errorf("access lines %s: %w", quote(s), errUnit)
		}
		*a = AccessLines(n)
	}
	return nil
}

// setBool sets the value that true or false stands for.
func (a *AccessLines) setBool(is bool) {
	*a = AccessNone
	if is {
		*a = AccessAll
	}
}

// On reports whether any session has a line.
func (a AccessLines) On() bool { return a != AccessNone }

// String returns the text as in the configuration.
func (a AccessLines) String() string {
	switch {
	case a == AccessNone:
		return "none"
	case a == AccessAll:
		return "all"
	case a < 0:
		return "errors"
	}
	return "1/" + strconv.Itoa(int(a))
}

func (AccessLines) needs() string {
	return fmt.Sprintf(`needs "all", "errors", "1/N" with an N of 1 to %d, or "none"`, maxAccessEvery)
}

// meant returns the word that v looks like; "" if there is none.
func (AccessLines) meant(v any) string {
	s, ok := v.(string)
	if !ok {
		return ""
	}
	return nearest(s, []string{"all", "errors", "none"})
}
