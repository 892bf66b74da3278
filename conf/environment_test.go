package conf

import (
	"errors"
	"strings"
	"testing"
)

// withVariables is a configuration whose strings name variables, in tables, lists and tables in lists.
const withVariables = `
[log]
level = "${TEST_LEVEL:-debug}"
[listener.a]
address = [":${TEST_PORT}", ":${TEST_OTHER:-7}"]
pool = "${TEST_POOL}"
[pool.p]
backends = [{ address = "10.0.0.1:1", name = "${TEST_POOL}" }]
[pool.p.health]
steps = [{ send = "$${x}${TEST_POOL}$$" }]
`

// TestEnvironment expands variables wherever a string stands.
func TestEnvironment(t *testing.T) {
	t.Setenv("TEST_PORT", "6379")
	t.Setenv("TEST_POOL", "p")
	t.Setenv("TEST_OTHER", "")
	c, err := Parse("lb.toml", []byte(withVariables))
	if err != nil {
		t.Fatal(err)
	}
	got := []string{c.Log.Level, c.Listeners[0].Address[0], c.Listeners[0].Address[1], c.Listeners[0].Pool,
		c.Pools[0].Backends[0].Name, c.Pools[0].Health.Steps[0].Send}
	for i, want := range []string{"debug", ":6379", ":7", "p", "p", "${x}p$$"} {
		if got[i] != want {
			t.Errorf("text %d is %q, want %q", i, got[i], want)
		}
	}
	effective := string(c.Effective())
	if want := `pool = "p" # with text from the environment`; !strings.Contains(effective, want) {
		t.Errorf("there is no %s in\n%s", want, effective)
	}
	t.Setenv("TEST_PORT", "")
	again, err := Parse("lb.toml", []byte(effective))
	if err != nil {
		t.Fatal(err)
	}
	if d := c.Compare(again); len(d) > 0 {
		t.Errorf("the effective configuration differs: %v", d)
	}
}

// TestEnvironmentMistakes: each mistake has its line and key, and says what would help.
func TestEnvironmentMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"${TEST_NOT_THERE}": `found "${TEST_NOT_THERE}"; the environment has no variable TEST_NOT_THERE, or an empty one; ` +
			`needs the variable, or a text in its place, "${TEST_NOT_THERE:-TEXT}"`,
		"a${":        `found "a${"; ` + variableNeeds,
		"${}":        `found "${}"; ` + variableNeeds,
		"${1A}":      `found "${1A}"; ` + variableNeeds,
		"${A B}":     `found "${A B}"; ` + variableNeeds,
		"${A-b}":     `found "${A-b}"; ` + variableNeeds,
		"$${x}${:-}": `found "$${x}${:-}"; ` + variableNeeds,
	} {
		_, err := Parse("lb.toml", []byte("[listener.a]\naddress = ':1'\npool = '"+text+"'\n[pool.p]\nbackends = ['10.0.0.1:1']"))
		if want = "lb.toml:3: listener.a.pool: " + want; err == nil || err.Error() != want {
			t.Errorf("%s gives\n%v, want\n%s", text, err, want)
		}
		mistakes, _ := errors.AsType[Errors](err)
		if mistakes.OnlyEnvironment() != strings.HasPrefix(text, "${TEST") {
			t.Errorf("%s: OnlyEnvironment is %v", text, mistakes.OnlyEnvironment())
		}
	}
}

// TestForeignEnvironment: a text that somebody sends gets no other variables than those of the file in force.
func TestForeignEnvironment(t *testing.T) {
	t.Setenv("TEST_PORT", "6379")
	t.Setenv("TEST_POOL", "p")
	t.Setenv("TEST_SECRET", "s3cret")
	known, err := Parse("lb.toml", []byte(withVariables))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseForeign("sent", []byte(withVariables), known); err != nil {
		t.Errorf("the same text: %v", err)
	}
	_, err = ParseForeign("sent", []byte(strings.ReplaceAll(withVariables, "TEST_POOL", "TEST_SECRET")), known)
	if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "no variable TEST_SECRET") {
		t.Errorf("another variable: %v", err)
	}
}
