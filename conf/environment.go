package conf

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Strings of a configuration may take text from the environment of the process: "${NAME}" is the value of the variable
// NAME, and "${NAME:-TEXT}" is TEXT if there is no such variable or its value is empty. "$${" stands for "${".

const variableNeeds = `needs "${NAME}" or "${NAME:-TEXT}" for a variable of the environment, ` +
	`or "$${" for these two characters`

// errNoVariable is the cause of a mistake that another environment would not have.
var errNoVariable = errors.New("a variable that the environment lacks")

// OnlyEnvironment reports whether all mistakes are variables that the environment of this process lacks. A process with
// another environment may find none of them.
func (e Errors) OnlyEnvironment() bool {
	for _, one := range e {
		if !errors.Is(one, errNoVariable) {
			return false
		}
	}
	return true
}

// Expand returns s with the variables of the environment that it names, as Parse expands the strings of a
// configuration. After a mistake it returns s as it is.
func Expand(s string) string {
	if text, e := expand(s, os.Getenv); e == nil {
		return text
	}
	return s
}

// environment returns a function that gets a variable, and notes in c that it was asked for. If known is not nil, there
// are only the variables that known has asked for.
func (c *Config) environment(known *Config) func(name string) string {
	c.variables = map[string]bool{}
	return func(name string) string {
		c.variables[name] = true
		if known != nil && !known.variables[name] {
			return ""
		}
		return os.Getenv(name)
	}
}

// expandAll returns the value v, which is at path and at, with its strings expanded by the variables that get returns.
// It changes tables and lists in place.
func (r *report) expandAll(v any, get func(string) string, at *place, path string) any {
	switch v := v.(type) {
	case string:
		text, e := expand(v, get)
		if e != nil {
			r.lines[path] = at.line
			r.add(path, *e)
			return v
		}
		if strings.Contains(v, "${") {
			r.origin[path] = "with text from the environment"
		}
		return text
	case map[string]any:
		for key, one := range v {
			v[key] = r.expandAll(one, get, at.child(key), join(path, key))
		}
	case []any:
		for i, one := range v {
			v[i] = r.expandAll(one, get, at.item(i), element(path, i))
		}
	case []map[string]any:
		for i, one := range v {
			r.expandAll(one, get, at.item(i), element(path, i))
		}
	}
	return v
}

// expand expands one string. The mistake has no place.
func expand(s string, get func(name string) string) (string, *Error) {
	var b strings.Builder
	for rest := s; ; {
		before, after, more := strings.Cut(rest, "${")
		b.WriteString(before)
		if !more {
			return b.String(), nil
		}
		if strings.HasSuffix(before, "$") {
			b.WriteByte('{') // its "$" is the one before
			rest = after
			continue
		}
		inside, behind, closed := strings.Cut(after, "}")
		name, otherwise, has := strings.Cut(inside, ":-")
		if !closed || !validVariable(name) {
			return "", &Error{Found: quote(s), Allowed: variableNeeds}
		}
		value := get(name)
		if value == "" && !has {
			return "", &Error{Found: quote(s),
				Message: fmt.Sprintf("the environment has no variable %s, or an empty one", printable(name)),
				Allowed: fmt.Sprintf(`needs the variable, or a text in its place, "${%s:-TEXT}"`, printable(name)),
				err:     errNoVariable}
		}
		if value == "" {
			value = otherwise
		}
		b.WriteString(value)
		rest = behind
	}
}

// escape returns s as expand has it back.
func escape(s string) string { return strings.ReplaceAll(s, "${", "$${") }

// validVariable reports whether a shell can give that name to a variable (POSIX.1, 8.1).
func validVariable(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
	return name != "" && strings.Trim(name, letters+"0123456789") == "" && strings.Contains(letters, name[:1])
}
