package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/conf"
)

// TestExamples: `example` lists all of them, and each is a configuration without a mistake or a warning, which begins
// with the line for editors and says what it is for.
func TestExamples(t *testing.T) {
	code, list, stderr := command(t, "example")
	if code != exitDone || stderr != "" {
		t.Fatal(code, stderr)
	}
	for _, name := range []string{"postgres", "patroni", "redis", "dns", "mysql", "mqtt", "tls", everyKey} {
		if !regexp.MustCompile(`(?m)^` + name + `  +\S`).MatchString(list) {
			t.Errorf("%s is not in the list:\n%s", name, list)
		}
	}
	for _, e := range exampleList() {
		code, text, stderr := command(t, "example", e.word)
		if code != exitDone || stderr != "" {
			t.Errorf("%s: exit code %d, %s", e.word, code, stderr)
		}
		c, err := conf.Parse(e.word, []byte(text))
		if err != nil {
			t.Error(err)
			continue
		}
		if w := c.Warnings(); len(w) > 0 {
			t.Errorf("%s: %v", e.word, w)
		}
		if e.word != everyKey && !strings.HasPrefix(text, "#:schema ./lb.schema.json\n# ") {
			t.Errorf("%s does not begin with the schema and what it is for", e.word)
		}
		if len(e.meaning) < 20 || len(e.meaning) > 110 {
			t.Errorf("%s has the meaning %q", e.word, e.meaning)
		}
	}
}

// TestExampleFiles: the folder that packages install has exactly the examples.
func TestExampleFiles(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(configurationsFolder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		name := strings.TrimSuffix(filepath.Base(file), ".toml")
		if err != nil || string(text) != string(exampleFile(name)) {
			t.Errorf("%s is not what the program prints: %v", file, err)
		}
		names = append(names, name)
	}
	if list := exampleList(); len(list) != len(names)+1 || !slices.ContainsFunc(list, func(e candidate) bool {
		return e.word == names[0]
	}) {
		t.Errorf("the folder has %q, the list %v", names, list)
	}
}

func TestExampleMistakes(t *testing.T) {
	for _, name := range []string{"oracle", "../completions/limeload-l4", "POSTGRES", "postgres.toml"} {
		code, stdout, stderr := command(t, "example", name)
		if code != exitUsage || stdout != "" ||
			!strings.Contains(stderr, "there are dns, fleet, mqtt, mysql, patroni, postgres, redis, tls, all") {
			t.Errorf("%s: exit code %d, %s%s", name, code, stdout, stderr)
		}
	}
}
